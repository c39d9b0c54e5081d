"""The command that makes an engine's other programs: `engine build`. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from streamseg import commandline
from streamseg.commandline import Json
from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from streamseg.quantising.build import Built
    from streamseg.quantising.labelled import Labelled
    from streamseg.types import SmoothingMode


def build_engine(
    name: Annotated[str, typer.Argument(help="An engine's name or folder.")],
    precision: Annotated[
        str | None,
        typer.Option(help="cpu: int8. tensorrt: fp16, int8, fp32, or auto, which makes both that there are."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="cpu: one file for OpenVINO and ONNX Runtime; tensorrt: a plan for the GPU that is here."),
    ] = "cpu",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Pictures as your cameras see them: a folder, a labelled folder, or a clip [default: the train and "
            "val pictures beside those that are measured on, else the synthetic street].",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A folder with SPLIT/ and SPLITannot/ to measure on [default: what its recipe reports on]."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of --data.")] = "test",
    pictures: Annotated[int, typer.Option(min=1, help="At most so many are calibrated on.")] = 64,
    max_loss: Annotated[
        float, typer.Option(min=0, max=100, help="The mIoU points that `precision: auto` may give away.")
    ] = 1.0,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="tensorrt: frames that are analysed at once.")] = 32,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="tensorrt: [default: the engine's own].")] = None,
    smoothing: Annotated[
        str | None, typer.Option(metavar="MODE[:STRENGTH]", help="tensorrt: as you run it [default: the engine's own].")
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="tensorrt: a plan with fewer labels as in fp32, in percent, is not kept."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="tensorrt: build it though it is there, or was refused.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make model-int8.onnx of an engine, and measure what it loses and what it gains; or a TensorRT plan.

    An engine with it runs it with `engine.precision: int8`; with `auto`, where the measured loss is within --max-loss
    and int8 is faster on the machine at hand.

    \b
        streamseg engine build street-edge --precision int8 --data ../shared/data/camvid
        streamseg engine build gate --precision int8 --calibrate gate.mp4
        streamseg engine build street-edge --backend tensorrt --precision auto --max-batch 32
    """
    if backend == "tensorrt":
        return _plans(name, precision or "auto", size, smoothing, max_batch, min_agreement, again, as_json)
    if backend != "cpu":
        raise ConfigError(f"--backend {backend!r}: there are cpu and tensorrt")
    if precision not in (None, "int8"):
        raise ConfigError(
            f"--precision {precision!r}: int8 is what can be built; the others run from model.onnx as it is"
        )
    from streamseg.engine.bundle import find
    from streamseg.quantising import build, labelled

    bundle = find(name)
    measured = labelled.of_folder(data, split) if data else labelled.of_recipe(bundle)
    built = build.run(build.Request(bundle, calibrate or _untested(measured), measured, pictures, max_loss))
    if as_json:
        return print(json.dumps(built.report()))
    return print("\n".join(_lines(built)))


def _plans(
    name: str,
    precision: str,
    size: str | None,
    smoothing: str | None,
    max_batch: int,
    min_agreement: float | None,
    again: bool,
    as_json: bool,
) -> None:
    if precision not in ("auto", "fp32", "fp16", "int8"):
        raise ConfigError(f"--precision {precision!r}: TensorRT plans are made in auto, fp32, fp16 and int8")
    wanted = commandline.size_of(size) if size else None
    mode, strength = _smoothing(smoothing)
    from streamseg.engine import tensorrt_order as plans
    from streamseg.engine.backends import choose
    from streamseg.engine.bundle import find
    from streamseg.engine.engine import spec_of

    bundle = find(name)
    choose("tensorrt")  # says what to install
    order = plans.Order(
        bundle=bundle,
        spec=spec_of(bundle, mode, strength),
        precision=cast("Literal['auto', 'fp32', 'fp16', 'int8']", precision),
        size=wanted,
        max_batch=max_batch,
        bound=None if min_agreement is None else min_agreement / 100,
        again=again,
    )
    built = plans.run(order, lambda line: print(line, file=sys.stderr))
    if as_json:
        return print(json.dumps([each.report() for each in built]))
    return commandline.table([each.row() for each in built])


def _smoothing(text: str | None) -> tuple[SmoothingMode | None, float | None]:
    mode, _, strength = (text or "").partition(":")
    try:
        value = float(strength) if strength else None
    except ValueError:
        value = -1.0
    if mode not in ("", "off", "average", "adaptive") or not (value is None or 0 <= value <= 1):
        raise ConfigError(f"--smoothing {text!r}: off, average or adaptive, and a strength of 0..1, as in average:0.2")
    return cast("SmoothingMode", mode) if mode else None, value


def _untested(measured: Labelled | None) -> Path | None:
    """The labelled folder, where it has other pictures than those that are measured on."""
    folder = measured.folder if measured else None
    return folder if folder and any((folder / name).is_dir() for name in ("train", "val")) else None


def _lines(built: Built) -> list[str]:
    entry = built.entry
    small, large = built.bytes["model-int8.onnx"], built.bytes["model.onnx"]
    lines = [
        f"calibrated: {entry.calibrated}",
        f"int8:       {built.quantised} of {built.convolutions} convolutions; {small:,} bytes, as floats {large:,}",
        f"labels:     {100 * entry.agreement:.2f} % as in fp32",
    ]
    if built.float_inputs:
        names = ", ".join(built.float_inputs)
        lines.insert(2, f"float:      {names} (OpenVINO computes these otherwise than ONNX says)")
    if entry.loss is not None:
        exact, less = (100 * built.accuracy[p] for p in ("fp32", "int8"))
        lines.append(f"mIoU:       {less:.2f} on {entry.data}, fp32 {exact:.2f}: {entry.loss:+.2f} points lost")
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in built.ms.items())
    lines.append(f"time:       {times} a picture on one thread ({built.backend}; in turns)")
    lines += [f"warning:    {warning}" for warning in built.warnings]
    return [*lines, f"{built.bundle.int8_identity} written to {built.bundle.path}"]
