"""Results as the engine makes them, of any size, without an engine: what the tests of the wire publish."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from streamseg.motion import thumbnail
from streamseg.types import U8, ClassInfo, Frame, Planes, Result, Roi

CLASSES = (
    ClassInfo(0, "road", (128, 64, 128)),
    ClassInfo(1, "person", (220, 20, 60)),
    ClassInfo(2, "car", (0, 0, 142)),
)
ENGINE = "test@0123abcd"


@dataclass(frozen=True)
class GreyPicture:
    """A picture in memory: a ramp from left to right, television range."""

    width: int = 32
    height: int = 16
    noise: int | None = None
    """Seed of noise that JPEG cannot make small."""

    def rgb(self, width: int, height: int, part: Roi | None = None) -> U8:
        return np.full((height, width, 3), 128, np.uint8)

    def scale_ahead(self, width: int, height: int, part: Roi | None = None) -> None:
        pass

    def planes(self) -> Planes:
        if self.noise is not None:
            y = np.random.default_rng(self.noise).integers(16, 236, (self.height, self.width), np.uint8)
        else:
            y = np.tile(np.linspace(16, 235, self.width).astype(np.uint8), (self.height, 1))
        chroma = np.full((-(-self.height // 2), -(-self.width // 2)), 128, np.uint8)
        return Planes(y, chroma, chroma, full_range=False)

    def thumbnail(self) -> U8:
        return thumbnail(self.planes().y)

    @property
    def surface(self) -> None:
        return None


def result(
    number: int,
    stream: str = "cam1",
    *,
    epoch: int = 1_700_000_000_000,
    labels: U8 | None = None,
    picture: GreyPicture | None = None,
    captured_ns: int | None = None,
) -> Result:
    """Frame `number`; by default a 13x7 label map in which `number` % 13 columns of one row are a person."""
    if labels is None:
        labels = np.zeros((7, 13), np.uint8)
        labels[3, : number % 13] = 1
    picture = picture or GreyPicture()
    frame = Frame(
        stream,
        epoch,
        number,
        number * 40_000_000,
        time.time_ns() if captured_ns is None else captured_ns,
        "host",
        1100,
        time.monotonic_ns(),
        number * 40_000_000,
        0,
        picture,
    )
    return Result(frame, lambda: labels, ENGINE, True, Roi(0, 0, picture.width, picture.height), 200, 3300)
