"""A stream as the pipeline reads it, with the test in the place of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from clips import read_number

from streamseg.channel import Inbox
from streamseg.config import StreamConfig
from streamseg.ingest.reader import BACKOFF_S, StreamReader
from streamseg.metrics import StreamMetrics
from streamseg.types import Frame


class Reading:
    """One stream as the pipeline reads it, with the test in the place of the engine."""

    def __init__(
        self,
        source: object,
        *,
        gpu: int | None = None,
        give_up_unopened: bool = False,
        backoff_s: tuple[float, float] = BACKOFF_S,
        **settings: Any,
    ) -> None:
        self.inbox, self.metrics = Inbox(), StreamMetrics()
        self.events: list[tuple[str, str, str]] = []
        self.reader = StreamReader(
            StreamConfig(id="cam", source=str(source), **settings),
            self.inbox,
            self.metrics,
            self._announce,
            gpu=gpu,
            give_up_unopened=give_up_unopened,
            backoff_s=backoff_s,
        )

    def _announce(self, stream: str, epoch: int, state: str, reason: str, detail: str) -> None:
        self.events.append((state, reason, detail))

    @property
    def states(self) -> list[str]:
        return [state for state, _, _ in self.events]

    def __enter__(self) -> Reading:
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop()
        self.inbox.close()
        assert self.reader.join(10), "the ingest thread does not end"
        assert self.reader.crash is None, self.reader.crash
        for _frame in self.inbox.drain():
            self.metrics.drop("shutdown")
        assert self.metrics.in_flight == 0, self.metrics.snapshot()

    def frames(self) -> Iterator[Frame]:
        """To the end of the stream, or without end; each one counts as published when the next is asked for."""
        while batch := self.inbox.take(1, 0):
            try:
                yield batch[0]
            finally:
                self.metrics.publish()


def until(condition: Callable[[], Any], what: str, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout} s: {what}"
        time.sleep(0.01)


def number_of(frame: Frame) -> int:
    return read_number(frame.picture.rgb(160, 120))


def read_all(source: object, **options: Any) -> tuple[Reading, list[Frame], list[int]]:
    """Everything of a source that ends. The numbers are what the pictures themselves say."""
    with Reading(source, **options) as reading:
        frames = []
        numbers = []
        for frame in reading.frames():
            frames.append(frame)
            numbers.append(number_of(frame))
    return reading, frames, numbers
