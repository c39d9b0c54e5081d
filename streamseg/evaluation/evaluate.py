"""`streamseg eval`: an engine's accuracy on labelled pictures or clips, through the program that the daemon runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamseg.config import Config
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError
from streamseg.evaluation.accuracy import Confusion
from streamseg.evaluation.bar import bar
from streamseg.evaluation.labels import label_values
from streamseg.evaluation.pictures import listed, read_rgb
from streamseg.evaluation.scoring import Watch, rounded, score, stretched
from streamseg.evaluation.truth import Truth, covered, read_truth
from streamseg.pipeline import engine_of
from streamseg.synthetic import CLASSES, Street, StreetSpec
from streamseg.types import U8, ClassInfo, Frame, Planes, Roi


class Still:
    """A picture from a file, as a frame's picture: RGB u8 [H, W, 3]."""

    def __init__(self, rgb: U8) -> None:
        self._rgb = rgb
        self.height, self.width = rgb.shape[:2]

    def rgb(self, width: int, height: int, part: Roi | None = None) -> U8:
        seen = self._rgb if part is None else self._rgb[part.rows, part.columns]
        if (height, width) == seen.shape[:2]:
            return np.ascontiguousarray(seen)
        return np.asarray(cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def scale_ahead(self, width: int, height: int, part: Roi | None = None) -> None:
        pass

    def planes(self) -> Planes:
        raise NotImplementedError("stills are evaluated, not drawn")

    def thumbnail(self) -> U8:
        raise NotImplementedError("stills do not move")

    @property
    def surface(self) -> None:
        """They lie in host memory."""


def run(
    config: Config,
    data: Path | str,
    split: str,
    save_labels: Path | None = None,
    foreground: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> dict[str, Any]:
    """{"miou", "pixel_accuracy", "iou": {class: IoU or None}, "confusion": pixels [true][predicted], "pictures", …}.
    Raises ConfigError, EngineError.

    `config` chooses engine, backend, precision and smoothing. Everything is analysed at the size that the daemon would
    choose; pictures each for itself, clips smoothed from frame to frame and measured over time too (see `temporal`).
    Of a stream with a `roi`, only the labels inside count. "doubt" tells of labels that look like other classes' ones.
    `data` may be a `synthetic://street` URL; `foreground` names the classes that a mask of moving objects shows;
    pixels of the classes `ignore` do not count (pictures only).
    """
    engine = engine_of(config, threads=os.cpu_count() or 1)
    ignored = class_ids(engine.classes, ignore)
    begin = time.monotonic()
    if str(data).startswith("synthetic://"):
        measured = _street(engine, StreetSpec.from_url(str(data)), ignored)
    elif (data := Path(data)).is_dir():
        with bar("pictures", len(listed(data / split))) as advance:
            measured = _pictures(engine, labelled(data, split), ignored, advance)
    elif ignored:
        raise ConfigError("--ignore is for labelled pictures; clips ignore what is 255 in their labels")
    elif data.is_file():
        measured = _clip(engine, data, save_labels, class_ids(engine.classes, foreground))
    else:
        raise ConfigError(f"{data}: no such file or folder; give a folder with SPLIT/ and SPLITannot/, or a clip")
    head = {"engine": engine.identity, "data": str(data)}
    return head | measured | {"seconds": round(time.monotonic() - begin, 2)}


def class_ids(classes: Sequence[ClassInfo], names: Sequence[str]) -> list[int]:
    """Raises ConfigError for a name that is no class."""
    ids = {c.name: c.id for c in classes}
    if unknown := [name for name in names if name not in ids]:
        raise ConfigError(f"the engine has no class {unknown[0]!r}; it has {', '.join(ids)}")
    return [ids[name] for name in names]


def accuracy(scored: Confusion, classes: Sequence[ClassInfo], ignored: Sequence[int] = ()) -> dict[str, Any]:
    """The part of a report that every kind of truth allows (but for the matrix), without the classes `ignored`."""
    scored, classes = scored.without(ignored), [c for c in classes if c.id not in ignored]
    return {
        "miou": rounded(scored.miou()),
        "miou_present": rounded(scored.miou_present()),
        "pixel_accuracy": rounded(scored.pixel_accuracy()),
        "iou": {c.name: rounded(v) for c, v in zip(classes, scored.iou(), strict=True)},
    }


def of_pictures(config: Config, labelled: Iterable[tuple[U8, U8]]) -> dict[str, Any]:
    """As `run`, of pictures in memory: (rgb u8 [H, W, 3], its label map u8 [H, W] of the engine's classes)."""
    return _pictures(engine_of(config, threads=os.cpu_count() or 1), labelled)


def _pictures(
    engine: Engine,
    labelled: Iterable[tuple[U8, U8]],
    ignored: Sequence[int] = (),
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    confusion, count = Confusion(len(engine.classes)), 0
    for index, (rgb, truth) in enumerate(labelled):
        # With a state_key of its own, so that nothing is carried over from the picture before.
        frame = Frame("eval", 0, index, None, 0, "file", 0, time.monotonic_ns(), 0, index, Still(rgb))
        truth = covered(truth, engine.view(frame.stream))
        confusion.add(stretched(engine.run([frame])[0].labels, truth.shape), truth)
        count += 1
        advance()
    found = {"pictures": count} | accuracy(confusion, engine.classes, ignored) | {"confusion": confusion.pixels()}
    if foreign := confusion.foreign():
        found["doubt"] = _doubt(foreign, confusion, engine)
    return found


def _doubt(foreign: dict[int, int], confusion: Confusion, engine: Engine) -> str:
    share = 100 * sum(foreign.values()) / (confusion.counts.sum() + confusion.others.sum())
    values = ", ".join(map(str, list(foreign)[:8])) + (", ..." if len(foreign) > 8 else "")
    names = ", ".join(c.name for c in engine.classes)
    return (
        f"{share:.3g} % of the pixels are ignored, as their labels ({values}) are none of {engine.identity}'s: are they"
        f" of its classes, 0 to {len(engine.classes) - 1} ({names})? If of others, this measures nothing"
    )


def _street(engine: Engine, spec: StreetSpec, ignored: Sequence[int]) -> dict[str, Any]:
    """`spec.frames` pictures (50 by default), two seconds apart, of the drawn street with its exact labels."""
    street = Street(spec.seed, spec.width, spec.height, spec.fps)
    moments = (round(index * 2 * spec.fps) for index in range(spec.frames or 50))
    with bar("pictures", spec.frames or 50) as advance:
        found = _pictures(engine, map(street.frame, moments), ignored, advance)
    if (names := [c.name for c in engine.classes])[: len(CLASSES)] != list(CLASSES):
        found["doubt"] = (
            f"the street's labels are {', '.join(CLASSES)}, in this order; {engine.identity} has {', '.join(names)}: "
            "where they differ this measures nothing"
        )
    return found


def labelled(folder: Path, split: str) -> Iterator[tuple[U8, U8]]:
    """(rgb u8 [H, W, 3], its label map u8 [H, W]) of SPLIT/NAME.jpg and SPLITannot/NAME.png, by name."""
    pictures = listed(folder / split)
    if not pictures:
        there = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())) or "nothing"
        if there == "nothing" and listed(folder):
            above = f"give the folder above it, and --split {folder.resolve().name}"
            raise ConfigError(f"{folder} holds pictures itself: {above}")
        raise ConfigError(f"{folder / split}: no pictures; the folder holds {there} (choose one with --split)")
    for picture in pictures:
        label = folder / f"{split}annot" / f"{picture.stem}.png"
        truth = label_values(label)
        if truth.ndim != 2:
            raise ConfigError(f"{label} is of colours, where the number of a class is wanted for every pixel")
        yield read_rgb(picture), np.minimum(truth, 255).astype(np.uint8)  # ids of 16 bits


def _clip(engine: Engine, path: Path, save_labels: Path | None, foreground: Sequence[int]) -> dict[str, Any]:
    truth = read_truth(path)
    if truth is None and save_labels is None:
        raise ConfigError(f"{path}: no labels beside it (a .npz); --save-labels writes what is predicted")
    if save_labels is not None:
        _check_saved(save_labels, truth)
    maps: list[U8] = []
    keep: list[Watch] = [] if save_labels is None else [lambda _, __, seen: maps.append(seen[""].labels)]
    with bar("frames", len(truth) if truth else None) as advance:
        scored = score({"": engine}, path, truth, foreground=foreground, watches=[*keep, lambda *_: advance()])[""]
    if save_labels is not None:
        _save(save_labels, maps)
    report: dict[str, Any] = {"pictures": scored.frames}
    if truth is not None and truth.labels is not None:
        report |= accuracy(scored.confusion, engine.classes) | {"confusion": scored.confusion.pixels()}
        if foreign := scored.confusion.foreign():
            report["doubt"] = _doubt(foreign, scored.confusion, engine)
    return report | scored.report()


def _check_saved(path: Path, truth: Truth | None) -> None:
    """Raises ConfigError, before the measuring, where labels cannot be saved or what is known of the clip would go."""
    if not path.parent.is_dir():
        raise ConfigError(f"--save-labels {path}: there is no folder {path.parent}")
    written = path if path.name.endswith(".npz") else path.with_name(f"{path.name}.npz")  # as numpy does it
    if truth is not None and written.resolve() == truth.path.resolve():
        raise ConfigError(f"--save-labels {path}: this is what is true of the clip; give another name")


def _save(path: Path, maps: list[U8]) -> None:
    """One array u8 [F, H, W]; a clip whose pictures change their size has none."""
    if len({labels.shape for labels in maps}) > 1:
        raise ConfigError("the picture size changes within the clip; give --size, so that all label maps are alike")
    np.savez_compressed(path, labels=np.stack(maps))
