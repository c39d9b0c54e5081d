"""The torch backends: programs in batches, on a CPU (`torch`) or a GPU (`torch-cuda`). Run in the thread that calls.

Batches are padded to a bucket (1, 2, 4, 8, …); each bucket's buffers stay where they are, so that its whole work (the
streams' states taken from one pool, the program, the labels, the states put back) is one CUDA graph.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from streamseg.engine.backends import CompileOptions
from streamseg.engine.half import in_half
from streamseg.engine.program import scores_shape, state_shape, up_to_scores
from streamseg.engine.torch_device import CAPTURE, CpuDevice, CudaDevice, Device, Download, no_cuda, tried_out
from streamseg.engine.torch_intake import Picture, fill
from streamseg.engine.torch_walk import Bound, Walk
from streamseg.errors import BackendUnavailable, EngineError
from streamseg.types import U8, MakeLabels

log = logging.getLogger("streamseg")
F32 = NDArray[np.float32]
IN_FLIGHT = 2
"""Batches that may be on their way at once: one computes while the next one is brought together and uploaded."""
FIRST_STREAMS, FIRST_BYTES = 64, 256 << 20
"""States that the pool holds at first (fewer, but at least 8, where they would take more than so much memory); it
doubles, and the graphs are captured anew, when there are more streams."""


class Core(Protocol):
    """What computes a program up to its scores: a walk with torch functions, or a TensorRT plan."""

    def bind(
        self, frames: torch.Tensor, state: torch.Tensor | None = None, elapsed_s: torch.Tensor | None = None
    ) -> Bound: ...


Labels = Callable[[torch.Tensor, torch.Tensor], None]
"""Of scores f32 [N, K, h, w], puts labels into u8 [N, H, W]."""


@dataclass(slots=True, weakref_slot=True)
class TorchState:
    """A place in the program's pool, free again when this object is gone."""

    slot: int
    fresh: bool
    """No frame yet: whatever time is said to have passed, there is no past."""


@dataclass(frozen=True, slots=True)
class _Shape:
    width: int
    height: int
    scores: tuple[int, int, int]
    state: tuple[int, int, int] | None


class _Pool:
    """`values` f32 [capacity + 1, S, h, w]: every stream's state; the last place is for the rows that pad a batch."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self._shape = shape
        streams = min(FIRST_STREAMS, max(8, FIRST_BYTES // (4 * math.prod(shape))))
        self.values = torch.zeros((streams + 1, *shape), device=device)
        self.free = list(range(streams))

    @property
    def nowhere(self) -> int:
        return len(self.values) - 1

    def grow(self) -> None:
        before = self.values
        self.values = torch.zeros((2 * self.nowhere + 1, *self._shape), device=before.device)
        self.values[: len(before) - 1] = before[:-1]
        self.free += range(len(before) - 1, self.nowhere)


class _Bucket:
    """The buffers of batches of one size, and the work on them."""

    def __init__(self, size: int, shape: _Shape, core: Core, pool: _Pool | None, make: Labels, device: Device) -> None:
        here = device.where
        self.size = size
        self.frames = torch.zeros((size, shape.height, shape.width, 3), dtype=torch.uint8, device=here)
        self.labels = torch.zeros((size, shape.height, shape.width), dtype=torch.uint8, device=here)
        self.scores = torch.zeros((size, *shape.scores), device=here)
        self.elapsed_s = torch.full((size,), -1.0, device=here)
        self.places = torch.zeros((size,), dtype=torch.int64, device=here)
        state = None
        if pool is not None:
            self.places.fill_(pool.nowhere)
            state = torch.zeros((size, *(shape.state or ())), device=here)
        bound = core.bind(self.frames, state, None if pool is None else self.elapsed_s)
        # What a captured graph reads and does not hold: the states as they are taken, constants, a plan's context.
        self._read = state, bound
        if (answered := tuple(bound()[0].shape)) != (size, *shape.scores):
            raise EngineError(f"a batch of {size} is answered with scores of {answered}, not {(size, *shape.scores)}")

        def compute() -> None:
            if pool is not None and state is not None:
                torch.index_select(pool.values, 0, self.places, out=state)
            scores, after = bound()
            self.scores.copy_(scores)
            make(self.scores, self.labels)
            if pool is not None and after is not None:
                pool.values.index_copy_(0, self.places, after)

        self.run = device.graph(compute)


@dataclass(slots=True)
class _Part:
    """Makes one frame's array of a batch's; when it has, or is gone, the batch's memory is free for another."""

    batch: Download | None
    index: int
    made: NDArray[np.generic] = field(default_factory=lambda: np.empty(0))

    def __call__(self) -> U8:
        batch = self.batch
        if batch is not None:
            self.made = batch.wait()[self.index].numpy().copy()
            self.batch = None
        return self.made  # type: ignore[return-value]


class BatchedProgram:
    """Frames of several streams in one batch. `run` returns when the work is queued, at most `IN_FLIGHT` batches deep;
    what makes labels waits for it. So `infer_us` of a GPU is the time of the queueing and of the waiting in line."""

    def __init__(self, shape: _Shape, core: Core, device: Device, max_batch: int, make_labels: Labels) -> None:
        self._shape, self._core, self._device, self._make = shape, core, device, make_labels
        self.max_batch = max_batch
        self.where = str(device.where)
        self._flying: deque[Download] = deque()
        self._held: deque[Sequence[Picture]] = deque(maxlen=IN_FLIGHT)
        """Pictures in GPU memory that work under way may still read: their memory goes back to the decoder at once."""
        device.after_current()  # what the core has put on the device
        with torch.inference_mode(), device.work():
            self._pool = _Pool(shape.state, device.where) if shape.state else None
        self._buckets = self._captured()

    def new_state(self, values: F32 | None = None) -> TorchState:
        """`values` f32 [S, h, w]: a state that another program has left, to go on from."""
        if self._pool is None:
            return TorchState(0, True)
        with torch.inference_mode():
            if not self._pool.free:
                with self._device.work():
                    self._pool.grow()
                self._buckets = self._captured()
            slot = self._pool.free.pop()
            with self._device.work():
                self._pool.values[slot] = 0.0 if values is None else torch.from_numpy(values).to(self._device.where)
        state = TorchState(slot, values is None)
        weakref.finalize(state, self._pool.free.append, slot).atexit = False
        return state

    def values(self, state: TorchState) -> F32 | None:
        """f32 [S, h, w], as the latest frame left it; None before the first. Waits for all work that is under way."""
        for batch in self._flying:
            batch.wait()
        if self._pool is None or state.fresh:
            return None
        with torch.inference_mode(), self._device.work():
            copy = self._pool.values[state.slot].clone()
        return np.array(self._device.download(copy).wait().numpy())

    def run(
        self, frames: Sequence[Picture], states: Sequence[TorchState], elapsed_s: Sequence[float]
    ) -> list[MakeLabels]:
        return [part for batch, n in self._run(frames, states, elapsed_s, "labels") for part in _parts(batch, n)]

    def work(self, batch: int) -> Callable[[], None]:
        """Does the work on a batch of that size, or the next larger one, once more on what its buffers hold: without
        transfers, for benchmarks. To be called within `device.work()`. Raises EngineError for more than `max_batch`."""
        found = next((bucket for bucket in self._buckets if bucket.size >= batch), None)
        if found is None:
            raise EngineError(f"batches of {batch} are too large here; the largest is {self.max_batch}")
        return found.run

    @property
    def device(self) -> Device:
        return self._device

    def run_scores(
        self, frames: Sequence[Picture], states: Sequence[TorchState], elapsed_s: Sequence[float]
    ) -> list[F32]:
        batches = self._run(frames, states, elapsed_s, "scores")
        return [np.array(each) for batch, _ in batches for each in batch.wait().numpy()]

    def _captured(self) -> list[_Bucket]:
        """From the smallest to the largest that fits: some networks take one picture at a time, some GPUs are full."""
        for batch in self._flying:
            batch.wait()
        given = self._shape, self._core, self._pool, self._make, self._device
        buckets: list[_Bucket] = []
        with CAPTURE, torch.inference_mode(), self._device.work(), tried_out():
            for size in sizes_up_to(self.max_batch):
                try:
                    buckets.append(_Bucket(size, *given))
                except RuntimeError as error:  # EngineError is one
                    if not buckets:
                        raise
                    log.info("batches of %d at most: %s", buckets[-1].size, str(error).splitlines()[0])
                    break
        self.max_batch = buckets[-1].size
        return buckets

    def _run(
        self, frames: Sequence[Picture], states: Sequence[TorchState], elapsed_s: Sequence[float], what: str
    ) -> list[tuple[Download, int]]:
        largest = self._buckets[-1].size
        done = []
        for at in range(0, len(frames), largest):
            part = slice(at, at + largest)
            done.append((self._batch(frames[part], states[part], elapsed_s[part], what), len(frames[part])))
        return done

    def _batch(
        self, frames: Sequence[Picture], states: Sequence[TorchState], elapsed_s: Sequence[float], what: str
    ) -> Download:
        if len(self._flying) >= IN_FLIGHT:
            self._flying.popleft().wait()
        count = len(frames)
        bucket = next(b for b in self._buckets if b.size >= count)
        with torch.inference_mode():
            fill(bucket.frames[:count], frames, self._device)
            if self._pool is not None:
                self._tell(bucket, states, elapsed_s, self._pool.nowhere)
            with self._device.work():
                bucket.run()
                result = (bucket.labels if what == "labels" else bucket.scores)[:count].clone()
            download = self._device.download(result)
        for state in states:
            state.fresh = False
        self._flying.append(download)
        self._held.append(frames)
        return download

    def _tell(self, bucket: _Bucket, states: Sequence[TorchState], elapsed_s: Sequence[float], nowhere: int) -> None:
        """Where the streams' states are and how old, in one upload: fp32 has whole numbers to beyond 16 million."""
        padding = bucket.size - len(states)
        places = [*(state.slot for state in states), *[nowhere] * padding]
        ages = [-1.0 if state.fresh else elapsed for state, elapsed in zip(states, elapsed_s, strict=True)]
        staged = self._device.staging((2, bucket.size), torch.float32)
        staged.copy_(torch.tensor([places, [*ages, *[-1.0] * padding]], dtype=torch.float32))
        told = self._device.upload(staged)
        with self._device.work():
            bucket.places.copy_(told[0])
            bucket.elapsed_s.copy_(told[1])


def _parts(batch: Download, count: int) -> list[MakeLabels]:
    return [_Part(batch, index) for index in range(count)]


def sizes_up_to(largest: int) -> list[int]:
    """1, 2, 4, … and the largest."""
    return [1 << power for power in range((largest - 1).bit_length())] + [largest]


def labels_of(scores: torch.Tensor, labels: torch.Tensor) -> None:
    """The end of a program as torch functions: bilinear upsampling (half-pixel centres), then argmax."""
    full = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=False)
    labels.copy_(full.argmax(1))


def labels_for(where: torch.device) -> Labels:
    """`labels_of`, or on a GPU the kernel that does the same, once it has: Triton may want a C compiler."""
    if where.type != "cuda":
        return labels_of
    try:
        from streamseg.nvidia.labelling import labels_of as at_once

        scores = torch.rand((2, 5, 9, 15), device=where)
        one, other = (torch.zeros((2, 72, 120), dtype=torch.uint8, device=where) for _ in range(2))
        at_once(scores, one)
        labels_of(scores, other)
        if (one == other).float().mean() > 0.999:  # all, but for rounding
            return at_once
        why = "its kernel gives other labels"
    except Exception as error:  # of Triton, the driver or the file system: torch does without
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    log.info("labels are made in several steps, without Triton: %s", why)
    return labels_of


def shape_of(model: onnx.ModelProto, options: CompileOptions) -> _Shape:
    size = options.width, options.height
    return _Shape(*size, scores_shape(model, *size), state_shape(model, *size))


def torch_program(model: onnx.ModelProto, options: CompileOptions, device: Device | None = None) -> BatchedProgram:
    """On a CPU, where a larger batch only adds latency: one picture at a time, fp32 unless bf16 or fp16 is asked for.
    `device` is for tests, which run there what runs on a GPU, in batches."""
    torch.set_num_threads(options.threads)
    batch = 1 if device is None else options.max_batch
    precision = "fp32" if options.precision == "auto" else options.precision
    return walked(model, options, device or CpuDevice(), precision, batch)


def cuda_program(
    model: onnx.ModelProto, options: CompileOptions, core: Callable[[Walk], Core] = lambda walk: walk
) -> BatchedProgram:
    """On a GPU: the network in fp16 unless told otherwise, channels last, smoothing in fp32. Raises EngineError.

    Written against torch's documentation; not run on a GPU yet."""
    if why := no_cuda():
        raise BackendUnavailable(f"backend 'torch-cuda' needs an NVIDIA GPU: {why}")
    precision = "fp16" if options.precision == "auto" else options.precision
    try:
        return walked(model, options, CudaDevice(options.gpu), precision, options.max_batch, core)
    except RuntimeError as error:  # out of memory, a driver that is too old
        if isinstance(error, EngineError):
            raise
        raise EngineError(f"torch-cuda cannot take the program: {str(error).splitlines()[0]}") from error


def walked(
    model: onnx.ModelProto,
    options: CompileOptions,
    device: Device,
    precision: str,
    batch: int,
    core: Callable[[Walk], Core] = lambda walk: walk,
) -> BatchedProgram:
    """`core` makes of a walk what computes it."""
    halves = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in halves:
        raise EngineError(f"the torch backends compute in {', '.join(halves)}, not in {precision}")
    half = halves[precision]
    graph = up_to_scores(model if half is None else in_half(model))
    walk = Walk(graph, device.where, half or torch.float16)
    return BatchedProgram(shape_of(model, options), core(walk), device, batch, labels_for(device.where))
