"""The publisher under pressure: slow, stopped and hostile subscribers, and readers of files that must lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
import zmq.auth
from publishing import Open, eventually, joined, publisher_fixture, subscriber_fixture  # noqa: F401
from results import result

from streamseg import wire
from streamseg.errors import StageError

# ---- slow and hostile subscribers ----

STOPPED = """
import sys, zmq
context = zmq.Context()
socket = context.socket(zmq.SUB)
socket.subscribe("labels/")
socket.connect(sys.argv[1])
socket.recv_multipart()
print("got one", flush=True)
while True:
    socket.recv_multipart()
"""


def test_a_stopped_subscriber_costs_bounded_memory_and_nobody_else_a_message(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(encoding="raw")
    labels = np.zeros((512, 1024), np.uint8)  # 0.5 MB a message, as large as a 1080p picture
    made.publish(result(0, labels=labels))
    eventually(lambda: made.counters.results["cam1"] == 1, "the result taken")
    reader = subscriber(endpoint, "labels/")
    assert reader.receive()[1].replay
    with subprocess.Popen([sys.executable, "-c", STOPPED, endpoint], stdout=subprocess.PIPE, text=True) as stopped:
        try:
            assert stopped.stdout is not None
            assert stopped.stdout.readline() == "got one\n"
            assert reader.receive()[1].replay
            os.kill(stopped.pid, signal.SIGSTOP)
            before = psutil.Process().memory_info().rss
            for number in range(1, 401):
                made.publish(result(number, labels=labels))
                header = reader.receive()[1]
                assert (header.frame, header.seq) == (number, number)
            grown = psutil.Process().memory_info().rss - before
            print(f"grown by {grown / 2**20:.0f} MB")
            assert grown < 64 << 20
        finally:
            stopped.kill()


def test_a_flood_of_nonsense_from_a_client_changes_nothing(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher()
    reader = subscriber(endpoint, "mask/person/")
    joined(made, "mask/person/cam1/")
    with zmq.Context() as context, context.socket(zmq.XSUB) as hostile:
        hostile.linger = 0
        hostile.sndhwm = 0
        hostile.connect(endpoint)
        for message in (b"", b"\x01\xff\xfe", b"\x02abc", b"\x00", b"\x00never", b"\x01" + b"x" * 3000, b"\x07" * 200):
            hostile.send(message)
        hostile.send_multipart([b"\x01mask/", b"\x01labels/", b"more"])
        for number in range(20_000):
            hostile.send(b"\x01mask/person/cam1/%d" % number)
        hostile.send(b"\x01heartbeat/")
        joined(made, wire.HEARTBEAT)  # all before it has been read
        assert len(made._subscriptions) <= 4  # those of topics that exist
        made.publish(result(1))
        assert reader.receive()[1].frame == 1
        hostile.send(b"\x01" + b"x" * 100_000)  # over what subscribers may send: the connection is cut
        eventually(lambda: not made.wants(wire.HEARTBEAT), "the hostile client is gone")
    made.publish(result(2))
    assert reader.until(lambda h: h.frame == 2)


# ---- files: lossless ----


def test_waiting_for_a_subscriber_ignores_those_of_the_heartbeat(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(wait_subscriber=True)
    reader = subscriber(endpoint, "heartbeat/")
    joined(made, wire.HEARTBEAT)
    assert not made.wait_for_subscriber(0.1)
    reader.socket.subscribe("mask/person/")
    assert made.wait_for_subscriber(10)


@pytest.mark.parametrize("threads", [1, 2])
def test_lossless_a_slow_reader_gets_every_message_in_order(publisher: Open, subscriber: Any, threads: int) -> None:
    made, endpoint = publisher(("cam1", "cam2"), wait_subscriber=True, queue_messages=2, encoding="raw",
                               encode_threads=threads)  # fmt: skip
    slow = subscriber(endpoint, "labels/cam1/", rcvhwm=1, rcvbuf=4096)
    assert made.wait_for_subscriber(10)
    labels = np.zeros((256, 512), np.uint8)

    def run() -> None:
        for number in range(100):
            made.publish(result(number, labels=labels))
        made.close()

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: made.counters.results["cam1"] > 3, "the first results")
    blocked = made.counters.results["cam1"]
    thread.join(0.5)
    assert thread.is_alive()
    assert made.counters.results["cam1"] - blocked < 50  # it waits for the reader
    got = [slow.receive()[1] for _ in range(100)]
    assert [(header.frame, header.seq) for header in got] == [(n, n) for n in range(100)]
    thread.join(10)
    assert not thread.is_alive()


def test_lossless_closing_with_a_limit_gives_up_on_a_reader_that_never_reads(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(wait_subscriber=True, queue_messages=1, encoding="raw")
    subscriber(endpoint, "labels/", rcvhwm=1, rcvbuf=4096)
    watcher = subscriber(endpoint, "heartbeat/")
    assert made.wait_for_subscriber(10)
    refused = []

    def run() -> None:
        try:
            for number in range(100):
                made.publish(result(number, labels=np.zeros((512, 512), np.uint8)))
        except StageError as error:
            refused.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    first = watcher.until(lambda h: not h.replay)
    assert watcher.receive()[1].seq == first.seq + 1  # a second later: a blocked send does not stop the heart
    assert thread.is_alive()  # back-pressure reaches whoever publishes
    made.close(0.1)
    thread.join(10)
    assert refused == ["publisher stopped: RuntimeError: it is closed"]


def test_lossless_a_close_that_waits_for_a_reader_can_be_cut_short(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(wait_subscriber=True, encoding="raw")
    reader = subscriber(endpoint, "labels/", rcvhwm=1, rcvbuf=4096)
    assert made.wait_for_subscriber(10)
    for number in range(50):
        made.publish(result(number, labels=np.zeros((512, 512), np.uint8)))
    closing = threading.Thread(target=made.close)
    closing.start()
    closing.join(0.5)
    assert closing.is_alive()
    made.close(0.1)
    closing.join(10)
    assert not closing.is_alive()
    reader.socket.close()  # only now libzmq stops waiting for it
