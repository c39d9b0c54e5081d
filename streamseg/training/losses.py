"""What training minimises: against labels, softly weighted cross entropy and a soft Jaccard term; against a teacher,
the same of its probabilities. Torch only, no thread of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamseg.training.augment import IGNORED
from streamseg.training.recipe import Distill, Losses


def soft_weights(frequency: Sequence[float] | NDArray[np.float64], softness: float) -> Tensor:
    """1 / log(softness + frequency), f32 [K], scaled to a mean of 1 over the pixels.

    ENet (Paszke et al. 2016) takes 1.02 and so weighs a rare class up to 35 times a common one, which costs the common
    ones; 1.1 makes it 3 times.
    """
    share = torch.as_tensor(frequency, dtype=torch.float32)
    weights = 1 / torch.log(softness + share)
    return weights / (weights * share).sum()


def segmentation_loss(outputs: Sequence[Tensor], labels: Tensor, weights: Tensor, how: Losses) -> Tensor:
    """The loss of (main, auxiliary...) logits [N, K, h, w], each at its own stride, against labels u8 [N, H, W].

    The main head is compared at 1/2 of the picture: full resolution costs 4x the memory traffic, a third of a step.
    """
    main, *others = outputs
    half = F.interpolate(main.float(), size=(labels.shape[1] // 2, labels.shape[2] // 2), mode="bilinear")
    truth = _sampled(labels, half)
    logs = half.log_softmax(1)
    loss = _cross_entropy(logs, truth, weights, how)
    if how.jaccard:
        loss = loss + how.jaccard * soft_jaccard(logs.exp(), truth)
    for logits in others:
        small = logits.float().log_softmax(1)
        loss = loss + how.auxiliary * _cross_entropy(small, _sampled(labels, small), weights, how)
    return loss


def _cross_entropy(logs: Tensor, truth: Tensor, weights: Tensor, how: Losses) -> Tensor:
    """Weighted mean over the labelled pixels, or the hard ones of them; 0 where there are none (torch's own mean would
    be nan)."""
    if how.ohem:
        truth = truth.where(hard(logs.detach(), truth, how.ohem, how.ohem_chance), IGNORED)
    total = F.nll_loss(logs, truth, weights, ignore_index=IGNORED, reduction="sum")
    return total / (_pixels(truth, len(weights)) @ weights).clamp(min=1)


def hard(logs: Tensor, truth: Tensor, share: float, chance: float) -> Tensor:
    """Which labelled pixels are hard, bool [N, h, w]: those whose own class has less than `chance`, and at least
    `share` of them in any case (online hard example mining: Shrivastava et al. 2016; in this form BiSeNet's)."""
    known = truth != IGNORED
    own = logs.gather(1, truth.where(known, 0)[:, None])[:, 0].exp()
    among = own[known]
    if not len(among):
        return known
    least = among.kthvalue(max(1, round(share * len(among)))).values
    return known & (own <= least.clamp(min=chance))


def soft_jaccard(chance: Tensor, truth: Tensor) -> Tensor:
    """1 - mean over the batch's classes of soft intersection over union (Rahman and Wang 2016): near to the measure.

    `chance` f32 [N, K, h, w] sums to 1 over K; `truth` i64 [N, h, w]. No one-hot maps: they doubled a step's time.
    """
    classes = chance.shape[1]
    known = truth != IGNORED
    right = chance.gather(1, truth.where(known, 0)[:, None])
    hits = chance.new_zeros(classes + 1).index_add(0, truth.clamp(max=classes).flatten(), right.flatten())[:classes]
    size = _pixels(truth, classes)
    union = torch.einsum("nkhw,nhw->k", chance, known.to(chance.dtype)) + size - hits
    present = (size > 0).to(chance.dtype)  # no boolean indexing, which would make a GPU wait
    return ((1 - hits / union.clamp(min=1)) * present).sum() / present.sum().clamp(min=1)


def distillation_loss(
    outputs: Sequence[Tensor], soft: Tensor, weights: Tensor, how: Losses, distill: Distill
) -> Tensor:
    """The loss of (main, auxiliary...) logits [N, K, h, w] against a teacher's `soft` u8 [N, h', w', K], softened by
    the same temperature (Hinton et al. 2015: times its square, so that gradients stay as large as those of labels).

    A pixel weighs what the classes that the teacher sees in it weigh; one where it says nothing (all zero, or less
    sure than `confident`) does not count. Coarser auxiliary heads learn from the mean of their cell.
    """
    chance = soft.permute(0, 3, 1, 2).float() / 255
    counts = (chance.sum(1) > 0.8) & (chance.amax(1) >= distill.confident)  # a crop's border is a blend with nothing
    chance = chance * counts[:, None]
    main, *others = outputs
    logs = F.interpolate(main.float(), size=chance.shape[2:], mode="bilinear") / distill.temperature
    logs = logs.log_softmax(1)
    loss = distill.temperature**2 * _soft_entropy(logs, chance, weights)
    if how.jaccard:
        loss = loss + how.jaccard * _soft_target_jaccard(logs.exp(), chance)
    for logits in others:
        cells = F.adaptive_avg_pool2d(chance, logits.shape[2:])
        small = (logits.float() / distill.temperature).log_softmax(1)
        loss = loss + how.auxiliary * distill.temperature**2 * _soft_entropy(small, cells, weights)
    return distill.weight * loss


def _soft_entropy(logs: Tensor, chance: Tensor, weights: Tensor) -> Tensor:
    """Mean over the pixels of KL(chance || exp(logs)), each weighing as its classes do; 0 where chance is all zero."""
    weight = torch.einsum("nkhw,k->nhw", chance, weights)
    each = (chance * (chance.clamp(min=1e-6).log() - logs)).sum(1)
    return (weight * each).sum() / weight.sum().clamp(min=1)


def _soft_target_jaccard(ours: Tensor, theirs: Tensor) -> Tensor:
    """1 - mean over classes of sum min / sum max, which is intersection over union where both are 0 or 1 and least
    where they are equal (Wang et al. 2023, Jaccard metric losses). Classes that the teacher sees nowhere are left out.
    """
    ours = ours * theirs.sum(1, keepdim=True)
    union = torch.maximum(ours, theirs).sum((0, 2, 3))
    present = (theirs.sum((0, 2, 3)) > 1).to(ours.dtype)
    share = torch.minimum(ours, theirs).sum((0, 2, 3)) / union.clamp(min=1)
    return ((1 - share) * present).sum() / present.sum().clamp(min=1)


def _pixels(truth: Tensor, classes: int) -> Tensor:
    """How many pixels each class has, f32 [K]."""
    return torch.bincount(truth.flatten(), minlength=IGNORED + 1)[:classes].float()


def _sampled(labels: Tensor, like: Tensor) -> Tensor:
    """Labels at the size of `like`, i64: every stride-th pixel, from the middle of each cell."""
    rows, columns = (_centres(n, m, labels.device) for n, m in zip(labels.shape[1:], like.shape[2:], strict=True))
    return labels[:, rows][:, :, columns].long()


def _centres(size: int, cells: int, device: torch.device) -> Tensor:
    return ((torch.arange(cells, device=device) + 0.5) * size / cells).long().clamp(max=size - 1)
