"""What the CPU backends share: a program that ends at `scores`, its state, and the labels made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.engine import program, smoothing, upsample
from streamseg.engine.backends import CompileOptions
from streamseg.types import U8, MakeLabels

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Buffer:
    """An array f32 [1, S, h, w], and what its backend takes it as."""

    array: F32
    tensor: Any


@dataclass(slots=True)
class CpuState:
    """`buffers`: the state as the previous frame left it, and where the next is written; none before the first."""

    buffers: tuple[Buffer, Buffer] | None = None


class CpuProgram:
    """Runs one picture at a time: on a CPU a larger batch only adds latency (measured: no gain from 1 to 8)."""

    max_batch = 1
    where = ""

    def __init__(self, model: onnx.ModelProto, options: CompileOptions) -> None:
        self._size = (options.width, options.height)
        self._shape = program.state_shape(model, *self._size)

    def _infer(self, frames: U8, memory: tuple[Buffer, Buffer] | None, elapsed_s: float) -> F32:
        """frames u8 [1, H, W, 3] -> scores f32 [1, K, h, w], valid until the next call. Of `memory` the first is the
        state before and the second is overwritten with the state after."""
        raise NotImplementedError

    def _tensor(self, array: F32) -> Any:
        """What the backend takes an array as."""
        return array

    def new_state(self, values: F32 | None = None) -> CpuState:
        return CpuState() if values is None else CpuState(self._buffers(values))

    def values(self, state: CpuState) -> F32 | None:
        return None if state.buffers is None else state.buffers[0].array[0].copy()

    def _buffers(self, values: F32) -> tuple[Buffer, Buffer]:
        arrays = np.array(values[None], np.float32), np.empty((1, *values.shape), np.float32)
        first, second = (Buffer(array, self._tensor(array)) for array in arrays)
        return first, second

    def scores(self, frame: U8) -> F32:
        """Class probabilities f32 [K, h, w] of one picture u8 [H, W, 3], of a program that does not smooth."""
        return np.array(self._infer(frame[None], None, 0.0)[0], np.float32)

    def run(self, frames: Sequence[U8], states: Sequence[CpuState], elapsed_s: Sequence[float]) -> list[MakeLabels]:
        makers: list[MakeLabels] = []
        for item in zip(frames, states, elapsed_s, strict=True):
            scores = self._one(*item)[0].copy()
            makers.append(partial(upsample.labels, scores, *self._size, self._winner(item[1], len(scores))))
        return makers

    def run_scores(self, frames: Sequence[U8], states: Sequence[CpuState], elapsed_s: Sequence[float]) -> list[F32]:
        """Copied, as the backend reuses its buffer: 0.36 MB, against 0.6 ms of upsampling on the inference thread."""
        return [self._one(*item)[0].copy() for item in zip(frames, states, elapsed_s, strict=True)]

    def _winner(self, state: CpuState, classes: int) -> U8 | None:
        """argmax u8 [h, w] of the scores, where the state after them knows it."""
        channel = None if state.buffers is None else smoothing.winner_channel(classes, len(state.buffers[0].array[0]))
        return None if channel is None or state.buffers is None else state.buffers[0].array[0, channel].astype(np.uint8)

    def _one(self, frame: U8, state: CpuState, elapsed_s: float) -> F32:
        """Scores f32 [1, K, h, w], valid until the next call."""
        if self._shape is None:
            return self._infer(frame[None], None, elapsed_s)
        if state.buffers is None:
            state.buffers, elapsed_s = self._buffers(np.zeros(self._shape, np.float32)), -1.0
        before, after = state.buffers
        scores = self._infer(frame[None], state.buffers, elapsed_s)
        state.buffers = (after, before)
        return scores
