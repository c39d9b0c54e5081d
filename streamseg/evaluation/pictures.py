"""Picture files that people put into folders: which there are, and what they show. No thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from streamseg.errors import ConfigError
from streamseg.types import U8

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""What a picture's name ends in, in small letters or capitals."""
Item = TypeVar("Item")


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """The pictures among `folder`'s files that match, by name; none where there is no folder."""
    return sorted(file for file in folder.glob(pattern) if file.suffix.lower() in PICTURES and file.is_file())


def read_rgb(picture: Path) -> U8:
    """u8 [H, W, 3], red first. Raises ConfigError."""
    bgr = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ConfigError(f"{picture}: not a picture that can be read; is it damaged?")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` of them, evenly."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]
