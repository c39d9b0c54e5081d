"""The daemon around a pipeline: signals, the log, what is shown while it runs, and how it ends. Main thread."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TextIO

import cv2
from rich.console import Console
from rich.live import Live
from rich.table import Table

from streamseg.config import Config
from streamseg.pipeline import Outcome, Pipeline

log = logging.getLogger("streamseg")


def run(config: Config, *, give_up_unopened: bool, show_status: bool) -> Outcome:
    """Runs a pipeline until its files have ended or SIGINT or SIGTERM comes. Raises StreamsegError."""
    cv2.setNumThreads(1)  # OpenCV's own pool would fight the pipeline's threads for the cores
    pipeline = Pipeline(config, give_up_unopened=give_up_unopened)
    with _stopped_by_signals(pipeline):
        try:
            endpoint = pipeline.open()
            log.info("publishing on %s with %s on %s", endpoint, pipeline.engine.identity, pipeline.engine.backend)
            with _status(pipeline, show_status) as tick:
                return pipeline.run(tick)
        finally:
            pipeline.close()


def log_to_stderr(verbose: bool) -> None:
    """One line an event, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


@contextmanager
def _stopped_by_signals(pipeline: Pipeline) -> Iterator[None]:
    """The first SIGINT or SIGTERM stops cleanly; the second one kills, for whoever cannot wait."""

    # A handler runs between any two instructions of the main thread, which may hold the very lock that it would need:
    # it only notes the number (SimpleQueue.put is made for that), and a thread acts.
    came: SimpleQueue[int] = SimpleQueue()

    def stop() -> None:
        if number := came.get():
            log.info("stopping (%s)", signal.Signals(number).name)
            pipeline.stop()

    def note(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        came.put(number)

    stopper = threading.Thread(target=stop, name="streamseg-stop")
    stopper.start()
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        came.put(0)
        stopper.join()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status(pipeline: Pipeline, wanted: bool) -> Iterator[Any]:
    """On a terminal, a live table of the streams; `tick` redraws it."""
    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda: None
        return
    with Live(_table(pipeline), console=console, auto_refresh=False, transient=True) as live, _log_through(sys.stderr):
        yield lambda: live.update(_table(pipeline), refresh=True)


@contextmanager
def _log_through(stderr: TextIO) -> Iterator[None]:
    """The log's lines go above the live table, through the stream that it has put in the place of stderr."""
    streams = [handler for handler in log.handlers if isinstance(handler, logging.StreamHandler)]
    before = [handler.setStream(stderr) for handler in streams]
    try:
        yield
    finally:
        for handler, stream in zip(streams, before, strict=True):
            handler.setStream(stream or stderr)


def _table(pipeline: Pipeline) -> Table:
    table = Table("stream", "state", "fps", "published", "dropped", "progress", box=None, pad_edge=False)
    for name, metrics in pipeline.metrics.items():
        now = metrics.snapshot()
        dropped = ", ".join(f"{n} {reason}" for reason, n in now["dropped"].items()) or "0"
        share = min(1.0, now["frames"] / metrics.expected) if metrics.expected else None
        bar = "" if share is None else f"{'━' * round(20 * share):<20} {share:4.0%}"
        table.add_row(name, now["state"], f"{now['fps']:.1f}", str(now["published"]), dropped, bar)
    return table
