"""Where a training run stands, saved so that a crash between two bytes loses nothing. The training thread's."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from streamseg.errors import ConfigError


@dataclass(slots=True)
class Place:
    """The next batch is number `step` of `epoch`; `seen` counts all batches so far, `seconds` the time spent."""

    epoch: int = 0
    step: int = 0
    seen: int = 0
    seconds: float = 0.0


def save(path: Path, place: Place, **parts: nn.Module | torch.optim.Optimizer) -> None:
    """Writes beside `path`, flushes to the disk, then renames."""
    content: dict[str, Any] = {"place": asdict(place)} | {name: part.state_dict() for name, part in parts.items()}
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def restore(path: Path, **parts: nn.Module | torch.optim.Optimizer) -> Place:
    """Loads what `save` wrote into `parts`. Raises ConfigError when there is none, or it is of another network."""
    if not path.exists():
        raise ConfigError(f"nothing to resume: there is no {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(content[name])
        return Place(**content["place"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} does not fit this recipe ({reason}); start anew without --resume") from None


def initialise(model: nn.Module, path: Path) -> list[str]:
    """Starts `model` from the averaged weights of another run; returns the names of what starts afresh (no such weight
    there, or of another shape: the head for other classes). Raises ConfigError when nothing fits."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        theirs = content["average"]
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"init: {path} cannot be read: {str(error).splitlines()[0]}") from None
    ours = model.state_dict()
    fitting = {name: w for name, w in theirs.items() if name in ours and w.shape == ours[name].shape}
    if not fitting:
        raise ConfigError(f"init: no weight of {path} fits this architecture")
    model.load_state_dict(fitting, strict=False)
    return [name for name in ours if name not in fitting]
