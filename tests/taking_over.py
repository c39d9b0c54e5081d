"""A backend that is made to need preparing, so that a test says when it takes over from another one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import onnx
import pytest
from publishing import eventually

from streamseg.engine import backends
from streamseg.engine.backends import BACKENDS, CompileOptions, Rung
from streamseg.engine.engine import Engine
from streamseg.errors import EngineError

WITHIN_SECONDS = 10.0


@dataclass
class Held:
    """A preparation that lasts until the test lets it go; it ends early when it is told to stop."""

    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    fault: str = ""
    prepared: list[tuple[int, int]] = field(default_factory=list)
    stopped: bool = False

    def ready(self, model: onnx.ModelProto, options: CompileOptions) -> bool:
        return False

    def prepare(self, model: onnx.ModelProto, options: CompileOptions, stop: threading.Event) -> None:
        self.begun.set()
        while not self.go.wait(0.01):
            if stop.is_set():
                self.stopped = True
                raise EngineError("stopped")
        if self.fault:
            raise EngineError(self.fault)
        self.prepared.append((options.width, options.height))


def rung(name: str, slow: Held | None = None) -> Rung:
    return Rung(name, BACKENDS[name][1], slow)


def climb(monkeypatch: pytest.MonkeyPatch, *rungs: Rung) -> None:
    monkeypatch.setattr(backends, "ladder", lambda *_: list(rungs))
    monkeypatch.setattr("streamseg.engine.engine.ladder", backends.ladder)


def taken_over(engine: Engine, held: Held, count: int = 1) -> None:
    """Returns when so many successors wait for the next frame."""
    held.go.set()
    eventually(lambda: len(engine._succession._arrived) >= count, "the successor never arrived", WITHIN_SECONDS)
