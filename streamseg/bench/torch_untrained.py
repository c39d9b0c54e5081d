"""An engine with untrained weights: how fast an architecture is does not hang on what it has learned. No thread."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import torch

from streamseg.engine import complexity, program
from streamseg.engine.bundle import Bundle, ClassEntry, InputEntry, Manifest, write
from streamseg.errors import ConfigError
from streamseg.models import build
from streamseg.training import weights
from streamseg.training.export import export_network

SEED = 0


def write_engine(architecture: str, folder: Path, classes: int, size: tuple[int, int]) -> Bundle:
    """Writes a bundle, weights.pt too, into `folder`, which must be none yet. Raises ConfigError, EngineError."""
    if (folder / "engine.yaml").exists():
        raise ConfigError(f"{folder} is an engine already; choose a new folder")
    torch.manual_seed(SEED)
    model = build(architecture, classes).eval()
    width, height = size
    colours = [(i * 37 % 256, i * 91 % 256, i * 151 % 256) for i in range(classes)]
    entries = tuple(ClassEntry(name=f"class-{i}", colour=colour) for i, colour in enumerate(colours))
    entry = InputEntry(width=width, height=height)
    with tempfile.TemporaryDirectory() as part:
        export_network(model, Path(part) / "network.onnx")
        network = onnx.load(Path(part) / "network.onnx")
    measured = complexity.measure(network, width, height)
    manifest = Manifest(
        name=folder.name,
        description=f"untrained {architecture}, to measure its speed with",
        classes=entries,
        input=entry,
        licence="Apache-2.0",
        data="none: its weights are random numbers",
        parameters=measured.parameters,
        gmac=measured.gmac,
    )
    spec = program.ProgramSpec(mean=entry.mean, std=entry.std)
    bundle = write(folder, manifest, program.build(network, spec))
    weights.write(folder, architecture, [each.name for each in entries], model)
    return bundle
