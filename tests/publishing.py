"""A publisher and plain subscribers for tests, closed at the end of each; import the fixtures by name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from results import CLASSES, ENGINE

from streamseg import wire
from streamseg.config import PublishConfig
from streamseg.errors import StageError
from streamseg.publish import Publisher

Open = Callable[..., tuple[Publisher, str]]


@pytest.fixture(name="publisher")
def publisher_fixture() -> Iterator[Open]:
    """`publisher(streams=["cam1"], status=None, **config)` -> an open Publisher and its endpoint."""
    opened: list[Publisher] = []

    def start(streams: tuple[str, ...] = ("cam1",), status: Any = None, **config: Any) -> tuple[Publisher, str]:
        config = {"bind": "tcp://127.0.0.1:*", "encode_threads": 1} | config
        made = Publisher(PublishConfig(**config), streams, CLASSES, engine=ENGINE, status=status)
        opened.append(made)
        return made, made.open()

    yield start
    for each in opened:
        with contextlib.suppress(StageError):
            each.close(0)


class Subscriber:
    """A plain SUB socket, as any language has one."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *prefixes: str, **options: Any) -> None:
        self.socket = context.socket(zmq.SUB)
        self.socket.linger = 0
        for name, value in options.items():
            setattr(self.socket, name, value)
        for prefix in prefixes:
            self.socket.subscribe(prefix)
        self.socket.connect(endpoint)

    def receive(self, timeout_s: float = 10) -> tuple[str, wire.Header, bytes]:
        assert self.socket.poll(int(timeout_s * 1000)), "nothing came"
        topic, header, payload = self.socket.recv_multipart()
        return topic.decode(), wire.parse_header(header), payload

    def until(self, condition: Callable[[wire.Header], bool]) -> wire.Header:
        while True:
            header = self.receive()[1]
            if condition(header):
                return header

    def nothing_waits(self) -> bool:
        return not self.socket.poll(200)


@pytest.fixture(name="subscriber")
def subscriber_fixture() -> Iterator[Callable[..., Subscriber]]:
    """`subscriber(endpoint, *prefixes, **socket_options)` -> a Subscriber, closed at the end."""
    made: list[Subscriber] = []
    with zmq.Context() as context:

        def connect(endpoint: str, *prefixes: str, **options: Any) -> Subscriber:
            made.append(Subscriber(context, endpoint, *prefixes, **options))
            return made[-1]

        yield connect
        for each in made:
            each.socket.close()


def eventually(condition: Callable[[], bool], what: str, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.005)


def joined(publisher: Publisher, *topics: str) -> None:
    eventually(lambda: all(map(publisher.wants, topics)), f"a subscription to {topics}")
