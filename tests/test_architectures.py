"""Every architecture: its size against the publication's, input sizes, training, export, published weight names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from streamseg.engine.openvino_backend import run_once
from streamseg.errors import ConfigError
from streamseg.models import ARCHITECTURES, auxiliary, build
from streamseg.training.export import export_network
from streamseg.training.losses import segmentation_loss
from streamseg.training.recipe import Losses

CLASSES = 5

SIZES = {
    # (millions of deployed weights with 19 classes, by how much we may differ, source)
    "bisenetv1": (13.28, 0.001),  # CoinCheung/BiSeNet's code
    "bisenetv2": (3.34, 0.01),  # often cited; CoinCheung/BiSeNet's code has 3.359 M
    "ddrnet23-slim": (5.7, 0.01),  # paper
    "pidnet-s": (7.6, 0.01),  # paper
    "unet": (31.0, 0.005),  # the paper's layers: 31.03 M; batch norm's scales instead of biases
    "espnet": (0.36, 0.03),  # paper
    "fast-scnn": (1.11, 0.03),  # paper; it does not say what its pyramid is made of
}

UNTRAINED = {
    "pidnet-s": ("seghead_d.",),
    "espnetv2": tuple(f"base_net.level{i}_0.eesp.module_act." for i in (2, 3, 4)),
}
"""Published weights that our training does not use."""

PUBLISHED = {
    # (tensors with 19 classes, sha256 of their names and shapes), from the publications' own code
    "bisenetv1": (222, "2f70be94fc423f10"),
    "bisenetv2": (383, "0a8f2a1b6edfbc20"),
    "ddrnet23-slim": (346, "1cebed1bbfb4d9e9"),
    "pidnet-s": (479, "c96ca094db161d73"),
}

ANSWERS = {
    # logits of classes 0, 6, 12 and 18 at (20, 30) that the publications' own code gives for `drawn` weights
    "bisenetv1": (0.4308, 1.5776, 1.2989, 1.2164),
    "bisenetv2": (1.7189, 1.4224, 1.3272, 0.1436),
    "ddrnet23-slim": (-14.1267, 0.9735, -9.0676, -1.815),
    "pidnet-s": (1.0139, 1.2211, 2.3536, 0.076),
}

BACKBONES = {
    # some of torchvision's names and shapes
    "fcn-resnet18": {"backbone.layer4.1.conv2.weight": [512, 512, 3, 3]},
    "deeplabv3plus-mobilenetv2": {
        "backbone.features.1.conv.1.weight": [16, 32, 1, 1],
        "backbone.features.17.conv.3.running_var": [320],
    },
}

every = pytest.mark.parametrize("name", sorted(ARCHITECTURES))


def fresh(name: str, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return build(name, classes)


def drawn(model: nn.Module) -> torch.Tensor:
    """Gives `model` weights that any other implementation can be given too, and returns a picture [1, 3, 64, 96]."""
    rng = np.random.default_rng(0)
    for _, value in sorted(model.state_dict().items()):
        if value.dim() == 4:
            value.copy_(torch.from_numpy(rng.normal(0, value[0].numel() ** -0.5, value.shape)))
        elif value.dim() == 1:
            value.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, value.shape)))
    return torch.from_numpy(rng.normal(size=(1, 3, 64, 96)).astype(np.float32))


def count(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)


def deployed(model: nn.Module) -> int:
    """How many weights inference needs."""
    return count(weight for name, weight in model.named_parameters() if not name.startswith(auxiliary(model)))


@pytest.mark.parametrize("name", SIZES)
def test_it_has_as_many_parameters_as_was_published(name: str) -> None:
    expected, tolerance = SIZES[name]
    assert deployed(build(name, 19)) == pytest.approx(expected * 1e6, rel=tolerance)


def test_backbones_have_as_many_parameters_as_torchvisions_without_the_classifier() -> None:
    resnet = build("fcn-resnet18", 19).get_submodule("backbone")
    assert count(resnet.parameters()) == 11_689_512 - 513_000
    mobile = build("deeplabv3plus-mobilenetv2", 19).get_submodule("backbone")
    last = 320 * 1280 + 2 * 1280
    assert count(mobile.parameters()) == 3_504_872 - 1_281_000 - last


def test_the_edge_network_has_at_most_two_million_parameters() -> None:
    assert deployed(build("edge", 11)) <= 2_000_000


def test_the_tiny_network_leaves_room_for_its_program_in_a_megabyte_of_int8() -> None:
    assert deployed(build("tiny", 19)) <= 860_000


def test_the_tiny_network_takes_over_a_street_networks_weights_and_starts_without_attention() -> None:
    street, tiny = fresh("street").eval(), fresh("tiny").eval()
    theirs, ours = street.state_dict(), tiny.state_dict()
    fresh_ones = [key for key, value in ours.items() if key not in theirs or theirs[key].shape != value.shape]
    assert {key.rpartition(".")[0].split(".")[0] for key in fresh_ones} == {"stage8", "stage16", "stage32"}
    assert not [key for key in fresh_ones if key.startswith(("stage8.", "stage16.")) and "embed" not in key]
    x = torch.randn(1, 112, 9, 13)
    with torch.inference_mode():
        torch.testing.assert_close(tiny.get_submodule("stage16.2")(x), x)


def shapes(name: str) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in build(name, 19).state_dict().items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_have_their_published_names_and_shapes(name: str) -> None:
    weights = shapes(name)
    text = "\n".join(f"{key} {shape}" for key, shape in sorted(weights.items()))
    assert (len(weights), hashlib.sha256(text.encode()).hexdigest()[:16]) == PUBLISHED[name]


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_torchvisions_names_and_shapes(name: str) -> None:
    assert BACKBONES[name].items() <= shapes(name).items()


@pytest.mark.parametrize("name", ANSWERS)
def test_it_computes_what_the_published_code_computes(name: str) -> None:
    model = build(name, 19).eval()
    image = drawn(model)
    with torch.inference_mode():
        logits = nn.functional.interpolate(model(image), image.shape[2:], mode="bilinear")
    np.testing.assert_allclose(logits[0, ::6, 20, 30].numpy(), ANSWERS[name], rtol=2e-3, atol=2e-3)


@every
def test_any_size_that_is_a_multiple_of_its_stride_gives_logits(name: str) -> None:
    model = fresh(name).eval()
    stride = getattr(model, "stride", 0)
    assert stride == 8
    shrinks = set()
    for height, width in ((64, 96), (40, 104), (72, 64)):
        with torch.inference_mode():
            logits = model(torch.randn(1, 3, height, width))
        assert logits.shape[:2] == (1, CLASSES)
        assert logits.isfinite().all()
        shrinks.add((height / logits.shape[2], width / logits.shape[3]))
    ((down, across),) = shrinks
    assert down == across <= stride


@every
def test_one_step_as_in_training_reaches_every_weight(name: str) -> None:
    """bf16 and channels_last, with the loss that training has."""
    model = fresh(name).train().to(memory_format=torch.channels_last)
    for weight in model.parameters():
        if not weight.any():  # blocks that start as nothing let no gradient through in the first step
            nn.init.uniform_(weight)
    images = torch.randn(3, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    assert isinstance(outputs, tuple)
    assert (len(outputs) > 1) == bool(auxiliary(model))
    labels = torch.randint(CLASSES, (3, 64, 96), dtype=torch.uint8)
    segmentation_loss(outputs, labels, torch.ones(CLASSES), Losses()).backward()
    gradients = {key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None}
    missing = [key for key, _ in model.named_parameters() if key not in gradients or not gradients[key].any()]
    assert [key for key in missing if not key.startswith(UNTRAINED.get(name, ()))] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@every
def test_what_is_exported_answers_as_torch_without_the_auxiliary_heads(name: str, tmp_path: Path) -> None:
    model = fresh(name)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 64, 96) * 2 + 0.5)  # so that its batch norms are not the identity
    path = tmp_path / "network.onnx"
    export_network(model.eval(), path)
    image = np.random.default_rng(1).normal(size=(2, 3, 40, 72)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)).numpy()
    scale = float(np.abs(expected).max())
    (in_openvino,) = run_once(path.read_bytes(), {"image": image}, ["logits"])  # exporting looks at ONNX Runtime's
    np.testing.assert_allclose(in_openvino / scale, expected / scale, atol=1e-3)
    stored = 4 * deployed(model)
    assert path.stat().st_size < stored * 1.02 + 300_000
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


def test_what_is_exported_is_valid_without_batch_norms_and_the_network_stays_as_it_was(tmp_path: Path) -> None:
    model = fresh("edge").train()
    export_network(model, tmp_path / "network.onnx")
    network = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(network, full_check=True)
    assert "BatchNormalization" not in {node.op_type for node in network.graph.node}
    assert model.training
    assert len(model(torch.randn(2, 3, 64, 64))) == 3


def test_an_unknown_architecture_is_named_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="'egde' is unknown; there is: edge"):
        build("egde", 2)
