"""`streamseg train`: recipes, data, loss, loop and export of our own networks. Needs the `train` extra (torch)."""

from __future__ import annotations

from streamseg.training.loop import Trained, train
from streamseg.training.recipe import Recipe, read_recipe

__all__ = ["Recipe", "Trained", "read_recipe", "train"]
