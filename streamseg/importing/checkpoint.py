"""PyTorch checkpoints of the published architectures: read without executing anything, checked weight by weight."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamseg.engine.bundle import Triple
from streamseg.errors import EngineError
from streamseg.importing.heads import IMAGENET
from streamseg.models import auxiliary, build

WRAPPERS = ("average", "state_dict", "model_state_dict", "model_state", "model", "net", "weights", "ema", "params")
"""Keys under which trainers keep the state dict; `average` is what our own engines are made of, beside `model`."""
PREFIXES = ("module.", "model.", "net.", "_orig_mod.", "segmentor.", "backbone_net.")
NAMED = 5
"""So many of a kind are named in full in an error."""
# CoinCheung/BiSeNet (lib/data/cityscapes_cv2.py) normalises with the statistics of Cityscapes itself.
CITYSCAPES: tuple[Triple, Triple] = ((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115))
PUBLISHED: Mapping[str, tuple[Triple, Triple]] = {"bisenetv1": CITYSCAPES, "bisenetv2": CITYSCAPES}
"""(mean, std) of pixels 0..1, RGB, where an architecture's published weights want another than ImageNet's."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The network with its weights; `notes` name what was missing or unused (auxiliary heads only)."""

    model: nn.Module
    mean: Triple
    std: Triple
    notes: Mapping[str, str]


class Reversed(nn.Module):
    """A network that takes blue, green, red, for pictures that are red, green, blue."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("order", torch.tensor([2, 1, 0]))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image[:, self.order])
        return logits


def load(path: Path, architecture: str, classes: int) -> Loaded:
    """Raises EngineError for what is no checkpoint, or not of this network; ConfigError for an unknown one."""
    model = build(architecture, classes)
    weights = unwrapped(read(path), set(model.state_dict()))
    missing, unused = _verified(path, architecture, model, weights, auxiliary(model))
    if broken := [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise EngineError(f"{path} is of a training that failed: not all numbers are finite in {_listed(broken)}")
    ours = model.state_dict()
    model.load_state_dict({name: weights[name] for name in ours if name in weights}, strict=False)
    deployed = sum(1 for name in ours if name in weights)
    mean, std = PUBLISHED.get(architecture, IMAGENET)
    notes = {
        "weights": f"{deployed} of {len(ours)} tensors of {architecture}, each of the right name and shape",
        "missing": _listed(missing) or "none",
        "unused": _listed(unused) or "none",
    }
    return Loaded(model, mean, std, notes)


def read(path: Path) -> Any:
    """What `path` holds; nothing in it is executed."""
    if not path.is_file():
        raise EngineError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():  # it warns of old files before it refuses them
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        if "GLOBAL" in text or "Unsupported" in text or "not an allowed" in text:
            what = re.search(r"GLOBAL (\S+)|Unsupported operand \d+", text)
            named = f" ({what[1] or what[0]})" if what else ""  # the rest of it is advice to load it all the same
            raise EngineError(
                f"{path} holds more than weights{named} and was not loaded: it could execute code. Save its "
                "state dict alone: torch.save(model.state_dict(), …)"
            ) from None
        raise EngineError(f"{path} is no PyTorch checkpoint, or is damaged ({text[:160]})") from None
    except Exception as error:  # a cut or foreign file fails in every way there is
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineError(f"{path} is no PyTorch checkpoint, or is cut short ({reason})") from None


def unwrapped(content: Any, ours: set[str]) -> dict[str, Tensor]:
    """The state dict in it, its names without what DataParallel, Lightning and others put before them."""
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        keys = f": {', '.join(map(str, list(content)[:NAMED]))}" if isinstance(content, Mapping) else ""
        raise EngineError(f"no weights are in the checkpoint (it holds a {type(content).__name__}{keys})")
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    while True:
        shorter = next((p for p in PREFIXES if all(name.startswith(p) for name in weights)), None)
        shorter = shorter or next((p for p in PREFIXES if _helps(weights, p, ours)), None)
        if shorter is None:
            return weights
        weights = {name.removeprefix(shorter): value for name, value in weights.items()}


def _helps(weights: Mapping[str, Tensor], prefix: str, ours: set[str]) -> bool:
    """Whether more of the names are ours without `prefix` (losses and teachers beside the network have none)."""
    begin = [name for name in weights if name.startswith(prefix)]
    return sum(name.removeprefix(prefix) in ours for name in begin) > sum(name in ours for name in weights)


def _verified(
    path: Path, architecture: str, model: nn.Module, weights: Mapping[str, Tensor], spare: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """(missing, unused) names; raises EngineError unless all of them are of auxiliary heads."""
    ours = model.state_dict()
    wrong = [
        f"{name} is {list(weights[name].shape)}, not {list(ours[name].shape)}"
        for name in ours
        if name in weights and weights[name].shape != ours[name].shape and not name.startswith(spare)
    ]
    missing = [name for name in ours if name not in weights and not name.endswith("num_batches_tracked")]
    unused = [name for name in weights if name not in ours]
    needed = [name for name in missing if not name.startswith(spare)]
    if wrong or needed:
        faults = [f"{len(needed)} weights are missing: {_listed(needed)}"] if needed else []
        faults += [f"{len(wrong)} have another shape: {_listed(wrong)}"] if wrong else []
        faults += [f"{len(unused)} are unknown to it: {_listed(unused)}"] if needed and unused else []
        if (theirs := _classes_of(architecture, model, weights)) is not None:
            faults.insert(0, f"it tells {theirs} classes apart")
        raise EngineError(f"{path} is not of {architecture} with these classes: " + "; ".join(faults))
    return missing, unused


def _classes_of(architecture: str, model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """How many classes the checkpoint is of, where it differs from `model` in that: its head's bias tells."""
    ours = model.state_dict()
    more = build(architecture, 250).state_dict()
    heads = [name for name, value in more.items() if value.shape[:1] == (250,) and name in weights]
    counts = {int(weights[name].shape[0]) for name in heads if weights[name].ndim == ours[name].ndim}
    return counts.pop() if len(counts) == 1 and counts != {int(ours[heads[0]].shape[0])} else None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
