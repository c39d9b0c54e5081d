"""What the pictures of measurements share: text where it is wanted, round ticks on an axis, their files. No thread."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from streamseg.errors import ConfigError
from streamseg.types import U8

Colour = tuple[int, int, int]
"""Blue, green, red."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK: Colour = (50, 50, 50)
PALE: Colour = (130, 130, 130)
GRID: Colour = (225, 225, 225)


def write(canvas: U8, text: str, place: tuple[int, int], colour: Colour = INK, scale: float = 0.45) -> None:
    """`place` is the left end of the line that the letters stand on."""
    cv2.putText(canvas, text, place, FONT, scale, colour, 1, cv2.LINE_AA)


def centred(canvas: U8, text: str, middle: tuple[int, int], colour: Colour = INK, scale: float = 0.45) -> None:
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    write(canvas, text, (middle[0] - width // 2, middle[1] + height // 2), colour, scale)


def upright(canvas: U8, text: str, x: int, bottom: int, colour: Colour = INK, scale: float = 0.5) -> None:
    """Read from below; `x` is its middle, `bottom` where it begins. Paints its ground white."""
    strip = np.full((20, width(text, scale) + 2, 3), 255, np.uint8)
    write(strip, text, (0, 15), colour, scale)
    turned = cv2.rotate(strip, cv2.ROTATE_90_COUNTERCLOCKWISE)
    canvas[bottom - turned.shape[0] : bottom, x - 10 : x + 10] = turned


def width(text: str, scale: float = 0.45) -> int:
    """Pixels across."""
    (across, _), _ = cv2.getTextSize(text, FONT, scale, 1)
    return int(across)


def ticks(low: float, high: float) -> list[float]:
    """Round values, at most six."""
    raw = max(high - low, 1e-6) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step * 1.001) + 1)]


def check(option: str, path: Path, such: str) -> None:
    """Raises ConfigError when no picture could be written there: before the measuring, not after."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{option} {path}: a picture's name is wanted, such as {such}")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}")


def save(path: Path, canvas: U8) -> None:
    """BGR, in the format that the name says. Raises OSError."""
    done, coded = cv2.imencode(path.suffix, canvas)
    assert done
    path.write_bytes(coded.tobytes())
