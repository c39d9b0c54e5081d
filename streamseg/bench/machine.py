"""The machine that a measurement ran on, so that nobody has to guess later. Any thread.

NVIDIA GPUs are asked through `nvidia-smi`, which comes with every driver: no package is needed for it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2

from streamseg import __version__
from streamseg.engine.machine import cpu

PACKAGES = ("openvino", "onnxruntime", "torch", "triton", "tensorrt", "av", "opencv-python-headless")
ASKED = (
    "index,name,driver_version,memory.used,memory.total,utilization.gpu,temperature.gpu,power.draw,power.limit,"
    "clocks.sm,clocks.mem,"
)
COLUMNS = len(ASKED.split(","))
TAILS = (
    "clocks_event_reasons.active,utilization.decoder",
    "clocks_event_reasons.active",
    "clocks_throttle_reasons.active",
)
"""Older drivers do not know of NVDEC, and those before 535 know the reasons by their older name."""
HELD_BACK = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "too hot (software)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html; idle (1) and clocks as they were set (2,
0x100) hold nothing back."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One line of `nvidia-smi`; None where the driver does not tell. MB are 2**20 bytes, as it counts."""

    index: int | None
    name: str
    driver: str
    memory_used_mb: float | None
    memory_total_mb: float | None
    busy_percent: float | None
    celsius: float | None
    power_w: float | None
    power_limit_w: float | None
    sm_mhz: float | None
    memory_mhz: float | None
    held_back: tuple[str, ...]
    """Why its clocks are lower than they could be: heat, power."""
    decoder_percent: float | None = None
    """Of NVDEC, which is no part of `busy_percent`."""


def facts() -> dict[str, Any]:
    """{"date" UTC, "cpu", "cores", "load" (runnable tasks, mean of a minute), "os", "versions", "gpus"}: JSON-ready."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "os": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version()} | _versions(),
        "gpus": [asdict(gpu) for gpu in gpus()],
    }


def text(told: dict[str, Any]) -> str:
    """`facts` for people."""
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    busy = " (BUSY with something else)" if told["load"] > told["cores"] / 2 else ""
    lines = [
        f"{told['cpu']}, {told['cores']} cores, load {told['load']:.1f} at the start{busy}, {told['os']}",
        f"{told['date']}; {versions}",
    ]
    for gpu in told["gpus"]:
        limit = f"{gpu['power_w']} of {gpu['power_limit_w']} W, {gpu['sm_mhz']} / {gpu['memory_mhz']} MHz"
        held = ", ".join(gpu["held_back"]) or "not held back"
        lines.append(f"{gpu['name']}, driver {gpu['driver']}: {limit}, {gpu['celsius']} °C, {held}")
    return "\n".join(lines)


def gpus() -> list[Gpu]:
    """The GPUs as they are now; none where there is no `nvidia-smi`, or it finds none."""
    return parsed(_asked()[1])


def parsed(output: str) -> list[Gpu]:
    """What `nvidia-smi --query-gpu=… --format=csv,noheader,nounits` printed; lines that are none are passed over."""
    found = []
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) not in (COLUMNS, COLUMNS + 1):
            continue
        index, name, driver, *numbers, reasons = cells[:COLUMNS]
        used, total, busy, heat, power, limit, sm, memory = (_number(cell) for cell in numbers)
        place = int(index) if index.isdigit() else None
        held = _held_back(reasons)
        decoder = _number(cells[COLUMNS]) if len(cells) > COLUMNS else None
        found.append(Gpu(place, name, driver, used, total, busy, heat, power, limit, sm, memory, held, decoder))
    return found


class Watched:
    """What was seen of the GPUs while something ran."""

    def __init__(self) -> None:
        self._seen: list[Gpu] = []

    def note(self, line: str) -> None:
        self._seen += parsed(line)

    def report(self) -> dict[str, Any]:
        """The most memory, of all GPUs together; of those that did any work the most power and heat, the mean work, the
        least clock, every reason for being held back. {} where there are none."""
        seen = [gpu for gpu in self._seen if gpu.busy_percent] or self._seen
        if not seen:
            return {}
        memory: dict[int | None, float] = {}
        for gpu in self._seen:
            if gpu.memory_used_mb is not None:
                memory[gpu.index] = max(memory.get(gpu.index, 0.0), gpu.memory_used_mb)
        return {
            "memory_used_mb": sum(memory.values()) if memory else None,
            "busy_percent": _mean([gpu.busy_percent for gpu in seen]),
            "decoder_percent": _mean([gpu.decoder_percent for gpu in seen]),
            "power_w": _most([gpu.power_w for gpu in seen]),
            "celsius": _most([gpu.celsius for gpu in seen]),
            "least_sm_mhz": min((gpu.sm_mhz for gpu in seen if gpu.sm_mhz is not None), default=None),
            "held_back": sorted({reason for gpu in seen for reason in gpu.held_back}),
        }


@contextmanager
def watching() -> Iterator[Watched]:
    """Asks the GPUs twice a second, in a process of its own; without one nothing happens."""
    watched = Watched()
    command, _ = _asked()
    if not command:
        yield watched
        return
    command = [*command, "--loop-ms=500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout

        def read() -> None:
            for line in lines:
                watched.note(line)

        reader = threading.Thread(target=read, name="streamseg-bench-gpu")
        reader.start()
        try:
            yield watched
        finally:
            process.kill()
            reader.join()


@contextmanager
def cv2_threads(count: int) -> Iterator[None]:
    """OpenCV with so many, -1 for its own default, and as before afterwards."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _asked() -> tuple[list[str], str]:
    """The command whose columns the driver knows, and what it printed; both empty where there is no GPU."""
    for tail in TAILS:
        command = ["nvidia-smi", f"--query-gpu={ASKED}{tail}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            break
        if done.returncode == 0:
            return command, done.stdout
    return [], ""


def _versions() -> dict[str, str]:
    found = {"streamseg": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _number(cell: str) -> float | None:
    """None for `[N/A]`, `[Not Supported]`, `[Unknown Error]` and the like; a unit behind it is passed over."""
    try:
        return float(cell.split()[0])
    except (ValueError, IndexError):
        return None


def _held_back(cell: str) -> tuple[str, ...]:
    try:
        bits = int(cell, 16)
    except ValueError:
        return ()
    return tuple(reason for bit, reason in HELD_BACK.items() if bits & bit)


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return round(sum(told) / len(told), 1) if told else None
