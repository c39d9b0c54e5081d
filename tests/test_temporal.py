"""Measures over time, on label maps small enough to count by hand. Two classes, 0 and 1; 2 or more is void."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamseg.evaluation.temporal import (
    ENTRY_FRAMES,
    ENTRY_PIXELS,
    UNCOVERED_FRAMES,
    Consistency,
    Entries,
    Flicker,
    ForegroundAccuracy,
    MovingAccuracy,
    mean_lag,
)
from streamseg.types import U8

VOID = 2


def row(*labels: int) -> U8:
    """A label map of one row."""
    return np.array([labels], np.uint8)


# Flicker


def test_flicker_counts_changes_only_where_the_truth_stays_the_same() -> None:
    flicker = Flicker(2)
    flicker.add(row(0, 0, 0, 0), row(0, 0, 0, 0))
    flickered = flicker.add(row(0, 1, 1, 0), row(0, 0, 1, 1))
    # The first two pixels are steady and one of them changed; the third changed with the truth, the fourth lags it.
    assert flickered.tolist() == [[False, True, False, False]]
    assert flicker.share() == 1 / 2
    assert flicker.changed() == 2 / 4


def test_void_in_either_frame_is_not_counted() -> None:
    flicker = Flicker(2)
    flicker.add(row(0, 0, 0, 0), row(VOID, 0, 255, 0))
    flicker.add(row(1, 1, 1, 0), row(0, VOID, 255, 0))
    assert flicker.share() == 0 / 1
    assert flicker.changed() == 3 / 4


def test_a_wrong_label_that_stays_does_not_flicker() -> None:
    flicker = Flicker(2)
    for _ in range(3):
        flicker.add(row(1, 1), row(0, 0))
    assert flicker.share() == 0


def test_at_a_camera_cut_only_what_is_the_same_before_and_after_can_flicker() -> None:
    flicker = Flicker(2)
    flicker.add(row(0, 0, 1, 1), row(0, 0, 1, 1))
    flicker.add(row(1, 1, 0, 1), row(1, 1, 0, 1))
    assert flicker.share() == 0 / 1
    flicker.add(row(1, 0, 0, 1), row(1, 1, 0, 1))  # the frame after the cut counts in full again
    assert flicker.share() == 1 / 5


def test_without_truth_every_change_counts() -> None:
    flicker = Flicker(2)
    assert not flicker.add(row(0, 0, 1, 1)).any()
    assert flicker.add(row(0, 1, 1, 1)).tolist() == [[False, True, False, False]]
    assert flicker.changed() == 1 / 4
    assert math.isnan(flicker.share())


def test_a_change_of_size_starts_over() -> None:
    flicker = Flicker(2)
    flicker.add(row(0, 0))
    assert flicker.add(row(1, 1, 1)).shape == (1, 3)
    assert math.isnan(flicker.changed())


# Video consistency


def consistency(window: int, *frames: tuple[U8, U8]) -> float:
    measure = Consistency(2, (window,))
    for predicted, true in frames:
        measure.add(predicted, true)
    return measure.mvc(window)


def test_a_pixel_is_consistent_when_it_is_right_in_the_whole_window() -> None:
    # Frames 0-1: pixels 0, 1, 2 are steady, 0 and 1 right in both. Frames 1-2: 0 and 1 are steady, 0 right in both.
    measured = consistency(
        2,
        (row(0, 0, 1, 0), row(0, 0, 0, 1)),
        (row(0, 0, 0, 0), row(0, 0, 0, 0)),
        (row(0, 1, 1, 1), row(0, 0, 1, 1)),
    )
    assert measured == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_frozen_wrong_label_is_not_consistent() -> None:
    assert consistency(2, (row(1, 0), row(0, 0)), (row(1, 0), row(0, 0))) == 1 / 2


def test_void_breaks_the_run_of_a_pixel() -> None:
    frames = [(row(0, 0), row(0, 0)), (row(0, 1), row(0, VOID)), (row(0, 1), row(0, 0))]
    assert consistency(3, *frames) == 1 / 1  # the second pixel was void once, and is left out
    assert consistency(2, *frames) == 1 / 1


def test_windows_without_a_steady_pixel_are_left_out_and_short_clips_have_none() -> None:
    cut = [(row(0, 0), row(0, 0)), (row(0, 0), row(0, 0)), (row(1, 1), row(1, 1)), (row(1, 0), row(1, 1))]
    assert consistency(2, *cut) == pytest.approx((1 + 1 / 2) / 2)
    assert math.isnan(consistency(8, *cut))
    assert math.isnan(Consistency(2).mvc(16))


def test_several_windows_are_measured_at_once_as_each_alone() -> None:
    rng = np.random.default_rng(1)
    true = np.cumsum(rng.random((20, 6, 7)) < 0.05, axis=0, dtype=np.uint8) % 3
    predicted = np.where(rng.random(true.shape) < 0.1, 1 - true, true).astype(np.uint8)
    both = Consistency(2)
    for p, t in zip(predicted, true, strict=True):
        both.add(p, t)
    for n in (8, 16):
        shares = []
        for start in range(20 - n + 1):
            t, p = true[start : start + n], predicted[start : start + n]
            steady = (t == t[0]).all(0) & (t[0] < 2)
            if steady.any():
                shares.append((p == t).all(0)[steady].mean())
        assert both.mvc(n) == pytest.approx(np.mean(shares))


# Moving objects


def test_accuracy_of_moving_pixels_looks_at_nothing_else() -> None:
    moving = MovingAccuracy(3)
    moving.add(row(1, 0, 2, 2, 0), row(1, 1, 1, 0, 3), np.array([[True, True, True, False, True]]))
    assert moving.recall() == 1 / 3  # of the three that are not void
    assert moving.miou() == 1 / 3  # one right, two missed
    assert np.isnan(moving.iou()[[0, 2]]).all()  # no moving object is of these classes, whatever was predicted


def test_a_trail_shows_where_an_object_has_just_been() -> None:
    moving = MovingAccuracy(2)
    moving.add(row(1, 0, 0), row(1, 0, 0), np.array([[True, False, False]]))
    moving.add(row(1, 1, 0), row(0, 1, 0), np.array([[False, True, False]]))
    assert moving.uncovered_recall() == 0
    still = np.array([[False, True, False]])
    for _ in range(UNCOVERED_FRAMES + 3):
        moving.add(row(0, 1, 1), row(0, 1, 0), still)
    assert moving.uncovered_recall() == (UNCOVERED_FRAMES - 1) / UNCOVERED_FRAMES


def test_nothing_moving_is_not_a_number() -> None:
    moving = MovingAccuracy(2)
    moving.add(row(1, 0), row(1, 0), np.array([[False, False]]))
    assert math.isnan(moving.recall())
    assert math.isnan(moving.miou())
    assert math.isnan(moving.uncovered_recall())


def test_chosen_classes_are_held_against_a_mask_of_moving_objects() -> None:
    foreground = ForegroundAccuracy([1, 3])
    foreground.add(row(1, 3, 0, 2, 1, 1), row(1, 1, 1, 0, 0, 2))
    assert foreground.iou() == 2 / 4  # one missed, one too many, one ignored
    assert foreground.recall() == 2 / 3


# Detection lag


def scene(left: int, width: int = 10) -> np.ndarray:
    """A box of class 1, 10 pixels high, whose left edge is at `left` in a picture of 60 x 20."""
    box = np.zeros((20, 60), bool)
    box[5:15, max(0, left) : max(0, left + width)] = True
    return box


def entries_of(boxes: list[np.ndarray], predictions: list[np.ndarray]) -> Entries:
    entries = Entries(2)
    for box, predicted in zip(boxes, predictions, strict=True):
        entries.add(predicted.astype(np.uint8), box.astype(np.uint8), box)
    return entries


NOTHING = scene(-20)


def test_lag_runs_from_the_entry_until_half_of_the_object_is_right() -> None:
    boxes = [NOTHING, *(scene(4 * step - 12) for step in range(1, 15))]
    late = [NOTHING] * 4 + boxes[4:]
    entries = entries_of(boxes, late)
    assert (boxes[1].sum(), boxes[2].sum()) == (20, 60)  # a sliver at first; then it is seen: frame 2
    assert [(e.entered, e.lag) for e in entries.entries] == [(2, 2)]
    assert mean_lag(entries.entries) == 2


def test_half_is_enough_and_less_is_not() -> None:
    boxes = [NOTHING] + [scene(20)] * ENTRY_FRAMES
    assert entries_of(boxes, [NOTHING] + [scene(20, 4)] * 3 + [scene(20, 5)] * 7).entries[0].lag == 3


def test_an_object_that_is_never_right_has_no_lag() -> None:
    boxes = [NOTHING] + [scene(20)] * ENTRY_FRAMES
    entries = entries_of(boxes, [NOTHING] * len(boxes)).entries
    assert [e.lag for e in entries] == [None]
    assert math.isnan(mean_lag(entries))


def test_what_was_there_at_the_start_did_not_enter() -> None:
    assert entries_of([scene(20)] * 12, [NOTHING] * 12).entries == []


def test_what_is_too_small_or_leaves_at_once_does_not_count() -> None:
    speck = np.zeros((20, 60), bool)
    speck.ravel()[: ENTRY_PIXELS - 1] = True
    assert entries_of([NOTHING] + [speck] * 12, [NOTHING] * 13).entries == []
    brief = [NOTHING] + [scene(20)] * (ENTRY_FRAMES - 1) + [NOTHING]
    assert entries_of(brief, brief).entries == []


def test_objects_that_meet_and_part_again_are_no_new_objects() -> None:
    apart, joined = scene(10) | scene(30), scene(10, 30)
    boxes = [NOTHING, *[apart] * 5, *[joined] * 5, *[apart] * 5]
    assert [(e.entered, e.seen, e.lag) for e in entries_of(boxes, boxes).entries] == [(1, 15, 0)] * 2


def test_objects_are_told_apart_by_their_class() -> None:
    entries = Entries(3)
    for _ in range(ENTRY_FRAMES + 1):
        entries.add(np.zeros((20, 60), np.uint8), scene(10).astype(np.uint8), scene(10))
    for _ in range(ENTRY_FRAMES):  # a box of another class over the first one is a new object
        true = (2 * scene(10)).astype(np.uint8)
        entries.add(true, true, scene(10))
    assert [(e.class_id, e.entered, e.lag) for e in entries.entries] == [(2, ENTRY_FRAMES + 1, 0)]


def test_the_same_truth_gives_the_same_objects_whatever_was_predicted() -> None:
    boxes = [NOTHING, *(scene(3 * step - 10) | scene(50 - 4 * step) for step in range(20)), *[NOTHING] * 2]
    seen, missed = entries_of(boxes, boxes).entries, entries_of(boxes, [NOTHING] * len(boxes)).entries
    assert [(e.class_id, e.entered, e.seen) for e in seen] == [(e.class_id, e.entered, e.seen) for e in missed]
