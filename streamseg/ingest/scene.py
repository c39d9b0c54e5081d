"""Tells when a stream's camera looks elsewhere: a cut, a pan, or a zoom. Looks at thumbnails; one ingest thread's."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.motion import difference
from streamseg.types import U8

CUT_SHARE, CUT_TIMES, CUT_CORRELATION = 0.33, 3.0, 0.9
"""A cut: more than this share of the picture changed, three times what usually does (half of a motorway does, from one
frame to the next), and what was there before is not there any more: switching the light leaves it."""
CHANGED = 12.0
"""A cell of the thumbnail changed when its luma did by more than this."""
LOOK_SECONDS = 0.2
"""A pan or zoom is looked for at this pace: 2 pixels a frame at 480x360 are then 5 cells."""
MOVING_SHARE, MOVING_CELLS, EXPLAINED = 0.12, 1.0, 0.7
"""A pan: at least this share of the picture changed, it is shifted by a cell or more, and the shift leaves less than
this part of the difference, in every quarter of the picture that has one: what moves in front of a camera does not.
A zoom likewise, by what it shifts the left and right edges."""
QUIET = 6.0
"""A quarter that differs by less, in the mean, shows too little that could move (a road, the sky)."""
ROUNDS = 2
"""A zoom is measured again on what the first measurement leaves of it: a correlation falls short by a tenth."""
STARTS, ENDS = 2, 3
"""Looks in a row that tell the beginning and the end of a movement."""

News = Literal["scene-cut", "camera-moving", "camera-steady"]
F32 = NDArray[np.float32]


class SceneWatch:
    """`look` at every frame's thumbnail; it answers when there is news."""

    def __init__(self) -> None:
        self._before: U8 | None = None
        self._seen: U8 | None = None
        self._seen_ns = 0
        self._usual = 0.0
        self._moving = False
        self._votes = 0

    def look(self, thumbnail: U8, media_ns: int) -> News | None:
        """`thumbnail` u8 [h, w] (see `motion.thumbnail`), `media_ns` its time."""
        small = _quarter(thumbnail)
        before, self._before = self._before, small
        if before is None or before.shape != small.shape:
            self._seen, self._seen_ns = thumbnail, media_ns
            return None
        if self._cut(before, small):
            self._seen, self._seen_ns = thumbnail, media_ns
            self._moving, self._votes = False, 0
            return "scene-cut"
        return self._movement(thumbnail, media_ns)

    def _cut(self, before: U8, now: U8) -> bool:
        # With the exposure and without: a large thing of another brightness shifts the mean, and so all the rest.
        share = float((np.minimum(difference(now, before), cv2.absdiff(now, before)) > CHANGED).mean())
        usual, self._usual = self._usual, self._usual + 0.1 * (share - self._usual)
        return share > max(CUT_SHARE, CUT_TIMES * usual) and _correlation(now, before) < CUT_CORRELATION

    def _movement(self, now: U8, media_ns: int) -> News | None:
        if self._seen is None or media_ns - self._seen_ns < LOOK_SECONDS * 1e9:
            return None
        moved = _moved(now, self._seen)
        self._seen, self._seen_ns = now, media_ns
        self._votes = self._votes + 1 if moved != self._moving else 0
        if self._votes < (ENDS if self._moving else STARTS):
            return None
        self._moving, self._votes = not self._moving, 0
        return "camera-moving" if self._moving else "camera-steady"


def _quarter(thumbnail: U8) -> U8:
    """A quarter of its sides: what moves in it counts little, what the camera does stays."""
    rows, columns = (side // 4 * 4 for side in thumbnail.shape)
    size = (columns // 4, rows // 4)
    return np.asarray(cv2.resize(thumbnail[:rows, :columns], size, interpolation=cv2.INTER_AREA), np.uint8)


def _correlation(a: U8, b: U8) -> float:
    """Of two pictures' luma, -1..1; 1 where one of them is flat, which tells nothing (a lens cap, a white-out)."""
    x, y = a.astype(np.float32) - a.mean(), b.astype(np.float32) - b.mean()
    spread = float(np.sqrt((x * x).mean() * (y * y).mean()))
    return float((x * y).mean()) / spread if spread > 4.0 else 1.0


def _moved(now: U8, before: U8) -> bool:
    """Whether the camera did: what it saw `before`, shifted or scaled, is what it sees `now`."""
    if float((difference(now, before) > CHANGED).mean()) < MOVING_SHARE:
        return False
    rows, columns = (side // 2 * 2 for side in now.shape)  # of odd sides OpenCV's correlation is half a cell off
    a, b = (one[:rows, :columns].astype(np.float32) for one in (now, before))
    return any(_explains(a, b, estimated(a, b)) for estimated in (_shift, _scale))


def _shift(now: F32, before: F32) -> F32:
    """The affine map of a pan."""
    dx, dy = _correlated(now, before)
    return np.array([[1, 0, dx], [0, 1, dy]], np.float32)


def _scale(now: F32, before: F32) -> F32:
    """That of a zoom: about the centre, where it is a shift of the logarithm of the radius."""
    (rows, columns), radius, size = now.shape, min(now.shape) / 2, (128, 128)
    centre, scale, movement = (columns / 2, rows / 2), 1.0, np.eye(2, 3, dtype=np.float32)
    for _ in range(ROUNDS):
        follows = cv2.warpAffine(before, movement, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
        seen = (cv2.warpPolar(one, size, centre, radius, cv2.WARP_POLAR_LOG) for one in (now, follows))
        scale *= radius ** (_correlated(*seen)[0] / size[0])
        movement = np.array([[scale, 0, centre[0] * (1 - scale)], [0, scale, centre[1] * (1 - scale)]], np.float32)
    return movement


def _correlated(now: F32, before: F32) -> tuple[float, float]:
    """(dx, dy) from `before` to `now` (phase correlation, Kuglin and Hines 1975)."""
    window = cv2.createHanningWindow(now.shape[::-1], cv2.CV_32F)
    # Not its own argument, as OpenCV then multiplies the pictures themselves where they need no padding.
    (dx, dy), _ = cv2.phaseCorrelate(before * window, now * window)
    return dx, dy


def _explains(now: F32, before: F32, movement: F32) -> bool:
    """Whether that `movement`, an affine map, moved the picture and accounts for what changed in it."""
    rows, columns = now.shape
    corners = np.array([[0, 0, 1], [columns, rows, 1]], np.float32) @ movement.T - [[0, 0], [columns, rows]]
    left, top = (max(1, math.ceil(most)) + 1 for most in np.abs(corners).max(axis=0))
    if np.abs(corners).max() < MOVING_CELLS or min(columns - 2 * left, rows - 2 * top) < 2:
        return False
    follows = cv2.warpAffine(before, movement, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
    inside = np.s_[top:-top, left:-left]  # what came into the picture is not explained by what was there
    changed, rest = (_quarters(np.asarray(cv2.absdiff(now, other)[inside])) for other in (before, follows))
    lively = changed > QUIET
    return bool(lively.sum() >= 2 and (rest[lively] < EXPLAINED * changed[lively]).all())


def _quarters(values: F32) -> F32:
    """The mean of each quarter of a picture, f32 [4]."""
    halves = np.array_split(values, 2, axis=0)
    return np.array([part.mean() for half in halves for part in np.array_split(half, 2, axis=1)], np.float32)
