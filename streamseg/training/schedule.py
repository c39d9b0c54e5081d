"""How far a training run has come, by its epochs and by the clock, and the learning rate there."""

from __future__ import annotations

import math
import time

from streamseg.training.checkpoint import Place
from streamseg.training.recipe import Recipe


class Schedule:
    """The way from the first batch to the last. With `minutes`, counted from here, the run ends no later, and what it
    has still to do is fitted into them."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int, minutes: float | None) -> None:
        self._recipe, self.steps = recipe, steps_per_epoch
        self._deadline = time.monotonic() + minutes * 60 if minutes else math.inf

    def done(self, place: Place) -> float:
        """The share of the way behind us, 0..1: by the batches, or by the time where that is ahead."""
        return max(place.seen / (self._recipe.epochs * self.steps), self._by_time(place))

    def now(self, place: Place) -> Recipe:
        """What the epoch follows that begins here: the recipe, or its `finish`."""
        return self._recipe.at(max(place.epoch / self._recipe.epochs, self._by_time(place)))

    def rate(self, place: Place) -> float:
        """The learning rate of the next batch."""
        warm = min(1.0, (place.seen + 1) / max(1.0, self._recipe.warmup_epochs * self.steps))
        return self._recipe.learning_rate * warm * fall(self._recipe.schedule, self.done(place))

    def _by_time(self, place: Place) -> float:
        """Of the time that was spent, in earlier sittings too, and that is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return 1.0
        return 0.0 if math.isinf(left) else place.seconds / (place.seconds + left)


def fall(schedule: str, done: float) -> float:
    """What is left of the learning rate at `done` (0..1): "cosine" is half a cosine down to 1 % (Loshchilov and Hutter
    2017), "poly" (1 - done)^0.9 (DeepLab, Chen et al. 2016)."""
    done = min(1.0, done)
    if schedule == "poly":
        return float((1 - done) ** 0.9)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
