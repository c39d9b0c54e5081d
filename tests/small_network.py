"""A network of four convolutions whose answer is known, to be quantised in a moment: the nearest colour, as
`tiny_engine` gives it, found the long way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import tiny_engine
from onnx import TensorProto, helper, numpy_helper
from tiny_engine import COLOURS

from streamseg.engine import bundle, program
from streamseg.engine.bundle import Bundle

WIDE = 64
"""Channels in between: colours seen from 32 sides, and from the opposite ones, since ReLU keeps only one half."""
STRIDE = 4
PLAIN = program.ProgramSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def network(sharpness: float = 80) -> onnx.ModelProto:
    """`image` f32 [N,3,H,W] in 0..1 -> `logits` f32 [N,4,H/4,W/4]; the inner two convolutions are for int8."""
    sides = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDE // 2, 3)))[0]  # its transpose leads back
    colours = np.array(list(COLOURS.values()), np.float32) / 255
    mean, keep = np.zeros((3, 3, STRIDE, STRIDE)), np.zeros((WIDE, WIDE, 3, 3))
    mean[range(3), range(3)] = 1 / STRIDE**2
    keep[range(WIDE), range(WIDE), 1, 1] = 1
    weights = {
        "mean": mean,
        "see": np.concatenate([sides, -sides])[:, :, None, None],
        "keep": keep,
        "nearest": (sharpness * colours @ np.concatenate([sides, -sides]).T)[:, :, None, None],
        "bias": -sharpness / 2 * (colours**2).sum(1),
    }
    nodes = [
        helper.make_node("Conv", ["image", "mean"], ["small"], strides=[STRIDE, STRIDE]),
        helper.make_node("Conv", ["small", "see"], ["sides"]),
        helper.make_node("Relu", ["sides"], ["halves"]),
        helper.make_node("Conv", ["halves", "keep"], ["kept"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["kept", "nearest", "bias"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(COLOURS), "h", "w"])
    constants = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(folder: Path, **options: float) -> Bundle:
    """A bundle of it, in other respects `tiny_engine`'s; 160x96 pictures at 5:3."""
    made = tiny_engine.write(folder, "small", smoothing="adaptive", strength=0.3)
    return bundle.write(made.path, made.manifest, program.build(network(**options), PLAIN))
