"""What the headers of events and heartbeats say. Used by the publisher thread only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamseg import wire
from streamseg.types import StreamState

Status = Callable[[], Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a stream's state. `epoch` None: that of the stream's last result, or else of its last event."""

    stream: str
    state: StreamState
    reason: str
    detail: str
    epoch: int | None
    at_ns: int


class News:
    """Remembers every stream's last event, for the heartbeat and for saying which have not ended."""

    def __init__(self, streams: Mapping[str, list[str]], engine: str, status: Status) -> None:
        """`streams`: the topics of each; `status`: see Publisher."""
        self._streams = streams
        self._engine = engine
        self._status = status
        self._events: dict[str, Event] = {}
        self._started_ns = time.time_ns()

    def event(self, event: Event, epoch: int | None) -> dict[str, Any]:
        """The header of `event`; `epoch` is the stream's, if it has one yet."""
        before = self._events.get(event.stream)
        number = event.epoch or epoch or (before and before.epoch) or self._epoch
        self._events[event.stream] = replace(event, epoch=number)
        fields = wire.header_fields("event", event.stream, number, event.at_ns)
        return fields | {"state": event.state, "reason": event.reason, "detail": event.detail}

    def heartbeat(
        self,
        published: Mapping[str, int],
        sequences: Callable[[list[str]], dict[str, int]],
        encoded: Mapping[str, int],
        subscriptions: int,
    ) -> dict[str, Any]:
        status = self._status()
        states = {}
        for stream, topics in self._streams.items():
            states[stream] = {
                "state": "connecting",
                "fps": 0.0,
                "frames": published[stream],
                "dropped": {},
                **status.get(stream, {}),
                # The last event is newer than any status that was collected before it.
                **({"state": self._events[stream].state} if stream in self._events else {}),
                "published": published[stream],
                "seq": sequences(topics),
            }
        now_ns = time.time_ns()
        return wire.header_fields("heartbeat", None, self._epoch, now_ns) | {
            "engine": self._engine,
            "uptime_s": round((now_ns - self._started_ns) / 1e9, 3),
            "subscriptions": subscriptions,
            "encoded": dict(encoded),
            "streams": states,
        }

    def farewells(self) -> list[Event]:
        """An `ended` event for every stream that has told no end yet."""
        over = {stream for stream, event in self._events.items() if event.state in ("ended", "failed")}
        return [
            Event(stream, "ended", "stopped", "the daemon stops", None, time.time_ns())
            for stream in self._streams
            if stream not in over
        ]

    @property
    def _epoch(self) -> int:
        return self._started_ns // 1_000_000
