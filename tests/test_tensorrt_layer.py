"""The thin layer itself, with an imitation of TensorRT's Python module: objects that have the names which the bindings
have (`tensorrt_names`) and nothing else, and answer as TensorRT's documentation says."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from tensorrt_names import NAMES

from streamseg.engine.tensorrt_build import Profile, Stopped
from streamseg.errors import EngineError

PROFILE = Profile({"frames": ((1, 96, 160, 3), (4, 96, 160, 3), (4, 96, 160, 3))})


def thing(kind: str, **answers: Any) -> Any:
    return Mock(spec=sorted(NAMES[kind]), **answers)


class Imitation(ModuleType):
    """The module `tensorrt`, and what its builder was told."""

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.__version__ = "11.4.0.106"
        for kind in NAMES["tensorrt"] - {"__version__"}:
            setattr(self, kind, type(kind, (), {name: f"{kind}.{name}" for name in NAMES[kind]}))
        self.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1  # type: ignore[attr-defined]
        self.logger: Any = None
        self.error = thing("ParserError", **{"node_name.return_value": "Conv_7", "desc.return_value": "no such kernel"})
        self.parser = thing(
            "OnnxParser", **{"parse.return_value": True, "num_errors": 1, "get_error.return_value": self.error}
        )
        self.OnnxParser = lambda network, logger: self.parser
        self.cache = thing("ITimingCache", **{"serialize.return_value": bytearray(b"measured")})
        self.config = thing(
            "IBuilderConfig", **{"create_timing_cache.return_value": self.cache, "set_timing_cache.return_value": True}
        )
        self.profile = thing("IOptimizationProfile")
        self.plan: Any = bytearray(b"plan")
        self.builder = thing(
            "Builder",
            **{
                "create_builder_config.return_value": self.config,
                "create_optimization_profile.return_value": self.profile,
                "build_serialized_network.side_effect": self.build,
            },
        )
        self.Builder = self.made
        self.runtime = thing("Runtime", **{"deserialize_cuda_engine.return_value": None})
        self.Runtime = lambda logger: self.runtime

    def made(self, logger: Any) -> Any:
        self.logger = logger
        return self.builder

    def build(self, network: Any, config: Any) -> Any:
        monitor = self.config.progress_monitor
        monitor.phase_start("Building Engine", None, 2)
        for step in range(2):
            if not monitor.step_complete("Building Engine", step):
                return None
        monitor.phase_finish("Building Engine")
        return self.plan


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Imitation:
    imitation = Imitation()
    monkeypatch.setitem(sys.modules, "tensorrt", imitation)
    monkeypatch.setattr("torch.cuda.device", lambda index: nullcontext())
    return imitation


@pytest.fixture
def layer(trt: Imitation) -> Iterator[Any]:
    """Imported anew, as its classes are made of TensorRT's."""
    name = "streamseg.engine.tensorrt_layer"
    kept = sys.modules.pop(name, None)
    yield importlib.import_module(name).TensorRt()
    del sys.modules[name]
    if kept is not None:
        sys.modules[name] = kept


def compiled(layer: Any, timing: bytes = b"", step: Callable[[float], bool] = lambda share: True) -> Any:
    return layer.compile(b"graph", [PROFILE], timing, step)


def test_a_plan_is_built_of_a_strongly_typed_network(layer: Any, trt: Imitation) -> None:
    shares: list[float] = []
    made = compiled(layer, b"before", lambda share: shares.append(share) or True)  # type: ignore[func-returns-value]
    assert (made.plan, made.timing) == (b"plan", b"measured")
    assert shares == [0.5, 1.0]
    trt.builder.create_network.assert_called_once_with(1 << 1)
    trt.parser.parse.assert_called_once_with(b"graph")
    trt.profile.set_shape.assert_called_once_with("frames", *PROFILE.shapes["frames"])
    trt.config.add_optimization_profile.assert_called_once_with(trt.profile)
    trt.config.create_timing_cache.assert_called_once_with(b"before")
    trt.config.clear_flag.assert_called_once_with("BuilderFlag.TF32")


def test_a_timing_cache_of_another_version_is_replaced(layer: Any, trt: Imitation) -> None:
    trt.config.set_timing_cache.side_effect = [False, True]
    assert compiled(layer, b"old").timing == b"measured"
    assert [call.args for call in trt.config.create_timing_cache.call_args_list] == [(b"old",), (b"",)]
    trt.config.set_timing_cache.side_effect = None
    trt.config.create_timing_cache.side_effect = [None, trt.cache]
    assert compiled(layer, b"damaged").timing == b"measured"


def test_what_the_parser_finds_is_said(layer: Any, trt: Imitation) -> None:
    trt.parser.parse.return_value = False
    with pytest.raises(EngineError, match="cannot read the program: Conv_7: no such kernel"):
        compiled(layer)


def test_a_build_ends_when_it_is_told_to(layer: Any, trt: Imitation) -> None:
    with pytest.raises(Stopped):
        compiled(layer, step=lambda share: False)


def test_a_build_that_fails_says_tensorrt_s_last_error(layer: Any, trt: Imitation) -> None:
    trt.plan = None
    trt.builder.build_serialized_network.side_effect = lambda network, config: trt.logger.log(
        "ILogger.ERROR", "Could not find any\n implementation"
    )
    with pytest.raises(EngineError, match="cannot build the plan: Could not find any implementation"):
        compiled(layer)


def test_no_gpu_and_plans_that_do_not_load_are_said(layer: Any, trt: Imitation) -> None:
    with pytest.raises(EngineError, match="cannot load the plan"):
        layer.load(b"plan")

    def none(logger: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder = trt.Runtime = none
    for asked in (lambda: compiled(layer), lambda: layer.load(b"plan")):
        with pytest.raises(EngineError, match="TensorRT does not start: no GPU that it can use"):
            asked()
