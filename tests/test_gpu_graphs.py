"""Architectures as a GPU would run them, as far as a CPU can tell: in fp16 they are typed through and through,
TensorRT knows all its operators, and what torch would capture in a CUDA graph does nothing on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from streamseg import models
from streamseg.engine import program
from streamseg.engine.half import in_half
from streamseg.engine.program import ProgramSpec, state_shape, up_to_scores
from streamseg.engine.tensorrt_graph import for_tensorrt, takes_batches
from streamseg.engine.torch_operators import OPERATORS
from streamseg.engine.torch_walk import Walk
from streamseg.training.export import export_network

WIDTH, HEIGHT = 96, 64
NAMES = ("street", "bisenetv2", "unet", "fast-scnn", "espnetv2")
"""Between them, they have every operator of the others."""

KNOWN = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose
    DepthToSpace DequantizeLinear Div Equal Erf Exp Expand Gather GlobalAveragePool GreaterOrEqual HardSigmoid
    HardSwish Identity LayerNormalization LeakyRelu Less Max MaxPool Min MatMul Mul PRelu Pad Pow QuantizeLinear
    Range ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Split Sqrt
    Squeeze Sub Transpose Unsqueeze Where
"""
"""What TensorRT's parser takes, of what our programs are made of: github.com/onnx/onnx-tensorrt, docs/operators.md."""

WAITS = {"_local_scalar_dense", "item", "lift_fresh", "lift_fresh_copy", "nonzero", "masked_select", "_unique2"}
"""What reads a value from the device, makes a tensor from host memory, or has a shape that depends on values."""


class Recorded(TorchDispatchMode):
    """Every operator that torch is told to run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Transformer(nn.Module):
    """As people bring them (SegFormer and its like): attention, layer norms and GELUs over cells of 8 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cells, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
        self.attends, self.mixes = nn.Linear(16, 48), nn.Sequential(nn.Linear(16, 16), nn.GELU())
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        cells = self.cells(image)
        tokens = cells.flatten(2).transpose(1, 2)
        query, key, value = self.attends(self.norm(tokens)).chunk(3, 2)
        tokens = tokens + self.mixes(F.scaled_dot_product_attention(query, key, value))
        spread = (tokens - tokens.mean(2, keepdim=True)).pow(2).mean(2, keepdim=True)
        logits: torch.Tensor = self.head((tokens / (spread + 1e-5).sqrt()).transpose(1, 2).reshape(cells.shape))
        return logits


@pytest.fixture(scope="module", params=(*NAMES, "transformer"))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The program of an architecture with five classes, its weights as they are before training."""
    torch.manual_seed(0)
    file: Path = tmp_path_factory.mktemp("networks") / "network.onnx"
    export_network(Transformer(5) if request.param == "transformer" else models.build(request.param, 5), file)
    return program.build(onnx.load(file), ProgramSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "adaptive", 0.5, (1,)))


def inputs(model: onnx.ModelProto, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    frames = np.random.default_rng(0).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)
    state = torch.zeros(batch, *(state_shape(model, WIDTH, HEIGHT) or ()))
    return torch.from_numpy(frames), state, torch.full((batch,), -1.0)


def test_a_graph_holds_no_work_of_the_host(whole: onnx.ModelProto) -> None:
    given = inputs(whole, 2)
    with torch.inference_mode():
        call = Walk(up_to_scores(in_half(whole)), torch.device("cpu")).bind(*given)
        with Recorded() as recorded:
            scores, after = call()
    assert not WAITS & set(recorded.names)
    assert after is not None
    assert scores.dtype == after.dtype == torch.float32
    assert torch.isfinite(scores).all()


def test_what_is_settled_beforehand_changes_no_answer(whole: onnx.ModelProto) -> None:
    """The same tensors with other contents, and other batches: as ONNX Runtime computes the program."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    graph = up_to_scores(whole)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    walk = Walk(graph, torch.device("cpu"))
    for batch in (1, 2):
        frames, state, elapsed_s = inputs(whole, batch)
        with torch.inference_mode():
            call = walk.bind(torch.zeros_like(frames).copy_(frames), state, elapsed_s)
            frames.copy_(frames.flip(2))
            call = walk.bind(frames, state, elapsed_s)
            frames.copy_(frames.flip(1))
            scores, _ = call()
        given = {"frames": frames.numpy(), "state": state.numpy(), "elapsed_s": elapsed_s.numpy()}
        (expected,) = session.run(["scores"], given)
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-3)


def test_tensorrt_is_given_what_it_takes(whole: onnx.ModelProto) -> None:
    graph = for_tensorrt(whole, "fp16", WIDTH, HEIGHT)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.op_type for node in graph.graph.node} <= set(KNOWN.split())
    assert takes_batches(graph)
    convolutions = [n for n in graph.graph.node if n.op_type == "Conv" and n.input[1] != "program/luma"]
    weights = {c.name: c.data_type for c in graph.graph.initializer}
    assert {weights[node.input[1]] for node in convolutions if node.input[1] in weights} == {onnx.TensorProto.FLOAT16}


def test_nor_do_the_graphs_of_other_exporters() -> None:
    """Scales for Resize, a value for Pad and indices for Gather, all constants: on a GPU they would be read from it."""
    constants = {
        "pads": np.array([0, 0, 2, 2, 0, 0, 2, 2]),
        "value": np.float32(0.5),
        "scales": np.float32([1, 1, 0.25, 0.25]),
        "order": np.array([2, 0, 1, 1]),
        "slope": np.array([1, 2, 3, 4]).reshape(1, 4, 1, 1),
    }
    make = onnx.helper.make_node
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nodes = [
        make("Pad", ["image", "pads", "value"], ["padded"]),
        make("Slice", ["padded", "two", "end", "axes"], ["cut"]),
        make("Resize", ["cut", "", "scales"], ["small"], **linear),
        make("Gather", ["small", "order"], ["four"], axis=1),
        make("Cast", ["slope"], ["slopes"], to=onnx.TensorProto.FLOAT),
        make("Mul", ["four", "slopes"], ["logits"]),
    ]
    constants |= {"two": np.array([2, 2]), "end": np.array([-2, -2]), "axes": np.array([2, 3])}
    given = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 4, "h", "w"])
    graph = onnx.helper.make_graph(nodes, "other", [image], [logits], given)
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    model = program.build(network, ProgramSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "average", 0.5))
    test_a_graph_holds_no_work_of_the_host(model)
    test_what_is_settled_beforehand_changes_no_answer(model)


@pytest.mark.parametrize("how", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [(9, 12), (8, 8), (2, 1)])
def test_tensorflow_s_padding_is_known(how: str, size: tuple[int, int]) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 3, *size)).astype(np.float32), rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "kernel"], ["cells"], strides=[2, 2], auto_pad=how),
        onnx.helper.make_node("MaxPool", ["cells"], ["y"], kernel_shape=[2, 2], strides=[1, 1], auto_pad=how),
    ]
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("x", "y")]
    weights = [onnx.numpy_helper.from_array(kernel, "kernel")]
    graph = onnx.helper.make_graph(nodes, "same", values[:1], values[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cells = OPERATORS["Conv"](torch.from_numpy(x), torch.from_numpy(kernel), strides=[2, 2], auto_pad=how)
    ours = OPERATORS["MaxPool"](cells, kernel_shape=[2, 2], strides=[1, 1], auto_pad=how)
    np.testing.assert_allclose(ours.numpy(), session.run(["y"], {"x": x})[0], atol=1e-5)
