"""What stands between a plan's build and TensorRT: the layer that tests replace, and how far a build is. Passive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from streamseg.errors import EngineError

if TYPE_CHECKING:
    from streamseg.engine.torch_backend import Core
    from streamseg.engine.torch_device import Device

Shape = tuple[int, ...]
Step = Callable[[float], bool]
"""Told the share (0..1) of a build that is done, from time to time; False ends the build."""


class Stopped(EngineError):
    """A build was ended by its `Step`."""


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """What a plan is for, beside its model: it runs on no other."""

    tensorrt: str
    gpu: str
    capability: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes that a plan takes, by input: the smallest, the one that it is tuned for, the largest."""

    shapes: dict[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True, slots=True)
class Compiled:
    plan: bytes = field(repr=False)
    timing: bytes = field(repr=False)
    """What was measured of kernels, for the next build."""


class Layer(Protocol):
    """TensorRT and the GPU, or what stands in for them in tests."""

    def identity(self) -> GpuIdentity: ...

    def device(self) -> Device: ...

    def compile(self, graph: bytes, profiles: Sequence[Profile], timing: bytes, step: Step) -> Compiled:
        """`graph` is an ONNX model, strongly typed. Raises EngineError, Stopped."""
        ...

    def load(self, plan: bytes) -> Core: ...


class Phases:
    """How far a build is, from TensorRT's nested phases: a phase's share is that of its steps, the present one's being
    the share of the phases inside it. Phases of the same parent may run one after another, or at once."""

    def __init__(self) -> None:
        self._steps: dict[str, list[int]] = {}
        self._parents: dict[str, str | None] = {}
        self._root = ""
        self._share = 0.0

    @property
    def share(self) -> float:
        """0..1; never less than before, as a build that goes back would only puzzle."""
        if self._root in self._steps:
            self._share = max(self._share, min(1.0, self._of(self._root)))
        return self._share

    def start(self, name: str, parent: str | None, steps: int) -> None:
        if parent is None:
            self._root = name
        self._steps[name] = [0, max(1, steps)]
        self._parents[name] = parent

    def step(self, name: str, step: int) -> None:
        if name in self._steps:
            self._steps[name][0] = step + 1

    def finish(self, name: str) -> None:
        self._steps.pop(name, None)
        self._parents.pop(name, None)

    def _of(self, name: str) -> float:
        done, steps = self._steps[name]
        inside = [self._of(child) for child, parent in self._parents.items() if parent == name]
        return (done + (min(1.0, max(inside)) if inside and done < steps else 0.0)) / steps
