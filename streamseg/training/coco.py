"""Boxes from a COCO JSON file (Lin et al. 2014, "Data format"): pictures, categories and `bbox` alone. No thread."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels; `right` and `bottom` are past the last. `crowd`: many objects at once, ignored."""

    left: int
    top: int
    right: int
    bottom: int
    category: str
    crowd: bool = False

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of a picture that it covers."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, slots=True)
class Boxed:
    """A picture's file and its boxes in the file's own pixels, as the JSON has them: (left, top, width, height)."""

    file: Path
    size: tuple[int, int] | None
    boxes: tuple[tuple[int, tuple[float, float, float, float], str, bool], ...]
    """(annotation id, box, category, crowd)"""

    def fitted(self, width: int, height: int, scale: float = 1.0) -> tuple[Box, ...]:
        """Its boxes in whole pixels of the picture as it was read, `width` x `height`, then scaled; what is smaller
        than a pixel is left out. Raises ConfigError when the JSON says another size, or a box reaches outside.
        """
        if self.size not in (None, (width, height)):
            said = f"{self.size[0]}x{self.size[1]}" if self.size else ""
            raise ConfigError(f"{self.file} is {width}x{height}, but its boxes are for {said}; was it scaled?")
        return tuple(
            _whole(box, category, crowd, scale, width, height)
            for number, box, category, crowd in self.boxes
            if self._within(number, box, width, height) and min(box[2:]) * scale >= 1
        )

    def _within(self, number: int, box: tuple[float, float, float, float], width: int, height: int) -> bool:
        left, top, wide, high = box
        if min(left, top) < -1 or left + wide > width + 1 or top + high > height + 1:  # 1: some tools count from 1
            shown = ", ".join(f"{side:g}" for side in box)
            raise ConfigError(f"{self.file}: box [{shown}] of annotation {number} reaches outside {width}x{height}")
        return True


def read_boxes(path: Path, pictures: Path) -> tuple[list[Boxed], list[str]]:
    """(pictures with their boxes, category names). `file_name`s lie below `pictures`.

    Raises ConfigError naming the file and the entry: no JSON, no COCO JSON, an unknown picture or category, a missing
    file, or a box that is none.
    """
    content = _parsed(path)
    names = {
        _field(c, "id", path, "categories", i): str(_field(c, "name", path, "categories", i))
        for i, c in enumerate(content["categories"])
    }
    images = {_field(m, "id", path, "images", i): m for i, m in enumerate(content["images"])}
    found: dict[Any, list[Any]] = {key: [] for key in images}
    for i, one in enumerate(content["annotations"]):
        picture, category = (_field(one, key, path, "annotations", i) for key in ("image_id", "category_id"))
        if picture not in images:
            raise ConfigError(f"{path}: annotations[{i}] is of picture {picture!r}, which `images` does not have")
        if category not in names:
            raise ConfigError(f"{path}: annotations[{i}] has category {category!r}; `categories` has {_some(names)}")
        box = _box(_field(one, "bbox", path, "annotations", i), path, i)
        found[picture].append((one.get("id", i), box, names[category], bool(one.get("iscrowd", 0))))
    if not images:
        raise ConfigError(f"{path}: lists no pictures")
    boxed = [_boxed(image, tuple(found[key]), path, pictures, i) for i, (key, image) in enumerate(images.items())]
    return boxed, list(dict.fromkeys(names.values()))


def _boxed(image: Mapping[str, Any], boxes: tuple[Any, ...], path: Path, pictures: Path, i: int) -> Boxed:
    file = pictures / str(_field(image, "file_name", path, "images", i))
    if not file.is_file():
        raise ConfigError(f"{file} is missing; {path.name} lists it (images[{i}])")
    size = (image["width"], image["height"]) if image.get("width") and image.get("height") else None
    return Boxed(file, size, boxes)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"boxes {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"boxes {path} is not JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ConfigError(f"boxes {path} is no COCO JSON: it has no list `{key}`")
    return dict(content)


def _field(entry: Any, key: str, path: Path, where: str, i: int) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise ConfigError(f"{path}: {where}[{i}] has no `{key}`")
    if key.endswith("id") and not isinstance(entry[key], int | str):
        raise ConfigError(f"{path}: {where}[{i}].{key} must be a number, not {str(entry[key])[:60]}")
    return entry[key]


def _box(value: Any, path: Path, i: int) -> tuple[float, float, float, float]:
    good = isinstance(value, list) and len(value) == 4 and all(isinstance(v, int | float) for v in value)
    if not good or not all(math.isfinite(v) for v in value) or min(value[2:]) < 0:
        raise ConfigError(f"{path}: annotations[{i}].bbox must be [left, top, width, height], not {str(value)[:60]}")
    return float(value[0]), float(value[1]), float(value[2]), float(value[3])


def _whole(
    box: tuple[float, float, float, float], category: str, crowd: bool, scale: float, width: int, height: int
) -> Box:
    left, top, wide, high = (side * scale for side in box)
    w, h = round(width * scale), round(height * scale)
    x, y = min(max(0, round(left)), w - 1), min(max(0, round(top)), h - 1)
    return Box(x, y, max(x + 1, min(w, round(left + wide))), max(y + 1, min(h, round(top + high))), category, crowd)


def _some(names: Mapping[Any, str]) -> str:
    shown = [f"{key} ({name})" for key, name in names.items()]
    return ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")
