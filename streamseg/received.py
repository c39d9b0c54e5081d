"""What a subscriber asks for, and what becomes of what arrives: messages, gaps, replays. No socket, no thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamseg import wire
from streamseg.errors import ConfigError, UnsupportedVersion, WireError
from streamseg.types import U8

_log = logging.getLogger("streamseg.subscribe")

Names = str | Iterable[str] | None


@dataclass(frozen=True)
class Message:
    """One message. `array` and `decode()` raise WireError where the payload is not what the header tells."""

    header: wire.Header
    topic: str
    payload: bytes = field(repr=False)
    lost: int = 0
    """Messages of this topic that never arrived between the one yielded before and this one (from `seq`)."""
    skipped: int = 0
    """Messages of this topic that arrived, but were passed over as this one is newer."""

    @cached_property
    def array(self) -> NDArray[np.bool_] | U8 | None:
        """A mask as bool [H, W], a label map as u8 [H, W] (255: no class), else None. Decoded on first use."""
        header = self.header
        if header.width is None or header.height is None or header.encoding is None:
            return None
        decode = wire.decode_mask if header.kind == "mask" else wire.decode_labels
        return decode(self.payload, header.width, header.height, header.encoding)

    def on_source(self) -> NDArray[np.bool_] | U8 | None:
        """`array` at the size of the source picture, to lay over it: stretched over the part that the map covers
        (`header.roi`) by nearest neighbour; False, or 255, elsewhere. Raises WireError."""
        array, roi, source = self.array, self.header.roi, self.header.source
        if array is None or roi is None or source is None:
            return None
        inside = roi.x + roi.width <= source.width and roi.y + roi.height <= source.height
        if not inside or max(source.width, source.height) > wire.MAX_SIDE:
            raise WireError(f"a map of {roi} of a picture of {source.width}x{source.height} cannot be laid over it")
        shape = source.height, source.width
        whole: Any = np.zeros(shape, np.bool_) if array.dtype == np.bool_ else np.full(shape, 255, np.uint8)
        rows, columns = (
            (np.arange(count) * 2 + 1) * length // (2 * count)
            for count, length in zip((roi.height, roi.width), array.shape, strict=True)
        )
        whole[roi.rows, roi.columns] = array[np.ix_(rows, columns)]
        return cast("NDArray[np.bool_] | U8", whole)

    @property
    def source_bbox(self) -> tuple[float, float, float, float] | None:
        """A mask's `bbox` in pixels of the source picture: x, y, width, height; None where it is empty."""
        header = self.header
        if header.bbox is None or header.roi is None or not header.width or not header.height:
            return None
        across, down = header.roi.width / header.width, header.roi.height / header.height
        x, y, width, height = header.bbox
        return header.roi.x + x * across, header.roi.y + y * down, width * across, height * down

    @property
    def age_s(self) -> float:
        """Seconds since the picture was captured, by this machine's clock."""
        return time.time() - self.header.captured_ns / 1e9

    def decode(self) -> U8:
        """The JPEG of a `frame` or `picture` as RGB u8 [H, W, 3]; needs cv2."""
        import cv2

        picture = cv2.imdecode(np.frombuffer(self.payload, np.uint8), cv2.IMREAD_COLOR_RGB) if self.payload else None
        if picture is None:
            raise WireError(f"the payload of {self.topic} is no picture")
        return np.asarray(picture, np.uint8)

    def __repr__(self) -> str:
        size = f"{self.header.width}x{self.header.height}, " if self.header.width else ""
        return f"Message({self.topic!r}, frame={self.header.frame}, seq={self.header.seq}, {size}lost={self.lost})"


class Selection:
    """Kinds, streams and classes as prefixes for the socket, and as a test of what came."""

    def __init__(self, kind: str | Iterable[str], streams: Names, classes: Names) -> None:
        self.kinds = _names("kind", () if kind is None else kind) or ()
        self._streams = _names("streams", streams)
        self._classes = _names("classes", classes)
        for each in self.kinds:
            if each not in wire.KINDS:
                raise ConfigError(f"kind is {each!r}; expected one of {', '.join(wire.KINDS)}")
        for name in (*(self._streams or ()), *(self._classes or ())):
            if not wire.valid_name(name):
                raise ConfigError(f"{name[:80]!r} is no stream or class: 1 to 64 of A-Z a-z 0-9 _ . -")
        if self._classes is not None and "mask" not in self.kinds:
            raise ConfigError(f"classes selects masks, and kind is {', '.join(self.kinds)}: leave one of them out")

    def prefixes(self) -> list[str]:
        return [prefix for kind in self.kinds for prefix in self._of(kind)]

    def __str__(self) -> str:
        """As it is told: the prefixes, and of masks also the streams that no prefix can name."""
        masks = [f"mask/*/{stream}/" for stream in self._streams or ()] or ["mask/"]
        return ", ".join(name for prefix in self.prefixes() for name in (masks if prefix == "mask/" else [prefix]))

    def _of(self, kind: str) -> list[str]:
        if kind == "heartbeat":
            return [wire.HEARTBEAT]
        heads = [f"{kind}/"] if kind != "mask" or self._classes is None else [f"mask/{each}/" for each in self._classes]
        if self._streams is None or (kind == "mask" and self._classes is None):
            return heads  # in mask/<class>/<stream>/ the stream alone is no prefix: `takes` looks at it
        return [f"{head}{stream}/" for head in heads for stream in self._streams]

    def takes(self, topic: wire.Topic) -> bool:
        return topic.kind in self.kinds and (
            topic.stream is None or self._streams is None or topic.stream in self._streams
        )


def _names(what: str, given: Names) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{what} is {given!r}; expected a name or a list of names")
    return names


@dataclass(slots=True)
class _Progress:
    """How far one topic has come: the last number seen, and what is owed to the next message that is yielded."""

    epoch: int
    seq: int
    lost: int = 0
    skipped: int = 0


class _Tracker:
    """Turns what comes off the socket into messages: checks, drops replays already known, counts gaps."""

    def __init__(self, selection: Selection, endpoint: str) -> None:
        self._selection = selection
        self._endpoint = endpoint
        self._progress: dict[str, _Progress] = {}
        self._warned: set[str] = set()
        self._alive_at: float | None = None
        self._states: dict[str, str] = {}

    def accept(self, parts: Sequence[bytes]) -> Message | None:
        """What it owes to its topic is told by `counted`. None: nothing for the caller."""
        try:
            if len(parts) != 3:
                raise WireError(f"message of {len(parts)} parts, not 3")
            topic = wire.parse_topic(parts[0])
            header = wire.parse_header(parts[1])
            if (header.kind, header.stream) != (topic.kind, topic.stream):
                raise WireError(f"header of {header.kind}/{header.stream} under the topic {topic}")
        except WireError as error:
            self._warn(error)
            return None
        if header.kind == "heartbeat" and header.streams is not None:
            self._alive_at = time.monotonic()
            self._states = {str(name): str(dict(each).get("state")) for name, each in header.streams.items()}
        if not self._selection.takes(topic) or not self._advance(str(topic), header):
            return None
        return Message(header, str(topic), parts[2])

    def _advance(self, topic: str, header: wire.Header) -> bool:
        progress = self._progress.get(topic)
        if progress is None or progress.epoch != header.epoch:
            self._progress[topic] = _Progress(header.epoch, header.seq)
            return True
        if header.replay and header.seq <= progress.seq:
            return False
        progress.lost += max(0, header.seq - progress.seq - 1)
        progress.seq = header.seq
        return True

    def passed_over(self, topic: str) -> None:
        self._progress[topic].skipped += 1

    def counted(self, message: Message) -> Message:
        """For the caller, with what its topic has lost and skipped since the message before."""
        progress = self._progress[message.topic]
        lost, skipped = progress.lost, progress.skipped
        progress.lost = progress.skipped = 0
        return replace(message, lost=lost, skipped=skipped)

    def silence(self, timeout: float) -> TimeoutError:
        """What to tell a caller whose patience is over."""
        if self._alive_at is None or time.monotonic() - self._alive_at > 3:
            since = "" if self._alive_at is None else f" since {time.monotonic() - self._alive_at:.0f} s"
            return TimeoutError(
                f"nothing from {self._endpoint} for {timeout:g} s, and no heartbeat{since}: is it running? "
                "(Where it has publish.curve: are the keys right?)"
            )
        states = ", ".join(f"{name} {state}" for name, state in self._states.items())
        return TimeoutError(
            f"{self._endpoint} is alive, but sent nothing on {self._selection} for {timeout:g} s: {states}"
        )

    def _warn(self, error: WireError) -> None:
        what = "version" if isinstance(error, UnsupportedVersion) else str(error)
        if what not in self._warned and len(self._warned) < 20:
            self._warned.add(what)
            _log.warning("%s: skipped: %s", self._endpoint, error)


class Reader:
    """What waits to be yielded, and how to get more of it; the waiting itself is the subscription's."""

    def __init__(self, endpoint: str, selection: Selection, every: bool, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ConfigError(f"timeout is {timeout!r}; expected seconds from 0 on, or None to wait without end")
        self.every = every
        self.timeout = timeout
        self._tracker = _Tracker(selection, endpoint)
        self._held: dict[str, Message] = {}
        prefixes = selection.prefixes()
        if timeout is not None and wire.HEARTBEAT not in prefixes:
            prefixes.append(wire.HEARTBEAT)  # tells a daemon that is down from a stream that is quiet
        self.prefixes = prefixes

    def add(self, parts: Sequence[bytes]) -> bool:
        """Take one message in. True: this one, and what is held, should be yielded before more is read."""
        accepted = self._tracker.accept(parts)
        if accepted is None:
            return False
        if accepted.topic in self._held:  # never with `every`
            self._tracker.passed_over(accepted.topic)
        self._held[accepted.topic] = accepted  # keeps its place in the line: no topic starves another
        return self.every

    def next(self) -> Message | None:
        for topic in self._held:
            return self._tracker.counted(self._held.pop(topic))
        return None

    def patience(self) -> Patience:
        return Patience(self.timeout)

    def left_ms(self, patience: Patience) -> int:
        """How long to wait for the socket: up to a second, so that Ctrl-C is seen. Raises TimeoutError."""
        wait_ms = patience.next_ms()
        if wait_ms is None:
            raise self._tracker.silence(self.timeout or 0.0)
        return wait_ms


class Patience:
    """How much silence is left until a timeout. A wait never counts for much more than it was asked to last: while
    this very process is stopped (SIGSTOP, a suspended laptop), nobody else is silent."""

    _SLACK_S = 0.1

    def __init__(self, seconds: float | None) -> None:
        """None: without end."""
        self._left_s = seconds
        self._asked_s = 0.0
        self._since = time.monotonic()

    def next_ms(self) -> int | None:
        """How long to wait now, at most a second; None when patience is at its end."""
        if self._left_s is None:
            return 1000
        now = time.monotonic()
        self._left_s -= min(now - self._since, self._asked_s + self._SLACK_S)
        if self._left_s <= 0:
            return None
        self._since, self._asked_s = now, min(1.0, self._left_s)
        return int(self._asked_s * 1000) + 1
