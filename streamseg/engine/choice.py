"""Which of a bundle's programs an engine runs: model.onnx, or model-int8.onnx where that is good enough and faster on
this machine. In the thread that makes the engine.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from streamseg.engine import program
from streamseg.engine.backends import BACKENDS, Compile, CompileOptions
from streamseg.engine.bundle import Bundle
from streamseg.engine.machine import cpu, keep, kept_at
from streamseg.engine.program import ProgramSpec
from streamseg.errors import BackendUnavailable
from streamseg.types import Precision

READS_INT8 = ("openvino", "onnxruntime", "tensorrt")
COMPARED = ("openvino", "onnxruntime")
"""Where `auto` weighs int8 against float; a plan for a GPU, minutes to build, is fp16 unless int8 is asked for."""
FASTER = 0.95
"""Of the float program's time int8 must need less than this: below, noise would decide, and the exact one is better."""
WARM_UPS, RUNS = 3, 15


@dataclass(frozen=True, slots=True)
class Chosen:
    """`model` is the program for the engine's spec, `identity` the name and digest of the file that it came from."""

    model: onnx.ModelProto
    identity: str
    precision: Precision


def choose_program(
    bundle: Bundle, spec: ProgramSpec, backend: str, compiler: Compile, options: CompileOptions
) -> Chosen:
    """`options` has the precision that is asked for, and the size at which int8 has to be faster for `auto`.

    Raises EngineError where int8 is asked for and there is none, BackendUnavailable where the backend has none.
    """
    if options.precision == "int8":
        if backend not in READS_INT8:
            raise BackendUnavailable(
                f"backend {backend!r} does not run int8; choose {', '.join(READS_INT8)}, or another precision"
            )
        return int8(bundle, spec)
    exact = Chosen(program.build(program.network_of(bundle.program), spec), bundle.identity, options.precision)
    entry = bundle.manifest.int8
    if options.precision != "auto" or backend not in COMPARED or entry is None or not entry.within or bundle.int8_fault:
        return exact
    small = int8(bundle, spec)
    return small if _pays(bundle, backend, compiler, options) else exact


def int8(bundle: Bundle, spec: ProgramSpec) -> Chosen:
    """The tail that `spec` asks for, on the int8 network. Raises EngineError."""
    return Chosen(program.build(program.network_of(bundle.int8_program), spec), bundle.int8_identity, "int8")


def milliseconds(models: Mapping[str, tuple[onnx.ModelProto, CompileOptions]], compiler: Compile) -> dict[str, float]:
    """Medians of one picture's time without its labels. They take turns, so that a busy moment hits all alike."""
    programs = {name: compiler(*given) for name, given in models.items()}
    rng = np.random.default_rng(0)
    lanes = {}
    for name, (_, options) in models.items():
        picture = rng.integers(0, 256, (options.height, options.width, 3), np.uint8)
        lanes[name] = (programs[name], [picture], [programs[name].new_state()])
    spent: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(WARM_UPS + RUNS):
        for name, (compiled, pictures, states) in lanes.items():
            begin = time.perf_counter()
            compiled.run(pictures, states, [0.04])
            spent[name].append(time.perf_counter() - begin)
    return {name: round(1000 * statistics.median(times[WARM_UPS:]), 3) for name, times in spent.items()}


def _pays(bundle: Bundle, backend: str, compiler: Compile, options: CompileOptions) -> bool:
    """Measured at first use (a second), and kept. Always of the bare network on one thread: whoever runs the bundle on
    this machine, smoothed or not, in the daemon or in `eval` with all cores, runs the same file."""
    options = replace(options, threads=1)
    file = _file(bundle, repr((backend, options)))
    try:
        kept = json.loads(file.read_text())
        return bool(kept["int8"] < FASTER * kept["float"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    entry = bundle.manifest.input
    bare = ProgramSpec(entry.mean, entry.std, "off", 0.0, size=bundle.whole)
    exact = program.build(program.network_of(bundle.program), bare)
    pair = {"float": (exact, options), "int8": (int8(bundle, bare).model, replace(options, precision="int8"))}
    ms = milliseconds(pair, compiler)
    keep(file, {**ms, "cpu": cpu(), "engines": [bundle.identity, bundle.int8_identity]})
    return ms["int8"] < FASTER * ms["float"]


def _file(bundle: Bundle, settings: str) -> Path:
    """Named by all that decides: the two models, the settings, this CPU, the backends' versions."""
    versions = {name: version(package) for name, (package, _) in BACKENDS.items() if find_spec(package)}
    return kept_at("int8", [bundle.identity, bundle.int8_identity, settings, versions, cpu()])
