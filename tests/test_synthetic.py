"""The synthetic street: pure function of (seed, size, second), exact labels, and URLs that say what is wrong."""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from streamseg.errors import ConfigError
from streamseg.synthetic import Street, StreetSpec

POLE, SIGN, CAR, PERSON, CYCLIST, VOID = 2, 6, 8, 9, 10, 11
MOVING = (CAR, PERSON, CYCLIST)


@pytest.fixture(scope="module")
def streets() -> list[Street]:
    return [Street(seed, 512, 384) for seed in range(6)]  # twice that size is drawn; of 480x360 three times


def test_a_frame_is_the_same_in_every_instance_and_in_any_order() -> None:
    one, other = Street(3, 160, 96), Street(3, 160, 96)
    late_first = one.frame(700)
    early = one.frame(2)
    for index, (rgb, labels) in ((2, early), (700, late_first)):
        again, marks = other.frame(index)
        assert np.array_equal(rgb, again)
        assert np.array_equal(labels, marks)


def test_picture_and_labels_alone_equal_those_of_the_frame(streets: list[Street]) -> None:
    rgb, labels = streets[1].frame(123)
    assert np.array_equal(streets[1].picture(123), rgb)
    assert np.array_equal(streets[1].labels(123), labels)


def test_frames_handed_out_are_the_callers_to_change(streets: list[Street]) -> None:
    rgb, labels = streets[0].frame(5)
    kept = rgb.copy(), labels.copy()
    rgb[:] = 0
    labels[:] = VOID
    again = streets[0].frame(5)
    assert np.array_equal(again[0], kept[0])
    assert np.array_equal(again[1], kept[1])


def test_one_street_serves_two_threads() -> None:
    street = Street(2, 160, 96)
    got: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda k=k: got.__setitem__(k, street.picture(40))) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert np.array_equal(got[0], got[1])


def test_every_class_of_camvid_appears_over_some_seeds_and_no_other_id(streets: list[Street]) -> None:
    seen: set[int] = set()
    for street in streets:
        for index in range(0, 1500, 250):
            labels = street.labels(index)
            assert labels.dtype == np.uint8
            seen |= set(np.unique(labels).tolist())
    assert seen == set(range(11))


def test_different_seeds_are_different_streets(streets: list[Street]) -> None:
    for a, b in pairwise(streets):
        assert (a.labels(0) != b.labels(0)).mean() > 0.1


@lru_cache
def _frames(street: Street) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels of 20 frames that are far apart."""
    rgb, labels = zip(*(street.frame(i) for i in range(0, 2600, 130)), strict=True)
    return np.stack(rgb), np.stack(labels)


@lru_cache
def _still(street: Street) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel, over these frames: median colour and most frequent label."""
    rgb, labels = _frames(street)
    common = np.array([(labels == c).sum(axis=0) for c in range(12)]).argmax(axis=0)
    return np.median(rgb, axis=0), common


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_pixels_differ_from_the_empty_street_exactly_where_a_moving_label_lies(
    streets: list[Street], seed: int
) -> None:
    street = streets[seed]
    median, common = _still(street)
    agree = total = 0
    for index in (60, 777, 1500):
        rgb, labels = street.frame(index)
        moving = np.isin(labels, MOVING) & (labels != common)
        changed = np.abs(rgb - median).max(axis=2)
        # Somebody dressed like the street behind is rare; noise stays under 20 levels nearly everywhere.
        agree += int((changed[moving] > 20).sum())
        total += int(moving.sum())
        # Elsewhere only noise and shadows: a shadow darkens, it never adds light.
        lighter = (rgb - median).min(axis=2)
        assert (lighter[labels == common] > 30).mean() < 0.01
    assert total > 300
    assert agree / total > 0.7


def test_what_passes_behind_poles_and_signs_is_hidden_by_them_in_the_picture_too(streets: list[Street]) -> None:
    wrong = total = 0
    for street in streets:
        median, _ = _still(street)
        for rgb, labels in zip(*_frames(street), strict=True):
            front = np.isin(labels, (POLE, SIGN))
            wrong += int((np.abs(rgb - median).max(axis=2)[front] > 50).sum())
            total += int(front.sum())
    # The blended edge of somebody in front of a pole may touch a pixel that is still labelled pole.
    assert wrong / total < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_still_things_keep_their_labels(streets: list[Street], seed: int) -> None:
    """Between two frames a label changes only where something moving is, or was."""
    street = streets[seed]
    frames = [street.labels(i) for i in (0, 400, 800)]
    moving = np.any([np.isin(f, MOVING) for f in frames], axis=0)
    for labels in frames[1:]:
        assert np.array_equal(labels[~moving], frames[0][~moving])


def test_the_same_second_has_the_same_labels_at_any_frame_rate() -> None:
    slow, fast = Street(7, 160, 96, fps=5), Street(7, 160, 96, fps=25)
    for second in (0, 3, 41):
        assert np.array_equal(slow.labels(second * 5), fast.labels(second * 25))


def test_things_move_and_go_on_moving() -> None:
    street = Street(1, 320, 240)
    for start in (0, 25 * 3600, 25 * 3600 * 24 * 90):
        labels = [street.labels(start + i * 25) for i in range(12)]
        moved = [(a != b).any() for a, b in pairwise(labels)]
        assert sum(moved) >= 9


def test_someone_of_whom_a_single_pixel_is_seen_is_drawn() -> None:
    rgb, labels = Street(seed=3, width=1280, height=720).frame(206)  # OpenCV takes 1x1 for a scalar
    assert (rgb.shape, labels.shape) == ((720, 1280, 3), (720, 1280))


def test_sensor_noise_differs_between_frames_but_stays_small(streets: list[Street]) -> None:
    a, b = (streets[3].picture(i).astype(np.int16) for i in (10, 11))
    difference = np.abs(a - b)
    assert 0.3 < np.median(difference) < 12


@pytest.mark.parametrize("size", [(160, 96), (64, 64), (96, 640), (1000, 200), (322, 182)])
def test_any_size_and_shape(size: tuple[int, int]) -> None:
    width, height = size
    rgb, labels = Street(5, width, height).frame(9)
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    assert labels.shape == (height, width)
    assert len(np.unique(labels)) >= 3


def test_a_url_with_everything() -> None:
    spec = StreetSpec.from_url("synthetic://street?seed=3&size=640x360&fps=12.5&pace=max&frames=100")
    assert spec == StreetSpec(seed=3, width=640, height=360, fps=12.5, pace="max", frames=100)


def test_a_bare_url_means_the_defaults() -> None:
    assert StreetSpec.from_url("synthetic://street") == StreetSpec()
    assert StreetSpec.from_url("synthetic://street/") == StreetSpec(0, 1280, 720, 25.0, "realtime", None)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("rtsp://street", "'rtsp'"),
        ("synthetic://beach", "synthetic://street"),
        ("synthetic://street/corner", "synthetic://street"),
        ("synthetic://street?colour=red", "'colour'"),
        ("synthetic://street?size=641x360", "both even"),
        ("synthetic://street?size=62x360", "64 to 7680"),
        ("synthetic://street?size=640x7682", "64 to 7680"),
        ("synthetic://street?size=640", "WIDTHxHEIGHT"),
        ("synthetic://street?size=axb", "WIDTHxHEIGHT"),
        ("synthetic://street?fps=0", "fps='0'"),
        ("synthetic://street?fps=-5", "above 0"),
        ("synthetic://street?fps=nan", "above 0"),
        ("synthetic://street?fps=fast", "above 0"),
        ("synthetic://street?pace=slow", "realtime or max"),
        ("synthetic://street?frames=0", "from 1"),
        ("synthetic://street?frames=", "from 1"),
        ("synthetic://street?seed=-1", "from 0"),
        ("synthetic://street?seed=1.5", "from 0"),
        ("synthetic://street?seed=1&seed=2", "twice"),
    ],
)
def test_a_wrong_url_names_the_value_and_what_is_allowed(url: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StreetSpec.from_url(url)
    assert named in str(caught.value)
    assert url in str(caught.value)
