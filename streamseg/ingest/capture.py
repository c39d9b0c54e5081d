"""An opened source that yields decoded pictures; PyAV lives here and nowhere else. Used by one ingest thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import av
import av.container
import av.error

from streamseg.errors import SourceCorrupt, SourceNoVideo, SourceTimeout
from streamseg.ingest.clock import CameraClock
from streamseg.ingest.faults import translated
from streamseg.ingest.nvdec import accelerator, on_gpu, picture_on_gpu, unusable
from streamseg.ingest.pace import Pacer
from streamseg.ingest.picture import AvPicture, Scaler
from streamseg.ingest.upright import Upright
from streamseg.motion import wide_enough
from streamseg.source import Source
from streamseg.synthetic import Street, StreetSpec
from streamseg.types import Clock, Picture

log = logging.getLogger("streamseg")
FILE: Clock = "file"
OPEN_TIMEOUT_S = 5.0
# So often a silent stream's thread looks at its stop flag. No shorter: FFmpeg forgets the part of a packet that it has
# read when it is interrupted, and a link that hangs within one (as TCP does when it sends again) would be lost.
READ_TIMEOUT_S = 2.5


@dataclass(frozen=True, slots=True)
class Captured:
    """A decoded picture, or None for one that was damaged. Times: `pts_ns` as the stream says, `captured_ns` UTC by
    `clock` (at the arrival of its packet, or the camera's own), `decode_us` spent on it."""

    picture: Picture | None = field(repr=False)
    pts_ns: int | None
    captured_ns: int
    decode_us: int
    clock: Clock


class Capture(Protocol):
    live: bool
    """Live sources lose what is not read in time; others wait."""
    details: str
    """For the log: size, codec, rate."""
    frame_seconds: float
    """The nominal time between frames."""
    expected: int
    """How many frames there are in all; 0 where that is not known."""

    def __iter__(self) -> Iterator[Captured]: ...
    def close(self) -> None: ...


class AvCapture:
    """A file, RTSP, HTTP or V4L2 source. The constructor opens it and raises SourceError."""

    def __init__(
        self,
        source: Source,
        *,
        transport: str,
        camera_clock: bool,
        threads: int,
        stall_s: float,
        stopping: Callable[[], bool],
        upright: Upright,
        pacer: Pacer | None,
        gpu: int | None,
    ) -> None:
        """`pacer` gives a recording the times, and the decoder, of a camera. `gpu`: the one that decodes, as far as it
        knows the codec; its pictures stay there."""
        self._source, self._stall_s, self._stopping, self._pacer = source, stall_s, stopping, pacer
        self._upright, self._gpu = upright, gpu
        self._camera_clock = camera_clock
        begin = time.monotonic()
        with translated(source, lambda: time.monotonic() - begin >= OPEN_TIMEOUT_S * 0.95):
            self._container = self._open(transport)
        try:
            self._prepare(threads)
        except BaseException:
            self._container.close()
            raise

    def _open(self, transport: str) -> av.container.InputContainer:
        source = self._source
        how: dict[str, Any] = {
            "format": "v4l2" if source.kind == "v4l2" else None,
            "options": _options(source, transport),
            "timeout": None if source.kind == "file" else (OPEN_TIMEOUT_S, _read_timeout(source, self._stall_s)),
            "metadata_errors": "replace",  # titles and names are of any character set
        }
        if self._gpu is not None:
            try:
                return av.open(source.location, hwaccel=accelerator(self._gpu), **how)
            except av.error.FFmpegError as error:  # of the GPU, or of the source, which the second attempt shows
                if not unusable(error):
                    raise
                log.warning("%s: GPU %d does not decode (%s); the CPU does", source.shown, self._gpu, error)
                self._gpu = None
        return av.open(source.location, **how)

    def _prepare(self, threads: int) -> None:
        streams = self._container.streams.video
        if not streams or self._container.format.name == "tty":  # FFmpeg "plays" text files named .txt
            what = "audio only" if self._container.streams.audio and not streams else "no video in it"
            raise SourceNoVideo(f"{self._source.shown}: {what}; choose a source with a video stream")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise SourceCorrupt(f"{self._source.shown}: the codec of its video is not known to FFmpeg")
        recorded = self._container.duration is not None and self._container.duration > 0
        self.live = not (self._source.kind == "file" or (self._source.kind == "http" and recorded))
        # Frame threads hide a slow decoder behind a fast machine but hold frames back: for recordings only.
        at_once = self.live or self._pacer is not None or self._gpu is not None
        self._stream.thread_type = "SLICE" if at_once else "FRAME"
        self._stream.codec_context.thread_count = threads or (1 if at_once else 2)
        rate = self._stream.average_rate or self._stream.base_rate
        self.frame_seconds = float(1 / rate) if rate else 0.04
        codec = self._stream.codec_context
        size = f"{codec.width}x{codec.height} " if codec.width else ""
        self.details = f"{size}{codec.name} {float(rate):g} fps" if rate else f"{size}{codec.name}"
        self._for_rgb, self._for_planes = Scaler(), Scaler()
        self._clock = CameraClock()
        self.expected = 0 if self.live else self._stream.frames
        self._reached = 0  # end of the latest packet, in the stream's time base
        self._due_ns = 0  # of a packet of a recording, where its container tells no time

    def __iter__(self) -> Iterator[Captured]:
        coded = seen = good = 0
        for packet, arrived_ns in self._packets():
            coded += packet is not None and packet.size > 0 and not packet.is_discard
            begin = time.perf_counter_ns()
            try:
                frames = self._stream.decode(packet)
            except av.error.FFmpegError:
                seen += 1
                yield Captured(None, None, arrived_ns, 0, "host")
                continue
            spent_us = (time.perf_counter_ns() - begin) // 1000
            for frame in frames:
                seen, good = seen + 1, good + 1
                yield self._captured(frame, arrived_ns, spent_us)
                spent_us = 0
        if self._stopping():
            return
        if self.expected:  # pictures that a decoder leaves out after damage, without a word
            yield from (Captured(None, None, time.time_ns(), 0, "file") for _ in range(coded - seen))
        if good == 0:
            raise SourceCorrupt(f"{self._source.shown}: not one picture could be decoded; it is damaged or cut short")
        if coded < self.expected * 0.99 and self._ends_early():
            raise SourceCorrupt(f"{self._source.shown}: cut short: {coded} of {self.expected} frames are there")

    def _ends_early(self) -> bool:
        """Whether packets stopped coming before the duration that the file tells. One that was trimmed without being
        encoded again names frames too that it does not show, but its duration is right."""
        if self._stream.duration is None:
            return True
        return bool(self._reached < (self._stream.start_time or 0) + self._stream.duration * 0.97)

    def _captured(self, frame: av.VideoFrame, arrived_ns: int, decode_us: int) -> Captured:
        pts_ns = None
        if frame.pts is not None and frame.time_base:
            pts_ns = int(frame.pts * 1_000_000_000 * frame.time_base.numerator // frame.time_base.denominator)
        picture = None if frame.is_corrupt else self._picture(frame)
        captured_ns, clock = self._clock.captured(frame.pts, arrived_ns) if self.live else (arrived_ns, FILE)
        return Captured(picture, pts_ns, captured_ns, decode_us, clock)

    def _picture(self, frame: av.VideoFrame) -> Picture | None:
        """None where nothing can be made of it."""
        if self._gpu is not None and not on_gpu(frame):
            self._gpu = None  # FFmpeg has chosen, for all of the stream
            log.info("%s: the GPU does not decode %s; the CPU does", self._source.shown, self.details)
        try:
            frame = self._upright(frame)
        except av.error.FFmpegError:
            return None
        if not wide_enough(frame.width, frame.height):  # damage may tell any size
            return None
        make = picture_on_gpu if on_gpu(frame) else AvPicture
        return make(frame, self._for_rgb, self._for_planes)

    def _packets(self) -> Iterator[tuple[av.Packet | None, int]]:
        """Packets with their UTC arrival time; the last one, empty or None, has the decoder give what it holds back.
        A read that times out is tried again until the stall limit."""
        self._heard = time.monotonic()
        while not self._stopping():
            try:
                yield from self._demuxed()
                return
            except IndexError:  # PyAV 18.1, at the end, of streams that have come up since the opening
                return
            except (av.error.ExitError, av.error.TimeoutError, av.error.BlockingIOError) as error:
                silent = max(time.monotonic() - self._heard, _read_timeout(self._source, self._stall_s))
                if silent >= self._stall_s:
                    raise SourceTimeout(f"{self._source.shown}: no data for {silent:.0f} s") from error
            except av.error.FFmpegError as error:
                if isinstance(error, av.error.InvalidDataError) and not self.live:
                    yield None, time.time_ns()
                    return  # the cut end of a file; __iter__ says how much was missing
                with translated(self._source, lambda: False):
                    raise

    def _demuxed(self) -> Iterator[tuple[av.Packet, int]]:
        for packet in self._container.demux():  # all, as sound may go on where pictures have stopped
            if packet.stream.index == self._stream.index:
                self._heard = time.monotonic()
                if packet.pts is not None:
                    self._reached = max(self._reached, packet.pts + (packet.duration or 0))
                if self._camera_clock:
                    self._clock.note(packet)
                arrived_ns = self._arrival(packet)
                if arrived_ns is None:
                    return
                yield packet, arrived_ns
            elif self.live and time.monotonic() - self._heard >= self._stall_s:
                raise SourceTimeout(f"{self._source.shown}: no picture for {self._stall_s:.0f} s")
            if self._stopping():
                return

    def _arrival(self, packet: av.Packet) -> int | None:
        """UTC ns. Paced, waits until the packet is due; None when the stream should stop."""
        if self._pacer is None or self.live or not packet.size:
            return time.time_ns()
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            self._due_ns += int(self.frame_seconds * 1e9)
        else:
            self._due_ns = int(stamp * packet.time_base * 1_000_000_000)
        return self._pacer.arrival(self._due_ns)

    def close(self) -> None:
        self._container.close()


def _read_timeout(source: Source, stall_s: float) -> float:
    # RTSP goes on after a read that timed out; HTTP takes it for the end of the file.
    return stall_s if source.kind == "http" else min(stall_s, READ_TIMEOUT_S)


def _options(source: Source, transport: str) -> dict[str, str]:
    if source.kind == "rtsp":
        # Without these FFmpeg probes for 1.1 s and delivers 29 stale frames at once; with them it opens in 0.05 s.
        return {"rtsp_transport": transport, "probesize": "32", "analyzeduration": "0"}
    return {}


class StreetCapture:
    """The synthetic street as a camera would deliver it: YUV 4:2:0, at its own pace or as fast as it is read."""

    def __init__(self, spec: StreetSpec, wait: Callable[[float], bool], upright: Upright) -> None:
        """`wait(seconds)` sleeps and returns True when the stream should stop."""
        self._spec, self._wait, self._upright = spec, wait, upright
        self._street = Street(spec.seed, spec.width, spec.height, spec.fps)
        self._for_rgb, self._for_planes = Scaler(), Scaler()
        self.live = spec.pace == "realtime"
        self.frame_seconds = 1 / spec.fps
        self.expected = spec.frames or 0
        self.details = f"{spec.width}x{spec.height} synthetic {spec.fps:g} fps"

    def __iter__(self) -> Iterator[Captured]:
        self._street.picture(0)  # draws what stands still, which takes a second or two: before the clock starts
        begin = time.monotonic()
        index = 0
        while self._spec.frames is None or index < self._spec.frames:
            if self.live:
                if self._wait(max(0.0, begin + index / self._spec.fps - time.monotonic())):
                    return
                # A renderer that is too slow for the rate skips pictures, as a real camera would not wait either.
                index = max(index, int((time.monotonic() - begin) * self._spec.fps))
            elif self._wait(0):
                return
            arrived_ns, started = time.time_ns(), time.perf_counter_ns()
            frame = av.VideoFrame.from_ndarray(self._street.picture(index), "rgb24").reformat(format="yuv420p")
            decode_us = (time.perf_counter_ns() - started) // 1000
            picture = AvPicture(self._upright(frame), self._for_rgb, self._for_planes)
            yield Captured(
                picture, round(index * 1e9 / self._spec.fps), arrived_ns, decode_us, "host" if self.live else FILE
            )
            index += 1

    def close(self) -> None:
        pass
