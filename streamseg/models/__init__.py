"""Our own networks by name. Only training and export need this (and torch) at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def _edge(classes: int) -> nn.Module:
    from streamseg.models.edge import Edge

    return Edge(classes)


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"edge": _edge}


def build(name: str, classes: int) -> nn.Module:
    """A freshly initialised network. Raises ConfigError naming the choices when there is none of that name."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture {name!r} is unknown; there is: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](classes)
