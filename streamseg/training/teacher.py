"""What larger engines think of our pictures: class probabilities, asked for once and kept in the user's cache; or again
whenever the network sees one.

The former runs in the training thread, before training, the latter in one beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from rich.progress import track

from streamseg.engine import program
from streamseg.engine.backends import CompileOptions
from streamseg.engine.bundle import Bundle, find
from streamseg.engine.cpu_program import CpuProgram
from streamseg.engine.program import ProgramSpec
from streamseg.errors import ConfigError
from streamseg.training.data import Batch, Pictures
from streamseg.training.recipe import Distill
from streamseg.types import U8, Precision

F32 = NDArray[np.float32]


class Teachers:
    """The engines of a recipe's `distill`, asked together. Not thread-safe. Raises ConfigError (no such engine,
    classes that do not fit), EngineError.

    In fp32 where the answers are kept: bf16 names one pixel in a hundred otherwise. `threads` 0: as many as cores.
    """

    def __init__(
        self, how: Distill, classes: Sequence[str], base: Path, precision: Precision = "fp32", threads: int = 0
    ) -> None:
        self._how = how
        times = Counter(how.engines).items()
        self._all = [(Teacher(_bundle(engine, base), how, classes, precision, threads), n) for engine, n in times]
        _check_asked(how, {c.name for t, _ in self._all for c in t.bundle.classes})

    def taught(self, pictures: Pictures) -> Pictures:
        """`pictures` with `soft`: the mean of what the teachers give, at a quarter of each picture's size."""
        key = hashlib.sha256(repr([(t.identity, n) for t, n in self._all]).encode())
        folder = user_cache_path("streamseg") / "teachers" / key.hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        what = f"{' + '.join(t.bundle.manifest.name for t, _ in self._all)} looks at {pictures.name}"
        return replace(pictures, soft=[self._kept(folder, rgb) for rgb in track(pictures.rgb, what)])

    def again(self, batch: Batch) -> Batch:
        """`batch` with what they think of its pictures as they are now, cut and changed, wherever they thought
        something of them before."""
        if batch.soft is None:
            return batch
        soft = [self._soft(rgb) if before.any() else before for rgb, before in zip(batch.rgb, batch.soft, strict=True)]
        return replace(batch, soft=np.stack(soft) * batch.soft.any(-1, keepdims=True))

    def _kept(self, folder: Path, rgb: U8) -> U8:
        """From the cache, a file a picture, so that nothing is lost when the run is interrupted here."""
        file = folder / f"{hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()[:32]}.npy"
        with suppress(OSError, ValueError, EOFError), file.open("rb") as kept:  # not there, or damaged
            return np.asarray(np.load(kept), np.uint8)
        soft = self._soft(rgb)
        part = file.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as opened:
            np.save(opened, soft)
        part.replace(file)
        return soft

    def _soft(self, rgb: U8) -> U8:
        chances = sum(n * teacher.chances(rgb) for teacher, n in self._all) / sum(n for _, n in self._all)
        return softened(np.asarray(chances, np.float32), self._how.temperature)


def _check_asked(how: Distill, theirs: set[str]) -> None:
    """A class need not be of every teacher, but one that is of none is a slip. Raises ConfigError."""
    for name, takes in how.classes.items():
        if takes != "rest" and (unknown := [one for one in takes if one not in theirs]):
            there = ", ".join(sorted(theirs))
            raise ConfigError(f"distill.classes: {name}: no teacher has {unknown[0]!r}; there are {there}")


def _bundle(engine: str, base: Path) -> Bundle:
    """A folder beside the recipe, or an engine by its name."""
    return find(base / engine if (base / engine / "engine.yaml").is_file() else engine)


def softened(chances: F32, temperature: float) -> U8:
    """Probabilities f32 [..., K] -> u8, 255 is certain: p^(1/T), which is the softmax of logits / T. All zero where the
    teacher mostly sees what none of the K classes stands for."""
    known = chances.sum(-1, keepdims=True) > 0.5
    softer = chances ** (1 / temperature)
    share = softer / np.maximum(softer.sum(-1, keepdims=True), 1e-9)
    return np.asarray(np.rint(255 * known * share), np.uint8)


class Teacher:
    """One engine as a teacher: its own program without smoothing, in OpenVINO. Not thread-safe."""

    def __init__(
        self, bundle: Bundle, how: Distill, classes: Sequence[str], precision: Precision = "fp32", threads: int = 0
    ) -> None:
        self.bundle, self._how, self._precision = bundle, how, precision
        self._threads = threads or os.cpu_count() or 1
        self._merge = merging(how, [c.name for c in bundle.classes], classes, bundle.manifest.name)
        entry = bundle.manifest.input
        spec = ProgramSpec(mean=entry.mean, std=entry.std, mode="off")
        self._model = program.build(program.network_of(bundle.program), spec)
        self._programs: dict[tuple[int, int], CpuProgram] = {}

    @property
    def identity(self) -> str:
        """All that its answer depends on, but the picture."""
        how = self._how
        return repr((self.bundle.digest, self._merge.tolist(), how.temperature, how.size, how.scales, how.flip))

    def chances(self, rgb: U8) -> F32:
        """Probabilities f32 [H/4, W/4, K] of our classes for a picture u8 [H, W, 3], averaged over scales and flips."""
        looks = [partial(self._whole, rgb, scale) for scale in self._how.scales]
        if self.bundle.manifest.input.fixed:
            looks = [partial(self._in_windows, rgb)]
        seen = [look(mirrored) for look in looks for mirrored in ((False, True)[: 1 + self._how.flip])]
        return np.asarray(sum(seen) / len(seen), np.float32)

    def _whole(self, rgb: U8, scale: float, mirrored: bool) -> F32:
        width, height = self._how.size or self.bundle.fit(rgb.shape[1], rgb.shape[0])
        of = self.bundle.manifest.input.multiple
        return self._seen(rgb, (_multiple(width * scale, of), _multiple(height * scale, of)), mirrored)

    def _in_windows(self, rgb: U8, mirrored: bool) -> F32:
        """A network of one fixed size looks at windows of its own aspect, as large as the picture holds, blended where
        they overlap. Person IoU of a square DeepLabV3 on a 3:2 camera: 0.87, against 0.58 with the picture squeezed
        into the square (and 0.60 with windows 1.5 times smaller)."""
        height, width = rgb.shape[0] // 4, rgb.shape[1] // 4
        entry = self.bundle.manifest.input
        fit = min(width / entry.width, height / entry.height)
        wide, high = (min(n, max(8, round(m * fit))) for n, m in ((width, entry.width), (height, entry.height)))
        weight = np.outer(_taper(high), _taper(wide))[..., None]
        total, weights = np.zeros((height, width, self._merge.shape[1]), np.float32), np.zeros((height, width, 1))
        for y, x in ((y, x) for y in _starts(height, high) for x in _starts(width, wide)):
            window = rgb[4 * y : 4 * (y + high), 4 * x : 4 * (x + wide)]
            seen = self._seen(window, self.bundle.fit(window.shape[1], window.shape[0]), mirrored)
            total[y : y + high, x : x + wide] += weight * seen
            weights[y : y + high, x : x + wide] += weight
        return np.asarray(total / weights, np.float32)

    def _seen(self, rgb: U8, view: tuple[int, int], mirrored: bool) -> F32:
        """Of our classes, f32 [H/4, W/4, K], analysed at `view` = (width, height)."""
        scaled = cv2.resize(rgb, view, interpolation=_interpolation(rgb.shape[1], view[0]))
        scores = self._program(view).scores(np.ascontiguousarray(scaled[:, ::-1] if mirrored else scaled))
        planes = [scores[theirs].sum(0) for theirs in self._merge.T > 0]
        size = (rgb.shape[1] // 4, rgb.shape[0] // 4)
        how = _interpolation(scores.shape[2], size[0])
        planes = [cv2.resize(p[:, ::-1].copy() if mirrored else p, size, interpolation=how) for p in planes]
        return np.asarray(np.stack(planes, 2), np.float32)

    def _program(self, size: tuple[int, int]) -> CpuProgram:
        from streamseg.engine.openvino_backend import OpenVinoProgram

        if size not in self._programs:
            options = CompileOptions(*size, precision=self._precision, threads=self._threads)
            self._programs[size] = OpenVinoProgram(self._model, options)
        return self._programs[size]


def merging(how: Distill, theirs: Sequence[str], ours: Sequence[str], engine: str) -> F32:
    """f32 [theirs, ours] of 0 and 1: which of our classes each of the teacher's goes to. Raises ConfigError."""
    table = np.zeros((len(theirs), len(ours)), np.float32)
    given = how.classes or {name: (name,) for name in ours}
    for name, takes in given.items():
        rows = [theirs.index(one) for one in takes if one in theirs] if takes != "rest" else []
        if takes != "rest" and not rows:
            wanted, there = ", ".join(takes), ", ".join(theirs)
            raise ConfigError(f"distill.classes: {name}: {engine} has none of {wanted}; it has {there}")
        table[rows, ours.index(name)] = 1
    for name, takes in given.items():
        if takes == "rest":
            table[table.sum(1) == 0, ours.index(name)] = 1
    return table


def _starts(extent: int, window: int) -> list[int]:
    """Where windows begin that cover `extent`, evenly, overlapping by a quarter or more."""
    count = 1 + max(0, -(-(extent - window) * 4 // (3 * window)))
    return [round(i * (extent - window) / max(1, count - 1)) for i in range(count)]


def _taper(size: int) -> NDArray[np.float64]:
    """Weights that fall towards a window's ends, over an eighth of it, so that no seam is left."""
    from_end = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    return np.minimum(1.0, from_end / max(1, size // 8))


def _interpolation(before: int, after: int) -> int:
    return cv2.INTER_AREA if after < before else cv2.INTER_LINEAR


def _multiple(value: float, of: int) -> int:
    return max(of, round(value / of) * of)
