"""Payloads of masks and label maps, in five lossless encodings. Pure functions; cv2, zstandard and isal only if used.

=========  ==========================================================================================================
raw        label maps: u8, row-major; masks: bits, most significant first, every row padded with 0 to whole bytes
deflate    a zlib stream (RFC 1950) of raw
zstd       one Zstandard frame (RFC 8878) of raw; needs the package `zstandard`
png        greyscale, not interlaced: 8 bits a pixel for label maps, 1 (or 8) for masks, where not 0 means set
coco-rle   masks only: the compressed `counts` string of the COCO API (column-major runs, see `streamseg.rle`)
=========  ==========================================================================================================

A decoder never inflates more than the header's size allows, and raises WireError for whatever is not exactly that.

Chosen by measurement (mean of 40 CamVid label maps at 480x272, 12 classes, one thread): zlib level 1: 246 us, 6857 B;
zlib level 1 with Z_RLE: 234 us, 5154 B; zlib level 6: 974 us, 4093 B; isal level 1: 64 us, 6382 B; zstd level 1: 80 us,
4382 B. So deflate is isal's, which streamseg installs, or zlib with Z_RLE where it is missing: readers see zlib.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from streamseg import rle
from streamseg.errors import WireError
from streamseg.types import U8, Encoding

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

_PNG = b"\x89PNG\r\n\x1a\n"
_ZSTD_WINDOW = 1 << 23  # RFC 8878 asks every decoder for 8 MB, and warns of more


def encode_mask(mask: NDArray[np.bool_], encoding: Encoding) -> bytes:
    """`mask` bool [H, W] -> payload. Raises WireError for an unknown encoding or one whose package is missing."""
    if encoding == "coco-rle":
        return rle.encode(mask)
    return _pack(np.packbits(mask, axis=1), mask.shape[1], 1, encoding)


def decode_mask(payload: bytes, width: int, height: int, encoding: Encoding) -> NDArray[np.bool_]:
    """payload -> bool [height, width]. Raises WireError unless it is exactly such a mask."""
    if encoding == "coco-rle":
        return rle.decode(payload, width, height)
    if encoding == "png":
        return _read_png(payload, width, height, (1, 8)).astype(np.bool_)
    bits = _unpack(payload, -(-width // 8), height, encoding)
    mask: NDArray[np.bool_] = np.unpackbits(bits, axis=1, count=width).view(np.bool_)
    return mask


def encode_labels(labels: U8, encoding: Encoding) -> bytes:
    """`labels` u8 [H, W] -> payload. Raises WireError for an unknown encoding or one whose package is missing."""
    if encoding == "coco-rle":
        raise WireError("coco-rle encodes masks, not label maps: choose raw, deflate, zstd or png")
    return _pack(labels, labels.shape[1], 8, encoding)


def decode_labels(payload: bytes, width: int, height: int, encoding: Encoding) -> U8:
    """payload -> u8 [height, width], writable. Raises WireError unless it is exactly such a map."""
    if encoding == "png":
        return _read_png(payload, width, height, (8,))
    return _unpack(payload, width, height, encoding)


def _pack(rows: U8, width: int, depth: int, encoding: Encoding) -> bytes:
    match encoding:
        case "raw":
            return rows.tobytes()
        case "deflate":
            return _deflater()(np.ascontiguousarray(rows))
        case "zstd":
            compressed: bytes = _zstandard().ZstdCompressor(level=1).compress(np.ascontiguousarray(rows))
            return compressed
        case "png":
            return _write_png(rows, width, depth)
    raise WireError(f"encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")


def _unpack(payload: bytes, row_bytes: int, height: int, encoding: Encoding) -> U8:
    """u8 [height, row_bytes], freshly allocated."""
    size = row_bytes * height
    match encoding:
        case "raw":
            data = payload
        case "deflate":
            data = _inflate(payload, size)
        case "zstd":
            data = _unzstd(payload, size)
        case _:
            raise WireError(f"encoding {encoding!r} does not hold this kind of map")
    if len(data) != size:
        raise WireError(
            f"{encoding} payload of {len(payload)} bytes gives {len(data)}, not {height} rows of {row_bytes}"
        )
    return np.frombuffer(bytearray(data), np.uint8).reshape(height, row_bytes)


@cache
def _deflater() -> Callable[[U8], bytes]:
    try:
        from isal import isal_zlib
    except ImportError:
        return _deflate
    return lambda rows: bytes(isal_zlib.compress(rows, 1))


def _deflate(rows: U8) -> bytes:
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return stream.compress(rows.data) + stream.flush()


def _inflate(payload: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, size + 1)  # one more than may come shows a bomb without inflating it
    except zlib.error as error:
        raise WireError(f"payload is no whole zlib stream: {error}") from None
    if len(data) > size:
        raise WireError(f"zlib stream inflates to more than the {size} bytes that its header tells")
    if not stream.eof or stream.unused_data:
        raise WireError("zlib stream is cut short" if not stream.eof else "payload goes on after its zlib stream")
    return data


@cache
def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise WireError("encoding zstd needs the package zstandard: pip install 'streamseg[zstd]'") from error
    return zstandard


def _unzstd(payload: bytes, size: int) -> bytes:
    zstd = _zstandard()
    try:
        with zstd.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(payload) as reader:
            data: bytes = reader.read(size + 1)
    except zstd.ZstdError as error:
        raise WireError(f"payload is no Zstandard frame: {error}") from None
    if len(data) > size:
        raise WireError(f"Zstandard frame inflates to more than the {size} bytes that its header tells")
    return data


# ---- png (https://www.w3.org/TR/png-3/): by hand, as cv2.imencode takes 1065 us for the label map above ------------


def _write_png(rows: U8, width: int, depth: int) -> bytes:
    """Rows of packed samples as a greyscale PNG without filters, which gain nothing on label maps."""
    height = rows.shape[0]
    filtered = np.zeros((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 1:] = rows
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _deflater()(filtered)), (b"IEND", b""))
    return _PNG + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _read_png(payload: bytes, width: int, height: int, depths: tuple[int, ...]) -> U8:
    """u8 [height, width]. Size, depth and inflated length are checked before any pixel is decoded."""
    chunks = _png_chunks(payload)
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13:
        raise WireError("PNG has no IHDR")
    wide, high, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if (
        (wide, high) != (width, height)
        or depth not in depths
        or (colour, compression, filtering, interlace) != (0,) * 4
    ):
        raise WireError(
            f"PNG is {wide}x{high}, depth {depth}, colour type {colour}, interlace {interlace}; "
            f"expected {width}x{height}, depth {' or '.join(map(str, depths))}, 0, 0"
        )
    row_bytes = -(-width * depth // 8) + 1
    data = _inflate(chunks.get(b"IDAT", b""), row_bytes * height)
    if len(data) != row_bytes * height:
        raise WireError(f"PNG holds {len(data)} bytes, not {height} rows of {row_bytes}")
    rows = np.frombuffer(data, np.uint8).reshape(height, row_bytes)
    if not rows[:, 0].any():
        return np.unpackbits(rows[:, 1:], axis=1, count=width) if depth == 1 else rows[:, 1:].copy()
    return _unfilter_png(header, chunks[b"IDAT"])


def _png_chunks(payload: bytes) -> dict[bytes, bytes]:
    """name -> data (IDATs joined), every CRC checked, up to IEND and no further."""
    if not payload.startswith(_PNG):
        raise WireError("payload is no PNG")
    chunks: dict[bytes, list[bytes]] = {}
    position = len(_PNG)
    while b"IEND" not in chunks:
        length = int.from_bytes(payload[position : position + 4], "big")
        name, end = payload[position + 4 : position + 8], position + 8 + length
        checksum = payload[end : end + 4]
        if len(checksum) < 4 or zlib.crc32(payload[position + 4 : end]) != int.from_bytes(checksum, "big"):
            raise WireError(f"PNG is cut short or corrupt at byte {position}")
        chunks.setdefault(name, []).append(payload[position + 8 : end])
        position = end + 4
    return {name: b"".join(parts) for name, parts in chunks.items()}


def _unfilter_png(header: bytes, data: bytes) -> U8:
    """A PNG with row filters, as libpng writes: left to cv2, with no other chunk than the two that were checked."""
    try:
        import cv2
    except ImportError as error:
        raise WireError("this PNG has row filters and needs cv2: pip install opencv-python-headless") from error
    whole = _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    picture = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None or picture.ndim != 2:
        raise WireError("PNG cannot be decoded")
    return np.asarray(picture, np.uint8)
