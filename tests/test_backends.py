"""Which backend `auto` takes: without a GPU OpenVINO, as ever; with one what is best there, and the CPU's behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamseg.engine import backends, machine
from streamseg.engine.backends import CompileOptions, choose, ladder
from streamseg.engine.bundle import find
from streamseg.engine.engine import Engine
from streamseg.errors import BackendUnavailable


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str, gpus: int = 0) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda package: package if package in packages else None)
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H200",) * gpus)


@pytest.mark.parametrize(
    ("packages", "gpus", "precision", "names"),
    [
        (("openvino", "onnxruntime", "torch"), 0, "auto", ["openvino"]),
        (("openvino", "onnxruntime", "torch", "tensorrt"), 0, "auto", ["openvino"]),
        (("onnxruntime",), 0, "auto", ["onnxruntime"]),
        (("openvino",), 1, "auto", ["openvino"]),
        (("openvino", "tensorrt"), 1, "auto", ["openvino"]),
        (("openvino", "torch"), 1, "auto", ["torch-cuda", "openvino"]),
        (("openvino", "torch", "tensorrt"), 1, "auto", ["tensorrt", "torch-cuda", "openvino"]),
        (("openvino", "torch", "tensorrt"), 1, "bf16", ["torch-cuda", "openvino"]),
        (("openvino", "torch", "tensorrt"), 1, "int8", ["tensorrt", "openvino"]),
    ],
)
def test_auto_is_the_best_that_there_is(
    packages: tuple[str, ...],
    gpus: int,
    precision: backends.Precision,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, *packages, gpus=gpus)
    rungs = ladder("auto", precision)
    assert [rung.name for rung in rungs] == names
    assert [rung.name for rung in rungs if rung.slow is not None] == [n for n in names if n == "tensorrt"]
    assert choose("auto", precision)[0] == next(n for n in names if n != "tensorrt"), (
        "it serves before the plan is there"
    )


def test_a_backend_that_is_asked_for_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "openvino", "torch", "tensorrt", gpus=1)
    for name in ("openvino", "torch", "torch-cuda", "torch-inductor", "tensorrt"):
        assert [(rung.name, rung.slow) for rung in ladder(name)] == [(name, None)]
        assert choose(name)[0] == name


@pytest.mark.parametrize(
    ("name", "extra"),
    [("torch-cuda", "torch"), ("torch-inductor", "torch"), ("tensorrt", "tensorrt"), ("torch", "torch")],
)
def test_what_is_missing_is_said_with_what_to_install(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "openvino")
    with pytest.raises(BackendUnavailable, match=rf"pip install 'streamseg\[{extra}\]'"):
        choose(name)


@pytest.mark.skipif(bool(machine.gpu_names()), reason="there is a GPU")
@pytest.mark.parametrize("backend", ["torch-cuda", "torch-inductor"])
def test_torch_without_a_gpu_says_so(backend: str) -> None:
    engine = Engine(find("street-edge"), backend=backend)
    with pytest.raises(BackendUnavailable, match="needs an NVIDIA GPU"):
        engine.prepare()


def test_tensorrt_that_does_not_load_leaves_the_work_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bindings without the libraries, as a package manager may leave them."""
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H200",))
    monkeypatch.setattr(backends, "find_spec", lambda package: package)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    engine = Engine(find("street-edge"))
    engine.prepare()
    assert engine.backend == "openvino"
    lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert lines[0].startswith("tensorrt does not serve: TensorRT cannot be loaded: ")
    assert lines[1].startswith("torch-cuda does not serve: ")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("backend", "precision", "fault"),
    [("openvino", "fp16", "has no fp16"), ("onnxruntime", "fp16", "no fp16"), ("onnxruntime", "bf16", "not in bf16")],
)
def test_a_precision_is_refused_where_it_is_not(backend: str, precision: backends.Precision, fault: str) -> None:
    bundle = find("street-edge")
    with pytest.raises(BackendUnavailable, match=fault):
        backends.BACKENDS[backend][1](bundle.program, CompileOptions(480, 272, precision, 1))


def test_choosing_imports_no_backend() -> None:
    """torch alone takes seconds to import; whether there is a GPU is asked of the driver."""
    code = (
        "import sys; from streamseg.engine.backends import ladder; ladder('auto'); "
        "print({'torch', 'tensorrt', 'openvino'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr
