"""Counters of what went in and what came out, a stream each. Any thread may count; one lock a stream."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import Any

from streamseg.types import StreamState

RATE_WINDOW_SECONDS = 5.0


class StreamMetrics:
    """`frames` = `published` + the sum of `dropped` + what is still on its way: nothing is lost without a reason."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self.state: StreamState = "connecting"
        self.frames = 0
        self.published = self.reused = 0  # reused: published without inference, as nothing moved
        self.dropped: Counter[str] = Counter()
        self.expected: int | None = None  # frames in the file, where it says so
        self._recent: deque[float] = deque(maxlen=1024)

    def entered(self) -> int:
        """Counts a frame in and returns its number, from 0."""
        with self._lock:
            self.frames += 1
            return self.frames - 1

    def drop(self, reason: str, count: int = 1) -> None:
        with self._lock:
            if count:
                self.dropped[reason] += count
                self._lock.notify_all()

    def publish(self, *, reused: bool = False) -> None:
        with self._lock:
            self.published += 1
            self.reused += reused
            self._recent.append(time.monotonic())
            self._lock.notify_all()

    @property
    def in_flight(self) -> int:
        with self._lock:
            return self._in_flight()

    def wait_idle(self, timeout_s: float) -> bool:
        """True once no frame of the stream is on its way."""
        with self._lock:
            return self._lock.wait_for(lambda: self._in_flight() == 0, timeout_s)

    def _in_flight(self) -> int:
        return self.frames - self.published - self.dropped.total()

    def snapshot(self) -> dict[str, Any]:
        """JSON-ready: state, fps over the last seconds, frames, published, of these reused, dropped by reason."""
        with self._lock:
            now = time.monotonic()
            recent = [t for t in self._recent if t >= now - RATE_WINDOW_SECONDS]
            gaps = len(recent) - 1
            # Silence since the last frame counts as soon as it is longer than the gaps between them.
            span = max(recent[-1] - recent[0], (now - recent[0]) * gaps / (gaps + 1)) if gaps > 0 else 0.0
            fps = gaps / span if span > 0 else 0.0
            return {
                "state": self.state,
                "fps": round(fps, 2),
                "frames": self.frames,
                "published": self.published,
                "reused": self.reused,
                "dropped": dict(self.dropped),
            }
