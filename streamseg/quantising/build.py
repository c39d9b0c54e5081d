"""`engine build --precision int8`: quantises a bundle's network, measures what that costs, and keeps it. One thread."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from rich.console import Console
from rich.progress import Progress

from streamseg.config import validated
from streamseg.engine import program
from streamseg.engine.backends import CompileOptions, choose
from streamseg.engine.bundle import FLOAT, INT8, Bundle, Int8Entry, write_int8
from streamseg.engine.choice import milliseconds
from streamseg.engine.engine import Engine
from streamseg.engine.program import ProgramSpec
from streamseg.errors import ConfigError, EngineError
from streamseg.evaluation import evaluate
from streamseg.quantising import calibration, qdq
from streamseg.quantising.calibration import Pictures
from streamseg.quantising.labelled import Labelled
from streamseg.types import U8, Precision

COMPARED = 16
"""Calibration pictures whose labels are compared, where nothing labelled is given."""


@dataclass(frozen=True, slots=True)
class Request:
    """`calibrate`: pictures or a clip; None draws the street. `labelled`: where the loss is measured, if anywhere."""

    bundle: Bundle
    calibrate: Path | None = None
    labelled: Labelled | None = None
    pictures: int = 64
    max_loss: float = 1.0


@dataclass(frozen=True, slots=True)
class Built:
    """`quantised` of `convolutions` compute in int8; `float_inputs` names the tensors that backends read differently,
    whose convolutions have int8 weights only. `ms`: one picture on one thread by precision, in turns, smoothing
    included, labels not."""

    bundle: Bundle
    entry: Int8Entry
    accuracy: dict[str, float]
    convolutions: int
    quantised: int
    float_inputs: tuple[str, ...]
    bytes: dict[str, int]
    ms: dict[str, float]
    backend: str
    warnings: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        return {
            "engine": self.bundle.int8_identity,
            "path": str(self.bundle.path / INT8),
            **self.entry.model_dump(mode="json"),
            "within": self.entry.within,
            "accuracy": self.accuracy,
            "convolutions": self.convolutions,
            "quantised": self.quantised,
            "float_inputs": list(self.float_inputs),
            "bytes": self.bytes,
            "ms": self.ms,
            "backend": self.backend,
            "warnings": list(self.warnings),
        }


def run(request: Request) -> Built:
    """Writes model-int8.onnx and what was measured of it into the bundle, or nothing.

    Raises ConfigError, SourceError, EngineError.
    """
    bundle = request.bundle
    backend = _ready(bundle)
    with _bars() as bars:
        network = program.network_of(bundle.program)
        pictures = calibration.read(bundle, request.calibrate, request.pictures)
        model, left = _quantised(bundle, network, pictures, bars)
        spec = _spec(bundle)
        whole = program.build(model, spec)
        with tempfile.TemporaryDirectory(prefix="streamseg-int8-") as folder:
            trial = _trial(bundle, whole, Path(folder))
            agreement = _agreement(trial, backend, pictures.rgb[:COMPARED], bars)
            accuracy, doubt = _accuracy(trial, backend, request.labelled, bars)
            ms = _timed(trial, backend, pictures.size)
    loss = round(100 * (accuracy["fp32"] - accuracy["int8"]), 2) if accuracy else None
    entry = Int8Entry(
        of=bundle.digest,
        loss=loss,
        agreement=round(agreement, 4),
        max_loss=request.max_loss,
        calibrated=f"{pictures.name}, {len(pictures.rgb)} pictures",
        data=request.labelled.name if request.labelled else pictures.name,
    )
    built = write_int8(bundle, whole, entry)
    nodes = qdq.convolutions(network)
    return Built(
        bundle=built,
        entry=entry,
        accuracy=accuracy,
        convolutions=sum(node.op_type == "Conv" for node in network.graph.node),
        quantised=sum(node.input[0] not in left for node in nodes),
        float_inputs=tuple(left),
        bytes={name: (built.path / name).stat().st_size for name in (FLOAT, INT8)},
        ms=ms,
        backend=backend,
        warnings=(*_warnings(pictures, entry), *doubt),
    )


def _ready(bundle: Bundle) -> str:
    """The CPU backend to measure on; faults that would show only after all the work are told now."""
    try:
        import onnxruntime.quantization  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"int8 needs {error.name}; pip install 'streamseg[onnxruntime]'") from None
    if not os.access(bundle.path, os.W_OK):
        raise ConfigError(f"{bundle.path} cannot be written to: copy the engine to ./engines, and build it there")
    return "openvino" if find_spec("openvino") else "onnxruntime"


def _spec(bundle: Bundle) -> ProgramSpec:
    """What model.onnx is shipped with: the file alone does what the engine does by itself."""
    entry, smoothing = bundle.manifest.input, bundle.manifest.smoothing
    given = {} if smoothing.strength is None else {"strength": smoothing.strength}
    return ProgramSpec(entry.mean, entry.std, smoothing.mode, moves=bundle.moving, size=bundle.whole, **given)


def _quantised(
    bundle: Bundle, network: onnx.ModelProto, pictures: Pictures, bars: Progress
) -> tuple[onnx.ModelProto, list[str]]:
    """The int8 network, and the tensors that stay float."""
    tensors = qdq.inputs_of(qdq.convolutions(network))
    if not tensors:
        raise EngineError("the network has no convolution that could be quantised: the first and the last stay float")
    images = (calibration.normalised(bundle, rgb) for rgb in bars.track(pictures.rgb, description="calibrating"))
    ranges = calibration.ranges(network, tensors, images)
    first = calibration.normalised(bundle, pictures.rgb[0])
    model = qdq.quantised(network, ranges, first)
    left = qdq.misread(model, tensors, first, lambda names: bars.track(names, description="comparing backends"))
    if len(left) == len(tensors):
        raise EngineError("OpenVINO computes none of this network's int8 convolutions as ONNX says; nothing is gained")
    return qdq.without(model, left), left


def _trial(bundle: Bundle, whole: onnx.ModelProto, folder: Path) -> Bundle:
    """A copy of the bundle with the new program, to measure it as the daemon would run it."""
    shutil.copyfile(bundle.path / FLOAT, folder / FLOAT)
    shutil.copyfile(bundle.path / "engine.yaml", folder / "engine.yaml")
    return write_int8(Bundle.open(folder), whole, Int8Entry(of=bundle.digest, agreement=0))


def _agreement(trial: Bundle, backend: str, pictures: Sequence[U8], bars: Progress) -> float:
    """Of the labels of both programs, without smoothing."""
    size = pictures[0].shape[1], pictures[0].shape[0]
    both: tuple[Precision, Precision] = ("fp32", "int8")
    exact, small = (Engine(trial, backend=backend, precision=p, smoothing="off", size=size).program(size) for p in both)
    shares = []
    for rgb in bars.track(pictures, description="comparing labels"):
        (one,), (other,) = (each.run([rgb], [each.new_state()], [-1.0]) for each in (exact, small))
        shares.append(float((one() == other()).mean()))
    return float(np.mean(shares))


def _accuracy(
    trial: Bundle, backend: str, labelled: Labelled | None, bars: Progress
) -> tuple[dict[str, float], list[str]]:
    """mIoU (0..1) by precision, empty where there is nothing labelled; and what makes it doubtful."""
    found: dict[str, float] = {}
    doubt: list[str] = []
    for precision in ("fp32", "int8") if labelled else ():
        assert labelled is not None
        engine = {"name": str(trial.path), "backend": backend, "precision": precision}
        config = validated({"streams": [{"source": "synthetic://street"}], "engine": engine})
        pictures = bars.track(labelled.pictures(), labelled.count, description=f"measuring {precision}")
        report = evaluate.of_pictures(config, pictures)
        miou = report["miou_present" if labelled.mapped else "miou"]
        if miou is None:
            raise ConfigError(f"{labelled.name}: no pixel has a label of this engine's classes")
        found[precision] = miou
        doubt = [report["doubt"]] if "doubt" in report else []
    return found, doubt


def _timed(trial: Bundle, backend: str, size: tuple[int, int]) -> dict[str, float]:
    spec = _spec(trial)
    exact = program.build(program.network_of(trial.program), spec)
    small = program.build(program.network_of(trial.int8_program), spec)
    models = {"fp32": exact, "bf16": exact, "int8": small}
    if backend == "onnxruntime":
        del models["bf16"]  # which it has not on CPUs
    given = {name: (model, CompileOptions(*size, cast(Precision, name), threads=1)) for name, model in models.items()}
    return milliseconds(given, choose(backend)[1])


def _warnings(pictures: Pictures, entry: Int8Entry) -> Iterator[str]:
    if not pictures.real:
        yield "calibrated on drawn streets: give pictures of your cameras with --calibrate"
    if entry.loss is None:
        yield "no labelled pictures were given (--data): `precision: auto` will not pick int8, as its loss is not known"
    elif not entry.within:
        yield (
            f"{entry.loss} points of mIoU are lost, more than the bound of {entry.max_loss}: "
            "`precision: auto` will not pick int8"
        )


def _bars() -> Progress:
    """On stderr, for as long as the work takes; none where there is no terminal."""
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
