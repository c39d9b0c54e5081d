"""Ctrl-C and SIGTERM between two steps rather than within one, so that a checkpoint is never half a step old."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Yields a function that raises the KeyboardInterrupt that came since; the second signal is not waited with.

    Python delivers signals to the main thread; elsewhere nothing is held and the function does nothing.
    """
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    def raise_held() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield raise_held
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield raise_held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
