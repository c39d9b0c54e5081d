"""From a trained network to one ONNX file, checked against torch before anybody relies on it."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from streamseg.errors import EngineError

OPSET = 17
TOLERANCE = 1e-4  # fp32 sums in another order differ by about 1e-5 on logits of +-20


def export_network(model: nn.Module, path: Path) -> None:
    """Writes `model` (in any mode; left as it is) as ONNX: `image` f32 [N, 3, H, W] normalised RGB, H and W multiples
    of 8 -> `logits` f32 [N, K, H/s, W/s]; N, H and W free; batch norm folded; weights inside the file; nothing in it
    that only training needs.

    Raises EngineError when ONNX Runtime's answer differs from torch's by more than `TOLERANCE`.
    """
    model = copy.deepcopy(model).cpu().float().eval()
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    free = {"image": {0: "batch", 2: "height", 3: "width"}, "logits": {0: "batch", 2: "rows", 3: "columns"}}
    try:
        with warnings.catch_warnings():
            # The tracing exporter is deprecated, but the new one needs one more package (onnxscript).
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.zeros(1, 3, 96, 128),),
                str(part),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes=free,
            )
        _state_classes(model, part)
        _check(model, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _state_classes(model: nn.Module, path: Path) -> None:
    """Writes their number into the output's shape: the exporter loses it where a network ends in a Resize."""
    with torch.inference_mode():
        classes = model(torch.zeros(1, 3, 96, 128)).shape[1]
    network = onnx.load(path)
    network.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    onnx.save(network, path)


def _check(model: nn.Module, path: Path) -> None:
    """Two sizes, one of them with halves that need rounding up (104 = 8 * 13), and a batch of 2."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 96, 128), (2, 3, 104, 72)):
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        with torch.inference_mode():
            expected: Tensor = model(torch.from_numpy(image))
        (logits,) = session.run(["logits"], {"image": image})
        worst = float(np.abs(logits - expected.numpy()).max()) if logits.shape == expected.shape else float("inf")
        logging.getLogger(__name__).debug("export of %s at %s: differs by %.2g", path, shape, worst)
        if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise EngineError(
                f"the exported network differs from torch by {worst:.2g} at {shape}: {path} is not usable"
            )
