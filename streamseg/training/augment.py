"""Random changes to a labelled picture, made cheaply with cv2 (about 2 ms a picture). Runs in the loader's threads."""

from __future__ import annotations

import math

import cv2
import numpy as np

from streamseg.training.recipe import Augment
from streamseg.types import U8

IGNORED = 255


def augment(rgb: U8, labels: U8, crop: tuple[int, int], how: Augment, rng: np.random.Generator) -> tuple[U8, U8]:
    """One crop of `crop` = (width, height): (rgb u8 [h, w, 3], labels u8 [h, w]); outside the picture is ignored."""
    matrix, scale = _placement(rgb.shape[1], rgb.shape[0], crop, how, rng)
    if scale < 0.75:  # linear sampling below 1/1.5 skips pixels: smooth first, as a camera's lens would
        rgb = cv2.blur(rgb, (2, 2)).astype(np.uint8)
    seen = cv2.warpAffine(rgb, matrix, crop, flags=cv2.INTER_LINEAR, borderValue=(124, 116, 104))
    truth = cv2.warpAffine(labels, matrix, crop, flags=cv2.INTER_NEAREST, borderValue=IGNORED)
    return _camera(_colours(np.asarray(seen, np.uint8), how, rng), how, rng), np.asarray(truth, np.uint8)


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
