"""Weights handed from one network to another: what a bundle keeps, what a new run starts from, what of it is frozen.

The training thread's.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamseg.engine.bundle import find
from streamseg.errors import ConfigError
from streamseg.models import build

FILE = "weights.pt"
log = logging.getLogger("streamseg")


def write(folder: Path, architecture: str, classes: Sequence[str], model: nn.Module) -> None:
    """`folder`/weights.pt: {"architecture", "classes", "weights"}, the state dict in fp16 with auxiliary heads. Half
    the size, and a start is not harmed by it."""
    halves = {n: v.half() if v.is_floating_point() else v for n, v in model.state_dict().items()}
    part = folder / f".{FILE}.part"
    part.write_bytes(packed({"architecture": architecture, "classes": list(classes), "weights": halves}))
    os.replace(part, folder / FILE)


def packed(content: dict[str, Any]) -> memoryview:
    """What torch.save makes of `content`. Written by itself to a disk that is full, it hides that behind an error of
    its own format."""
    held = io.BytesIO()
    torch.save(content, held)
    return held.getbuffer()


def initialise(model: nn.Module, architecture: str, classes: Sequence[str], init: str, base: Path) -> list[str]:
    """Starts `model` from `init` and returns the names of what starts afresh: weights that are not there, of another
    shape, or (the heads) of other classes. Warns where that is more than heads.

    `init` is a file (another run's checkpoint.pt, a weights.pt), a bundle's folder, both relative to `base`, or an
    engine's name. Raises ConfigError when it cannot be read or nothing fits.
    """
    path = found(init, base)
    theirs, theirs_classes, theirs_architecture = _read(path)
    ours = model.state_dict()
    foreign = theirs_classes is not None and theirs_classes != list(classes)
    heads = _heads(architecture, len(classes))
    kept = {n: w for n, w in theirs.items() if not foreign or n not in heads}
    fitting = {n: w for n, w in kept.items() if n in ours and w.shape == ours[n].shape}
    if not fitting:
        raise ConfigError(f"init: no weight of {path} fits this architecture")
    model.load_state_dict(fitting, strict=False)
    body = {name: value.numel() for name, value in ours.items() if name not in heads}
    if share := sum(size for name, size in body.items() if name not in fitting) / sum(body.values()):
        is_of = f", which is of the architecture {theirs_architecture}" if theirs_architecture else ""
        log.warning(
            "init: %.0f %% of the weights of %s start afresh, beside its heads: they are not in %s%s",
            max(1, 100 * share), architecture, path, is_of,
        )  # fmt: skip
    return [name for name in ours if name not in fitting]


def found(init: str, base: Path) -> Path:
    """The file that `init` means. Raises ConfigError."""
    path = base / Path(init).expanduser()
    if path.is_file():
        return path
    if path.suffix == ".pt":
        raise ConfigError(f"init: there is no {path}")
    folder = path if path.is_dir() else find(init).path
    if not (folder / FILE).is_file():
        raise ConfigError(f"init: {folder} has no {FILE}; give another engine, or a run's checkpoint.pt")
    return folder / FILE


def _read(path: Path) -> tuple[dict[str, Tensor], list[str] | None, str | None]:
    """The state dict, and classes and architecture where the file says them. Nothing in it is executed
    (`weights_only`)."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not {"average", "weights"} & set(content):
            raise ValueError(
                "no run of ours wrote it; `streamseg engine import` makes an engine of it, to be named here"
            )
        weights = content["average"] if "average" in content else content["weights"]
        floats = {n: w.float() if w.is_floating_point() else w for n, w in weights.items()}
        return floats, content.get("classes"), content.get("architecture")
    except pickle.UnpicklingError:  # torch's text is advice to load it all the same
        raise ConfigError(f"init: {path} cannot be read: it is damaged, or holds more than weights") from None
    except Exception as error:  # a pickle that is no such file fails in every way there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"init: {path} cannot be read: {reason}") from None


def _heads(architecture: str, classes: int) -> set[str]:
    """The names of the weights whose shape hangs on the number of classes."""
    ours, one_more = (build(architecture, n).state_dict() for n in (classes, classes + 1))
    return {name for name, value in ours.items() if value.shape != one_more[name].shape}


class Frozen:
    """Keeps what was taken over as it is: no gradients, and batch norms at their statistics. `epochs` None: for
    ever."""

    def __init__(self, model: nn.Module, fresh: Sequence[str], epochs: int | None) -> None:
        self._model, self._fresh, self._epochs = model, set(fresh), epochs

    def at(self, epoch: int) -> None:
        """To be called before each epoch's first step; thaws when its time has come."""
        held = self._epochs is None or epoch < self._epochs
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(not held or name in self._fresh)
        for name, layer in self._model.named_modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train(not held or f"{name}.running_mean" in self._fresh)
