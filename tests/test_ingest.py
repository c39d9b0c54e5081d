"""Ingest of files: every frame once and in order, and what is lost is counted."""

from __future__ import annotations

import itertools
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clips, encode, picture
from numpy.typing import NDArray
from reading import Reading, read_all, until

from streamseg import errors
from streamseg.channel import Inbox
from streamseg.ingest.frames import file_frames
from streamseg.ingest.pace import Pacer
from streamseg.overlay import full_range
from streamseg.types import Frame


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("h264", {}),
        ("h264", {"bframes": 2}),
        ("h264", {"bframes": 2, "container": "mkv"}),
        ("h264", {"container": "ts"}),
        ("h265", {}),
        ("h265", {"bframes": 2}),
        ("mjpeg", {}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_file_delivers_every_frame_once_and_in_order(kind: str, options: dict[str, Any], clip: Clips) -> None:
    reading, frames, numbers = read_all(clip(kind, frames=40, **options))
    assert numbers == [frame.number for frame in frames] == list(range(40))
    assert reading.metrics.snapshot() | {"fps": 0} == {
        "state": "ended", "fps": 0, "frames": 40, "published": 40, "reused": 0, "dropped": {},
    }  # fmt: skip
    assert reading.states == ["connecting", "running", "ended"]
    assert {frame.clock for frame in frames} == {"file"}
    assert {b.media_ns - a.media_ns for a, b in itertools.pairwise(frames)} <= {39_999_999, 40_000_000, 40_000_001}


@pytest.mark.shared
def test_a_real_camera_s_hevc_clip_delivers_every_frame(shared_data: Path) -> None:
    with Reading(shared_data / "clips" / "overhead-cars-432p.mp4") as reading:
        count = sum(1 for _ in reading.frames())
    assert count == reading.metrics.expected == reading.metrics.published
    assert not reading.metrics.dropped


def test_media_time_follows_the_gaps_of_a_clip(clip: Clips) -> None:
    _, frames, numbers = read_all(clip("gaps", frames=30, missing=range(10, 20)))
    assert numbers == [*range(10), *range(20, 30)]
    assert [f.number for f in frames] == list(range(20))
    steps = [round((b.media_ns - a.media_ns) / 1e6) for a, b in itertools.pairwise(frames)]
    assert steps == [40] * 9 + [440] + [40] * 9


def test_a_change_of_size_is_told_and_forgets_the_past(clip: Clips) -> None:
    reading, frames, numbers = read_all(clip("resized", frames=15))
    assert numbers == list(range(30))
    assert [f.picture.width for f in frames] == [320] * 15 + [480] * 15
    assert len({f.state_key for f in frames[:15]}) == len({f.state_key for f in frames[15:]}) == 1
    assert frames[0].state_key != frames[-1].state_key
    assert ("running", "size-changed", "480x360") in reading.events


def test_damaged_pictures_are_counted_and_the_rest_goes_on(clip: Clips) -> None:
    reading, frames, numbers = read_all(clip("damaged", frames=60))
    seen = reading.metrics.snapshot()
    assert seen["frames"] == 60
    assert seen["dropped"].keys() == {"corrupt"}
    assert seen["published"] + seen["dropped"]["corrupt"] == 60
    assert numbers[:20] == list(range(20))
    assert numbers[-5:] == list(range(55, 60))
    assert seen["state"] == "ended"
    assert [f.number for f in frames] == sorted({f.number for f in frames})


@pytest.mark.parametrize(("width", "height"), [(2, 2), (16, 2000), (300, 2)])
def test_a_picture_too_narrow_to_look_at_is_counted_and_ends_nothing(width: int, height: int, tmp_path: Path) -> None:
    """Damage to a stream's parameters gives pictures of any size."""
    path = tmp_path / "narrow.mkv"
    encode(path, "ffv1", {}, frames=3, width=width, height=height, pixel_format="yuv444p")
    reading, frames, _ = read_all(path)
    assert (frames, reading.metrics.dropped) == ([], {"corrupt": 3})


def test_a_file_may_be_named_after_the_time(clip: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2026-11-21T12:30:00.mp4").symlink_to(clip("h264"))
    monkeypatch.chdir(tmp_path)
    reading, _, numbers = read_all("2026-11-21T12:30:00.mp4")
    assert (reading.states[-1], numbers) == ("ended", list(range(30)))


def test_a_title_in_another_character_set_is_no_fault(clip: Clips, tmp_path: Path) -> None:
    path = tmp_path / "titled.mkv"
    with av.open(clip("h264")) as whole, av.open(path, "w") as titled:
        titled.metadata["title"] = "the front door"
        stream = titled.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                titled.mux(packet)
    data = path.read_bytes()
    assert b"the front door" in data
    path.write_bytes(data.replace(b"the front door", "die Haustür... ".encode("latin-1")[:14]))
    assert read_all(path)[2] == list(range(30))


def test_a_stream_that_comes_up_later_ends_nothing(clip: Clips, tmp_path: Path) -> None:
    """One damaged bit in the number of an MPEG-TS packet's stream makes a new one."""
    data = clip("h264", frames=50, container="ts").read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    begins = [i for i, packet in enumerate(packets) if packet[1:3] == b"\x41\x00"]  # a picture of stream 0x100
    first = packets[begins[40]]
    packets.insert(begins[40], first[:1] + b"\x45" + first[2:])
    path = tmp_path / "later.ts"
    path.write_bytes(b"".join(packets))
    reading, _, numbers = read_all(path)
    assert numbers == list(range(50))
    assert (reading.states[-1], reading.metrics.dropped) == ("ended", {})


@pytest.mark.parametrize("bframes", [0, 2])
def test_a_file_cut_in_the_middle_gives_what_there_is_and_says_so(bframes: int, clip: Clips, tmp_path: Path) -> None:
    whole = clip("h264", frames=60, bframes=bframes, movflags="+faststart").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    reading, _, numbers = read_all(cut)
    assert len(numbers) >= 15
    assert numbers == list(range(len(numbers)))
    assert isinstance(reading.reader.failed, errors.SourceCorrupt)
    assert "cut short" in str(reading.reader.failed)
    assert reading.states == ["connecting", "running", "failed"]


@pytest.mark.apt("ffmpeg")
def test_a_file_trimmed_without_encoding_is_whole(clip: Clips, tmp_path: Path) -> None:
    """It holds frames before its beginning, from the key frame on, that are decoded but not shown."""
    trimmed = tmp_path / "trimmed.mp4"
    whole = clip("h264", frames=60, bframes=2, gop=25)
    cut = ["ffmpeg", "-v", "error", "-ss", "1.3", "-i", str(whole), "-c", "copy", str(trimmed)]
    subprocess.run(cut, check=True, timeout=60)
    reading, _, numbers = read_all(trimmed)
    assert numbers == list(range(60 - len(numbers), 60))
    assert reading.metrics.expected is not None
    assert len(numbers) < reading.metrics.expected
    assert (reading.states[-1], reading.metrics.dropped) == ("ended", {})


@pytest.mark.parametrize(
    ("fps", "passed"), [(5, range(0, 50, 5)), (12.5, range(0, 50, 2)), (25, range(50)), (60, range(50))]
)
def test_a_rate_limit_passes_evenly_spaced_frames_and_counts_the_rest(fps: float, passed: range, clip: Clips) -> None:
    reading, frames, numbers = read_all(clip("h264", frames=50), fps=fps)
    assert numbers == [f.number for f in frames] == list(passed)
    assert reading.metrics.dropped == ({"fps": 50 - len(passed)} if len(passed) < 50 else {})


def test_a_rate_that_does_not_divide_is_met_on_average(clip: Clips) -> None:
    _, _, numbers = read_all(clip("h264", frames=50), fps=10)
    assert len(numbers) in (20, 21)
    assert {b - a for a, b in itertools.pairwise(numbers)} == {2, 3}


def test_at_its_own_rate_a_file_is_read_as_a_camera_is_and_ends(clip: Clips) -> None:
    begin = time.monotonic()
    reading, _, numbers = read_all(clip("h264", frames=25), pace="realtime")
    assert time.monotonic() - begin > 0.9
    assert numbers == sorted(numbers)
    assert len(numbers) + reading.metrics.dropped["superseded"] == 25
    assert reading.states[-1] == "ended"


def test_paced_pictures_arrive_before_they_are_decoded_and_in_the_rhythm_of_the_file(clip: Clips) -> None:
    _, frames, _ = read_all(clip("h264", frames=15), pace="realtime")
    steps_ms = sorted(
        (b.captured_ns - a.captured_ns) / 1e6 / (b.number - a.number) for a, b in itertools.pairwise(frames)
    )
    assert steps_ms[len(steps_ms) // 2] == pytest.approx(40, abs=1)
    assert all(time.time_ns() > frame.captured_ns for frame in frames)


def test_a_packet_that_is_fetched_late_has_waited() -> None:
    pacer = Pacer(lambda seconds: time.sleep(seconds) or False)
    first = pacer.arrival(5_000_000_000)
    time.sleep(0.05)
    late = pacer.arrival(5_010_000_000)
    assert first is not None
    assert late is not None
    assert time.time_ns() - late > 35e6
    assert abs(late - first - 10e6) < 5e6
    again = pacer.arrival(0)  # a file joined to the first: its times begin anew
    assert again is not None
    assert abs(again - late) < 5e6


def test_a_file_may_start_later_and_stops_while_it_waits(clip: Clips) -> None:
    with Reading(clip("h264", frames=15), pace="realtime", start_s=600) as reading:
        until(lambda: reading.metrics.state == "running", "opened")
    assert reading.metrics.snapshot()["frames"] == 0


@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_a_finite_synthetic_street_ends(pace: str) -> None:
    with Reading(f"synthetic://street?size=160x96&frames=8&fps=25&pace={pace}") as reading:
        count = sum(1 for _ in reading.frames())
    assert count + reading.metrics.dropped.total() == reading.metrics.frames
    assert reading.states == ["connecting", "running", "ended"]
    if pace == "max":
        assert (count, reading.metrics.dropped) == (8, {})


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size"),
    [
        ("libx264", "yuv420p", (322, 242)),
        ("libx264", "yuvj420p", (322, 242)),
        ("libx264", "yuv422p", (322, 242)),
        ("libx264", "yuv444p", (322, 242)),
        ("mjpeg", "yuvj420p", (321, 241)),
        ("mjpeg", "yuvj422p", (321, 241)),
    ],
)
def test_pictures_have_the_clip_s_colours_in_every_format(
    codec: str, pixel_format: str, size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    path = tmp_path / f"clip.{'avi' if codec == 'mjpeg' else 'mp4'}"
    quality = {"qmin": "2", "qmax": "2"} if codec == "mjpeg" else {"qp": "4"}
    encode(path, codec, quality, pixel_format=pixel_format, frames=1, width=width, height=height)
    with Reading(path) as reading:
        (frame,) = reading.frames()
        wanted = picture(0, width, height).astype(int)
        got = frame.picture.rgb(width, height)
        assert got.shape == wanted.shape
        assert got.flags.c_contiguous
        assert np.abs(got - wanted).mean() < 4
        planes = full_range(frame.picture.planes())
        assert planes.y.shape == (height, width)
        assert planes.u.shape == planes.v.shape == (-(-height // 2), -(-width // 2))
        luma = wanted @ [0.299, 0.587, 0.114]
        assert np.abs(planes.y - luma).mean() < 3
        small = frame.picture.rgb(160, 96)
        assert small.shape == (96, 160, 3)


def test_planes_may_be_asked_for_by_several_threads_at_once(tmp_path: Path) -> None:
    """An encoder and the publisher do, of neighbouring frames, when somebody joins late."""
    path = tmp_path / "clip.avi"
    encode(path, "mjpeg", {"qmin": "2", "qmax": "2"}, pixel_format="yuvj422p", frames=6, width=640, height=480)
    frames = list(file_frames(path))
    alone = [np.concatenate([plane.ravel() for plane in planes_of(frame)]) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(planes_of, frames * 20), alone * 20, strict=True):
            np.testing.assert_array_equal(np.concatenate([plane.ravel() for plane in got]), wanted)


def planes_of(frame: Frame) -> list[NDArray[np.uint8]]:
    planes = frame.picture.planes()
    return [planes.y.copy(), planes.u.copy(), planes.v.copy()]


def test_a_reader_waiting_for_room_ends_when_it_is_told_to(clip: Clips) -> None:
    with Reading(clip("h264", frames=30)) as reading:
        until(lambda: reading.metrics.frames == Inbox.FILE_DEPTH + 1, "the line is full")
    assert reading.metrics.dropped == {"shutdown": Inbox.FILE_DEPTH + 1}
