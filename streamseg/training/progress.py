"""How a training run shows itself: a bar on a terminal, plain lines elsewhere, and a CSV log. The training thread's."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from streamseg.evaluation.accuracy import Confusion

LINE_SECONDS = 30  # between two lines where there is no terminal


class Show:
    """Reports a run's course. `log` is an open CSV file: epoch, loss, learning rate, seconds, mIoU."""

    def __init__(self, log: TextIO, bar: Progress | None) -> None:
        self._log, self._bar = csv.writer(log), bar
        self._file = log
        self._task = bar.add_task("", total=1.0, what="starting") if bar else None
        self._began: tuple[float, float] | None = None
        self._pictures = 0
        self._lined = 0.0

    def step(self, done: float, epoch: int, loss: float, pictures: int) -> None:
        """After each batch; `done` is the share of the run behind us, 0..1."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done)
            return
        self._pictures += pictures
        spent = now - self._began[0]
        speed, gone = self._pictures / spent, done - self._began[1]
        left = spent / gone * (1 - done) if gone > 0 else float("nan")
        what = f"epoch {epoch}  loss {loss:.3f}  {speed:.1f} pictures/s  {_clock(left)} left"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, what=what)
        elif now - self._lined >= LINE_SECONDS:
            self._lined = now
            print(f"{done:6.1%}  {what}", flush=True)

    def epoch(self, epoch: int, loss: float, rate: float, seconds: float) -> None:
        self._row(epoch, f"{loss:.4f}", f"{rate:.3g}", f"{seconds:.0f}", "")

    def accuracy(self, epoch: int, confusion: Confusion, names: Sequence[str]) -> None:
        each = "  ".join(f"{name} {iou:.3f}" for name, iou in zip(names, confusion.iou(), strict=True))
        line = f"epoch {epoch}: mIoU {confusion.miou():.4f}, pixels right {confusion.pixel_accuracy():.4f}; {each}"
        print(line, flush=True) if self._bar is None else self._bar.console.print(line, highlight=False)
        self._row(epoch, "", "", "", f"{confusion.miou():.4f}")

    def _row(self, *cells: object) -> None:
        self._log.writerow(cells)
        self._file.flush()


@contextmanager
def shown(log: Path, *, append: bool) -> Iterator[Show]:
    """Opens the log (and the bar where there is a terminal), and closes both."""
    with log.open("a" if append else "w", newline="") as file:
        if not append:
            csv.writer(file).writerow(["epoch", "loss", "learning_rate", "seconds", "miou"])
        if not sys.stdout.isatty():
            yield Show(file, None)
            return
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[what]}"), TimeElapsedColumn())
        with Progress(*columns, console=Console()) as bar:
            yield Show(file, bar)


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
