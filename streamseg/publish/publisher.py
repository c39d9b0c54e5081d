"""The publisher: takes results and sends them. Its own thread holds the socket and, up to 3 cores, encodes as well."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from streamseg import wire
from streamseg.config import PublishConfig
from streamseg.encode import Encoded, Encoder
from streamseg.errors import StageError
from streamseg.publish.handover import Handover
from streamseg.publish.news import Event, News, Status
from streamseg.publish.outlet import Outlet
from streamseg.publish.subscriptions import Subscriptions
from streamseg.types import ClassInfo, Result, StreamState

_WAITING = 2  # results that may wait for each encoder: it hardly idles, and none grows old
_WAITING_LOSSLESS = 6  # nothing ages in a file: 1080p on 2 cores, 86 -> 93 FPS, idle 12 -> 6 %
_HEARTBEAT_S = 1.0
_REPLAY_S = 0.05  # replays reach every subscriber of a topic: however many join, no more often than this


@dataclass(frozen=True, slots=True)
class PublishCounters:
    """Totals since `open`: results by stream, `encoded` by kind, `sent` by topic (replays too)."""

    results: dict[str, int]
    encoded: dict[str, int]
    sent: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A result and its messages: a list where an encoder thread made them, lazy where the publisher thread will."""

    result: Result
    messages: Iterable[Encoded] = field(repr=False)


class Publisher:
    """Open it, `publish` results and `event`s from any thread, close it. One pipeline has one.

    Order is kept for each stream, events included. Raises BindError and ConfigError from `open`, StageError from
    everything else once its thread has died.
    """

    def __init__(
        self,
        config: PublishConfig,
        streams: Sequence[str],
        classes: Sequence[ClassInfo],
        *,
        engine: str,
        undrawn: frozenset[int] = frozenset(),
        status: Status | None = None,
    ) -> None:
        """`status` gives {stream: {state, fps, frames, dropped}} for the heartbeat, called in the publisher thread."""
        self._config = config
        self._encoder = Encoder(
            classes,
            encoding=config.encoding,
            jpeg_quality=config.jpeg_quality,
            undrawn=undrawn,
            jpeg_on_gpu=config.jpeg == "gpu",
        )
        self._topics = {stream: [*self._encoder.topics(stream), wire.topic("event", stream)] for stream in streams}
        self._news = News(self._topics, engine, status or dict)
        known = (topic for topics in self._topics.values() for topic in topics)
        self._subscriptions = Subscriptions([*known, wire.HEARTBEAT])
        self._outlet = Outlet(config)
        lanes = min(_encode_threads(config), len(streams))
        waiting = _WAITING_LOSSLESS if config.wait_subscriber else _WAITING
        self._inbox: Handover[_Ready | Result | Event] = Handover(waiting * max(1, lanes), self._wake)
        self._lanes: list[Handover[Result | Event]] = [Handover(waiting) for _ in range(lanes)] if lanes > 1 else []
        self._lane_of = {stream: index % max(1, lanes) for index, stream in enumerate(streams)}
        self._threads: list[threading.Thread] = []
        self._failure: StageError | None = None
        self._give_up_at = math.inf  # monotonic seconds: when closing stops waiting for slow subscribers
        # The publisher thread's own:
        self._latest: dict[str, Result] = {}
        self._results: dict[str, int] = dict.fromkeys(streams, 0)
        self._encoded: dict[str, int] = {}
        self._joined: set[str] = set()
        self._next_replay = 0.0
        self._next_heartbeat = 0.0

    # ---- for the pipeline, from any thread ----

    def open(self) -> str:
        """Bind and start; returns the endpoint with its real port. Raises BindError, ConfigError."""
        self._alarm, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._alarm.setblocking(False)
        bound: Future[str] = Future()
        publisher = threading.Thread(target=self._run, args=(bound,), name="streamseg-publish", daemon=True)
        self._threads = [publisher]
        publisher.start()
        try:
            endpoint = bound.result()
        except BaseException:
            self.close(0)
            raise
        for index, lane in enumerate(self._lanes):
            encoder = threading.Thread(target=self._encode, args=(lane,), name=f"streamseg-encode-{index}", daemon=True)
            encoder.start()
            self._threads.insert(0, encoder)
        return endpoint

    def publish(self, result: Result) -> None:
        """Hand one result over; waits while those before it are still being encoded. Raises StageError."""
        self._line(result.frame.stream).put(result)

    def event(
        self, stream: str, state: StreamState, reason: str = "", detail: str = "", *, epoch: int | None = None
    ) -> None:
        """Tell a change of a stream's state; it goes out after the results that were handed over before it.

        `epoch` defaults to that of the stream's last result, or else of its last event. Raises StageError.
        """
        self._line(stream).put(Event(stream, state, reason, detail, epoch, time.time_ns()))

    def wants(self, topic: str) -> bool:
        """Whether the topic has a subscriber now."""
        return self._subscriptions.wants(topic)

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Wait until somebody subscribes to more than the heartbeat. False: timed out, or closed. Raises StageError."""
        there = self._subscriptions.wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        return there

    @property
    def counters(self) -> PublishCounters:
        return PublishCounters(dict(self._results), dict(self._encoded), dict(self._outlet.sent))

    def refuse(self) -> None:
        """Take nothing more: `publish` and `event` raise StageError, also where they wait. `close` is still to come."""
        for lane in self._lanes:
            lane.refuse()
        if not self._lanes:  # else the encoders go on putting there what they have
            self._inbox.refuse()

    def close(self, linger_s: float | None = None) -> None:
        """Send what was handed over, the last events and heartbeat; wait up to `linger_s` for subscribers to take it.

        None: 2 s, or without end where the configuration says `wait_subscriber`; closing once more, from another thread
        or a signal handler, can then only shorten it. Raises StageError if the publisher had died.
        """
        threads = self._threads
        if not threads:
            return
        if linger_s is None:
            linger_s = math.inf if self._config.wait_subscriber else 2.0
        self._give_up_at = min(self._give_up_at, time.monotonic() + linger_s)
        self._subscriptions.close()
        for lane in self._lanes:
            lane.close()
        for thread in threads[:-1]:
            thread.join()
        self._inbox.close()
        while threads[-1].is_alive() and time.monotonic() < self._give_up_at + _HEARTBEAT_S:
            threads[-1].join(0.1)
        self._threads = []  # one that is alive still lingers for a stalled reader: until that, or the process, ends
        if self._failure is not None:
            raise self._failure

    # ---- encoder threads ----

    def _line(self, stream: str) -> Handover[Result | Event] | Handover[_Ready | Result | Event]:
        return self._lanes[self._lane_of.get(stream, 0)] if self._lanes else self._inbox

    def _encode(self, lane: Handover[Result | Event]) -> None:
        try:
            while (item := lane.take(wait=True)) is not None:
                if isinstance(item, Result):
                    self._inbox.put(_Ready(item, list(self._encoder.messages(item, self.wants))))
                else:
                    self._inbox.put(item)
        except BaseException as error:
            self._fail("encoder", error)

    def _fail(self, stage: str, error: BaseException) -> None:
        failure = self._failure or (error if isinstance(error, StageError) else StageError(stage, error))
        self._failure = failure
        self._inbox.fail(failure)
        for lane in self._lanes:
            lane.fail(failure)
        self._subscriptions.close()

    # ---- the publisher thread ----

    def _wake(self) -> None:
        with suppress(OSError):  # it has been rung often enough, or nobody listens any more
            self._bell.send(b"!")

    def _run(self, bound: Future[str]) -> None:
        with self._alarm, self._bell:
            self._serve(bound)

    def _serve(self, bound: Future[str]) -> None:
        try:
            endpoint = self._outlet.open(self._alarm)
        except BaseException as error:
            bound.set_exception(error)
            return
        try:
            self._next_heartbeat = time.monotonic()
            self._heartbeat()
            bound.set_result(endpoint)
            while not self._inbox.finished:
                self._turn()
            self._farewell()
        except BaseException as error:
            if not bound.done():
                bound.set_exception(error)
            self._fail("publisher", error)
        finally:
            self._outlet.close(max(0.0, self._give_up_at - time.monotonic()) if self._failure is None else 0.0)

    def _turn(self) -> None:
        now = time.monotonic()
        due = min(self._next_heartbeat, self._next_replay) if self._joined else self._next_heartbeat
        self._outlet.poll(0 if len(self._inbox) else due - now)
        self._attend()
        if self._joined and time.monotonic() >= self._next_replay:
            self._replay()
        item = self._inbox.take(wait=False)
        if isinstance(item, Event):
            self._tell(item)
        elif isinstance(item, Result):
            self._send(_Ready(item, self._encoder.messages(item, self.wants)))
        elif item is not None:
            self._send(item)

    def _attend(self) -> None:
        """What cannot wait, even while a lossless send blocks: subscriptions and the heartbeat."""
        with suppress(BlockingIOError):
            self._alarm.recv(4096)
        for message in self._outlet.incoming():
            prefix = self._subscriptions.feed(message)
            if prefix is not None:
                self._joined.add(prefix)
        if time.monotonic() >= self._next_heartbeat:
            self._heartbeat()

    def _still_waiting(self) -> bool:
        """Whether a lossless send that blocks is to go on."""
        self._attend()
        return time.monotonic() < self._give_up_at

    def _send(self, ready: _Ready) -> None:
        result = ready.result
        for message in ready.messages:
            self._send_one(message)
        self._latest[result.frame.stream] = result
        self._results[result.frame.stream] = self._results.get(result.frame.stream, 0) + 1

    def _send_one(self, message: Encoded, *, replay: bool = False) -> None:
        kind = message.fields["kind"]
        self._encoded[kind] = self._encoded.get(kind, 0) + 1
        self._outlet.send(message.topic, message.fields, message.payload, replay=replay, retry=self._still_waiting)

    def _replay(self) -> None:
        """The last value of every topic that somebody has just joined, encoded now where nobody had wanted it."""
        joined, self._joined = tuple(self._joined), set()
        self._next_replay = time.monotonic() + _REPLAY_S
        done = set()
        for result in self._latest.values():
            frame = result.frame

            def missing(topic: str, epoch: int = frame.epoch, number: int = frame.number) -> bool:
                return topic.startswith(joined) and not self._outlet.holds(topic, epoch, number)

            for message in self._encoder.messages(result, missing):
                self._send_one(message, replay=True)
                done.add(message.topic)
        for stream, topics in self._topics.items():
            events = [topics[-1]] if stream not in self._latest else topics
            for topic in events:
                if topic.startswith(joined) and topic not in done:
                    self._outlet.replay(topic, self._still_waiting)
        if wire.HEARTBEAT.startswith(joined):
            self._outlet.replay(wire.HEARTBEAT, self._still_waiting)

    def _tell(self, event: Event) -> None:
        latest = self._latest.get(event.stream)
        fields = self._news.event(event, latest.frame.epoch if latest else None)
        self._outlet.send(wire.topic("event", event.stream), fields, b"", retry=self._still_waiting)

    def _heartbeat(self) -> None:
        """Never waits: the next one is only a second away."""
        self._next_heartbeat += _HEARTBEAT_S
        if self._next_heartbeat <= (now := time.monotonic()):
            self._next_heartbeat = now + _HEARTBEAT_S
        fields = self._news.heartbeat(self._results, self._outlet.sequences, self._encoded, len(self._subscriptions))
        self._outlet.send(wire.HEARTBEAT, fields, b"", retry=lambda: False)

    def _farewell(self) -> None:
        for event in self._news.farewells():
            self._tell(event)
        self._heartbeat()


def _encode_threads(config: PublishConfig) -> int:
    if config.encode_threads != "auto":
        return config.encode_threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if cores <= 3 else cores // 2
