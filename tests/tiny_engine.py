"""An engine that is no network but arithmetic: each pixel gets the class whose colour is nearest. It compiles and runs
in a moment, and what it must answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamseg.engine import bundle, program
from streamseg.engine.bundle import Bundle, ClassEntry, InputEntry, Manifest, SmoothingEntry

COLOURS = {"ground": (100, 100, 110), "black": (16, 16, 16), "white": (235, 235, 235), "square": (200, 60, 40)}
"""What the pictures of `clips.picture` are made of."""
NAMES = tuple(COLOURS)
STRIDE = 4


def network(inputs: str = "image") -> onnx.ModelProto:
    """`image` f32 [N,3,H,W] in 0..1 -> `logits` f32 [N,4,H/4,W/4]: 40 (2 c.x - c.c) is largest for the nearest c."""
    colours = np.array(list(COLOURS.values()), np.float32) / 255
    weights = numpy_helper.from_array((80 * colours).reshape(-1, 3, 1, 1), "weights")
    bias = numpy_helper.from_array(-40 * (colours**2).sum(1), "bias")
    pool = helper.make_node("AveragePool", [inputs], ["pooled"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2)
    nearest = helper.make_node("Conv", ["pooled", "weights", "bias"], ["logits"])
    image = helper.make_tensor_value_info(inputs, TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(COLOURS), "h", "w"])
    graph = helper.make_graph([pool, nearest], "tiny", [image], [logits], [weights, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(
    folder: Path,
    name: str = "tiny",
    *,
    smoothing: str = "average",
    strength: float = 0.1,
    moves: tuple[str, ...] = (),
) -> Bundle:
    """A bundle of it; 160x96 pictures at 5:3. `moves` names the classes that move."""
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    manifest = Manifest(
        name=name,
        classes=tuple(ClassEntry(name=n, colour=c, moves=n in moves) for n, c in COLOURS.items()),
        input=InputEntry(width=160, height=96, **plain),
        smoothing=SmoothingEntry(mode=smoothing, strength=strength),
        licence="CC0-1.0",
        data="none",
    )
    return bundle.write(folder / name, manifest, program.build(network(), program.ProgramSpec(**plain)))
