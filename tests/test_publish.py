"""The publisher, seen from real sockets: what is sent, to whom, when nothing is, and what hostile clients can do."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from publishing import Open, eventually, joined, publisher_fixture, subscriber_fixture  # noqa: F401
from results import CLASSES, ENGINE, GreyPicture, result

from streamseg import wire
from streamseg.errors import StageError

# ---- what is sent ----


@pytest.mark.parametrize("threads", [1, 2])
def test_every_kind_of_message_has_its_payload_and_header(publisher: Open, subscriber: Any, threads: int) -> None:
    made, endpoint = publisher(("cam1", "cam2"), encode_threads=threads)
    reader = subscriber(endpoint, "mask/", "labels/", "frame/", "picture/", "event/")
    joined(made, "mask/car/cam1/", "labels/cam1/", "frame/cam1/", "picture/cam1/", "event/cam1/")
    labels = np.zeros((7, 13), np.uint8)
    labels[2:4, 5:9] = 1
    made.publish(result(41, labels=labels, captured_ns=123))
    made.event("cam1", "reconnecting", "timeout", "no frame for 5 s")
    got = {topic: (header, payload) for topic, header, payload in (reader.receive() for _ in range(7))}
    assert list(got) == [*(f"mask/{c.name}/cam1/" for c in CLASSES), "labels/cam1/", "frame/cam1/", "picture/cam1/",
                         "event/cam1/"]  # fmt: skip
    for topic, (header, _) in got.items():
        assert (header.v, header.seq, header.replay, header.stream) == ("1.0", 0, False, "cam1")
        assert header.published_ns > header.captured_ns
        if header.kind != "event":
            assert (header.frame, header.pts_ns, header.captured_ns, header.clock) == (41, 1_640_000_000, 123, "host")
            assert header.latency_us is not None
            assert (header.latency_us.decode, header.latency_us.wait, header.latency_us.infer) == (1100, 200, 3300)
            assert header.source == wire.Size(32, 16), topic
    person, payload = got["mask/person/cam1/"]
    assert (person.pixels, person.bbox, person.encoding, person.engine) == (8, (5, 2, 4, 2), "deflate", ENGINE)
    assert np.array_equal(wire.decode_mask(payload, 13, 7, "deflate"), labels == 1)
    car, payload = got["mask/car/cam1/"]
    assert (car.pixels, car.bbox) == (0, None)
    assert not wire.decode_mask(payload, 13, 7, "deflate").any()
    header, payload = got["labels/cam1/"]
    assert [(c.name, c.colour, c.pixels) for c in header.classes] == [
        (c.name, c.colour, pixels) for c, pixels in zip(CLASSES, (83, 8, 0), strict=True)
    ]
    assert np.array_equal(wire.decode_labels(payload, 13, 7, "deflate"), labels)
    event, payload = got["event/cam1/"]
    assert (event.state, event.reason, event.detail, payload) == ("reconnecting", "timeout", "no frame for 5 s", b"")
    assert event.epoch == person.epoch


def test_pictures_are_jpegs_in_full_range(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(jpeg_quality=95)
    reader = subscriber(endpoint, "frame/", "picture/")
    joined(made, "frame/cam1/", "picture/cam1/")
    labels = np.full((90, 160), 1, np.uint8)
    made.publish(result(0, labels=labels, picture=GreyPicture(321, 181)))  # odd sides
    pictures = {}
    for _ in range(2):
        topic, _, payload = reader.receive()
        pictures[topic] = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
        assert pictures[topic].shape == (181, 321, 3)
    plain, drawn = pictures["picture/cam1/"].astype(int), pictures["frame/cam1/"].astype(int)
    assert plain[:, 0].max() < 6  # black and white were 16 and 235
    assert plain[:, -1].min() > 250
    blue, _, red = drawn[90, 160]
    assert red > blue + 50  # a person is red
    assert np.abs(plain[90, 160] - plain[90, 160].mean()).max() < 4  # and was grey


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
def test_every_encoding_can_be_configured(publisher: Open, subscriber: Any, encoding: wire.Encoding) -> None:
    made, endpoint = publisher(encoding=encoding)
    reader = subscriber(endpoint, "mask/person/", "labels/")
    joined(made, "mask/person/cam1/", "labels/cam1/")
    sent = result(5)
    made.publish(sent)
    _, header, payload = reader.receive()
    assert header.encoding == encoding
    assert np.array_equal(wire.decode_mask(payload, 13, 7, encoding), sent.labels == 1)
    _, header, payload = reader.receive()
    assert header.encoding == ("deflate" if encoding == "coco-rle" else encoding)
    assert np.array_equal(wire.decode_labels(payload, 13, 7, header.encoding), sent.labels)


def test_numbers_count_per_topic_and_start_again_with_a_new_epoch(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(("cam1", "cam2"))
    reader = subscriber(endpoint, "mask/person/")
    joined(made, "mask/person/cam1/")
    for number in (3, 4):
        made.publish(result(number, "cam1"))
    made.publish(result(9, "cam2"))
    made.publish(result(0, "cam1", epoch=1_800_000_000_000))
    got = [(h.stream, h.epoch // 10**11, h.frame, h.seq) for _, h, _ in (reader.receive() for _ in range(4))]
    assert got == [("cam1", 17, 3, 0), ("cam1", 17, 4, 1), ("cam2", 17, 9, 0), ("cam1", 18, 0, 0)]


# ---- laziness ----


@pytest.mark.parametrize("threads", [1, 2])
def test_without_a_subscriber_nothing_is_encoded(publisher: Open, subscriber: Any, threads: int) -> None:
    made, endpoint = publisher(("cam1", "cam2"), encode_threads=threads)
    subscriber(endpoint, wire.HEARTBEAT)
    joined(made, wire.HEARTBEAT)
    for number in range(30):
        made.publish(result(number, f"cam{number % 2 + 1}"))
    eventually(lambda: sum(made.counters.results.values()) == 30, "all results taken")
    assert made.counters.encoded == {}


@pytest.mark.parametrize("threads", [1, 2])
def test_only_what_is_subscribed_to_is_encoded(publisher: Open, subscriber: Any, threads: int) -> None:
    made, endpoint = publisher(("cam1", "cam10"), encode_threads=threads)
    reader = subscriber(endpoint, "mask/person/cam1/")
    joined(made, "mask/person/cam1/")
    for number in range(10):
        made.publish(result(number, "cam10"))
        made.publish(result(number, "cam1"))
    frames = [reader.receive()[1] for _ in range(10)]
    assert [(h.stream, h.frame, h.seq) for h in frames] == [("cam1", n, n) for n in range(10)]
    eventually(lambda: sum(made.counters.results.values()) == 20, "all results taken")
    assert made.counters.encoded == {"mask": 10}
    assert reader.nothing_waits()  # in particular nothing of cam10


def test_encoding_ends_when_the_subscriber_unsubscribes_or_vanishes(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher()
    first, second = subscriber(endpoint, "mask/person/"), subscriber(endpoint, "labels/", "mask/person/cam1/")
    joined(made, "mask/person/cam1/", "labels/cam1/")
    first.socket.unsubscribe("mask/person/")
    second.socket.close()
    eventually(lambda: not made.wants("mask/person/cam1/") and not made.wants("labels/cam1/"), "nobody wants it")
    made.publish(result(1))
    eventually(lambda: made.counters.results["cam1"] == 1, "the result taken")
    assert made.counters.encoded == {}


@pytest.mark.parametrize("prefix", ["", "m", "mask/", "mask/per", "mask/person/", "mask/person/cam1/"])
def test_any_prefix_subscribes_and_gets_the_last_value(publisher: Open, subscriber: Any, prefix: str) -> None:
    made, endpoint = publisher()
    made.publish(result(7))
    eventually(lambda: made.counters.results["cam1"] == 1, "the result taken")
    reader = subscriber(endpoint, prefix)
    assert reader.until(lambda h: h["class"]["name"] == "person" if h.kind == "mask" else False).replay
    made.publish(result(8))
    header = reader.until(lambda h: h.kind == "mask" and h["class"]["name"] == "person")
    assert (header.frame, header.seq, header.replay) == (8, 1, False)


# ---- late joiners ----


def test_a_late_joiner_gets_the_last_value_under_the_number_it_was_sent_with(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher()
    early = subscriber(endpoint, "mask/person/")
    joined(made, "mask/person/cam1/")
    for number in range(3):
        made.publish(result(number))
        assert early.receive()[1].seq == number
    late = subscriber(endpoint, "mask/person/")  # the same prefix: only XPUB_VERBOSE tells of it
    topic, header, payload = late.receive()
    assert (topic, header.frame, header.seq, header.replay) == ("mask/person/cam1/", 2, 2, True)
    assert np.array_equal(wire.decode_mask(payload, 13, 7, "deflate"), result(2).labels == 1)
    again = early.receive()[1]
    assert (again.frame, again.seq, again.replay) == (2, 2, True)  # known by its number
    made.publish(result(3))
    for reader in (early, late):
        header = reader.receive()[1]
        assert (header.frame, header.seq, header.replay) == (3, 3, False)
    assert made.counters.encoded == {"mask": 4}  # the replay was not encoded again


def test_a_replay_that_is_newer_than_the_last_message_has_a_new_number(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher()
    reader = subscriber(endpoint, "labels/")
    joined(made, "labels/cam1/")
    made.publish(result(0))
    assert reader.receive()[1].seq == 0
    reader.socket.unsubscribe("labels/")
    eventually(lambda: not made.wants("labels/cam1/"), "unsubscribed")
    for number in range(1, 6):
        made.publish(result(number))
    eventually(lambda: made.counters.results["cam1"] == 6, "all results taken")
    reader.socket.subscribe("labels/")
    header = reader.receive()[1]
    assert (header.frame, header.seq, header.replay) == (5, 1, True)


def test_a_late_joiner_is_told_the_state_of_every_stream(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(("cam1", "cam2"))
    made.event("cam1", "running")
    made.event("cam2", "connecting")
    made.event("cam2", "failed", "unauthorised", "the password is wrong")
    eventually(lambda: made.counters.sent.get("event/cam2/") == 2, "the events told")
    reader = subscriber(endpoint, "event/")
    headers = [reader.receive()[1] for _ in range(2)]
    got = {header.stream: (header.state, header.seq, header.replay) for header in headers}
    assert got == {"cam1": ("running", 0, True), "cam2": ("failed", 1, True)}


def test_many_joiners_at_once_are_answered_together(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher()
    made.publish(result(1))
    eventually(lambda: made.counters.results["cam1"] == 1, "the result taken")
    readers = [subscriber(endpoint, "labels/") for _ in range(30)]
    for reader in readers:
        assert reader.receive()[1].frame == 1
    assert made.counters.encoded == {"labels": 1}


# ---- heartbeats and the end ----


def test_heartbeats_come_at_the_start_every_second_and_at_the_end(publisher: Open, subscriber: Any) -> None:
    def status() -> dict[str, dict[str, Any]]:
        return {"cam1": {"state": "running", "fps": 12.5, "frames": 30, "dropped": {"newer": 3}}}

    made, endpoint = publisher(("cam1", "cam2"), status=status)
    reader = subscriber(endpoint, "heartbeat/", "labels/")
    topic, first, payload = reader.receive()
    assert (topic, first.seq, first.replay, first.stream, payload) == ("heartbeat/", 0, True, None, b"")
    made.publish(result(0))
    made.publish(result(1))
    made.event("cam2", "reconnecting")
    second = reader.until(lambda h: h.kind == "heartbeat" and h.streams["cam1"]["published"] == 2)
    third = reader.until(lambda h: h.kind == "heartbeat")
    assert third.seq == second.seq + 1
    assert 0.5e9 < third.captured_ns - second.captured_ns < 3e9
    assert second["engine"] == ENGINE
    assert second["encoded"] == {"labels": 2}
    assert second["subscriptions"] == 2
    assert second["uptime_s"] > 0
    assert second["streams"]["cam1"] == {
        "state": "running", "fps": 12.5, "frames": 30, "published": 2, "dropped": {"newer": 3},
        "seq": {"labels/cam1/": 1},
    }  # fmt: skip
    assert second["streams"]["cam2"]["state"] == "reconnecting"
    made.publish(result(2))
    made.close()
    left = []
    while not reader.nothing_waits():
        left.append(reader.receive())
    assert [header.frame for topic, header, _ in left if topic == "labels/cam1/"] == [2]
    assert left[-1][0] == "heartbeat/"


def test_closing_delivers_what_was_queued_then_tells_the_end(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(("cam1", "cam2"), encode_threads=2)
    reader = subscriber(endpoint, "event/", "mask/person/")
    joined(made, "mask/person/cam1/", "event/cam1/")
    for number in range(50):
        made.publish(result(number))
    made.event("cam1", "ended", "end-of-file")
    made.close()
    got = [reader.receive() for _ in range(52)]
    cam1 = [header for _, header, _ in got if header.stream == "cam1"]
    assert [header.frame for header in cam1] == [*range(50), None]
    assert (cam1[-1].state, cam1[-1].reason) == ("ended", "end-of-file")
    cam2 = [header for _, header, _ in got if header.stream == "cam2"]
    assert [(header.state, header.reason) for header in cam2] == [("ended", "stopped")]
    with pytest.raises(StageError, match="closed"):
        made.publish(result(50))


def test_the_end_of_a_stream_that_never_came_up_is_told_in_its_own_epoch(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher()
    reader = subscriber(endpoint, "event/")
    joined(made, "event/cam1/")
    epoch = 10**13  # later than the publisher's own start, as a stream's is
    made.event("cam1", "connecting", epoch=epoch)
    made.event("cam1", "reconnecting", "refused", epoch=epoch)
    made.close()
    got = [reader.receive()[1] for _ in range(3)]
    assert [(header.state, header.epoch, header.seq) for header in got] == [
        ("connecting", epoch, 0),
        ("reconnecting", epoch, 1),
        ("ended", epoch, 2),
    ]


def test_when_the_publisher_thread_dies_everyone_is_told(publisher: Open) -> None:
    calls = iter(range(1))

    def status() -> dict[str, dict[str, Any]]:
        next(calls)  # the second heartbeat finds nothing
        return {}

    made, _ = publisher(status=status)
    with pytest.raises(StageError, match="publisher stopped: StopIteration"):
        made.wait_for_subscriber(10)
    with pytest.raises(StageError, match="publisher stopped"):
        made.publish(result(0))
    with pytest.raises(StageError, match="publisher stopped"):
        made.close()


def test_an_encoder_thread_that_dies_ends_the_publisher(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(("cam1", "cam2"), encode_threads=2)
    subscriber(endpoint, "labels/")
    joined(made, "labels/cam1/")
    made.publish(result(0, labels=np.zeros(5, np.uint8)))  # no map at all
    with pytest.raises(StageError, match="encoder stopped"):
        made.wait_for_subscriber(10)
    with pytest.raises(StageError, match="encoder stopped"):
        made.publish(result(1))
    with pytest.raises(StageError):
        made.close()
