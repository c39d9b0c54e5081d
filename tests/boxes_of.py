"""Boxes drawn around what a labelled folder shows, as a COCO JSON: what somebody would have got who only drew boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LEAST_PIXELS = 16
"""Nobody boxes what is smaller."""


def boxes_of(
    root: Path, splits: Sequence[str], things: Mapping[int, str], to: Path, least_pixels: int = LEAST_PIXELS
) -> Path:
    """Writes `to`, a COCO JSON for `root`, of the connected pieces of `things` (label value -> name) in
    `root/<split>annot/*.png`, whose pictures are `root/<split>/*.jpg` or .png."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for split in splits:
        for picture in sorted(p for p in (root / split).iterdir() if p.suffix in (".jpg", ".png")):
            labels = cv2.imread(str(root / f"{split}annot" / f"{picture.stem}.png"), cv2.IMREAD_UNCHANGED)
            name, (height, width) = picture.relative_to(root).as_posix(), labels.shape
            images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
            for value in things:
                _, _, stats, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8))
                for x, y, w, h, area in stats[1:].tolist():
                    if area >= least_pixels:
                        entry = {"image_id": len(images), "category_id": value, "bbox": [x, y, w, h], "iscrowd": 0}
                        annotations.append({"id": len(annotations) + 1, "area": area, **entry})
    categories = [{"id": value, "name": name} for value, name in things.items()]
    to.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return to


if __name__ == "__main__":  # python boxes_of.py ROOT train,val 8=car,9=pedestrian OUT.json
    import sys

    root, splits, things, to = sys.argv[1:]
    pairs = (one.split("=") for one in things.split(","))
    boxes_of(Path(root), splits.split(","), {int(value): name for value, name in pairs}, Path(to))
