"""`streamseg eval`: an engine's accuracy on labelled pictures or clips, through the program that the daemon runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np

from streamseg.accuracy import Confusion
from streamseg.config import Config
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError
from streamseg.ingest.frames import file_frames
from streamseg.pipeline import engine_of
from streamseg.synthetic import Street, StreetSpec
from streamseg.types import U8, Frame, Planes

PICTURES = (".png", ".jpg", ".jpeg")


class Still:
    """A picture from a file, as a frame's picture: RGB u8 [H, W, 3]."""

    def __init__(self, rgb: U8) -> None:
        self._rgb = rgb
        self.height, self.width = rgb.shape[:2]

    def rgb(self, width: int, height: int) -> U8:
        if (width, height) == (self.width, self.height):
            return self._rgb
        return np.asarray(cv2.resize(self._rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def planes(self) -> Planes:
        raise NotImplementedError("stills are evaluated, not drawn")


def run(config: Config, data: Path | str, split: str, save_labels: Path | None = None) -> dict[str, Any]:
    """{"miou", "pixel_accuracy", "iou": {class: IoU or None}, "pictures", …}. Raises ConfigError, EngineError.

    `config` chooses engine, backend, precision and smoothing. Everything is analysed at the size that the daemon would
    choose; pictures each for itself, clips smoothed from frame to frame. `data` may be a `synthetic://street` URL.
    """
    engine = engine_of(config, threads=os.cpu_count() or 1)
    bundle = engine.bundle
    begin = time.monotonic()
    scored: Confusion | None
    if str(data).startswith("synthetic://"):
        scored, pictures = _street(engine, StreetSpec.from_url(str(data)))
    elif (data := Path(data)).is_dir():
        scored, pictures = _pictures(engine, data, split)
    elif data.is_file():
        scored, pictures = _clip(engine, data, save_labels)
    else:
        raise ConfigError(f"{data}: no such file or folder; give a folder with SPLIT/ and SPLITannot/, or a clip")
    report: dict[str, Any] = {"engine": bundle.identity, "data": str(data), "pictures": pictures}
    if scored is not None:
        report |= {
            "miou": _rounded(scored.miou()),
            "pixel_accuracy": _rounded(scored.pixel_accuracy()),
            "iou": {c.name: _rounded(v) for c, v in zip(bundle.classes, scored.iou(), strict=True)},
        }
    return report | {"seconds": round(time.monotonic() - begin, 2)}


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _pictures(engine: Engine, folder: Path, split: str) -> tuple[Confusion, int]:
    confusion, count = Confusion(len(engine.classes)), 0
    for index, (picture, truth) in enumerate(_labelled(folder, split)):
        bgr = cv2.imread(str(picture), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ConfigError(f"{picture}: not a picture that can be read; is it damaged?")
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        labels = engine.run([_still_frame(index, np.asarray(rgb, np.uint8))])[0].labels
        confusion.add(_stretched(labels, truth.shape), truth)
        count += 1
    return confusion, count


def _street(engine: Engine, spec: StreetSpec) -> tuple[Confusion, int]:
    """`spec.frames` pictures (50 by default), two seconds apart, of the drawn street with its exact labels."""
    street = Street(spec.seed, spec.width, spec.height, spec.fps)
    confusion, count = Confusion(len(engine.classes)), spec.frames or 50
    for index in range(count):
        rgb, truth = street.frame(round(index * 2 * spec.fps))
        labels = engine.run([_still_frame(index, rgb)])[0].labels
        confusion.add(_stretched(labels, truth.shape), truth)
    return confusion, count


def _labelled(folder: Path, split: str) -> Iterator[tuple[Path, U8]]:
    """(picture, its label map u8 [H, W]) of SPLIT/NAME.jpg and SPLITannot/NAME.png, by name."""
    pictures = sorted(p for p in (folder / split).glob("*") if p.suffix.lower() in PICTURES)
    if not pictures:
        there = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())) or "nothing"
        raise ConfigError(f"{folder / split}: no pictures; the folder holds {there} (choose one with --split)")
    for picture in pictures:
        label = folder / f"{split}annot" / f"{picture.stem}.png"
        truth = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
        if truth is None or truth.ndim != 2:
            raise ConfigError(f"{label}: missing, or not a one-channel picture of class ids")
        yield picture, np.asarray(truth, np.uint8)


def _clip(engine: Engine, path: Path, save_labels: Path | None) -> tuple[Confusion | None, int]:
    truths = _truths(path.with_suffix(".npz"))
    if truths is None and save_labels is None:
        raise ConfigError(f"{path}: no labels beside it (a .npz); --save-labels writes what is predicted")
    confusion = Confusion(len(engine.classes)) if truths is not None else None
    maps: list[U8] = []
    for index, frame in enumerate(file_frames(path)):
        labels = engine.run([frame])[0].labels
        maps.append(labels)
        if confusion is not None and truths is not None and index < len(truths):
            confusion.add(_stretched(labels, truths[index].shape), truths[index])
    if truths is not None and len(maps) != len(truths):
        raise ConfigError(f"{path} has {len(maps)} frames, but {path.stem}.npz has labels for {len(truths)}")
    if save_labels is not None:
        _save(save_labels, maps)
    return confusion, len(maps)


def _truths(path: Path) -> U8 | None:
    """u8 [F, H, W]; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        truths = np.load(path)["labels"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ConfigError(f"{path}: not the labels of a clip: an array `labels` u8 [F, H, W] ({error})") from None
    if truths.ndim != 3 or truths.dtype != np.uint8:
        raise ConfigError(f"{path}: labels is {truths.dtype} {list(truths.shape)}; expected uint8 [F, H, W]")
    return np.asarray(truths, np.uint8)


def _save(path: Path, maps: list[U8]) -> None:
    """One array u8 [F, H, W]; a clip whose pictures change their size has none."""
    if len({labels.shape for labels in maps}) > 1:
        raise ConfigError("the picture size changes within the clip; give --size, so that all label maps are alike")
    np.savez_compressed(path, labels=np.stack(maps))


def _stretched(labels: U8, shape: tuple[int, ...]) -> U8:
    if labels.shape == shape:
        return labels
    return np.asarray(cv2.resize(labels, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST), np.uint8)


def _still_frame(index: int, rgb: U8) -> Frame:
    """A frame with a state_key of its own, so that nothing is carried over from the picture before."""
    return Frame("eval", 0, index, None, 0, "file", 0, time.monotonic_ns(), 0, index, Still(rgb))
