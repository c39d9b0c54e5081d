"""The subscriber of a benchmark, a process of its own: takes every message, decodes nothing, tells when each came.

`sink` starts it: python -m streamseg.bench.sink ENDPOINT TOPIC…
It ends at end-of-input on stdin, when the publisher has closed, and prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import zmq

TOPICS = ("frame/", "labels/")
Message = list[Any]
"""[kind, stream, frame, seq, arrived_ns, latency_ns, bytes]"""
GONE_MS = 5000
"""How long the publisher's end of the connection is waited for."""


@contextmanager
def sink(endpoint: str, topics: Sequence[str] = TOPICS) -> Iterator[subprocess.Popen[bytes]]:
    """Its process, which is killed at the end; `taken` has it end by itself."""
    command = [sys.executable, "-m", __name__, endpoint, *topics]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def taken(process: subprocess.Popen[bytes]) -> list[Message]:
    """Every message, once the publisher has closed."""
    out, _ = process.communicate()
    messages: list[Message] = json.loads(out)
    return messages


def main() -> None:
    endpoint, *wanted = sys.argv[1:]
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RCVTIMEO, 500)
    gone = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    socket.connect(endpoint)
    for prefix in wanted:
        socket.subscribe(prefix)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    arrivals: list[tuple[bytes, int, int]] = []
    while True:
        ready = dict(poller.poll())
        if socket in ready:
            _, header, payload = socket.recv_multipart()
            arrivals.append((header, time.time_ns(), len(payload)))
        elif sys.stdin.fileno() in ready and not (gone.poll(GONE_MS) and socket.poll(0)):
            break  # before the connection had ended, messages could still be on their way through libzmq's thread
    socket.disable_monitor()
    gone.close(0)
    socket.close(0)
    context.term()
    # Parsed only now: while the measurement ran, both cores belonged to the pipeline.
    parsed = [(json.loads(header), at, size) for header, at, size in arrivals]
    told = [[h["kind"], h["stream"], h["frame"], h["seq"], at, at - h["captured_ns"], size] for h, at, size in parsed]
    print(json.dumps(told))


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):  # whoever started it has been told as well, or has gone
        sys.exit(130)
