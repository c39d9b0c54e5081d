"""How fast an engine is on this machine, as the daemon would run it: measured once, in the thread that asks, and kept
in the user's cache."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streamseg.bench import machine
from streamseg.bench.engine import Lane, drawn
from streamseg.engine.backends import BACKENDS, choose
from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.engine.machine import cpu, keep, kept_at

WARM_UPS, RUNS = 5, 20
CAMERA = (1920, 1080)


@dataclass(frozen=True, slots=True)
class Speed:
    """`ms` a picture; `precision` is int8 where `auto` picked that, else auto."""

    ms: float
    precision: str


def remembered(bundle: Bundle) -> Speed | None:
    """As measured earlier of this very model, with this backend, on this kind of CPU."""
    try:
        kept = json.loads(_file(bundle).read_text())
        return Speed(float(kept["ms"]), str(kept["precision"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@machine.cv2_threads(1)  # as in the daemon
def measured(bundle: Bundle) -> Speed:
    """The median of 20 runs in ms: one picture of a 16:9 camera in memory to its label map, one thread, the backend and
    the precision that `auto` picks, the engine's own smoothing. Kept for `remembered`. Raises EngineError."""
    engine = Engine(bundle, threads=1)
    size = engine.size_for(*CAMERA)
    pictures, lane = drawn(size), Lane(engine.program(size))
    lane.run(pictures, WARM_UPS, warm=True)
    lane.run(pictures, RUNS)
    ms = round(statistics.median(lane.total), 3)
    keep(_file(bundle), {"engine": engine.identity, "ms": ms, "precision": engine.precision, "cpu": cpu()})
    return Speed(ms, engine.precision)


def backend() -> str:
    """Name and version of the backend that `auto` picks. Raises BackendUnavailable."""
    name, _ = choose("auto")
    try:
        return f"{name} {version(BACKENDS[name][0])}"
    except PackageNotFoundError:  # installed under another name, such as onnxruntime-gpu
        return name


def _file(bundle: Bundle) -> Path:
    """Named by all that the time hangs on; another model, setting, backend or CPU has another file."""
    told = {"accuracy", "description", "licence", "data", "origin"}
    settings = bundle.manifest.model_dump(mode="json", exclude=told)
    models = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(bundle.path.glob("*.onnx"))}
    return kept_at("speeds", [settings, models, backend(), "auto", cpu(), RUNS])
