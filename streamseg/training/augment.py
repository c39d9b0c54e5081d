"""Random changes to a labelled picture, made cheaply with cv2 (about 2 ms a picture). Runs in the loader's threads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from streamseg.training.recipe import Augment
from streamseg.types import U8

IGNORED = 255


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture `rgb` u8 [H, W, 3], its `labels` u8 [H, W], and what a teacher thinks, `soft` u8 [H/4, W/4, K]."""

    rgb: U8 = field(repr=False)
    labels: U8 = field(repr=False)
    soft: U8 | None = field(default=None, repr=False)


def augment(sample: Sample, crop: tuple[int, int], how: Augment, rng: np.random.Generator) -> Sample:
    """One crop of `crop` = (width, height); outside the picture is ignored (and all zero in `soft`)."""
    rgb = sample.rgb
    matrix, scale = _placement(rgb.shape[1], rgb.shape[0], crop, how, rng)
    soft = None if sample.soft is None else _warped(sample.soft, _quartered(matrix, rgb, sample.soft), crop)
    if scale < 0.75:  # linear sampling below 1/1.5 skips pixels: smooth first, as a camera's lens would
        rgb = cv2.blur(rgb, (2, 2)).astype(np.uint8)
    seen = cv2.warpAffine(rgb, matrix, crop, flags=cv2.INTER_LINEAR, borderValue=(124, 116, 104))
    truth = cv2.warpAffine(sample.labels, matrix, crop, flags=cv2.INTER_NEAREST, borderValue=IGNORED)
    return Sample(_camera(_colours(np.asarray(seen, np.uint8), how, rng), how, rng), np.asarray(truth, np.uint8), soft)


def _quartered(matrix: np.ndarray, rgb: U8, soft: U8) -> np.ndarray:
    """`matrix` between pixels of `soft` and of a quarter of the crop. Pixel i of n lies at (i + 1/2) / n."""
    factor = np.array([rgb.shape[1] / soft.shape[1], rgb.shape[0] / soft.shape[0]])
    turn, shift = matrix[:, :2], matrix[:, 2]
    return np.column_stack([turn * factor / 4, (turn @ (factor / 2 - 0.5) + shift + 0.5) / 4 - 0.5])


def _warped(soft: U8, matrix: np.ndarray, crop: tuple[int, int]) -> U8:
    """u8 [crop height / 4, crop width / 4, K]. warpAffine takes at most 4 channels at a time."""
    size = (crop[0] // 4, crop[1] // 4)
    groups = [np.ascontiguousarray(soft[..., i : i + 4]) for i in range(0, soft.shape[2], 4)]
    parts = [cv2.warpAffine(group, matrix, size, flags=cv2.INTER_LINEAR) for group in groups]
    return np.concatenate([np.asarray(p, np.uint8).reshape(*p.shape[:2], -1) for p in parts], 2)


def _placement(
    width: int, height: int, crop: tuple[int, int], how: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The 2x3 matrix from picture to crop, and its scale: scale, aspect, rotation, flip, then a random place."""
    scale = math.exp(rng.uniform(math.log(how.scale[0]), math.log(how.scale[1])))
    aspect = how.aspect ** rng.uniform(-0.5, 0.5)
    angle = math.radians(rng.uniform(-how.rotate_degrees, how.rotate_degrees))
    sx, sy = scale * aspect * (-1 if rng.random() < how.flip else 1), scale / aspect
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) @ np.diag([sx, sy])
    spare = np.array([crop[0] - width * abs(sx), crop[1] - height * sy])
    shift = np.array(crop) / 2 + spare * rng.uniform(-0.5, 0.5, 2) - turn @ np.array([width / 2, height / 2])
    return np.column_stack([turn, shift]), scale


def _colours(rgb: U8, how: Augment, rng: np.random.Generator) -> U8:
    """Exposure, contrast, gamma and white balance in one table look-up; now and then no colour (night)."""
    if rng.random() < how.colour:
        ramp = np.linspace(0, 1, 256)[:, None] ** math.exp(rng.uniform(-0.5, 0.5))
        gain = rng.uniform(0.7, 1.4) * rng.uniform(0.9, 1.1, 3)
        table = np.clip(((ramp - 0.4) * gain + 0.4 + rng.uniform(-0.12, 0.12)) * 255, 0, 255).astype(np.uint8)
        rgb = np.asarray(cv2.LUT(rgb, table.reshape(256, 1, 3)), np.uint8)
    if rng.random() < how.grey:
        rgb = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    return rgb


def _camera(rgb: U8, how: Augment, rng: np.random.Generator) -> U8:
    """What cheap cameras do to a picture: blur, sensor noise, compression."""
    if rng.random() < how.blur:
        rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.5, 1.5)), np.uint8)
    if rng.random() < how.noise:
        grain = rng.integers(0, 256, rgb.shape, np.uint8).astype(np.int16) - 128  # uniform is as good, and 10x faster
        rgb = np.clip(rgb + (grain * int(rng.integers(4, 28)) >> 7), 0, 255).astype(np.uint8)
    if rng.random() < how.jpeg:
        quality = int(rng.integers(15, 70))
        rgb = np.asarray(cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1), np.uint8)
    return rgb
