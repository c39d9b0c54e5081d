"""Clips of a wall as a fixed camera sees it: sensor noise, compression, and whatever a test lets happen before it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np

from streamseg.types import U8


def wall(seed: int, width: int = 480, height: int = 270, *, wide: int = 0) -> U8:
    """A textured grey wall, u8 [height, width + wide, 3]."""
    rng = np.random.default_rng(seed)
    coarse, fine = (rng.uniform(60, 190, (height // n + 2, (width + wide) // n + 2)) for n in (40, 12))
    size = (width + wide, height)
    grey = 0.7 * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) + 0.3 * cv2.resize(fine, size)
    return np.clip(grey, 30, 220).astype(np.uint8)[..., None].repeat(3, 2)


def with_square(picture: U8, side: int, left: int, top: int = 150, step: int = 50) -> U8:
    """Something that is `step` brighter than the wall behind it."""
    changed = picture.copy()
    part = changed[top : top + side, left : left + side]
    part[:] = np.clip(part.astype(np.int16) + step, 0, 255)
    return changed


def zoomed(picture: U8, scale: float) -> U8:
    """Half of `picture`'s width and height about its centre, at a scale of 0.5 all of it."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    about = np.array([[scale, 0, width / 2 - scale * width], [0, scale, height / 2 - scale * height]], np.float32)
    return np.asarray(cv2.warpAffine(picture, about, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def write(path: Path, pictures: Iterable[U8], *, noise: float = 7, crf: int = 28, fps: int = 25) -> Path:
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "x264-params": "slices=1:keyint=50"}
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            noisy = np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            frame.pts = number
            box.mux(stream.encode(frame))
        box.mux(stream.encode())
    return path
