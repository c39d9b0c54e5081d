"""Frames on which nothing moved are published again instead of analysed; cuts and pans are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import views
from daemon import endpoint_of, everything, report_of
from processes import Running
from reading import Reading

from streamseg.ingest import scene
from streamseg.ingest.frames import file_frames
from streamseg.motion import MotionGate
from streamseg.types import Frame, Result, Roi


def analysed(path: Path, gate: MotionGate) -> list[int]:
    """The numbers of the frames that `gate` lets through to an engine."""
    numbers = []
    for frame in file_frames(path, skip_still=True):
        if gate.reuse(frame) is None:
            numbers.append(frame.number)
            gate.keep(answer(frame))
    return numbers


def answer(frame: Frame) -> Result:
    roi = Roi(0, 0, frame.picture.width, frame.picture.height)
    return Result(frame, lambda: np.zeros((1, 1), np.uint8), "none@0", False, roi, 0, 0)


def test_a_still_noisy_camera_is_hardly_analysed(tmp_path: Path) -> None:
    still = views.write(tmp_path / "still.mp4", [views.wall(1)] * 150)
    numbers = analysed(still, MotionGate())
    assert numbers[:5] == [0, 1, 2, 3, 4]
    assert len(numbers) < 0.1 * 150


def test_the_last_result_never_gets_older_than_refresh_s(tmp_path: Path) -> None:
    still = views.write(tmp_path / "still.mp4", [views.wall(1)] * 60)
    numbers = analysed(still, MotionGate(refresh_s=0.4))
    assert max(np.diff([*numbers, 60])) == 10


@pytest.mark.parametrize("side", [8, 12, 20])
def test_a_small_thing_is_analysed_in_the_frame_it_comes_in(tmp_path: Path, side: int) -> None:
    wall = views.wall(1)
    comes = [wall] * 40 + [views.with_square(wall, side, 200 + 2 * i) for i in range(10)]
    assert 40 in analysed(views.write(tmp_path / "comes.mp4", comes), MotionGate(refresh_s=3600))


def test_what_creeps_adds_up(tmp_path: Path) -> None:
    """A thing that moves a pixel in ten frames changes next to nothing from one frame to the next."""
    wall = views.wall(1)
    creeps = [views.with_square(wall, 40, 200 + i // 10) for i in range(200)]
    numbers = analysed(views.write(tmp_path / "creeps.mp4", creeps, noise=2), MotionGate(refresh_s=3600))
    assert max(np.diff(numbers)) < 100


def test_motion_where_it_does_not_count_is_ignored(tmp_path: Path) -> None:
    wall = views.wall(1)
    waves = views.write(tmp_path / "waves.mp4", [views.with_square(wall, 40, 200 + 9 * (i % 2)) for i in range(100)])
    assert len(analysed(waves, MotionGate())) == 100
    assert len(analysed(waves, MotionGate(ignore=[(0.4, 0.5, 0.15, 0.25)]))) < 15


def test_the_wire_says_which_maps_were_reused(run: Callable[..., Running], tmp_path: Path) -> None:
    wall = views.wall(1)
    pictures = [wall] * 40 + [views.with_square(wall, 60, 200 + 3 * i) for i in range(10)]
    path = views.write(tmp_path / "gate.mp4", pictures)
    running = run(path, "--wait-subscriber", "--json", "--set", "streams[0].motion.skip=true")
    maps = [m for m in everything(endpoint_of(running), kind=["labels", "event"]) if m.header.kind == "labels"]
    (stream,) = report_of(running.wait())["streams"].values()
    reused = [m.header.frame for m in maps if m.header.reused]
    assert [m.header.frame for m in maps] == list(range(50))
    assert stream["published"] == 50  # type: ignore[index]
    assert stream["reused"] == len(reused)  # type: ignore[index]
    assert set(range(10, 24)) <= set(reused) < set(range(5, 40))
    for number in reused:
        np.testing.assert_array_equal(maps[number].array, maps[number - 1].array)


def test_of_a_file_every_frame_is_analysed_unless_asked(run: Callable[..., Running], tmp_path: Path) -> None:
    path = views.write(tmp_path / "still.mp4", [views.wall(1)] * 30)
    (stream,) = report_of(run(path, "--json").wait())["streams"].values()
    assert stream["reused"] == 0  # type: ignore[index]


def noticed(path: Path) -> list[tuple[str, int]]:
    """(reason, the first frame after it) of what was told while running, and that the past was forgotten each time."""
    with Reading(path) as reading:
        found, key, told = [], None, 1
        for frame in reading.frames():
            news = [reason for _, reason, _ in reading.events if reason not in ("", "connected", "end-of-file")]
            if key is not None and frame.state_key != key:
                told += 1
                found.append(frame.number)
            key = frame.state_key
        news = [reason for _, reason, _ in reading.events if reason not in ("", "connected", "end-of-file")]
    return list(zip(news, found, strict=True))


def test_a_cut_is_told_once_and_forgets_the_past(tmp_path: Path) -> None:
    cut = views.write(tmp_path / "cut.mp4", [views.wall(1)] * 20 + [views.wall(2)] * 20)
    assert noticed(cut) == [("scene-cut", 20)]


def test_a_pan_is_told_at_its_beginning_and_its_end(tmp_path: Path) -> None:
    wide = views.wall(3, wide=200)
    left = [0] * 25 + list(range(0, 150, 3)) + [150] * 30
    pan = views.write(tmp_path / "pan.mp4", [np.ascontiguousarray(wide[:, x : x + 480]) for x in left])
    (begins, first), (ends, last) = noticed(pan)
    assert (begins, ends) == ("camera-moving", "camera-steady")
    assert 25 < first < 45
    assert 75 < last < 100


@pytest.mark.parametrize("inwards", [True, False])
def test_a_zoom_is_told_at_its_beginning_and_its_end(tmp_path: Path, inwards: bool) -> None:
    wall = views.wall(3, 960, 540)
    scales = [0.5] * 25 + list(np.geomspace(0.5, 1.0, 50)) + [1.0] * 25  # twice as near within 2 s
    pictures = [views.zoomed(wall, scale) for scale in (scales if inwards else reversed(scales))]
    (begins, first), (ends, last) = noticed(views.write(tmp_path / "zoom.mp4", pictures))
    assert (begins, ends) == ("camera-moving", "camera-steady")
    assert 25 < first < 45
    assert 75 < last < 100


@pytest.mark.parametrize("case", ["exposure", "lights", "passer-by", "noise"])
def test_what_no_camera_movement_is_told_as_none(tmp_path: Path, case: str) -> None:
    wall, pictures = views.wall(1), []
    for i in range(60):
        picture = wall
        if case == "exposure":
            picture = np.clip(wall * (1.0 if i < 30 else 1.35), 0, 255).astype(np.uint8)
        elif case == "lights" and i >= 30:
            picture = (wall * 0.35).astype(np.uint8)
        elif case == "passer-by":
            picture = views.with_square(wall, 150, 8 * i, top=60, step=-50) if 8 * i < 330 else wall
        pictures.append(picture)
    assert noticed(views.write(tmp_path / "calm.mp4", pictures, noise=12 if case == "noise" else 5)) == []


def test_a_shift_that_leaves_nothing_to_compare_is_none() -> None:
    """Of a picture that is only some pixels high."""
    low = np.random.default_rng(1).integers(0, 255, (4, 60)).astype(np.uint8)
    for rows in range(4):
        assert not scene._moved(np.roll(low, rows, 0), low)
