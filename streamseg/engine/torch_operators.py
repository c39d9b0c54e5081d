"""ONNX operators as torch functions: what `torch_backend` walks a program with. Stateless.

Shape arithmetic (Shape, Gather, Concat of int64) stays in numpy, so that sizes are known on the host and a captured
CUDA graph holds none of it. Semantics: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper

from streamseg.errors import EngineError

Operator = Callable[..., Any]
_DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def host(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def ints(value: Any) -> list[int]:
    return [int(v) for v in np.atleast_1d(value)]


def _either(on_host: Operator, on_device: Operator) -> Operator:
    def call(*values: Any, **attributes: Any) -> Any:
        if all(host(v) for v in values if v is not None):
            return on_host(*values, **attributes)
        return on_device(*(torch.as_tensor(v) if host(v) else v for v in values), **attributes)

    return call


def _padded(x: Any, pads: list[int], value: float = 0.0) -> tuple[Any, tuple[int, int]]:
    """Symmetric padding is left to the operator; what is not symmetric is padded here first."""
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _same(how: str, x: Any, kernel: Any, strides: Any, dilations: Any) -> list[int]:
    """What TensorFlow pads with, so that the size is only divided by the strides, rounded up; the odd one is last, or
    with SAME_LOWER first."""
    sides = zip(x.shape[2:], kernel, strides, dilations, strict=True)
    both = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in sides]
    before = [n // 2 if how == "SAME_UPPER" else n - n // 2 for n in both]
    return [*before, *(n - first for n, first in zip(both, before, strict=True))]


def _only(name: str, **attributes: Any) -> None:
    for key, (value, allowed) in attributes.items():
        if value not in allowed:
            raise EngineError(
                f"the torch backend does not know {name} with {key}={value!r}; use openvino or onnxruntime"
            )


def conv(x: Any, w: Any, b: Any = None, *, strides: Any = (1, 1), pads: Any = (0, 0, 0, 0), dilations: Any = (1, 1),
         group: int = 1, kernel_shape: Any = None, auto_pad: str = "NOTSET") -> Any:  # fmt: skip
    if auto_pad.startswith("SAME"):
        pads = _same(auto_pad, x, w.shape[2:], strides, dilations)
    x, padding = _padded(x, list(pads))
    return F.conv2d(x, w, b, tuple(strides), padding, tuple(dilations), group)


def conv_transpose(x: Any, w: Any, b: Any = None, *, strides: Any = (1, 1), pads: Any = (0, 0, 0, 0),
                   dilations: Any = (1, 1), group: int = 1, kernel_shape: Any = None, auto_pad: str = "NOTSET",
                   output_padding: Any = (0, 0), output_shape: Any = None) -> Any:  # fmt: skip
    top, left, bottom, right = pads
    _only("ConvTranspose", auto_pad=(auto_pad, ("NOTSET",)), output_shape=(output_shape, (None,)))
    _only("ConvTranspose", pads=((top, left), ((bottom, right),)))
    return F.conv_transpose2d(x, w, b, tuple(strides), (top, left), tuple(output_padding), group, tuple(dilations))


def max_pool(x: Any, *, kernel_shape: Any, strides: Any = (1, 1), pads: Any = (0, 0, 0, 0), dilations: Any = (1, 1),
             ceil_mode: int = 0, auto_pad: str = "NOTSET", storage_order: int = 0) -> Any:  # fmt: skip
    if auto_pad.startswith("SAME"):
        pads = _same(auto_pad, x, kernel_shape, strides, dilations)
    x, padding = _padded(x, list(pads), float("-inf"))
    return F.max_pool2d(x, tuple(kernel_shape), tuple(strides), padding, tuple(dilations), bool(ceil_mode))


def average_pool(x: Any, *, kernel_shape: Any, strides: Any = (1, 1), pads: Any = (0, 0, 0, 0), ceil_mode: int = 0,
                 count_include_pad: int = 0, auto_pad: str = "NOTSET", dilations: Any = (1, 1)) -> Any:  # fmt: skip
    top, left, bottom, right = pads
    _only("AveragePool", auto_pad=(auto_pad, ("NOTSET", "VALID")), pads=((top, left), ((bottom, right),)))
    size = (tuple(kernel_shape), tuple(strides), (top, left))
    return F.avg_pool2d(x, *size, ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad))


def resize(x: Any, roi: Any = None, scales: Any = None, sizes: Any = None, *, mode: str = "nearest",
           coordinate_transformation_mode: str = "half_pixel", **rest: Any) -> Any:  # fmt: skip
    sizes = ints(sizes) if sizes is not None else [int(n * s) for n, s in zip(x.shape, scales, strict=True)]
    if tuple(sizes[:2]) != tuple(x.shape[:2]):
        raise EngineError("the torch backend resizes pictures only, not channels")
    how = coordinate_transformation_mode
    _only("Resize", mode=(mode, ("linear", "nearest")))
    if mode == "nearest":
        _only("Resize nearest", rounding=((how, rest.get("nearest_mode")), (("asymmetric", "floor"),)))
        return F.interpolate(x, sizes[2:], mode="nearest")
    _only("Resize linear", mode=(how, ("half_pixel", "pytorch_half_pixel", "align_corners")))
    return F.interpolate(x, sizes[2:], mode="bilinear", align_corners=how == "align_corners")


def reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    wanted = [x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(ints(shape))]
    return x.reshape(wanted)


def slice_(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    index: list[slice] = [slice(None)] * x.ndim
    axes = ints(axes) if axes is not None else range(len(ints(starts)))
    steps = ints(steps) if steps is not None else [1] * len(ints(starts))
    for axis, start, end, step in zip(axes, ints(starts), ints(ends), steps, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def reduce_(function: str) -> Operator:
    def call(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, **old: Any) -> Any:
        wanted = ints(axes if axes is not None else old.get("axes", range(x.ndim)))
        return getattr(torch, function)(x, dim=wanted, keepdim=bool(keepdims))

    return call


def pad(x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    _only("Pad", mode=(mode, ("constant", "reflect", "edge")), axes=(axes is None, (True,)))
    half = len(ints(pads)) // 2
    order = [ints(pads)[i + o] for i in reversed(range(half)) for o in (0, half)]
    if mode == "constant":
        return F.pad(x, order, value=float(value) if value is not None else 0.0)
    return F.pad(x, order[:4], mode={"reflect": "reflect", "edge": "replicate"}[mode])


def unsqueeze(x: Any, axes: Any) -> Any:
    for axis in sorted(ints(axes)):
        x = np.expand_dims(x, axis) if host(x) else x.unsqueeze(axis)
    return x


def squeeze(x: Any, axes: Any = None) -> Any:
    return x.squeeze(tuple(ints(axes))) if axes is not None else x.squeeze()


def cast(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    if host(x):
        return x if to in (TensorProto.INT64, TensorProto.INT32) else torch.as_tensor(x).to(_DTYPES[to])
    return x.to(_DTYPES[to])


def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    if host(x):
        return np.take(x, indices, axis)
    if host(indices) and np.ndim(indices) == 0:
        return x.select(axis, int(indices))
    return x.index_select(axis, torch.as_tensor(indices))


def split(x: Any, sizes: Any = None, *, axis: int = 0, num_outputs: int | None = None) -> Any:
    if sizes is None:
        return torch.chunk(x, int(num_outputs or 1), dim=axis)
    return torch.split(x, ints(sizes), dim=axis)


def constant_of_shape(shape: Any, *, value: Any = None) -> Any:
    filled = np.full(ints(shape), 0.0 if value is None else numpy_helper.to_array(value).item())
    if value is not None and value.data_type == TensorProto.INT64:
        return filled.astype(np.int64)  # sizes, which stay on the host
    return torch.from_numpy(filled).to(_DTYPES[TensorProto.FLOAT if value is None else value.data_type])


def depth_to_space(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    if mode == "DCR":  # torch has the other order only: channel first, then the place in the block
        x = x.reshape(n, blocksize**2, c // blocksize**2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return F.pixel_shuffle(x, blocksize)


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, variance: Any, *, epsilon: float = 1e-5, **_: Any) -> Any:
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


def layer_norm(x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> Any:
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


OPERATORS: dict[str, Operator] = {
    "Abs": torch.abs,
    "And": _either(np.logical_and, torch.logical_and),
    "GreaterOrEqual": _either(np.greater_equal, torch.ge),
    "Greater": _either(np.greater, torch.gt),
    "LessOrEqual": _either(np.less_equal, torch.le),
    "MatMul": torch.matmul,
    "Not": _either(np.logical_not, torch.logical_not),
    "Or": _either(np.logical_or, torch.logical_or),
    "Range": np.arange,
    "ReduceSum": reduce_("sum"),
    "Add": _either(np.add, torch.add),
    "ArgMax": lambda x, *, axis=0, keepdims=1, select_last_index=0: x.argmax(axis, keepdim=bool(keepdims)),
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": _either(np.clip, torch.clamp),
    "Concat": lambda *v, axis: np.concatenate(v, axis) if all(map(host, v)) else torch.cat(v, axis),
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Div": _either(lambda a, b: a // b, torch.div),
    "Equal": _either(np.equal, torch.eq),
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(ints(shape)))),
    "Gather": gather,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "HardSigmoid": lambda x, *, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0, 1),
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda x, *, alpha=0.01: F.leaky_relu(x, alpha),
    "Less": _either(np.less, torch.lt),
    "Max": _either(np.maximum, torch.maximum),
    "MaxPool": max_pool,
    "Min": _either(np.minimum, torch.minimum),
    "Mul": _either(np.multiply, torch.mul),
    "Pow": _either(np.power, torch.pow),
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Pad": pad,
    "ReduceMax": reduce_("amax"),
    "ReduceMean": reduce_("mean"),
    "ReduceMin": reduce_("amin"),
    "Relu": F.relu,
    "Reshape": reshape,
    "Resize": resize,
    "Shape": lambda x, *, start=0, end=None: np.array(x.shape[start:end], np.int64),
    "Sigmoid": torch.sigmoid,
    "Slice": slice_,
    "Softmax": lambda x, *, axis=-1: F.softmax(x, axis),
    "Split": split,
    "Sqrt": _either(np.sqrt, torch.sqrt),
    "Squeeze": squeeze,
    "Sub": _either(np.subtract, torch.sub),
    "Transpose": lambda x, *, perm: x.permute(*perm),
    "Unsqueeze": unsqueeze,
    "Where": _either(np.where, torch.where),
}
