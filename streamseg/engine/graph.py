"""ONNX nodes and constants, collected for a graph; and tensors of it whose arithmetic adds nodes. Passive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper


class Graph:
    """Collects nodes and constants; `add` returns the name of the node's single output."""

    def __init__(self, opset: int, within: str = "program") -> None:
        self.opset = opset
        self._within = within  # begins every name made here
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        name = f"{self._within}/{name}"
        if all(c.name != name for c in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{self._within}/{output}", **attributes))
        return output

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node whose output needs no name of its own."""
        return self.add(op, inputs, f"{self._within}/{op}_{len(self.nodes)}", **attributes)

    def axes(self, *axes: int) -> str:
        return self.constant("axes_" + "".join(map(str, axes)), axes, np.int64)

    def split(self, value: str, sizes: Sequence[int], names: Sequence[str]) -> list[Tensor]:
        """Along the channels; each part is found under its name too."""
        counts = self.constant("split_" + "_".join(map(str, sizes)), sizes, np.int64)
        self.nodes.append(helper.make_node("Split", [value, counts], list(names), axis=1))
        return [Tensor(self, name) for name in names]


def _node(op: str) -> Callable[..., Tensor]:
    def node(first: Tensor, *others: Operand) -> Tensor:
        return first.op(op, *others)

    return node


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One of a graph's; arithmetic with it adds nodes. Numbers are taken for constants f32, texts for names."""

    graph: Graph
    name: str

    def op(self, op: str, *others: Operand, **attributes: Any) -> Tensor:
        """A node of which this is the first input."""
        return Tensor(self.graph, self.graph.op(op, self.name, *map(self._named, others), **attributes))

    def _named(self, given: Operand) -> str:
        if isinstance(given, float):
            return self.graph.constant(f"number_{given!r}", given)
        return given if isinstance(given, str) else given.name

    __add__ = _node("Add")
    __sub__ = _node("Sub")
    __mul__ = _node("Mul")
    __truediv__ = _node("Div")
    __lt__ = _node("Less")
    __ge__ = _node("GreaterOrEqual")
    __and__ = _node("And")
    at_least = _node("Max")
    at_most = _node("Min")
    where = _node("Where")
    """What is given first where this is true, and elsewhere what is given second."""

    def __rsub__(self, other: float) -> Tensor:
        return Tensor(self.graph, self._named(other)) - self

    def reduce(self, op: str, *axes: int) -> Tensor:
        """ReduceMax, ReduceMin or ReduceMean, keeping the dimensions; their axes became an input in opset 18."""
        if self.graph.opset < 18:
            return self.op(op, axes=list(axes), keepdims=1)
        return self.op(op, self.graph.axes(*axes), keepdims=1)

    def deeper(self) -> Tensor:
        """[N,C,...] as [N,1,C,...]."""
        return self.op("Unsqueeze", self.graph.axes(1))


Operand = Tensor | str | float
