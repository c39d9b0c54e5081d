"""The client library over time: daemons that come and go, security, closing, asyncio."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
import zmq.auth
from publishing import Open, eventually, joined, publisher_fixture  # noqa: F401
from results import CLASSES, ENGINE, result

import streamseg
from streamseg import wire
from streamseg.config import CurveConfig, PublishConfig
from streamseg.errors import ConfigError
from streamseg.publish import Publisher

PERSON = "mask/person/cam1/"


# ---- the daemon's life ----


def test_it_waits_for_a_daemon_that_starts_later_and_survives_its_restart(free_port: int) -> None:
    config = PublishConfig(bind=f"tcp://127.0.0.1:{free_port}")
    got: list[streamseg.Message] = []

    def read() -> None:
        with streamseg.subscribe(config.bind, classes="person", timeout=20) as masks:
            while len(got) < 6:
                got.append(next(masks))

    thread = threading.Thread(target=read)
    thread.start()
    for epoch in (1000, 2000):
        with closing(Publisher(config, ["cam1"], CLASSES, engine=ENGINE)) as made:
            made.open()
            joined(made, PERSON)
            for number in range(3):
                before = len(got)
                made.publish(result(number, epoch=epoch))
                eventually(lambda before=before: len(got) > before, "the message")  # type: ignore[misc]
    thread.join(10)
    numbers = [(message.header.epoch, message.header.frame, message.header.seq, message.lost) for message in got]
    assert numbers == [(epoch, number, number, 0) for epoch in (1000, 2000) for number in range(3)]


def test_silence_is_a_timeout_that_tells_a_dead_daemon_from_a_quiet_one(publisher: Open, free_port: int) -> None:
    with streamseg.subscribe(f"tcp://127.0.0.1:{free_port}", timeout=0.2) as masks:
        for _ in range(2):  # it can be used again
            with pytest.raises(TimeoutError, match=f"nothing from tcp://127.0.0.1:{free_port} .* is it running"):
                next(masks)
    made, endpoint = publisher()
    made.event("cam1", "reconnecting")
    with streamseg.subscribe(endpoint, classes="person", timeout=2) as masks:
        with pytest.raises(TimeoutError, match=r"alive, but sent nothing on mask/person/ for 2 s: cam1 \w+"):
            next(masks)
        made.publish(result(1))
        assert next(masks).header.frame == 1
    with (
        streamseg.subscribe(endpoint, streams="cam2", timeout=0.5) as masks,
        pytest.raises(TimeoutError, match=r"alive, but sent nothing on mask/\*/cam2/ for 0\.5 s: cam1 \w+"),
    ):
        next(masks)


READER = """
import json, sys, streamseg
for message in streamseg.subscribe(sys.argv[1], kind="labels"):
    print(json.dumps({"frame": message.header.frame, "lost": message.lost, "skipped": message.skipped}), flush=True)
"""


def test_a_reader_that_was_stopped_is_soon_at_the_newest_frame(publisher: Open, tmp_path: Path) -> None:
    made, endpoint = publisher(encoding="raw")
    output = tmp_path / "frames"
    labels = np.zeros((200, 500), np.uint8)

    def frames() -> list[dict[str, int]]:
        return [json.loads(line) for line in output.read_text().splitlines(keepends=True) if line.endswith("\n")]

    with output.open("w") as file, subprocess.Popen([sys.executable, "-c", READER, endpoint], stdout=file) as reader:
        try:
            joined(made, "labels/cam1/")
            made.publish(result(0, labels=labels))
            eventually(lambda: bool(frames()), "the first frame")
            os.kill(reader.pid, signal.SIGSTOP)
            for number in range(1, 1001):  # 100 MB: more than all queues and buffers hold
                made.publish(result(number, labels=labels))
            eventually(lambda: made.counters.results["cam1"] == 1001, "all results taken")
            os.kill(reader.pid, signal.SIGCONT)
            published = 1000

            def caught_up() -> bool:
                nonlocal published
                published += 1
                made.publish(result(published, labels=labels))
                return frames()[-1]["frame"] >= 1001

            eventually(caught_up, "the reader at a frame made after it was woken up", 20)
        finally:
            reader.kill()
    got = frames()
    assert len(got) < 100
    assert sum(each["lost"] for each in got) > 500  # dropped for this reader alone, and it says so


# ---- security, arguments, closing ----


def test_curve_with_a_key_file(publisher: Open, tmp_path: Path) -> None:
    for name in ("daemon", "viewer", "stranger"):
        zmq.auth.create_certificates(tmp_path, name)
    public = {name: zmq.auth.load_certificate(tmp_path / f"{name}.key")[0].decode() for name in ("daemon", "viewer")}
    made, endpoint = publisher(
        curve=CurveConfig(secret_key_file=tmp_path / "daemon.key_secret", authorised_keys=(public["viewer"],))
    )
    keys = {"server_key": public["daemon"], "key_file": tmp_path / "viewer.key_secret"}
    with streamseg.subscribe(endpoint, kind="labels", timeout=10, **keys) as labels:
        joined(made, "labels/cam1/")
        made.publish(result(1))
        assert next(labels).header.frame == 1
        keys["key_file"] = tmp_path / "stranger.key_secret"
        with streamseg.subscribe(endpoint, kind="labels", timeout=1, **keys) as refused, pytest.raises(TimeoutError):
            next(refused)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"kind": "video"}, "expected one of mask, labels"),
        ({"kind": []}, "kind"),
        ({"kind": None}, "kind"),
        ({"timeout": -1}, "timeout is -1"),
        ({"streams": "cam 1"}, "cam 1"),
        ({"streams": []}, "streams"),
        ({"kind": "labels", "classes": "person"}, "classes"),
        ({"server_key": "x" * 40}, "needs both"),
        ({"server_key": "short", "key_file": "/dev/null"}, "server_key"),
        ({"endpoint": "127.0.0.1:5555"}, "is no endpoint"),
        ({"endpoint": "tcp://127.0.0.1"}, "is no endpoint"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        streamseg.subscribe(**({"endpoint": "tcp://127.0.0.1:5555"} | arguments))


def test_it_closes_itself_when_it_is_forgotten_and_ends_when_it_is_closed(publisher: Open) -> None:
    made, endpoint = publisher()
    made.publish(result(1))
    for message in streamseg.subscribe(endpoint, classes="person", timeout=10):
        assert message.header.frame == 1
        break
    eventually(lambda: not made.wants(PERSON), "the subscription gone")
    masks = streamseg.subscribe(endpoint, classes="person")
    masks.close()
    masks.close()
    assert list(masks) == []


FORGOTTEN = """
import asyncio, gc, sys, streamseg

class Service:
    def __init__(self):
        self.masks = streamseg.subscribe(sys.argv[1], timeout=0.1)
        self.handler = self.handle

    def handle(self):
        try:
            next(self.masks)
        except TimeoutError as error:
            self.error = error

async def first():
    async for message in streamseg.subscribe_async(sys.argv[1], kind="event"):
        return message.header.state

Service().handler()
kept = Service()
kept.handler()
for _ in range(3):
    print(asyncio.run(first()))
    gc.collect()
"""


def test_one_that_is_forgotten_in_a_reference_cycle_hangs_neither_the_collector_nor_the_end(publisher: Open) -> None:
    made, endpoint = publisher()
    made.event("cam1", "running")
    command = [sys.executable, "-c", FORGOTTEN, endpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "running\n" * 3, "")


# ---- asyncio ----


def test_async_subscription_yields_the_same(publisher: Open) -> None:
    made, endpoint = publisher(("cam1", "cam10"))

    async def read() -> list[streamseg.Message]:
        async with streamseg.subscribe_async(endpoint, kind="labels", streams="cam1", every=True, timeout=10) as labels:
            await asyncio.to_thread(joined, made, "labels/cam1/")
            for number in range(5):
                made.publish(result(number, "cam10"))
                made.publish(result(number, "cam1"))
            return [await anext(labels) for _ in range(5)]

    got = asyncio.run(read())
    assert [(message.topic, message.header.frame) for message in got] == [("labels/cam1/", n) for n in range(5)]
    assert np.array_equal(got[4].array, result(4).labels)


def test_async_silence_times_out_and_a_cancelled_wait_loses_nothing(publisher: Open) -> None:
    made, endpoint = publisher()

    async def read() -> int | None:
        async with streamseg.subscribe_async(endpoint, classes="person", timeout=0.2) as masks:
            with pytest.raises(TimeoutError):
                await anext(masks)
        async with streamseg.subscribe_async(endpoint, classes="person") as masks:
            await asyncio.to_thread(joined, made, PERSON)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(masks), 0.1)
            made.publish(result(7))
            async for message in masks:
                return message.header.frame
        return None

    assert asyncio.run(read()) == 7


def test_messages_that_wait_leave_other_tasks_their_turn(publisher: Open) -> None:
    made, endpoint = publisher()
    made.publish(result(1))

    async def read() -> list[int]:
        turns: list[int] = []
        async with streamseg.subscribe_async(endpoint, timeout=10) as masks:
            for number, _ in enumerate(CLASSES):  # the last value of each, all at once
                asyncio.get_running_loop().call_soon(turns.append, number)
                await anext(masks)
                assert turns[-1] == number
        return turns

    assert asyncio.run(read()) == list(range(len(CLASSES)))


def test_closing_it_ends_the_loop_of_another_task(publisher: Open) -> None:
    made, endpoint = publisher()

    async def read() -> list[streamseg.Message]:
        masks = streamseg.subscribe_async(endpoint, classes="person")

        async def all_of_them() -> list[streamseg.Message]:
            return [message async for message in masks]

        reading = asyncio.create_task(all_of_them())
        await asyncio.to_thread(joined, made, PERSON)
        masks.close()
        return await reading

    assert asyncio.run(read()) == []


def test_the_client_needs_no_pipeline() -> None:
    code = """
import sys
for name in ("cv2", "pydantic", "yaml", "av", "openvino", "onnxruntime", "torch", "simplejpeg", "zstandard"):
    sys.modules[name] = None
import streamseg
streamseg.subscribe("tcp://127.0.0.1:9").close()
"""
    root = Path(wire.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_streamseg_subscribe_stays_a_function_whatever_is_imported() -> None:
    import streamseg.subscriber

    assert streamseg.subscribe is streamseg.subscriber.subscribe


def test_time_in_which_the_reader_itself_was_stopped_is_no_silence(publisher: Open) -> None:
    made, endpoint = publisher()
    code = f"import streamseg; next(streamseg.subscribe({endpoint!r}, timeout=2))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stderr is not None
        assert made.wait_for_subscriber(20)
        eventually(lambda: psutil.Process(reader.pid).status() == "sleeping", "the reader waits")
        reader.send_signal(signal.SIGSTOP)
        threading.Event().wait(3)  # longer than its timeout
        resumed = time.monotonic()
        reader.send_signal(signal.SIGCONT)
        assert "TimeoutError" in reader.stderr.read()
        assert time.monotonic() - resumed > 0.6  # of the 2 s at most 1.1 were spent before the stop
