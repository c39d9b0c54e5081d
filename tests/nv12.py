"""NV12 pictures as a decoder leaves them (rows padded with rubbish), and their RGB computed plainly in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from streamseg.nvidia.surface import MATRICES, Resident, Surface
from streamseg.types import Roi

F64 = np.ndarray[Any, np.dtype[np.float64]]


def scene(width: int, height: int, seed: int = 1) -> tuple[F64, F64]:
    """Smooth colour with noise and hard edges: y [H, W], uv [h, w, 2], within television range."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    y = 40 + 150 * across + 20 * np.sin(25 * down) + random.normal(0, 6, (height, width))
    y[height // 3 : height // 2, width // 4 : width // 2] = 235
    rows, columns = height // 2, width // 2
    uv = random.normal(128, 4, (rows, columns, 2))
    uv[:, : columns // 2, 0] += 70
    uv[rows // 2 :, :, 1] -= 60
    return y.round().clip(16, 235), uv.round().clip(16, 240)


def surface(
    width: int,
    height: int,
    *,
    seed: int = 1,
    pitch: int = 0,
    matrix: str = "bt709",
    full_range: bool = False,
    device: str = "cpu",
) -> Surface:
    """`pitch`: bytes from one row to the next; what lies between them is no part of the picture."""
    y, uv = scene(width, height, seed)
    pitch = pitch or width
    luma = torch.full((height, pitch), 255, dtype=torch.uint8, device=device)
    chroma = torch.full((height // 2, pitch), 255, dtype=torch.uint8, device=device)
    luma[:, :width] = torch.from_numpy(y.astype(np.uint8))
    chroma[:, : width // 2 * 2] = torch.from_numpy(uv.astype(np.uint8)).reshape(height // 2, -1)
    shown = chroma[:, : width // 2 * 2].unflatten(1, (-1, 2))
    return Surface(luma[:, :width], shown, matrix, full_range)


def reference(picture: Resident) -> F64:
    """f64 [H, W, 3] 0..255, not rounded: what `picture.size` makes of the part, whole (whatever it begins `at`)."""
    made, part = picture.surface, picture.part
    y = made.y.cpu().numpy()[part.rows, part.columns].astype(float)
    halves = Roi(part.x // 2, part.y // 2, (part.width + 1) // 2, (part.height + 1) // 2)
    uv = made.uv.cpu().numpy()[halves.rows, halves.columns].astype(float)
    width, height = picture.size
    pair = 1 if width % 2 else 2
    luma = scaled(y, width, height)
    u, v = (np.repeat(scaled(plane, width // pair, height), pair, 1) - 128 for plane in np.moveaxis(uv, 2, 0))
    if not made.full_range:
        luma, u, v = (luma - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = MATRICES[made.matrix]
    r, b = luma + 2 * (1 - red) * v, luma + 2 * (1 - blue) * u
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b], -1).clip(0, 255)


def scaled(plane: F64, width: int, height: int) -> F64:
    return mix(plane.shape[0], height) @ plane @ mix(plane.shape[1], width).T


def mix(source: int, target: int) -> F64:
    """f64 [target, source]: each output sample's shares of the source; area going down, bilinear going up."""
    return np.array(list(_shares(source, target)))


def _shares(source: int, target: int) -> Iterator[F64]:
    ratio = source / target
    for sample in range(target):
        if ratio >= 1:  # the length of each source sample that lies under this one
            begin, end = sample * ratio, (sample + 1) * ratio
            under = np.minimum(np.arange(source) + 1, end) - np.maximum(np.arange(source), begin)
            yield under.clip(0) / ratio
        else:
            place = min(max((sample + 0.5) * ratio - 0.5, 0), source - 1)
            yield (1 - np.abs(np.arange(source) - place)).clip(0)
