"""Which backend serves: the best that is ready, at once. Better ones are prepared in a thread of their own, and handed
over when somebody asks for what has arrived, between two frames. A `Succession` belongs to the inference thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from streamseg.engine.backends import CompileOptions, Program, Rung
from streamseg.errors import BackendUnavailable, EngineError

log = logging.getLogger("streamseg")
STOP_SECONDS = 10.0
"""How long a close waits for a build to notice it; TensorRT asks between its steps, of seconds."""


@dataclass(frozen=True, slots=True)
class Successor:
    """A program that is better than the one that serves pictures of its size."""

    size: tuple[int, int]
    backend: str
    program: Program


@dataclass(frozen=True, slots=True)
class _Order:
    model: onnx.ModelProto = field(repr=False)
    options: CompileOptions
    rungs: tuple[Rung, ...]
    """The best first; the first that can be prepared ends the order."""


class Succession:
    """`rungs`: the backends that may serve, the best first; the last one must."""

    def __init__(self, rungs: Sequence[Rung]) -> None:
        self._rungs = tuple(rungs)
        self._improving = False
        self._orders: deque[_Order] = deque()
        self._arrived: deque[Successor] = deque()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def improve(self) -> None:
        """From now on, what serves while it is not the best gets a successor."""
        self._improving = True
        self._go()

    def first(self, model: onnx.ModelProto, options: CompileOptions) -> tuple[str, Program]:
        """(backend, program) of the best that is ready. Raises EngineError where even the last one cannot serve."""
        later: list[Rung] = []
        for rung in self._rungs[:-1]:
            try:
                if rung.slow is not None and not rung.slow.ready(model, options):
                    later.append(rung)
                    continue
                program = rung.compile(model, options)
            except EngineError as error:
                log.warning("%s does not serve: %s", rung.name, error)
                if isinstance(error, BackendUnavailable):  # nor will it for another size
                    self._rungs = tuple(each for each in self._rungs if each is not rung)
                continue
            return self._ordered(rung.name, program, later, model, options)
        last = self._rungs[-1]
        return self._ordered(last.name, last.compile(model, options), later, model, options)

    def arrived(self) -> list[Successor]:
        """What was prepared since the last time; each is given once."""
        found = []
        while self._arrived:
            found.append(self._arrived.popleft())
        return found

    def close(self) -> None:
        """Ends what is being prepared."""
        self._stop.set()
        if (thread := self._thread) is not None:
            thread.join(STOP_SECONDS)

    def _ordered(
        self, name: str, program: Program, later: list[Rung], model: onnx.ModelProto, options: CompileOptions
    ) -> tuple[str, Program]:
        if later:
            self._orders.append(_Order(model, options, tuple(later)))
            self._go()
        return name, program

    def _go(self) -> None:
        with self._lock:
            if self._improving and self._orders and self._thread is None and not self._stop.is_set():
                # daemon: a build that does not notice its end must not hold up the process's
                self._thread = threading.Thread(target=self._work, name="streamseg-build", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._orders or self._stop.is_set():
                    self._thread = None
                    return
                order = self._orders.popleft()
            for rung in order.rungs:
                if self._prepared(rung, order):
                    break

    def _prepared(self, rung: Rung, order: _Order) -> bool:
        size = order.options.width, order.options.height
        try:
            if rung.slow is not None:
                rung.slow.prepare(order.model, order.options, self._stop)
            self._arrived.append(Successor(size, rung.name, rung.compile(order.model, order.options)))
        except Exception as error:  # whatever it is: something else serves, and goes on
            if not self._stop.is_set():
                log.warning("%s was not prepared for %dx%d, what serves goes on: %s", rung.name, *size, error)
                log.debug("preparing %s", rung.name, exc_info=True)
            return False
        return True
