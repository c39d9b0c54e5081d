"""Benchmarks: stages alone, the pipeline against their sum, and against the loop that one would write by hand."""
