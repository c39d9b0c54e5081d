"""The input side of an imported model: its layout, type, size and the range of its pixels. Passive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from streamseg.engine.bundle import Triple
from streamseg.engine.graph import Graph
from streamseg.errors import ConfigError, EngineError
from streamseg.importing import scaling
from streamseg.importing.reading import shown

Layout = Literal["nchw", "nhwc"]
Pixels = Literal["0..1", "0..255", "-1..1"]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RAW: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
"""Pixels as they are, 0..255."""
UNIT: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SIGNED: tuple[Triple, Triple] = ((128 / 255, 128 / 255, 128 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Bytes less 128, as quantised models take them whose input is i8."""
SMALLEST, LARGEST = 32, 8192
"""Of a picture's sides, as in engine.yaml."""
_WHOLE = {
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
}
_TYPES = {
    **_WHOLE,
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What was said on the command line about the input; None: to be found out.

    `mean` and `std` are in the model's own channel order, of pixels in 0..1, or in 0..255 where any of them says so (a
    mean or std above 1).
    """

    size: tuple[int, int] | None = None
    layout: Layout | None = None
    mean: Triple | None = None
    std: Triple | None = None
    pixels: Pixels | None = None
    bgr: bool = False
    stretch: bool = False

    def normalised(self, mean: Triple, std: Triple) -> tuple[Triple, Triple]:
        """Mean and std of RGB in 0..1: what was said, or else these."""
        said = _as_said(self)
        if said is None:
            return mean, std
        return (_reversed(said[0]), _reversed(said[1])) if self.bgr else said[:2]


@dataclass(frozen=True, slots=True)
class Head:
    """How the model wants its picture. `mean` and `std` are RGB in 0..1; `notes` say what was decided, and why."""

    name: str
    kind: int
    layout: Layout
    width: int
    height: int
    fixed: bool
    mean: Triple
    std: Triple
    bgr: bool
    padded: bool = False
    """Whether smaller pictures are padded to the only size there is."""
    notes: Mapping[str, str] = field(default_factory=dict)

    def add(self, g: Graph) -> None:
        """From `image` (f32 [N,3,H,W], normalised RGB) to the model's input."""
        tensor = self._padded(g, "image") if self.padded else "image"
        if self.bgr:
            tensor = g.op("Gather", tensor, g.constant("bgr", [2, 1, 0], np.int64), axis=1)
        if self.layout == "nhwc":
            tensor = g.op("Transpose", tensor, perm=[0, 2, 3, 1])
        if self.kind in _WHOLE:
            tensor = g.op("Round", tensor)  # a cast cuts off
        if self.kind == TensorProto.FLOAT:
            g.add("Identity", [tensor], self.name)
        else:
            g.add("Cast", [tensor], self.name, to=self.kind)

    def _padded(self, g: Graph, tensor: str) -> str:
        """With what training padded with: the mean colour, or grey where the model normalises by itself."""
        middle = 0.0 if any(self.mean) else round(127 / 255 / self.std[0], 3)
        size = g.op("Shape", tensor, start=2, end=4)
        rest = g.op("Sub", g.constant("full", [self.height, self.width], np.int64), size)
        pads = g.op("Concat", g.constant("nothing", [0] * 6, np.int64), rest, axis=0)
        return g.op("Pad", tensor, pads, g.constant("middle", middle))

    def feed(self, rgb: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        """What the model itself would be given for a picture u8 [H, W, 3]."""
        mean, std = (np.array(v, np.float64) for v in (self.mean, self.std))
        image = (rgb / 255.0 - mean) / std
        image = image[..., ::-1] if self.bgr else image
        image = (image if self.layout == "nhwc" else image.transpose(2, 0, 1))[None]
        if self.kind in _WHOLE:
            image = np.rint(image)
        return {self.name: np.ascontiguousarray(image).astype(_TYPES[self.kind])}


def inspect(model: onnx.ModelProto, wish: Wish) -> Head:
    """Raises EngineError for a model that takes no single colour picture, ConfigError for a wish that does not fit."""
    value = _picture_input(model)
    name, kind = value.name, value.type.tensor_type.elem_type
    if kind not in _TYPES:
        raise EngineError(
            f"input {shown(name)} is {_type(kind)}; a picture is of bytes, whole numbers, f16, f32 or f64"
        )
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if dims[0] > 1:
        raise EngineError(f"the model is made for batches of {dims[0]}; export it for 1, or for any")
    layout, why = _layout(model, name, dims, wish.layout)
    height, width = dims[2:] if layout == "nchw" else dims[1:3]
    size = _size(width, height, wish.size)
    mean, std, pixels = _normalisation(model, name, kind, wish)
    notes = {
        "input": f"{shown(name)}, {_type(kind)}",
        "layout": f"{layout.upper()} ({why})",
        "size": f"{size[0]}x{size[1]}" + (", no other" if width or height else ", and others"),
        "pixels": pixels + (", BGR" if wish.bgr else ", RGB"),
    }
    fixed = bool(width or height)
    if wish.bgr:
        mean, std = _reversed(mean), _reversed(std)
    return Head(name, kind, layout, *size, fixed, mean, std, wish.bgr, notes=notes)


def _picture_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    inputs = list(model.graph.input)
    if len(inputs) != 1:
        names = ", ".join(shown(value.name) for value in inputs) or "none"
        raise EngineError(
            f"a model with one input, the picture, is wanted; this one has {len(inputs)}: {names}; export it with all "
            "others as constants"
        )
    if not inputs[0].type.tensor_type.HasField("shape"):
        raise EngineError(f"input {shown(inputs[0].name)} does not state its dimensions; export it with them")
    rank = len(inputs[0].type.tensor_type.shape.dim)
    if rank != 4:
        raise EngineError(
            f"input {shown(inputs[0].name)} has {rank} dimensions; a picture has 4: batch, channels, h, w"
        )
    return inputs[0]


def _layout(model: onnx.ModelProto, name: str, dims: list[int], wish: Layout | None) -> tuple[Layout, str]:
    channels: dict[Layout, int] = {"nchw": dims[1], "nhwc": dims[3]}
    if wish is not None:
        if channels[wish] not in (0, 3):
            raise ConfigError(f"--layout {wish}: the input {dims} has {channels[wish]} channels there, not 3")
        return wish, "as said"
    if (dims[1] == 3) != (dims[3] == 3):
        return ("nchw" if dims[1] == 3 else "nhwc"), f"3 channels in {_dims(dims)}"
    if dims[1] and dims[3] and 3 not in (dims[1], dims[3]):
        raise EngineError(
            f"input {shown(name)} is {_dims(dims)}: no dimension of 3 channels; colour pictures are needed"
        )
    for node in model.graph.node:
        if name in node.input and node.op_type == "Transpose":
            perm = list(next(a.ints for a in node.attribute if a.name == "perm"))
            if perm == [0, 3, 1, 2]:
                return "nhwc", "it is transposed first"
    return "nchw", "assumed; --layout nhwc says otherwise"


def _type(kind: int) -> str:
    return str(helper.tensor_dtype_to_string(kind)).removeprefix("TensorProto.").lower()


def _dims(dims: list[int]) -> str:
    return "[" + ", ".join(str(n or "?") for n in dims) + "]"


def _size(width: int, height: int, wish: tuple[int, int] | None) -> tuple[int, int]:
    if wish is None and not (width and height):
        raise ConfigError("the model takes pictures of any size; say with --size WxH which one it is meant for")
    asked = wish or (width, height)
    if (width and width != asked[0]) or (height and height != asked[1]):
        raise ConfigError(f"--size {asked[0]}x{asked[1]}: the model takes {width or 'any'}x{height or 'any'} only")
    if min(asked) < SMALLEST or max(asked) > LARGEST:
        raise EngineError(
            f"the model takes {asked[0]}x{asked[1]}; pictures have sides of {SMALLEST} to {LARGEST} pixels"
        )
    return asked


def _as_said(wish: Wish) -> tuple[Triple, Triple, str] | None:
    if wish.pixels is not None and (wish.mean or wish.std):
        raise ConfigError("give either --pixels or --mean and --std: they say the same")
    if wish.pixels is not None:
        table = {"0..1": UNIT, "0..255": RAW, "-1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
        return *table[wish.pixels], f"{wish.pixels}, as said"
    if wish.mean or wish.std:
        return _said(wish.mean or (0.0, 0.0, 0.0), wish.std)
    return None


def _reversed(values: Triple) -> Triple:
    return values[2], values[1], values[0]


def _normalisation(model: onnx.ModelProto, name: str, kind: int, wish: Wish) -> tuple[Triple, Triple, str]:
    if (said := _as_said(wish)) is not None:
        return said
    if kind == TensorProto.UINT8:
        return *RAW, "0..255 (bytes)"
    if kind == TensorProto.INT8:
        return *SIGNED, "-128..127 (signed bytes)"
    if kind in _WHOLE:
        return *RAW, "0..255 (whole numbers)"
    value = scaling.first(model, name)
    if value is not None:
        op, size = value
        if size < 0.1 if op == "Mul" else size > 1.5:
            return *RAW, f"0..255 (the model itself begins with {op} by {size:.4g})"
        return *UNIT, f"0..1 (the model itself begins with {op} by {size:.4g})"
    return *IMAGENET, "ImageNet's mean and std, assumed; --mean and --std, or --pixels, say otherwise"


def _said(mean: Triple, std: Triple | None) -> tuple[Triple, Triple, str]:
    in_bytes = max(map(abs, mean)) > 1 or (std is not None and max(std) > 1)
    std = std or (1.0, 1.0, 1.0)
    if min(std) <= 0:
        raise ConfigError(f"--std {std}: each must be above 0")
    text = f"(pixel - {_triple(mean)}) / {_triple(std)}, of pixels 0..{255 if in_bytes else 1}"
    if in_bytes:
        a, b, c = (v / 255 for v in mean)
        d, e, f = (v / 255 for v in std)
        return (a, b, c), (d, e, f), text
    return mean, std, text


def _triple(values: Triple) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "(" + ", ".join(f"{v:g}" for v in values) + ")"
