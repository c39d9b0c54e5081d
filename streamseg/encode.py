"""Results become messages, but only those that somebody subscribes to. Stateless, so that any thread may encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from streamseg import overlay, wire
from streamseg.types import ClassInfo, Planes, Result

if TYPE_CHECKING:
    from streamseg.nvidia.jpeg import GpuJpegs

Wants = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One message, ready but for what only the socket's owner knows: `seq`, `published_ns` and `replay`."""

    topic: str
    fields: dict[str, Any]
    payload: bytes = field(repr=False)


class Encoder:
    """`messages` of a result, made one by one as they are asked for. Thread-safe."""

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        *,
        encoding: wire.Encoding,
        jpeg_quality: int,
        undrawn: frozenset[int] = frozenset(),
        jpeg_on_gpu: bool = False,
    ) -> None:
        """`encoding` coco-rle, which knows masks only, gives label maps as deflate; `undrawn`: see overlay.annotate.
        `jpeg_on_gpu`: of pictures that lie in a GPU's memory, where it can."""
        self._undrawn = undrawn
        self._classes = tuple(classes)
        self._mask_encoding: wire.Encoding = encoding
        self._labels_encoding: wire.Encoding = "deflate" if encoding == "coco-rle" else encoding
        self._quality = jpeg_quality
        self._on_gpu = _gpu_jpegs(self._classes, jpeg_quality, undrawn) if jpeg_on_gpu else None

    def topics(self, stream: str) -> list[str]:
        """Every topic that `messages` may give for `stream`."""
        masks = [wire.topic("mask", stream, each.name) for each in self._classes]
        return [*masks, *(wire.topic(kind, stream) for kind in ("labels", "frame", "picture"))]

    def messages(self, result: Result, wants: Wants) -> Iterator[Encoded]:
        """The messages of `result` on the topics that `wants` says yes to; nothing is computed for the others."""
        stream = result.frame.stream
        planes = cache(result.frame.picture.planes)  # fetched once for both pictures
        for each in self._classes:
            if wants(topic := f"mask/{each.name}/{stream}/"):
                yield _message("mask", topic, result, partial(self._mask, result, each))
        if wants(topic := f"labels/{stream}/"):
            yield _message("labels", topic, result, partial(self._label_map, result))
        if wants(topic := f"frame/{stream}/"):
            yield _message("frame", topic, result, lambda: ({}, self._annotated(result, planes)))
        if wants(topic := f"picture/{stream}/"):
            yield _message("picture", topic, result, lambda: ({}, self._plain(result, planes)))

    def _mask(self, result: Result, each: ClassInfo) -> tuple[dict[str, Any], bytes]:
        mask: NDArray[np.bool_] = result.labels == each.id
        pixels = int(np.count_nonzero(mask))
        fields = _map_fields(result, self._mask_encoding) | {
            "class": {"id": each.id, "name": each.name},
            "pixels": pixels,
            "bbox": list(cv2.boundingRect(mask.view(np.uint8))) if pixels else None,
        }
        return fields, wire.encode_mask(mask, self._mask_encoding)

    def _label_map(self, result: Result) -> tuple[dict[str, Any], bytes]:
        pixels = _count(result.labels)
        classes = [
            {"id": each.id, "name": each.name, "colour": list(each.colour), "pixels": int(pixels[each.id])}
            for each in self._classes
        ]
        payload = wire.encode_labels(result.labels, self._labels_encoding)
        return _map_fields(result, self._labels_encoding) | {"classes": classes}, payload

    def _plain(self, result: Result, planes: Callable[[], Planes]) -> bytes:
        if self._on_gpu is not None and (surface := result.frame.picture.surface) is not None:
            made = self._on_gpu.plain(surface)
            if made is not None:
                return made
        return jpeg(overlay.full_range(planes()), self._quality)

    def _annotated(self, result: Result, planes: Callable[[], Planes]) -> bytes:
        labels, roi = result.labels, result.roi
        if self._on_gpu is not None and (surface := result.frame.picture.surface) is not None:
            made = self._on_gpu.annotated(surface, labels, roi)
            if made is not None:
                return made
        drawn = overlay.annotate(planes(), labels, self._classes, undrawn=self._undrawn, roi=roi)
        return jpeg(drawn, self._quality)


def _gpu_jpegs(classes: Sequence[ClassInfo], quality: int, undrawn: frozenset[int]) -> GpuJpegs | None:
    """None where nothing can lie in a GPU's memory: without torch and Triton."""
    if find_spec("torch") is None or find_spec("triton") is None:
        return None
    from streamseg.nvidia.jpeg import GpuJpegs

    return GpuJpegs(classes, quality, undrawn)


def jpeg(planes: Planes, quality: int) -> bytes:
    """A full-range picture as a JPEG (4:2:0), straight from its planes; `quality` 1..100."""
    data: bytes = simplejpeg.encode_jpeg_yuv_planes(planes.y, planes.u, planes.v, quality)
    return data


def _count(labels: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.intp]:
    """Pixels of each of the 256 labels. calcHist: 112 us at 480x272, bincount 230; but float32 counts only to 2^24."""
    if labels.size > 1 << 24:
        return np.bincount(labels.ravel(), minlength=256)
    histogram: NDArray[np.float32] = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    return histogram


def _message(kind: wire.Kind, topic: str, result: Result, make: Callable[[], tuple[dict[str, Any], bytes]]) -> Encoded:
    start = time.perf_counter_ns()
    fields, payload = make()
    encode_us = (time.perf_counter_ns() - start) // 1000
    frame = result.frame
    latency_us = {"decode": frame.decode_us, "wait": result.wait_us, "infer": result.infer_us, "encode": encode_us}
    common = wire.header_fields(kind, frame.stream, frame.epoch, frame.captured_ns) | {
        "frame": frame.number,
        "pts_ns": frame.pts_ns,
        "clock": frame.clock,
        "latency_us": latency_us,
        "source": {"width": frame.picture.width, "height": frame.picture.height},
    }
    return Encoded(topic, common | fields, payload)


def _map_fields(result: Result, encoding: str) -> dict[str, Any]:
    roi = result.roi
    return {
        "width": result.labels.shape[1],
        "height": result.labels.shape[0],
        "encoding": encoding,
        "engine": result.engine,
        "smoothed": result.smoothed,
        **({"reused": True} if result.reused else {}),
        "roi": {"x": roi.x, "y": roi.y, "width": roi.width, "height": roi.height},
    }
