"""`streamseg bench engine`: pictures through compiled programs, network and label upsampling told apart; on a GPU also
without transfers, and against what it could do at best. One thread calls; the backend uses as many as it is given."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any, get_args

from streamseg.bench import machine
from streamseg.bench.ceilings import Ceilings
from streamseg.bench.percentiles import percentiles
from streamseg.engine.backends import BACKENDS, ON_GPU, Program, State
from streamseg.engine.bundle import FLOAT, INT8, Bundle, find
from streamseg.engine.complexity import counted
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError, EngineError
from streamseg.synthetic import Street
from streamseg.types import U8, MakeLabels, Precision, SmoothingMode

BLOCK = 10
"""Runs in a row of one way of smoothing before the next has its turn: a busy moment of the machine hits all alike."""
PICTURES = 8
FPS = 25.0
AHEAD = 2
"""Batches that may be under way at once; the backends allow no more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is combined with what; `runs` timed runs each. An empty `smoothing` is `off` and the engine's own; `size`
    None is the size that a 16:9 camera would be analysed at."""

    engines: tuple[str, ...]
    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("auto",)
    threads: tuple[int, ...] = (1,)
    smoothing: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    batches: tuple[int, ...] = (1,)
    runs: int = 200
    published: tuple[str, ...] = ()
    """Engines that are marked as published by others, beside those whose manifest says so."""


def run(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """{"machine", "cores", "cpu", "runs", "results": [one row a combination], "failed": {combination: why}, "ceilings":
    {precision: measured rates of the GPU}, "gpu": what was seen of it}, times in ms.

    Accuracies are those of the manifests, measured with the precision that `auto` picks; of int8, less what that was
    measured to lose. Raises ConfigError, and EngineError when nothing could be measured.
    """
    _choices("--backend", plan.backends, ("auto", *BACKENDS))
    _choices("--precision", plan.precisions, get_args(Precision))
    _choices("--smoothing", plan.smoothing, get_args(SmoothingMode))
    _choices("--published", plan.published, plan.engines)
    results: list[dict[str, Any]] = []
    failed: dict[str, EngineError] = {}
    facts, ceilings = machine.facts(), Ceilings()
    chosen = product(plan.engines, plan.backends, plan.precisions, plan.threads, plan.batches)
    with machine.watching() as gpu:
        for name, backend, precision, threads, batch in chosen:
            combination = f"{name}, {backend}, {precision}, {threads} thread{'s' if threads > 1 else ''}"
            combination += f", batches of {batch}" if batch > 1 else ""
            say(combination)
            try:
                with machine.cv2_threads(threads):
                    results += _compared(plan, name, backend, precision, threads, batch, ceilings)
            except EngineError as error:
                failed[combination] = error
                say(f"    {error}")
    if not results:
        raise next(iter(failed.values()))
    told = {combination: str(error) for combination, error in failed.items()}
    head = {"machine": facts, "cores": facts["cores"], "cpu": facts["cpu"], "runs": plan.runs}
    return head | {"results": results, "failed": told, "ceilings": ceilings.report(), "gpu": gpu.report()}


def _choices(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [each for each in given if each not in known]:
        raise ConfigError(f"{option}: {unknown[0]!r} is none of {', '.join(known)}")


def _compared(
    plan: Plan, name: str, backend: str, precision: Any, threads: int, batch: int, ceilings: Ceilings
) -> list[dict[str, Any]]:
    """One row for every way of smoothing, in turns; the cost of each against `off`."""
    bundle = find(name)
    modes: list[Any] = list(plan.smoothing or dict.fromkeys(["off", bundle.manifest.smoothing.mode]))
    common: dict[str, Any] = {"backend": backend, "precision": precision, "threads": threads, "size": plan.size}
    common["max_batch"] = max(plan.batches)
    engines = {mode: Engine(bundle, smoothing=mode, **common) for mode in modes}
    size = engines[modes[0]].size_for(1920, 1080)
    pictures = drawn(size)
    lanes = {mode: Lane(engine.program(size), batch) for mode, engine in engines.items()}
    if (largest := lanes[modes[0]].program.max_batch) < batch:
        few = "one picture at a time" if largest == 1 else f"{largest} pictures at a time at most"
        raise EngineError(f"{engines[modes[0]].backend} takes {few}; batches are for {', '.join(ON_GPU)}")
    for lane in lanes.values():
        lane.run(pictures, PICTURES, warm=True)
    for _ in range(0, plan.runs, BLOCK):
        for lane in lanes.values():
            lane.run(pictures, min(BLOCK, plan.runs - len(lane.total)))
    rows = []
    origin = "published" if name in plan.published else bundle.manifest.origin
    known = {"origin": origin, "classes": len(bundle.classes)} | counted(bundle)
    for mode, lane in lanes.items():
        head = {"name": bundle.path.name, "engine": engines[mode].identity, "backend": engines[mode].backend}
        head |= {"precision": engines[mode].precision}  # int8, where `auto` picks that
        head |= known | told_of(bundle, engines[mode].precision)
        row = head | {"threads": threads, "batch": batch, "size": "x".join(map(str, size)), "smoothing": mode}
        row |= lane.report()
        if engines[mode].backend in ON_GPU:
            lane.run_ahead(pictures, plan.runs)
            row |= ceilings.compared(lane, engines[mode].precision, bundle, size, plan.runs)
        if "off" in lanes and mode != "off":
            row |= lane.cost(lanes["off"])
        rows.append(row)
    return rows


@lru_cache(maxsize=2)
def drawn(size: tuple[int, int]) -> tuple[U8, ...]:
    """What is analysed: pictures of the synthetic street, drawn once for all that is compared."""
    street = Street(1, *size, FPS)
    return tuple(street.picture(index) for index in range(PICTURES))


def told_of(bundle: Bundle, precision: str) -> dict[str, Any]:
    """{"miou" 0..1 or None, "miou_of": its data, "bytes"} of the file that runs with that precision."""
    miou, int8 = bundle.manifest.accuracy.get("miou"), bundle.manifest.int8
    file = FLOAT if precision != "int8" else INT8
    if precision == "int8" and miou is not None:
        miou = None if int8 is None or int8.loss is None else round(miou - int8.loss / 100, 4)
    return {"miou": miou, "miou_of": bundle.manifest.accuracy.get("data"), "bytes": (bundle.path / file).stat().st_size}


@dataclass(slots=True)
class Lane:
    """One compiled program, its streams' states, and the milliseconds of every batch: of the graph, and of making the
    labels. Both transfers are within, where there are any: u8 frames come from host memory, and labels go there."""

    program: Program
    batch: int = 1
    states: list[State] = field(default_factory=list)
    ahead_frames_s: float | None = None
    graph: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)

    @property
    def total(self) -> list[float]:
        return [graph + labels for graph, labels in zip(self.graph, self.labels, strict=True)]

    def run(self, pictures: Sequence[U8], runs: int, warm: bool = False) -> None:
        for index in range(runs):
            begin = time.perf_counter_ns()
            makers = self._run(pictures, index)
            ran = time.perf_counter_ns()
            for make_labels in makers:
                make_labels()
            made = time.perf_counter_ns()
            if not warm:
                self.graph.append((ran - begin) / 1e6)
                self.labels.append((made - ran) / 1e6)

    def run_ahead(self, pictures: Sequence[U8], runs: int) -> None:
        """As the pipeline does it: batches are under way while the labels of earlier ones are fetched."""
        waiting: deque[list[MakeLabels]] = deque()
        begin = time.perf_counter()
        for index in range(runs):
            waiting.append(self._run(pictures, index))
            while len(waiting) > AHEAD or (waiting and index == runs - 1):
                for make_labels in waiting.popleft():
                    make_labels()
        self.ahead_frames_s = runs * self.batch / (time.perf_counter() - begin)

    def _run(self, pictures: Sequence[U8], index: int) -> list[MakeLabels]:
        while len(self.states) < self.batch:
            self.states.append(self.program.new_state())
        frames = [pictures[(index + i) % len(pictures)] for i in range(self.batch)]
        return self.program.run(frames, self.states, [1 / FPS] * self.batch)

    def report(self) -> dict[str, Any]:
        """Of a batch; `frames_s` of one batch after the other. `labels_ms` is next to nothing where a backend makes
        labels inside the graph."""
        return {f"{name}_ms": ms for name, ms in percentiles(self.total, 3).items()} | {
            "frames_s": round(1000 * self.batch / statistics.median(self.total), 1),
            "median_ms": round(statistics.median(self.total), 3),
            "min_ms": round(min(self.total), 3),
            "graph_ms": round(statistics.median(self.graph), 3),
            "labels_ms": round(statistics.median(self.labels), 3),
        }

    def cost(self, off: Lane) -> dict[str, float]:
        """What smoothing adds to the time without it, in percent of that."""
        median, least = statistics.median(self.total) / statistics.median(off.total), min(self.total) / min(off.total)
        return {"cost_percent": round(100 * (median - 1), 1), "cost_min_percent": round(100 * (least - 1), 1)}
