"""ONNX files as other people's exporters leave them: every layout, range, kind of answer and stride. Each is the tiny
engine's arithmetic (the nearest of four colours), so that what they must answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_engine import COLOURS, NAMES

WIDTH, HEIGHT = 160, 96
TYPES = {"u8": TensorProto.UINT8, "f16": TensorProto.FLOAT16, "f32": TensorProto.FLOAT}


@dataclass(frozen=True, slots=True)
class Foreign:
    """`pixels`: what the model takes, `(x - mean) / std` of pixels 0..255; `answer`: logits, softmax, sigmoid, argmax
    (i64), argmax-i32, argmax-u8, argmax-f32, hidden (labels with nothing behind them)."""

    layout: str = "nchw"
    kind: str = "f32"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    bgr: bool = False
    answer: str = "logits"
    answer_layout: str = "nchw"
    stride: int = 4
    resize: str | None = None
    """How the scores are brought back to the picture's size: half_pixel, align_corners, asymmetric."""
    size: tuple[int, int] | None = (WIDTH, HEIGHT)
    opset: int = 17
    second: bool = False
    """Whether it has a second, auxiliary output."""

    def model(self) -> onnx.ModelProto:
        nodes: list[Any] = []
        weights: list[Any] = []

        def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
            weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
            return name

        def op(kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
            output = output or f"t{len(nodes)}"
            nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
            return output

        x = "logits" if self.answer == "logits-named" else "data"  # a name that the program has too
        given = x
        if self.kind != "f32":
            x = op("Cast", x, to=TensorProto.FLOAT)
        if self.layout == "nhwc":
            x = op("Transpose", x, perm=[0, 3, 1, 2])
        order = [2, 1, 0] if self.bgr else [0, 1, 2]
        # The network's own weights undo the range, as training does: nothing in the graph tells of it.
        pool = op("AveragePool", x, kernel_shape=[self.stride] * 2, strides=[self.stride] * 2)
        colours = np.array(list(COLOURS.values()), np.float64)[:, order]
        mean, std = np.array(self.mean), np.array(self.std)
        scale = 40 / 255**2
        kernel = (2 * scale * colours * std).reshape(-1, 3, 1, 1)
        bias = scale * ((2 * colours * mean).sum(1) - (colours**2).sum(1))
        x = op("Conv", pool, constant("kernel", kernel), constant("bias", bias))
        auxiliary = op("Mul", x, constant("minus", -1.0), output="auxiliary") if self.second else None
        if self.resize is not None:
            assert self.size is not None
            sizes = constant("sizes", [1, len(NAMES), self.size[1], self.size[0]], np.int64)
            roi, scales = constant("roi", []), constant("scales", [])
            how = {"mode": "linear", "coordinate_transformation_mode": self.resize}
            x = op("Resize", x, roi, scales, sizes, **how)
        x, kind = self._answered(x, op, constant)
        graph = helper.make_graph(
            [*nodes],
            "foreign",
            [helper.make_tensor_value_info(given, TYPES[self.kind], self._input_shape())],
            [helper.make_tensor_value_info(n, k, s) for n, k, s in self._outputs(auxiliary, x, kind)],
            weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=7)

    def _answered(self, x: str, op: Any, constant: Any) -> tuple[str, int]:
        axis = 1
        if self.answer_layout == "nhwc":
            x, axis = op("Transpose", x, perm=[0, 2, 3, 1]), 3
        name, _, dtype = self.answer.partition("-")
        if name == "softmax" and self.opset < 13:  # as PyTorch exported it then: classes last, columns before rows
            x = op("Transpose", op("Softmax", op("Transpose", x, perm=[0, 3, 2, 1]), axis=3), perm=[0, 3, 2, 1])
        elif name == "softmax":
            x = op("Softmax", x, axis=axis)
        if name == "sigmoid":  # scaled down: where it is 1.0 for several classes, the model knows no answer itself
            x = op("Sigmoid", op("Mul", x, constant("tenth", 0.1)))
        if name == "hidden":  # scores that cannot be reached: their maximum, compared
            best = op("ReduceMax", x, axes=[axis], keepdims=1)
            won = op("Cast", op("Equal", x, best), to=TensorProto.FLOAT)
            shape = [1, -1, 1, 1] if axis == 1 else [1, 1, 1, -1]
            numbers = constant("numbers", np.arange(len(NAMES)).reshape(shape))
            x = op("ReduceMax", op("Mul", won, numbers), axes=[axis], keepdims=0 if dtype == "" else 1)
            return op("Cast", x, to=TensorProto.INT64, output="answer"), TensorProto.INT64
        if name != "argmax":
            return op("Identity", x, output="answer"), TensorProto.FLOAT
        x = op("ArgMax", x, axis=axis, keepdims=0 if dtype in ("", "i32") else 1)
        kinds = {"": TensorProto.INT64, "i32": TensorProto.INT32, "u8": TensorProto.UINT8, "f32": TensorProto.FLOAT}
        return op("Cast", x, to=kinds[dtype], output="answer"), kinds[dtype]

    def _input_shape(self) -> list[Any]:
        width, height = self.size or ("W", "H")
        return [1, 3, height, width] if self.layout == "nchw" else [1, height, width, 3]

    def _outputs(self, auxiliary: str | None, name: str, kind: int) -> list[tuple[str, int, list[str]]]:
        flat = self.answer in ("argmax", "argmax-i32", "hidden")
        answer = (name, kind, ["a", "b", "c"] if flat else ["a", "b", "c", "d"])
        return [answer, (auxiliary, TensorProto.FLOAT, ["e", "f", "g", "h"])] if auxiliary else [answer]

    @property
    def coarse(self) -> bool:
        """Whether its answer and an engine's differ along the edges: labels that are coarser than the picture, or
        scores that are enlarged before they are probabilities, and not after."""
        return self.resize is not None or (self.stride > 1 and self.answer.partition("-")[0] in ("argmax", "hidden"))

    def write(self, folder: Path) -> Path:
        path = folder / "foreign.onnx"
        onnx.save(self.model(), path)
        return path

    @property
    def options(self) -> list[str]:
        """What the command line must be told of it."""
        said = ["--classes", ",".join(NAMES)]
        if self.kind != "u8" and self.std == (1.0, 1.0, 1.0) and not self.bgr:
            said += ["--pixels", "0..255"]  # mean 0 and std 1 alone would mean 0..1
        elif self.kind != "u8":
            said += ["--mean", ",".join(map(str, self.mean)), "--std", ",".join(map(str, self.std))]
        if self.bgr:
            said.append("--bgr")
        if self.size is None:
            said += ["--size", f"{WIDTH}x{HEIGHT}"]
        return said


def picture(seed: int = 0) -> np.ndarray[Any, Any]:
    """u8 [HEIGHT, WIDTH, 3]: large blots of the four colours, a little noise on them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    out = np.empty((HEIGHT, WIDTH, 3))
    out[:] = next(iter(COLOURS.values()))
    for i in (1, 2, 3, 1, 2, 3, 0, 3):
        cy, cx, r = rng.integers(0, HEIGHT), rng.integers(0, WIDTH), rng.integers(14, 34)
        out[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = list(COLOURS.values())[i]
    return np.clip(out + rng.normal(0, 3, out.shape), 0, 255).astype(np.uint8)
