"""Reads, draws or decodes the data sets of a recipe. Runs in the training thread, before training."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from platformdirs import user_cache_path
from rich.progress import track

from streamseg import synthetic
from streamseg.errors import ConfigError
from streamseg.evaluation.bar import shown
from streamseg.evaluation.pictures import read_rgb, spread
from streamseg.ingest.frames import file_frames
from streamseg.ingest.reader import RateGate
from streamseg.synthetic import Street
from streamseg.training import folders
from streamseg.training.augment import IGNORED
from streamseg.training.classmap import class_map
from streamseg.training.data import Pictures, Stored
from streamseg.training.kinds import AnyDataSet, Boxes, Clips, Folders, Stills, Synthetic
from streamseg.training.styles import Layout, Value
from streamseg.training.weak import boxed_pictures
from streamseg.types import U8

log = logging.getLogger("streamseg")


def load(source: AnyDataSet, classes: Sequence[str], data_root: Path | None, base: Path) -> Pictures:
    """Reads or draws a data set for a recipe with these classes. `data_root` replaces the `root` of labelled folders;
    a relative `root` starts at `base`. Raises ConfigError naming what lacks."""
    if isinstance(source, Clips):
        return _clips(source, base / source.root.expanduser())
    if isinstance(source, Stills):
        return _stills(source, base / source.root.expanduser())
    if isinstance(source, Synthetic):
        return _relabelled(_streets(source), label_table(source, synthetic.CLASSES, classes))
    if isinstance(source, Boxes):
        return boxed_pictures(source, classes, base)
    return _folders(source, base / (data_root.absolute() if data_root else source.root.expanduser()), base, classes)


def label_table(source: Folders | Synthetic, theirs: Sequence[str], ours: Sequence[str]) -> U8:
    """u8 [256]: which of our class ids a label value of the data set means, `IGNORED` where none."""
    table = np.full(256, IGNORED, np.uint8)
    if not source.map and source.others is None and not source.classes:
        table[: len(ours)] = np.arange(len(ours))  # the same classes, in the same order
        return table
    if unknown := [name for name in source.map if name not in theirs]:
        raise ConfigError(f"map: the {source.kind} data set has no class {unknown[0]!r}; it has {', '.join(theirs)}")
    for value, name in enumerate(theirs):
        becomes = source.map.get(name, name if name in ours else source.others)
        if becomes is not None:
            table[value] = ours.index(becomes)
    return table


def _relabelled(pictures: Pictures, table: U8) -> Pictures:
    return Pictures(pictures.name, pictures.share, pictures.rgb, [table[labels] for labels in pictures.labels])


def _folders(source: Folders, root: Path, base: Path, ours: Sequence[str]) -> Pictures:
    mapped = class_map(source.class_map, ours, base, source.map, source.others) if source.class_map else None
    layouts = (source.layout,) if source.layout else mapped.style.layouts if mapped and mapped.style else (Layout(),)
    found = [pair for split in source.splits for pair in folders.pairs(root, split, layouts)]
    name, theirs = f"{root.name}/{'+'.join(source.splits)}", source.classes or ours
    unknown: Counter[Value] = Counter()
    table = np.arange(256, dtype=np.uint8) if mapped else label_table(source, theirs, ours)
    room, pixels = _room(), 0
    rgb, labels = Stored(0.75 * room), Stored(0.25 * room)  # as their bytes a pixel are
    for picture, truth in shown(found, f"reading {root.name}"):
        whole, values = folders.read(picture, truth, mapped, unknown, theirs)
        rgb.append(_at_most(source.width, whole, cv2.INTER_AREA), partial(_reread, picture, source.width))
        labels.append(table[_at_most(source.width, values, cv2.INTER_NEAREST)])
        pixels += labels[-1].size
    if rgb.room < 0:
        log.warning(
            "%s: the memory lacks %.1f GB to hold all %d pictures, so some are read again each time, which takes "
            "longer: a smaller `width` with the data set spares that",
            name, -(rgb.room + labels.room) / 1e9, len(found),
        )  # fmt: skip
    folders.report(name, unknown, f"class map {mapped.name} does" if mapped else f"{len(theirs)} classes do", pixels)
    return Pictures(name, source.share, rgb, labels)


def _room() -> float:
    """Bytes that the pictures of a data set may take: half of the memory that is free, as training needs some too."""
    free = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(free[1]) * 1024 / 2 if free else math.inf


def _reread(picture: Path, width: int | None) -> U8:
    return _at_most(width, read_rgb(picture), cv2.INTER_AREA)


def _at_most(width: int | None, array: U8, how: int) -> U8:
    """A picture or its labels, no wider than `width`."""
    if width is None or array.shape[1] <= width:
        return array
    size = width, max(1, round(array.shape[0] * width / array.shape[1]))
    return np.asarray(cv2.resize(array, size, interpolation=how), np.uint8)


def _clips(source: Clips, root: Path) -> Pictures:
    files = _files(root, source.files, "clips")
    rgb = [picture for file in track(files, "reading clips") for picture in _frames(file, source)]
    return _unlabelled(f"{root.name} ({len(files)} clips)", source.share, rgb)


def _frames(file: Path, source: Clips) -> list[U8]:
    """Every `every_s`; of a long file every second one is let go whenever they become twice too many."""
    gate, kept, step = RateGate(1 / source.every_s), list[U8](), 1
    passed = 0
    for frame in file_frames(file):
        if not gate.passes(frame.media_ns):
            continue
        if passed % step == 0:
            kept.append(frame.picture.rgb(*_scaled(frame.picture.width, frame.picture.height, source.width)))
        passed += 1
        if source.limit and len(kept) > 2 * source.limit:
            kept, step = kept[::2], 2 * step
    return spread(kept, source.limit)


def _stills(source: Stills, root: Path) -> Pictures:
    files = spread(_files(root, source.files, "pictures"), source.limit)
    rgb = []
    for picture in (read_rgb(file) for file in shown(files, f"reading {root.name}")):
        size = _scaled(picture.shape[1], picture.shape[0], source.width)
        rgb.append(np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8))
    return _unlabelled(root.name, source.share, rgb)


def _files(root: Path, patterns: Sequence[str], what: str) -> list[Path]:
    files = sorted({file for pattern in patterns for file in root.glob(pattern) if file.is_file()})
    if not files:
        raise ConfigError(f"no {what} in {root} ({', '.join(patterns)}); say where they are with `root` and `files`")
    return files


def _scaled(width: int, height: int, to: int) -> tuple[int, int]:
    """Sides that are multiples of 4, as a teacher's answer is kept at a quarter."""
    return to // 4 * 4, max(4, round(height * to / width / 4) * 4)


def _unlabelled(name: str, share: float, rgb: Sequence[U8]) -> Pictures:
    return Pictures(name, share, rgb, [np.full(one.shape[:2], IGNORED, np.uint8) for one in rgb])


def _streets(source: Synthetic) -> Pictures:
    """Drawing a street takes a second, more than training on it, so the pictures are kept between runs."""
    size = f"{source.width}x{source.height}"
    name = f"{size}-{source.seed}-{source.pictures}-{_drawing()}.npz"
    file = user_cache_path("streamseg") / "streets" / name
    with suppress(OSError, ValueError, EOFError, BadZipFile), file.open("rb") as opened, np.load(opened) as kept:
        return Pictures(f"street {size}", source.share, list(kept["rgb"]), list(kept["labels"]))
    frames = list(track(_drawn(source), "drawing streets", total=source.pictures))  # not there, or damaged
    rgb, labels = (np.stack(each) for each in zip(*frames, strict=True))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as written:
        np.savez(written, rgb=rgb, labels=labels)
    part.replace(file)
    return Pictures(f"street {size}", source.share, list(rgb), list(labels))


def _drawn(source: Synthetic) -> Iterator[tuple[U8, U8]]:
    """Two moments of each street, far enough apart that other people and cars are in the picture."""
    for index in range(0, source.pictures, 2):
        street = Street(seed=source.seed + index // 2, width=source.width, height=source.height, fps=25)
        for moment in range(min(2, source.pictures - index)):
            yield street.frame(index + 500 * moment)


def _drawing() -> str:
    """A digest of the code that draws: pictures of an older street are not used."""
    folder = Path(synthetic.__file__).parent
    sources = [Path(synthetic.__file__), *sorted((folder / "street").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
