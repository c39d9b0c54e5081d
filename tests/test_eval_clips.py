"""`streamseg eval` of clips: what it reports over time, several ways of smoothing side by side, and the video."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tiny_engine as tiny
from clips import Clips
from processes import Finished

FRAMES, WIDTH, HEIGHT = 24, 160, 120
GROUND, SQUARE, VOID = tiny.NAMES.index("ground"), tiny.NAMES.index("square"), 255


def truth() -> tuple[np.ndarray, np.ndarray]:
    """(labels, moving) of `clips.picture`: void over the blocks on top, and a square that moves 4 pixels a frame."""
    labels = np.full((FRAMES, HEIGHT, WIDTH), GROUND, np.uint8)
    moving = np.zeros(labels.shape, bool)
    side = HEIGHT // 4
    labels[:, :side] = VOID
    for number in range(FRAMES):
        left = number * 4 % (WIDTH - side)
        moving[number, HEIGHT // 2 : HEIGHT // 2 + side, left : left + side] = True
    labels[moving] = SQUARE
    return labels, moving


@pytest.fixture
def labelled(clip: Clips, tmp_path: Path) -> Callable[..., Path]:
    """A clip of its own with these arrays beside it; by default the truth of it."""

    def make(name: str = "clip", **arrays: np.ndarray) -> Path:
        path = tmp_path / f"{name}.mp4"
        shutil.copy(clip("h264", frames=FRAMES, width=WIDTH, height=HEIGHT), path)
        if not arrays:
            arrays = dict(zip(("labels", "moving"), truth(), strict=True))
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        return path

    return make


@pytest.fixture
def report(streamseg_here: Callable[..., Finished], tiny_engine: Path) -> Callable[..., dict[str, Any]]:
    def run(*arguments: object) -> dict[str, Any]:
        done = streamseg_here("eval", tiny_engine, *arguments, "--json")
        assert done.code == 0, done
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return run


def test_one_clip_is_measured_over_time_too(
    report: Callable[..., dict[str, Any]], labelled: Callable[..., Path]
) -> None:
    measured = report(labelled(), "--smoothing", "off")
    assert {"engine", "data", "pictures", "miou", "pixel_accuracy", "iou", "seconds"} <= measured.keys()
    assert measured["pictures"] == FRAMES
    assert measured["moving_recall"] > 0.9
    assert measured["moving_class_iou"] == {"square": measured["moving_iou"]}
    assert measured["mvc8"] > 0.9
    assert 0 <= measured["flicker"] < 0.02 < measured["changed"]
    assert (measured["objects"], measured["lag_frames"]) == (0, None)  # it was there from the start


def test_ways_of_smoothing_are_compared_over_several_clips(
    report: Callable[..., dict[str, Any]], labelled: Callable[..., Path]
) -> None:
    clips = labelled("one"), labelled("two")
    compared = report(*clips, "--smoothing", "off,average:1")
    assert compared["modes"] == ["off", "average:1"]
    assert [(c["data"], c["pictures"]) for c in compared["clips"]] == [(str(path), FRAMES) for path in clips]
    for mode in compared["modes"]:
        each = [c["modes"][mode]["moving_recall"] for c in compared["clips"]]
        assert compared["mean"][mode]["moving_recall"] == pytest.approx(np.mean(each), abs=1e-4)
    off, slow = (compared["mean"][mode]["moving_recall"] for mode in compared["modes"])
    assert slow < off - 0.1  # an average over half a second trails behind the square
    change = compared["change"]["average:1"]["moving_recall"]
    assert change["points"] == pytest.approx(100 * (slow - off), abs=0.01)
    assert change["percent"] == pytest.approx(100 * (slow / off - 1), abs=0.01)
    assert len(change["percent_by_clip"]) == 2


def test_nothing_is_carried_from_clip_to_clip_or_from_one_way_to_the_other(
    report: Callable[..., dict[str, Any]], labelled: Callable[..., Path]
) -> None:
    clips = labelled("one"), labelled("two")
    compared = report(*clips, "--smoothing", "off,average:1")
    first, second = (clip["modes"] for clip in compared["clips"])
    assert first == second
    alone = report(clips[0], "--smoothing", "average", "--set", "smoothing.strength=1")
    assert first["average:1"] == {key: alone[key] for key in first["average:1"]}


def test_lags_are_compared_object_by_object(
    report: Callable[..., dict[str, Any]], labelled: Callable[..., Path]
) -> None:
    labels, moving = truth()
    for array, hidden in ((labels, GROUND), (moving, False)):
        array[:5, HEIGHT // 4 :] = hidden  # as if the square had come in with the sixth frame
    clip = labelled(labels=labels, moving=moving)
    compared = report(clip, "--smoothing", "off,average:1")
    assert (compared["mean"]["off"]["objects"], compared["mean"]["off"]["lag_frames"]) == (1, 0)
    lag = compared["change"]["average:1"]["lag"]
    assert lag["objects"] + lag["lost"] == 1
    assert lag["gained"] == 0


def test_a_mask_of_moving_objects_is_truth_for_the_classes_named(
    report: Callable[..., dict[str, Any]], labelled: Callable[..., Path]
) -> None:
    clip = labelled(foreground=truth()[1].astype(np.uint8))
    measured = report(clip, "--smoothing", "off", "--foreground", "square")
    assert measured["foreground_iou"] > 0.8
    assert measured["flicker"] < measured["changed"]
    assert "miou" not in measured
    wrong = report(clip, "--smoothing", "off", "--foreground", "black,white")
    assert wrong["foreground_iou"] < 0.1


def test_the_table_names_every_mode_and_measure(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, labelled: Callable[..., Path]
) -> None:
    done = streamseg_here("eval", tiny_engine, labelled(), "--smoothing", "off,average")
    assert done.code == 0, done
    for word in ("off", "average - off", "flicker", "mVC16", "moving recall", "points"):
        assert word in done.stdout
    assert done.stderr == ""  # no bar where there is no terminal


# The video


def decoded(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    with av.open(path) as container:
        return [(f.pts * f.time_base, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def test_the_video_shows_raw_smoothed_truth_and_flicker_side_by_side(
    report: Callable[..., dict[str, Any]], labelled: Callable[..., Path], tmp_path: Path
) -> None:
    report(labelled(), "--video", tmp_path / "seen.mp4")
    frames = decoded(tmp_path / "seen.mp4")
    assert [float(t) for t, _ in frames] == pytest.approx([n / 25 for n in range(FRAMES)], abs=1e-3)
    last = frames[-1][1]
    assert last.shape == (HEIGHT, 4 * WIDTH, 3)
    # The square, in the middle of its way, has the colour of its class on top of its own in the first three panels.
    side, left = HEIGHT // 4, (FRAMES - 1) * 4
    y, x = HEIGHT // 2 + side // 2, left + side // 2
    seen = [last[y, panel * WIDTH + x].astype(int) for panel in range(3)]
    assert np.abs(seen[0] - tiny.COLOURS["square"]).max() < 30
    assert np.abs(seen[0] - seen[2]).max() < 30
    assert last[y, 3 * WIDTH + x].max() < 110  # the last one is dim where nothing flickered


def test_without_truth_the_video_has_three_panels(
    report: Callable[..., dict[str, Any]], clip: Clips, tmp_path: Path
) -> None:
    compared = report(clip("h264", frames=12), "--video", tmp_path / "seen.mkv")
    assert compared["modes"] == ["off", "average"]
    assert compared["mean"]["off"].keys() == {"inferred", "changed"}
    frames = decoded(tmp_path / "seen.mkv")
    assert (len(frames), frames[0][1].shape) == (12, (240, 3 * 320, 3))


def test_a_way_of_smoothing_that_is_the_engines_own_too_is_run_and_shown_once(
    report: Callable[..., dict[str, Any]], clip: Clips, tmp_path: Path
) -> None:
    compared = report(clip("h264", frames=12), "--video", tmp_path / "seen.mkv", "--set", "smoothing.mode=off")
    assert compared["modes"] == ["off"]
    assert decoded(tmp_path / "seen.mkv")[0][1].shape == (240, 2 * 320, 3)


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip.mp4", "."], "a folder; only clips can be compared"),
        (["synthetic://street", "clip.mp4"], "synthetic://street: no file; only clips"),
        (["clip.mp4", "nope.mp4"], "no such file"),
        (["clip.mp4", "clip.mp4", "--video", "x.mp4"], "--video shows one clip"),
        (["clip.mp4", "--video", "x.nothing"], "x.nothing"),
        (["clip.mp4", "--video", "clip.mp4"], "clip.mp4: this is the clip itself"),
        (["clip.mp4", "--video", "nowhere/x.mp4"], "nowhere/x.mp4: cannot be written: No such file"),
        (["clip.mp4", "--foreground", "dragon"], "no class 'dragon'"),
        (["clip.mp4", "--smoothing", "off,sometimes"], "smoothing.mode"),
        (["clip.mp4", "--smoothing", "off,average:much"], "smoothing.strength"),
        (["clip.mp4", "clip.mp4", "--save-labels", "x.npz"], "--save-labels"),
        (["short.mp4", "clip.mp4"], f"has {FRAMES} frames, but short.npz has labels for 3"),
        (["odd.mp4"], "moving is uint8"),
        (["none.mp4"], "no array `labels`"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    streamseg_here: Callable[..., Finished],
    tiny_engine: Path,
    labelled: Callable[..., Path],
    tmp_path: Path,
    arguments: list[str],
    words: str,
) -> None:
    labels, moving = truth()
    labelled("clip")
    labelled("short", labels=labels[:3])
    labelled("odd", labels=labels, moving=moving.astype(np.uint8))
    labelled("none", boxes=labels)
    paths = [tmp_path / a if a == "." or a.endswith((".mp4", ".nothing")) else a for a in arguments]
    done = streamseg_here("eval", tiny_engine, *paths)
    assert done.code == 2, done
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


# The engine's benchmark


def test_bench_engine_measures_every_combination_and_its_parts(
    streamseg_here: Callable[..., Finished], tiny_engine: Path
) -> None:
    size = ["--size", "160x96", "--runs", 12]
    options = ["--backend", "openvino,torch", "--precision", "fp32", "--threads", "1,2", "--smoothing", "off,average"]
    done = streamseg_here("bench", "engine", tiny_engine, *size, *options, "--json")
    assert done.code == 0, done
    measured = json.loads(done.stdout)
    assert measured["runs"] == 12
    combinations = [(r["backend"], r["threads"], r["smoothing"]) for r in measured["results"]]
    assert combinations == [(b, n, m) for b in ("openvino", "torch") for n in (1, 2) for m in ("off", "average")]
    for result in measured["results"]:
        assert result["size"] == "160x96"
        assert 0 < result["min_ms"] <= result["median_ms"]
        assert ("cost_percent" in result) == (result["smoothing"] == "average")
        # torch does all in one graph; the others make labels outside it.
        assert result["graph_ms"] > 0


def test_bench_engine_prints_a_table_and_says_what_is_no_choice(
    streamseg_here: Callable[..., Finished], tiny_engine: Path
) -> None:
    done = streamseg_here("bench", "engine", tiny_engine, "--size", "160x96", "--runs", 2)
    assert done.code == 0, done
    assert "cost_percent" in done.stdout
    for option, value in (
        ("--size", "160"),
        ("--threads", "some"),
        ("--precision", "fp7"),
        ("--smoothing", "x"),
        ("--published", "x"),
    ):
        done = streamseg_here("bench", "engine", tiny_engine, option, value)
        assert (done.code, done.stderr.count("\n")) == (2, 1), done
        assert option in done.stderr
