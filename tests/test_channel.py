"""The inbox between ingest and inference: newest frame for live streams, nothing lost for files, fair to all."""

import threading
from typing import Any

import pytest

from streamseg.channel import Inbox
from streamseg.types import Frame


def frame(stream: str, number: int, size: tuple[int, int] = (640, 360)) -> Frame:
    picture: Any = size
    return Frame(stream, 1, number, None, 0, "host", 0, 0, number, 1, picture)


@pytest.fixture
def inbox() -> Inbox:
    box = Inbox()
    for stream in ("a", "b", "c"):
        box.register(stream)
    return box


def test_a_live_stream_keeps_only_its_newest_frame_and_gives_back_what_it_replaces(inbox: Inbox) -> None:
    assert inbox.put(frame("a", 0), live=True) is None
    replaced = inbox.put(frame("a", 1), live=True)
    assert replaced is not None
    assert replaced.number == 0
    assert [f.number for f in inbox.take(4, 0)] == [1]


def test_a_file_waits_for_room_and_loses_nothing(inbox: Inbox) -> None:
    numbers = range(50)

    def read() -> None:
        for number in numbers:
            assert inbox.put(frame("a", number), live=False) is None
        for stream in ("a", "b", "c"):
            inbox.finish(stream)

    reader = threading.Thread(target=read)
    reader.start()
    taken = []
    while batch := inbox.take(1, 0):
        taken += [f.number for f in batch]
    reader.join()
    assert taken == list(numbers)


def test_a_busy_stream_does_not_starve_the_others(inbox: Inbox) -> None:
    served = []
    for number in range(6):
        for stream in ("a", "b", "c"):
            inbox.put(frame(stream, number), live=True)
        served += [f.stream for f in inbox.take(1, 0)]
    assert served == ["a", "b", "c", "a", "b", "c"]


def test_a_batch_has_one_frame_a_stream_and_one_picture_size() -> None:
    inbox = Inbox(size_key=lambda f: f.picture)
    for stream, size in (("a", (640, 360)), ("b", (640, 480)), ("c", (640, 360))):
        inbox.register(stream)
        inbox.put(frame(stream, 0, size), live=True)
    assert [f.stream for f in inbox.take(8, 0)] == ["a", "c"]
    assert [f.stream for f in inbox.take(8, 0)] == ["b"]


def test_a_batch_waits_for_others_but_not_beyond_its_deadline(inbox: Inbox) -> None:
    inbox.put(frame("a", 0), live=True)
    late = threading.Timer(0.05, lambda: inbox.put(frame("b", 0), live=True))
    late.start()
    assert [f.stream for f in inbox.take(2, 5)] == ["a", "b"]
    late.join()
    inbox.put(frame("c", 0), live=True)
    assert [f.stream for f in inbox.take(2, 0.01)] == ["c"]


def test_what_finished_streams_left_is_still_taken_then_the_end_is_told(inbox: Inbox) -> None:
    inbox.put(frame("a", 0), live=False)
    for stream in ("a", "b", "c"):
        inbox.finish(stream)
    assert len(inbox.take(1, 0)) == 1
    assert inbox.take(1, 0) == []


def test_closing_releases_everybody_and_gives_every_waiting_frame_back(inbox: Inbox) -> None:
    refused: list[Frame | None] = []

    def read() -> None:
        refused.extend(inbox.put(frame("a", number), live=False) for number in range(3))

    reader = threading.Thread(target=read)
    reader.start()
    while len(inbox._waiting["a"]) < Inbox.FILE_DEPTH:
        threading.Event().wait(0.001)
    inbox.close()
    reader.join(5)
    assert not reader.is_alive()
    assert inbox.take(1, 0) == []
    lost = [f.number for f in refused if f is not None] + [f.number for f in inbox.drain()]
    assert sorted(lost) == [0, 1, 2]
