"""Lets a file arrive at its own rate, as from a camera. Used by the stream's ingest thread."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Holds packets back until their time has come, and tells when that was."""

    def __init__(self, wait: Callable[[float], bool], start_s: float = 0.0) -> None:
        """`wait(seconds)` sleeps, and returns True when the stream should stop. The first comes after `start_s`."""
        self._wait, self._start_ns = wait, int(start_s * 1e9)
        self._begin_ns: int | None = None
        self._latest_ns = 0

    def arrival(self, media_ns: int) -> int | None:
        """Waits for the packet of that time; UTC ns at which it was due: a reader that comes late finds it waiting, as
        in the buffer of a camera's connection, and has to answer for the delay. None: the stream should stop."""
        now = time.monotonic_ns()
        if self._begin_ns is None:
            self._begin_ns = now + self._start_ns - media_ns
        elif media_ns < self._latest_ns:  # times that begin anew, as in files that were joined
            self._begin_ns += self._latest_ns - media_ns
        self._latest_ns = media_ns
        due = self._begin_ns + media_ns
        if self._wait(max(0, due - now) / 1e9):
            return None
        return time.time_ns() - max(0, time.monotonic_ns() - due)
