"""What is known to be true of a clip: the arrays in the .npz beside it. Read once; no thread lives here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from streamseg.engine.tiling import View
from streamseg.errors import ConfigError
from streamseg.types import U8

KEYS = ("labels", "moving", "foreground")


@dataclass(frozen=True, slots=True)
class Truth:
    """`labels` u8 [F, H, W] with, optionally, `moving` bool (pixels of moving objects); or, of clips in which only
    those were marked, `foreground` u8 (0 no, 1 yes, 2 ignore)."""

    path: Path
    labels: U8 | None = None
    moving: NDArray[np.bool_] | None = None
    foreground: U8 | None = None

    def __len__(self) -> int:
        return len(self.labels if self.labels is not None else self.foreground if self.foreground is not None else ())

    def __repr__(self) -> str:
        return f"Truth({self.path.name}, {len(self)} frames)"

    def covered(self, view: View) -> Truth:
        """Of the part of the picture that is analysed alone; views of the same arrays."""
        arrays = {key: array for key in KEYS if (array := getattr(self, key)) is not None}
        return Truth(self.path, **{key: covered(array, view) for key, array in arrays.items()})

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)"""
        known = self.labels if self.labels is not None else self.foreground
        assert known is not None
        return known.shape[1], known.shape[2]


def covered(truth: NDArray[Any], view: View) -> NDArray[Any]:
    """What of [..., H, W] lies in the part of the picture that is analysed."""
    part = view.part(truth.shape[-1], truth.shape[-2])
    return truth if part is None else truth[..., part.rows, part.columns]


def read_truth(clip: Path) -> Truth | None:
    """The truth of a clip, from the .npz of its name; None where there is no such file. Raises ConfigError."""
    path = clip.with_suffix(".npz")
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as stored:  # np.load leaves a file open that is damaged
            arrays = {key: stored[key] for key in KEYS if key in stored}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ConfigError(f"{path}: not the labels of a clip: an array `labels` u8 [F, H, W] ({error})") from None
    if "labels" not in arrays and "foreground" not in arrays:
        raise ConfigError(f"{path}: not the labels of a clip: it holds no array `labels` u8 [F, H, W]")
    shape = next(iter(arrays.values())).shape
    for key, array in arrays.items():
        wanted = np.bool_ if key == "moving" else np.uint8
        if array.ndim != 3 or array.dtype != wanted or array.shape != shape:
            expected = f"{np.dtype(wanted)} [F, H, W]" if array.ndim != 3 else f"{np.dtype(wanted)} {list(shape)}"
            raise ConfigError(f"{path}: {key} is {array.dtype} {list(array.shape)}; expected {expected}")
    return Truth(path, **arrays)
