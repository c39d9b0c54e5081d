"""The TensorRT backend without TensorRT: graphs, plans, their cache, the accuracy gate and the change of backends are
the real code; only the layer that would call TensorRT is `fake_gpu`."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_network
import tiny_engine
from fake_gpu import FakeGpu
from publishing import eventually
from stills import frame
from test_batches import plain, street
from tiny_engine import NAMES

from streamseg.engine import backends, program
from streamseg.engine.backends import BACKENDS, CompileOptions, Precision, Rung
from streamseg.engine.bundle import find
from streamseg.engine.engine import Engine
from streamseg.engine.plans import Plans
from streamseg.engine.program import ProgramSpec
from streamseg.engine.tensorrt_backend import TensorRtBackend, Wish, exact_program
from streamseg.engine.tensorrt_build import Phases, Stopped
from streamseg.engine.tensorrt_graph import for_tensorrt, takes_batches
from streamseg.errors import EngineError
from streamseg.quantising import qdq

SPEC = ProgramSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "average", 1.0)
OPTIONS = CompileOptions(160, 96, "fp16", 1, 4)
TINY = program.build(tiny_engine.network(), SPEC)
PICTURES = (plain("white"), plain("square"))


def tiny_wish(**changes: object) -> Wish:
    return Wish(TINY, replace(OPTIONS, **changes), pictures=PICTURES)  # type: ignore[arg-type]


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def backend(gpu: FakeGpu, tmp_path: Path) -> TensorRtBackend:
    return TensorRtBackend(lambda: gpu, Plans(tmp_path / "plans"))


def built(backend: TensorRtBackend, wish: Wish, said: list[str] | None = None) -> str:
    """Has it built; the digest of its key."""
    return backend.build(wish, lambda share: True, (said if said is not None else []).append)[0].digest


def street_model(mode: program.SmoothingMode = "adaptive") -> onnx.ModelProto:
    bundle = find("street-edge")
    entry = bundle.manifest.input
    spec = ProgramSpec(entry.mean, entry.std, mode, 0.5, bundle.moving)
    return program.build(program.network_of(bundle.program), spec)


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
        pictures = [street(4 * i), street(4 * i + 40)]
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


# The cache


def test_a_plan_is_built_once(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    assert not backend.ready(TINY, OPTIONS)
    first, second = built(backend, tiny_wish()), built(backend, tiny_wish())
    assert first == second
    assert backend.ready(TINY, OPTIONS)
    states = [(p := backend.compile(TINY, OPTIONS)).new_state() for _ in range(3)]
    labels = p.run([plain(n) for n in NAMES[:3]], states, [-1.0] * 3)
    assert [NAMES[make()[0, 0]] for make in labels] == list(NAMES[:3])
    assert gpu.builds == 1


@pytest.mark.parametrize(
    "other",
    [
        {"tensorrt": "11.3.0.99"},
        {"gpu": "NVIDIA Imagined Max"},
        {"capability": "10.0"},
    ],
    ids=str,
)
def test_another_gpu_or_version_builds_its_own(
    other: dict[str, str], backend: TensorRtBackend, gpu: FakeGpu, tmp_path: Path
) -> None:
    built(backend, tiny_wish())
    there = FakeGpu(**other)  # type: ignore[arg-type]
    moved = TensorRtBackend(lambda: there, backend.plans)
    assert not moved.ready(TINY, OPTIONS)
    built(moved, tiny_wish())
    assert (gpu.builds, there.builds) == (1, 1)


def test_another_model_size_batch_or_precision_builds_its_own(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    digests = [
        built(backend, tiny_wish()),
        built(backend, tiny_wish(max_batch=2)),
        built(backend, tiny_wish(precision="fp32")),
    ]
    stronger = program.build(tiny_engine.network(), replace(SPEC, strength=0.5))
    digests.append(built(backend, Wish(stronger, OPTIONS, pictures=PICTURES)))
    wider = replace(OPTIONS, width=192)
    digests.append(built(backend, Wish(TINY, wider, pictures=[np.zeros((96, 192, 3), np.uint8)])))
    assert len(set(digests)) == len(digests) == gpu.builds


Spoil = Callable[[Path, Path], object]
SPOILS: dict[str, Spoil] = {
    "a byte of the plan": lambda plan, note: plan.write_bytes(plan.read_bytes()[:-1] + b"!"),
    "the plan cut short": lambda plan, note: plan.write_bytes(plan.read_bytes()[:-100]),
    "the plan empty": lambda plan, note: plan.write_bytes(b""),
    "no plan": lambda plan, note: plan.unlink(),
    "the note cut short": lambda plan, note: note.write_text(note.read_text()[:-20]),
    "the note of something else": lambda plan, note: note.write_text(note.read_text().replace("Imagined", "Other")),
    "the note not an object": lambda plan, note: note.write_text("[1]"),
    "the note without a digest": lambda plan, note: note.write_text(
        json.dumps({k: v for k, v in json.loads(note.read_text()).items() if k != "sha256"})
    ),
    "a plan that others may write to": lambda plan, note: plan.chmod(0o666),
}


@pytest.mark.parametrize("what", SPOILS)
def test_what_is_not_as_it_was_written_is_built_anew_and_never_run(
    what: str, backend: TensorRtBackend, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    digest = built(backend, tiny_wish())
    loaded = gpu.loaded
    plan, note = (backend.plans.folder / f"{digest}.{kind}" for kind in ("plan", "json"))
    SPOILS[what](plan, note)
    assert not backend.ready(TINY, OPTIONS)
    assert gpu.loaded == loaded, "it was deserialised"
    assert f"the plan {plan} is not used but built anew" in caplog.text
    built(backend, tiny_wish())
    assert gpu.builds == 2
    assert backend.ready(TINY, OPTIONS)


def test_a_plan_under_another_s_name_is_not_run(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    """As a cache that is copied from another machine, or by an attacker, would have it."""
    mine, other = built(backend, tiny_wish()), built(backend, tiny_wish(max_batch=2))
    for kind in ("plan", "json"):
        shutil.copy(backend.plans.folder / f"{other}.{kind}", backend.plans.folder / f"{mine}.{kind}")
    assert not backend.ready(TINY, OPTIONS)
    built(backend, tiny_wish())
    assert gpu.builds == 3


def test_plans_are_for_their_user_alone(backend: TensorRtBackend) -> None:
    built(backend, tiny_wish())
    modes = {file.stat().st_mode & 0o077 for file in (backend.plans.folder, *backend.plans.folder.iterdir())}
    assert modes == {0}


def test_a_cache_that_cannot_be_written_to_costs_time_only(gpu: FakeGpu, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("where the folder should be")
    backend = TensorRtBackend(lambda: gpu, Plans(file / "plans"))
    assert backend.compile(TINY, OPTIONS).max_batch == 4
    assert not backend.ready(TINY, OPTIONS)


def test_what_was_measured_of_kernels_is_given_to_the_next_build(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    built(backend, tiny_wish())
    built(backend, tiny_wish(max_batch=2))
    assert gpu.timings == [b"", b"timing of NVIDIA Imagined"]


def test_two_that_want_the_same_plan_build_it_once(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    gpu.pause = threading.Event()
    second = TensorRtBackend(lambda: gpu, Plans(backend.plans.folder))
    threads = [threading.Thread(target=built, args=(b, tiny_wish())) for b in (backend, second)]
    for thread in threads:
        thread.start()
    assert gpu.building.wait(20)
    gpu.pause.set()
    for thread in threads:
        thread.join(30)
    assert gpu.builds == 1


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


# Serving meanwhile


@pytest.fixture
def served(gpu: FakeGpu, backend: TensorRtBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """An engine as on a machine with a GPU, with ONNX Runtime in torch-cuda's place."""
    rungs = [Rung("tensorrt", backend.compile, backend), Rung("onnxruntime", BACKENDS["onnxruntime"][1])]
    monkeypatch.setattr(backends, "ladder", lambda name, precision="auto": rungs)
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
