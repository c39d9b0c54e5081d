"""Adaptive smoothing: what stands still holds still, what moves is followed at once, whatever the frame rate."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
from stills import frame

from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.types import U8

GROUND, BLACK, WHITE, SQUARE = range(4)
HEIGHT, WIDTH = 96, 160


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_engine.write(tmp_path, smoothing="adaptive", strength=0.5)


def scene(number: int, *, noise: float = 0.0, brightness: float = 1.0, square: int | None = None) -> U8:
    """Ground on the left, black on the right; between them a strip whose colour is as near to one as to the other.
    `square`: the left edge of a red square."""
    picture = np.empty((HEIGHT, WIDTH, 3), np.float64)
    picture[:] = tiny_engine.COLOURS["ground"]
    picture[:, WIDTH // 2 :] = tiny_engine.COLOURS["black"]
    between = (np.array(tiny_engine.COLOURS["ground"], np.float64) + tiny_engine.COLOURS["black"]) / 2
    picture[:, WIDTH // 2 - 16 : WIDTH // 2 + 16] = between
    if square is not None:
        picture[32:64, square : square + 32] = tiny_engine.COLOURS["square"]
    picture += np.random.default_rng(number).normal(0, noise, picture.shape)
    return np.clip(picture * brightness, 0, 255).astype(np.uint8)


def run(bundle: Bundle, pictures: list[U8], mode: str, fps: float = 25) -> list[U8]:
    engine = Engine(bundle, smoothing=mode, precision="fp32")  # type: ignore[arg-type]
    return [engine.run([frame(rgb, i / fps)])[0].labels for i, rgb in enumerate(pictures)]


def changes(labels: list[U8]) -> float:
    return float(np.mean([(a != b).mean() for a, b in pairwise(labels)]))


@pytest.mark.parametrize("fps", [5, 25])
def test_sensor_noise_makes_labels_flicker_far_less(bundle: Bundle, fps: float) -> None:
    pictures = [scene(i, noise=8) for i in range(20)]
    assert changes(run(bundle, pictures, "off", fps)) > 0.02
    assert changes(run(bundle, pictures, "adaptive", fps)) < 0.2 * changes(run(bundle, pictures, "off", fps))


def test_exposure_flicker_is_not_taken_for_motion(bundle: Bundle) -> None:
    pictures = [scene(i, noise=8, brightness=1 + 0.03 * (-1) ** i) for i in range(20)]
    assert changes(run(bundle, pictures, "adaptive")) < 0.25 * changes(run(bundle, pictures, "off"))


@pytest.mark.parametrize("fps", [5, 25])
def test_what_moves_is_labelled_in_the_same_frame_and_leaves_no_trail(bundle: Bundle, fps: float) -> None:
    pictures = [scene(i, noise=3, square=4 * i) for i in range(10)]
    off, adaptive = (run(bundle, pictures, mode, fps) for mode in ("off", "adaptive"))
    for raw, smooth in zip(off, adaptive, strict=True):
        assert ((smooth == SQUARE) & (raw == SQUARE)).sum() >= 0.95 * (raw == SQUARE).sum()
        assert ((smooth == SQUARE) & (raw != SQUARE)).sum() <= 0.05 * (raw == SQUARE).sum()


def test_what_stops_stays_and_what_goes_is_gone_at_once(bundle: Bundle) -> None:
    pictures = [scene(i, noise=3, square=40) for i in range(25)] + [scene(99, noise=3)]
    labels = run(bundle, pictures, "adaptive")
    assert all((one[36:60, 44:60] == SQUARE).all() for one in labels[:25])
    assert (labels[25][36:60, 44:60] == GROUND).all()


def test_a_reset_forgets_the_past(bundle: Bundle) -> None:
    engine = Engine(bundle, precision="fp32")
    for i in range(10):
        engine.run([frame(scene(i, square=40), i / 25)])
    fresh = Engine(bundle, precision="fp32").run([frame(scene(50), 0.0)])[0].labels
    np.testing.assert_array_equal(engine.run([frame(scene(50), 0.4, state_key=9)])[0].labels, fresh)


def test_a_class_must_win_by_a_margin(tmp_path: Path) -> None:
    """With next to no averaging left, 0.58 against 0.42 is not enough to take a pixel over."""
    quick = tiny_engine.write(tmp_path, smoothing="adaptive", strength=0.001)
    between = (np.array(tiny_engine.COLOURS["ground"], np.float64) + tiny_engine.COLOURS["black"]) / 2
    pictures = [np.full((HEIGHT, WIDTH, 3), between + (-1) ** i).round().astype(np.uint8) for i in range(6)]
    assert changes(run(quick, pictures, "off", fps=5)) == 1
    assert changes(run(quick, pictures, "adaptive", fps=5)) == 0


def test_what_was_covered_for_a_moment_is_known_again_at_once(bundle: Bundle) -> None:
    """In the noisy half-and-half strip a fresh answer is a coin's toss; what was there before it was covered is not."""

    def covered(i: int) -> U8:
        picture = scene(i, noise=8)
        if 75 <= i < 85:
            picture[32:64, WIDTH // 2 - 16 : WIDTH // 2 + 16] = tiny_engine.COLOURS["square"]
        return picture

    labels = run(bundle, [covered(i) for i in range(90)], "adaptive")
    strip = np.s_[36:60, WIDTH // 2 - 12 : WIDTH // 2 + 12]
    assert (labels[80][strip] == SQUARE).all()
    assert (labels[86][strip] == labels[74][strip]).mean() > 0.97


def test_where_the_picture_changes_a_class_that_moves_is_the_likelier_one(tmp_path: Path) -> None:
    """A colour between black and square comes up on black: a tie by itself, which black would hold."""
    between = (np.array(tiny_engine.COLOURS["black"], np.float64) + tiny_engine.COLOURS["square"]) / 2

    def pictures() -> list[U8]:
        found = []
        for i in range(20):
            picture = scene(i, noise=1).astype(np.float64)
            if i == 19:
                picture[32:64, 112:144] = between
            found.append(picture.astype(np.uint8))
        return found

    share = []
    for moves in ((), ("square",)):
        engine = tiny_engine.write(tmp_path / "-".join(("moves", *moves)), smoothing="adaptive", moves=moves)
        share.append((run(engine, pictures(), "adaptive")[-1][36:60, 116:140] == SQUARE).mean())
    assert share[0] == 0
    assert share[1] == 1


def test_a_moving_camera_leaves_no_margin_and_no_trail(bundle: Bundle) -> None:
    """A wall of bright and dark colours, each a little nearer to ground or to square: a margin would hold the first."""
    ground, square = (np.array(tiny_engine.COLOURS[name], np.float64) for name in ("ground", "square"))
    rng = np.random.default_rng(1)
    shade = rng.choice([-30.0, 30.0], (6, 40, 1)) * np.array([0.4, 1, 0])  # changes luma, and nearness to neither
    wall = (ground + square) / 2 + shade + rng.choice([-0.02, 0.02], (6, 40, 1)) * (square - ground)
    wide = np.repeat(np.repeat(wall.round().astype(np.uint8), 16, 0), 16, 1)
    pictures = [np.ascontiguousarray(wide[:, 8 * i : 8 * i + WIDTH]) for i in range(40)]
    off, adaptive = (run(bundle, pictures, mode) for mode in ("off", "adaptive"))
    assert (
        np.mean([(raw == smooth).mean() for raw, smooth in zip(off[5:], adaptive[5:], strict=True)]) > 0.7
    )  # 0.55 with a margin
