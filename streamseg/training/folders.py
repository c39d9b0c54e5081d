"""Labelled folders: which label belongs to which picture, and what its pixels say. Runs in the training thread."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamseg.errors import ConfigError
from streamseg.evaluation.labels import label_values
from streamseg.evaluation.pictures import listed, read_rgb
from streamseg.training.classmap import ClassMap
from streamseg.training.styles import Layout, Value
from streamseg.types import U8

log = logging.getLogger("streamseg")


def pairs(root: Path, split: str, layouts: Sequence[Layout]) -> list[tuple[Path, Path]]:
    """(picture, its labels) of a split, by name, in the first of `layouts` that is there. Raises ConfigError."""
    looked: list[Path] = []
    for layout in layouts:
        top, pattern = _pattern(layout.images.replace("{split}", split))
        labels = root / layout.labels.replace("{split}", split)
        looked.append(root / top)
        if len(layouts) > 1 and not labels.is_dir():
            continue
        pictures = [p for p in listed(root / top, pattern) if labels not in p.parents or labels == root / top]
        ours = [p for p in pictures if p.stem.endswith(layout.suffix[0])]
        if layout.names and ours:
            ours = _listed(ours, root / layout.names.replace("{split}", split), layout.suffix[0])
        found = [(p, labels / p.relative_to(root / top).parent / _label(p.stem, layout.suffix)) for p in ours]
        truths = {truth for _, truth in found}
        if found := [pair for pair in found if pair[0] not in truths]:  # labels may lie beside their pictures
            return found
    where = " or ".join(str(path) for path in looked)
    raise ConfigError(f"no labelled pictures in {where}; say where they are with --data or `root` in the recipe")


def read(
    picture: Path, truth: Path, classes: ClassMap | None, unknown: Counter[Value], names: Sequence[str]
) -> tuple[U8, U8]:
    """(rgb u8 [H, W, 3], labels u8 [H, W]); without a map the labels stay as they are, and mean `names`. Values that
    mean nothing are added to `unknown`. Raises ConfigError naming the file."""
    rgb = read_rgb(picture)
    values = label_values(truth, indices=classes is None or classes.wants_indices)
    coloured = classes is None and values.ndim != 2
    high, wide = values.shape[:2]
    if coloured or (high, wide) != rgb.shape[:2]:
        raise ConfigError(
            f"{truth} must hold one class id a pixel, {rgb.shape[1]}x{rgb.shape[0]} as its picture; it "
            + ("holds colours: say in `class_map` what they mean" if coloured else f"is {wide}x{high}")
        )
    if classes is None:
        found, counts = np.unique(values[(values >= len(names)) & (values != 255)], return_counts=True)
        unknown.update({int(value): int(count) for value, count in zip(found, counts, strict=True)})
        return rgb, np.minimum(values, 255).astype(np.uint8)
    try:
        labels, strange = classes.apply(values)
    except ConfigError as error:
        raise ConfigError(f"{truth} {error}") from None
    unknown.update(strange)
    return rgb, labels


def report(name: str, unknown: Counter[Value], said: str, pixels: int) -> None:
    """Says once for a data set which values its class map, or the number of its classes, left out."""
    if unknown:
        worst = ", ".join(f"{value} ({count} pixels)" for value, count in unknown.most_common(8))
        share = unknown.total() / max(1, pixels)
        log.warning(
            "%s: %.3g %% of the pixels are ignored, as the %s not name their values: %s%s",
            name, 100 * share, said, worst, ", ..." if len(unknown) > 8 else "",
        )  # fmt: skip


def _pattern(images: str) -> tuple[Path, str]:
    """ "a/b" -> (a/b, all files in it and below); "a/*/c_*.png" -> (a, "*/c_*.png")."""
    parts = Path(images).parts
    first = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    return (Path(images), "**/*") if first is None else (Path(*parts[:first]), "/".join(parts[first:]))


def _label(stem: str, suffix: tuple[str, str]) -> str:
    return f"{stem.removesuffix(suffix[0])}{suffix[1].removesuffix('.png')}.png"


def _listed(pictures: Sequence[Path], names: Path, suffix: str) -> list[Path]:
    """Those that a text file lists, by file name without ending. Raises ConfigError where there is none: to take all
    would train on those that are kept for measuring."""
    if not names.is_file():
        raise ConfigError(f"{names}, which lists the split's pictures, is missing")
    lines = (line.split() for line in names.read_text(encoding="utf-8-sig").splitlines())
    wanted = {Path(words[0]).name for words in lines if words}
    return [p for p in pictures if {p.name, p.stem, p.stem.removesuffix(suffix)} & wanted]
