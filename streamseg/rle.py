"""Masks as the COCO API's compressed run lengths. Pure functions, numpy only.

Runs alternate unset, set, unset... down the columns. From the fourth on, a run is stored as the difference to the run
two before it; every number then in groups of 5 bits, least significant first, bit 5 saying that more follow, plus 48.
Source: rleToString and rleFrString in cocoapi's common/maskApi.c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import WireError

_GROUPS = 7  # 35 bits hold the difference of any two runs of a picture of up to 2^34 pixels


def encode(mask: NDArray[np.bool_]) -> bytes:
    """bool [H, W] -> the `counts` string, byte for byte that of pycocotools."""
    column_major = np.ascontiguousarray(mask.T).ravel()
    edges = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    start = [0, 0] if column_major[0] else [0]  # a mask that starts set has a first run of 0
    runs = np.diff(np.concatenate([start, edges, [column_major.size]])).astype(np.int64)
    values = runs.copy()
    values[3:] -= runs[1:-2]
    return _groups(values)


def _groups(values: NDArray[np.int64]) -> bytes:
    characters = np.empty((values.size, _GROUPS), np.uint8)
    used = np.zeros((values.size, _GROUPS), np.bool_)
    pending = np.ones(values.size, np.bool_)
    rest = values
    for index in range(_GROUPS):
        group, rest = rest & 31, rest >> 5
        more = np.where(group & 16, rest != -1, rest != 0)  # bit 4 of the last group is the sign
        characters[:, index] = group + (more << 5) + 48
        used[:, index] = pending
        pending &= more
        if not pending.any():
            break
    return characters[used].tobytes()


def decode(payload: bytes, width: int, height: int) -> NDArray[np.bool_]:
    """The `counts` string -> bool [height, width]. Raises WireError unless its runs fill exactly that."""
    runs = _runs(payload, width * height)
    if int(runs.sum()) != width * height:
        raise WireError(f"coco-rle runs cover {int(runs.sum())} pixels, not {width}x{height}")
    values = np.zeros(runs.size, np.bool_)
    values[1::2] = True
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _runs(payload: bytes, pixels: int) -> NDArray[np.int64]:
    most = 2 * pixels + 2  # runs of 0 between the others are odd, but no error
    if len(payload) > _GROUPS * most:
        raise WireError(f"coco-rle payload of {len(payload)} bytes is too long for {pixels} pixels")
    codes = np.frombuffer(payload, np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63:
        raise WireError("coco-rle payload is empty or has bytes outside '0'..'o'")
    last = (codes & 32) == 0
    if not last[-1]:
        raise WireError("coco-rle payload is cut short")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= _GROUPS or ends.size > most:
        raise WireError("coco-rle payload has a number too long, or more runs than pixels")
    place = 5 * (np.arange(codes.size) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & 31) << place, starts)
    values -= ((codes[ends] & 16) != 0).astype(np.int64) << (place[ends] + 5)
    values[2::2] = np.cumsum(values[2::2])
    values[1::2] = np.cumsum(values[1::2])
    if values.min() < 0 or values.max() > pixels:
        raise WireError("coco-rle payload has a run below 0 or above the picture's size")
    return values
