"""`streamseg engine list` and `engine info`, on engines made here: sound, damaged, quantised, without numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny_engine as tiny
import yaml
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from streamseg.cli import app
from streamseg.engine import bundle, complexity
from streamseg.engine.bundle import Int8Entry

Command = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder to work in with engines/one and engines/two, and nothing remembered."""
    for name in ("one", "two"):
        tiny.write(tmp_path / "engines", name, smoothing="off")
    return tmp_path


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`engine("list", "--json")` -> its stdout. Only the engines in `home` are found: those of this project are larger
    than needs be here."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setattr(bundle, "search_path", lambda: [Path("engines")])

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["engine", *arguments])
        assert (done.exit_code, done.stderr) == (0, ""), done.exception
        return done.stdout

    return run


def listed(engine: Command, *options: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(engine("list", "--json", *options))}


def set_manifest(folder: Path, **values: Any) -> None:
    manifest = yaml.safe_load((folder / "engine.yaml").read_text())
    (folder / "engine.yaml").write_text(yaml.safe_dump(manifest | values))


def test_the_list_has_what_the_manifest_says_and_counts_what_it_does_not(home: Path, engine: Command) -> None:
    set_manifest(home / "engines" / "two", parameters=7, gmac=1.5, accuracy={"miou": 0.625, "data": "ours"})
    rows = listed(engine, "--no-measure")
    # A 1x1 convolution from 3 to 4 channels at a quarter of 160x96, with biases.
    assert rows["one"]["parameters"] == 4 * 3 + 4
    assert rows["one"]["gmac"] == round(40 * 24 * 4 * 3 / 1e9, 3)
    assert (rows["one"]["task"], rows["one"]["classes"], rows["one"]["size"]) == ("semantic-segmentation", 4, "160x96")
    assert rows["one"]["bytes"] == (home / "engines" / "one" / "model.onnx").stat().st_size
    assert (rows["one"]["miou"], rows["one"]["ms"]) == (None, None)
    assert [rows["two"][key] for key in ("parameters", "gmac", "miou", "miou_of")] == [7, 1.5, 0.625, "ours"]


def test_the_speed_is_measured_once_for_each_model_and_remembered(home: Path, engine: Command) -> None:
    first = listed(engine)
    assert first["one"]["ms"] > 0
    remembered = sorted((home / "cache" / "streamseg" / "speeds").iterdir())
    assert listed(engine, "--no-measure") == first
    assert sorted((home / "cache" / "streamseg" / "speeds").iterdir()) == remembered
    # Another model of the same name was never measured.
    one = bundle.Bundle.open(home / "engines" / "one")
    one.program.producer_name = "another"
    bundle.write(one.path, one.manifest, one.program)
    changed = listed(engine, "--no-measure")
    assert changed["one"]["ms"] is None
    assert changed["two"]["ms"] == first["two"]["ms"]


def test_what_is_remembered_wrongly_is_measured_again(home: Path, engine: Command) -> None:
    listed(engine)
    for file in (home / "cache" / "streamseg" / "speeds").iterdir():
        file.write_text('{"ms": "fast"}')
    assert listed(engine, "--no-measure")["one"]["ms"] is None
    assert listed(engine)["one"]["ms"] > 0


def test_asked_to_it_measures_again(home: Path, engine: Command) -> None:
    listed(engine)
    for file in (home / "cache" / "streamseg" / "speeds").iterdir():
        file.write_text('{"ms": 123456.0, "precision": "auto"}')
    assert listed(engine)["one"]["ms"] == 123456.0
    assert listed(engine, "--again")["one"]["ms"] < 1000
    assert listed(engine, "--no-measure")["one"]["ms"] < 1000


def broken_manifest(folder: Path) -> None:
    (folder / "engine.yaml").write_text("classes: [")


def no_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def cut_model(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "words"),
    [(broken_manifest, "engine.yaml is damaged"), (no_model, "no model.onnx"), (cut_model, "model.onnx is damaged")],
)
def test_a_damaged_engine_is_told_and_hides_no_other(
    damage: Callable[[Path], None], words: str, home: Path, engine: Command
) -> None:
    set_manifest(home / "engines" / "one", parameters=7, gmac=1.5)
    damage(home / "engines" / "one")
    rows = listed(engine)
    assert words in rows["one"]["error"]
    assert rows["two"]["ms"] > 0
    table = engine("list", "--no-measure")
    assert "damaged" in table
    assert words in table
    assert "two" in table


def test_the_table_shows_each_engine_in_a_row(engine: Command) -> None:
    lines = engine("list").splitlines()
    titles = ["name", "task", "classes", "size", "params", "GMAC", "MB", "mIoU", "ms", "mIoU", "of"]
    assert lines[0].split() == titles
    one = next(line.split() for line in lines if line.startswith("one"))
    assert one[1:5] == ["semantic", "4", "160x96", "16"]
    assert float(one[8]) >= 0
    assert lines[-1].startswith("ms: a picture, one thread, openvino ")


def test_info_tells_the_facts_before_the_card(home: Path, engine: Command) -> None:
    folder = home / "engines" / "one"
    (folder / "README.md").write_text("# A card\n\nIt was **measured**.\n")
    small = bundle.Bundle.open(folder)
    bundle.write_int8(small, small.program, Int8Entry(of=small.digest, agreement=0.987, loss=0.4, data="the yard"))
    set_manifest(folder, accuracy={"miou": 0.5, "data": "our street", "iou": {"ground": 0.876, "black": None}})
    printed = engine("info", "one")
    facts, card = printed.split("A card")
    for words in (
        "one@",
        "semantic-segmentation",
        "160x96",
        "50.00 % of our street",
        "CC0-1.0",
        "200, 60, 40",
        "87.6",
        "+0.40 points of mIoU lost on the yard",
    ):
        assert words in facts
    assert "model-int8.onnx" in facts
    assert "It was measured." in card  # rendered, not as it stands
    assert printed.index("ground") < printed.index("black") < printed.index("white") < printed.index("square")


def test_info_as_json_has_every_file_with_its_digest(home: Path, engine: Command) -> None:
    facts = json.loads(engine("info", "one", "--json"))
    model = next(file for file in facts["files"] if file["name"] == "model.onnx")
    assert model["sha256"].startswith(facts["digest"])
    assert model["bytes"] == (home / "engines" / "one" / "model.onnx").stat().st_size
    assert facts["parameters"] == 16
    assert [c["name"] for c in facts["classes"]] == list(tiny.NAMES)
    assert facts["origin"] == "trained"


def test_parameters_and_multiply_accumulates_are_counted_in_the_graph() -> None:
    rng = np.random.default_rng(1)
    weights = {
        "dense": rng.standard_normal((8, 3, 3, 3)),
        "depthwise": rng.standard_normal((8, 1, 3, 3)),
        "up": rng.standard_normal((8, 5, 2, 2)),
        "mix": rng.standard_normal((5, 6)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "dense"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "depthwise"], ["b"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("ConvTranspose", ["b", "up"], ["c"], strides=[2, 2]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["d", "mix"], ["e"]),
        helper.make_node("Transpose", ["e"], ["f"], perm=[0, 3, 1, 2]),
        helper.make_node("Clip", ["f", "zero"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.float32(0), "zero"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 6, "h", "w"])
    graph = helper.make_graph(nodes, "counted", [image], [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    assert complexity.parameters(model) == sum(value.size for value in weights.values())
    half, full = 32 * 24, 64 * 48
    expected = half * 8 * 27 + half * 8 * 9 + half * 8 * 5 * 4 + full * 6 * 5
    assert complexity.multiply_accumulates(model, 64, 48) == expected


def test_quantised_weights_count_and_their_scales_do_not() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["image", "w"], ["logits"]),
    ]
    tensors = [
        numpy_helper.from_array(np.ones((4, 3, 1, 1), np.int8), "weights"),
        numpy_helper.from_array(np.ones(4, np.float32), "scales"),
        numpy_helper.from_array(np.zeros(4, np.int8), "zeros"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4, "H", "W"])
    graph = helper.make_graph(nodes, "quantised", [image], [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert complexity.measure(model, 320, 200).parameters == 12
    assert complexity.multiply_accumulates(model, 320, 200) == 320 * 200 * 12


def test_engines_are_listed_as_they_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    names = [folder.name for folder in bundle.folders()]
    assert names[:2] == ["one", "two"]
    assert len(set(names)) == len(names)
    assert all(bundle.find(name).path.name == name for name in names)


def test_the_accuracy_of_int8_is_not_recorded_as_the_model_s(home: Path, engine: Command, tmp_path: Path) -> None:
    one = bundle.Bundle.open(home / "engines" / "one")
    other = bundle.Bundle.open(home / "engines" / "two").program
    other.producer_name = "quantiser"  # another file, with another digest
    bundle.write_int8(one, other, Int8Entry(of=one.digest, agreement=1, loss=0))
    for name in ("test", "testannot"):
        (tmp_path / "data" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / name / "1.png"), np.zeros((96, 160), np.uint8))
    command = ["eval", "one", str(tmp_path / "data"), "--record", "black"]
    done = CliRunner().invoke(app, [*command, "--set", "engine.precision=int8"])
    assert "int8" in str(done.exception)
    assert bundle.Bundle.open(one.path).manifest.accuracy == {}
    assert CliRunner().invoke(app, [*command, "--set", "engine.precision=fp32"]).exit_code == 0
    assert bundle.Bundle.open(one.path).manifest.accuracy["data"] == "black"
