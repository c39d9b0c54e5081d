"""The annotated picture: the classes' colours where the labels say, and the camera's picture everywhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from streamseg.overlay import annotate, full_range
from streamseg.types import U8, ClassInfo, Planes

CLASSES = (
    ClassInfo(0, "road", (128, 64, 128)),
    ClassInfo(1, "person", (220, 20, 60)),
    ClassInfo(2, "car", (0, 0, 142)),
)


def camera(width: int = 640, height: int = 480, *, full: bool = False) -> Planes:
    """A ramp in luma over the whole range, of one colour."""
    low, high = (0, 255) if full else (16, 235)
    y = np.tile(np.linspace(low, high, width).round().astype(np.uint8), (height, 1))
    size = (-(-height // 2), -(-width // 2))
    return Planes(y, np.full(size, 100, np.uint8), np.full(size, 160, np.uint8), full_range=full)


def ycc(rgb: tuple[int, int, int]) -> NDArray[np.float64]:
    """Full-range BT.601 (JFIF), written out."""
    r, g, b = rgb
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return np.array([luma, 128 + (b - luma) / 1.772, 128 + (r - luma) / 1.402])


def stretched(chroma: float, full: bool) -> float:
    return chroma if full else 128 + (chroma - 128) * 255 / 224


def halves(left: int, right: int, width: int = 48, height: int = 36) -> U8:
    labels = np.full((height, width), left, np.uint8)
    labels[:, width // 2 :] = right
    return labels


def below_the_legend(planes: Planes) -> tuple[U8, U8, U8]:
    half = planes.y.shape[0] // 2
    return planes.y[half:], planes.u[half // 2 :], planes.v[half // 2 :]


@pytest.mark.parametrize("full", [False, True], ids=["television range", "full range"])
def test_a_class_s_colour_appears_where_the_labels_say(full: bool) -> None:
    planes = camera(full=full)
    drawn = annotate(planes, halves(1, 2), CLASSES)
    assert drawn.full_range
    _, u, v = below_the_legend(drawn)
    for colour, columns in ((CLASSES[1].colour, slice(2, 158)), (CLASSES[2].colour, slice(162, None))):
        _, cb, cr = ycc(colour)
        assert np.abs(u[:, columns] - (stretched(100, full) + cb) / 2).max() <= 1
        assert np.abs(v[:, columns] - (stretched(160, full) + cr) / 2).max() <= 1


@pytest.mark.parametrize("full", [False, True], ids=["television range", "full range"])
def test_the_picture_keeps_its_luma_over_the_full_range(full: bool) -> None:
    planes = camera(full=full)
    before = planes.y.copy(), planes.u.copy()
    y, _, _ = below_the_legend(annotate(planes, halves(0, 1), CLASSES))
    np.testing.assert_array_equal(y, below_the_legend(full_range(planes))[0])
    assert (y.min(), y.max()) == (0, 255)
    assert np.abs(y[0].astype(float) - np.linspace(0, 255, 640)).max() <= 1
    np.testing.assert_array_equal(planes.y, before[0], "the camera's picture was changed")
    np.testing.assert_array_equal(planes.u, before[1], "the camera's picture was changed")


def test_what_is_beyond_television_range_is_clipped_not_wrapped() -> None:
    planes = Planes(*(np.array([[0, 255], [8, 250]], np.uint8)[:, : 2 if i == 0 else 1] for i in range(3)), False)
    y = full_range(planes).y
    np.testing.assert_array_equal(y, [[0, 255], [0, 255]])


@pytest.mark.parametrize("undrawn", [frozenset({0}), frozenset({0, 2})])
def test_undrawn_classes_keep_the_camera_s_colours(undrawn: frozenset[int]) -> None:
    planes = camera()
    plain = below_the_legend(full_range(planes))
    drawn = below_the_legend(annotate(planes, halves(0, 1), CLASSES, undrawn=undrawn))
    for got, wanted in zip(drawn, plain, strict=True):
        np.testing.assert_array_equal(got[:, : got.shape[1] // 2 - 2], wanted[:, : got.shape[1] // 2 - 2])
    assert np.abs(drawn[2][:, -10:].astype(int) - plain[2][:, -10:]).min() > 2


@pytest.mark.parametrize("undrawn", [frozenset(), frozenset({0})])
@pytest.mark.parametrize("label", [3, 255])
def test_a_label_that_is_no_class_keeps_the_camera_s_colours(label: int, undrawn: frozenset[int]) -> None:
    planes = camera()
    drawn = below_the_legend(annotate(planes, halves(label, 1), CLASSES, undrawn=undrawn))
    for got, wanted in zip(drawn, below_the_legend(full_range(planes)), strict=True):
        np.testing.assert_array_equal(got[:, : got.shape[1] // 2 - 2], wanted[:, : got.shape[1] // 2 - 2])


@pytest.mark.parametrize("size", [(641, 481), (640, 481), (641, 480), (33, 17), (1, 1), (2, 3)])
def test_any_picture_size_will_do(size: tuple[int, int]) -> None:
    width, height = size
    drawn = annotate(camera(width, height), halves(1, 2), CLASSES)
    assert drawn.y.shape == (height, width)
    assert drawn.u.shape == drawn.v.shape == (-(-height // 2), -(-width // 2))
    assert drawn.y.flags.c_contiguous
    assert drawn.u.flags.c_contiguous


def padded(plane: U8) -> U8:
    rows = np.zeros((plane.shape[0], plane.shape[1] + 32), np.uint8)
    rows[:, : plane.shape[1]] = plane
    return rows[:, : plane.shape[1]]


@pytest.mark.parametrize("draw", [full_range, lambda planes: annotate(planes, halves(1, 0), CLASSES)])
@pytest.mark.parametrize("full", [False, True])
def test_padded_rows_as_decoders_give_them_make_no_difference(draw: Callable[[Planes], Planes], full: bool) -> None:
    planes = camera(322, 242, full=full)
    rows = Planes(padded(planes.y), padded(planes.u), padded(planes.v), full_range=full)
    assert not rows.y.flags.c_contiguous
    for got, wanted in zip(below_the_legend(draw(rows)), below_the_legend(draw(planes)), strict=True):
        np.testing.assert_array_equal(got, wanted)


def colours_in(picture: Planes) -> set[tuple[int, int]]:
    return set(zip(picture.u.ravel().tolist(), picture.v.ravel().tolist(), strict=True))


def test_the_legend_shows_the_colour_of_each_drawn_class() -> None:
    """A ground of no class leaves only the legend's colours beside the camera's."""
    nothing = np.full((36, 48), 255, np.uint8)
    wanted = [tuple(np.rint(ycc(c.colour)[1:]).astype(int).tolist()) for c in CLASSES]
    assert set(wanted) <= colours_in(annotate(camera(), nothing, CLASSES))
    without = colours_in(annotate(camera(), nothing, CLASSES, undrawn=frozenset({0})))
    assert wanted[0] not in without
    assert set(wanted[1:]) <= without


def test_a_picture_too_small_for_the_legend_has_none() -> None:
    planes = camera(64, 24)
    np.testing.assert_array_equal(annotate(planes, halves(0, 1), CLASSES).y, full_range(planes).y)
