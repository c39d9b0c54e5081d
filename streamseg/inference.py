"""An engine at work in a pipeline: the inbox that it empties, its thread, and who gets the results. One a device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from streamseg.channel import Inbox
from streamseg.engine.engine import Engine
from streamseg.errors import FrameError, StageError
from streamseg.metrics import StreamMetrics
from streamseg.motion import MotionGate
from streamseg.publish import Publisher
from streamseg.types import Frame, Result

log = logging.getLogger("streamseg")


class Inference:
    """`start`, then `join` once its inbox is closed or its streams have finished; `crash` tells what ended it before.
    It knows every stream of the pipeline, and meets those that are put into its inbox."""

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        metrics: Mapping[str, StreamMetrics],
        gates: Mapping[str, MotionGate],
        max_wait_s: float,
        stopping: threading.Event,
    ) -> None:
        self.engine = engine
        self.inbox = Inbox(size_key=engine.batch_key)
        self.crash: StageError | None = None
        self.ended = threading.Event()
        self._publisher, self._metrics, self._gates = publisher, metrics, gates
        self._max_wait_s, self._stopping = max_wait_s, stopping
        self._thread: threading.Thread | None = None

    def start(self, hold: Callable[[], None], ended: Callable[[], None]) -> None:
        """`hold` returns when the first frame may go; `ended` is called at the end. Both in the thread."""
        name = "streamseg-inference" + (f"-{self.engine.device}" if self.engine.device.startswith("cuda") else "")
        self._thread = threading.Thread(target=self._run, args=(hold, ended), name=name)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self, hold: Callable[[], None], ended: Callable[[], None]) -> None:
        try:
            hold()
            while frames := self.inbox.take(self.engine.max_batch, self._max_wait_s):
                for result in self._results(frames):
                    self._publisher.publish(result)
                    self._metrics[result.frame.stream].publish(reused=result.reused)
        except StageError as error:
            self.crash = None if self._stopping.is_set() else error
        except BaseException as error:
            log.debug("inference", exc_info=True)
            self.crash = StageError("inference", error)
        finally:
            self.ended.set()
            ended()

    def _results(self, frames: list[Frame]) -> Iterator[Result]:
        """First of frames on which nothing moved, as they are ready; then of the others, from the engine."""
        moved: list[Frame] = []
        for frame in frames:
            again = self._gates[frame.stream].reuse(frame)
            if again is None:
                moved.append(frame)
            else:
                yield again
        for result in self._analysed(moved) if moved else ():
            self._gates[result.frame.stream].keep(result)
            yield result

    def _analysed(self, frames: list[Frame]) -> list[Result]:
        try:
            return self.engine.run(frames)
        except FrameError as error:
            if len(frames) > 1:  # one is bad, and the others of its batch are other cameras'
                return [result for frame in frames for result in self._analysed([frame])]
            log.debug("%s", error)
            self._metrics[frames[0].stream].drop("bad-frame")
            return []
