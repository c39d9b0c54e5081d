"""The training loop. Runs in the caller's thread; loader threads make the batches, torch's own do the arithmetic."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamseg.errors import ConfigError, EngineError
from streamseg.evaluation.accuracy import Confusion
from streamseg.models import build
from streamseg.training import checkpoint, curves, interrupt, lock, progress, weights
from streamseg.training.data import (
    Batch,
    Pictures,
    ahead,
    batches,
    check,
    check_widths,
    class_frequency,
    steps_per_epoch,
)
from streamseg.training.datasets import load
from streamseg.training.export import export_network
from streamseg.training.kinds import Folders
from streamseg.training.losses import distillation_loss, segmentation_loss, soft_weights
from streamseg.training.recipe import Recipe, read_recipe
from streamseg.training.schedule import Schedule
from streamseg.training.teacher import Teachers
from streamseg.training.weak import weak_sets
from streamseg.types import U8

CHECKPOINT_SECONDS = 120
REPORT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves: the averaged weights (on the CPU, in eval mode), the last mean loss, and the files."""

    model: nn.Module
    recipe: Recipe
    epochs: float
    loss: float
    network: Path
    curves: Path
    report: Confusion | None


def train(
    recipe_path: Path,
    *,
    out: Path,
    data_root: Path | None = None,
    resume: bool = False,
    epochs: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
) -> Trained:
    """Trains `recipe_path` into `out`: `network.onnx` (the averaged weights), `checkpoint.pt`, `log.csv`, the same with
    every class's accuracy as `log.jsonl`, and its picture, `curves.png`.

    `data_root` replaces the `root` of the recipe's folders; a relative `root` starts at the recipe's own folder.
    `minutes` fits the rest of the learning-rate schedule into the time left instead of the recipe's epochs.
    A KeyboardInterrupt is passed on after the checkpoint is written. Raises ConfigError on a faulty recipe or data, and
    while another training is at work in `out`, EngineError when the weights are no longer finite.
    """
    recipe = read_recipe(recipe_path)
    if epochs:
        recipe = recipe.model_copy(update={"epochs": epochs})
    base = recipe_path.resolve().parent
    if recipe.init:
        weights.found(recipe.init, base)  # a wrong name shows before minutes of reading and teaching
    with lock.held(out):
        sets, report = _loaded(recipe, data_root, base)
        check(sets, recipe.names)
        check_widths(sets, recipe)
        cv2.setNumThreads(1)  # the loader's threads are enough; cv2's own would fight with torch's
        _keep_memory()
        if threads:
            torch.set_num_threads(threads)
        run = Run(recipe, sets, report, out, minutes, base)
        if resume:
            run.resume()
        return run.finish()


class Run:
    """One training run: the networks, the optimiser and where it stands. Not thread-safe."""

    def __init__(
        self,
        recipe: Recipe,
        sets: Sequence[Pictures],
        report: Pictures | None,
        out: Path,
        minutes: float | None,
        base: Path,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.sets, self.pictures, self.out = recipe, sets, report, out
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build(recipe.architecture, len(recipe.classes)).to(self.device, memory_format=torch.channels_last)
        frozen_epochs = None if recipe.freeze is True else int(recipe.freeze)  # None: for ever
        self.frozen = weights.Frozen(self.model, self._initialised(base), frozen_epochs)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser = _optimiser(self.model, recipe)
        self.weights = soft_weights(class_frequency(sets, len(recipe.classes)), recipe.losses.softness).to(self.device)
        self.schedule = Schedule(recipe, steps_per_epoch(sets, recipe), minutes)
        self.teachers = None
        if recipe.distill and recipe.distill.live:  # beside torch: with what cores it leaves, all where it has a GPU
            left = max(1, (os.cpu_count() or 1) - torch.get_num_threads()) if self.device.type == "cpu" else 0
            self.teachers = Teachers(recipe.distill, recipe.names, base, "auto", left)
        self.place = checkpoint.Place()
        self._mean, self._std = (
            torch.tensor(v, device=self.device).mul(255).view(1, 3, 1, 1) for v in (recipe.mean, recipe.std)
        )
        self._loss_mean = torch.tensor(math.nan, device=self.device)
        self.confusion: Confusion | None = None

    def _initialised(self, base: Path) -> list[str]:
        """The names of the weights that start afresh; [] where all do."""
        recipe = self.recipe
        if not recipe.init:
            return []
        fresh = weights.initialise(self.model, recipe.architecture, recipe.names, recipe.init, base)
        if recipe.freeze and not fresh:
            raise ConfigError(f"freeze: nothing is left to train, as {recipe.init} has every weight of this network")
        return fresh

    def resume(self) -> None:
        self.place = checkpoint.restore(self._file, self.recipe.names, **self._parts)
        self.optimiser.param_groups[0]["weight_decay"] = self.recipe.weight_decay  # it brings that of its own time

    def finish(self) -> Trained:
        """Trains to the end of the schedule; on an interrupt saves and passes it on."""
        done = self.place.epoch if self.place.seen else None
        with progress.shown(self.out, done) as show, interrupt.held() as raise_held:
            if self.place.seen:
                show.say(self._resumed())
            try:
                self._epochs(show, raise_held)
            finally:  # also on Ctrl-C: nothing that was learned is lost
                self.save()
            self._accuracy(show)
        curves.draw(self.out)
        return Trained(
            self.average.cpu(),
            self.recipe,
            self.place.seen / self.schedule.steps,
            self.loss,
            self.out / "network.onnx",
            self.out / "curves.png",
            self.confusion,
        )

    def _epochs(self, show: progress.Show, raise_held: Callable[[], None]) -> None:
        saved = reported = time.monotonic()
        while self.schedule.done(self.place) < 1:
            self.frozen.at(self.place.epoch)
            for rgb, labels in weak_sets(self.sets, self.schedule.done(self.place)):
                labels.refine(rgb, self._chances)
            for batch in self._batches():
                self._learn(batch, show)
                raise_held()
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if self.schedule.done(self.place) >= 1:  # the minutes are over, perhaps in mid-epoch
                    break
            self._check_sound()
            self.place.epoch, self.place.step = self.place.epoch + 1, 0
            show.epoch(self.place.epoch, self.loss, self.schedule.rate(self.place), self.place.seconds)
            if time.monotonic() - reported > REPORT_SECONDS:
                self._accuracy(show)
                reported = time.monotonic()

    def _batches(self) -> Iterator[Batch]:
        """The rest of the epoch."""
        now = self.schedule.now(self.place)
        made = batches(self.sets, now, self.place.epoch, self.place.step, now.loader_threads)
        return ahead(made, self.teachers.again) if self.teachers else made

    def _resumed(self) -> str:
        if self.schedule.done(self.place) >= 1:
            return f"{self._file} is of a run that has ended: nothing is left to train; {checkpoint.ANEW}"
        return f"going on from {self._file}, in epoch {self.place.epoch} of {self.recipe.epochs}"

    def _learn(self, batch: Batch, show: progress.Show) -> None:
        start = time.monotonic()
        rate = self.schedule.rate(self.place)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        images = self._normalised(self._given(batch.rgb))
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = self.model(images)
        loss = self._loss_of(outputs, batch)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimiser.step()
        self._average()
        self._loss_mean = torch.where(self._loss_mean.isnan(), loss.detach(), self._loss_mean.lerp(loss.detach(), 0.05))
        self.place.step += 1
        self.place.seen += 1
        self.place.seconds += time.monotonic() - start
        if self.device.type == "cpu" or self.place.seen % 20 == 0:  # to read the loss makes a GPU wait
            show.step(self.schedule.done(self.place), self.place.epoch, self.loss, self.place.seen * self.recipe.batch)

    @property
    def loss(self) -> float:
        """The mean over about the last 20 batches; nan before the first."""
        return float(self._loss_mean)

    def _given(self, array: U8) -> Tensor:
        """On the device; to a GPU it is copied while that still works on the batch before."""
        host = torch.from_numpy(array)
        return host if self.device.type == "cpu" else host.pin_memory().to(self.device, non_blocking=True)

    def _loss_of(self, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
        how = self.recipe.losses
        loss = segmentation_loss(outputs, self._given(batch.labels), self.weights, how)
        if batch.soft is None or self.recipe.distill is None:
            return loss
        return loss + distillation_loss(outputs, self._given(batch.soft), self.weights, how, self.recipe.distill)

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average of weights and batch-norm statistics; young averages forget faster."""
        keep = min(self.recipe.ema, self.place.seen / (self.place.seen + 10))
        theirs = self.model.state_dict()
        old, new = [], []
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                old.append(value)
                new.append(theirs[name])
            else:
                value.copy_(theirs[name])
        torch._foreach_lerp_(old, new, 1 - keep)

    def _normalised(self, rgb: Tensor) -> Tensor:
        """u8 [N, H, W, 3] -> f32 [N, 3, H, W] in channels-last memory, by the recipe's mean and std."""
        return (rgb.permute(0, 3, 1, 2).float() - self._mean) / self._std

    @torch.inference_mode()
    def _accuracy(self, show: progress.Show) -> None:
        """The averaged weights on the pictures to report on, at full size: logged, never selected by."""
        if self.pictures is None:
            return
        self.confusion = Confusion(len(self.recipe.classes))
        for rgb, labels in zip(self.pictures.rgb, self.pictures.labels, strict=True):
            self.confusion.add(self._seen(rgb).argmax(0).to(torch.uint8).cpu().numpy(), labels)
        show.accuracy(self.place.epoch, self.confusion, self.recipe.names)

    @torch.inference_mode()
    def _chances(self, rgb: U8) -> NDArray[np.float32]:
        """The averaged weights' class probabilities f32 [K, H, W] of a picture u8 [H, W, 3]."""
        return np.asarray(self._seen(rgb).softmax(0).cpu().numpy(), np.float32)

    def _seen(self, rgb: U8) -> Tensor:
        """The averaged weights' logits f32 [K, H, W] of a picture u8 [H, W, 3]; one with sides that are no multiples of
        the network's stride is stretched to the next ones first."""
        image = self._normalised(self._given(rgb[None]))
        stride: int = self.average.stride
        fit = [math.ceil(side / stride) * stride for side in rgb.shape[:2]]
        if fit != list(rgb.shape[:2]):
            image = nn.functional.interpolate(image, size=fit, mode="bilinear")
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.average(image)
        return nn.functional.interpolate(logits.float(), size=rgb.shape[:2], mode="bilinear")[0]

    def _check_sound(self) -> None:
        """Raises EngineError where nothing can be learned any more, and nothing must be kept."""
        if not all(bool(value.isfinite().all()) for value in self.average.parameters()):
            kept = f"; {self._file} is from before that" if self._file.exists() else ""
            raise EngineError(f"the weights are no longer finite: try a lower learning_rate{kept}")

    def save(self) -> None:
        self._check_sound()
        curves.draw(self.out)
        checkpoint.save(self._file, self.place, self.recipe.names, **self._parts)
        export_network(self.average, self.out / "network.onnx")

    @property
    def _file(self) -> Path:
        return self.out / "checkpoint.pt"

    @property
    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average, "optimiser": self.optimiser}


def _loaded(recipe: Recipe, data_root: Path | None, base: Path) -> tuple[list[Pictures], Pictures | None]:
    """The recipe's data sets, those that ask for the teacher with its probabilities, and the pictures to report on."""
    if data_root and not any(isinstance(one, Folders) for one in (*recipe.datasets, recipe.report)):
        raise ConfigError("--data: the recipe has no labelled folders; where its other pictures are says their `root`")
    sets = []
    for source in recipe.datasets:
        pictures = load(source, recipe.names, data_root, base)
        if recipe.distill and source.teacher:
            pictures = Teachers(recipe.distill, recipe.names, base).taught(pictures)
        sets.append(pictures)
    return sets, load(recipe.report, recipe.names, data_root, base) if recipe.report else None


def _keep_memory() -> None:
    """Lets glibc keep freed memory instead of handing it back to the system after every step.

    Measured on 2 cores: 19 000 page faults a step become 500, and a tenth of the CPU time goes with them.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        m_mmap_threshold, m_trim_threshold = -3, -1
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); norms and biases are not decayed."""
    flat = [p for p in model.parameters() if p.ndim <= 1]
    deep = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": deep, "weight_decay": recipe.weight_decay}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate, fused=True)
