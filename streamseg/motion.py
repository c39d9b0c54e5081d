"""Motion-aware scheduling: where nothing moved since the last inference, its result is published again. No thread.

A frame's thumbnail is made by its ingest thread (0.1 ms at 1080p); the inference thread compares it (0.05 ms).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.types import U8, Frame, Result

ROWS = 135
"""A thumbnail has this many rows or a few more: one in eight at 1080p, so that 12 pixels there are never missed."""
LOW, PER_NOISE, NOISE_LIMIT, NOISE_DECAY = 6.0, 1.5, 8.0, 0.99
"""A place moved when its luma changed, over 3x3 cells, by more than 6 steps and 1.5 times what it changes by itself.
That is the largest change seen there lately (it fades by 1 % a frame, and counts up to 8: what waves a lot may still
be passed by a person). Tuned on still clips with sensor noise 7 at crf 28, whose key frames make textures jump."""
SETTLE = 4
"""So many frames are analysed after a movement before the first is skipped: the average needs some to be one."""

F32 = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""(x, y, width, height) in shares of the picture."""


def wide_enough(width: int, height: int) -> bool:
    """Whether a picture of that size has a thumbnail that can be looked at: four cells or more either way."""
    step = max(1, height // ROWS)
    return min(width // step, height // step) >= 4


def thumbnail(luma: U8) -> U8:
    """About 240x135: means over n columns of one or two in n rows of `luma` u8 [H, W], where n = H // 135."""
    height, width = luma.shape
    step = max(1, height // ROWS)
    rows, columns = height // step, width // step
    if step % 2:
        seen = luma[: rows * step : step, : columns * step]
    else:  # 2x2 is the one ratio that OpenCV is quick at
        seen = luma[: rows * step : step // 2, : columns * step]
        seen = cv2.resize(seen, (columns * step // 2, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.asarray(cv2.resize(seen, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def difference(now: U8, before: U8) -> U8:
    """|change of luma| u8 [h, w], the exposure of the whole picture taken out."""
    gain = cv2.mean(now)[0] / max(cv2.mean(before)[0], 1.0)
    return np.asarray(cv2.absdiff(now, cv2.convertScaleAbs(before, alpha=gain)), np.uint8)


@dataclass(slots=True)
class _Last:
    """A stream's last inference: its frame's key, media time and thumbnail, what makes its result again; and what each
    place changes by itself."""

    key: tuple[int, tuple[int, ...]]
    media_ns: int
    thumbnail: U8 = field(repr=False)
    noise: F32 = field(repr=False)
    again: Callable[[Frame], Result] | None = None
    settling: int = SETTLE


class MotionGate:
    """Decides, for frames that carry a thumbnail, between inference and the last result. The inference thread's."""

    def __init__(self, refresh_s: float = 1.0, ignore: Sequence[Box] = (), roi: Box | None = None) -> None:
        """`refresh_s`: the longest age of a result that is published again, in seconds of media time.
        `ignore`: rectangles (x, y, width, height), in shares of the picture, whose motion does not count.
        `roi`: the one outside of which nothing counts."""
        self._refresh_ns = int(refresh_s * 1e9)
        self._roi = roi
        self._ignore = tuple(ignore) if roi is None else tuple(_within(roi, box) for box in ignore)
        self._last: _Last | None = None

    def reuse(self, frame: Frame) -> Result | None:
        """The last result as `frame`'s own; or None: `frame` is to be analysed, and its result given to `keep`.

        It is compared with the frame of the last inference, not with the one before, so that slow changes add up.
        """
        if frame.thumbnail is None:
            return None
        seen = frame.thumbnail if self._roi is None else frame.thumbnail[_cells(self._roi, frame.thumbnail.shape)]
        key = (frame.state_key, seen.shape)
        last = self._last
        if last is None or last.key != key:
            self._last = _Last(key, frame.media_ns, seen, np.full(key[1], NOISE_LIMIT / 4, np.float32))
            return None
        if self._moved(last, seen):
            last.settling = SETTLE
        due = frame.media_ns - last.media_ns >= self._refresh_ns
        if last.settling > 0 or due or last.again is None:
            last.settling = max(0, last.settling - 1)
            last.media_ns, last.thumbnail = frame.media_ns, seen
            return None
        return last.again(frame)

    def keep(self, result: Result) -> None:
        if self._last is not None:
            self._last.again = result.repeatable()

    def _moved(self, last: _Last, now: U8) -> bool:
        change = np.asarray(cv2.boxFilter(difference(now, last.thumbnail), cv2.CV_32F, (3, 3)))
        for box in self._ignore:
            change[_cells(box, change.shape)] = 0
        moved = cv2.minMaxLoc(cv2.addWeighted(change, 1.0, last.noise, -PER_NOISE, 0.0))[1] > LOW
        last.noise = np.asarray(cv2.max(last.noise * np.float32(NOISE_DECAY), cv2.min(change, NOISE_LIMIT)))
        return moved


def _cells(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a thumbnail that a rectangle touches; of one that lies elsewhere, none."""
    (x, y, width, height), (rows, columns) = box, shape
    down = slice(max(0, int(y * rows)), max(0, math.ceil((y + height) * rows - 1e-6)))
    return down, slice(max(0, int(x * columns)), max(0, math.ceil((x + width) * columns - 1e-6)))


def _within(roi: Box, box: Box) -> Box:
    """A rectangle of the picture in shares of `roi`; it may lie outside."""
    return (box[0] - roi[0]) / roi[2], (box[1] - roi[1]) / roi[3], box[2] / roi[2], box[3] / roi[3]
