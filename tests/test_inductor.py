"""Programs fused by torch's compiler, on the CPU device: what it computes, and that it is left where it is no gain."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tiny_engine
import torch
from planning import plain
from tiny_engine import NAMES

from streamseg.engine import program, torch_inductor
from streamseg.engine.backends import CompileOptions
from streamseg.engine.program import ProgramSpec
from streamseg.engine.torch_backend import FIRST_STREAMS, BatchedProgram, Core, walked
from streamseg.engine.torch_device import CpuDevice
from streamseg.engine.torch_inductor import Fused, faster
from streamseg.engine.torch_walk import Walk

OPTIONS = CompileOptions(160, 96, "fp32", 1, 2)


def maker(mode: program.SmoothingMode) -> Callable[[Callable[[Walk], Core]], BatchedProgram]:
    model = program.build(tiny_engine.network(), ProgramSpec((0, 0, 0), (1, 1, 1), mode, 1.0))
    return lambda core: walked(model, OPTIONS, CpuDevice(), "fp32", 2, core)


def timed(monkeypatch: pytest.MonkeyPatch, plain_ms: float, fused_ms: float) -> None:
    times = iter([plain_ms, fused_ms])
    monkeypatch.setattr(torch_inductor, "milliseconds", lambda program: next(times))


class Undone(Fused):
    """Stands in for what takes long to compile."""

    def bind(self, *given: Any) -> Any:
        return self._walk.bind(*given)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.timeout(600)
def test_a_fused_program_gives_the_same_labels_and_keeps_the_same_past(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 2.0, 1.0)
    make = maker("average")
    fused, single = faster(make, OPTIONS), make(lambda walk: walk)
    assert isinstance(fused._core, Fused)
    colours = ["white", "square", "ground"]
    states = [[p.new_state() for _ in colours] for p in (fused, single)]
    for turn in range(2):
        pictures = [plain(colours[(turn + at) % 3]) for at in range(3)]
        mine, wanted = (p.run(pictures, s, [0.1] * 3) for p, s in zip((fused, single), states, strict=True))
        for one, other in zip(mine, wanted, strict=True):
            assert np.array_equal(one(), other())
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(fused.values(one), single.values(other), atol=1e-4)


def test_what_is_no_faster_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    monkeypatch.setattr(torch_inductor, "Fused", Undone)
    timed(monkeypatch, 1.0, 1.1)
    assert isinstance(faster(maker("off"), OPTIONS)._core, Walk)
    assert caplog.messages[-1] == "a batch of 2 takes inductor 1.100 ms, instead of 1.000, so it is not used"


@pytest.fixture(params=["it does not compile", "it computes something else"])
def faulty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Faulty(Undone):
        def bind(self, *given: Any) -> Any:
            if request.param == "it does not compile":
                raise LookupError("no kernel for this")
            right = super().bind(*given)
            return lambda: (right()[0].flip(1), None)

    monkeypatch.setattr(torch_inductor, "Fused", Faulty)
    return "no kernel for this" if request.param == "it does not compile" else "only "


def test_what_fails_or_errs_is_not_used(faulty: str, caplog: pytest.LogCaptureFixture) -> None:
    serving = faster(maker("off"), OPTIONS)
    assert isinstance(serving._core, Walk)
    assert f"inductor is not used: {faulty}" in caplog.text
    (make_labels,) = serving.run([plain("square")], [serving.new_state()], [-1.0])
    assert NAMES[np.unique(make_labels())[0]] == "square"


def test_a_pool_that_grows_has_nothing_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def noted(self: Fused, given: Sequence[torch.Tensor]) -> Any:
        compiled.append(len(given[0]))
        return self._walk.settled(*given)

    monkeypatch.setattr(Fused, "_compile", noted)
    serving = maker("average")(Fused)
    states = [serving.new_state() for _ in range(FIRST_STREAMS + 1)]
    (make_labels,) = serving.run([plain("square")], states[-1:], [-1.0])
    assert NAMES[np.unique(make_labels())[0]] == "square"
    assert compiled == [1, 2]


def test_milliseconds_are_those_of_a_batch() -> None:
    assert torch_inductor.milliseconds(maker("off")(lambda walk: walk)) > 0


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_on_a_gpu_a_fused_program_is_a_graph_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    model = program.build(tiny_engine.network(), ProgramSpec((0, 0, 0), (1, 1, 1), "average", 1.0))
    serving = torch_inductor.inductor_program(model, CompileOptions(160, 96, "fp16", 1, 2))
    assert "a batch of 2 takes inductor" in caplog.text
    assert "no CUDA graph" not in caplog.text
    (make_labels,) = serving.run([plain("square")], [serving.new_state()], [-1.0])
    assert NAMES[np.unique(make_labels())[0]] == "square"
