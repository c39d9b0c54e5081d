"""Labels from low-resolution scores: the shortcut gives what interpolating every pixel of every class would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamseg.engine import upsample


def every_pixel(scores: np.ndarray, width: int, height: int) -> np.ndarray:
    """The definition, in float64: half-pixel bilinear interpolation of all classes, then argmax."""
    _, rows, columns = scores.shape

    def taps(size: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, count - 1), at - low

    y0, y1, fy = taps(height, rows)
    x0, x1, fx = taps(width, columns)
    s = scores.astype(np.float64)
    upper = s[:, y0][:, :, x0] * (1 - fx) + s[:, y0][:, :, x1] * fx
    lower = s[:, y1][:, :, x0] * (1 - fx) + s[:, y1][:, :, x1] * fx
    return upper * (1 - fy)[:, None] + lower * fy[:, None]


def assert_same_labels(scores: np.ndarray, width: int, height: int) -> None:
    """Equal but where the two best classes are so close that float32 cannot tell them apart."""
    truth = every_pixel(scores, width, height)
    got = upsample.labels(scores, width, height)
    assert got.shape == (height, width)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(upsample.labels(scores, width, height, scores.argmax(0).astype(np.uint8)), got)
    chosen = np.take_along_axis(truth, got[None].astype(int), 0)[0]
    assert (truth.max(0) - chosen).max() < 1e-5


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 21),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    stride=st.sampled_from([2, 4, 8, 16, 32]),
)
def test_labels_equal_interpolating_every_pixel(seed: int, classes: int, rows: int, columns: int, stride: int) -> None:
    scores = np.random.default_rng(seed).random((classes, rows, columns), np.float32)
    assert_same_labels(scores, columns * stride, rows * stride)


@pytest.mark.parametrize(
    ("rows", "columns", "width", "height"), [(65, 65, 513, 513), (9, 16, 100, 57), (10, 10, 30, 30)]
)
def test_strides_that_are_odd_or_not_whole_are_interpolated_too(
    rows: int, columns: int, width: int, height: int
) -> None:
    scores = np.random.default_rng(1).random((5, rows, columns), np.float32)
    assert_same_labels(scores, width, height)


def test_a_picture_of_one_class_needs_no_interpolation() -> None:
    scores = np.zeros((3, 4, 6), np.float32)
    scores[2] = 1
    assert (upsample.labels(scores, 48, 32) == 2).all()
