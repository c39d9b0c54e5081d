"""How steady and how quick label maps are over time: flicker, video consistency, moving objects, detection lag.

Streaming accumulators, numpy and OpenCV only, passive: one `add` a frame, in order. Not thread-safe. A label map is u8
[H, W]; true labels of `classes` or more (so also 255) are void and count nowhere. Nothing counted is nan, not 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.evaluation.accuracy import Confusion
from streamseg.types import U8

Mask = NDArray[np.bool_]
ENTRY_PIXELS = 50
"""A new object counts from the frame in which this many of its pixels are seen; less is a sliver at the border."""
ENTRY_FRAMES = 10
"""Objects seen for fewer frames than this do not count: they left before anything could be said of them."""
UNCOVERED_FRAMES = 5
"""For this many frames after a moving object has left a pixel, the pixel counts as just uncovered."""


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


class Flicker:
    """Changes of the predicted label from one frame to the next, with and without a reason."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._predicted: U8 | None = None
        self._true: U8 | None = None
        self._changed = self._pixels = self._flickered = self._steady = 0

    def add(self, predicted: U8, true: U8 | None = None) -> Mask:
        """Bool [H, W]: where the predicted label changed although the true one did not (without `true`: anywhere)."""
        before, self._predicted = self._predicted, predicted
        true_before, self._true = self._true, true
        if before is None or before.shape != predicted.shape:
            return np.zeros(predicted.shape, bool)
        changed: Mask = predicted != before
        self._changed += int(np.count_nonzero(changed))
        self._pixels += changed.size
        if true is None or true_before is None:
            return changed
        steady = (true == true_before) & (true < self._classes)
        flickered: Mask = changed & steady
        self._flickered += int(np.count_nonzero(flickered))
        self._steady += int(np.count_nonzero(steady))
        return flickered

    def share(self) -> float:
        """Of the pixels whose true label stayed the same (and is not void), the share whose predicted label changed."""
        return ratio(self._flickered, self._steady)

    def changed(self) -> float:
        """The share of all pixels whose predicted label changed, with a reason or without: needs no truth."""
        return ratio(self._changed, self._pixels)


class Consistency:
    """mVC_n of VSPW: over windows of n consecutive frames, of the pixels whose true label stays the same through the
    window, the share predicted right in all n frames; the mean over the windows.

    Miao et al., "VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild", CVPR 2021, as the paper writes it:
    |(S_1 & ... & S_n) & (S'_1 & ... & S'_n)| / |S_1 & ... & S_n| with S the true and S' the predicted label sets. The
    authors' published script differs twice: a pixel counts there when its prediction merely stays the same, even if it
    is wrong, and the last window is left out. So values here are lower than that script's, and a map that is frozen
    wrong gains nothing.
    """

    def __init__(self, classes: int, windows: Iterable[int] = (8, 16)) -> None:
        self._classes = classes
        self._shares: dict[int, list[float]] = {n: [] for n in windows}
        self._longest = max(self._shares)
        self._true: U8 | None = None
        self._same: U8
        self._right: U8

    def add(self, predicted: U8, true: U8) -> None:
        if self._true is None or self._true.shape != true.shape:
            self._true = np.full_like(true, 255)
            self._same, self._right = np.zeros_like(true), np.zeros_like(true)
        # Run lengths up to this frame, no longer than the longest window: what happened before it does not matter.
        known = true < self._classes
        self._same = _run(self._same * (true == self._true), known, self._longest)
        self._right = _run(self._right, predicted == true, self._longest)
        self._true = true
        for n, shares in self._shares.items():
            steady = self._same >= n  # none before the n-th frame
            if count := int(np.count_nonzero(steady)):
                shares.append(np.count_nonzero(steady & (self._right >= n)) / count)

    def mvc(self, window: int) -> float:
        """0..1; nan where no window has a pixel of constant true label."""
        shares = self._shares[window]
        return float(np.mean(shares)) if shares else float("nan")


def _run(length: U8, goes_on: Mask, longest: int) -> U8:
    return np.asarray((np.minimum(length, longest - 1) + 1) * goes_on, np.uint8)


class MovingAccuracy:
    """Accuracy inside the moving objects, and where they have just been."""

    def __init__(self, classes: int) -> None:
        self.confusion = Confusion(classes)
        """Of the pixels of moving objects only."""
        self._uncovered = Confusion(classes)
        self._since: U8 | None = None

    def add(self, predicted: U8, true: U8, moving: Mask) -> None:
        self.confusion.add(predicted[moving], true[moving])
        if self._since is None or self._since.shape != moving.shape:
            self._since = np.full(moving.shape, 255, np.uint8)
        np.minimum(self._since, 254, out=self._since)
        self._since += 1
        self._since[moving] = 0
        left = (self._since > 0) & (self._since <= UNCOVERED_FRAMES)
        self._uncovered.add(predicted[left], true[left])

    def iou(self) -> NDArray[np.float64]:
        """Per class, f64 [K], over moving pixels; nan for a class that no moving object has."""
        iou = self.confusion.iou()
        iou[self.confusion.counts.sum(1) == 0] = np.nan
        return iou

    def miou(self) -> float:
        return self.confusion.miou_present()

    def recall(self) -> float:
        """The share of moving pixels labelled right."""
        return self.confusion.pixel_accuracy()

    def uncovered_recall(self) -> float:
        """The share labelled right of the pixels that a moving object left within the last frames: trails lower it."""
        return self._uncovered.pixel_accuracy()


class ForegroundAccuracy:
    """For clips whose truth is a mask of moving objects (0 no, 1 yes, 2 ignore): chosen classes against that mask."""

    def __init__(self, chosen: Iterable[int]) -> None:
        self._chosen = np.array(sorted(chosen), np.uint8)
        self._confusion = Confusion(2)

    def add(self, predicted: U8, foreground: U8) -> None:
        self._confusion.add(np.isin(predicted, self._chosen).astype(np.uint8), foreground)

    def iou(self) -> float:
        return float(self._confusion.iou()[1])

    def recall(self) -> float:
        hits, missed = self._confusion.counts[1, 1], self._confusion.counts[1, 0]
        return ratio(int(hits), int(hits + missed))


@dataclass(slots=True)
class Entry:
    """A moving object that came into the picture. `lag` in frames from then until half of its pixels were right; 0 is
    at once, None never."""

    class_id: int
    entered: int
    seen: int = 1
    lag: int | None = None


@dataclass(slots=True)
class _Track:
    class_id: int
    mask: Mask
    entry: Entry | None
    """None: it was there when the clip began, so nobody saw it enter."""


class Entries:
    """Detection lag. An object is a connected component (8 neighbours) of the moving pixels of one true class.

    It enters when a component has ENTRY_PIXELS and touches nothing that moved there, in that class, a frame ago; it is
    followed from frame to frame by the largest overlap (two that merge are then both the merged one), and gone when
    there is none. Which objects there are depends on the truth alone, so `entries` of several runs over a clip are the
    same objects in the same order, and their lags may be compared one by one.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._tracks: list[_Track] = []
        self._all: list[Entry] = []
        self._frame = 0

    def add(self, predicted: U8, true: U8, moving: Mask) -> None:
        kept: list[_Track] = []
        for class_id in np.flatnonzero(np.bincount(true[moving], minlength=self._classes)[: self._classes]):
            kept += self._follow(int(class_id), moving & (true == class_id))
        self._tracks = kept
        for track in kept:
            if track.entry is not None and track.entry.lag is None:
                right = np.count_nonzero(predicted[track.mask] == track.class_id)
                if 2 * right >= np.count_nonzero(track.mask):
                    track.entry.lag = self._frame - track.entry.entered
        self._frame += 1

    def _follow(self, class_id: int, pixels: Mask) -> list[_Track]:
        """The tracks of one class in this frame: those that go on, and those that begin."""
        count, parts = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
        old = [track for track in self._tracks if track.class_id == class_id and track.mask.shape == pixels.shape]
        kept, touched = [], {0}
        for track in old:
            overlap = np.bincount(parts[track.mask], minlength=count)
            overlap[0] = 0
            touched.update(np.flatnonzero(overlap).tolist())
            if overlap.any():
                track.mask = parts == int(overlap.argmax())
                if track.entry is not None:
                    track.entry.seen += 1
                kept.append(track)
        sizes = np.bincount(parts.ravel(), minlength=count)
        for part in sorted(set(range(count)) - touched):
            if sizes[part] >= ENTRY_PIXELS:
                entry = Entry(class_id, self._frame) if self._frame else None
                if entry is not None:
                    self._all.append(entry)
                kept.append(_Track(class_id, parts == part, entry))
        return kept

    @property
    def entries(self) -> list[Entry]:
        """Every object that entered and was seen for ENTRY_FRAMES or more."""
        return [entry for entry in self._all if entry.seen >= ENTRY_FRAMES]


def mean_lag(entries: Iterable[Entry]) -> float:
    """Mean over the objects that were ever detected, in frames."""
    lags = [entry.lag for entry in entries if entry.lag is not None]
    return float(np.mean(lags)) if lags else float("nan")
