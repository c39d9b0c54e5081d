"""The TensorRT backend without TensorRT: graphs, plans, their cache, the accuracy gate and the change of backends are
the real code; only the layer that would call TensorRT is `fake_gpu`."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_network
import tiny_engine
from fake_gpu import FakeGpu
from planning import OPTIONS, PICTURES, SPEC, TINY, backend_fixture, built, gpu_fixture, plain, tiny_wish  # noqa: F401
from processes import StreamsegCli
from publishing import eventually
from stills import frame
from tiny_engine import NAMES

from streamseg.engine import backends, program
from streamseg.engine.backends import BACKENDS, CompileOptions, Rung
from streamseg.engine.bundle import Bundle, Int8Entry, find, write_int8
from streamseg.engine.engine import Engine, spec_of
from streamseg.engine.program import ProgramSpec
from streamseg.engine.tensorrt_backend import TensorRtBackend, Wish, exact_program
from streamseg.engine.tensorrt_build import Phases, Stopped
from streamseg.engine.tensorrt_graph import for_tensorrt, takes_batches
from streamseg.engine.tensorrt_order import Order
from streamseg.engine.tensorrt_order import run as run_order
from streamseg.errors import EngineError
from streamseg.quantising import qdq
from streamseg.synthetic import Street
from streamseg.types import Precision

STREET = Street(3, 480, 272, 25.0)


def street_model(mode: program.SmoothingMode = "adaptive") -> onnx.ModelProto:
    bundle = find("street-edge")
    entry = bundle.manifest.input
    spec = ProgramSpec(entry.mean, entry.std, mode, 0.5, bundle.moving)
    return program.build(program.network_of(bundle.program), spec)


@pytest.fixture
def bundle_with_int8(tmp_path: Path) -> Bundle:
    bundle = small_network.write(tmp_path / "engines")
    image = np.random.default_rng(0).random((1, 3, 96, 160), np.float32)
    network = program.network_of(bundle.program)
    small = qdq.quantised(network, dict.fromkeys(qdq.inputs_of(qdq.convolutions(network)), 2.0), image)
    entry = Int8Entry(of=bundle.digest, loss=0.1, agreement=1.0, max_loss=1.0, calibrated="noise", data="noise")
    return write_int8(bundle, program.build(small, spec_of(bundle)), entry)


# The graph


@pytest.mark.parametrize("mode", ["off", "average", "adaptive"])
def test_the_shipped_engine_runs_as_a_plan_in_fp16(
    mode: program.SmoothingMode, backend: TensorRtBackend, gpu: FakeGpu
) -> None:
    """In batches, smoothed from frame to frame: as in fp32 on the CPU, up to rounding."""
    model = street_model(mode)
    options = CompileOptions(480, 272, "auto", 1, 2)
    plan, exact = backend.compile(model, options), exact_program(model, options)
    mine, other = ([p.new_state(), p.new_state()] for p in (plan, exact))
    for i in range(3):
        pictures = [STREET.picture(4 * i), STREET.picture(4 * i + 40)]
        a, b = (p.run(pictures, s, [0.16] * 2) for p, s in ((plan, mine), (exact, other)))
        assert np.mean([x() == y() for x, y in zip(a, b, strict=True)]) >= 0.998
    assert plan.max_batch == 2
    assert backend.ready(model, options)


def test_a_quantised_network_keeps_its_integers_and_gets_scales_in_fp16(backend: TensorRtBackend) -> None:
    network = small_network.network()
    image = np.random.default_rng(0).random((1, 3, 96, 160), np.float32)
    ranges = dict.fromkeys(qdq.inputs_of(qdq.convolutions(network)), 2.0)
    model = program.build(qdq.quantised(network, ranges, image), SPEC)
    graph = for_tensorrt(model, "int8", 160, 96).graph
    made = {name: node for node in graph.node for name in node.output}
    inner = [node for node in graph.node if node.op_type == "Conv"][1:-1]
    assert inner
    assert all(made[name].op_type == "DequantizeLinear" for node in inner for name in node.input[:2])
    wish = Wish(model, replace(OPTIONS, precision="auto"), exact=program.build(network, SPEC), pictures=PICTURES)
    key, plan = backend.build(wish, lambda share: True, print)
    assert key.precision == "int8"
    assert plan.measured["agreement"] == 1.0


def test_what_is_quantised_for_cpus_only_is_refused() -> None:
    """u8 with a zero point, as ONNX Runtime makes it by itself: TensorRT has no such thing."""
    zero = onnx.numpy_helper.from_array(np.uint8(128), "zero")
    scale = onnx.numpy_helper.from_array(np.float32(0.01), "scale")
    network = tiny_engine.network()
    network.graph.initializer.extend([zero, scale])
    network.graph.node.insert(0, onnx.helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]))
    network.graph.node.insert(1, onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]))
    network.graph.node[2].input[0] = "dq"
    with pytest.raises(EngineError, match="zero point 0 only"):
        for_tensorrt(program.build(network, SPEC), "int8", 160, 96)


def test_a_network_of_one_picture_at_a_time_gets_a_plan_of_one(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    network = tiny_engine.network()
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 3, 96, 160]), "shape"))
    network.graph.node.insert(0, onnx.helper.make_node("Reshape", ["image", "shape"], ["one"]))
    network.graph.node[1].input[0] = "one"
    model = program.build(network, replace(SPEC, size=(160, 96)))
    assert not takes_batches(for_tensorrt(model, "fp16", 160, 96))
    assert backend.compile(model, OPTIONS).max_batch == 1
    assert [len(profiles) for profiles in gpu.profiles] == [1]


# The gate


def test_a_plan_with_other_labels_is_refused_and_not_built_again(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    gpu.noise = 3.0
    with pytest.raises(EngineError, match=r"the plan in fp16 is not used: \d+\.\d\d % of the labels .* less than 99 %"):
        built(backend, tiny_wish())
    with pytest.raises(EngineError, match="of an earlier build"):
        built(backend, tiny_wish())
    assert gpu.builds == 1
    assert not backend.ready(TINY, OPTIONS)
    assert not list(backend.plans.folder.glob("*.plan"))
    gpu.noise = 0.0
    backend.plans.forget(backend.key(TINY, OPTIONS))
    built(backend, tiny_wish())
    assert backend.ready(TINY, OPTIONS)


def test_the_agreement_is_told_and_kept(backend: TensorRtBackend) -> None:
    said: list[str] = []
    key, plan = backend.build(tiny_wish(), lambda share: True, said.append)
    assert plan.measured["agreement"] == 1.0
    assert "100.00 % of the labels are those of the exact program" in said[-1]
    kept = backend.plans.get(key)
    assert kept is not None
    assert kept.measured == plan.measured


def test_what_tensorrt_cannot_read_is_said(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    gpu.fault = "Conv_3: no such thing"
    with pytest.raises(EngineError, match="Conv_3"):
        built(backend, tiny_wish())
    assert not backend.ready(TINY, OPTIONS)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precisions_that_it_has_not_are_said(precision: Precision, backend: TensorRtBackend) -> None:
    with pytest.raises(EngineError, match=f"{precision}"):
        built(backend, tiny_wish(precision=precision))


# The build


def test_a_build_is_never_silent_for_long(backend: TensorRtBackend) -> None:
    said: list[str] = []
    built(backend, tiny_wish(), said)
    assert "this takes minutes, once" in said[0]
    assert [line.rpartition(": ")[2] for line in said[1:-1]] == [f"{tenth}0 %" for tenth in range(1, 11)]


def test_a_build_that_is_stopped_leaves_nothing(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    with pytest.raises(Stopped):
        backend.build(tiny_wish(), lambda share: share < 0.5, print)
    assert not backend.ready(TINY, OPTIONS)
    built(backend, tiny_wish())
    assert gpu.builds == 2


def test_nested_phases_make_one_share_that_never_goes_back() -> None:
    phases, seen = Phases(), []
    phases.start("Building Engine", None, 4)
    phases.step("Building Engine", 0)
    seen.append(phases.share)
    phases.start("Tactics", "Building Engine", 2)
    phases.step("Tactics", 0)
    seen.append(phases.share)
    phases.finish("Tactics")
    seen.append(phases.share)
    for step in (1, 2, 3):
        phases.step("Building Engine", step)
        seen.append(phases.share)
    phases.step("never started", 7)
    phases.finish("Building Engine")
    seen.append(phases.share)
    assert seen == [0.25, 0.375, 0.375, 0.5, 0.75, 1.0, 1.0]


# The command


def test_auto_builds_both_precisions_and_tells_what_each_is_worth(
    backend: TensorRtBackend, gpu: FakeGpu, bundle_with_int8: Bundle
) -> None:
    said: list[str] = []
    order = Order(bundle_with_int8, spec_of(bundle_with_int8), max_batch=2)
    built = run_order(order, said.append, backend)
    assert [each.precision for each in built] == ["fp16", "int8"]
    assert said[-1].startswith("int8 gives ")
    assert all(each.agreement >= 0.95 and each.frames_per_s > 0 and Path(each.file).is_file() for each in built)
    assert run_order(order, said.append, backend)[0].build_seconds == built[0].build_seconds
    assert gpu.builds == 2, "what is there is not built again"
    run_order(replace(order, again=True, precision="fp16"), said.append, backend)
    assert gpu.builds == 3


def test_the_daemon_finds_what_the_command_has_built(served: Engine, gpu: FakeGpu, backend: TensorRtBackend) -> None:
    run_order(Order(served.bundle, spec_of(served.bundle), "fp16", max_batch=4), print, backend)
    served.prepare()
    assert served.backend == "tensorrt"
    assert gpu.builds == 1


def test_without_tensorrt_the_command_says_what_to_install(streamseg_cli: StreamsegCli, tiny_engine: Path) -> None:
    if find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    done = streamseg_cli("engine", "build", tiny_engine, "--backend", "tensorrt")
    assert done.code == 1
    assert "pip install 'streamseg[tensorrt]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--precision", "bf16"], "auto, fp32, fp16 and int8"),
        (["--smoothing", "average:2"], "a strength of 0..1"),
        (["--size", "480"], "WIDTHxHEIGHT"),
    ],
)
def test_slips_are_told_before_anything_is_loaded(
    options: list[str], said: str, streamseg_cli: StreamsegCli, tiny_engine: Path
) -> None:
    done = streamseg_cli("engine", "build", tiny_engine, "--backend", "tensorrt", *options)
    assert done.code == 2
    assert said in done.stderr


# Serving meanwhile


@pytest.fixture
def served(gpu: FakeGpu, backend: TensorRtBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """An engine as on a machine with a GPU, with ONNX Runtime in torch-cuda's place."""
    rungs = [Rung("tensorrt", backend.compile, backend), Rung("onnxruntime", BACKENDS["onnxruntime"][1])]
    monkeypatch.setattr(backends, "ladder", lambda *_: rungs)
    monkeypatch.setattr("streamseg.engine.engine.ladder", backends.ladder)
    return Engine(tiny_engine.write(tmp_path, smoothing="average", strength=1.0), max_batch=4)


def shown(engine: Engine, name: str, seconds: float) -> str:
    (label,) = np.unique(engine.run([frame(plain(name), seconds)])[0].labels)
    return NAMES[label]


def test_frames_are_served_while_the_plan_is_built_and_by_the_plan_afterwards(
    served: Engine, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    gpu.pause = threading.Event()
    served.prepare()
    served.improve()
    assert gpu.building.wait(10)
    for i in range(5):
        assert shown(served, "white", i / 25) == "white"
    assert served.backend == "onnxruntime"
    gpu.pause.set()
    eventually(lambda: bool(served._succession._arrived), "the plan never came")
    assert shown(served, "black", 0.2) == "white", "what the stream remembers was lost"
    assert served.backend == "tensorrt"
    assert served.max_batch == 4
    served.close()
    lines = [r.getMessage() for r in caplog.records]
    assert lines[0].startswith("TensorRT: building a plan at 160x96 in fp16, batches of up to 4, for NVIDIA Imagined")
    assert lines[-1] == "tensorrt takes over from onnxruntime at 160x96; 1 streams keep their past"


def test_a_plan_that_is_there_serves_from_the_first_frame(served: Engine, gpu: FakeGpu) -> None:
    served.prepare()
    served.improve()
    eventually(lambda: bool(served._succession._arrived), "the plan never came")
    again = Engine(served.bundle, max_batch=4)
    again.improve()
    assert shown(again, "white", 0.0) == "white"
    assert again.backend == "tensorrt"
    assert gpu.builds == 1
    served.close()
    again.close()


def test_a_plan_that_is_refused_leaves_what_serves(
    served: Engine, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.noise = 3.0
    served.prepare()
    served.improve()
    eventually(lambda: served._succession._thread is None, "the thread goes on")
    assert shown(served, "white", 0.0) == "white"
    assert served.backend == "onnxruntime"
    assert "tensorrt was not prepared for 160x96, what serves goes on: the plan in fp16 is not used" in caplog.text
    served.close()


def test_a_daemon_that_ends_does_not_wait_for_the_build(served: Engine, gpu: FakeGpu, backend: TensorRtBackend) -> None:
    gpu.pause = threading.Event()
    served.prepare()
    served.improve()
    assert gpu.building.wait(10)
    served.close()
    assert not [t for t in threading.enumerate() if t.name == "streamseg-build"]
    assert not list(backend.plans.folder.glob("*.plan"))
