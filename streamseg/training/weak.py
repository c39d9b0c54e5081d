"""A data set whose pictures have boxes only: its labels are made, kept in the user's cache, and refined while training.

Made and refined in the training thread and its helpers; loader threads read the labels between refinements.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from rich.progress import track

from streamseg.errors import ConfigError
from streamseg.evaluation.bar import shown
from streamseg.evaluation.pictures import read_rgb
from streamseg.training import boxes
from streamseg.training.augment import IGNORED
from streamseg.training.coco import Box, Boxed, read_boxes
from streamseg.training.data import Pictures
from streamseg.training.kinds import Boxes, Refine
from streamseg.types import U8


class PseudoLabels(Sequence[U8]):
    """Labels u8 [H, W] a picture, made from its boxes; `refine` makes them better. Not thread-safe."""

    def __init__(
        self,
        labels: Sequence[U8],
        boxes: Sequence[Sequence[Box]],
        ids: Mapping[str, int],
        outside: int,
        refine: Refine | None,
    ) -> None:
        self._labels, self._boxes, self._ids, self._outside = list(labels), boxes, ids, outside
        self._when = [] if refine is None else [refine.at(i) for i in range(refine.rounds)]
        """Shares of the training at which they are refined."""

    def __getitem__(self, index: Any) -> Any:
        return self._labels[index]

    def __len__(self) -> int:
        return len(self._labels)

    def due(self, share_done: float) -> bool:
        """Whether a refinement waits at this share of the training, 0..1; asked once for each (after a resumed start,
        once for all that were before it: the network is asked anew, as what it said is not kept)."""
        passed = [share for share in self._when if share <= share_done]
        self._when = self._when[len(passed) :]
        return bool(passed)

    def refine(self, rgb: Sequence[U8], chances: Callable[[U8], NDArray[np.float32]]) -> None:
        """`chances` gives the class probabilities f32 [K, H, W] of a picture of `rgb`."""
        for i, picture in enumerate(track(rgb, "refining what boxes show")):
            new = boxes.refined_labels(self._labels[i], chances(picture), self._boxes[i], self._ids, self._outside)
            self._labels[i] = new


def boxed_pictures(source: Boxes, ours: Sequence[str], base: Path) -> Pictures:
    """Reads pictures and boxes and makes labels of the recipe's classes `ours`. Raises ConfigError."""
    root = base / source.root.expanduser()
    boxed, categories = read_boxes(root / source.annotations.expanduser(), root)
    ids = _ids(source, categories, ours)
    outside = IGNORED if source.others is None else ours.index(source.others)
    if outside == IGNORED:
        boxed = [one for one in boxed if one.boxes]  # nothing to be learned from the others
    read = [_read(one, source.width) for one in shown(boxed, f"reading {root.name}")]
    with ThreadPoolExecutor(os.cpu_count() or 1, "boxes") as pool:
        made = pool.map(lambda one: _kept(one[0], one[1], ids, outside), read)
        labels = list(track(made, f"masks from the boxes of {root.name}", total=len(read)))
    pseudo = PseudoLabels(labels, [one for _, one in read], ids, outside, source.refine)
    return Pictures(f"{root.name}/{source.annotations.name}", source.share, [rgb for rgb, _ in read], pseudo)


def _ids(source: Boxes, categories: Sequence[str], ours: Sequence[str]) -> dict[str, int]:
    """The class id of every category, `IGNORED` for none."""
    if unknown := [name for name in source.map if name not in categories]:
        has = ", ".join(categories)
        raise ConfigError(f"map: {source.annotations} has no category {unknown[0]!r}; it has {has}")
    becomes = {name: source.map.get(name, name if name in ours else source.others) for name in categories}
    ids = {name: IGNORED if to is None else ours.index(to) for name, to in becomes.items()}
    if not {to for to in becomes.values() if to != source.others} - {None}:
        raise ConfigError(
            f"no category of {source.annotations} is a class of the recipe; say which is which in `map` "
            f"(categories: {', '.join(categories)}; classes: {', '.join(ours)})"
        )
    return ids


def _read(one: Boxed, widest: int) -> tuple[U8, tuple[Box, ...]]:
    rgb = read_rgb(one.file)
    height, width = rgb.shape[:2]
    scale = min(1.0, widest / width)
    fitted = one.fitted(width, height, scale)
    if scale < 1:
        size = round(width * scale), round(height * scale)
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return rgb, fitted


def _kept(rgb: U8, fitted: Sequence[Box], ids: Mapping[str, int], outside: int) -> U8:
    """From the cache, a file a picture, so that nothing is lost when the run is interrupted here."""
    meant = [(box, ids[box.category]) for box in fitted]
    key = hashlib.sha256(Path(boxes.__file__).read_bytes() + repr((rgb.shape, meant, outside)).encode() + rgb.tobytes())
    file = user_cache_path("streamseg") / "boxes" / f"{key.hexdigest()[:32]}.png"
    kept = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if file.exists() else None
    if kept is not None:
        return np.asarray(kept, np.uint8)
    labels = boxes.pseudo_labels(rgb, fitted, ids, outside)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.stem}.{os.getpid()}.part")
    part.write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    part.replace(file)
    return labels


def weak_sets(sets: Sequence[Pictures], share_done: float) -> Iterator[tuple[Sequence[U8], PseudoLabels]]:
    """(rgb, labels) of the data sets whose labels are to be refined at this share of the training."""
    for one in sets:
        if isinstance(one.labels, PseudoLabels) and one.labels.due(share_done):
            yield one.rgb, one.labels
