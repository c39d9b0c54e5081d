"""The wire, version 1: topics, headers, payloads. Pure functions for any thread; needs numpy and nothing else.

Every message has exactly three parts: **topic** (UTF-8), **header** (one JSON object), **payload** (bytes).

Topics end in a slash, so that a prefix never matches a longer name; names match ``[A-Za-z0-9_.-]{1,64}``::

    mask/<class>/<stream>/   one class's binary mask         labels/<stream>/    the label map, a class id a pixel
    frame/<stream>/          the annotated picture, JPEG     picture/<stream>/   the plain picture, JPEG
    event/<stream>/          empty; a change of state        heartbeat/          empty; start, every second, end

Header fields of **every** message (null where the kind has none, as told):

=============  ======================================================================================================
v              "1.0". Another major: report and skip. Another minor: ignore what is unknown.
kind           mask, labels, frame, picture, event or heartbeat: the topic's first word
stream         the stream's id; null in a heartbeat
epoch          UTC milliseconds at the (re)start of the counters: `frame` and `seq` count from 0 within it.
               In a heartbeat, and in the one event of a stream that never began: the publisher's own start.
frame          number of the decoded frame, one for all messages of a frame; null in event and heartbeat
seq            per topic, +1 a message, within `epoch`: a jump is a loss. A topic nobody subscribes to does not count.
pts_ns         the source's own timestamp, information only; or null
captured_ns    UTC ns of the picture's arrival (or the camera's clock, see `clock`); of the event or heartbeat itself
published_ns   UTC ns of the hand-over to the socket
clock          whose time `captured_ns` is: host, rtcp (the camera's) or file (the picture itself is old)
latency_us     {decode, wait, infer, encode}, microseconds, `encode` being this message's own; null: event, heartbeat
source         {width, height} of the source picture; null in event and heartbeat
replay         true: a last value re-sent for a late joiner. XPUB cannot address one subscriber, so that all who match
               get it: drop a replay whose (epoch, seq) is not newer than what you have.
=============  ======================================================================================================

mask and labels add `width`, `height` (of the map), `encoding`, `engine` (name@digest), `smoothed`, and
`roi` {x, y, width, height}: the part of the source picture that the map covers, in source pixels. `reused`: true where
nothing moved and the map is an earlier frame's; else it is left out.

mask adds `class` {id, name}, `pixels` (how many are set) and `bbox`: [x, y, width, height] in the mask's own pixels,
null when empty. Masks are sent also when empty.

labels adds `classes` [{id, name, colour [r, g, b], pixels}], every class of the engine; 255 in the map is "none".

event adds `state` (connecting, running, reconnecting, ended, failed), `reason` (a short word), `detail` (a sentence).
While running, reason tells what was noticed: size-changed, scene-cut, camera-moving, camera-steady.

heartbeat adds `streams` {id: {state, fps, frames, published, reused, dropped {reason: n}, seq {topic: n}}}, `engine`,
`encoded` {kind: n}, `uptime_s` and `subscriptions` (how many different prefixes are subscribed to). Of a stream,
`reused` counts those published without inference, and `seq` has the last number of each topic that was ever sent.

Payload encodings are in `streamseg.codec`, re-exported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from streamseg.codec import ENCODINGS, decode_labels, decode_mask, encode_labels, encode_mask
from streamseg.errors import UnsupportedVersion, WireError
from streamseg.types import NAME, Clock, Encoding, Roi

__all__ = [
    "ENCODINGS",
    "HEARTBEAT",
    "KINDS",
    "VERSION",
    "ClassCount",
    "Encoding",
    "Header",
    "Kind",
    "Latency",
    "Size",
    "Topic",
    "decode_labels",
    "decode_mask",
    "dump_header",
    "encode_labels",
    "encode_mask",
    "header_fields",
    "parse_header",
    "parse_topic",
    "topic",
    "valid_name",
]

VERSION = "1.0"
Kind = Literal["mask", "labels", "frame", "picture", "event", "heartbeat"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HEARTBEAT = "heartbeat/"
MAX_SIDE = 1 << 14
MAX_PIXELS = 1 << 26
"""Largest map that is accepted: 8192 x 8192. What a hostile header can make a reader allocate."""
MAX_HEADER = 1 << 22

_NAME = re.compile(NAME)
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})")
_CLOCKS: tuple[Clock, ...] = get_args(Clock)


# ---- topics --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic taken apart: `stream` is None for the heartbeat, `class_name` for all but masks. str() joins it again."""

    kind: Kind
    stream: str | None = None
    class_name: str | None = None

    def __str__(self) -> str:
        return "".join(f"{part}/" for part in (self.kind, self.class_name, self.stream) if part is not None)


def valid_name(name: str) -> bool:
    """Whether `name` may be a stream id or a class name."""
    return _NAME.fullmatch(name) is not None


def topic(kind: Kind, stream: str | None = None, class_name: str | None = None) -> str:
    """The full topic, checked: `topic("mask", "gate", "person") == "mask/person/gate/"`. Raises WireError."""
    return str(parse_topic(str(Topic(kind, stream, class_name))))


def parse_topic(data: bytes | str) -> Topic:
    """Raises WireError when `data` is no topic of this version."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"topic {data[:80]!r} is not UTF-8") from error
    kind, *names = text.split("/")
    expected = {"mask": 2, "heartbeat": 0}.get(kind, 1)
    if kind not in KINDS or len(names) != expected + 1 or names.pop() != "" or not all(map(valid_name, names)):
        raise WireError(
            f"topic {text[:200]!r} is not of the form mask/<class>/<stream>/, <kind>/<stream>/ or heartbeat/"
        )
    class_name = names.pop(0) if kind == "mask" else None
    return Topic(kind, names[0] if names else None, class_name)


# ---- headers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds spent in each stage."""

    decode: int
    wait: int
    infer: int
    encode: int


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ClassCount:
    """A class, with how many pixels of the label map it has (-1: not told); `colour` is RGB, or None in a mask."""

    id: int
    name: str
    colour: tuple[int, int, int] | None = None
    pixels: int = -1


@dataclass(frozen=True, slots=True)
class Header:
    """One parsed header: attributes are checked and typed; `header["name"]` gives any field as it came.

    What a kind does not have is None (or empty), see the module's docstring.
    """

    kind: Kind
    stream: str | None
    epoch: int
    frame: int | None
    seq: int
    pts_ns: int | None
    captured_ns: int
    published_ns: int
    clock: Clock
    latency_us: Latency | None
    source: Size | None
    replay: bool
    v: str = VERSION
    width: int | None = None
    height: int | None = None
    encoding: Encoding | None = None
    engine: str | None = None
    smoothed: bool | None = None
    reused: bool = False
    roi: Roi | None = None
    class_: ClassCount | None = None
    pixels: int | None = None
    bbox: tuple[int, int, int, int] | None = None
    classes: tuple[ClassCount, ...] = ()
    state: str | None = None
    reason: str | None = None
    detail: str | None = None
    streams: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __contains__(self, name: object) -> bool:
        return name in self.raw


def header_fields(kind: Kind, stream: str | None, epoch: int, captured_ns: int) -> dict[str, Any]:
    """What every header has, before it is sent: those who make and who send it fill in what is not null or 0."""
    return {
        "v": VERSION,
        "kind": kind,
        "stream": stream,
        "epoch": epoch,
        "frame": None,
        "seq": 0,
        "pts_ns": None,
        "captured_ns": captured_ns,
        "published_ns": 0,
        "clock": "host",
        "latency_us": None,
        "source": None,
        "replay": False,
    }


def dump_header(fields: Mapping[str, Any]) -> bytes:
    """The header as compact JSON. `fields` are not checked, but NaN and infinity are refused (ValueError)."""
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def parse_header(data: bytes) -> Header:
    """Parse and check the second part of a message.

    Raises UnsupportedVersion (a WireError) for another major version, WireError for anything that breaks the contract.
    """
    if len(data) > MAX_HEADER:
        raise WireError(f"header of {len(data)} bytes is over the limit of {MAX_HEADER}")
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"header is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise WireError(f"header is a JSON {type(raw).__name__}, not an object")
    check = _Fields(raw)
    version = check.text("v")
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise WireError(f"header field v is {version[:40]!r}, not of the form '1.0'")
    if int(parts[1]) != 1:
        raise UnsupportedVersion(f"message is of wire version {version}; this reader knows version 1: update streamseg")
    kind = cast(Kind, check.choice("kind", KINDS))
    common = _common(check, kind)
    match kind:
        case "mask" | "labels":
            return Header(**common, **_map(check, kind))
        case "event":
            texts = {name: check.text(name) for name in ("state", "reason", "detail")}
            return Header(**(common | texts))
        case "heartbeat":
            return Header(**common, streams=check.table("streams").raw, engine=check.optional("engine", check.text))
        case _:
            return Header(**common)


def _common(check: _Fields, kind: Kind) -> dict[str, Any]:
    told = kind in ("event", "heartbeat")  # these two tell no picture
    stream = None if kind == "heartbeat" else check.name("stream")
    latency = check.optional("latency_us", check.table) if told else check.table("latency_us")
    source = check.optional("source", check.table) if told else check.table("source")
    return {
        "raw": check.raw,
        "v": check.raw["v"],
        "kind": kind,
        "stream": stream,
        "epoch": check.count("epoch"),
        "frame": check.optional("frame", check.count) if told else check.count("frame"),
        "seq": check.count("seq"),
        "pts_ns": check.optional("pts_ns", check.integer),
        "captured_ns": check.count("captured_ns"),
        "published_ns": check.count("published_ns"),
        "clock": check.choice("clock", _CLOCKS),
        "latency_us": latency and Latency(*(latency.count(name) for name in ("decode", "wait", "infer", "encode"))),
        "source": source and Size(source.count("width"), source.count("height")),
        "replay": check.boolean("replay"),
    }


def _map(check: _Fields, kind: Kind) -> dict[str, Any]:
    width, height = check.count("width"), check.count("height")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise WireError(f"map of {width}x{height} is outside 1x1..{MAX_SIDE}x{MAX_SIDE} and {MAX_PIXELS} pixels")
    roi = check.table("roi")
    fields: dict[str, Any] = {
        "width": width,
        "height": height,
        "encoding": check.choice("encoding", ENCODINGS),
        "engine": check.text("engine"),
        "smoothed": check.boolean("smoothed"),
        "reused": "reused" in check.raw and check.boolean("reused"),
        "roi": Roi(*(roi.count(name) for name in ("x", "y", "width", "height"))),
    }
    if kind == "labels":
        return fields | {"classes": tuple(_class(entry, coloured=True) for entry in check.tables("classes"))}
    return fields | {
        "class_": _class(check.table("class"), coloured=False),
        "pixels": check.count("pixels"),
        "bbox": check.optional("bbox", lambda name: check.counts(name, 4)),
    }


def _class(check: _Fields, *, coloured: bool) -> ClassCount:
    number, name = check.count("id"), check.name("name")
    if not coloured:
        return ClassCount(number, name)
    red, green, blue = check.counts("colour", 3)
    return ClassCount(number, name, (red, green, blue), check.count("pixels"))


class _Fields:
    """Typed look-ups in one JSON object; every one raises WireError that names the field and the value."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def _get(self, name: str, kind: type, what: str) -> Any:
        if name not in self.raw:
            raise WireError(f"header lacks the field {name}")
        value = self.raw[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WireError(f"header field {name} is {str(value)[:80]!r}, not {what}")
        return value

    def text(self, name: str) -> str:
        return cast(str, self._get(name, str, "text"))

    def boolean(self, name: str) -> bool:
        return cast(bool, self._get(name, bool, "true or false"))

    def integer(self, name: str) -> int:
        value = cast(int, self._get(name, int, "an integer"))
        if not -(1 << 63) <= value < 1 << 63:
            raise WireError(f"header field {name} does not fit 64 bits")
        return value

    def count(self, name: str) -> int:
        value = self.integer(name)
        if value < 0:
            raise WireError(f"header field {name} is {value}, less than 0")
        return value

    def counts(self, name: str, length: int) -> tuple[int, ...]:
        values = self._get(name, list, f"{length} integers")
        if len(values) != length:
            raise WireError(f"header field {name} has {len(values)} entries, not {length}")
        return tuple(_Fields({name: value}).count(name) for value in values)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in allowed:
            raise WireError(f"header field {name} is {value[:40]!r}, not one of {', '.join(allowed)}")
        return value

    def name(self, name: str) -> str:
        value = self.text(name)
        if not valid_name(value):
            raise WireError(f"header field {name} is {value[:80]!r}, not 1 to 64 of A-Z a-z 0-9 _ . -")
        return value

    def table(self, name: str) -> _Fields:
        return _Fields(self._get(name, dict, "an object"))

    def tables(self, name: str) -> list[_Fields]:
        entries = self._get(name, list, "a list")
        return [_Fields({name: entry}).table(name) for entry in entries]

    def optional(self, name: str, read: Any) -> Any:
        return None if self.raw.get(name, ...) is None else read(name)
