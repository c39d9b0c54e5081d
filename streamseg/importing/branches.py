"""Takes the branches of a model apart: every If becomes the branch that is taken. Passive.

Exporters leave them where a shape decides (PyTorch's `squeeze` of a dimension that may be 1). Whatever else has an
inner graph is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from streamseg.errors import EngineError
from streamseg.importing.reading import subgraphs
from streamseg.importing.running import run


def without(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """`model` with the branches that it takes for `feed`, the picture that it is tried on. Raises EngineError."""
    while conditions := sorted({node.input[0] for node in model.graph.node if node.op_type == "If"}):
        holds = run(model, feed, conditions)
        taken = onnx.ModelProto()
        taken.CopyFrom(model)
        del taken.graph.node[:]
        for node in model.graph.node:
            taken.graph.node.extend(_branch(taken.graph, node, holds) if node.op_type == "If" else [node])
        model = taken
    if kinds := sorted({node.op_type for node in model.graph.node if subgraphs(node)}):
        raise EngineError(f"the model holds {', '.join(kinds)}, which is not supported; export it without loops")
    return model


def _branch(
    graph: onnx.GraphProto, node: onnx.NodeProto, holds: Mapping[str, NDArray[Any]]
) -> Iterator[onnx.NodeProto]:
    """The nodes of the branch taken; its weights become the graph's own. Each branch may use the names of another."""
    wanted = "then_branch" if holds[node.input[0]].all() else "else_branch"
    branch = onnx.GraphProto()
    branch.CopyFrom(next(a.g for a in node.attribute if a.name == wanted))
    inner = [weight.name for weight in branch.initializer] + [name for n in branch.node for name in n.output]
    names = {name: f"{node.output[0]}/{name}" for name in inner if name}
    _rename(branch, names)
    graph.initializer.extend(branch.initializer)
    yield from branch.node
    for value, output in zip(branch.output, node.output, strict=True):
        yield helper.make_node("Identity", [names.get(value.name, value.name)], [output])


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
        for inner in subgraphs(node):
            _rename(inner, names)
            for value in inner.output:
                value.name = names.get(value.name, value.name)
