"""One run of the real pipeline with a subscriber in another process: rate, latency, drops, cost. Main thread.

`alone` has it run in a process of its own, as a daemon does: `python -m streamseg.bench.trial`, told by stdin.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

import cv2

from streamseg.bench.load import Load, Reading, between, reading
from streamseg.bench.percentiles import percentiles
from streamseg.bench.sink import TOPICS, Message, sink, taken
from streamseg.config import Config, validated
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError, EngineError, StreamsegError
from streamseg.ingest.frames import stream_frames
from streamseg.pipeline import Outcome, Pipeline
from streamseg.types import Frame

START_S = 60.0
"""Until every stream has given its first frame."""
WANTED = {"fps", "shutdown"}
"""Reasons for dropping that are no fault: the analysis rate that was asked for, and the end of the run."""
Subscribers = Sequence[Sequence[str]]
"""The topics that each process subscribes to."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen in the measured window. `frames` are those whose messages came; `lost` messages were published and
    did not; latency is from a packet's arrival to the message at the subscriber."""

    engine: dict[str, Any]
    seconds: float
    frames: int
    fps: float
    latency_ms: dict[str, float]
    worst_p95_ms: float
    """Of the camera whose own p95 is highest."""
    lost: int
    load: Load

    @property
    def dropped(self) -> dict[str, int]:
        """By reason, without what was wanted."""
        return {reason: count for reason, count in self.load.dropped.items() if reason not in WANTED}


def run(
    config: Config, seconds: float | None, *, warm_up_s: float = 1.0, subscribers: Subscribers = (TOPICS,)
) -> Trial:
    """`seconds` None: to the end of the files. Otherwise that long, once every stream runs and `warm_up_s` has passed:
    until then decoders start, and every buffer is touched for the first time. Raises StreamsegError."""
    pipeline = Pipeline(config, give_up_unopened=True)
    size = input_size(config, pipeline.engine)
    for each in pipeline.engines:
        each.program(size)  # nothing is compiled while the clock runs
        each.close()  # one backend from begin to end: no better one is built meanwhile
    window = _Window(pipeline, seconds, warm_up_s)
    with ExitStack() as stack:
        stack.callback(pipeline.close)
        endpoint = pipeline.open()
        sinks = [stack.enter_context(sink(endpoint, topics)) for topics in subscribers]
        pipeline.publisher.wait_for_subscriber(10)
        window.begin()
        try:
            outcome = pipeline.run()
        finally:
            window.end()
            pipeline.close()
        messages = [message for each in sinks for message in taken(each)]
    if outcome.failed:
        raise next(iter(outcome.failed.values()))
    engine = pipeline.engine
    told = {"name": engine.identity, "backend": engine.backend, "precision": engine.precision, "size": list(size)}
    told |= {"where": pipeline.placement.told}
    kinds = {topic.partition("/")[0] for topics in subscribers for topic in topics}
    return _seen(messages, kinds, window, outcome, told)


def alone(config: Config, seconds: float, *, warm_up_s: float, subscribers: Subscribers = (TOPICS,)) -> Trial:
    """`run` in a fresh process, whose memory is that of this run alone. Raises EngineError, ConfigError."""
    order = {"seconds": seconds, "warm_up_s": warm_up_s, "subscribers": [list(topics) for topics in subscribers]}
    order |= {"config": config.model_dump(mode="json")}
    command = [sys.executable, "-m", "streamseg.bench.trial"]
    done = subprocess.run(command, input=json.dumps(order), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise EngineError(f"the pipeline's process ended with {done.returncode}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise (ConfigError if answer["exit_code"] == 2 else EngineError)(answer["error"])
    return Trial(**answer | {"load": Load(**answer["load"])})


def shown(engine: dict[str, Any]) -> str:
    """`Trial.engine` for people."""
    size = "x".join(map(str, engine["size"]))
    return f"{engine['name']} on {engine['backend']}, {engine['precision']}, {size}; {engine['where']}"


def input_size(config: Config, engine: Engine) -> tuple[int, int]:
    """What the first source is analysed at."""
    stream = config.streams[0]
    frames: Generator[Frame] = stream_frames(stream.model_copy(update={"pace": "max"}))
    with closing(frames):
        frame = next(frames)
    return engine.plan(stream.name, frame.picture).tile


def _seen(messages: list[Message], kinds: set[str], window: _Window, outcome: Outcome, engine: dict[str, Any]) -> Trial:
    load = window.load()
    within = [m for m in messages if window.begins_ns <= m[4] <= window.ends_ns]
    arrived: dict[str, list[int]] = {kind: [] for kind in kinds}
    latency: dict[str, list[float]] = {}
    for kind, stream, _, _, at, latency_ns, _ in within:
        arrived[kind].append(at)
        latency.setdefault(stream, []).append(latency_ns / 1e6)
    frames = min(len(each) for each in arrived.values())
    if frames < 2:
        raise EngineError("the run was too short to measure; give it more frames or seconds")
    first = next(iter(arrived.values()))
    rate = (len(first) - 1) / ((max(first) - min(first)) / 1e9)
    lost = outcome.published * len(arrived) - len(within) if window.whole else _jumps(within)
    return Trial(
        engine=engine,
        seconds=round(load.seconds, 1),
        frames=frames,
        fps=round(rate, 1),
        latency_ms=percentiles([ms for each in latency.values() for ms in each]),
        worst_p95_ms=max(percentiles(each)["p95"] for each in latency.values()),
        lost=lost,
        load=load,
    )


def _jumps(messages: list[Message]) -> int:
    """Sequence numbers that are missing between others, over all topics."""
    topics: dict[tuple[str, str], list[int]] = {}
    for kind, stream, _, seq, *_ in messages:
        topics.setdefault((kind, stream), []).append(seq)
    return sum(max(seqs) - min(seqs) + 1 - len(set(seqs)) for seqs in topics.values())


class _Window:
    """Takes a reading at the begin and one at the end of what is measured: in a thread, where that is only a part."""

    def __init__(self, pipeline: Pipeline, seconds: float | None, warm_up_s: float) -> None:
        self._pipeline, self._seconds, self._warm_up_s = pipeline, seconds, warm_up_s
        self.whole = seconds is None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._time, args=(seconds or 0.0,), name="streamseg-bench-window")
        self._readings: list[Reading] = []

    def begin(self) -> None:
        if self._seconds is None:
            self._read()
        else:
            self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._seconds is None:
            self._read()
        else:
            self._thread.join()

    def load(self) -> Load:
        if len(self._readings) < 2:
            raise EngineError("the run was too short to measure; give it more frames, or fewer seconds")
        return between(*self._readings)

    @property
    def begins_ns(self) -> int:
        return self._readings[0].at_ns

    @property
    def ends_ns(self) -> int:
        """Of a whole run, when everything had been taken by the subscriber, which is after the last reading."""
        return time.time_ns() if self.whole else self._readings[1].at_ns

    def _read(self) -> None:
        self._readings.append(reading(self._pipeline.metrics))

    def _time(self, seconds: float) -> None:
        deadline = time.monotonic() + START_S
        while not all(m.frames for m in self._pipeline.metrics.values()) and time.monotonic() < deadline:
            if self._over.wait(0.05):
                return
        if self._over.wait(self._warm_up_s):
            return
        self._read()
        self._over.wait(seconds)  # or until the files have ended
        self._read()
        self._pipeline.stop()


def _main() -> None:
    cv2.setNumThreads(1)  # as in the daemon
    order = json.load(sys.stdin)
    try:
        trial = run(
            validated(order["config"]), order["seconds"], warm_up_s=order["warm_up_s"], subscribers=order["subscribers"]
        )
    except StreamsegError as error:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    else:
        print(json.dumps(asdict(trial)))


if __name__ == "__main__":
    try:
        _main()
    except KeyboardInterrupt:  # whoever started it has been told as well
        sys.exit(130)
