"""Batches in `streamseg bench engine`, and the floor that a GPU's times are told beside. There is no GPU here: the same
programs run in batches on the CPU, and the tables are made of what a GPU's rows hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engine as tiny
import torch
from processes import Finished, StreamsegCli
from typer.testing import CliRunner

from streamseg.bench import told, torch_floor
from streamseg.bench.ceilings import Ceilings
from streamseg.bench.engine import Lane
from streamseg.bench.torch_floor import Ceiling
from streamseg.bench_cli import bench_app
from streamseg.engine import complexity, program
from streamseg.engine.backends import CompileOptions
from streamseg.engine.bundle import Bundle, find
from streamseg.engine.complexity import Work
from streamseg.engine.torch_backend import BatchedProgram, torch_program
from streamseg.engine.torch_device import CpuDevice
from streamseg.errors import ConfigError, EngineError

SIZE = (160, 96)


@pytest.fixture
def bundle(tiny_engine: Path) -> Bundle:
    return find(str(tiny_engine))


@pytest.fixture
def batched(bundle: Bundle) -> BatchedProgram:
    """What runs on a GPU, in batches of up to 4, on the CPU."""
    return torch_program(bundle.program, CompileOptions(*SIZE, "fp32", 1, max_batch=4), CpuDevice())


def pictures() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return [np.full((SIZE[1], SIZE[0], 3), value, np.uint8) for value in (20, 120, 220)]


def test_a_lane_runs_batches_of_as_many_streams(batched: BatchedProgram) -> None:
    lane = Lane(batched, batch=4)
    lane.run(pictures(), 2, warm=True)
    lane.run(pictures(), 5)
    lane.run_ahead(pictures(), 7)
    assert (len(lane.states), len(lane.total)) == (4, 5)
    report = lane.report()
    assert report["min_ms"] <= report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"]
    assert report["frames_s"] == pytest.approx(4000 / report["median_ms"], rel=0.01)
    assert lane.ahead_frames_s is not None
    assert lane.ahead_frames_s > 0


def test_batches_are_told_apart_and_a_backend_that_takes_none_says_so(
    streamseg_here: Callable[..., Finished], tiny_engine: Path
) -> None:
    options = ["--size", "160x96", "--runs", 2, "--smoothing", "off"]
    done = streamseg_here("bench", "engine", tiny_engine, *options, "--batch", "1,8", "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert [row["batch"] for row in report["results"]] == [1]
    assert {"p50_ms", "p95_ms", "p99_ms", "frames_s"} <= set(report["results"][0])
    ((combination, why),) = report["failed"].items()
    assert "batches of 8" in combination
    assert "openvino takes one picture at a time; batches are for tensorrt, torch-cuda, torch-inductor" in why
    assert report["machine"]["versions"]["openvino"]
    none = streamseg_here("bench", "engine", tiny_engine, *options, "--batch", "8")
    assert (none.code, "one picture at a time" in none.stderr) == (1, True)
    wrong = streamseg_here("bench", "engine", tiny_engine, "--batch", "0")
    assert (wrong.code, "--batch" in wrong.stderr) == (2, True)


# The floor


def test_the_work_of_a_network_is_counted(bundle: Bundle) -> None:
    (convolution,) = complexity.work(program.network_of(bundle.program), *SIZE)
    pixels = SIZE[0] * SIZE[1] // tiny.STRIDE**2
    classes = len(tiny.NAMES)
    assert convolution == Work(macs=pixels * 3 * classes, values=pixels * (3 + classes), weights=3 * classes)
    edge = find("street-edge")
    network = program.network_of(edge.program)
    work = complexity.work(network, 480, 272)
    assert sum(each.macs for each in work) == complexity.multiply_accumulates(network, 480, 272)
    assert 0.9 < sum(each.weights for each in work) / complexity.parameters(network) <= 1


def test_the_floor_is_the_slower_of_bytes_and_operations() -> None:
    ceiling = Ceiling(copy_bytes_s=1e9, matrix_ops_s=1e12, precision="fp16")
    many_bytes, many_operations = Work(10, 1_000_000, 500), Work(10**9, 10, 0)
    assert ceiling.floor_ms([many_bytes], 1, 0) == (pytest.approx(2.001), 1.0)
    ms, by_bytes = ceiling.floor_ms([many_operations], 1, 0)
    assert (ms, by_bytes) == (pytest.approx(2.0), 0.0)
    ms, by_bytes = ceiling.floor_ms([many_bytes, many_operations], 8, 0)
    assert ms == pytest.approx(8 * 2.0 + 0.001 + 8 * 2.0)  # weights are read once for all
    assert by_bytes == pytest.approx(0.5, abs=0.01)
    assert ceiling.floor_ms([], 1, 1_000_000)[0] == pytest.approx(4.0)  # 3 bytes a pixel in, 1 out


def test_rates_are_measured_and_work_is_timed_without_transfers(batched: BatchedProgram, bundle: Bundle) -> None:
    ceiling = torch_floor.ceiling(torch.device("cpu"), "fp32")
    assert 1e6 < ceiling.copy_bytes_s < 1e14
    assert 1e6 < ceiling.matrix_ops_s < 1e16
    assert len(torch_floor.work_ms(batched, 4, 6)) == 6
    assert all(ms > 0 for ms in torch_floor.work_ms(batched, 3, 2))
    assert torch_floor.kernels_ms(batched, 1) is None
    with pytest.raises(EngineError, match="batches of 5"):
        torch_floor.work_ms(batched, 5, 1)
    lane, ceilings = Lane(batched, batch=2), Ceilings()
    lane.run_ahead(pictures(), 4)
    found = ceilings.compared(lane, "auto", bundle, SIZE, 5)
    assert found["of_floor"] > 0
    assert found["floor_ms"] > 0
    assert found["kernels_ms"] is None
    assert 0 <= found["floor_bound_by_bytes"] <= 1
    assert set(ceilings.report()) == {"fp32"}
    int8 = ceilings.compared(lane, "int8", bundle, SIZE, 2)
    assert int8["floor_ms"] is None


def test_the_tables_of_a_gpu_say_which_times_include_transfers() -> None:
    row = {
        "name": "edge",
        "backend": "torch-cuda",
        "precision": "fp16",
        "batch": 8,
        "size": "480x272",
        "smoothing": "off",
    }
    row |= {"p50_ms": 1.2, "p95_ms": 1.3, "p99_ms": 1.4, "ahead_ms": 0.9, "ahead_frames_s": 8888.9}
    row |= {
        "work_p50_ms": 0.7,
        "work_p95_ms": 0.71,
        "work_p99_ms": 0.8,
        "kernels_ms": 0.69,
        "floor_ms": 0.2,
        "of_floor": 3.5,
    }
    report: dict[str, Any] = {"results": [row, {"name": "edge", "backend": "openvino"}]}
    report["ceilings"] = {"fp16": {"copy_bytes_s": 4.3e12, "matrix_ops_s": 7.9e14, "precision": "fp16"}}
    report["gpu"] = {"power_w": 512.0, "celsius": 61.0, "least_sm_mhz": 1980.0, "held_back": ["power cap"]}
    (line,) = told.on_gpu(report)
    assert (line["with transfers p50"], line["without p50"], line["overlapping"], line["x floor"]) == (
        1.2,
        0.7,
        0.9,
        3.5,
    )
    text = told.above_gpu(report)
    for words in ("4.30 TB/s", "790 Tfp16/s", "512.0 W", "1980.0 MHz", "held back by: power cap"):
        assert words in text
    assert "not held back" in told.above_gpu(report | {"gpu": report["gpu"] | {"held_back": []}})
    assert not math.isnan(line["frames/s"])


# The hand-written loops


def test_the_torch_loop_computes_what_the_engine_does() -> None:
    from streamseg.bench.baseline import OnnxNetwork
    from streamseg.bench.torch_network import TorchNetwork
    from streamseg.synthetic import Street

    edge, size = find("street-edge"), (480, 272)
    bgr = np.ascontiguousarray(Street(1, 640, 360).picture(3)[..., ::-1])
    torch_loop, onnx_loop = TorchNetwork(edge, size, "cpu"), OnnxNetwork(edge, size)
    torch_loop.open()
    onnx_loop.open()
    labels = torch_loop.labels(bgr)
    assert (labels.shape, labels.dtype) == ((272, 480), np.uint8)
    assert (labels == onnx_loop.labels(bgr)).mean() > 0.98


def test_the_torch_loop_says_which_engines_it_cannot_run(bundle: Bundle) -> None:
    from streamseg.bench.torch_network import TorchNetwork

    with pytest.raises(EngineError, match=r"weights\.pt"):
        TorchNetwork(bundle, SIZE, "cpu").open()


def test_a_pipeline_is_told_beside_the_hand_written_loop(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, tmp_path: Path
) -> None:
    out = tmp_path / "street.mp4"
    made = streamseg_here("bench", "clip", out, "--size", "320x180", "--seconds", 2)
    assert (made.code, "320x180, 25 FPS" in made.stdout) == (0, True), made
    options = ["--engine", tiny_engine, "--rounds", 1, "--stage-frames", 8, "--baseline"]
    done = streamseg_here("bench", "pipeline", out, *options)
    assert done.code == 0, done
    assert "50 frames" in done.stdout
    assert "hand-written loop, ONNX Runtime fp32" in done.stdout
    refused = streamseg_here("bench", "pipeline", "synthetic://street?frames=20", *options)
    assert (refused.code, "bench clip" in refused.stderr) == (2, True)


def test_a_clip_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    for name, words in (
        ("nowhere/street.mp4", "no folder"),
        ("street.foo", "a video's name is wanted"),
        ("street.webm", "a video's name is wanted"),
        ("a-folder.mp4", "cannot be written: Is a directory"),
    ):
        (tmp_path / "a-folder.mp4").mkdir(exist_ok=True)
        done = CliRunner().invoke(bench_app, ["clip", str(tmp_path / name), "--size", "64x64", "--seconds", "0.1"])
        assert isinstance(done.exception, ConfigError), done
        assert words in str(done.exception)


# On a GPU


@pytest.mark.gpu
def test_a_gpu_is_measured_with_and_without_transfers_and_beside_its_floor(streamseg_cli: StreamsegCli) -> None:
    options = ["--backend", "torch-cuda", "--smoothing", "off", "--batch", "1,8", "--runs", 50]
    done = streamseg_cli("bench", "engine", "street-edge", *options, "--json", timeout=110)
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert [row["batch"] for row in report["results"]] == [1, 8]
    for row in report["results"]:
        assert 0 < row["floor_ms"] < row["work_p50_ms"] <= row["p50_ms"]
        assert row["ahead_frames_s"] > 0
    assert report["ceilings"]["fp16"]["copy_bytes_s"] > 1e10
    assert report["machine"]["gpus"]
    assert report["gpu"]["memory_used_mb"] > 0


def test_an_untrained_engine_is_written_to_measure_an_architecture(
    streamseg_here: Callable[..., Finished], tmp_path: Path
) -> None:
    out = tmp_path / "fast"
    done = streamseg_here("bench", "network", "fast-scnn", out, "--size", "128x64", "--classes", 5)
    assert done.code == 0, done
    assert "GMAC at 128x64" in done.stdout
    made = find(str(out))
    assert (len(made.classes), made.manifest.input.width) == (5, 128)
    measured = streamseg_here("bench", "engine", out, "--size", "128x64", "--runs", 2, "--smoothing", "off", "--json")
    assert json.loads(measured.stdout)["results"][0]["size"] == "128x64"
    again = streamseg_here("bench", "network", "fast-scnn", out)
    assert (again.code, "already" in again.stderr) == (2, True)
    unknown = streamseg_here("bench", "network", "fastest", tmp_path / "other")
    assert (unknown.code, "fast-scnn" in unknown.stderr) == (2, True)
