"""Every TensorRT name in our source is one that its bindings have: no GPU is needed to find a typing mistake."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorrt_names import NAMES

LAYER = Path(__file__).resolve().parents[1] / "streamseg/engine/tensorrt_layer.py"

OBJECTS = {
    "trt": "tensorrt",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "cache": "ITimingCache",
    "given": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "self._engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""What the source calls a thing of TensorRT -> its class."""
OVERRIDDEN = {"_Log": "ILogger", "_Progress": "IProgressMonitor"}
"""Classes of ours that TensorRT calls -> what they implement."""


def uses(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(class, attribute) of every attribute that is taken of a thing of TensorRT."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            kind = OBJECTS.get(owner) or (owner.removeprefix("trt.") if owner.startswith("trt.") else None)
            if kind is not None:
                yield kind, node.attr


def used() -> set[tuple[str, str]]:
    return {use for use in uses(ast.parse(LAYER.read_text())) if not use[1].startswith("__") or use[0] == "tensorrt"}


def test_every_name_is_one_of_the_bindings() -> None:
    assert not {(kind, name) for kind, name in used() if name not in NAMES[kind]}


def test_what_the_test_looks_at_is_there() -> None:
    """Or it would hold for a source that calls its things by other names."""
    kinds = {kind for kind, _ in used()}
    assert kinds >= set(OBJECTS.values()) - {"INetworkDefinition"}  # only handed on
    assert {"execute_async_v3", "set_tensor_address", "set_input_shape"} <= {name for _, name in used()}


@pytest.mark.parametrize(("ours", "theirs"), OVERRIDDEN.items())
def test_what_tensorrt_calls_back_is_called_so(ours: str, theirs: str) -> None:
    (found,) = (n for n in ast.walk(ast.parse(LAYER.read_text())) if isinstance(n, ast.ClassDef) and n.name == ours)
    methods = {n.name for n in found.body if isinstance(n, ast.FunctionDef)} - {"__init__"}
    assert methods <= NAMES[theirs]
    assert f"trt.{theirs}" in {ast.unparse(base) for base in found.bases}


def test_a_typing_mistake_is_found() -> None:
    wrong = ast.parse("context.execute_async_v2(stream); trt.BuilderFlag.TF23; config.set_flags(1)")
    assert {name for kind, name in uses(wrong) if name not in NAMES[kind]} == {
        "execute_async_v2",
        "TF23",
        "set_flags",
    }


def test_nobody_else_touches_tensorrt() -> None:
    package = LAYER.parents[1]
    users = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "tensorrt" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tensorrt")
    }
    assert users == {"engine/tensorrt_layer.py"}
