"""Where a training run stands, saved so that a crash between two bytes loses nothing. The training thread's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from streamseg.errors import ConfigError
from streamseg.training.weights import packed

ANEW = "start anew with --no-resume, or in another folder with --work"


@dataclass(slots=True)
class Place:
    """The next batch is number `step` of `epoch`; `seen` counts all batches so far, `seconds` the time spent."""

    epoch: int = 0
    step: int = 0
    seen: int = 0
    seconds: float = 0.0


def save(path: Path, place: Place, classes: Sequence[str], **parts: nn.Module | torch.optim.Optimizer) -> None:
    """Writes beside `path`, flushes to the disk, then renames. Raises OSError, and then leaves what was there."""
    content: dict[str, Any] = {"place": asdict(place), "classes": list(classes)} | {
        name: part.state_dict() for name, part in parts.items()
    }
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(packed(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:  # a write names none
        error.filename = str(path)
        raise
    finally:  # on a full disk it would take what is left
        part.unlink(missing_ok=True)


def restore(path: Path, classes: Sequence[str], **parts: nn.Module | torch.optim.Optimizer) -> Place:
    """Loads what `save` wrote into `parts`. Raises ConfigError when there is none, it cannot be read, or it is of
    another network or of other classes: only their number shows in the weights, not their order."""
    if not path.exists():
        raise ConfigError(f"nothing to resume: there is no {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        theirs = content.get("classes", list(classes))  # the first versions wrote none
    except Exception as error:  # a pickle that is no such file fails in every way there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} cannot be read ({reason}); {ANEW}") from None
    if theirs != list(classes):
        raise ConfigError(f"{path} is of the classes {', '.join(theirs)}, not {', '.join(classes)}; {ANEW}")
    try:
        for name, part in parts.items():
            part.load_state_dict(content[name])
        return Place(**content["place"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} does not fit this recipe ({reason}); {ANEW}") from None
