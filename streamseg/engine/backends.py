"""What a backend is, and which there are. A backend only executes programs; heavy imports stay inside each one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.errors import BackendUnavailable
from streamseg.types import U8, MakeLabels

BackendName = Literal["openvino", "onnxruntime", "torch"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
State = Any
"""A stream's temporal state, opaque: made by `new_state`, given back to `run`, never touched by others."""


class Program(Protocol):
    """A compiled program for one picture size. Not thread-safe: one thread runs it."""

    max_batch: int

    def new_state(self) -> State: ...

    def run(self, frames: Sequence[U8], states: Sequence[State], elapsed_s: Sequence[float]) -> list[MakeLabels]:
        """`frames` u8 [H, W, 3] each -> what makes labels u8 [H, W] of each; `states` are updated in place."""
        ...


@runtime_checkable
class ScoringProgram(Protocol):
    """A program that also gives what labels are made of; tiles are blended there."""

    def run_scores(
        self, frames: Sequence[U8], states: Sequence[State], elapsed_s: Sequence[float]
    ) -> list[NDArray[np.float32]]:
        """As `run`, but the smoothed class probabilities f32 [K, h, w] of each frame, at the network's output size."""
        ...


@dataclass(frozen=True, slots=True)
class CompileOptions:
    width: int
    height: int
    precision: Precision
    threads: int
    max_batch: int = 32
    """Of backends that batch."""


Compile = Callable[[onnx.ModelProto, CompileOptions], Program]


def _openvino(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.openvino_backend import OpenVinoProgram

    return OpenVinoProgram(model, options)


def _onnxruntime(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.onnxruntime_backend import OnnxRuntimeProgram

    return OnnxRuntimeProgram(model, options)


def _torch(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.torch_backend import torch_program

    return torch_program(model, options)


# In the order in which `auto` prefers them on a CPU: measured, OpenVINO is 2-8 times faster than torch.
BACKENDS: dict[str, tuple[str, Compile]] = {
    "openvino": ("openvino", _openvino),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "torch": ("torch", _torch),
}


def choose(name: str) -> tuple[str, Compile]:
    """(name, compile) of a backend; "auto" takes the first whose package is installed."""
    installed = [n for n, (package, _) in BACKENDS.items() if find_spec(package) is not None]
    if name == "auto":
        if not installed:
            raise BackendUnavailable("no inference backend is installed; pip install openvino")
        return installed[0], BACKENDS[installed[0]][1]
    if name not in BACKENDS:
        raise BackendUnavailable(f"no backend {name!r}; choose auto, {', '.join(BACKENDS)}")
    if name not in installed:
        raise BackendUnavailable(f"backend {name!r} needs a package that is not here; pip install 'streamseg[{name}]'")
    return name, BACKENDS[name][1]
