"""What a GPU could do at best, measured once for each precision, and how near a program comes. torch is imported when a
GPU backend is measured, not before."""

from __future__ import annotations

import logging
import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from streamseg.bench.percentiles import percentiles
from streamseg.engine import complexity, program
from streamseg.engine.bundle import Bundle
from streamseg.errors import EngineError
from streamseg.types import Precision

if TYPE_CHECKING:
    from streamseg.bench.engine import Lane
    from streamseg.bench.torch_floor import Ceiling

log = logging.getLogger("streamseg")


class Ceilings:
    """Measures when first asked."""

    def __init__(self) -> None:
        self._known: dict[str, Ceiling] = {}

    def compared(
        self, lane: Lane, precision: Precision, bundle: Bundle, size: tuple[int, int], runs: int
    ) -> dict[str, Any]:
        """Of a batch on a GPU: `work_ms` p50, p95 and p99 without transfers, `kernels_ms` the sum of its kernels,
        `ahead_ms` with transfers, batches overlapping; `floor_ms` what the device could not undercut, None where the
        network does not tell its shapes, or of int8, whose matrix rate is not measured."""
        from streamseg.bench import torch_floor
        from streamseg.engine.torch_backend import BatchedProgram

        found: dict[str, Any] = {"ahead_frames_s": None, "ahead_ms": None}
        if lane.ahead_frames_s:
            found["ahead_frames_s"] = round(lane.ahead_frames_s, 1)
            found["ahead_ms"] = round(1000 * lane.batch / lane.ahead_frames_s, 3)
        compiled = lane.program
        if not isinstance(compiled, BatchedProgram):
            return found
        work = torch_floor.work_ms(compiled, lane.batch, runs)
        kernels = torch_floor.kernels_ms(compiled, lane.batch)
        found |= {f"work_{name}_ms": ms for name, ms in percentiles(work, 3).items()}
        found["kernels_ms"] = None if kernels is None else round(kernels, 3)
        floor = self._floor(compiled, precision, bundle, size, lane.batch)
        if floor is None:
            return found | {"floor_ms": None}
        floor_ms, by_bytes = floor
        return found | {
            "floor_ms": round(floor_ms, 4),
            "floor_bound_by_bytes": round(by_bytes, 2),
            "of_floor": round(statistics.median(work) / floor_ms, 2),
        }

    def report(self) -> dict[str, Any]:
        """{precision: {"copy_bytes_s", "matrix_ops_s"}}; {} where nothing was measured."""
        return {name: asdict(each) for name, each in self._known.items()}

    def _floor(
        self, compiled: Any, precision: Precision, bundle: Bundle, size: tuple[int, int], batch: int
    ) -> tuple[float, float] | None:
        from streamseg.bench import torch_floor

        where = compiled.device.where
        name = ("fp16" if where.type == "cuda" else "fp32") if precision == "auto" else precision
        if name not in torch_floor.TYPES:
            return None
        try:
            work = complexity.work(program.network_of(bundle.program), *size)
        except EngineError:
            return None
        if name not in self._known:
            try:
                self._known[name] = torch_floor.ceiling(where, name)
            except RuntimeError as error:  # no room for the matrices beside the program
                log.warning("the floor cannot be measured: %s", str(error).splitlines()[0])
                return None
        return self._known[name].floor_ms(work, batch, size[0] * size[1])
