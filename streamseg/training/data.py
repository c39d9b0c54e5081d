"""Labelled pictures held in memory, and the batches drawn from them by a few loader threads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from rich.progress import track

from streamseg import synthetic
from streamseg.errors import ConfigError
from streamseg.synthetic import Street
from streamseg.training.augment import IGNORED, augment
from streamseg.training.recipe import Folders, Recipe, Synthetic
from streamseg.types import U8

AHEAD = 3  # batches made while the network works on one


@dataclass(frozen=True, slots=True)
class Pictures:
    """A data set in memory: `rgb` u8 [H, W, 3] and `labels` u8 [H, W] per picture, 255 where nothing is known."""

    name: str
    share: float
    rgb: Sequence[U8] = field(repr=False)
    labels: Sequence[U8] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True, slots=True)
class Batch:
    """`rgb` u8 [N, h, w, 3], `labels` u8 [N, h, w]."""

    rgb: U8 = field(repr=False)
    labels: U8 = field(repr=False)


def load(source: Folders | Synthetic, classes: int, data_root: Path | None, base: Path) -> Pictures:
    """Reads or draws a data set. `data_root` replaces the recipe's own `root`, which starts at `base` when relative.
    Raises ConfigError naming what lacks."""
    if isinstance(source, Synthetic):
        return _streets(source, classes)
    root = base / (data_root.absolute() if data_root else source.root.expanduser())
    pairs = [pair for split in source.splits for pair in _pairs(root, split)]
    loaded = [_read(picture, truth, classes) for picture, truth in pairs]
    return Pictures(f"{root.name}/{'+'.join(source.splits)}", source.share, *zip(*loaded, strict=True))


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    folder, truth = root / split, root / f"{split}annot"
    pictures = sorted(p for p in folder.glob("*") if p.suffix in (".jpg", ".png"))
    if not pictures:
        raise ConfigError(f"no labelled pictures in {folder}; say where they are with --data or `root` in the recipe")
    return [(p, truth / f"{p.stem}.png") for p in pictures]


def _read(picture: Path, truth: Path, classes: int) -> tuple[U8, U8]:
    bgr, labels = cv2.imread(str(picture), cv2.IMREAD_COLOR), cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
    if bgr is None or labels is None:
        raise ConfigError(f"{picture if bgr is None else truth} is missing or no picture")
    if labels.ndim != 2 or labels.shape != bgr.shape[:2]:
        raise ConfigError(f"{truth} must hold one class id a pixel, {bgr.shape[1]}x{bgr.shape[0]} as its picture")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), _known(np.asarray(labels, np.uint8), classes)


def _known(labels: U8, classes: int) -> U8:
    return np.where(labels < classes, labels, IGNORED).astype(np.uint8)


def _streets(source: Synthetic, classes: int) -> Pictures:
    """Drawing a street takes a second, more than training on it, so the pictures are kept between runs."""
    size = f"{source.width}x{source.height}"
    name = f"{size}-{source.seed}-{source.pictures}-{_drawing()}.npz"
    file = user_cache_path("streamseg") / "streets" / name
    if not file.exists():
        frames = list(track(_drawn(source), "drawing streets", total=source.pictures))
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, rgb=np.stack([f[0] for f in frames]), labels=np.stack([f[1] for f in frames]))
        part.replace(file)
    with np.load(file) as kept:
        rgb, labels = kept["rgb"], kept["labels"]
    return Pictures(f"street {size}", source.share, list(rgb), [_known(one, classes) for one in labels])


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


def class_frequency(sets: Sequence[Pictures], classes: int) -> NDArray[np.float64]:
    """The share of labelled pixels of each class, f64 [K], the data sets weighed by their `share`."""
    total: NDArray[np.float64] = np.zeros(classes)
    for one in sets:
        counts = sum(np.bincount(labels.ravel(), minlength=256)[:classes] for labels in one.labels)
        total += one.share * counts / max(1, np.sum(counts))
    return np.asarray(total / total.sum())


def batches(sets: Sequence[Pictures], recipe: Recipe, epoch: int, first: int, threads: int = 2) -> Iterator[Batch]:
    """The batches of `epoch` from number `first` on. Everything random hangs on (seed, epoch, place in the epoch)
    alone, so that a resumed run sees what an unbroken one would have seen."""
    plan = _plan(sets, recipe, epoch)
    starts = range(first * recipe.batch, len(plan) - recipe.batch + 1, recipe.batch)
    with ThreadPoolExecutor(threads, "augment") as pool:
        waiting: list[list[Future[tuple[U8, U8]]]] = []
        for start in starts:
            places = range(start, start + recipe.batch)
            waiting.append([pool.submit(_one, sets, recipe, epoch, place, plan[place]) for place in places])
            if len(waiting) > AHEAD:
                yield _stack(waiting.pop(0))
        while waiting:
            yield _stack(waiting.pop(0))


def steps_per_epoch(sets: Sequence[Pictures], recipe: Recipe) -> int:
    return max(1, (recipe.epoch_pictures or len(sets[0])) // recipe.batch)


def _plan(sets: Sequence[Pictures], recipe: Recipe, epoch: int) -> list[tuple[int, int]]:
    """(data set, picture) for every place in the epoch: sets by share, and within a set each picture once per round."""
    rng = np.random.default_rng((recipe.seed, epoch))
    size = steps_per_epoch(sets, recipe) * recipe.batch
    share = np.array([one.share for one in sets])
    which = rng.choice(len(sets), size, p=share / share.sum())
    rounds = [_rounds(len(one), int((which == i).sum()), rng) for i, one in enumerate(sets)]
    return [(int(i), next(rounds[i])) for i in which]


def _rounds(size: int, needed: int, rng: np.random.Generator) -> Iterator[int]:
    orders = [rng.permutation(size) for _ in range(-(-needed // size))]
    return (int(i) for order in orders for i in order)


def _one(sets: Sequence[Pictures], recipe: Recipe, epoch: int, place: int, which: tuple[int, int]) -> tuple[U8, U8]:
    chosen, picture = sets[which[0]], which[1]
    rng = np.random.default_rng((recipe.seed, epoch, place))
    rgb, labels = augment(chosen.rgb[picture], chosen.labels[picture], recipe.crop, recipe.augment, rng)
    if rng.random() < recipe.augment.paste:
        second = int(rng.integers(len(chosen)))
        theirs, truth = augment(chosen.rgb[second], chosen.labels[second], recipe.crop, recipe.augment, rng)
        objects = _pasted(recipe)[truth]
        rgb, labels = np.where(objects[..., None], theirs, rgb), np.where(objects, truth, labels)
    return rgb, labels


def _pasted(recipe: Recipe) -> NDArray[np.bool_]:
    """Which label values are copied over, bool [256]."""
    table = np.zeros(256, bool)
    table[[i for i, c in enumerate(recipe.classes) if c.name in recipe.augment.paste_classes]] = True
    return table


def _stack(parts: list[Future[tuple[U8, U8]]]) -> Batch:
    made = [part.result() for part in parts]
    return Batch(np.stack([m[0] for m in made]), np.stack([m[1] for m in made]))
