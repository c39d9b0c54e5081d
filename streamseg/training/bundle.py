"""From a finished training run to an engine bundle: the program around the network, its manifest, its accuracy."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx

from streamseg.config import validated
from streamseg.engine import complexity, program
from streamseg.engine.bundle import Bundle, InputEntry, Manifest, write
from streamseg.errors import ConfigError, EngineError
from streamseg.evaluation import evaluate
from streamseg.training import weights
from streamseg.training.data import Pictures
from streamseg.training.datasets import load
from streamseg.training.loop import Trained


def claim(folder: Path, name: str) -> None:
    """Makes sure, before hours of training, that engine `name` can be written to `folder`. Raises ConfigError where
    that is impossible, or another engine is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"no engine can be written to {folder}: {error.strerror}; give another --out") from None
    with contextlib.suppress(EngineError):  # none is there, or one so damaged that it is no loss
        there = Bundle.open(folder).manifest.name
        if there != name:
            raise ConfigError(f"{folder} holds the engine {there!r}, which {name!r} would replace; give another --out")


def write_bundle(trained: Trained, folder: Path, data_root: Path | None, base: Path) -> Bundle:
    """Writes `folder`/engine.yaml, model.onnx and weights.pt (what another recipe's `init` reads),
    and curve.png.

    The accuracy in it is what `streamseg eval` measures of the bundle.
    `data_root` and `base` find the recipe's report pictures, as in training. Raises EngineError.
    """
    recipe = trained.recipe
    entry = InputEntry(width=recipe.width, height=recipe.height, mean=recipe.mean, std=recipe.std)
    network = onnx.load(trained.network)
    measured = complexity.measure(network, recipe.width, recipe.height)
    manifest = Manifest(
        name=recipe.name,
        description=recipe.description,
        classes=recipe.classes,
        input=entry,
        licence=recipe.licence,
        data=recipe.data,
        parameters=measured.parameters,
        gmac=measured.gmac,
    )
    moves = tuple(i for i, c in enumerate(recipe.classes) if c.moves)
    spec = program.ProgramSpec(mean=recipe.mean, std=recipe.std, moves=moves)
    bundle = write(folder, manifest, program.build(network, spec))
    weights.write(folder, recipe.architecture, recipe.names, trained.model)
    if trained.curves.exists():
        shutil.copyfile(trained.curves, folder / "curve.png")
    if recipe.report is None:
        return bundle
    accuracy = _measured(folder, load(recipe.report, recipe.names, data_root, base), mapped=recipe.report.maps)
    return write(folder, manifest.model_copy(update={"accuracy": accuracy}), bundle.program)


def _measured(folder: Path, pictures: Pictures, *, mapped: bool) -> dict[str, Any]:
    """What `streamseg eval` gives; of labels whose classes were mapped, some of ours may occur nowhere."""
    config = validated({"streams": [{"source": "synthetic://street"}], "engine": {"name": str(folder)}})
    measured = evaluate.of_pictures(config, zip(pictures.rgb, pictures.labels, strict=True))
    return {
        "data": pictures.name.replace("/", " ") + (", its classes mapped" if mapped else ""),
        "pictures": measured["pictures"],
        "miou": measured["miou_present" if mapped else "miou"],
        "pixel_accuracy": measured["pixel_accuracy"],
        "iou": measured["iou"],
    }
