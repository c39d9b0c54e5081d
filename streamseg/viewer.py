"""`streamseg subscribe`: prints, saves or draws what a daemon publishes. Main thread, on top of the client library."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.color import Color
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from streamseg.subscriber import Message
from streamseg.types import U8

SHOWN_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Output:
    as_json: bool
    save: Path | None
    show: bool
    count: int | None


def follow(messages: Iterable[Message], output: Output) -> None:
    """Until `output.count` messages have come, or Ctrl-C."""
    if output.save:
        output.save.mkdir(parents=True, exist_ok=True)
    try:
        for number, message in enumerate(messages, start=1):
            _one(message, output)
            if number == output.count:
                return
    except KeyboardInterrupt:
        return


def _one(message: Message, output: Output) -> None:
    if output.save:
        _save(message, output.save)
    if output.show:
        _show(message)
    print(json.dumps(message.header.raw) if output.as_json else _line(message), flush=True)


def _line(message: Message) -> str:
    """One line a message: what came, of which frame, how old."""
    header = message.header.raw
    parts = [message.topic.ljust(28)]
    if message.header.kind == "heartbeat":
        parts += [f"{name}: {s['state']} {s['fps']:.1f} fps" for name, s in header["streams"].items()]
    elif message.header.kind == "event":
        parts += [str(header.get(key)) for key in ("state", "reason", "detail") if header.get(key)]
    else:
        parts.append(f"frame {header['frame']:<6}")
        if message.header.kind == "mask":
            parts.append(f"{header['pixels']:>7} px  bbox {header['bbox'] or '-'}")
        if message.header.kind == "labels":
            seen = sorted(header["classes"], key=lambda c: -c["pixels"])[:4]
            parts.append(", ".join(f"{c['name']} {c['pixels']}" for c in seen if c["pixels"]))
        parts.append(f"{len(message.payload) / 1000:.1f} kB")
        parts.append(f"{(header['published_ns'] - header['captured_ns']) / 1e6:.0f} ms to publish")
        if message.lost:
            parts.append(f"{message.lost} LOST")
        if header.get("replay"):
            parts.append("(last value)")
    return "  ".join(parts)


def _save(message: Message, folder: Path) -> None:
    """NAME.json, and NAME.png or NAME.jpg beside it, where NAME is the topic, the epoch (a daemon that starts again
    counts from 0) and the frame's number; events and heartbeats, which tell of no frame, have their own."""
    header = message.header.raw
    number = header["seq"] if header["frame"] is None else header["frame"]
    name = f"{message.topic.strip('/').replace('/', '-')}-{header['epoch']}-{number:08d}"
    _write(folder / f"{name}.json", json.dumps(header, indent=1).encode())
    if message.header.kind in ("frame", "picture"):
        _write(folder / f"{name}.jpg", message.payload)
    elif message.array is not None:
        scale = 255 if message.array.dtype == bool else 1
        _write(folder / f"{name}.png", cv2.imencode(".png", message.array.astype(np.uint8) * scale)[1].tobytes())


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        error.filename = str(path)  # a full disk is told without it
        raise


def _show(message: Message) -> None:
    """Two pixels a character cell, upper and lower half."""
    picture = _picture(message)
    if picture is None:
        return
    height = max(2, round(SHOWN_COLUMNS * picture.shape[0] / picture.shape[1]) & ~1)
    small = cv2.resize(picture, (SHOWN_COLUMNS, height), interpolation=cv2.INTER_AREA)
    segments = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            style = Style(color=Color.from_rgb(*map(int, above)), bgcolor=Color.from_rgb(*map(int, below)))
            segments.append(Segment("▀", style))
        segments.append(Segment.line())
    Console(width=SHOWN_COLUMNS, legacy_windows=False).print(Segments(segments))


def _picture(message: Message) -> U8 | None:
    """RGB u8 [H, W, 3]: the JPEG, the label map in its colours, or the mask in white."""
    if message.header.kind in ("frame", "picture"):
        return message.decode()
    if message.array is None:
        return None
    table = np.zeros((256, 3), np.uint8)
    if message.header.kind == "mask":
        table[1] = 255
    for entry in message.header.raw.get("classes", []):
        table[entry["id"]] = entry["colour"]
    return np.asarray(table[message.array.astype(np.uint8)], np.uint8)
