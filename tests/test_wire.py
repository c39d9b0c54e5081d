"""The wire as other people's programs depend on it: golden bytes, round trips, and hostile input."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zstandard
from golden.make import CAPTURED_NS, HERE, goldens
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from streamseg import wire
from streamseg.errors import UnsupportedVersion, WireError

SIDES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
MASKS = arrays(np.bool_, SIDES, elements=st.booleans(), fill=st.booleans())
LABELS = arrays(np.uint8, SIDES)
NAMES: list[str] = json.loads((HERE / "index.json").read_text())
MADE = {golden.name: golden for golden in goldens()}


def part(name: str, which: str) -> bytes:
    return (HERE / f"{name}.{which}").read_bytes()


def decode(kind: str, payload: bytes, width: int, height: int, encoding: Any) -> np.ndarray:
    return (wire.decode_mask if kind == "mask" else wire.decode_labels)(payload, width, height, encoding)


# ---- golden messages ----


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_message_still_means_what_it_meant(name: str) -> None:
    topic = wire.parse_topic(part(name, "topic"))
    header = wire.parse_header(part(name, "header"))
    assert (header.kind, header.stream) == (topic.kind, topic.stream)
    if header.width and header.height:
        expected = np.frombuffer(part(name, "expected"), np.uint8).reshape(header.height, header.width)
        got = decode(header.kind, part(name, "payload"), header.width, header.height, header.encoding)
        assert got.dtype == (np.bool_ if header.kind == "mask" else np.uint8)
        assert np.array_equal(got.view(np.uint8), expected)
        if header.kind == "mask":
            assert header.pixels == expected.sum()
            assert header.class_ == wire.ClassCount(1, "person")
        else:
            assert [c.pixels for c in header.classes] == [int((expected == i).sum()) for i in range(3)]
    elif header.kind in ("frame", "picture"):
        assert cv2.imdecode(np.frombuffer(part(name, "payload"), np.uint8), cv2.IMREAD_COLOR).shape == (16, 32, 3)
    else:
        assert part(name, "payload") == b""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sent_today_is_the_golden_message(name: str) -> None:
    assert MADE[name].topic.encode() == part(name, "topic")
    assert wire.dump_header(MADE[name].fields) == part(name, "header")
    if name.endswith(("-raw", "-coco-rle")):  # the other encodings may change with their libraries' versions
        assert MADE[name].payload == part(name, "payload")


def test_every_kind_has_a_golden_message_and_every_made_one_is_kept() -> None:
    assert set(NAMES) == set(MADE)
    assert {wire.parse_header(part(name, "header")).kind for name in NAMES} == set(wire.KINDS)


def test_golden_header_fields_are_typed() -> None:
    header = wire.parse_header(part("mask-deflate", "header"))
    assert header.source == wire.Size(32, 16)
    assert header.latency_us == wire.Latency(1100, 200, 3300, 55)
    assert header.captured_ns == CAPTURED_NS
    assert header.bbox == (1, 1, 10, 5)
    assert not header.replay
    assert wire.parse_header(part("labels-replay", "header")).replay
    assert wire.parse_header(part("mask-empty-raw", "header")).bbox is None
    assert wire.parse_header(part("heartbeat", "header"))["streams"]["cam1"]["dropped"] == {"newer": 2, "rate": 18}
    assert wire.parse_header(part("event", "header")).state == "reconnecting"


# ---- payloads ----


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
@given(mask=MASKS)
def test_masks_survive_every_encoding(encoding: wire.Encoding, mask: np.ndarray) -> None:
    height, width = mask.shape
    assert np.array_equal(wire.decode_mask(wire.encode_mask(mask, encoding), width, height, encoding), mask)


@pytest.mark.parametrize("encoding", ["raw", "deflate", "zstd", "png"])
@given(labels=LABELS)
def test_label_maps_survive_every_encoding(encoding: wire.Encoding, labels: np.ndarray) -> None:
    height, width = labels.shape
    assert np.array_equal(wire.decode_labels(wire.encode_labels(labels, encoding), width, height, encoding), labels)


def test_raw_masks_are_bits_msb_first_with_padded_rows() -> None:
    mask = np.zeros((2, 9), np.bool_)
    mask[0, 0] = mask[0, 8] = mask[1, 7] = True
    assert wire.encode_mask(mask, "raw") == bytes([0b10000000, 0b10000000, 0b00000001, 0])


def test_deflate_is_a_zlib_stream_of_raw() -> None:
    labels = np.arange(91, dtype=np.uint8).reshape(7, 13)
    assert zlib.decompress(wire.encode_labels(labels, "deflate")) == labels.tobytes()


@given(mask=MASKS)
def test_coco_rle_is_byte_for_byte_that_of_the_coco_api(mask: np.ndarray) -> None:
    assert wire.encode_mask(mask, "coco-rle") == coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]


def test_coco_rle_of_long_runs_is_that_of_the_coco_api() -> None:
    mask = np.zeros((1080, 1920), np.bool_)
    mask[100:900, 300:1500] = True
    mask[::7, 1600:] = True
    counts = wire.encode_mask(mask, "coco-rle")
    assert counts == coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
    assert np.array_equal(wire.decode_mask(counts, 1920, 1080, "coco-rle"), mask)


@given(labels=LABELS)
def test_png_label_maps_are_read_by_opencv(labels: np.ndarray) -> None:
    read = cv2.imdecode(np.frombuffer(wire.encode_labels(labels, "png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read, labels)


def test_pngs_with_row_filters_are_read() -> None:
    labels = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    written = cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH])[1].tobytes()
    assert np.array_equal(wire.decode_labels(written, 50, 40, "png"), labels)
    mask = labels > 40
    for bilevel in (0, 1):
        options = [cv2.IMWRITE_PNG_BILEVEL, bilevel, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
        written = cv2.imencode(".png", mask.astype(np.uint8) * 255, options)[1].tobytes()
        assert np.array_equal(wire.decode_mask(written, 50, 40, "png"), mask)


MAPS = [name for name in NAMES if (HERE / f"{name}.expected").exists()]


@pytest.mark.parametrize("name", MAPS)
def test_a_payload_cut_anywhere_or_too_long_is_refused(name: str) -> None:
    header, payload = wire.parse_header(part(name, "header")), part(name, "payload")
    assert header.width
    assert header.height
    for length in range(len(payload)):
        with pytest.raises(WireError):
            decode(header.kind, payload[:length], header.width, header.height, header.encoding)
    for width, height in ((header.width + 8, header.height), (header.width, header.height - 1)):
        with pytest.raises(WireError):
            decode(header.kind, payload, width, height, header.encoding)


@pytest.mark.parametrize("name", MAPS)
@given(data=st.data())
def test_a_damaged_payload_is_refused_or_decoded_but_never_worse(name: str, data: st.DataObject) -> None:
    header, payload = wire.parse_header(part(name, "header")), bytearray(part(name, "payload"))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    assert header.width
    assert header.height
    try:
        got = decode(header.kind, bytes(payload), header.width, header.height, header.encoding)
    except WireError:
        return
    assert got.shape == (header.height, header.width)


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
@given(payload=st.binary(max_size=300))
def test_random_payloads_are_refused_or_decoded_but_never_worse(encoding: wire.Encoding, payload: bytes) -> None:
    for kind in ("mask", "labels"):
        with suppress(WireError):
            assert decode(kind, payload, 13, 7, encoding).shape == (7, 13)


def bombs() -> dict[str, bytes]:
    zeros = bytes(64 << 20)
    header = struct.pack(">IIBBBBB", 13, 7, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(zeros, 1)), (b"IEND", b"")]
    png = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return {
        "deflate": zlib.compress(zeros, 9),
        "zstd": zstandard.ZstdCompressor().compress(zeros),
        "png": b"\x89PNG\r\n\x1a\n" + png,
        "coco-rle": b"1" * 1_000_000,
        "raw": bytes(1_000_000),
    }


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
def test_a_bomb_is_refused_without_being_inflated(encoding: wire.Encoding) -> None:
    payload = bombs()[encoding]
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            wire.decode_mask(payload, 13, 7, encoding)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "empty"),
        (b"\xff\xff", "outside"),
        (b"00P", "cut short"),
        (b"oooooooooo1", "too long"),
        (b"51", "cover"),
        (b"K1", "below 0"),
    ],
)
def test_coco_rle_errors_say_what_is_wrong(payload: bytes, what: str) -> None:
    with pytest.raises(WireError, match=what):
        wire.decode_mask(payload, 13, 7, "coco-rle")


# ---- headers ----


def changed(name: str = "mask-raw", **fields: Any) -> bytes:
    return json.dumps(json.loads(part(name, "header")) | fields).encode()


def test_another_minor_version_is_read_and_its_new_fields_are_ignored() -> None:
    header = wire.parse_header(
        changed(
            v="1.7", hue=[1, 2], latency_us={**dict.fromkeys(("decode", "wait", "infer", "encode", "telepathy"), 1)}
        )
    )
    assert (header.v, header["hue"], header.latency_us) == ("1.7", [1, 2], wire.Latency(1, 1, 1, 1))


@pytest.mark.parametrize("version", ["2.0", "0.9", "17.1"])
def test_another_major_version_is_told_apart_from_damage(version: str) -> None:
    with pytest.raises(UnsupportedVersion, match=version):
        wire.parse_header(json.dumps({"v": version, "kind": "hologram"}).encode())


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"v": 1.0}, "v"),
        ({"v": "one"}, "v"),
        ({"kind": "video"}, "kind"),
        ({"stream": "a/b"}, "stream"),
        ({"seq": -1}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"frame": None}, "frame"),
        ({"captured_ns": 1 << 70}, "captured_ns"),
        ({"latency_us": {"decode": 1}}, "wait"),
        ({"replay": 0}, "replay"),
        ({"clock": "sundial"}, "clock"),
        ({"width": 0}, "0x7"),
        ({"width": 16384, "height": 16384}, "16384x16384"),
        ({"encoding": "lzma"}, "encoding"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"class": {"id": 1}}, "name"),
        ({"roi": []}, "roi"),
    ],
)
def test_a_header_that_breaks_the_contract_is_refused_by_field(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(WireError, match=what):
        wire.parse_header(changed(**fields))


@given(data=st.binary(max_size=200))
def test_random_bytes_are_no_header(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_header(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=8), each, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("name", ["mask-raw", "labels-raw", "frame", "event", "heartbeat"])
@given(data=st.data())
def test_a_header_with_any_field_replaced_is_read_or_refused(name: str, data: st.DataObject) -> None:
    fields = json.loads(part(name, "header"))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(JSON)
    with suppress(WireError):
        wire.parse_header(json.dumps(fields).encode())


def test_deeply_nested_and_oversized_headers_are_refused() -> None:
    with pytest.raises(WireError):
        wire.parse_header(b"[" * 200_000)
    with pytest.raises(WireError, match="limit"):
        wire.parse_header(b" " * (5 << 20))
    with pytest.raises(WireError):
        wire.parse_header(b'{"v":"1.0","seq":' + b"9" * 5000 + b"}")


# ---- topics ----


def test_topics_are_built_and_taken_apart() -> None:
    assert wire.topic("mask", "gate", "person") == "mask/person/gate/"
    assert wire.parse_topic(b"mask/person/gate/") == wire.Topic("mask", "gate", "person")
    assert wire.topic("heartbeat") == "heartbeat/" == str(wire.parse_topic(b"heartbeat/"))
    assert wire.parse_topic("labels/cam.1_-X/").stream == "cam.1_-X"


@pytest.mark.parametrize(
    "topic",
    ["", "/", "labels", "labels/", "labels/cam1", "labels//", "labels/a b/", "labels/caf\u00e9/", "mask/person/",
     "mask/a/b/c/", "heartbeat//", "heartbeat/a/", "video/cam1/", "labels/" + "x" * 65 + "/", "labels/a\n/", b"\xff/"],
)  # fmt: skip
def test_what_is_no_topic_is_refused(topic: str | bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_topic(topic)


# ---- what it needs ----


def test_the_wire_needs_numpy_alone() -> None:
    code = """
import sys
for name in ("cv2", "zmq", "pydantic", "yaml", "zstandard", "isal", "simplejpeg", "av", "torch"):
    sys.modules[name] = None
import numpy as np
from streamseg import wire
mask = np.eye(9, dtype=bool)
for encoding in ("raw", "deflate", "png", "coco-rle"):
    assert (wire.decode_mask(wire.encode_mask(mask, encoding), 9, 9, encoding) == mask).all()
try:
    wire.encode_mask(mask, "zstd")
except wire.WireError as error:
    print(error)
"""
    root = Path(wire.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install" in done.stdout
