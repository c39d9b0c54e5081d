"""Leafy crowns for the trees and hedges of the synthetic street, a few for each seed."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray


def crown(rng: np.random.Generator, sun_right: float) -> NDArray[np.float32]:
    """A leafy crown: f32 [288, 288, 2], brightness (about 1) and coverage."""
    n = 288
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / (n / 2) - 1
    shade, height = np.full((n, n), 0.4, np.float32), np.full((n, n), -1.0, np.float32)
    squash, lean = rng.uniform(0.8, 1.15), rng.uniform(-0.2, 0.2)
    for bough in range(int(rng.integers(9, 13))):  # boughs, each with its tufts
        a, r = rng.uniform(0, 2 * math.pi), math.sqrt(rng.uniform(0.02, 1)) * 0.56
        if bough < 3:  # the middle is always full: the stem ends there
            a, r = math.pi / 2, 0.28 - 0.24 * bough
        bx, by, spread = r * math.cos(a), r * math.sin(a) * squash, rng.uniform(0.14, 0.24)
        for _ in range(8):
            px, py = bx + rng.normal(0, spread * 0.6), by + rng.normal(0, spread * 0.5)
            px += lean * py
            pr, pz = rng.uniform(0.07, 0.19), rng.uniform(-0.25, 0.45) * (1 - r) - 0.2 * by
            x0, x1 = (int(np.clip((v + 1) * n / 2, 0, n)) for v in (px - pr, px + pr))
            y0, y1 = (int(np.clip((v + 1) * n / 2, 0, n)) for v in (py - pr, py + pr))
            area = (slice(y0, y1), slice(x0, x1))
            dx, dy = (x[area] - px) / pr, (y[area] - py) / pr
            bulge = 1 - dx * dx - dy * dy
            z = np.where(bulge > 0, np.sqrt(np.maximum(bulge, 0)) * pr + pz, -1.0)
            light = 0.7 + 0.36 * (-dy * 0.75 + dx * 0.5 * sun_right) - 0.34 * py + 0.2 * sun_right * px
            shade[area] = np.where(z > height[area], light, shade[area])
            height[area] = np.maximum(height[area], z)
    small = cv2.resize(rng.standard_normal((n // 3, n // 3)).astype(np.float32), (n, n), interpolation=cv2.INTER_CUBIC)
    tiny = cv2.resize(rng.standard_normal((n // 2, n // 2)).astype(np.float32), (n, n), interpolation=cv2.INTER_LINEAR)
    solid = cv2.GaussianBlur((height > -1).astype(np.float32), (0, 0), 5)
    alpha = np.clip(
        (solid - 0.5 + (0.24 * small + 0.1 * tiny) * np.minimum(solid * 3, 1) - 0.2 * (solid < 0.12)) * 7, 0, 1
    )
    shade = cv2.GaussianBlur(shade, (0, 0), 2) * (1 + 0.2 * small + 0.16 * tiny)
    return np.stack([np.clip(shade, 0.12, 1.7), alpha], -1).astype(np.float32)
