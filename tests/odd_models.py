"""A few lines for building an ONNX model by hand, and what it says by itself through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from foreign_models import HEIGHT, WIDTH
from onnx import TensorProto, helper, numpy_helper
from tiny_engine import COLOURS

Array = np.ndarray[Any, Any]
UNIT = ["--pixels", "0..1"]
Value = tuple[str, int, Any]


def floats(name: str, *dims: Any) -> Value:
    return name, TensorProto.FLOAT, list(dims)


PICTURE = floats("x", 1, 3, HEIGHT, WIDTH)
ANY = floats("y", "a", "b", "c", "d")


class Net:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), f"w{len(self.weights)}"))
        return str(self.weights[-1].name)

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def scores(self, x: str, mean: float = 0, std: float = 255, stride: int = 1, bgr: bool = False) -> str:
        """[N,4,h,w], largest for the nearest colour, of pixels `(p - mean) / std`."""
        if stride > 1:
            x = self.op("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2)
        colours = np.array(list(COLOURS.values()), np.float64)[:, [2, 1, 0] if bgr else [0, 1, 2]]
        scale = 40 / 255**2
        bias = scale * ((2 * colours * mean).sum(1) - (colours**2).sum(1))
        return self.op("Conv", x, self.constant((2 * scale * colours * std).reshape(-1, 3, 1, 1)), self.constant(bias))

    def bright(self, x: str, half: float = 0.5) -> str:
        """[N,1,H,W], a logit of whether a pixel of 0..1 is above `half`."""
        grey = self.op("ReduceMean", x, axes=[1], keepdims=1)
        return self.op("Mul", self.op("Sub", grey, self.constant(half)), self.constant(30.0))

    def model(
        self, *outputs: Value, inputs: tuple[Value, ...] = (PICTURE,), opset: int = 13, domains: tuple[str, ...] = ()
    ) -> onnx.ModelProto:
        ends = [[helper.make_tensor_value_info(*v) for v in values] for values in (inputs, outputs or (ANY,))]
        graph = helper.make_graph(self.nodes, "odd", *ends, self.weights)
        stated = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return helper.make_model(graph, opset_imports=stated, ir_version=7)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "odd.onnx"
    onnx.save(model, path)
    return path


def says(path: Path, given: Array, output: str = "y") -> Array:
    """The file itself, through ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    value = session.run([output], {session.get_inputs()[0].name: given})[0]
    return np.asarray(value)


def planes(rgb: Array, mean: float = 0, std: float = 255, dtype: Any = np.float32) -> Array:
    """[1,3,H,W] of `(p - mean) / std`."""
    return np.ascontiguousarray(((rgb.transpose(2, 0, 1)[None] - float(mean)) / std).astype(dtype))


def winners(scores: Array, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Array:
    """[K,h,w] -> the labels [H,W]."""
    return np.stack([cv2.resize(np.ascontiguousarray(p, np.float32), size) for p in scores]).argmax(0)
