"""Segmentation accuracy from a confusion matrix; numpy only, passive (no thread of its own)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray


class Confusion:
    """Counts of (true class, predicted class) over any number of label maps. Not thread-safe.

    Pixels whose true label is `classes` or more (so also 255) are ignored. A prediction out of range is an error of the
    true class and of nobody else.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts: NDArray[np.int64] = np.zeros((classes, classes + 1), np.int64)
        """[true, predicted]; the last column holds predictions that are no class."""
        self.others: NDArray[np.int64] = np.zeros(256, np.int64)
        """Ignored pixels by their true label."""

    @classmethod
    def of(cls, counts: Sequence[Sequence[int]]) -> Confusion:
        """From `counts` [true][predicted], as many of one as of the other."""
        confusion = cls(len(counts))
        confusion.counts[:, :-1] = counts
        return confusion

    def pixels(self) -> list[list[int]]:
        """[true][predicted], as `of` takes them: without predictions that are no class."""
        pixels: list[list[int]] = self.counts[:, :-1].tolist()
        return pixels

    def add(self, predicted: NDArray[np.uint8], true: NDArray[np.uint8]) -> None:
        """Counts one pair of label maps, u8 of equal shape. Raises ValueError when the shapes differ."""
        if predicted.shape != true.shape:
            raise ValueError(f"predicted labels are {predicted.shape}, true labels {true.shape}: they must be equal")
        pairs = np.minimum(predicted, self.classes) + true.astype(np.int32) * (self.classes + 1)
        found = np.bincount(pairs.ravel(), minlength=256 * (self.classes + 1)).reshape(256, -1)
        self.counts += found[: self.classes]
        self.others[self.classes :] += found[self.classes :].sum(1)

    def without(self, ids: Collection[int]) -> Confusion:
        """The same, pixels of these classes left out; one of them in the place of another class is an error of that."""
        kept = [i for i in range(self.classes) if i not in ids]
        rest = Confusion(len(kept))
        rest.counts[:, :-1] = self.counts[np.ix_(kept, kept)]
        rest.counts[:, -1] = self.counts[kept].sum(1) - rest.counts.sum(1)
        return rest

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union per class, f64 [K]; nan for a class neither predicted nor present."""
        hits = np.diagonal(self.counts).astype(np.float64)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - hits
        iou: NDArray[np.float64] = np.divide(hits, union, out=np.full(self.classes, np.nan), where=union > 0)
        return iou

    def miou(self) -> float:
        """Mean of `iou` over the classes seen; nan when there are none."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def miou_present(self) -> float:
        """Mean of `iou` over the classes that truly occur; nan when there are none. For comparisons on little data:
        `miou` leaps by 1 / classes when the last stray pixel of a class that is not there goes away.
        """
        iou = self.iou()[self.counts.sum(1) > 0]
        return float(iou.mean()) if iou.size else float("nan")

    def foreign(self) -> dict[int, int]:
        """Pixels by label, where the labels look like another set of classes: more than one value, besides 255, that is
        no class. Empty where they do not."""
        values = np.flatnonzero(self.others[:255]).tolist()
        return {value: int(self.others[value]) for value in values} if len(values) > 1 else {}

    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right; nan when there are none."""
        total = int(self.counts.sum())
        return float(np.diagonal(self.counts).sum() / total) if total else float("nan")

    def __repr__(self) -> str:
        return f"Confusion({self.classes} classes, {int(self.counts.sum())} pixels, mIoU {self.miou():.3f})"
