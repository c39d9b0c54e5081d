"""`engine import`: what is found out about a model's pixels, where their range is in the graph or the type alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bringing import Bring, answer, left_alone
from foreign_models import HEIGHT, WIDTH, picture
from odd_models import ANY, PICTURE, UNIT, Net, floats, planes, saved, says, winners
from onnx import TensorProto, helper
from tiny_engine import NAMES

from streamseg.errors import EngineError

CLASSES = ["--classes", ",".join(NAMES)]


def _constant_first(n: Net) -> str:
    return n.scores(n.op("Mul", n.constant(1 / 255), "x"))


def _constant_node(n: Net) -> str:
    return n.scores(n.op("Div", "x", n.op("Constant", value_float=255.0)))


def _constant_cast(n: Net) -> str:
    return n.scores(n.op("Div", "x", n.op("Cast", n.constant(255, np.int64), to=TensorProto.FLOAT)))


def _constant_reshaped(n: Net) -> str:
    middle = n.op("Unsqueeze", n.constant([127.5] * 3), n.constant([1, 2], np.int64))
    return n.scores(n.op("Sub", "x", middle), mean=127.5, std=1)


def _order_first(n: Net) -> str:
    return n.scores(
        n.op("Div", n.op("Gather", "x", n.constant([2, 1, 0], np.int64), axis=1), n.constant(255)), bgr=True
    )


def _padding_first(n: Net) -> str:
    return n.scores(n.op("Div", n.op("Pad", "x", n.constant([0] * 8, np.int64)), n.constant(255)))


def _normalised_by_layer(n: Net) -> str:
    values = ([1] * 3, [0] * 3, [127.5] * 3, [127.5**2] * 3)
    return n.scores(n.op("BatchNormalization", "x", *map(n.constant, values)), mean=127.5, std=127.5)


def _channel_by_channel(n: Net) -> str:
    parts = [n.op("Gather", "x", n.constant([i], np.int64), axis=1) for i in range(3)]
    parts = [n.op("Div", n.op("Sub", part, n.constant(127.5)), n.constant(127.5)) for part in parts]
    return n.scores(n.op("Concat", *parts, axis=1), mean=127.5, std=127.5)


BEGINNINGS: dict[str, Callable[[Net], str]] = {
    "constant-first": _constant_first,
    "constant-node": _constant_node,
    "constant-cast": _constant_cast,
    "constant-reshaped": _constant_reshaped,
    "order-first": _order_first,
    "padding-first": _padding_first,
    "normalised-by-layer": _normalised_by_layer,
    "channel-by-channel": _channel_by_channel,
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_bytes_are_told_from_what_the_model_begins_with(
    begin: Callable[[Net], str], bring: Bring, tmp_path: Path
) -> None:
    """Guessed wrongly, the engine agrees with the model, and both see a picture that is none."""
    n = Net()
    n.op("Identity", begin(n), out="y")
    path = saved(n.model(), tmp_path)
    bundle = bring(path, *CLASSES)
    assert "0..255 (the model itself begins with" in bring.output
    theirs = winners(says(path, planes(picture(1), std=1))[0])
    assert (answer(bundle, picture(1)) == theirs).mean() > 0.995
    assert len(np.unique(theirs)) == 4


@pytest.mark.parametrize("kind", ["INT8", "INT32", "INT64"])
def test_whole_numbers_are_taken(kind: str, bring: Bring, tmp_path: Path) -> None:
    """Quantised models take bytes less 128."""
    shift, dtype = (128 if kind == "INT8" else 0), getattr(np, kind.lower())
    n = Net()
    n.op("Identity", n.scores(n.op("Cast", "x", to=TensorProto.FLOAT), mean=shift, std=1), out="y")
    path = saved(n.model(inputs=(("x", getattr(TensorProto, kind), [1, 3, HEIGHT, WIDTH]),)), tmp_path)
    theirs = winners(says(path, planes(picture(), shift, 1, dtype))[0])
    assert (answer(bring(path, *CLASSES), picture()) == theirs).mean() > 0.995


def _ordinary(*inputs: Any) -> onnx.ModelProto:
    n = Net()
    n.op("Identity", n.scores("x"), out="y")
    return n.model(inputs=inputs or (PICTURE,))


def test_dimensions_of_minus_one_are_any(bring: Bring, tmp_path: Path) -> None:
    path = saved(_ordinary(floats("x", -1, 3, -1, -1)), tmp_path)
    bundle = bring(path, *CLASSES, *UNIT, "--size", f"{WIDTH}x{HEIGHT}")
    assert not bundle.manifest.input.fixed


def test_an_input_that_nothing_uses_is_no_second_input(bring: Bring, tmp_path: Path) -> None:
    bring(saved(_ordinary(PICTURE, floats("spare", 1)), tmp_path), *CLASSES, *UNIT)


def test_a_size_that_is_not_of_eights_is_the_only_one(bring: Bring, tmp_path: Path) -> None:
    n = Net()
    n.op("Identity", n.scores("x", stride=4), out="y")
    path = saved(n.model(inputs=(floats("x", 1, 3, "h", "w"),)), tmp_path)
    bundle = bring(path, *CLASSES, *UNIT, "--size", "161x97")
    assert bundle.manifest.input.fixed
    assert "sizes of any aspect must be of eights" in bring.output


def test_what_cannot_be_a_picture_is_told(bring: Bring, tmp_path: Path) -> None:
    unstated = _ordinary()
    unstated.graph.input[0].type.tensor_type.ClearField("shape")
    n = Net()
    n.op("Add", n.scores("x"), n.op("Cast", "training", to=TensorProto.FLOAT), out="y")
    second = n.model(inputs=(PICTURE, ("training", TensorProto.BOOL, [])))
    half = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1, 3, HEIGHT, WIDTH])
    brain = _ordinary()
    brain.graph.input[0].CopyFrom(half)
    brain.graph.node.insert(0, helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT))
    brain.graph.node[1].input[0] = "f"
    wrong = {
        "x does not state its dimensions; export it with them": unstated,
        "this one has 2: x, training; export it with all others as constants": second,
        "x is bfloat16; a picture is of bytes": brain,
        "takes 16x16; pictures have sides of 32 to 8192": _ordinary(floats("x", 1, 3, 16, 16)),
        "takes 9000x32; pictures have sides of 32 to 8192": _ordinary(floats("x", 1, 3, 32, 9000)),
    }
    for told, model in wrong.items():
        with pytest.raises(EngineError, match=told):
            bring(saved(model, tmp_path), *CLASSES, *UNIT)
    left_alone(tmp_path)


def test_not_a_number_is_told(bring: Bring, tmp_path: Path) -> None:
    """An engine whose scores are all NaN agrees with its model."""
    n = Net()
    n.op("Log", n.op("Sub", n.scores("x"), n.constant(1e6)), out="y")
    with pytest.raises(EngineError, match=r"NaN.*another range, say so with --pixels"):
        bring(saved(n.model(ANY), tmp_path), *CLASSES, *UNIT)
