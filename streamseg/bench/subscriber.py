"""Starts the benchmark's subscriber (`sink`) as a process of its own and reads its report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TOPICS = ("frame/", "labels/")


class Sink:
    """The subscriber's process: started, waited for, and asked for its report."""

    def __init__(self, endpoint: str, topics: tuple[str, ...] = TOPICS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamseg.bench.sink", endpoint, *topics],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def report(self) -> dict[str, Any]:
        """Ends the sink once it has read everything, and returns its messages."""
        out, _ = self._process.communicate()
        report: dict[str, Any] = json.loads(out)
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def sink(endpoint: str, topics: tuple[str, ...] = TOPICS) -> Iterator[Sink]:
    process = Sink(endpoint, topics)
    try:
        yield process
    finally:
        process.kill()
