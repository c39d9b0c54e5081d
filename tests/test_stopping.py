"""Ctrl-C and SIGTERM end a run with 0 within three seconds, whatever it is doing or waiting for."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

import psutil
import pytest
from clips import Clips
from daemon import STOP_SECONDS, endpoint_of, everything, report_of, stalled_subscriber
from processes import Running

import streamseg


def test_nothing_is_encoded_for_a_subscriber_to_the_heartbeat_alone(run: Callable[..., Running]) -> None:
    running = run("synthetic://street?size=320x180&fps=10")
    with streamseg.subscribe(endpoint_of(running), kind="heartbeat", timeout=20) as beats:
        beat = next(b for b in beats if next(iter(b.header["streams"].values()))["published"] >= 5)
    assert beat.header["encoded"] == {}
    assert running.stop(timeout=STOP_SECONDS).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
class TestStopping:
    """Each ends with 0, within three seconds."""

    def test_a_live_stream(self, number: int, run: Callable[..., Running]) -> None:
        running = run("synthetic://street?size=320x180&fps=10", "--json")
        for message in everything(endpoint_of(running), kind=["labels", "event"]):
            if message.header.kind == "labels":
                running.send(number)
                break
        (stream,) = report_of(running.wait(STOP_SECONDS))["streams"].values()
        assert stream["published"] + sum(stream["dropped"].values()) == stream["frames"]  # type: ignore[index]
        assert stream["state"] == "ended"  # type: ignore[index]

    def test_while_a_camera_does_not_answer(self, number: int, run: Callable[..., Running]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the system connects, and nobody says a word
            running = run(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam1", "--json")
            running.wait_for_line("connecting")
            report_of(running.stop(number, STOP_SECONDS))

    def test_while_a_camera_hangs_up(self, number: int, run: Callable[..., Running]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            running = run(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam1", "--json")
            connection, _ = silent.accept()
            running.send(number)
            running.wait_for_line("stopping")
            connection.close()
        report = report_of(running.wait(STOP_SECONDS))
        assert report["failed"] == {}
        (stream,) = report["streams"].values()
        assert stream["state"] == "ended"  # type: ignore[index]

    def test_while_a_lossless_run_waits_for_its_subscriber(
        self, number: int, run: Callable[..., Running], clip: Clips
    ) -> None:
        running = run(clip("h264", frames=30), "--wait-subscriber", "--json")
        running.wait_for_line("running")
        with streamseg.subscribe(endpoint_of(running), kind="heartbeat", timeout=20) as beats:
            next(beats)
            running.send(number)
            told = (next(iter(beat.header["streams"].values())) for beat in beats)
            last = next(stream for stream in told if stream["state"] == "ended")
        (stream,) = report_of(running.wait(STOP_SECONDS))["streams"].values()
        assert stream["published"] == 0  # type: ignore[index]
        assert stream["dropped"] == {"shutdown": stream["frames"]}  # type: ignore[index]
        assert last == last | stream, "the last heartbeat tells what the report does"

    def test_while_a_stalled_subscriber_blocks_a_lossless_run(
        self, number: int, run: Callable[..., Running], clip: Clips
    ) -> None:
        path = clip("h264", frames=200, width=640, height=480)
        running = run(path, "--wait-subscriber", "--json", "--set", "publish.queue_messages=1")
        with stalled_subscriber(endpoint_of(running)):
            wait_until_idle(running)
            (stream,) = report_of(running.stop(number, STOP_SECONDS))["streams"].values()
        assert 0 < stream["frames"] < 200, "it was not blocked"  # type: ignore[index]
        assert stream["published"] + sum(stream["dropped"].values()) == stream["frames"]  # type: ignore[index]

    def test_while_a_lossless_run_that_is_over_waits_for_a_stalled_subscriber(
        self, number: int, run: Callable[..., Running], clip: Clips
    ) -> None:
        # 90 pictures fit into the 100 places of the queue, but not into the 256 kB of the socket.
        running = run(clip("h264", frames=90, width=640, height=480), "--wait-subscriber", "--json")
        with stalled_subscriber(endpoint_of(running), b"picture/"):
            running.wait_for_line("ended")
            wait_until_idle(running)
            report_of(running.stop(number, STOP_SECONDS))


def wait_until_idle(running: Running, seconds: float = 0.5) -> None:
    """Until it uses (nearly) no processor time any more."""
    process = psutil.Process(running.pid)
    deadline = time.monotonic() + 20
    while True:
        before = sum(process.cpu_times()[:2])
        time.sleep(seconds)
        if sum(process.cpu_times()[:2]) - before <= 0.02:
            return
        assert time.monotonic() < deadline, "still busy"
        assert running.process.poll() is None, running.output
