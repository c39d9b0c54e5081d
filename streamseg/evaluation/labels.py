"""A label picture's values as they were written: PNGs of any depth, with a palette or without. No thread."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ConfigError

GREY, PALETTE = 0, 3
"""Colour types of a PNG's header."""
STRETCHED = {1: 255, 2: 85, 4: 17}
"""By depth in bits: what cv2 multiplies narrow values with, so that they fill 0..255."""


def label_values(path: Path, *, indices: bool = True) -> NDArray[Any]:
    """[H, W] of u8 or u16, or colours u8 [H, W, 3] (red, green, blue). With `indices` a picture with a palette gives
    its indices, its colours otherwise. Raises ConfigError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}, the labels of a picture, cannot be read: {error.strerror}") from None
    depth, colour = data[24:26] if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 32 else (8, None)
    if indices and colour == PALETTE:
        data = _unpainted(data)
    scale = STRETCHED.get(depth, 1) if colour == GREY or (indices and colour == PALETTE) else 1
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if values is None:
        raise ConfigError(f"{path}: not a picture that can be read; is it damaged?")
    if values.ndim == 2:
        return np.asarray(values // scale)
    if values.dtype == np.uint16:
        values = values >> 8  # the colours of 8 bits that they were stretched from
    return np.asarray(cv2.cvtColor(values[..., :3], cv2.COLOR_BGR2RGB), np.uint8)


def _unpainted(png: bytes) -> bytes:
    """A palette PNG as a grey one of the same indices.

    cv2 knows only the palette's colours, of which two indices may share one. In the file both kinds of picture look the
    same but for the colour type in the header (ISO/IEC 15948, 11.2.2) and the palette.
    """
    header = b"IHDR" + png[16:25] + b"\x00" + png[26:29]
    out, place = [png[:12], header, struct.pack(">I", zlib.crc32(header))], 33
    while place + 8 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] not in (b"PLTE", b"tRNS"):
            out.append(png[place:end])
        place = end
    return b"".join(out)
