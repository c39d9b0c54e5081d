"""The labelled pictures that the loss by int8 is measured on. The caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from streamseg.engine.bundle import Bundle
from streamseg.errors import ConfigError
from streamseg.evaluation import evaluate
from streamseg.evaluation.pictures import listed
from streamseg.types import U8


@dataclass(frozen=True, slots=True)
class Labelled:
    """`pictures()` gives (rgb u8 [H, W, 3], its label map u8 [H, W]) anew each time. `mapped`: the labels were others,
    so that some classes of the engine may occur nowhere."""

    name: str
    count: int
    pictures: Callable[[], Iterable[tuple[U8, U8]]]
    folder: Path | None = None
    mapped: bool = False


def of_folder(folder: Path, split: str) -> Labelled:
    """SPLIT/ and SPLITannot/ of a folder. Raises ConfigError."""
    if not folder.is_dir():
        raise ConfigError(f"--data {folder}: no such folder; give one with {split}/ and {split}annot/")
    next(evaluate.labelled(folder, split))  # what lacks is told now
    count = len(listed(folder / split))
    return Labelled(f"{folder.name} {split}", count, lambda: evaluate.labelled(folder, split), folder)


def of_recipe(bundle: Bundle) -> Labelled | None:
    """What the bundle's recipe reports on, its classes mapped; None where there is no such recipe, where its pictures
    are not here, or where training is not installed."""
    recipe_file = bundle.path / "recipe.yaml"
    if not recipe_file.is_file():
        return None
    try:
        from streamseg.training.datasets import load
        from streamseg.training.recipe import read_recipe
    except ModuleNotFoundError:
        return None
    try:
        recipe = read_recipe(recipe_file)
        if recipe.report is None or list(recipe.names) != [c.name for c in bundle.classes]:
            return None
        found = load(recipe.report, recipe.names, None, bundle.path.resolve())
    except ConfigError:
        return None
    mapped = ", its classes mapped" if recipe.report.maps else ""
    folder = bundle.path.resolve() / recipe.report.root.expanduser() if recipe.report.kind == "folders" else None
    name = found.name.replace("/", " ") + mapped
    return Labelled(name, len(found), lambda: zip(found.rgb, found.labels, strict=True), folder, bool(mapped))
