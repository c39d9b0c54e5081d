"""Our networks: size, shapes, and that the exported file answers as torch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from streamseg.errors import ConfigError
from streamseg.models import build
from streamseg.training.export import export_network

CLASSES = 11


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A network that has seen some data, so that its batch norms are not the identity."""
    torch.manual_seed(0)
    model = build("edge", CLASSES)
    for _ in range(3):
        model(torch.randn(4, 3, 64, 96) * 2 + 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def exported(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "network.onnx"
    export_network(network, path)
    return path


def test_the_deployed_network_has_at_most_two_million_parameters(network: torch.nn.Module) -> None:
    deployed = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("aux"))
    assert deployed <= 2_000_000


@pytest.mark.parametrize(("height", "width"), [(272, 480), (64, 64), (104, 72), (40, 200)])
def test_any_size_that_is_a_multiple_of_8_gives_logits_at_a_quarter(
    network: torch.nn.Module, height: int, width: int
) -> None:
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, height, width))
    assert logits.shape == (1, CLASSES, height // 4, width // 4)


@pytest.mark.parametrize("shape", [(1, 3, 272, 480), (3, 3, 88, 136)])
def test_the_exported_file_answers_as_torch_at_every_size_and_batch(
    network: torch.nn.Module, exported: Path, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"image": image})[0], expected, atol=1e-4, rtol=1e-4)


def test_the_exported_file_is_one_valid_file_without_batch_norm_or_training_heads(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [p.name for p in exported.parent.iterdir()] == ["network.onnx"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert not [t.name for t in model.graph.initializer if t.name.startswith("aux")]
    assert exported.stat().st_size < 4 * 2_000_000 + 100_000


def test_exporting_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    model = build("edge", CLASSES).train()
    export_network(model, tmp_path / "n.onnx")
    assert model.training
    assert len(model(torch.randn(2, 3, 64, 64))) == 3


def test_an_unknown_architecture_is_named_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="'egde' is unknown; there is: edge"):
        build("egde", 2)
