"""An engine at work: a bundle on a backend, a compiled program per picture size, and every stream's state.

One thread (the pipeline's inference thread) runs it; it is not thread-safe.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamseg.engine import program, tiling
from streamseg.engine.backends import (
    CompileOptions,
    Program,
    State,
    choose,
    index_of,
    ladder,
)
from streamseg.engine.bundle import Bundle
from streamseg.engine.choice import choose_program
from streamseg.engine.program import ProgramSpec
from streamseg.engine.smoothing import DEFAULT_STRENGTH
from streamseg.engine.succession import Succession
from streamseg.engine.tiling import WHOLE, Plan, View
from streamseg.errors import EngineError, FrameError
from streamseg.types import Frame, MakeLabels, Picture, Precision, Result, SmoothingMode

log = logging.getLogger("streamseg")
# A pause this long (a camera that froze, a gap in a file) says nothing about what is in the picture now.
FORGET_SECONDS = 5.0


@dataclass(slots=True)
class _StreamState:
    key: tuple[int, ...]
    """The frame's state_key and the input's size and tiles: when it changes, the past is forgotten."""
    media_ns: int
    states: list[State]
    """One a tile."""

    @property
    def tile(self) -> tuple[int, int]:
        return self.key[1], self.key[2]


def spec_of(bundle: Bundle, smoothing: SmoothingMode | None = None, strength: float | None = None) -> ProgramSpec:
    """How a bundle's network is completed; what is None is as its manifest says, or as is usual for the mode."""
    entry, default = bundle.manifest.input, bundle.manifest.smoothing
    mode = smoothing or default.mode
    if strength is None and mode == default.mode:
        strength = default.strength
    usual = DEFAULT_STRENGTH[mode] if strength is None else strength
    return ProgramSpec(entry.mean, entry.std, mode, usual, bundle.moving, bundle.whole)


class Engine:
    """Segments frames of any stream and size. `size` None fits each source's aspect; (width, height) forces one.
    `views` tells by stream what of its pictures is analysed ("*": of every other stream); by default all, at once."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str = "auto",
        precision: Precision = "auto",
        threads: int = 1,
        size: tuple[int, int] | None = None,
        smoothing: SmoothingMode | None = None,
        strength: float | None = None,
        views: Mapping[str, View] | None = None,
        max_batch: int = 32,
        device: str = "auto",
    ) -> None:
        """`device`: cpu, or cuda:N; auto is the first GPU, if there is one."""
        entry = bundle.manifest.input
        self.bundle = bundle
        self.classes = bundle.classes
        self.backend, compiler = choose(backend, precision, device)
        """What serves, or is expected to; see `replace`."""
        self._succession = Succession(ladder(backend, precision, device))
        self.spec = spec_of(bundle, smoothing, strength)
        self._size = size
        expected = self.size_for(entry.width, entry.height)
        self.device = device
        self._wanted = CompileOptions(*expected, precision, threads, max_batch, index_of(device))
        try:
            chosen = choose_program(bundle, self.spec, self.backend, compiler, self._wanted)
        except EngineError as error:
            _explain(error, bundle, expected)
            raise
        self.identity = chosen.identity
        """Name and digest of the file that runs; what results are marked with."""
        self.precision: Precision = chosen.precision
        self._model = chosen.model
        self._programs: dict[tuple[int, int], Program] = {}
        self._refused: dict[tuple[int, int], str] = {}
        self._streams: dict[str, _StreamState] = {}
        self._views = dict(views or {})
        self._plans: dict[tuple[View, int, int], Plan] = {}

    def __repr__(self) -> str:
        return f"Engine({self.identity}, {self.backend}, {self.precision}, smoothing={self.spec.mode})"

    @property
    def max_batch(self) -> int:
        return max((p.max_batch for p in self._programs.values()), default=1)

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the network's input, and of the label map, for a picture of that size in one piece."""
        return self._size or self.bundle.fit(width, height)

    def view(self, stream: str) -> View:
        return self._views.get(stream) or self._views.get("*", WHOLE)

    def plan(self, stream: str, picture: Picture) -> Plan:
        """What of a stream's picture is analysed, and how. Any thread."""
        key = self.view(stream), picture.width, picture.height
        if key not in self._plans:
            multiple = self.bundle.manifest.input.multiple
            self._plans[key] = tiling.plan(key[0], key[1:], self.size_for, multiple, self._cells)
        return self._plans[key]

    def scale_ahead(self, stream: str, picture: Picture) -> None:
        """Has a picture make now what `run` will ask it for. Any thread."""
        self.plan(stream, picture).scale_ahead(picture)

    def batch_key(self, frame: Frame) -> tuple[tuple[int, int], bool]:
        """Frames that are to share a `run` must have the same. Any thread."""
        plan = self.plan(frame.stream, frame.picture)
        return plan.tile, plan.tiles > 1

    def prepare(self) -> None:
        """Compiles for the size that most cameras come to, so that faults show before the first frame."""
        entry = self.bundle.manifest.input
        self.program(self.size_for(entry.width, entry.height))

    def program(self, size: tuple[int, int]) -> Program:
        """The compiled program for one input size; compiled on first use (0.2-0.5 s).

        Raises EngineError where the engine cannot be compiled at all, FrameError where it takes other sizes, but not
        this one: a camera of an odd aspect must not end all others.
        """
        if size not in self._programs and size not in self._refused:
            options = replace(self._wanted, width=size[0], height=size[1], precision=self.precision)
            try:
                self.backend, self._programs[size] = self._succession.first(self._model, options)
            except EngineError as error:
                if not self._programs:
                    _explain(error, self.bundle, size)
                    raise
                self._refused[size] = f"{self.identity} cannot analyse pictures at {size[0]}x{size[1]}: {error}"
                log.error("%s; all of that size are dropped (bad-frame)", self._refused[size])
        if size in self._refused:
            raise FrameError(self._refused[size])
        return self._programs[size]

    def improve(self) -> None:
        """From now on, backends that are better than what serves are prepared in the background, and take over when
        they are ready. For a daemon; who measures wants one backend."""
        self._succession.improve()

    def replace(self, size: tuple[int, int], successor: Program, backend: str) -> None:
        """From the next `run` on, `successor` serves pictures of that size. What their streams remember is carried
        over: its layout, f32 [S, h, w], is the same on every backend."""
        before = self._programs.get(size)
        self._programs[size] = successor
        streams = [stream for stream in self._streams.values() if stream.tile == size]
        for stream in streams:
            values = [before.values(state) if before else None for state in stream.states]
            stream.states = [successor.new_state(each) for each in values]
        was, self.backend = self.backend, backend
        log.info("%s takes over from %s at %dx%d; %d streams keep their past", backend, was, *size, len(streams))

    def close(self) -> None:
        """Ends what is being prepared in the background. Idempotent."""
        self._succession.close()

    def run(self, frames: Sequence[Frame]) -> list[Result]:
        """Segments frames of different streams that share one `batch_key`, in order."""
        begin_ns = time.monotonic_ns()
        for successor in self._succession.arrived():
            self.replace(successor.size, successor.program, successor.backend)
        plans = [self.plan(frame.stream, frame.picture) for frame in frames]
        compiled = self.program(plans[0].tile)
        pictures = [
            tile for frame, plan in zip(frames, plans, strict=True) for tile in _inputs(frame.picture, plan, compiled)
        ]
        memories = [memory for f, plan in zip(frames, plans, strict=True) for memory in self._memory(f, plan, compiled)]
        states, elapsed_s = [state for state, _ in memories], [elapsed for _, elapsed in memories]
        if plans[0].tiles > 1:
            makers = self._tiled(compiled, plans, pictures, states, elapsed_s)
        else:
            makers = compiled.run(pictures, states, elapsed_s)
        infer_us = (time.monotonic_ns() - begin_ns) // 1000
        return [
            Result(
                frame=frame,
                make_labels=cache(make_labels),
                engine=self.identity,
                smoothed=self.spec.smooths,
                roi=plan.covers(frame.picture),
                wait_us=max(0, begin_ns - frame.ready_ns) // 1000,
                infer_us=infer_us,
            )
            for frame, plan, make_labels in zip(frames, plans, makers, strict=True)
        ]

    def _tiled(
        self,
        compiled: Program,
        plans: Sequence[Plan],
        tiles: Sequence[NDArray[np.uint8]],
        states: Sequence[State],
        elapsed_s: Sequence[float],
    ) -> list[MakeLabels]:
        """All tiles of all frames through the program, and what blends those of each frame."""
        scores: list[NDArray[np.float32]] = []
        for at in range(0, len(tiles), compiled.max_batch):
            batch = slice(at, at + compiled.max_batch)
            scores += compiled.run_scores(tiles[batch], states[batch], elapsed_s[batch])
        ends = list(accumulate(plan.tiles for plan in plans))
        return [partial(plan.labels, scores[end - plan.tiles : end]) for plan, end in zip(plans, ends, strict=True)]

    def _cells(self, size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = program.scores_shape(self._model, *size)[1:]
        return columns, rows

    def _memory(self, frame: Frame, plan: Plan, compiled: Program) -> list[tuple[State, float]]:
        """The stream's state and the seconds since its previous analysed frame, -1 after a reset; for each tile."""
        key = (frame.state_key, *plan.tile, *plan.size)
        stream = self._streams.get(frame.stream)
        elapsed_s = -1.0
        if stream is None or stream.key != key:
            stream = _StreamState(key, frame.media_ns, [compiled.new_state() for _ in range(plan.tiles)])
            self._streams[frame.stream] = stream
        else:
            elapsed_s = (frame.media_ns - stream.media_ns) / 1e9
            stream.media_ns = frame.media_ns
        usable = 0 <= elapsed_s <= FORGET_SECONDS
        return [(state, elapsed_s if usable else -1.0) for state in stream.states]


def _inputs(picture: Picture, plan: Plan, compiled: Program) -> list[Any]:
    """The tiles of a picture: scaled, or, where both the picture and the program are on one GPU, to be scaled there."""
    surface = picture.surface
    if surface is not None and compiled.where == surface.device:
        return list(plan.on_gpu(surface))
    return list(plan.cut(plan.rgb(picture)))


def _explain(error: EngineError, bundle: Bundle, size: tuple[int, int]) -> None:
    """Raises a clearer one where the size may be the cause: of an odd one a compiler names some node of its own."""
    of = bundle.manifest.input.multiple
    if any(side % of for side in size):
        said = f"{bundle.identity} takes sides in multiples of {of}, not {size[0]}x{size[1]}"
        raise EngineError(f"{said}: {error}") from error
