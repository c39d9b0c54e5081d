"""Results go out over ZeroMQ: one thread owns the XPUB socket, everything else hands over to it."""

from streamseg.publish.publisher import Publisher

__all__ = ["Publisher"]
