"""Makes the golden messages beside it: `python tests/golden/make.py`. Only when the wire is changed on purpose.

NAME.topic, NAME.header and NAME.payload are the three parts of a message, byte for byte; NAME.expected is what a
reader must decode: one byte a pixel, row-major, 0 or 1 in masks. index.json lists them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from results import CLASSES, ENGINE, result  # noqa: E402

from streamseg import wire  # noqa: E402
from streamseg.encode import Encoder  # noqa: E402
from streamseg.publish.news import Event, News  # noqa: E402
from streamseg.types import U8  # noqa: E402

CAPTURED_NS = 1_700_000_000_123_456_789
EPOCH = CAPTURED_NS // 1_000_000
LABELS = np.array([[(x * y) % 3 if x < 11 else 255 for x in range(13)] for y in range(7)], np.uint8)


@dataclass(frozen=True)
class Golden:
    name: str
    topic: str
    fields: dict[str, Any]
    payload: bytes
    expected: U8 | None


def goldens() -> Iterator[Golden]:
    for encoding in wire.ENCODINGS:
        yield from _maps(encoding)
    yield from _pictures()
    yield _event()
    yield _heartbeat()


def _maps(encoding: wire.Encoding) -> Iterator[Golden]:
    encoder = Encoder(CLASSES, encoding=encoding, jpeg_quality=80)
    people = {"mask": LABELS, "mask-empty": np.zeros_like(LABELS), "mask-full": np.ones_like(LABELS)}
    for name, labels in people.items():
        frame = result(7, labels=labels, captured_ns=CAPTURED_NS, epoch=EPOCH)
        for message in encoder.messages(frame, lambda topic: topic.startswith("mask/person/")):
            fields = _fixed(message.fields)
            yield Golden(f"{name}-{encoding}", message.topic, fields, message.payload, (labels == 1).view(np.uint8))
    if encoding != "coco-rle":
        frame = result(7, labels=LABELS, captured_ns=CAPTURED_NS, epoch=EPOCH)
        for message in encoder.messages(frame, lambda topic: topic.startswith("labels/")):
            yield Golden(f"labels-{encoding}", message.topic, _fixed(message.fields), message.payload, LABELS)
            again = _fixed(message.fields) | {"replay": True}
            if encoding == "raw":
                yield Golden("labels-replay", message.topic, again, message.payload, LABELS)


def _pictures() -> Iterator[Golden]:
    encoder = Encoder(CLASSES, encoding="deflate", jpeg_quality=80)
    frame = result(7, labels=LABELS, captured_ns=CAPTURED_NS, epoch=EPOCH)
    for message in encoder.messages(frame, lambda topic: topic.startswith(("frame/", "picture/"))):
        yield Golden(message.topic.partition("/")[0], message.topic, _fixed(message.fields), message.payload, None)


def _event() -> Golden:
    event = Event("cam1", "reconnecting", "timeout", "no frame for 5 s", EPOCH, CAPTURED_NS)
    fields = News({}, ENGINE, dict).event(event, None)
    return Golden("event", "event/cam1/", fields | {"seq": 3, "published_ns": CAPTURED_NS + 1000}, b"", None)


def _heartbeat() -> Golden:
    topics = ["mask/person/cam1/", "labels/cam1/"]
    status = {"cam1": {"state": "running", "fps": 25.0, "frames": 120, "dropped": {"newer": 2, "rate": 18}}}
    fields = News({"cam1": topics}, ENGINE, lambda: status).heartbeat(
        {"cam1": 100}, lambda of: dict.fromkeys(of, 99), {"mask": 100, "labels": 100}, 2
    )
    times = {"epoch": EPOCH, "captured_ns": CAPTURED_NS, "published_ns": CAPTURED_NS + 1000, "uptime_s": 12.345}
    return Golden("heartbeat", wire.HEARTBEAT, fields | times | {"seq": 12}, b"", None)


def _fixed(fields: dict[str, Any]) -> dict[str, Any]:
    """What the clock and the socket's owner fill in."""
    latency = fields["latency_us"] | {"encode": 55}
    return fields | {"latency_us": latency, "seq": 41, "published_ns": CAPTURED_NS + 5_000_000}


def main() -> None:
    names = []
    for golden in goldens():
        (HERE / f"{golden.name}.topic").write_bytes(golden.topic.encode())
        (HERE / f"{golden.name}.header").write_bytes(wire.dump_header(golden.fields))
        (HERE / f"{golden.name}.payload").write_bytes(golden.payload)
        if golden.expected is not None:
            (HERE / f"{golden.name}.expected").write_bytes(golden.expected.tobytes())
        names.append(golden.name)
    (HERE / "index.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    main()
