"""`streamseg engine build --backend tensorrt`: plans of a bundle, built, proven and timed. In the calling thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from streamseg.engine import program
from streamseg.engine.backends import CompileOptions, Program
from streamseg.engine.bundle import Bundle
from streamseg.engine.program import ProgramSpec
from streamseg.engine.tensorrt_backend import TensorRtBackend, Wish, samples
from streamseg.errors import EngineError

WARM_UPS, RUNS = 5, 30


@dataclass(frozen=True, slots=True)
class Order:
    """`size` (width, height) None: what the bundle's own is at 16:9. `bound` None: as `tensorrt_backend.BOUNDS`."""

    bundle: Bundle
    spec: ProgramSpec
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    size: tuple[int, int] | None = None
    max_batch: int = 32
    bound: float | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """`agreement`: the share of labels that are the exact program's. `frames_per_s`: of full batches, two under
    way, from frames in host memory to labels in host memory."""

    precision: str
    width: int
    height: int
    max_batch: int
    gpu: str
    tensorrt: str
    agreement: float
    build_seconds: float
    megabytes: float
    frames_per_s: float
    file: str

    def report(self) -> dict[str, Any]:
        return asdict(self)

    def row(self) -> dict[str, Any]:
        """For a table, by its columns' titles."""
        return {
            "precision": self.precision,
            "size": f"{self.width}x{self.height}",
            "batch": self.max_batch,
            "labels as in fp32": f"{100 * self.agreement:.2f} %",
            "frames/s": f"{self.frames_per_s:,.0f}",
            "MB": self.megabytes,
            "built in": f"{self.build_seconds:.0f} s",
            "for": f"{self.gpu}, TensorRT {self.tensorrt}",
        }


def run(order: Order, report: Callable[[str], None], backend: TensorRtBackend | None = None) -> list[Built]:
    """One plan a precision; "auto" makes one in fp16, and one in int8 where the bundle has it. Raises EngineError when
    none can be used."""
    backend = backend or TensorRtBackend()
    both = ["fp16"] + (["int8"] if order.bundle.manifest.int8 and not order.bundle.int8_fault else [])
    wanted = both if order.precision == "auto" else [order.precision]
    built: list[Built] = []
    for precision in wanted:
        try:
            built.append(_one(order, precision, report, backend))
        except EngineError as error:
            if precision == wanted[-1] and not built:
                raise
            report(f"{precision}: {error}")
    if len(built) > 1:
        report(_advice(built))
    return built


def _advice(built: list[Built]) -> str:
    """The daemon takes fp16 unless it is told otherwise: what int8 gives up is for its user to decide."""
    speed = {each.precision: each.frames_per_s for each in built}
    ratio = speed["int8"] / speed["fp16"]
    use = "set engine.precision: int8 to run it" if ratio > 1.05 else "fp16, which runs by default, is the better one"
    return f"int8 gives {ratio:.2f} times the frames of fp16: {use}"


def _one(order: Order, precision: str, report: Callable[[str], None], backend: TensorRtBackend) -> Built:
    bundle, entry = order.bundle, order.bundle.manifest.input
    exact = program.build(program.network_of(bundle.program), order.spec)
    model = program.build(program.network_of(bundle.int8_program), order.spec) if precision == "int8" else exact
    size = order.size or bundle.fit(entry.width, entry.height)
    options = CompileOptions(*size, precision, 1, order.max_batch)  # type: ignore[arg-type]
    if order.again:
        backend.plans.forget(backend.key(model, options))
    key, plan = backend.build(Wish(model, options, exact, order.bound), lambda share: True, report)
    speed = frames_per_s(backend.compile(model, options), options)
    return Built(
        precision=key.precision,
        width=key.width,
        height=key.height,
        max_batch=key.batches[-1],
        gpu=key.gpu,
        tensorrt=key.tensorrt,
        agreement=round(plan.measured["agreement"], 5),
        build_seconds=plan.measured["seconds"],
        megabytes=round(len(plan.data) / 1e6, 2),
        frames_per_s=speed,
        file=str(backend.plans.folder / f"{key.digest}.plan"),
    )


def frames_per_s(compiled: Program, options: CompileOptions) -> float:
    """Of full batches; two are under way at once, as in the daemon. Median of `RUNS` batches."""
    pictures = samples(options)
    batch = [pictures[i % len(pictures)] for i in range(compiled.max_batch)]
    states = [compiled.new_state() for _ in batch]
    waiting = compiled.run(batch, states, [0.04] * len(batch))
    spent = []
    for _ in range(WARM_UPS + RUNS):
        begin = time.perf_counter()
        following = compiled.run(batch, states, [0.04] * len(batch))
        for make_labels in waiting:
            make_labels()
        waiting = following
        spent.append(time.perf_counter() - begin)
    for make_labels in waiting:
        make_labels()
    return round(len(batch) / statistics.median(spent[WARM_UPS:]), 1)
