"""All that is asked of TensorRT, and nowhere else: building a plan, and running one. In the thread that calls.

Written against TensorRT's Python API of 10.13 to 11.4; every name is held to those of the two versions' bindings
(tests/test_tensorrt_names.py), but nothing here has run on a GPU yet. API:
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/index.html
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import tensorrt as trt
import torch

from streamseg.engine.tensorrt_build import Compiled, GpuIdentity, Phases, Profile, Step, Stopped
from streamseg.engine.torch_device import CudaDevice, Device, no_cuda
from streamseg.engine.torch_walk import Answer, Bound
from streamseg.errors import EngineError

__all__ = ["TensorRt", "no_cuda"]
log = logging.getLogger("streamseg")
WORKSPACE_BYTES = 2 << 30
"""Of GPU memory that a kernel may use for itself; by default it would be all, and another backend is serving."""


class TensorRt:
    """The `Layer` of a real GPU."""

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._log = _Log()

    def identity(self) -> GpuIdentity:
        major, minor = torch.cuda.get_device_capability(self._index)
        return GpuIdentity(trt.__version__, torch.cuda.get_device_name(self._index), f"{major}.{minor}")

    def device(self) -> Device:
        return CudaDevice(self._index)

    def compile(self, graph: bytes, profiles: Sequence[Profile], timing: bytes, step: Step) -> Compiled:
        """Minutes; the interpreter lock is free meanwhile. Raises EngineError, Stopped."""
        with torch.cuda.device(self._index):
            return self._compile(graph, profiles, timing, step)

    def _compile(self, graph: bytes, profiles: Sequence[Profile], timing: bytes, step: Step) -> Compiled:
        builder = _made(trt.Builder, self._log)
        # The only kind of network in 11, where the flag still exists and changes nothing.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(graph):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            why = "; ".join(f"{error.node_name()}: {error.desc()}" for error in errors)
            raise EngineError(f"TensorRT cannot read the program: {why}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is asked for to be exact
        cache = config.create_timing_cache(timing)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):  # of another version, or damaged
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        for profile in profiles:
            given = builder.create_optimization_profile()
            for name, (smallest, best, largest) in profile.shapes.items():
                given.set_shape(name, smallest, best, largest)
            config.add_optimization_profile(given)
        progress = _Progress(step)
        config.progress_monitor = progress
        plan = builder.build_serialized_network(network, config)
        if progress.stopped:
            raise Stopped("the build was stopped")
        if plan is None:
            raise EngineError(f"TensorRT cannot build the plan: {self._log.last_error or 'it says no more'}")
        return Compiled(bytes(plan), bytes(cache.serialize()))

    def load(self, plan: bytes) -> _Loaded:
        """Of what `compile` gave, on this GPU and version: a plan is code, and this runs it. Raises EngineError."""
        runtime = _made(trt.Runtime, self._log)
        with torch.cuda.device(self._index):
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"TensorRT cannot load the plan: {self._log.last_error or 'it says no more'}")
        return _Loaded(runtime, engine, self._index)


class _Loaded:
    """A plan on the GPU; the `Core` of a `BatchedProgram`. A context a bucket, as each has its shapes and addresses;
    they never run at once, and share the memory for what lies between the layers."""

    def __init__(self, runtime: trt.Runtime, engine: trt.ICudaEngine, index: int) -> None:
        self._runtime = runtime  # must outlive the engine
        self._engine = engine
        self._index = index
        between = max(1, engine.device_memory_size_v2)  # of the largest profile
        self._memory = torch.empty(between, dtype=torch.uint8, device=torch.device("cuda", index))

    def bind(
        self, frames: torch.Tensor, state: torch.Tensor | None = None, elapsed_s: torch.Tensor | None = None
    ) -> Bound:
        with torch.cuda.device(self._index):
            context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        _must(context is not None, "make a context")
        context.set_device_memory(self._memory.data_ptr(), self._memory.numel())
        profile = min(len(frames), 2) - 1 if self._engine.num_optimization_profiles > 1 else 0
        _must(context.set_optimization_profile_async(profile, self._stream()), "choose a profile")
        inputs = {"frames": frames, "state": state, "elapsed_s": elapsed_s}
        for name, tensor in inputs.items():
            if tensor is not None:
                _must(context.set_input_shape(name, tuple(tensor.shape)), f"take {name} of {tuple(tensor.shape)}")
                _must(context.set_tensor_address(name, tensor.data_ptr()), f"take {name}")
        made: dict[str, torch.Tensor] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                made[name] = torch.empty(tuple(context.get_tensor_shape(name)), device=frames.device)
                _must(context.set_tensor_address(name, made[name].data_ptr()), f"put {name}")

        def call() -> Answer:
            _must(context.execute_async_v3(self._stream()), "run")
            return made["scores"], made.get("state_next")

        return call

    def _stream(self) -> int:
        """The stream that torch's work goes to now: the program's own, whether it is captured or not."""
        handle: int = torch.cuda.current_stream(self._index).cuda_stream
        return handle


class _Log(trt.ILogger):
    """TensorRT's own lines are for `--verbose`; the last error goes into our errors' message."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last_error = ""

    def log(self, severity: Any, msg: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.last_error = " ".join(msg.split())
        if severity != trt.ILogger.VERBOSE:
            log.debug("TensorRT: %s", msg)


class _Progress(trt.IProgressMonitor):
    def __init__(self, step: Step) -> None:
        trt.IProgressMonitor.__init__(self)
        self._phases = Phases()
        self._step = step
        self.stopped = False

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._phases.start(phase_name, parent_phase, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        self._phases.step(phase_name, step)
        self.stopped = self.stopped or not self._step(self._phases.share)
        return not self.stopped

    def phase_finish(self, phase_name: str) -> None:
        self._phases.finish(phase_name)


def _made(kind: Any, logger: _Log) -> Any:
    """A Builder or a Runtime; the bindings raise TypeError where TensorRT makes none (no GPU, no driver, no memory)."""
    try:
        return kind(logger)
    except TypeError:
        raise EngineError(f"TensorRT does not start: {logger.last_error or 'no GPU that it can use'}") from None


def _must(done: bool, what: str) -> None:
    if not done:
        raise EngineError(f"TensorRT would not {what}; `--verbose` shows why")
