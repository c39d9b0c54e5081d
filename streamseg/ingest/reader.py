"""One stream's thread: opens its source, hands frames to the inbox, and comes back when a live source is lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from streamseg.channel import Inbox
from streamseg.config import StreamConfig
from streamseg.errors import SourceError
from streamseg.ingest.capture import AvCapture, Capture, Captured, StreetCapture
from streamseg.ingest.pace import Pacer
from streamseg.ingest.scene import News, SceneWatch
from streamseg.ingest.upright import Upright
from streamseg.metrics import StreamMetrics
from streamseg.types import U8, Frame, Picture, StreamState

log = logging.getLogger("streamseg")
Announce = Callable[[str, int, StreamState, str, str], None]
"""(stream, epoch, state, reason, detail): called at every change of a stream's state."""
BACKOFF_S = (0.5, 30.0)
"""How long a lost stream is left alone: at first, doubled at every attempt that fails, and at most."""


class StreamReader:
    """Owns the thread of one stream. `start`, then `stop` and `join`; `failed` tells how it ended."""

    def __init__(
        self,
        stream: StreamConfig,
        inbox: Inbox,
        metrics: StreamMetrics,
        announce: Announce,
        *,
        gpu: int | None = None,
        give_up_unopened: bool = False,
        backoff_s: tuple[float, float] = BACKOFF_S,
        scale_ahead: Callable[[Picture], None] | None = None,
    ) -> None:
        """`give_up_unopened`: fails where the very first opening fails. `gpu`: see `open_capture`.

        `scale_ahead` makes what the engine wants of a picture. Files, of which nothing is dropped, are scaled here,
        beside the inference thread; live frames only once they are taken."""
        self.stream = stream.name
        self.failed: SourceError | None = None
        self.crash: BaseException | None = None
        self._config, self._source, self._gpu = stream, stream.parsed, gpu
        self._give_up_unopened, self._backoff_s = give_up_unopened, backoff_s
        self._inbox, self._metrics, self._announce = inbox, metrics, announce
        self._scale_ahead = scale_ahead
        self._stop = threading.Event()
        self._epoch = 0
        self._state_key = 0
        self._opened = self._recorded = False
        # A daemon thread: a connection attempt cannot be interrupted, and must not hold the process up at its end.
        self._thread = threading.Thread(target=self._run, name=f"streamseg-ingest-{self.stream}", daemon=True)

    def start(self) -> None:
        self._epoch = time.time_ns() // 1_000_000
        self._inbox.register(self.stream)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """True when the thread has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._stay_connected()
        except BaseException as error:  # a fault of ours: the pipeline ends the process with this stage's name
            self.crash = error
        finally:
            self._inbox.finish(self.stream)

    def _stay_connected(self) -> None:
        first, longest = self._backoff_s
        pause = first
        self._change("connecting")
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                lost = self._read()
                if self._stop.is_set():
                    return None
                if not lost:
                    self._wait_for_last_frame()
                    return self._change("ended", "end-of-file")
                reason, detail = "lost", f"{self._source.shown}: the stream ended; the camera or server closed it"
            except SourceError as error:
                if self._stop.is_set():
                    return None
                reason, detail = error.reason, str(error)
                if not self._comes_back():
                    self.failed = error
                    self._wait_for_last_frame()
                    return self._change("failed", reason, detail)
            if time.monotonic() - began > 10:  # it had been running: start the backoff anew
                pause = first
            self._change("reconnecting", reason, detail)
            self._stop.wait(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, longest)
        return None

    def _wait_for_last_frame(self) -> None:
        """So that subscribers hear of the end after the last mask, not before."""
        while not self._stop.is_set() and not self._metrics.wait_idle(0.2):
            pass

    def _comes_back(self) -> bool:
        if self._source.kind in ("file", "synthetic") or self._recorded:
            return False  # from its start again, a recording would tell everything twice
        return self._opened or not self._give_up_unopened

    def _read(self) -> bool:
        """Reads until the source ends. Returns whether that is a loss, as of a camera; raises SourceError."""
        capture = open_capture(self._config, self._stop, self._gpu)
        try:
            live = capture.live or self._config.pace == "realtime"
            self._opened, self._recorded = True, not capture.live
            self._metrics.expected = capture.expected or None
            self._state_key += 1
            self._change("running", "connected", capture.details)
            gate, scene = RateGate(self._config.fps), SceneWatch()
            media_ns, size = -1, (0, 0)
            for captured in capture:
                number = self._metrics.entered()
                if captured.picture is None:
                    self._metrics.drop("corrupt")
                    continue
                before, size = size, (captured.picture.width, captured.picture.height)
                if before not in ((0, 0), size):
                    self._resized(size)
                media_ns = media_time(captured, capture, media_ns)
                if not gate.passes(media_ns):
                    self._metrics.drop("fps")
                    continue
                small = captured.picture.thumbnail()
                self._notice(scene.look(small, media_ns))
                self._hand_over(captured, number, media_ns, small, live=live)
                if self._stop.is_set():
                    break
            return capture.live and self._source.kind != "synthetic"
        finally:
            capture.close()

    def _resized(self, size: tuple[int, int]) -> None:
        self._state_key += 1
        self._announce(self.stream, self._epoch, "running", "size-changed", f"{size[0]}x{size[1]}")

    def _notice(self, news: News | None) -> None:
        """The camera looks elsewhere: what was learned of the picture is forgotten."""
        if news is not None:
            self._state_key += 1
            self._announce(self.stream, self._epoch, "running", news, "")

    def _hand_over(self, captured: Captured, number: int, media_ns: int, small: U8, *, live: bool) -> None:
        picture = captured.picture
        assert picture is not None
        skip = live if self._config.motion.skip == "auto" else self._config.motion.skip
        if not (live or skip) and self._scale_ahead is not None:
            self._scale_ahead(picture)
        frame = Frame(
            stream=self.stream,
            epoch=self._epoch,
            number=number,
            pts_ns=captured.pts_ns,
            captured_ns=captured.captured_ns,
            clock=captured.clock,
            decode_us=captured.decode_us,
            ready_ns=time.monotonic_ns(),
            media_ns=media_ns,
            state_key=self._state_key,
            picture=picture,
            thumbnail=small if skip else None,
        )
        refused = self._inbox.put(frame, live=live)
        if refused is not None:
            self._metrics.drop("shutdown" if refused is frame else "superseded")

    def _change(self, state: StreamState, reason: str = "", detail: str = "") -> None:
        """Announces a change of state; the same state again (attempt after attempt) is not news."""
        if state == self._metrics.state and state != "connecting":
            return
        self._metrics.state = state
        self._announce(self.stream, self._epoch, state, reason, detail)


def open_capture(stream: StreamConfig, stop: threading.Event, gpu: int | None = None) -> Capture:
    """Opens a stream's source; reading from it ends soon after `stop` is set. `gpu`: the one that decodes, as far as it
    can, and keeps the pictures (NVDEC). Raises SourceError."""
    source, paced = stream.parsed, stream.pace == "realtime"
    upright = Upright(None if stream.rotate == "auto" else stream.rotate)
    if source.street is not None:
        street = replace(source.street, pace="realtime") if paced else source.street
        return StreetCapture(street, stop.wait, upright)
    return AvCapture(
        source,
        transport=stream.transport,
        camera_clock=stream.clock == "rtcp",
        threads=stream.decode_threads,
        stall_s=stream.stall_s,
        stopping=stop.is_set,
        upright=upright,
        pacer=Pacer(stop.wait, stream.start_s) if paced else None,
        gpu=gpu,
    )


class RateGate:
    """Passes at most `fps` frames a second of media time, evenly; 0 passes all."""

    def __init__(self, fps: float) -> None:
        self._step_ns = int(1e9 / fps) if fps else 0
        self._due_ns: int | None = None

    def passes(self, media_ns: int) -> bool:
        if not self._step_ns:
            return True
        # A tenth of a step early is on time: 25 fps arrivals jitter around what a 12.5 fps limit asks for.
        if self._due_ns is not None and media_ns < self._due_ns - self._step_ns // 10:
            return False
        late = self._due_ns is None or media_ns > self._due_ns + self._step_ns
        self._due_ns = (media_ns if late or self._due_ns is None else self._due_ns) + self._step_ns
        return True


def media_time(captured: Captured, capture: Capture, previous_ns: int) -> int:
    """Arrival for live sources; PTS for files, or the nominal step where a PTS is missing or goes back."""
    if capture.live:
        return max(time.monotonic_ns(), previous_ns + 1)
    if captured.pts_ns is not None and captured.pts_ns > previous_ns:
        return captured.pts_ns
    return previous_ns + int(capture.frame_seconds * 1e9)
