"""Ingest: sources opened, demuxed and decoded, one thread a stream."""
