"""The client library: the newest of everything, honest about gaps and age, and it outlives the daemon."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
import zmq.auth
from golden.make import HERE
from publishing import Open, eventually, joined, publisher_fixture  # noqa: F401
from results import GreyPicture, result

import streamseg
from streamseg import viewer
from streamseg.errors import WireError

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


def test_a_picture_that_is_a_mere_strip_is_drawn_too(capsys: pytest.CaptureFixture[str]) -> None:
    header = streamseg.wire.parse_header((HERE / "picture.header").read_bytes())
    jpeg = cv2.imencode(".jpg", np.zeros((16, 1920, 3), np.uint8))[1].tobytes()
    output = viewer.Output(as_json=False, save=None, show=True, count=None)
    viewer.follow([streamseg.Message(header, "picture/cam1/", jpeg)], output)
    assert "▀" * 20 in capsys.readouterr().out
