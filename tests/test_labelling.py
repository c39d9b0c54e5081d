"""Scores to labels by one kernel, against torch's functions; on a GPU where there is one, else interpreted."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="no torch")
pytest.importorskip("triton", reason="no Triton (pip install 'streamseg[cuda]')")

from streamseg.engine import torch_backend  # noqa: E402
from streamseg.nvidia import labelling  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("scores", "size"),
    [
        ((2, 5, 9, 15), (72, 120)),
        ((1, 11, 17, 30), (68, 300)),  # more than one program a row
        ((3, 4, 7, 5), (29, 33)),  # by ratios that are not whole
        ((1, 3, 8, 8), (8, 8)),  # as they are
        ((1, 3, 16, 12), (9, 7)),  # made smaller
        ((2, 2, 1, 1), (5, 6)),
    ],
    ids=str,
)
def test_labels_are_those_of_torch(scores: tuple[int, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    given = torch.rand(scores, device=DEVICE)
    mine, wanted = (torch.full((scores[0], *size), 255, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    labelling.labels_of(given, mine)
    torch_backend.labels_of(given, wanted)
    assert (mine == wanted).float().mean() > 0.999


def test_of_equals_the_first_class_wins() -> None:
    given = torch.full((1, 3, 4, 4), 0.25, device=DEVICE)
    given[:, 1:] = 0.5
    labels = torch.empty((1, 8, 8), dtype=torch.uint8, device=DEVICE)
    labelling.labels_of(given, labels)
    assert (labels == 1).all()


def test_what_is_strided_is_refused() -> None:
    labels = torch.empty((1, 8, 8), dtype=torch.uint8, device=DEVICE)
    with pytest.raises(ValueError, match="contiguous"):
        labelling.labels_of(torch.rand((1, 4, 4, 3), device=DEVICE).permute(0, 3, 1, 2), labels)


@pytest.mark.gpu
def test_a_gpu_takes_the_kernel() -> None:
    assert torch_backend.labels_for(torch.device("cuda:0")) is labelling.labels_of
