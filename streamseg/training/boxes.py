"""Pseudo labels from bounding boxes, and their refinement by what the network has learned. Pure; run in any thread.

The first come from GrabCut (Rother et al. 2004) in every box. Once the network has seen them for a while it knows the
objects better than any single picture shows them, as in "Simple does it" (Khoreva et al. 2017): its own answer, cut to
the boxes, replaces the labels wherever it keeps enough of a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.training.augment import IGNORED
from streamseg.training.coco import Box
from streamseg.types import U8

SMALL = 10  # pixels: a box with a shorter side shows GrabCut too few to tell two colours apart
CORE = 0.8  # of the box's sides: an ellipse that is surely object, half of the box
SHARES = (0.55, 0.95)  # of a box: GrabCut that takes hardly more than the core, or nearly all, has found no edge
RIM = 0.05  # of the shorter side: so near its edge an object is unsure
ROUNDS = 3  # of GrabCut; 5 change nothing (measured on CamVid)
KEPT = 0.25  # the network's answer must fill so much of a box to replace its labels
SURE = 0.6  # below this the network's answer is ignored

OTHER, OBJECT, UNSURE = range(3)


def pseudo_labels(rgb: U8, boxes: Sequence[Box], ids: Mapping[str, int], outside: int = IGNORED) -> U8:
    """Labels u8 [H, W] of a picture u8 [H, W, 3]: `ids` gives each box's category its class; what no object covers is
    `outside`. Smaller boxes lie in front; crowds, and boxes of a category without a class that `ids` says is
    `IGNORED`, are ignored."""
    labels = np.full(rgb.shape[:2], outside, np.uint8)
    for box in sorted(boxes, key=lambda box: (not box.crowd, -box.area)):
        part, to = labels[box.inside], ids[box.category]
        if box.crowd or to == IGNORED:
            part[:] = IGNORED
        elif to != outside:
            shape = object_shape(rgb, box)
            part[shape == OBJECT] = to
            part[shape == UNSURE] = IGNORED
    return labels


def object_shape(rgb: U8, box: Box) -> U8:
    """Which pixels of a box show its object, u8 [box height, box width]: OTHER, OBJECT, UNSURE (its rim)."""
    full = _ellipse(box.height, box.width, power=2.5)
    if min(box.width, box.height) < SMALL:
        return full
    cut = _grab_cut(rgb, box)
    if not SHARES[0] <= cut.mean() <= SHARES[1]:
        cut = full
    reach = max(1, round(RIM * min(box.width, box.height)))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    edge = cv2.erode(cut, around, borderType=cv2.BORDER_REPLICATE) != cv2.dilate(cut, around)
    return np.where(edge, UNSURE, cut).astype(np.uint8)


def _grab_cut(rgb: U8, box: Box) -> U8:
    """u8 [box height, box width]: 1 where the colours are more like the middle's than like those around the box.

    The middle is object and the surroundings are not; between them an ellipse is the first guess.
    """
    beside, above = max(8, round(0.3 * box.width)), max(8, round(0.3 * box.height))
    top, left = max(0, box.top - above), max(0, box.left - beside)
    seen = np.ascontiguousarray(rgb[top : box.bottom + above, left : box.right + beside])
    guess = np.full(seen.shape[:2], cv2.GC_BGD, np.uint8)
    inside = slice(box.top - top, box.bottom - top), slice(box.left - left, box.right - left)
    guess[inside] = np.where(_ellipse(box.height, box.width), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    guess[inside][_ellipse(box.height, box.width, scale=CORE) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(1)  # of this thread: the same picture gives the same mask
    models = np.zeros((1, 65)), np.zeros((1, 65))
    if (guess == cv2.GC_BGD).any():  # else the box is the whole picture, and there is nothing to compare with
        cv2.grabCut(seen, guess, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.isin(guess[inside], (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)


def refined_labels(
    labels: U8, chance: NDArray[np.float32], boxes: Sequence[Box], ids: Mapping[str, int], outside: int = IGNORED
) -> U8:
    """The network's answer `chance` f32 [K, H, W], cut to the boxes, in place of `labels` u8 [H, W].

    A class of boxes exists only in its boxes. Where the network keeps less than `KEPT` of a box the labels stay as they
    are. What no object covers is `outside`; crowds stay ignored.
    """
    boxed = sorted({to for category in ids if (to := ids[category]) not in (IGNORED, outside)})
    real = sorted((box for box in boxes if not box.crowd and ids[box.category] in boxed), key=lambda box: -box.area)
    allowed = np.ones(chance.shape, bool)
    allowed[boxed] = False
    for box in real:
        allowed[ids[box.category]][box.inside] = True
    possible = np.where(allowed, chance, 0)
    best = possible.argmax(0)
    sure = possible.max(0) >= SURE * possible.sum(0)
    answer = np.where(sure, np.where(np.isin(best, boxed), best, outside), IGNORED).astype(np.uint8)
    new = labels.copy()
    anywhere = np.zeros(labels.shape, bool)
    for box in real:
        anywhere[box.inside] = True
    new[anywhere] = answer[anywhere]
    for box in real:  # the smaller come later, and so stay in front
        if (answer[box.inside] == ids[box.category]).mean() < KEPT:
            new[box.inside] = labels[box.inside]
    for box in boxes:
        if box.crowd or ids[box.category] == IGNORED:
            new[box.inside] = labels[box.inside]
    return new


def _ellipse(height: int, width: int, power: float = 2.0, scale: float = 1.0) -> U8:
    """u8 [height, width], 1 in an ellipse of `scale` times the sides; above a `power` of 2 it has fuller corners."""
    y, x = (np.abs((np.arange(n) + 0.5) / n * 2 - 1) / scale for n in (height, width))
    return (y[:, None] ** power + x[None] ** power <= 1).astype(np.uint8)
