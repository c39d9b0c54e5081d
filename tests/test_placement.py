"""Where frames are decoded, scaled and analysed: decided from what a machine has, which is told here, not sought."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clips import Clips
from daemon import ANY_PORT
from hypothesis import given
from hypothesis import strategies as st
from processes import StreamsegCli

from streamseg.config import validated
from streamseg.errors import BackendUnavailable, ConfigError, StageError
from streamseg.pipeline import Pipeline
from streamseg.placement import Machine, Placement, here, place, spread
from streamseg.types import Result

H200, L4 = "NVIDIA H200", "NVIDIA L4"
CAMERAS = ["gate", "yard", "dock"]


def placed(machine: Machine, device: str = "auto", backend: str = "auto", streams: list[str] = CAMERAS) -> Placement:
    return place(streams, device, backend, lambda: machine)


def nobody() -> Machine:
    pytest.fail("the machine is asked, where the answer is of no matter")


def test_without_a_gpu_everything_is_done_on_the_cpu() -> None:
    made = placed(Machine())
    assert set(made.devices.values()) == {"cpu"}
    assert made.engines == ["cpu"]
    assert [made.decoder(name) for name in CAMERAS] == [None] * 3
    assert made.told == "the CPU decodes, scales and analyses (no NVIDIA GPU)"


def test_one_gpu_does_all_of_it() -> None:
    made = placed(Machine((H200,)))
    assert set(made.devices.values()) == {"cuda:0"}
    assert [made.decoder(name) for name in CAMERAS] == [0] * 3
    assert made.told == "NVIDIA H200: decodes, scales and analyses"


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine((H200,), no_decoding="no libnvcuvid.so.1"), "no libnvcuvid.so.1"),
        (Machine((H200,), no_scaling="Triton is not installed"), "Triton is not installed"),
    ],
)
def test_a_stage_that_is_missing_falls_back_alone_and_is_told(machine: Machine, why: str) -> None:
    made = placed(machine)
    assert set(made.devices.values()) == {"cuda:0"}, "the engine is on the GPU all the same"
    assert made.decoder("gate") is None
    assert made.told == f"NVIDIA H200: analyses; the CPU decodes and scales, and uploads ({why})"


def test_a_gpu_that_torch_cannot_use_is_told_of() -> None:
    made = placed(Machine((L4, L4), no_engine="torch 2.13.0+cpu is built without CUDA"))
    assert set(made.devices.values()) == {"cpu"}
    assert "2 x NVIDIA L4 is not used: torch 2.13.0+cpu is built without CUDA" in made.told


def test_streams_are_spread_over_all_gpus_and_the_log_says_how() -> None:
    made = placed(Machine((H200, L4)))
    assert made.devices == {"gate": "cuda:0", "yard": "cuda:1", "dock": "cuda:0"}
    assert [made.decoder(name) for name in CAMERAS] == [0, 1, 0], "each where its engine is"
    assert made.told == "NVIDIA H200 and NVIDIA L4: decodes, scales and analyses (cuda:0: gate, dock; cuda:1: yard)"


def test_a_gpu_that_gets_no_stream_gets_no_engine() -> None:
    assert placed(Machine((H200,) * 8)).engines == ["cuda:0", "cuda:1", "cuda:2"]


def test_one_gpu_can_be_asked_for_by_its_number() -> None:
    made = placed(Machine((H200,) * 12), device="cuda:11")
    assert set(made.devices.values()) == {"cuda:11"}
    assert made.decoder("dock") == 11


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(), "cuda:1 is not here; there is no NVIDIA GPU"),
        (Machine((L4,)), r"cuda:1 is not here; there is cuda:0 \(NVIDIA L4\); or choose auto"),
        (Machine((L4, L4), no_engine="torch is not installed"), "cuda:1 cannot be used: torch is not installed"),
    ],
)
def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(machine: Machine, message: str) -> None:
    with pytest.raises(BackendUnavailable, match=message):
        placed(machine, device="cuda:1")


def test_a_backend_of_the_gpu_that_has_none_is_an_error() -> None:
    with pytest.raises(BackendUnavailable, match=r"'tensorrt' needs an NVIDIA GPU \(no NVIDIA GPU\); choose auto"):
        placed(Machine(), backend="tensorrt")


@pytest.mark.parametrize(("device", "backend"), [("cuda:0", "openvino"), ("cpu", "torch-cuda"), ("cpu", "tensorrt")])
def test_a_device_and_a_backend_that_contradict_each_other_are_an_error(device: str, backend: str) -> None:
    with pytest.raises(ConfigError, match=f"engine.device: {device}, but {backend} runs on"):
        place(CAMERAS, device, backend, nobody)


@pytest.mark.parametrize(("device", "backend"), [("cpu", "auto"), ("auto", "openvino"), ("cpu", "onnxruntime")])
def test_nobody_looks_for_gpus_that_are_not_wanted(device: str, backend: str) -> None:
    assert place(CAMERAS, device, backend, nobody).engines == ["cpu"]


@given(st.integers(0, 200), st.lists(st.integers(0, 15), min_size=1, max_size=16, unique=True))
def test_no_gpu_has_two_streams_more_than_another(count: int, gpus: list[int]) -> None:
    names = [f"cam{index}" for index in range(count)]
    devices = spread(names, gpus)
    assert list(devices) == names
    loads = [list(devices.values()).count(f"cuda:{gpu}") for gpu in gpus]
    assert sum(loads) == count
    assert max(loads) - min(loads) <= 1


def test_this_machine_can_be_asked() -> None:
    found = here()
    if not found.gpus:
        assert found == Machine()
    made = placed(found)
    assert made.decoding == bool(found.gpus and not found.no_engine and found.on_gpu)


def test_the_daemon_says_in_one_line_where_frames_go(streamseg_cli: StreamsegCli, tiny_engine: Path) -> None:
    source = "synthetic://street?size=160x96&frames=5"
    common = ("run", source, "--engine", tiny_engine, "--bind", ANY_PORT, "--set")
    done = streamseg_cli(*common, "engine.device=cpu")
    assert done.code == 0
    assert done.stderr.count("the CPU decodes, scales and analyses, as it was told to") == 1
    refused = streamseg_cli(*common, "engine.device=cuda:99")
    assert (refused.code, refused.stdout) == (1, "")
    assert "engine.device: cuda:99 is not here; there is " in refused.stderr


# A pipeline on a machine that is said to have two GPUs: here, each stage finds out that it is not so, and falls back.


@pytest.fixture
def on_two_gpus(tiny_engine: Path) -> Iterator[Callable[..., Pipeline]]:
    """`on_two_gpus(a=source, b=source)` -> an opened pipeline; the first stream on the one, the second on the other."""
    made: list[Pipeline] = []

    def make(**sources: object) -> Pipeline:
        settings = {
            "streams": [{"id": name, "source": str(source)} for name, source in sources.items()],
            "engine": {"name": str(tiny_engine)},
            "publish": {"bind": "tcp://127.0.0.1:*"},
        }
        pipeline = Pipeline(validated(settings), machine=lambda: Machine((H200, H200)))
        made.append(pipeline)
        pipeline.open()
        return pipeline

    yield make
    for pipeline in made:
        pipeline.stop()
        pipeline.close()


def serving(kind: str) -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(f"streamseg-{kind}"))


def test_every_gpu_has_an_engine_and_a_thread_and_no_frame_is_lost(
    on_two_gpus: Callable[..., Pipeline], clip: Clips, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    file = clip("h264", frames=60)
    pipeline = on_two_gpus(a=file, b=file, c=file)
    threads: set[str] = set()
    outcome = pipeline.run(tick=lambda: threads.update(serving("inference")))
    assert [(s["published"], s["dropped"]) for s in outcome.streams.values()] == [(60, {})] * 3
    assert threads <= {"streamseg-inference-cuda:0", "streamseg-inference-cuda:1"}
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "2 x NVIDIA H200: decodes, scales and analyses (cuda:0: a, c; cuda:1: b)"
    if not here().gpus:
        assert sum("does not decode" in line and line.endswith("the CPU does") for line in told) == 3
        assert sum(line.startswith("torch-cuda does not serve") for line in told) == 2


def test_one_engine_that_dies_ends_the_run_of_all(
    on_two_gpus: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = "synthetic://street?size=160x96&fps=25"
    pipeline = on_two_gpus(a=live, b=live)
    second = pipeline._inferences["cuda:1"].engine

    def broken(frames: object) -> list[Result]:
        raise MemoryError("the second GPU is full")

    monkeypatch.setattr(second, "run", broken)
    with pytest.raises(StageError, match="inference stopped: MemoryError: the second GPU is full"):
        pipeline.run()
    assert not serving("inference")


def test_a_stop_ends_the_threads_of_all_gpus(on_two_gpus: Callable[..., Pipeline]) -> None:
    live = "synthetic://street?size=160x96&fps=25"
    pipeline = on_two_gpus(a=live, b=live)
    met: list[list[str]] = []

    def tick() -> None:
        met.append(serving("inference"))
        if all(metrics.snapshot()["published"] for metrics in pipeline.metrics.values()):
            pipeline.stop()

    pipeline.run(tick)
    assert met[0] == ["streamseg-inference-cuda:0", "streamseg-inference-cuda:1"]
    assert not serving("inference")
