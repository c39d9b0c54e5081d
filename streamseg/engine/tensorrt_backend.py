"""The TensorRT backend: programs as plans, built once a GPU and kept. In the calling thread; building takes minutes.

A plan is kept only if its labels are those of the exact program, within a bound, on sample pictures; one that is kept
is run only if it is of this very model, version, GPU, precision and size, and whole (see `plans`).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import numpy as np
import onnx

from streamseg.engine.backends import CompileOptions, Program, on_cpu
from streamseg.engine.half import QUANTISERS
from streamseg.engine.plans import Plan, PlanKey, Plans
from streamseg.engine.tensorrt_build import Layer, Profile
from streamseg.engine.tensorrt_graph import PlanPrecision, for_tensorrt, takes_batches
from streamseg.errors import BackendUnavailable, EngineError
from streamseg.types import U8

log = logging.getLogger("streamseg")
BOUNDS: dict[PlanPrecision, float] = {"fp32": 0.999, "fp16": 0.99, "int8": 0.95}
"""The least share of labels that must be those of the exact program. In fp16, 0.9999 are on the synthetic street
(computed on a CPU); int8 is allowed what `engine build --precision int8` may have lost already."""
SAMPLES = 8
Report = Callable[[str], None]


def _real_layer(index: int = 0) -> Layer:
    """Raises BackendUnavailable where TensorRT's libraries do not load, or torch cannot use the GPU."""
    try:
        from streamseg.engine.tensorrt_layer import TensorRt, no_cuda
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"TensorRT cannot be loaded: {' '.join(str(error).split())}") from error
    if reason := no_cuda():
        raise BackendUnavailable(f"TensorRT needs a torch that can use the GPU: {reason}")
    return TensorRt(index)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to build. `exact` is the float program that the gate compares with; `model` itself unless that is int8."""

    model: onnx.ModelProto
    options: CompileOptions
    exact: onnx.ModelProto | None = None
    bound: float | None = None
    pictures: Sequence[U8] = ()
    """Of the size of `options`; by default the synthetic street."""


@dataclass(frozen=True, slots=True)
class TensorRtBackend:
    """`layer` and `plans` are replaced in tests; all else is the same there."""

    layer: Callable[[], Layer] = _real_layer
    plans: Plans = field(default_factory=Plans)

    @classmethod
    def on(cls, gpu: int) -> TensorRtBackend:
        return cls(partial(_real_layer, gpu))

    def ready(self, model: onnx.ModelProto, options: CompileOptions) -> bool:
        """Whether `compile` takes a moment, as the plan is there."""
        _, key = self._graph(model, options, self.layer())
        return self.plans.get(key) is not None

    def compile(self, model: onnx.ModelProto, options: CompileOptions) -> Program:
        """From the plan, which is built now, in minutes, if it is not there. Raises EngineError, Stopped."""
        key, plan = self.build(Wish(model, options), lambda share: True, log.info)
        try:
            return self._program(self.layer(), plan.data, model, options, key)
        except RuntimeError as error:  # out of memory
            if isinstance(error, EngineError):
                raise
            raise EngineError(f"TensorRT cannot take the program: {str(error).splitlines()[0]}") from error

    def prepare(self, model: onnx.ModelProto, options: CompileOptions, stop: threading.Event) -> None:
        self.build(Wish(model, options), lambda share: not stop.is_set(), log.info)

    def build(self, wish: Wish, step: Callable[[float], bool], report: Report) -> tuple[PlanKey, Plan]:
        """The plan, from the cache or put there. Raises EngineError (also where one was refused before), Stopped."""
        layer = self.layer()
        graph, key = self._graph(wish.model, wish.options, layer)
        with self.plans.building(key):
            if kept := self.plans.get(key):
                return key, kept
            if why := self.plans.refusal(key):
                raise EngineError(f"{why} (of an earlier build; `streamseg engine build --again` tries anew)")
            begin = time.monotonic()
            profiles = _profiles(graph, key)
            compiled = layer.compile(
                graph.SerializeToString(), profiles, self.plans.timing(key), _told(step, key, report)
            )
            seconds = round(time.monotonic() - begin, 1)
            self.plans.put_timing(key, compiled.timing)
            measured = {"seconds": seconds, "agreement": self._agreement(layer, compiled.plan, wish, key)}
            bound = BOUNDS[cast(PlanPrecision, key.precision)] if wish.bound is None else wish.bound
            text = f"{100 * measured['agreement']:.2f} % of the labels are those of the exact program"
            if measured["agreement"] < bound:
                why = f"the plan in {key.precision} is not used: {text}, less than {100 * bound:g} %"
                self.plans.refuse(key, why)
                raise EngineError(why)
            plan = Plan(compiled.plan, measured)
            self.plans.put(key, plan)
            report(f"TensorRT: {_of(key)} built in {seconds:.0f} s; {text}")
            return key, plan

    def key(self, model: onnx.ModelProto, options: CompileOptions) -> PlanKey:
        return self._graph(model, options, self.layer())[1]

    def _graph(self, model: onnx.ModelProto, options: CompileOptions, layer: Layer) -> tuple[onnx.ModelProto, PlanKey]:
        """The graph to compile, and the key of its plan."""
        precision = precision_of(model, options)
        graph = for_tensorrt(model, precision, options.width, options.height)
        batches = (1, options.max_batch) if options.max_batch > 1 and takes_batches(graph) else (1,)
        here = layer.identity()
        digest = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
        size = options.width, options.height
        return graph, PlanKey(digest, here.tensorrt, here.gpu, here.capability, precision, *size, batches)

    def _program(
        self, layer: Layer, plan: bytes, model: onnx.ModelProto, options: CompileOptions, key: PlanKey
    ) -> Program:
        from streamseg.engine.torch_backend import BatchedProgram, labels_for, shape_of

        core, device = layer.load(plan), layer.device()
        return BatchedProgram(shape_of(model, options), core, device, key.batches[-1], labels_for(device.where))

    def _agreement(self, layer: Layer, plan: bytes, wish: Wish, key: PlanKey) -> float:
        """The share of equal labels over the sample pictures, each by itself."""
        pictures = list(wish.pictures) or samples(wish.options)
        tried = self._program(layer, plan, wish.model, wish.options, key)
        exact = exact_program(wish.exact or wish.model, wish.options)
        return agreement(tried, exact, pictures)


def precision_of(model: onnx.ModelProto, options: CompileOptions) -> PlanPrecision:
    """auto: int8 for a network that is quantised, else fp16. Raises EngineError."""
    quantised = any(node.op_type in QUANTISERS for node in model.graph.node)
    wanted = {"auto": "int8" if quantised else "fp16"}.get(options.precision, options.precision)
    if wanted not in BOUNDS:
        raise EngineError(f"the TensorRT backend computes in {', '.join(BOUNDS)}, not in {wanted}")
    return wanted


def samples(options: CompileOptions) -> list[U8]:
    """Pictures of the synthetic street, seconds apart."""
    from streamseg.synthetic import Street

    street = Street(3, options.width, options.height, 25.0)
    return [street.picture(25 * index) for index in range(SAMPLES)]


def exact_program(model: onnx.ModelProto, options: CompileOptions) -> Program:
    """In fp32 on a CPU."""
    return on_cpu()(model, replace(options, precision="fp32"))


def agreement(one: Program, other: Program, pictures: Sequence[U8]) -> float:
    """The share of labels that are equal, each picture taken for a stream's first."""
    shares = []
    for picture in pictures:
        first, second = (p.run([picture], [p.new_state()], [-1.0])[0]() for p in (one, other))
        shares.append(float(np.mean(first == second)))
    return float(np.mean(shares))


def _profiles(graph: onnx.ModelProto, key: PlanKey) -> list[Profile]:
    """One for a single picture, and one for all larger batches, tuned for the largest."""
    shapes = {
        value.name: tuple(dim.dim_value for dim in list(value.type.tensor_type.shape.dim)[1:])
        for value in graph.graph.input
    }
    made = []
    for largest in key.batches:
        smallest = min(2, largest)
        made.append(Profile({name: ((smallest, *s), (largest, *s), (largest, *s)) for name, s in shapes.items()}))
    return made


def _told(step: Callable[[float], bool], key: PlanKey, report: Report) -> Callable[[float], bool]:
    """A line at every tenth of the way: builds take minutes, and silence looks like a hang."""
    tenth = 0

    def told(share: float) -> bool:
        nonlocal tenth
        if int(10 * share) > tenth:
            tenth = int(10 * share)
            report(f"TensorRT: building {_of(key)}: {10 * tenth} %")
        return step(share)

    report(f"TensorRT: building {_of(key)}; this takes minutes, once")
    return told


def _of(key: PlanKey) -> str:
    return f"a plan at {key.width}x{key.height} in {key.precision}, batches of up to {key.batches[-1]}, for {key.gpu}"
