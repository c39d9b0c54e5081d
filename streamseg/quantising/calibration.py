"""The pictures that a network is calibrated on, and the ranges that its tensors take on them. The caller's thread."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from streamseg.engine.bundle import Bundle
from streamseg.errors import ConfigError
from streamseg.evaluation.pictures import PICTURES, listed, read_rgb, spread
from streamseg.ingest.frames import file_frames
from streamseg.synthetic import Street
from streamseg.types import U8, Frame

F32 = NDArray[np.float32]
UNTESTED = ("train", "val")
"""The splits of a labelled folder that calibration may look at; its test pictures are for measuring."""
PERCENTILE = 99.99
"""Of a picture's values this share is inside its tensor's range. The largest one wastes half of the 127 steps: measured
with s8 activations on street-edge, 99.2 % of the labels stay the same, against 98.8 % with the largest."""
FRAME_STEP = 25


@dataclass(frozen=True, slots=True)
class Pictures:
    """RGB u8 [H, W, 3] each, all of one size, and where they come from."""

    rgb: list[U8]
    name: str
    real: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.rgb[0].shape[1], self.rgb[0].shape[0]


def read(bundle: Bundle, source: Path | None, limit: int) -> Pictures:
    """At most `limit` pictures at the size that the bundle analyses the first of them at.

    `source` is a folder of pictures, a labelled folder (its train and val pictures), or a clip (every 25th frame);
    None draws the synthetic street. Raises ConfigError, SourceError.
    """
    if source is None:
        return Pictures(_streets(bundle, limit), "synthetic://street", real=False)
    if source.is_dir():
        files = spread(_stills(source), limit)
        if not files:
            raise ConfigError(
                f"{source}: no pictures ({', '.join(PICTURES)}) in it, nor in {' or '.join(UNTESTED)} of it"
            )
        found = [read_rgb(file) for file in files]
    elif source.is_file():
        found = _frames(source, limit)
    else:
        raise ConfigError(f"{source}: no such file or folder; give a folder of pictures, or a clip")
    size = bundle.fit(found[0].shape[1], found[0].shape[0])
    return Pictures([_resized(rgb, size) for rgb in found], source.name, real=True)


def _stills(folder: Path) -> list[Path]:
    """Of the splits first: beside them may lie a picture that is none of a camera's, such as eval's --confusion."""
    return [file for split in UNTESTED for file in listed(folder / split)] or listed(folder)


def _frames(clip: Path, limit: int) -> list[U8]:
    frames: Generator[Frame] = file_frames(clip)
    with closing(frames):
        some = islice(frames, 0, limit * FRAME_STEP, FRAME_STEP)
        found = [frame.picture.rgb(frame.picture.width, frame.picture.height) for frame in some]
    if not found:
        raise ConfigError(f"{clip}: there is no picture in it")
    return found


def _streets(bundle: Bundle, limit: int) -> list[U8]:
    size = bundle.fit(bundle.manifest.input.width, bundle.manifest.input.height)
    return [Street(seed, *size, 25.0).picture(500 * seed) for seed in range(limit)]


def _resized(rgb: U8, size: tuple[int, int]) -> U8:
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def normalised(bundle: Bundle, rgb: U8) -> F32:
    """The network's `image` f32 [1, 3, H, W] of a picture, as the program's head makes it."""
    entry = bundle.manifest.input
    scaled = (rgb.astype(np.float32) / 255 - np.asarray(entry.mean, np.float32)) / np.asarray(entry.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)


def ranges(network: onnx.ModelProto, tensors: Sequence[str], images: Iterable[F32]) -> dict[str, float]:
    """By tensor: the PERCENTILE of its magnitude, the mean of that over the pictures. One picture is in memory at a
    time. Raises ConfigError where a tensor is not finite or nothing ever is in it."""
    import onnxruntime

    told = onnx.ModelProto()
    told.CopyFrom(network)
    known = {output.name for output in told.graph.output}
    told.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors if name not in known)
    session = onnxruntime.InferenceSession(told.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, list[float]] = {name: [] for name in tensors}
    for image in images:
        for name, value in zip(tensors, session.run(list(tensors), {"image": image}), strict=True):
            found[name].append(_percentile(value))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    if broken := [name for name, value in means.items() if not np.isfinite(value)]:
        raise ConfigError(f"the network gives values that are not finite at {broken[0]}: it cannot be quantised")
    return {name: max(value, 1e-6) for name, value in means.items()}


def _percentile(value: F32) -> float:
    """A partition, in place of numpy's sort of everything."""
    flat = np.abs(value).ravel()
    place = min(flat.size - 1, int(np.ceil(PERCENTILE / 100 * (flat.size - 1))))
    return float(np.partition(flat, place)[place])
