"""From any ONNX segmentation model to the program's contract: `image` f32 [N,3,H,W] -> `logits` f32 [N,K,h,w]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.utils import Extractor

from streamseg.engine.graph import Graph
from streamseg.errors import EngineError
from streamseg.importing import branches, heads, reading, tails, tracing
from streamseg.importing.heads import Head, Wish
from streamseg.importing.reading import shown
from streamseg.importing.running import run
from streamseg.importing.tails import Tail
from streamseg.types import U8


@dataclass(frozen=True, slots=True)
class Adapted:
    """`network` fulfils the contract. `original` is the model as it was published, `source` the same brought up to
    date; the tensor `output` is its own answer."""

    network: onnx.ModelProto = field(repr=False)
    original: onnx.ModelProto = field(repr=False)
    source: onnx.ModelProto = field(repr=False)
    output: str
    head: Head
    tail: Tail
    fixed: bool
    multiple: int
    notes: Mapping[str, str]

    def own_labels(self, rgb: U8) -> U8:
        """The model's own answer to a picture u8 [H, W, 3] of the input's size, as labels [H, W], by its own graph."""
        value = self._answer(self.head.feed(rgb))
        if self.tail.flat is not None:  # [1,n,K] or [1,K,n]
            last = value.shape[2] == self.tail.classes
            value = value.reshape((*self.tail.flat, -1) if last else (-1, *self.tail.flat))
        axis = tracing.class_axis(value.shape, self.tail.classes, (rgb.shape[0], rgb.shape[1]))
        if axis is not None:
            value = np.moveaxis(value, axis, -1).reshape(*_spatial(value.shape, axis), self.tail.classes)
            return np.asarray(_enlarged(np.asarray(value, np.float32), rgb).argmax(-1), np.uint8)
        value = np.squeeze(value)
        if self.tail.kind.startswith("foreground"):
            share = _enlarged(np.asarray(value, np.float32), rgb)
            return np.asarray(share > (self.tail.full / 2 if self.tail.bounded else 0.0), np.uint8)
        size = (rgb.shape[1], rgb.shape[0])
        return np.asarray(cv2.resize(np.rint(value).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)

    def _answer(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Of the original, so that nothing which was done to it can hide; where that can be run."""
        name = shown(self.output)
        try:
            return run(self.original, {shown(key): value for key, value in feed.items()}, [name])[name]
        except EngineError:  # an operator of 2017, or the tensor is of what was a function in it
            return run(self.source, feed, [self.output])[self.output]


def _spatial(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[-2:] if axis == len(shape) - 3 else shape[-3:-1]


def _enlarged(values: NDArray[np.float32], rgb: U8) -> NDArray[np.float32]:
    """f32 [h, w] or [h, w, K], at the size of `rgb`."""
    size = (rgb.shape[1], rgb.shape[0])
    planes = values[..., None] if values.ndim == 2 else values
    large = [
        cv2.resize(np.ascontiguousarray(p), size, interpolation=cv2.INTER_LINEAR) for p in np.moveaxis(planes, -1, 0)
    ]
    return np.asarray(large[0] if values.ndim == 2 else np.stack(large, -1), np.float32)


def adapt(path: Path, classes: int, wish: Wish, output: str | None, rgb: U8) -> Adapted:
    """Wraps the model of `path`, tried on a picture u8 [H, W, 3]. Raises EngineError or ConfigError: what is wrong.

    One that takes a single size is given pictures of another aspect padded, unless `wish.stretch`: stretched people
    are found worse (DeepLabV3 at 513x513: 3.1 % of the shop's picture, padded 4.6 %).
    """
    original, source = reading.read(path)
    head = heads.inspect(source, wish)
    feed = head.feed(fitted(rgb, (head.width, head.height)))
    source = branches.without(source, feed)

    @cache
    def probe(name: str) -> NDArray[Any]:
        return run(source, feed, [name])[name]

    size = (head.height, head.width)
    name, why = tracing.choose(source, probe, classes, output, size)
    tail = tracing.trace(source, name, probe, classes, size)
    network = _joined(source, head, tail)
    odd = head.width % 8 > 0 or head.height % 8 > 0
    fixed = head.fixed or odd or not _resizable(network, head)
    multiple = multiple_of(head.width, head.height)
    if fixed:
        smaller = None if wish.stretch else tails.padded(tail, probe(tail.tensor).shape, size)
        if smaller is not None:
            head = replace(head, padded=True)
            tail, multiple = smaller
        network = _joined(source, head, tail, only=None if head.padded else size)
    answer = probe(name)
    notes = {
        **head.notes,
        "output": f"{shown(name)}, {answer.dtype} {list(answer.shape)} ({why})",
        "taken": "; ".join((tail.kind, *tail.steps)),
    }
    if fixed and not head.fixed:
        reason = "sizes of any aspect must be of eights" if odd else "it states any, but fails at others"
        notes["size"] = f"{head.width}x{head.height}, no other ({reason})"
    if head.padded:
        notes["size"] += "; other aspects are padded, not stretched"
    return Adapted(network, original, source, name, head, tail, fixed, multiple, notes)


def fitted(rgb: U8, size: tuple[int, int]) -> U8:
    """`rgb` scaled to `size` (width, height)."""
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    how = cv2.INTER_AREA if size[0] < rgb.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)


def multiple_of(width: int, height: int) -> int:
    """The largest usual multiple that the size it is meant for is of."""
    return next(n for n in (32, 16, 8, 4, 2, 1) if width % n == 0 and height % n == 0)


def _joined(source: onnx.ModelProto, head: Head, tail: Tail, only: tuple[int, int] | None = None) -> onnx.ModelProto:
    opset = max(o.version for o in source.opset_import if o.domain in ("", "ai.onnx"))
    before, after = Graph(opset, "import/head"), Graph(opset, "import/tail")
    head.add(before)
    tail.add(after)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, *(only or ("H", "W"))])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", tail.classes, "h", "w"])
    graph = helper.make_graph(
        [*before.nodes, *source.graph.node, *after.nodes],
        "imported",
        [image],
        [logits],
        [*source.graph.initializer, *before.constants, *after.constants],
    )
    model = helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)
    return Extractor(model).extract_model(["image"], ["logits"])


def _resizable(network: onnx.ModelProto, head: Head) -> bool:
    """Whether it works at another size too: exporters often leave a size open that the graph has built in."""
    height, width = head.height + head.height // 2 // 32 * 32, head.width
    if height == head.height:
        return True
    try:
        image = np.zeros((1, 3, height, width), np.float32)
        (logits,) = run(network, {"image": image}, ["logits"]).values()
        (here,) = run(network, {"image": image[:, :, : head.height]}, ["logits"]).values()
    except EngineError:
        return False
    return bool(logits.shape[2] > here.shape[2])
