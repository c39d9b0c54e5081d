"""int8: what `engine build` writes, what it says of it, and who then runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import small_network
import tiny_engine
from clips import Clips
from onnx import TensorProto, numpy_helper
from processes import Finished
from stills import frame
from tiny_engine import COLOURS

from streamseg.engine import bundle as bundles
from streamseg.engine import choice, program
from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.errors import BackendUnavailable, ConfigError, EngineError
from streamseg.evaluation import evaluate
from streamseg.quantising import build, calibration, labelled, qdq
from streamseg.quantising.build import Built, Request
from streamseg.types import U8

SIZE = (160, 96)
CPU_BACKENDS = ("openvino", "onnxruntime")


def picture(seed: int) -> U8:
    """Rectangles of the four colours."""
    rng, rgb = np.random.default_rng(seed), np.full((SIZE[1], SIZE[0], 3), COLOURS["ground"], np.uint8)
    for colour in list(COLOURS.values()) * 3:
        x, y = rng.integers(0, SIZE[0] - 40), rng.integers(0, SIZE[1] - 30)
        rgb[y : y + 30, x : x + 40] = colour
    return rgb


def truth(rgb: U8) -> U8:
    colours = np.array(list(COLOURS.values()), np.int32)
    return ((rgb[:, :, None].astype(np.int32) - colours) ** 2).sum(3).argmin(2).astype(np.uint8)


def labels(bundle: Bundle, rgb: U8, **options: Any) -> U8:
    return Engine(bundle, **options).run([frame(rgb)])[0].labels


def agreement(one: U8, other: U8) -> float:
    return float((one == other).mean())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of their own, with empty caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    return tmp_path / "home"


def write_pictures(folder: Path) -> Path:
    """test/ and testannot/ with three labelled pictures, train/ with two others that have no labels."""
    for split, seeds in (("test", (1, 2, 3)), ("train", (4, 5))):
        (folder / split).mkdir(parents=True)
        for seed in seeds:
            rgb = picture(seed)
            assert cv2.imwrite(str(folder / split / f"{seed}.png"), rgb[:, :, ::-1])
            if split == "test":
                (folder / "testannot").mkdir(exist_ok=True)
                assert cv2.imwrite(str(folder / "testannot" / f"{seed}.png"), truth(rgb))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Built:
    bundle = small_network.write(tmp_path_factory.mktemp("engines"))
    return build.run(Request(bundle, pictures, labelled.of_folder(pictures, "test")))


@pytest.fixture
def own(built: Built, tmp_path: Path) -> Callable[..., Bundle]:
    """`own(loss=…)`: a copy of the built engine, its manifest's int8 entry changed."""

    def copy(**entry: object) -> Bundle:
        shutil.copytree(built.bundle.path, tmp_path / "small")
        bundle = Bundle.open(tmp_path / "small")
        changed = built.entry.model_copy(update=entry)
        return bundles.rewrite(bundle, bundle.manifest.model_copy(update={"int8": changed}))

    return copy


# The file


def test_its_weights_are_int8_and_every_zero_point_is_zero_as_tensorrt_wants(built: Built) -> None:
    graph = built.bundle.int8_program.graph
    tensors = {t.name: t for t in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {node.op_type for node in pairs} == {"QuantizeLinear", "DequantizeLinear"}
    for node in pairs:
        zero = tensors[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    large = {name: t.data_type for name, t in tensors.items() if np.prod(t.dims) >= 3 * small_network.WIDE}
    assert sorted(large.values()) == [TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8], large
    assert built.bytes["model-int8.onnx"] < 0.45 * built.bytes["model.onnx"]


def test_the_file_alone_is_a_whole_program_that_smooths(built: Built) -> None:
    import onnxruntime

    onnx.checker.check_model(built.bundle.int8_program)
    data = (built.bundle.path / "model-int8.onnx").read_bytes()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["labels", "state_next"]
    rgb = picture(9)
    state = np.zeros((1, session.get_inputs()[1].shape[1], 24, 40), np.float32)
    (alone,) = session.run(["labels"], {"frames": rgb[None], "state": state, "elapsed_s": np.float32([-1])})
    assert agreement(alone[0], labels(built.bundle, rgb, precision="int8")) >= 0.99


@pytest.mark.parametrize("smoothing", ["off", "average", "adaptive"])
def test_both_backends_give_the_labels_of_fp32(smoothing: str, built: Built) -> None:
    rgb = picture(7)
    exact = labels(built.bundle, rgb, backend="onnxruntime", precision="fp32", smoothing=smoothing)
    assert agreement(exact, truth(rgb)) >= 0.9
    small = [labels(built.bundle, rgb, backend=b, precision="int8", smoothing=smoothing) for b in CPU_BACKENDS]
    assert agreement(small[0], small[1]) >= 0.99
    assert agreement(small[0], exact) >= 0.99


def test_what_openvino_computes_otherwise_than_onnx_says_stays_float(tmp_path: Path) -> None:
    """Pools and a convolution of one tensor, resized and concatenated: OpenVINO 2026.4 gets this wrong in s8."""
    network = pyramid(tmp_path / "pyramid.onnx")
    made = tiny_engine.write(tmp_path)
    bundle = bundles.write(made.path, made.manifest, program.build(network, small_network.PLAIN))
    (tmp_path / "noise").mkdir()
    rng = np.random.default_rng(0)
    noise = [cv2.resize(rng.integers(0, 256, (12, 20, 3), np.uint8), SIZE) for _ in range(3)]
    for index, rgb in enumerate(noise):
        assert cv2.imwrite(str(tmp_path / "noise" / f"{index}.png"), rgb)
    built = build.run(Request(bundle, tmp_path / "noise"))
    one, other = (labels(built.bundle, noise[0], backend=b, precision="int8") for b in CPU_BACKENDS)
    assert len(np.unique(one)) > 1
    assert agreement(one, other) >= 0.99
    tensors = qdq.inputs_of(qdq.convolutions(network))
    image = calibration.normalised(bundle, noise[0])
    whole = qdq.quantised(network, calibration.ranges(network, tensors, [image]), image)
    assert list(built.float_inputs) == qdq.misread(whole, tensors, image, lambda names: names)


def test_the_tiny_network_s_program_is_below_a_megabyte(tmp_path: Path) -> None:
    """With the smoothing's tail, and more classes than ours have."""
    from streamseg.models import build as network_named
    from streamseg.training.export import export_network

    export_network(network_named("tiny", 19).eval(), tmp_path / "tiny.onnx")
    network = onnx.load(tmp_path / "tiny.onnx")
    image = np.random.default_rng(0).normal(size=(1, 3, 96, 160)).astype(np.float32)
    ranges = calibration.ranges(network, qdq.inputs_of(qdq.convolutions(network)), [image])
    small = program.build(qdq.quantised(network, ranges, image), small_network.PLAIN)
    assert len(small.SerializeToString()) < 1_000_000


def pyramid(file: Path) -> onnx.ModelProto:
    import torch
    from torch import nn

    from streamseg.models.edge import Pyramid
    from streamseg.models.layers import ConvBN
    from streamseg.training.export import export_network

    torch.manual_seed(0)
    model = nn.Sequential(ConvBN(3, 16, 3, 4), ConvBN(16, 32, 3, 2), Pyramid(32, 16, 32), nn.Conv2d(32, 4, 1))
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 96, 160))
    export_network(model.eval(), file)
    return onnx.load(file)


# What is said of it


def test_the_loss_is_the_difference_of_what_eval_measures(built: Built, pictures: Path) -> None:
    measured = {}
    for precision in ("fp32", "int8"):
        report = evaluate.run(
            evaluate_config(built.bundle.path, precision=precision, backend="openvino"), pictures, "test"
        )
        measured[precision] = report["miou"]
    assert built.accuracy == measured
    assert built.entry.loss == pytest.approx(100 * (measured["fp32"] - measured["int8"]), abs=0.01)
    assert built.entry.data == f"{pictures.name} test"
    assert built.entry.within
    assert Bundle.open(built.bundle.path).manifest.int8 == built.entry


def evaluate_config(engine: Path, **settings: object) -> Any:
    from streamseg.config import validated

    return validated({"streams": [{"source": "synthetic://street"}], "engine": {"name": str(engine), **settings}})


def test_only_pictures_that_are_not_measured_on_are_calibrated_on(
    streamseg_here: Callable[..., Finished], tmp_path: Path, pictures: Path
) -> None:
    bundle = small_network.write(tmp_path)
    done = streamseg_here("engine", "build", bundle.path, "--precision", "int8", "--data", pictures, "--json")
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["calibrated"] == f"{pictures.name}, 2 pictures"
    assert report["within"]
    assert report["warnings"] == []
    assert set(report["ms"]) == {"fp32", "bf16", "int8"}
    assert report["engine"] == Bundle.open(bundle.path).int8_identity


def test_a_clip_is_calibrated_on_a_frame_a_second(clip: Clips, tmp_path: Path) -> None:
    found = calibration.read(small_network.write(tmp_path), clip("h264", frames=60, width=320, height=192), 64)
    assert (len(found.rgb), found.size, found.real) == (3, SIZE, True)
    assert not np.array_equal(found.rgb[0], found.rgb[1])


def test_without_real_pictures_it_warns_and_auto_stays_with_float(
    streamseg_here: Callable[..., Finished], tmp_path: Path
) -> None:
    bundle = small_network.write(tmp_path)
    done = streamseg_here("engine", "build", bundle.path, "--pictures", 2)
    assert done.code == 0, done.stderr
    assert "--calibrate" in done.stdout
    assert "--data" in done.stdout
    bundle = Bundle.open(bundle.path)
    assert bundle.manifest.int8 is not None
    assert bundle.manifest.int8.loss is None
    assert Engine(bundle).precision == "auto"
    assert Engine(bundle, precision="int8").precision == "int8"


# Faults


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_failed_build_leaves_the_engine_as_it_was(own: Callable[..., Bundle], tmp_path: Path, pictures: Path) -> None:
    bundle = own()
    before = contents(bundle.path)
    broken = write_pictures(tmp_path / "broken")
    (broken / "testannot" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(ConfigError, match=r"3\.png"):
        build.run(Request(bundle, pictures, labelled.of_folder(broken, "test")))
    assert contents(bundle.path) == before


@pytest.mark.parametrize(
    ("calibrate", "named"), [("none", "no such file"), ("empty", "no pictures"), ("broken", "damaged")]
)
def test_pictures_that_cannot_be_read_are_named(calibrate: str, named: str, tmp_path: Path) -> None:
    bundle = small_network.write(tmp_path)
    for folder in ("empty", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken" / "1.jpg").write_bytes(b"no")
    with pytest.raises(ConfigError, match=named):
        build.run(Request(bundle, tmp_path / calibrate))
    assert sorted(contents(bundle.path)) == ["engine.yaml", "model.onnx"]


def test_a_network_with_nothing_to_quantise_is_refused(tmp_path: Path, pictures: Path) -> None:
    bundle = tiny_engine.write(tmp_path)
    with pytest.raises(EngineError, match="no convolution"):
        build.run(Request(bundle, pictures))
    assert sorted(contents(bundle.path)) == ["engine.yaml", "model.onnx"]


def test_int8_that_is_not_there_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no model-int8\.onnx; streamseg engine build .*--precision int8"):
        Engine(small_network.write(tmp_path), precision="int8")


def test_int8_of_another_model_is_never_run(own: Callable[..., Bundle]) -> None:
    """A retrained engine: the old model-int8.onnx still lies there."""
    bundle = own(loss=0.0)
    retrained = program.build(small_network.network(sharpness=60), small_network.PLAIN)
    bundle = bundles.write(bundle.path, bundle.manifest, retrained)
    with pytest.raises(EngineError, match=r"made of another model\.onnx; streamseg engine build"):
        Engine(bundle, precision="int8")
    assert Engine(bundle).identity == bundle.identity


def test_a_backend_without_int8_names_those_that_have_it(built: Built) -> None:
    with pytest.raises(BackendUnavailable, match="choose openvino, onnxruntime"):
        Engine(built.bundle, backend="torch", precision="int8")


# Who runs it


def test_results_say_which_of_the_two_files_made_them(built: Built) -> None:
    engine, exact = Engine(built.bundle, precision="int8"), Engine(built.bundle, precision="fp32")
    assert engine.run([frame(picture(1))])[0].engine == engine.identity == built.bundle.int8_identity
    assert exact.run([frame(picture(1))])[0].engine == exact.identity == built.bundle.identity
    assert engine.identity != exact.identity


def test_auto_measures_once_and_takes_what_is_faster_here(own: Callable[..., Bundle], home: Path) -> None:
    bundle = own(loss=0.5)
    first = Engine(bundle).precision
    (kept,) = (home / "cache" / "streamseg" / "int8").iterdir()
    times = json.loads(kept.read_text())
    assert first == ("int8" if times["int8"] < choice.FASTER * times["float"] else "auto")
    kept.write_text(json.dumps(times | {"float": 2.0, "int8": 1.0}))
    assert Engine(bundle).precision == "int8"
    kept.write_text(json.dumps(times | {"float": 1.0, "int8": 2.0}))
    assert Engine(bundle).precision == "auto"
    kept.write_text("{")  # a cache that is damaged is measured anew
    Engine(bundle)
    assert set(json.loads(kept.read_text())) == set(times)
    Engine(bundle, threads=2, smoothing="off")
    assert len(list(kept.parent.iterdir())) == 1, "eval uses all cores, and must run what the daemon runs"
    Engine(bundle, size=(96, 64))
    assert len(list(kept.parent.iterdir())) == 2, "another size, another measurement"


@pytest.mark.parametrize("entry", [{"loss": 1.2}, {"loss": None}, {"loss": 0.5, "max_loss": 0.2}])
def test_auto_does_not_even_try_int8_that_loses_too_much(
    entry: dict[str, Any], own: Callable[..., Bundle], home: Path
) -> None:
    assert Engine(own(**entry)).precision == "auto"
    assert not (home / "cache" / "streamseg" / "int8").exists()


def test_the_daemon_takes_int8_from_its_configuration(
    streamseg_here: Callable[..., Finished], built: Built, tmp_path: Path
) -> None:
    config = tmp_path / "cameras.yaml"
    config.write_text(
        f"streams: [{{source: 'synthetic://street?size=160x96'}}]\n"
        f"engine: {{name: {built.bundle.path}, precision: int8}}\n"
    )
    done = streamseg_here("check", config)
    assert done.code == 0, done.stderr
    assert built.bundle.int8_identity in done.stdout
