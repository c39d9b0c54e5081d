"""How a training run shows itself: a bar on a terminal, plain lines elsewhere, and its log as CSV and as JSON lines.

The training thread's.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from streamseg.evaluation.accuracy import Confusion

LINE_SECONDS = 30  # between two lines where there is no terminal


COLUMNS = ("epoch", "loss", "learning_rate", "seconds", "miou")


class Show:
    """Reports a run's course. `table` and `lines` are open files: log.csv with `COLUMNS`, and log.jsonl, which also
    tells every class's accuracy."""

    def __init__(self, table: IO[str], lines: IO[str], bar: Progress | None) -> None:
        self._table, self._lines, self._bar = table, lines, bar
        self._task = bar.add_task("", total=1.0, what="starting") if bar else None
        self._began: tuple[float, float, int] | None = None
        self._lined = 0.0
        self._miou = ""

    def step(self, done: float, epoch: int, loss: float, pictures: int) -> None:
        """After some batches; `done` is the share of the run behind us, 0..1, `pictures` how many were seen in all."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done, pictures)
            return
        began, before, seen = self._began
        spent, gone = now - began, done - before
        left = spent / gone * (1 - done) if gone > 0 else math.nan
        speed = (pictures - seen) / max(spent, 1e-9)
        what = f"epoch {epoch}  loss {loss:.3f}{self._miou}  {speed:.1f} pictures/s  {_clock(left)} left"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, what=what)
        elif now - self._lined >= LINE_SECONDS:
            self._lined = now
            print(f"{done:6.1%}  {what}", flush=True)

    def epoch(self, epoch: int, loss: float, rate: float, seconds: float) -> None:
        self._row(epoch=epoch, loss=round(loss, 4), learning_rate=float(f"{rate:.3g}"), seconds=round(seconds))

    def accuracy(self, epoch: int, confusion: Confusion, names: Sequence[str]) -> None:
        iou = dict(zip(names, (float(v) for v in confusion.iou()), strict=True))
        each = "  ".join(f"{name} {value:.3f}" for name, value in iou.items())
        self.say(f"epoch {epoch}: mIoU {confusion.miou():.4f}, pixels right {confusion.pixel_accuracy():.4f}; {each}")
        self._miou = f"  mIoU {confusion.miou():.3f}"
        known = {name: round(value, 4) for name, value in iou.items() if not math.isnan(value)}
        self._row(epoch=epoch, miou=round(confusion.miou(), 4), iou=known)

    def say(self, line: str) -> None:
        print(line, flush=True) if self._bar is None else self._bar.console.print(line, highlight=False)

    def _row(self, **values: object) -> None:
        csv.writer(self._table).writerow([values.get(name, "") for name in COLUMNS])
        self._lines.write(json.dumps(values) + "\n")
        self._table.flush()
        self._lines.flush()


@contextmanager
def shown(folder: Path, done: int | None) -> Iterator[Show]:
    """Opens `folder`/log.csv and log.jsonl (and the bar where there is a terminal), and closes all. They go on behind
    epoch `done`, or begin anew where that is None."""
    if done is not None:
        _forget(folder / "log.csv", done, lambda row: row.partition(",")[0])
        _forget(folder / "log.jsonl", done, lambda row: json.loads(row)["epoch"])
    mode = "w" if done is None else "a"
    with (folder / "log.csv").open(mode, newline="") as table, (folder / "log.jsonl").open(mode) as lines:
        if table.tell() == 0:
            csv.writer(table).writerow(COLUMNS)
        if not sys.stdout.isatty():
            yield Show(table, lines, None)
            return
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[what]}"), TimeElapsedColumn())
        with Progress(*columns, console=Console()) as bar:
            yield Show(table, lines, bar)


def _forget(log: Path, done: int, epoch_of: Callable[[str], Any]) -> None:
    """Takes out the epochs after `done`: a crash lost what they taught, so they come again."""
    kept = []
    for row in log.read_text().splitlines(keepends=True) if log.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # the titles
            if int(epoch_of(row)) > done:
                continue
        if row.endswith("\n"):  # else the crash cut it short
            kept.append(row)
    log.write_text("".join(kept))


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
