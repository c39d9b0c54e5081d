"""Where each stream is decoded, scaled and analysed: decided once, at the start, from what the machine has.

`place` is a pure function; what the machine has is data (`Machine`), which `here` finds out. A stage that a machine has
not falls back alone: without NVDEC or Triton, frames are decoded and scaled on the CPU and uploaded from pinned memory;
without a GPU, or a torch that can use it, everything is done on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from streamseg.engine.backends import ON_GPU, index_of
from streamseg.engine.machine import gpu_names
from streamseg.errors import BackendUnavailable, ConfigError
from streamseg.ingest import nvdec

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the GPU path there is. `gpus`: names, by index. The others: why a stage cannot be done there; "" where it
    can."""

    gpus: tuple[str, ...] = ()
    no_engine: str = ""
    no_scaling: str = ""
    no_decoding: str = ""

    @property
    def on_gpu(self) -> bool:
        """Whether frames can be decoded and scaled where they are analysed; one without the other gains nothing."""
        return not (self.no_scaling or self.no_decoding)


@dataclass(frozen=True, slots=True)
class Placement:
    """`devices`: "cpu" or "cuda:N" for each stream, where its engine is. `decoding`: whether that GPU decodes too.
    `told`: a line for the log."""

    devices: dict[str, str]
    decoding: bool
    told: str

    @property
    def engines(self) -> list[str]:
        """The devices that need an engine, each once."""
        return sorted(set(self.devices.values()), key=lambda device: (len(device), device))

    def decoder(self, stream: str) -> int | None:
        """The index of the GPU that decodes a stream; None: the CPU does."""
        device = self.devices[stream]
        return index_of(device) if self.decoding and device != CPU else None


def place(streams: Sequence[str], device: str, backend: str, ask: Callable[[], Machine]) -> Placement:
    """`device`: auto, cpu or cuda:N; `backend`: as in the configuration; `ask` is asked only where it matters. Raises
    ConfigError where the two contradict each other, BackendUnavailable where a GPU is wanted and cannot be used."""
    for_gpu, for_cpu = backend in ON_GPU, backend not in ("auto", *ON_GPU)
    if device.startswith("cuda") and for_cpu:
        raise ConfigError(
            f"engine.device: {device}, but {backend} runs on the CPU; choose backend: auto, or device: cpu"
        )
    if device == CPU and for_gpu:
        raise ConfigError(f"engine.device: cpu, but {backend} runs on a GPU; choose backend: auto, or device: auto")
    if device == CPU or for_cpu:
        return _on_cpu(streams, "the CPU decodes, scales and analyses, as it was told to")
    machine = ask()
    usable = _usable(device, machine)
    if usable:
        devices = spread(streams, usable)
        return Placement(devices, machine.on_gpu, _told(devices, machine))
    why = f"{_named(machine.gpus)} is not used: {machine.no_engine}" if machine.gpus else "no NVIDIA GPU"
    if for_gpu:
        raise BackendUnavailable(f"backend {backend!r} needs an NVIDIA GPU ({why}); choose auto")
    return _on_cpu(streams, f"the CPU decodes, scales and analyses ({why})")


def spread(streams: Sequence[str], gpus: Sequence[int]) -> dict[str, str]:
    """In turn, so that no GPU has two streams more than another. How much work a stream is (its size and rate) is not
    known before it is opened."""
    return {stream: f"cuda:{gpus[at % len(gpus)]}" for at, stream in enumerate(streams)}


def here() -> Machine:
    """Takes a moment without a GPU, seconds with one: torch is imported, and the kernel compiled and tried."""
    gpus = gpu_names()
    if not gpus:
        return Machine()
    if no_engine := _no_engine():
        return Machine(gpus, no_engine)
    return Machine(gpus, "", _no_scaling(), nvdec.missing(0))


def _no_engine() -> str:
    if find_spec("torch") is None:
        return "torch is not installed; pip install 'streamseg[cuda]'"
    from streamseg.engine.torch_device import no_cuda

    return no_cuda()


def _no_scaling() -> str:
    if find_spec("triton") is None:
        return "Triton is not installed; pip install 'streamseg[cuda]'"
    from streamseg.nvidia import nv12

    return nv12.trial("cuda:0")


def _usable(device: str, machine: Machine) -> list[int]:
    if device == "auto":
        return [] if machine.no_engine else list(range(len(machine.gpus)))
    index = index_of(device)
    if index >= len(machine.gpus):
        there = ", ".join(f"cuda:{i} ({name})" for i, name in enumerate(machine.gpus)) or "no NVIDIA GPU"
        raise BackendUnavailable(f"engine.device: {device} is not here; there is {there}; or choose auto")
    if machine.no_engine:
        raise BackendUnavailable(f"engine.device: {device} cannot be used: {machine.no_engine}; or choose auto")
    return [index]


def _on_cpu(streams: Sequence[str], told: str) -> Placement:
    return Placement(dict.fromkeys(streams, CPU), False, told)


def _told(devices: dict[str, str], machine: Machine) -> str:
    used = sorted({index_of(device) for device in devices.values()})
    names = _named([machine.gpus[index] for index in used])
    if machine.on_gpu:
        return f"{names}: decodes, scales and analyses{_shares(devices)}"
    why = machine.no_decoding or machine.no_scaling
    return f"{names}: analyses{_shares(devices)}; the CPU decodes and scales, and uploads ({why})"


def _named(gpus: Sequence[str]) -> str:
    """`2 x NVIDIA H200`, `NVIDIA L4 and NVIDIA T4`."""
    counts = {name: list(gpus).count(name) for name in gpus}
    return " and ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())


def _shares(devices: dict[str, str]) -> str:
    """Who has which streams, where there is a choice."""
    of: dict[str, list[str]] = {}
    for stream, device in devices.items():
        of.setdefault(device, []).append(stream)
    if len(of) == 1:
        return ""
    return " (" + "; ".join(f"{device}: {', '.join(streams)}" for device, streams in of.items()) + ")"
