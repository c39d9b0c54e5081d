"""Walks an engine program with torch functions, on any device. Runs in the thread that calls it.

What depends on shapes and constants alone is computed once, when a walk is bound to its inputs; so a walk that is
captured in a CUDA graph does nothing on the host and copies nothing to the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from streamseg.engine.torch_operators import OPERATORS, host
from streamseg.errors import EngineError

Answer = tuple[torch.Tensor, torch.Tensor | None]
"""`scores` f32 [N, K, h, w] and, where the program smooths, `state_next` f32 [N, S, h, w]."""
Bound = Callable[[], Answer]
ON_DEVICE = frozenset({"Add", "Div", "Equal", "Gather", "GreaterOrEqual", "Less", "Max", "Min", "Mul", "Sub", "Where"})
"""What takes tensors of numbers, where others take sizes: beside one on the device, integers must be there too."""
ON_HOST = {"Resize": (1, 2), "Pad": (2,)}
"""Inputs that torch's functions want as numbers: reading them from the device would wait for it, in every run."""


@dataclass(frozen=True, slots=True)
class _Step:
    call: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    done_with: tuple[str, ...]
    """What no later step needs: dropped, so that the allocator can give its memory to the next."""


class Walk:
    """A program up to `scores`, its constants on `device`. `half`: what fp16 in the graph is computed in."""

    def __init__(self, program: onnx.ModelProto, device: torch.device, half: torch.dtype = torch.float16) -> None:
        self._graph = program.graph
        self._device, self._half = device, half
        unknown = {node.op_type for node in self._graph.node} - set(OPERATORS) - {"Constant"}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise EngineError(f"the torch backends do not know the operators {names}; use openvino or onnxruntime")
        self._constants = {c.name: self._constant(numpy_helper.to_array(c)) for c in self._graph.initializer}
        self._outputs = [value.name for value in self._graph.output]

    def bind(
        self, frames: torch.Tensor, state: torch.Tensor | None = None, elapsed_s: torch.Tensor | None = None
    ) -> Bound:
        """What computes the program on the present contents of these tensors, whenever it is called.

        `frames` u8 [N, H, W, 3], `state` f32 [N, S, h, w], `elapsed_s` f32 [N]."""
        given = [each for each in (frames, state, elapsed_s) if each is not None]
        return partial(self.settled(*given), *given)

    def settled(self, *given: torch.Tensor) -> Callable[..., Answer]:
        """What computes the program on tensors like these: frames and, where there is one, state and elapsed_s."""
        names = ("frames", "state", "elapsed_s")[: len(given)]
        fixed, steps = self._settle(dict(zip(names, given, strict=True)))

        def call(*inputs: torch.Tensor) -> Answer:
            values: dict[str, Any] = {**fixed, **dict(zip(names, inputs, strict=True))}
            for step in steps:
                results = step.call(*(values[name] for name in step.inputs), **step.attributes)
                if isinstance(results, tuple):  # Split, even into one part
                    values.update(zip(step.outputs, results, strict=True))
                else:
                    values[step.outputs[0]] = results
                for name in step.done_with:
                    del values[name]
            return values["scores"].float(), values.get("state_next")

        return call

    def _settle(self, inputs: dict[str, torch.Tensor]) -> tuple[dict[str, Any], list[_Step]]:
        """(values that the contents of `inputs` cannot change, the steps that remain), by walking once."""
        values: dict[str, Any] = {"": None, **self._constants, **inputs}
        fixed = set(values) - set(inputs)
        moving: list[_Step] = []
        for node in self._graph.node:
            call, attributes = self._operator(node)
            moves = node.op_type != "Shape" and not all(name in fixed for name in node.input)
            names = tuple(self._beside(node, values, fixed) if moves else node.input)
            results = call(*(values[name] for name in names), **attributes)
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(node.output, map(self._placed, results), strict=True))
            if moves:
                moving.append(_Step(call, names, tuple(node.output), attributes, ()))
            else:
                fixed |= set(node.output)
        steps: list[_Step] = []
        needed = {*self._outputs, *fixed, *inputs}
        for step in reversed(moving):
            ends = {*step.inputs, *step.outputs} - needed
            needed |= set(step.inputs)
            steps.insert(0, replace(step, done_with=tuple(ends)))
        used = {name for step in steps for name in step.inputs} | set(self._outputs)
        return {name: values[name] for name in fixed & used}, steps

    def _beside(self, node: onnx.NodeProto, values: dict[str, Any], fixed: set[str]) -> list[str]:
        """The names of a node's inputs, with those that are fixed brought to where it takes them from."""
        names = list(node.input)
        for position, name in enumerate(node.input):
            value = values[name]
            if node.op_type in ON_DEVICE and host(value) and np.ndim(value):
                names[position] = f"{name} on the device"
                values[names[position]] = torch.as_tensor(value).to(self._device)
            elif position in ON_HOST.get(node.op_type, ()) and name in fixed and isinstance(value, torch.Tensor):
                names[position] = f"{name} on the host"
                values[names[position]] = value.cpu().numpy()
        fixed |= set(names) - set(node.input)
        return names

    def _operator(self, node: onnx.NodeProto) -> tuple[Callable[..., Any], dict[str, Any]]:
        read = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            value = self._constant(numpy_helper.to_array(read["value"]))
            return lambda: value, {}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in read.items()}
        if node.op_type == "Cast" and attributes["to"] == onnx.TensorProto.FLOAT16:
            return lambda x: torch.as_tensor(x).to(self._device, self._half), {}
        return OPERATORS[node.op_type], attributes

    def _constant(self, array: np.ndarray[Any, Any]) -> Any:
        """Integers are sizes and indices and stay on the host; everything else becomes a tensor."""
        if array.dtype in (np.int64, np.int32):
            return array.copy()  # as ONNX gives it, it is read only
        tensor = self._placed(torch.from_numpy(array.copy()))
        tensor = tensor.to(self._half) if tensor.dtype == torch.float16 else tensor
        # The layout that tensor cores want; pictures come in it anyway, as frames are [H, W, 3].
        return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _placed(self, value: Any) -> Any:
        return value.to(self._device) if isinstance(value, torch.Tensor) else value
