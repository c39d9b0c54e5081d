"""Stands in for TensorRT and the GPU: a `Layer` that "builds" a plan out of the graph it is given and runs it with ONNX
Runtime, which checks the graph's types as TensorRT's strongly typed networks do. It refuses what TensorRT would."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch

from streamseg.engine.tensorrt_build import Compiled, GpuIdentity, Profile, Step, Stopped
from streamseg.engine.torch_device import CpuDevice, Device
from streamseg.engine.torch_walk import Answer, Bound
from streamseg.errors import EngineError

STEPS = 20


@dataclass
class FakeGpu:
    """One machine: what it is, and what was asked of it."""

    tensorrt: str = "11.4.0.106"
    gpu: str = "NVIDIA Imagined"
    capability: str = "9.0"
    fault: str = ""
    """What TensorRT finds wrong with the graph."""
    noise: float = 0.0
    """Added to every score: a plan that computes something else."""
    profiles: list[Sequence[Profile]] = field(default_factory=list)
    timings: list[bytes] = field(default_factory=list)
    loaded: int = 0
    pause: threading.Event | None = None
    """A build goes on when it is set."""
    building: threading.Event = field(default_factory=threading.Event)

    @property
    def builds(self) -> int:
        return len(self.profiles)

    def identity(self) -> GpuIdentity:
        return GpuIdentity(self.tensorrt, self.gpu, self.capability)

    def device(self) -> Device:
        return CpuDevice()

    def compile(self, graph: bytes, profiles: Sequence[Profile], timing: bytes, step: Step) -> Compiled:
        self.profiles.append(profiles)
        self.timings.append(timing)
        self.building.set()
        if self.fault:
            raise EngineError(f"TensorRT cannot read the program: {self.fault}")
        check(onnx.load_from_string(graph), profiles)
        for index in range(STEPS):
            while self.pause is not None and not self.pause.wait(0.01):
                if not step(index / STEPS):
                    raise Stopped("the build was stopped")
            if not step((index + 1) / STEPS):
                raise Stopped("the build was stopped")
        head = json.dumps({"for": self._here(), "noise": self.noise, "sha": hashlib.sha256(graph).hexdigest()})
        return Compiled(head.encode() + b"\n" + graph, b"timing of " + self.gpu.encode())

    def load(self, plan: bytes) -> Core:
        """A plan that was tampered with would run whatever is in it; here it fails the test."""
        self.loaded += 1
        head, _, graph = plan.partition(b"\n")
        told = json.loads(head)
        assert told["for"] == self._here(), "a plan of another GPU or version was loaded"
        assert told["sha"] == hashlib.sha256(graph).hexdigest(), "a damaged plan was loaded"
        return Core(graph, told["noise"], self.profiles[-1] if self.profiles else [])

    def _here(self) -> list[str]:
        return [self.tensorrt, self.gpu, self.capability]


class Core:
    def __init__(self, graph: bytes, noise: float, profiles: Sequence[Profile]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._noise, self._profiles = noise, profiles

    def bind(
        self, frames: torch.Tensor, state: torch.Tensor | None = None, elapsed_s: torch.Tensor | None = None
    ) -> Bound:
        inputs = {"frames": frames, "state": state, "elapsed_s": elapsed_s}
        tensors = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        for name, tensor in tensors.items():
            assert not self._profiles or fits(self._profiles, name, tuple(tensor.shape)), "no profile has that shape"
        names = [output.name for output in self._session.get_outputs()]

        def call() -> Answer:
            answers: list[Any] = self._session.run(names, {name: t.numpy() for name, t in tensors.items()})
            made = {name: torch.from_numpy(np.array(a)) for name, a in zip(names, answers, strict=True)}
            if self._noise:
                made["scores"] += self._noise * torch.rand(made["scores"].shape, generator=torch.manual_seed(0))
            return made["scores"], made.get("state_next")

        return call


def fits(profiles: Sequence[Profile], name: str, shape: tuple[int, ...]) -> bool:
    return any(
        all(low <= size <= high for low, size, high in zip(p.shapes[name][0], shape, p.shapes[name][2], strict=True))
        for p in profiles
    )


def check(model: onnx.ModelProto, profiles: Sequence[Profile]) -> None:
    """What TensorRT's parser and builder ask for."""
    onnx.checker.check_model(model, full_check=True)
    for profile in profiles:
        assert set(profile.shapes) == {value.name for value in model.graph.input}
        for value in model.graph.input:
            for shapes in zip(*profile.shapes[value.name], strict=True):
                assert list(shapes) == sorted(shapes)
            for size, dim in zip(profile.shapes[value.name][1], value.type.tensor_type.shape.dim, strict=True):
                assert dim.dim_param == "N" or dim.dim_value == size
    # bytes are for the network's inputs and outputs only, and enter by a cast to fp32 or fp16
    frames = [node for node in model.graph.node if "frames" in node.input]
    assert [node.op_type for node in frames] == ["Cast"]
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in model.graph.output)
    scales = {node.input[1] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for constant in model.graph.initializer:
        assert constant.data_type != onnx.TensorProto.UINT8
        assert constant.name not in scales or constant.data_type == onnx.TensorProto.FLOAT16
