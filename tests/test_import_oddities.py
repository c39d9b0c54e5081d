"""`engine import`: what exporters do that the format hardly foresees, each compared with what the file itself says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bringing import Bring, answer, left_alone
from foreign_models import HEIGHT, WIDTH, picture
from odd_models import UNIT, Net, floats, planes, saved, says, winners
from onnx import TensorProto, helper
from tiny_engine import NAMES

from streamseg.errors import ConfigError, EngineError

CLASSES = ["--classes", ",".join(NAMES), *UNIT]
PERSON = ["--classes", "person", *UNIT]


def _branch(op: str, x: str, *more: str) -> onnx.GraphProto:
    nodes = [helper.make_node(op, [x, *more], ["inner"]), helper.make_node("Identity", ["inner"], ["end"])]
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(*floats("end", *"abcd"))])


@pytest.mark.parametrize("opset", [9, 10])
def test_old_upsampling_keeps_its_places(opset: int, bring: Bring, tmp_path: Path) -> None:
    """Until opset 10 it began at the corner of a pixel, not at its middle: brought to 17 as it was, or all is shifted
    by half a sample, which the converted model would not show."""
    n = Net()
    x = n.scores("x", stride=8)
    n.op("Upsample" if opset == 9 else "Resize", x, n.constant([1, 1, 8, 8]), out="y", mode="linear")
    path = saved(n.model(opset=opset), tmp_path)
    mine = answer(bring(path, *CLASSES), picture(1))
    theirs = winners(says(path, planes(picture(1)))[0])
    shifted = np.roll(theirs, (-4, -4), (0, 1))
    assert (mine == theirs).mean() > 0.97
    assert (mine == theirs).mean() > (mine == shifted).mean() + 0.02


@pytest.mark.parametrize("opset", [11, 13])
def test_branches_are_those_that_are_taken(opset: int, bring: Bring, tmp_path: Path) -> None:
    """As PyTorch leaves a `squeeze`; the branches use tensors and weights around them, and each other's names."""
    n = Net()
    x, nothing = n.scores("x"), n.constant(np.zeros((1, 1, 1, 1)))
    one = n.op("Equal", n.op("Gather", n.op("Shape", x), n.constant(0, np.int64), axis=0), n.constant(1, np.int64))
    x = n.op("If", one, then_branch=_branch("Add", x, nothing), else_branch=_branch("Neg", x))
    inner = helper.make_node("If", [one], ["o"], then_branch=_branch("Abs", x), else_branch=_branch("Identity", x))
    nested = helper.make_graph([inner], "outer", [], [helper.make_tensor_value_info(*floats("o", *"abcd"))])
    n.op("If", n.op("Not", one), then_branch=nested, else_branch=_branch("Add", x, nothing), out="y")
    path = saved(n.model(opset=opset), tmp_path)
    theirs = winners(says(path, planes(picture()))[0])
    assert (answer(bring(path, *CLASSES), picture()) == theirs).mean() > 0.995


def test_answers_that_are_lists_of_pixels_are_pictures_again(bring: Bring, tmp_path: Path) -> None:
    for last in (True, False):
        n = Net()
        x = n.scores("x")
        x = n.op("Transpose", x, perm=[0, 2, 3, 1]) if last else x
        shape = [-1, HEIGHT * WIDTH, 4] if last else [-1, 4, HEIGHT * WIDTH]
        n.op("Softmax", n.op("Reshape", x, n.constant(shape, np.int64)), axis=2 if last else 1, out="y")
        path = saved(n.model(floats("y", "a", "b", "c")), tmp_path)
        theirs = says(path, planes(picture())).argmax(2 if last else 1).reshape(HEIGHT, WIDTH)
        assert (answer(bring(path, *CLASSES, name=f"last-{last}"), picture()) == theirs).mean() > 0.995


def test_scores_of_quantised_models_are_whole_numbers(bring: Bring, tmp_path: Path) -> None:
    n = Net()
    x = n.op("QuantizeLinear", n.scores("x"), n.constant(0.6), n.constant(100, np.uint8))
    n.op("Transpose", x, perm=[0, 2, 3, 1], out="y")
    path = saved(n.model(("y", TensorProto.UINT8, list("abcd"))), tmp_path)
    theirs = winners(says(path, planes(picture()))[0].transpose(2, 0, 1))
    assert (answer(bring(path, *CLASSES), picture()) == theirs).mean() > 0.99
    coloured = Net()
    coloured.op("Cast", coloured.scores("x"), to=TensorProto.UINT8, out="y")
    with pytest.raises(EngineError, match="neither scores nor a label map"):
        bring(saved(coloured.model(("y", TensorProto.UINT8, list("abcd"))), tmp_path), *CLASSES, name="coloured")


@pytest.mark.parametrize("kind", ["black-and-white", "grey", "grey-floats", "grey-of-nothing"])
def test_a_mask_of_bytes_is_how_much_there_is_of_one_thing(kind: str, bring: Bring, tmp_path: Path) -> None:
    n = Net()
    x = n.op("Sigmoid", n.bright("x", half=0.95 if kind == "grey-of-nothing" else 0.5))
    if kind == "black-and-white":
        x = n.op("Cast", n.op("Greater", x, n.constant(0.5)), to=TensorProto.FLOAT)
    x = n.op("Mul", x, n.constant(255))
    dtype = TensorProto.FLOAT if "floats" in kind or "nothing" in kind else TensorProto.UINT8
    n.op("Cast", x, to=dtype, out="y")
    path = saved(n.model(("y", dtype, list("abcd"))), tmp_path)
    theirs = says(path, planes(picture())).squeeze() > 127.5
    assert theirs.any() == (kind != "grey-of-nothing")
    assert (answer(bring(path, *PERSON), picture()) == theirs).mean() > 0.995


def test_the_dimension_of_the_classes_is_told_by_the_shape_of_the_rest(bring: Bring, tmp_path: Path) -> None:
    rows = HEIGHT // 4  # as many classes as rows, channels last
    n = Net()
    x = n.op("AveragePool", "x", kernel_shape=[4, 4], strides=[4, 4])
    x = n.op("Conv", x, n.constant(np.random.default_rng(0).normal(size=(rows, 3, 1, 1))))
    n.op("Transpose", x, perm=[0, 2, 3, 1], out="y")
    path = saved(n.model(), tmp_path)
    bundle = bring(path, "--classes", ",".join(f"c{i}" for i in range(rows)), *UNIT)
    theirs = winners(says(path, planes(picture()))[0].transpose(2, 0, 1))
    assert (answer(bundle, picture()) == theirs).mean() > 0.97
    for layout in ([0, 1, 2, 3], [0, 2, 3, 1]):
        n = Net()
        x = n.op("AveragePool", "x", kernel_shape=[4, 4], strides=[4, 4])
        n.op("Transpose", n.op("Conv", x, n.constant(np.ones((150, 3, 1, 1)))), perm=layout, out="y")
        with pytest.raises(EngineError, match="150 classes, and 4 are named"):
            bring(saved(n.model(), tmp_path), *CLASSES, name="other")


@pytest.mark.parametrize("shape", [[1, 2], [1, 4], [1, 4, 1, 1], [1, 1], [1, 8, -1], [1, -1, 4]])
def test_what_is_no_map_of_the_picture_is_no_segmentation(shape: list[int], bring: Bring, tmp_path: Path) -> None:
    """Classifiers and detectors; those of two classes would else be a foreground of two pixels."""
    n = Net()
    count = 480 if -1 in shape else int(np.prod(shape))
    within = [n.constant([number], np.int64) for number in (0, count, 1)]
    x = n.op("Slice", n.op("Flatten", "x"), *within)
    n.op("Reshape", x, n.constant(shape, np.int64), out="y")
    path = saved(n.model(floats("y", *"abcd"[: len(shape)])), tmp_path)
    for options in (CLASSES, PERSON):
        with pytest.raises(EngineError, match="no map of it; a model for semantic segmentation is wanted"):
            bring(path, *options)
    left_alone(tmp_path)


def test_operators_of_another_runtime_are_named(bring: Bring, tmp_path: Path) -> None:
    n = Net()
    n.nodes.append(helper.make_node("DeformConv", [n.scores("x")], ["y"], domain="mmcv"))
    for domains in (("mmcv",), ()):
        with pytest.raises(EngineError, match=r"operators that are not of ONNX: mmcv\.DeformConv; export it without"):
            bring(saved(n.model(domains=domains), tmp_path), *CLASSES)
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("more", "value")],
        "body",
        [helper.make_tensor_value_info(*v) for v in (("i", 7, []), ("more", 9, []), floats("value", *"abcd"))],
        [helper.make_tensor_value_info(*v) for v in (("more_out", 9, []), floats("value_out", *"abcd"))],
    )
    n = Net()
    n.op("Loop", n.constant(1, np.int64), n.constant(True, np.bool_), n.scores("x"), body=body, out="y")
    with pytest.raises(EngineError, match="holds Loop, which is not supported"):
        bring(saved(n.model(), tmp_path), *CLASSES)
    left_alone(tmp_path)


@pytest.mark.parametrize("missing", ["shape", "type", "name", "format"])
def test_what_runtimes_do_not_ask_for_may_be_missing(missing: str, bring: Bring, tmp_path: Path) -> None:
    n = Net()
    n.op("Identity", n.scores("x"), out="y")
    model: Any = n.model()
    if missing == "shape":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    elif missing == "type":
        model.graph.output[0].ClearField("type")
    elif missing == "name":
        model.graph.ClearField("name")
    else:  # the newest that onnx writes, and ONNX Runtime refuses
        model.ir_version = onnx.IR_VERSION
    bundle = bring(saved(model, tmp_path), *CLASSES)
    assert bundle.program.ir_version <= 10


def test_what_is_no_file_of_a_model_is_told(bring: Bring, tmp_path: Path) -> None:
    pointer = tmp_path / "pointer.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(EngineError, match="only Git LFS's pointer to a model; `git lfs pull`"):
        bring(pointer, *CLASSES)
    n = Net()
    n.op("Identity", n.scores("x"), out="y")
    path = tmp_path / "split.onnx"
    onnx.save(n.model(), path, save_as_external_data=True, location="split.data", size_threshold=0)
    (tmp_path / "split.data").write_bytes(b"")
    with pytest.raises(EngineError, match="in a file that is cut short"):
        bring(path, *CLASSES)
    with pytest.raises(ConfigError, match="is a folder; the model's own file in it is wanted"):
        bring(tmp_path, *CLASSES)
    left_alone(tmp_path)
