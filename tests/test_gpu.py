"""On an NVIDIA GPU: torch-cuda gives the CPU's answers, its work is captured in graphs, memory does not grow, engines
do not disturb each other, one takes over from another under load; and TensorRT, where it is installed, likewise."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import tiny_engine
from clips import Clips
from planning import OPTIONS, TINY, plain
from taking_over import Held, climb, rung, taken_over
from tiny_engine import NAMES

from streamseg.config import validated
from streamseg.engine import program
from streamseg.engine.backends import BACKENDS, CompileOptions, Program, choose
from streamseg.engine.bundle import find
from streamseg.engine.engine import spec_of
from streamseg.engine.plans import Plans
from streamseg.engine.tensorrt_backend import TensorRtBackend, Wish, exact_program
from streamseg.engine.torch_backend import BatchedProgram
from streamseg.engine.torch_device import CudaDevice
from streamseg.pipeline import Pipeline
from streamseg.synthetic import Street
from streamseg.types import U8, Precision

pytestmark = pytest.mark.gpu

tensorrt = pytest.mark.skipif(find_spec("tensorrt") is None, reason="TensorRT is not installed")
STREET = Street(3, 480, 272, 25.0)
MIB = 1 << 20


@cache
def street(index: int) -> U8:
    return STREET.picture(index)


def model(mode: program.SmoothingMode = "adaptive") -> onnx.ModelProto:
    bundle = find("street-edge")
    return program.build(program.network_of(bundle.program), spec_of(bundle, mode))


def options(precision: Precision = "auto", max_batch: int = 8) -> CompileOptions:
    return CompileOptions(480, 272, precision, 1, max_batch)


def cuda(given: onnx.ModelProto, how: CompileOptions) -> Program:
    return BACKENDS["torch-cuda"][1](given, how)


def walked(compiled: Program, streams: int, turns: int) -> list[U8]:
    """Labels of every stream's every frame: each stream sees the street from another place."""
    states = [compiled.new_state() for _ in range(streams)]
    labels = []
    for turn in range(turns):
        pictures = [street((4 * turn + 12 * stream) % 100) for stream in range(streams)]
        labels += [make() for make in compiled.run(pictures, states, [0.16] * streams)]
    return labels


def agreement(one: list[U8], other: list[U8]) -> float:
    return float(np.mean([np.mean(a == b) for a, b in zip(one, other, strict=True)]))


@pytest.mark.parametrize("mode", ["off", "average", "adaptive"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.9995), ("fp16", 0.995), ("bf16", 0.97)])
def test_labels_are_those_of_the_cpu(mode: program.SmoothingMode, precision: Precision, bound: float) -> None:
    """Five streams, so that buckets of 8 are padded; smoothed from frame to frame."""
    exact = walked(exact_program(model(mode), options()), 5, 4)
    assert agreement(walked(cuda(model(mode), options(precision)), 5, 4), exact) >= bound


def test_every_bucket_is_a_graph_and_gives_what_single_kernels_give(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = [walked(cuda(model(), options()), streams, 3) for streams in (1, 2, 3, 8)]
    assert "no CUDA graph" not in caplog.text
    monkeypatch.setattr(CudaDevice, "graph", lambda self, function: function)
    single = [walked(cuda(model(), options()), streams, 3) for streams in (1, 2, 3, 8)]
    for one, other in zip(captured, single, strict=True):
        assert agreement(one, other) >= 0.9995, "kernels may be chosen anew, and round otherwise"


def test_a_graph_reads_nothing_that_others_may_write_to() -> None:
    """Whatever memory is free after the captures is taken, by the program's own stream, and spoilt."""
    import torch

    compiled = cuda(model(), options())
    assert isinstance(compiled, BatchedProgram)
    with torch.inference_mode(), compiled.device.work():
        taken = [torch.full((1 << power,), torch.nan, device=compiled.where) for power in [*range(7, 25)] * 8]
    exact = walked(exact_program(model(), options()), 5, 3)
    assert agreement(walked(compiled, 5, 3), exact) >= 0.995
    assert all(each.isnan().all() for each in taken), "a graph writes to memory that is not its own"


@pytest.mark.timeout(600)
def test_memory_does_not_grow_over_10_000_batches() -> None:
    """Of the GPU and of the process (pinned memory is its too), with streams that come and go."""
    import torch

    compiled = cuda(model(), options())
    states = [compiled.new_state() for _ in range(8)]
    process = psutil.Process()
    taken: list[tuple[int, int]] = []
    for batch in range(10_500):
        count = 1 + batch % 8
        if batch % 50 == 0:
            states[batch // 50 % 8] = compiled.new_state()
        makers = compiled.run([street(8 * i) for i in range(count)], states[:count], [0.04] * count)
        if batch % 3 == 0:
            makers[-1]()
        if batch in (499, 10_499):
            makers[0]()
            gc.collect()
            torch.cuda.synchronize()
            taken.append((torch.cuda.memory_reserved(), process.memory_info().rss))
    (gpu, rss), (gpu_later, rss_later) = taken
    assert gpu_later - gpu <= 32 * MIB
    assert rss_later - rss <= 64 * MIB


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    answers: list[Any] = [None] * len(functions)

    def call(index: int) -> None:
        answers[index] = functions[index]()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers


def test_two_engines_at_once_do_not_disturb_each_other() -> None:
    one, two = cuda(model(), options()), cuda(model("average"), options())
    alone = walked(one, 3, 10), walked(two, 6, 10)
    together = in_threads(lambda: walked(one, 3, 10), lambda: walked(two, 6, 10))
    assert agreement(together[0], alone[0]) == 1.0
    assert agreement(together[1], alone[1]) == 1.0


def test_one_is_captured_while_another_serves(caplog: pytest.LogCaptureFixture) -> None:
    """As a better backend is prepared in the daemon: the one that serves allocates and copies all the while."""
    serving = cuda(model(), options())
    alone = walked(serving, 8, 40)
    made, together = in_threads(lambda: cuda(model("average"), options()), lambda: walked(serving, 8, 40))
    assert agreement(together, alone) == 1.0
    assert agreement(walked(made, 3, 4), walked(cuda(model("average"), options()), 3, 4)) >= 0.9995
    assert "no CUDA graph" not in caplog.text


def test_a_pool_that_grows_is_captured_anew(caplog: pytest.LogCaptureFixture) -> None:
    compiled = cuda(TINY, OPTIONS)
    colours = [NAMES[i % 4] for i in range(140)]
    states = []
    for colour in colours:
        states.append(compiled.new_state())
        compiled.run([plain(colour)], states[-1:], [-1.0])
    for at in range(0, len(states), 4):
        makers = compiled.run([plain("ground")] * 4, states[at : at + 4], [0.01] * 4)
        assert [NAMES[make()[0, 0]] for make in makers] == colours[at : at + 4]
    assert "no CUDA graph" not in caplog.text


def run_with_a_change(file: Path, engine: Path, held: Held) -> tuple[list[str], dict[str, Any]]:
    """(which backend served each frame, the streams' counters) of a pipeline of three streams of 200 frames."""
    streams = [{"id": name, "source": str(file)} for name in ("a", "b", "c")]
    settings = {"streams": streams, "engine": {"name": str(engine)}, "publish": {"bind": "tcp://127.0.0.1:*"}}
    pipeline = Pipeline(validated(settings))
    serving: list[str] = []
    run = pipeline.engine.run

    def counted(frames: Any) -> Any:
        if len(serving) >= 40 and not held.go.is_set():
            taken_over(pipeline.engine, held)
        results = run(frames)
        serving.extend([pipeline.engine.backend] * len(results))
        return results

    pipeline.engine.run = counted  # type: ignore[method-assign]
    try:
        pipeline.open()
        outcome = pipeline.run()
    finally:
        pipeline.close()
    return serving, outcome.streams


@pytest.mark.parametrize("before", [choose("auto", device="cpu")[0], "torch-cuda"])
def test_torch_cuda_takes_over_under_load(
    before: str, clip: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    climb(monkeypatch, rung("torch-cuda", held), rung(before))
    bundle = tiny_engine.write(tmp_path, smoothing="average", strength=1.0)
    serving, streams = run_with_a_change(clip("h264", frames=200, width=160, height=96), bundle.path, held)
    assert (serving[0], serving[-1], len(serving)) == (before, "torch-cuda", 600)
    assert all((s["frames"], s["published"], s["dropped"]) == (200, 200, {}) for s in streams.values())


@tensorrt
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_plan_gives_the_labels_of_the_cpu(precision: Precision, tmp_path: Path) -> None:
    backend = TensorRtBackend(plans=Plans(tmp_path))
    key, plan = backend.build(Wish(model(), options(precision)), lambda share: True, print)
    assert plan.measured["agreement"] >= 0.99
    compiled = backend.compile(model(), options(precision))
    exact = walked(exact_program(model(), options()), 5, 4)
    assert agreement(walked(compiled, 5, 4), exact) >= (0.9995 if precision == "fp32" else 0.99)
    (tmp_path / f"{key.digest}.plan").write_bytes(plan.data[:-1])
    assert not backend.ready(model(), options(precision))


@tensorrt
@pytest.mark.timeout(900)
def test_a_plan_takes_over_from_torch_cuda_under_load(
    clip: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    backend = TensorRtBackend(plans=Plans(tmp_path / "plans"))

    class Built(Held):
        """The real build, begun when the test says so."""

        def prepare(self, given: onnx.ModelProto, how: CompileOptions, stop: threading.Event) -> None:
            super().prepare(given, how, stop)
            backend.prepare(given, how, stop)

    held = Built()
    monkeypatch.setitem(BACKENDS, "tensorrt", ("tensorrt", backend.compile))
    monkeypatch.setattr("taking_over.WITHIN_SECONDS", 600)
    climb(monkeypatch, rung("tensorrt", held), rung("torch-cuda"))
    bundle = tiny_engine.write(tmp_path, smoothing="average", strength=1.0)
    serving, streams = run_with_a_change(clip("h264", frames=200, width=160, height=96), bundle.path, held)
    assert (serving[0], serving[-1], len(serving)) == ("torch-cuda", "tensorrt", 600)
    assert all((s["published"], s["dropped"]) == (200, {}) for s in streams.values())
    assert "no CUDA graph" not in caplog.text


@tensorrt
@pytest.mark.timeout(900)
def test_a_build_can_be_stopped(tmp_path: Path) -> None:
    from streamseg.engine.tensorrt_build import Stopped

    backend = TensorRtBackend(plans=Plans(tmp_path))
    with pytest.raises(Stopped):
        backend.build(Wish(model(), options()), lambda share: share < 0.2, print)
    assert not list(tmp_path.glob("*.plan"))
