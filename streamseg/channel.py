"""Where decoded frames wait for the engine: a slot per stream, filled by ingest threads, emptied by the batcher."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

from streamseg.types import Frame


class Inbox:
    """Newest-frame slots for live streams, short waiting lines for files, and a fair, deadline-bound `take`.

    `put` is called by one ingest thread a stream, `take` by the inference thread, `close` by anyone.
    """

    FILE_DEPTH = 2
    """Frames a file may have waiting: enough that the engine never waits for the decoder's hand-over."""

    def __init__(self, size_key: Callable[[Frame], Hashable] = lambda frame: None) -> None:
        """Frames whose `size_key` is equal may share a batch."""
        self._size_key = size_key
        self._changed = threading.Condition()
        # In the order in which streams are served next: taking from one moves it to the end.
        self._waiting: dict[str, deque[Frame]] = {}
        self._open_streams: set[str] = set()
        self._closed = False

    def register(self, stream: str) -> None:
        with self._changed:
            self._waiting.setdefault(stream, deque())
            self._open_streams.add(stream)

    def put(self, frame: Frame, *, live: bool) -> Frame | None:
        """Hands a frame over. Live: at once, returning the older frame that it replaces, to be counted as dropped.
        Otherwise: waits for room; returns the frame itself where the inbox was closed meanwhile."""
        with self._changed:
            line = self._waiting[frame.stream]
            if live:
                old = line.popleft() if line else None
            else:
                old = None
                self._changed.wait_for(lambda: self._closed or len(line) < self.FILE_DEPTH)
            if self._closed:
                if old is not None:
                    line.append(old)  # left for `drain`, which counts it
                return frame
            line.append(frame)
            self._changed.notify_all()
            return old

    def finish(self, stream: str) -> None:
        """The stream will put no more. What it left is still taken."""
        with self._changed:
            self._open_streams.discard(stream)
            self._changed.notify_all()

    def take(self, max_batch: int, max_wait_s: float) -> list[Frame]:
        """The next batch, at most one frame a stream; empty when closed, or when every stream has finished.

        Streams are served in turn. Once one frame waits, up to `max_wait_s` is given to others to fill the batch.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._ready() or not self._open_streams)
            if self._closed:
                return []
            if max_batch > 1 and self._ready():
                deadline = time.monotonic() + max_wait_s
                while not self._full(max_batch) and (left := deadline - time.monotonic()) > 0:
                    self._changed.wait(left)
            batch = self._pick(max_batch)
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[Frame]:
        """What was left waiting when it was closed."""
        with self._changed:
            left = [frame for line in self._waiting.values() for frame in line]
            for line in self._waiting.values():
                line.clear()
            return left

    def _full(self, max_batch: int) -> bool:
        """Whether waiting longer can add nothing to the batch."""
        ready = self._ready()
        return self._closed or len(ready) >= max_batch or self._open_streams.issubset(ready)

    def _ready(self) -> list[str]:
        return [stream for stream, line in self._waiting.items() if line]

    def _pick(self, max_batch: int) -> list[Frame]:
        batch: list[Frame] = []
        for stream in self._ready():
            frame = self._waiting[stream][0]
            if batch and self._size_key(frame) != self._size_key(batch[0]):
                continue
            batch.append(self._waiting[stream].popleft())
            self._waiting[stream] = self._waiting.pop(stream)
            if len(batch) == max_batch:
                break
        return batch
