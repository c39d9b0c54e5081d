"""What a backend is, and which there are. A backend only executes programs; heavy imports stay inside each one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.engine import machine
from streamseg.errors import BackendUnavailable
from streamseg.types import U8, MakeLabels, Precision

State = Any
"""A stream's temporal state, opaque: made by `new_state`, given back to `run`, never touched by others."""


class Program(Protocol):
    """A compiled program for one picture size. Not thread-safe: one thread runs it."""

    max_batch: int
    where: str
    """The device on which it takes pictures that lie there (`nvidia.surface.Resident`) too, such as cuda:0; or "". """

    def new_state(self, values: NDArray[np.float32] | None = None) -> State:
        """`values` f32 [S, h, w]: what another program has left behind, to go on from; None: no past."""
        ...

    def values(self, state: State) -> NDArray[np.float32] | None:
        """A copy of what `state` holds, the same on every backend; None where it holds nothing yet."""
        ...

    def run(self, frames: Sequence[U8], states: Sequence[State], elapsed_s: Sequence[float]) -> list[MakeLabels]:
        """`frames` u8 [H, W, 3] each -> what makes labels u8 [H, W] of each; `states` are updated in place."""
        ...

    def run_scores(
        self, frames: Sequence[U8], states: Sequence[State], elapsed_s: Sequence[float]
    ) -> list[NDArray[np.float32]]:
        """As `run`, but the smoothed class probabilities f32 [K, h, w] of each frame, at the network's output size:
        tiles are blended there."""
        ...


@dataclass(frozen=True, slots=True)
class CompileOptions:
    width: int
    height: int
    precision: Precision
    threads: int
    max_batch: int = 32
    """Of backends that batch."""
    gpu: int = 0
    """Index of the one that backends of a GPU run on."""


Compile = Callable[[onnx.ModelProto, CompileOptions], Program]


class Slow(Protocol):
    """What must be prepared, for minutes, before it compiles in a moment."""

    def ready(self, model: onnx.ModelProto, options: CompileOptions) -> bool: ...

    def prepare(self, model: onnx.ModelProto, options: CompileOptions, stop: threading.Event) -> None:
        """Ends soon after `stop` is set, with an EngineError. Any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Rung:
    """One backend of those that may serve."""

    name: str
    compile: Compile
    slow: Slow | None = None


def _openvino(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.openvino_backend import OpenVinoProgram

    _no_half("openvino", options)
    return OpenVinoProgram(model, options)


def _onnxruntime(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.onnxruntime_backend import OnnxRuntimeProgram

    _no_half("onnxruntime", options)
    if options.precision == "bf16":
        raise BackendUnavailable("backend 'onnxruntime' computes in fp32 on a CPU, not in bf16; choose auto or fp32")
    return OnnxRuntimeProgram(model, options)


def _no_half(name: str, options: CompileOptions) -> None:
    if options.precision == "fp16":
        raise BackendUnavailable(f"backend {name!r} has no fp16, which is for GPUs; choose auto, or another precision")


def _torch(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.torch_backend import torch_program

    return torch_program(model, options)


def _cuda(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.torch_backend import cuda_program

    return cuda_program(model, options)


def _inductor(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.torch_inductor import inductor_program

    return inductor_program(model, options)


def _tensorrt(model: onnx.ModelProto, options: CompileOptions) -> Program:
    from streamseg.engine.tensorrt_backend import TensorRtBackend

    return TensorRtBackend.on(options.gpu).compile(model, options)


def _tensorrt_slow(gpu: int) -> Slow:
    from streamseg.engine.tensorrt_backend import TensorRtBackend

    return TensorRtBackend.on(gpu)


# Name -> (package, compile), in the order in which `auto` prefers them on a CPU: measured, OpenVINO is 2-8 times faster
# than torch.
BACKENDS: dict[str, tuple[str, Compile]] = {
    "openvino": ("openvino", _openvino),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "torch": ("torch", _torch),
    "torch-cuda": ("torch", _cuda),
    "torch-inductor": ("torch", _inductor),
    "tensorrt": ("tensorrt", _tensorrt),
}
AUTO_ON_GPU = ("tensorrt", "torch-cuda")
"""What `auto` takes of them, the best first."""
ON_GPU = (*AUTO_ON_GPU, "torch-inductor")
SLOW: dict[str, Callable[[int], Slow]] = {"tensorrt": _tensorrt_slow}
NOT_IN = {"torch-cuda": ("int8",), "tensorrt": ("bf16",)}
"""Precisions that a GPU backend has not; `auto` passes it over for them."""


def choose(name: str, precision: Precision = "auto", device: str = "auto") -> tuple[str, Compile]:
    """(name, compile) of a backend; "auto" takes the best that needs no preparing and whose package is installed."""
    rung = next(rung for rung in ladder(name, precision, device) if rung.slow is None or name != "auto")
    return rung.name, rung.compile


def ladder(name: str, precision: Precision = "auto", device: str = "auto") -> list[Rung]:
    """The backends that `name` stands for, the best first. "auto": those of the GPU, if there is one or `device` is
    one, and that of the CPU at the end; else one. Raises BackendUnavailable."""
    installed = [n for n, (package, _) in BACKENDS.items() if find_spec(package) is not None]
    if find_spec("torch") is None:  # which gives TensorRT its memory and streams
        installed = [n for n in installed if n not in ON_GPU]
    if name == "auto":
        cpu = [n for n in installed if n not in ON_GPU][:1]
        if not cpu:
            raise BackendUnavailable("no inference backend is installed; pip install openvino")
        wanted = device.startswith("cuda") or (device == "auto" and machine.gpu_names())
        gpu = [n for n in AUTO_ON_GPU if n in installed and precision not in NOT_IN[n]] if wanted else []
        return [Rung(n, BACKENDS[n][1], SLOW[n](index_of(device)) if n in SLOW else None) for n in (*gpu, *cpu)]
    if name not in BACKENDS:
        raise BackendUnavailable(f"no backend {name!r}; choose auto, {', '.join(BACKENDS)}")
    if name not in installed:
        extra = name.partition("-")[0]
        raise BackendUnavailable(f"backend {name!r} needs a package that is not here; pip install 'streamseg[{extra}]'")
    return [Rung(name, BACKENDS[name][1])]


def index_of(device: str) -> int:
    """Of `cuda:N`; 0 of all else."""
    return int(device.partition(":")[2] or 0)


def on_cpu() -> Compile:
    """Of the backend that `auto` takes where there is no GPU."""
    return BACKENDS[next(n for n, (package, _) in BACKENDS.items() if n not in ON_GPU and find_spec(package))][1]
