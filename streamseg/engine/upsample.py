"""Bilinear upsampling and argmax on the CPU, without computing what cannot matter. Stateless; any thread.

Upsampling K = 11 score maps by 8 and taking the argmax costs 2.6-4 ms at 480x272 inside OpenVINO, as much as the
network. Bilinear interpolation is a convex combination of four corners, so where one class wins at all four it wins
everywhere between them: only the blocks on a class boundary (a tenth of them) are interpolated. The answer is equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.types import U8


def labels(scores: NDArray[np.float32], width: int, height: int, winners: U8 | None = None) -> U8:
    """argmax of `scores` f32 [K, h, w], upsampled bilinearly (half-pixel centres), as u8 [height, width]. `winners`
    u8 [h, w]: the argmax as it is, where it is known."""
    _, rows, columns = scores.shape
    stride = height // rows
    if (rows * stride, columns * stride) != (height, width) or stride % 2:
        return _dense(scores, width, height)
    # One row and column of replicated edge on each side; block (i, j) then lies between four score centres.
    winner = np.empty((rows + 2, columns + 2), np.uint8)
    winner[1:-1, 1:-1] = _argmax(scores) if winners is None else winners
    winner[0], winner[-1] = winner[1], winner[-2]
    winner[:, 0], winner[:, -1] = winner[:, 1], winner[:, -2]
    corner = winner[:-1, :-1]
    boundary = (corner != winner[:-1, 1:]) | (corner != winner[1:, :-1]) | (corner != winner[1:, 1:])
    size = ((columns + 1) * stride, (rows + 1) * stride)
    out: U8 = cv2.resize(np.ascontiguousarray(corner), size, interpolation=cv2.INTER_NEAREST)
    y, x = np.nonzero(boundary)
    if y.size:
        blocks = out.reshape(rows + 1, stride, columns + 1, stride)
        blocks[y, :, x, :] = _between(scores, y, x, stride)
    half = stride // 2
    return np.ascontiguousarray(out[half : half + height, half : half + width])


def _between(scores: NDArray[np.float32], y: NDArray[np.intp], x: NDArray[np.intp], stride: int) -> U8:
    """Labels u8 [n, stride, stride] of the blocks whose last corners are the scores at (y, x)."""
    classes, rows, columns = scores.shape
    above, below = columns * np.maximum(y - 1, 0), columns * np.minimum(y, rows - 1)
    left, right = np.maximum(x - 1, 0), np.minimum(x, columns - 1)
    corners = np.stack([above + left, above + right, below + left, below + right], axis=-1)
    return _argmax(scores.reshape(classes, -1).take(corners, axis=1) @ _weights(stride)).reshape(-1, stride, stride)


def _argmax(scores: Iterable[NDArray[np.float32]]) -> U8:
    """The index of the largest of same-sized maps, everywhere; of equals, the first. As a chain of maxima: numpy's own
    argmax over the first axis is 4x slower."""
    maps = iter(scores)
    best = next(maps).copy()
    label = np.zeros(best.shape, np.uint8)
    for k, score in enumerate(maps, 1):
        wins = (score > best).view(np.uint8)
        np.maximum(label, wins * np.uint8(k), out=label)
        np.maximum(best, score, out=best)
    return label


@lru_cache(maxsize=8)
def _weights(stride: int) -> NDArray[np.float32]:
    """f32 [4, stride * stride]: the bilinear weights of a block's four corners."""
    t = (np.arange(stride, dtype=np.float32) + 0.5) / stride
    rows, columns = np.stack([1 - t, t]), np.stack([1 - t, t])
    weights: NDArray[np.float32] = np.einsum("ay,bx->abyx", rows, columns).reshape(4, stride * stride)
    return weights.astype(np.float32)


def _dense(scores: NDArray[np.float32], width: int, height: int) -> U8:
    """The same for strides that are odd or not whole (third-party networks): every pixel of every class."""
    return _argmax(cv2.resize(score, (width, height), interpolation=cv2.INTER_LINEAR) for score in scores)
