"""From a finished training run to an engine bundle: the program around the network, its manifest, its accuracy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from streamseg.config import validated
from streamseg.engine import program
from streamseg.engine.bundle import Bundle, ClassEntry, InputEntry, Manifest, write
from streamseg.evaluation import evaluate
from streamseg.evaluation.scoring import rounded
from streamseg.training import weights
from streamseg.training.kinds import Folders
from streamseg.training.loop import Trained


def write_bundle(trained: Trained, folder: Path, data_root: Path | None, base: Path) -> Bundle:
    """Writes `folder`/engine.yaml, model.onnx and weights.pt (what another recipe's `init` reads),
    and curve.png.

    The accuracy in it is what `streamseg eval` measures of the bundle.
    `data_root` and `base` find the recipe's report pictures, as in training. Raises EngineError.
    """
    recipe = trained.recipe
    entry = InputEntry(width=recipe.width, height=recipe.height, mean=recipe.mean, std=recipe.std)
    manifest = Manifest(
        name=recipe.name,
        description=recipe.description,
        classes=tuple(ClassEntry(name=c.name, colour=c.colour, draw=c.draw) for c in recipe.classes),
        input=entry,
        licence=recipe.licence,
        data=recipe.data,
        parameters=sum(p.numel() for p in _deployed(trained.model)),
        gmac=round(multiply_accumulates(trained.model, recipe.width, recipe.height) / 1e9, 3),
    )
    spec = program.ProgramSpec(mean=recipe.mean, std=recipe.std)
    bundle = write(folder, manifest, program.build(onnx.load(trained.network), spec))
    weights.write(folder, recipe.architecture, recipe.names, trained.model)
    if trained.curves.exists():
        shutil.copyfile(trained.curves, folder / "curve.png")
    if recipe.report is None:
        return bundle
    if recipe.report.maps:  # `streamseg eval` compares an engine with labels of its own classes only
        return write(folder, manifest.model_copy(update={"accuracy": _seen(trained, recipe.report)}), bundle.program)
    accuracy = _measured(folder, recipe.report, data_root, base)
    return write(folder, manifest.model_copy(update={"accuracy": accuracy}), bundle.program)


def multiply_accumulates(model: nn.Module, width: int, height: int) -> int:
    """Of all convolutions that run in eval mode for one picture."""
    total = 0

    def count(layer: Any, _: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return total


def _deployed(model: nn.Module) -> list[nn.Parameter]:
    """The weights that inference needs: auxiliary heads are for training only."""
    return [p for name, p in model.named_parameters() if not name.startswith("aux")]


def _seen(trained: Trained, report: Folders) -> dict[str, Any]:
    """What the training's own last look at mapped labels gave."""
    assert trained.report is not None
    iou = {c.name: rounded(v) for c, v in zip(trained.recipe.classes, trained.report.iou(), strict=True)}
    return {
        "data": f"{report.root.name} {'+'.join(report.splits)}, its classes mapped",
        "miou": rounded(trained.report.miou_present()),
        "pixel_accuracy": rounded(trained.report.pixel_accuracy()),
        "iou": iou,
    }


def _measured(folder: Path, report: Folders, data_root: Path | None, base: Path) -> dict[str, Any]:
    root = data_root or (base / report.root)
    split = report.splits[0]
    config = validated({"streams": [{"source": "synthetic://street"}], "engine": {"name": str(folder)}})
    measured = evaluate.run(config, root, split)
    return {
        "data": f"{root.name} {split}",
        "pictures": measured["pictures"],
        "miou": measured["miou"],
        "pixel_accuracy": measured["pixel_accuracy"],
        "iou": measured["iou"],
    }
