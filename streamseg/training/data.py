"""Pictures held in memory as far as there is room, and the batches drawn from them by a few loader threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ConfigError
from streamseg.evaluation.pictures import spread
from streamseg.training.augment import Sample, augment
from streamseg.training.recipe import Recipe
from streamseg.types import U8

log = logging.getLogger("streamseg")
AHEAD = 3  # batches made while the network works on one
LOOKED_AT = 100  # pictures of a data set tell how wide they are


class Stored(Sequence[U8]):
    """Arrays that are held as they are until `room` bytes are full. Those after them are made anew whenever they are
    asked for, by what was given with them, or else out of a PNG in memory."""

    def __init__(self, room: float) -> None:
        self.room = room
        """What is left of it; below 0: what more would have been needed."""
        self._items: list[U8 | Callable[[], U8]] = []

    def append(self, array: U8, again: Callable[[], U8] | None = None) -> None:
        self.room -= array.nbytes
        self._items.append(array if self.room >= 0 else again or partial(_unpacked, cv2.imencode(".png", array)[1]))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        item = self._items[index]
        return item() if callable(item) else item


def _unpacked(png: U8) -> U8:
    return np.asarray(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), np.uint8)


@dataclass(frozen=True, slots=True)
class Pictures:
    """A data set: `rgb` u8 [H, W, 3] and `labels` u8 [H, W] per picture, 255 where nothing is known; `soft`,
    where a teacher was asked, its probabilities u8 [H/4, W/4, K] (255 is certain)."""

    name: str
    share: float
    rgb: Sequence[U8] = field(repr=False)
    labels: Sequence[U8] = field(repr=False)
    soft: Sequence[U8] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rgb)

    def sample(self, index: int) -> Sample:
        return Sample(self.rgb[index], self.labels[index], self.soft[index] if self.soft else None)


@dataclass(frozen=True, slots=True)
class Batch:
    """`rgb` u8 [N, h, w, 3], `labels` u8 [N, h, w], and `soft` u8 [N, h/4, w/4, K] where any data set has it: all
    zero where the teacher said nothing."""

    rgb: U8 = field(repr=False)
    labels: U8 = field(repr=False)
    soft: U8 | None = field(default=None, repr=False)


def class_frequency(sets: Sequence[Pictures], classes: int) -> NDArray[np.float64]:
    """The share of each class, f64 [K], the data sets weighed by their `share`: of the labelled pixels, or of what the
    teacher thinks."""
    total: NDArray[np.float64] = np.zeros(classes)
    for one in sets:
        if one.soft:
            counts = sum(soft.sum((0, 1), dtype=np.float64) for soft in one.soft)
        else:
            counts = sum(np.bincount(labels.ravel(), minlength=256)[:classes] for labels in one.labels)
        total += one.share * counts / max(1, np.sum(counts))
    return np.asarray(total / max(1e-9, total.sum()))


def check(sets: Sequence[Pictures], classes: Sequence[str]) -> None:
    """Warns of classes that occur nowhere. Raises ConfigError naming a data set from which nothing can be learned: its
    loss would be nan, and so the whole network."""
    for one in sets:
        if not len(one):
            raise ConfigError(f"{one.name}: no picture has anything labelled in it")
        if not class_frequency([one], len(classes)).any():
            raise ConfigError(f"{one.name}: no pixel is of any class of the recipe ({', '.join(classes)})")
    seen = class_frequency(sets, len(classes))
    if missing := [name for name, share in zip(classes, seen, strict=True) if not share]:
        log.warning("no pixel in any data set is %s: that will not be learned", " or ".join(missing))


def check_widths(sets: Sequence[Pictures], recipe: Recipe) -> None:
    """Warns of pictures that are never seen as small as the engine will see them."""
    for one in sets:
        some = spread(range(len(one)), LOOKED_AT)
        width = int(np.median([one.rgb[i].shape[1] for i in some]))
        if width * recipe.augment.scale[0] > recipe.width:
            log.warning(
                "%s: pictures %d wide are trained on as they are, but the engine will see them at %d: say `width: %d` "
                "with the data set (or a larger `width` for the engine)",
                one.name, width, recipe.width, recipe.width,
            )  # fmt: skip


def batches(sets: Sequence[Pictures], recipe: Recipe, epoch: int, first: int, threads: int = 0) -> Iterator[Batch]:
    """The batches of `epoch` from number `first` on. Everything random hangs on (seed, epoch, place in the epoch)
    alone, so that a resumed run sees what an unbroken one would have seen. `threads` 0: as many as there are cores."""
    plan = _plan(sets, recipe, epoch)
    starts = range(first * recipe.batch, len(plan) - recipe.batch + 1, recipe.batch)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1, "augment") as pool:
        waiting: list[list[Future[Sample]]] = []
        for start in starts:
            places = range(start, start + recipe.batch)
            waiting.append([pool.submit(_one, sets, recipe, epoch, place, plan[place]) for place in places])
            if len(waiting) > AHEAD:
                yield _stack(waiting.pop(0))
        while waiting:
            yield _stack(waiting.pop(0))


def ahead(given: Iterator[Batch], change: Callable[[Batch], Batch]) -> Iterator[Batch]:
    """What `change` makes of every batch, in a thread of its own, while the network works on the one before."""
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting: list[Future[Batch]] = []
        for batch in given:
            waiting.append(pool.submit(change, batch))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


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


def _one(sets: Sequence[Pictures], recipe: Recipe, epoch: int, place: int, which: tuple[int, int]) -> Sample:
    chosen, picture = sets[which[0]], which[1]
    rng = np.random.default_rng((recipe.seed, epoch, place))
    sample = _drawn(sets, chosen, picture, recipe, rng)
    if rng.random() < recipe.augment.paste:
        if recipe.augment.paste_across:
            shares = np.array([one.share for one in sets])
            chosen = sets[int(rng.choice(len(sets), p=shares / shares.sum()))]
        second = _drawn(sets, chosen, int(rng.integers(len(chosen))), recipe, rng)
        sample = _with_objects(sample, second, _pasted(recipe))
    return sample


def _drawn(sets: Sequence[Pictures], of: Pictures, index: int, recipe: Recipe, rng: np.random.Generator) -> Sample:
    """A crop of one picture; where any set has a teacher, one without it has its silence."""
    sample = augment(of.sample(index), recipe.crop, recipe.augment, rng)
    if sample.soft is None and any(one.soft for one in sets):
        quarter = (recipe.crop[1] // 4, recipe.crop[0] // 4, len(recipe.classes))
        return Sample(sample.rgb, sample.labels, np.zeros(quarter, np.uint8))
    return sample


def _with_objects(onto: Sample, theirs: Sample, pasted: NDArray[np.bool_]) -> Sample:
    """`onto` with the objects of `theirs`; where nobody labelled them, the teacher says which pixels they are."""
    objects = pasted[theirs.labels]
    if theirs.soft is not None:
        seen = np.where(theirs.soft.any(2), theirs.soft.argmax(2), 255)
        objects |= (theirs.labels == 255) & pasted[seen].repeat(4, 0).repeat(4, 1)
    rgb = np.where(objects[..., None], theirs.rgb, onto.rgb)
    labels = np.where(objects, theirs.labels, onto.labels)
    if onto.soft is None or theirs.soft is None:
        return Sample(rgb, labels)
    return Sample(rgb, labels, np.where(objects[2::4, 2::4, None], theirs.soft, onto.soft))


def _pasted(recipe: Recipe) -> NDArray[np.bool_]:
    """Which label values are copied over, bool [256]."""
    table = np.zeros(256, bool)
    table[[i for i, c in enumerate(recipe.classes) if c.name in recipe.augment.paste_classes]] = True
    return table


def _stack(parts: list[Future[Sample]]) -> Batch:
    made = [part.result() for part in parts]
    soft = [m.soft for m in made if m.soft is not None]
    return Batch(np.stack([m.rgb for m in made]), np.stack([m.labels for m in made]), np.stack(soft) if soft else None)
