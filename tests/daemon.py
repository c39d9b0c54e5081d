"""What tests of a running daemon share: starting it, and taking all that it publishes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq
from processes import Finished, Running
from rtsp_server import RtspServer

import streamseg
from streamseg.received import Message

StartServer = Callable[..., RtspServer]
ANY_PORT = "tcp://127.0.0.1:*"
STOP_SECONDS = 3.0


def endpoint_of(running: Running) -> str:
    return running.wait_for_line(r"publishing on (\S+) ")[1]


def report_of(finished: Finished) -> dict[str, dict[str, object]]:
    assert finished.code == 0, finished
    report: dict[str, dict[str, object]] = json.loads(finished.stdout)
    return report


def everything(endpoint: str, ends: int = 1, **options: object) -> Iterator[Message]:
    """Every message, until `ends` streams have told their end."""
    options = {"kind": ["mask", "labels", "frame", "picture", "event"], "every": True, "timeout": 30.0} | options
    with streamseg.subscribe(endpoint, **options) as messages:
        for message in messages:
            yield message
            if message.header.kind == "event" and message.header["state"] in ("ended", "failed"):
                ends -= 1
                if not ends:
                    return


@contextmanager
def stalled_subscriber(endpoint: str, topic: bytes = b"") -> Iterator[None]:
    """Subscribes, and never reads."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger, sub.rcvhwm, sub.rcvbuf = 0, 1, 4096
        sub.subscribe(topic)
        sub.connect(endpoint)
        assert sub.poll(20_000), "nothing comes"
        yield
