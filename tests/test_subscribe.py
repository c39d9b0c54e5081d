"""The client library: the newest of everything, honest about gaps and age, and it outlives the daemon."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth
from golden.make import HERE
from publishing import Open, eventually, joined, publisher_fixture  # noqa: F401
from results import CLASSES, ENGINE, GreyPicture, result

import streamseg
from streamseg import wire
from streamseg.config import CurveConfig, PublishConfig
from streamseg.errors import ConfigError, WireError
from streamseg.publish import Publisher

PERSON = "mask/person/cam1/"


# ---- what is yielded ----


def test_masks_arrive_as_arrays_with_their_header(publisher: Open) -> None:
    made, endpoint = publisher()
    with streamseg.subscribe(endpoint, timeout=10) as masks:
        joined(made, PERSON)
        sent = result(5)
        made.publish(sent)
        got = {message.topic: message for message in (next(masks), next(masks), next(masks))}
    message = got[PERSON]
    assert message.array.dtype == np.bool_
    assert np.array_equal(message.array, sent.labels == 1)
    assert message.array is message.array  # decoded once
    assert (message.header.pixels, message.header["class"]["name"], message.lost) == (5, "person", 0)
    assert 0 <= message.age_s < 10
    assert repr(message) == "Message('mask/person/cam1/', frame=5, seq=0, 13x7, lost=0)"
    assert not got["mask/car/cam1/"].array.any()


def test_every_kind_can_be_asked_for(publisher: Open) -> None:
    made, endpoint = publisher()
    kinds = ["labels", "frame", "picture", "event", "heartbeat"]
    with streamseg.subscribe(endpoint, kind=kinds, timeout=10) as every:
        joined(made, "labels/cam1/", "frame/cam1/", "picture/cam1/", "event/cam1/")
        made.event("cam1", "running")
        made.publish(result(5, picture=GreyPicture(32, 16)))
        got: dict[str, streamseg.Message] = {}
        while len(got) < 5:
            message = next(every)
            got[message.topic.partition("/")[0]] = message
    assert got["labels"].array.dtype == np.uint8
    assert np.array_equal(got["labels"].array, result(5).labels)
    for kind in ("frame", "picture"):
        assert got[kind].array is None
        assert got[kind].payload.startswith(b"\xff\xd8")
        assert got[kind].decode().shape == (16, 32, 3)
    assert got["event"].header.state == "running"
    assert got["heartbeat"].header["streams"]["cam1"]["state"] in ("connecting", "running")
    with pytest.raises(WireError, match="no picture"):
        got["event"].decode()


def test_pictures_are_decoded_as_rgb(publisher: Open) -> None:
    made, endpoint = publisher(jpeg_quality=95)
    with streamseg.subscribe(endpoint, kind="frame", timeout=10) as frames:
        joined(made, "frame/cam1/")
        made.publish(result(0, labels=np.ones((90, 160), np.uint8), picture=GreyPicture(320, 180)))
        red, _, blue = next(frames).decode()[150, 160].astype(int)
    assert red > blue + 50  # a person is red


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"streams": "cam1"}, {"mask/road/cam1/", "mask/person/cam1/", "mask/car/cam1/"}),
        ({"classes": "person"}, {"mask/person/cam1/", "mask/person/cam10/"}),
        ({"streams": "cam1", "classes": ["car", "person"]}, {"mask/person/cam1/", "mask/car/cam1/"}),
        ({"kind": "labels", "streams": "cam1"}, {"labels/cam1/"}),
        ({"kind": ("labels", "mask"), "streams": ["cam10"], "classes": "road"}, {"labels/cam10/", "mask/road/cam10/"}),
    ],
)
def test_streams_and_classes_restrict_it(publisher: Open, wanted: dict[str, Any], expected: set[str]) -> None:
    made, endpoint = publisher(("cam1", "cam10"))
    with streamseg.subscribe(endpoint, timeout=10, **wanted) as messages:
        joined(made, *expected)
        made.publish(result(1, "cam10"))
        made.publish(result(1, "cam1"))
        got = [next(messages) for _ in expected]
        made.publish(result(2, "cam10"))
        made.publish(result(2, "cam1"))
        got += [next(messages) for _ in expected]
    assert {message.topic for message in got} == expected
    assert sorted(message.header.frame for message in got) == [1] * len(expected) + [2] * len(expected)


def test_a_slow_caller_gets_the_newest_of_each_topic(publisher: Open) -> None:
    made, endpoint = publisher()
    with streamseg.subscribe(endpoint, classes=["person", "car"], timeout=10) as masks:
        joined(made, PERSON)
        for number in range(40):
            made.publish(result(number))
        eventually(lambda: made.counters.sent.get("mask/car/cam1/") == 40, "all sent")
        newest: dict[str, list[streamseg.Message]] = {}
        for message in masks:
            newest.setdefault(message.topic, []).append(message)
            if (
                message.header.frame == 39
                and len(newest) == 2
                and all(m[-1].header.frame == 39 for m in newest.values())
            ):
                break
    for messages in newest.values():
        assert len(messages) < 40
        assert sum(message.lost for message in messages) == 0
        assert sum(message.skipped for message in messages) + len(messages) == 40


def test_with_every_nothing_that_arrives_is_passed_over(publisher: Open) -> None:
    made, endpoint = publisher(wait_subscriber=True, queue_messages=4)
    with streamseg.subscribe(endpoint, kind="labels", every=True, timeout=10) as labels:
        assert made.wait_for_subscriber(10)

        def run() -> None:
            for number in range(500):
                made.publish(result(number, labels=np.full((90, 160), number % 200, np.uint8)))
            made.close()

        thread = threading.Thread(target=run)
        thread.start()
        got = [next(labels) for _ in range(500)]
        thread.join(10)
    assert [message.header.frame for message in got] == list(range(500))
    assert [int(message.array[0, 0]) for message in got] == [number % 200 for number in range(500)]
    assert {(message.lost, message.skipped) for message in got} == {(0, 0)}


def test_a_late_subscriber_gets_the_last_value_once(publisher: Open) -> None:
    made, endpoint = publisher()
    made.publish(result(3))
    eventually(lambda: made.counters.results["cam1"] == 1, "the result taken")
    with (
        streamseg.subscribe(endpoint, classes="person", timeout=10) as first,
        streamseg.subscribe(endpoint, classes="person", timeout=10) as second,
    ):
        for masks in (first, second):
            message = next(masks)
            assert (message.header.frame, message.header.replay) == (3, True)
        made.publish(result(4))
        for masks in (first, second):  # the replay for the other one is known, and dropped
            message = next(masks)
            assert (message.header.frame, message.header.replay, message.lost) == (4, False, 0)


# ---- what arrives may be odd ----


@pytest.fixture
def sender() -> Iterator[tuple[Callable[..., None], str]]:
    """`send(parts=, topic=, **header_fields)` over a plain XPUB, with the golden mask as its base; and its endpoint."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.linger = 0
        socket.bind("tcp://127.0.0.1:*")
        base = json.loads((HERE / "mask-raw.header").read_text())
        payload = (HERE / "mask-raw.payload").read_bytes()

        def send(parts: list[bytes] | None = None, *, topic: str = PERSON, **fields: Any) -> None:
            if not send.joined:  # type: ignore[attr-defined]
                assert socket.poll(10_000)
                socket.recv()
                send.joined = True  # type: ignore[attr-defined]
            socket.send_multipart(parts or [topic.encode(), json.dumps(base | fields).encode(), payload])

        send.joined = False  # type: ignore[attr-defined]
        yield send, socket.last_endpoint.decode()


def test_gaps_are_told_but_replays_and_new_epochs_are_none(sender: Any) -> None:
    send, endpoint = sender
    with streamseg.subscribe(endpoint, classes="person", every=True, timeout=10) as masks:
        for fields in (
            {"seq": 40, "replay": True},
            {"seq": 41},
            {"seq": 41, "replay": True},  # for somebody else
            {"seq": 45},
            {"seq": 47, "replay": True},  # after a reconnection: 46 is lost
            {"seq": 0, "epoch": 1_800_000_000_000},
            {"seq": 1, "epoch": 1_800_000_000_000},
            {"seq": 9, "epoch": 1_900_000_000_000},  # it restarted, and others had subscribed before us
            {"seq": 0, "epoch": 2_000_000_000_000, "replay": True},
        ):
            send(**fields)
        got = [next(masks) for _ in range(8)]
    told = [(message.header.seq, message.lost) for message in got]
    assert told == [(40, 0), (41, 0), (45, 3), (47, 1), (0, 0), (1, 0), (9, 0), (0, 0)]


def test_gaps_add_up_over_what_is_skipped(sender: Any) -> None:
    send, endpoint = sender
    with streamseg.subscribe(endpoint, classes="person", timeout=10) as masks:
        send(seq=0)
        assert next(masks).header.seq == 0
        for seq in (1, 5, 6, 9):
            send(seq=seq)
        got: list[streamseg.Message] = []
        while not got or got[-1].header.seq != 9:
            got.append(next(masks))
    assert sum(m.lost for m in got) == 5
    assert sum(m.skipped for m in got) + len(got) == 4


def test_another_major_version_is_skipped_with_one_warning(sender: Any, caplog: pytest.LogCaptureFixture) -> None:
    send, endpoint = sender
    with (
        streamseg.subscribe(endpoint, classes="person", every=True, timeout=10) as masks,
        caplog.at_level(logging.WARNING),
    ):
        for seq in range(3):
            send(seq=seq, v="2.0")
        send(seq=3, v="1.9", shape="hexagonal")
        assert next(masks).header.v == "1.9"
    assert [record.getMessage().split(": ", 2)[2] for record in caplog.records] == [
        "message is of wire version 2.0; this reader knows version 1: update streamseg"
    ]


def test_what_breaks_the_contract_is_skipped_with_a_warning(sender: Any, caplog: pytest.LogCaptureFixture) -> None:
    send, endpoint = sender
    topic = PERSON.encode()
    with (
        streamseg.subscribe(endpoint, classes="person", every=True, timeout=10) as masks,
        caplog.at_level(logging.WARNING),
    ):
        for parts in (
            [topic],
            [topic, b"{}"],
            [topic, b"{}", b"", b""],
            [topic, b"not json", b""],
            [topic + b"x", b"{}", b""],
        ):
            send(parts)
        send(stream="cam2", seq=1)  # under cam1's topic
        send(kind="frame", seq=2)
        send(seq=3)
        assert next(masks).header.seq == 3
    assert len(caplog.records) == 7
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_damaged_payload_is_an_error_where_it_is_decoded(sender: Any) -> None:
    send, endpoint = sender
    header = (HERE / "mask-raw.header").read_bytes()
    with streamseg.subscribe(endpoint, classes="person", timeout=10) as masks:
        send([PERSON.encode(), header, b"short"])
        message = next(masks)
        with pytest.raises(WireError, match="5 bytes"):
            _ = message.array


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
        with Publisher(config, ["cam1"], CLASSES, engine=ENGINE) as made:
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
