"""streamseg: camera streams in, steady segmentation masks out over ZeroMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamseg.subscriber import Message, subscribe, subscribe_async

__version__ = "0.1.0"
__all__ = ["Message", "__version__", "subscribe", "subscribe_async"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import streamseg.wire` needs nothing beyond numpy.
    if name in ("Message", "subscribe", "subscribe_async"):
        from streamseg import subscriber  # not named as the function: importing it would put the module in its place

        return getattr(subscriber, name)
    raise AttributeError(f"module 'streamseg' has no attribute {name!r}")
