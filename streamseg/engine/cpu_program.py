"""What the CPU backends share: a program that ends at `scores`, its state, and the labels made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.engine import program, upsample
from streamseg.engine.backends import CompileOptions
from streamseg.types import U8, MakeLabels

F32 = NDArray[np.float32]


@dataclass(slots=True)
class CpuState:
    """`values` f32 [1, S, h, w] as the previous frame left them; None before the first."""

    values: F32 | None = None


class Execute(Protocol):
    def __call__(self, frames: U8, state: F32 | None, elapsed_s: F32 | None) -> Sequence[F32]:
        """frames u8 [1, H, W, 3] -> scores f32 [1, K, h, w] and the next state, valid until the next call."""
        ...


class CpuProgram:
    """Runs one picture at a time: on a CPU a larger batch only adds latency (measured: no gain from 1 to 8)."""

    max_batch = 1

    def __init__(self, model: onnx.ModelProto, options: CompileOptions, execute: Execute) -> None:
        self._size = (options.width, options.height)
        self._shape = program.state_shape(model, *self._size)
        self._execute = execute

    def new_state(self, values: F32 | None = None) -> CpuState:
        return CpuState() if values is None else CpuState(np.array(values[None]))

    def values(self, state: CpuState) -> F32 | None:
        return None if state.values is None else state.values[0].copy()

    def scores(self, frame: U8) -> F32:
        """Class probabilities f32 [K, h, w] of one picture u8 [H, W, 3], of a program that does not smooth."""
        (scores, *_) = self._execute(frame[None], None, None)
        return np.array(scores[0], np.float32)

    def run(self, frames: Sequence[U8], states: Sequence[CpuState], elapsed_s: Sequence[float]) -> list[MakeLabels]:
        return [partial(upsample.labels, each, *self._size) for each in self.run_scores(frames, states, elapsed_s)]

    def run_scores(self, frames: Sequence[U8], states: Sequence[CpuState], elapsed_s: Sequence[float]) -> list[F32]:
        """Copied, as the backend reuses its buffer: 0.36 MB, against 0.6 ms of upsampling on the inference thread."""
        return [self._one(*item)[0].copy() for item in zip(frames, states, elapsed_s, strict=True)]

    def _one(self, frame: U8, state: CpuState, elapsed_s: float) -> F32:
        """Scores f32 [1, K, h, w], valid until the next call."""
        if self._shape is None:
            return self._execute(frame[None], None, None)[0]
        if state.values is None:
            state.values, elapsed_s = np.zeros((1, *self._shape), np.float32), -1.0
        scores, after = self._execute(frame[None], state.values, np.array([elapsed_s], np.float32))
        np.copyto(state.values, after)
        return scores
