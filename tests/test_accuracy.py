"""The confusion matrix against sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamseg.evaluation.accuracy import Confusion

TRUE = np.array([[0, 0, 0, 0], [1, 1, 2, 255]], np.uint8)
PREDICTED = np.array([[0, 0, 0, 1], [1, 2, 2, 0]], np.uint8)


def counted(classes: int = 4) -> Confusion:
    confusion = Confusion(classes)
    confusion.add(PREDICTED, TRUE)
    return confusion


def test_iou_is_hits_over_union_and_a_class_never_seen_counts_for_nothing() -> None:
    # class 0: 3 hits of 4 true; class 1: 1 hit, 2 true, 2 predicted; class 2: 1 hit, 1 true, 2 predicted
    np.testing.assert_allclose(counted().iou(), [3 / 4, 1 / 3, 1 / 2, math.nan])
    assert counted().miou() == pytest.approx((3 / 4 + 1 / 3 + 1 / 2) / 3)


def test_pixel_accuracy_leaves_ignored_pixels_out() -> None:
    assert counted().pixel_accuracy() == pytest.approx(5 / 7)


def test_maps_added_one_after_another_are_counted_together() -> None:
    whole, halves = counted(), Confusion(4)
    halves.add(PREDICTED[:1], TRUE[:1])
    halves.add(PREDICTED[1:], TRUE[1:])
    np.testing.assert_array_equal(whole.counts, halves.counts)


def test_a_prediction_that_is_no_class_is_a_miss_of_the_true_class_only() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([[255, 0, 1]], np.uint8), np.array([[0, 0, 1]], np.uint8))
    np.testing.assert_allclose(confusion.iou(), [1 / 2, 1])
    assert confusion.pixel_accuracy() == pytest.approx(2 / 3)


def test_nothing_counted_is_nan_not_an_error() -> None:
    assert math.isnan(Confusion(3).miou())
    assert math.isnan(Confusion(3).pixel_accuracy())


def test_maps_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        Confusion(2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
