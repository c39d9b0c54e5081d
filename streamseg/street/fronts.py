"""What the fronts of houses look like: bricks, windows, doors and shops, painted flat in metres."""

from __future__ import annotations

import cv2
import numpy as np

from streamseg.street.light import Rgb
from streamseg.street.scene import Floats, House


def _rect(image: Floats, ppm: float, x0: float, y0: float, x1: float, y1: float, colour: Rgb | Floats) -> None:
    """Metres from the left and from the ground."""
    h = image.shape[0]
    cv2.rectangle(
        image,
        (round(x0 * ppm), round(h - y1 * ppm)),
        (round(x1 * ppm) - 1, round(h - y0 * ppm) - 1),
        tuple(float(c) for c in colour),
        -1,
    )


def wall(rng: np.random.Generator, house: House, ppm: float, noise: Floats) -> Floats:
    h, w = max(int(house.height * ppm), 4), max(int(house.length * ppm), 4)
    paint = np.array(house.paint, np.float32)
    tiles = cv2.resize(noise, (256, 256), interpolation=cv2.INTER_AREA)
    oy, ox = rng.integers(0, 256, 2)
    fine = np.tile(np.roll(tiles, (int(oy), int(ox)), (0, 1)), (h // 256 + 1, w // 256 + 1))[:h, :w]
    coarse = cv2.resize(np.roll(noise, (int(ox), int(oy)), (0, 1))[:128, :128], (w, h), interpolation=cv2.INTER_CUBIC)
    shade = 1 + 0.05 * fine + 0.07 * coarse
    if "brick" in house.style and ppm > 14:
        y, x = np.mgrid[0:h, 0:w].astype(np.float32) / ppm
        row = np.floor(y / 0.08)
        column = np.floor(x / 0.24 + 0.5 * np.mod(row, 2))
        shade += (np.mod(np.sin(row * 12.9 + column * 78.2) * 43758.5, 1) - 0.5).astype(np.float32) * 0.22
        mortar = (np.mod(y, 0.08) < 0.014) | (np.mod(x / 0.24 + 0.5 * np.mod(row, 2), 1) < 0.06)
        shade = np.where(mortar, 1.12 + 0.04 * fine, shade)
    rise = np.linspace(1.03, 0.9, h, dtype=np.float32)[:, None]
    out: Floats = paint * (shade * rise)[..., None]
    return out


def _window(
    image: Floats,
    ppm: float,
    rng: np.random.Generator,
    box: tuple[float, float, float, float],
    look: tuple[Rgb, int],
    lamps: bool,
    sky: Rgb,
) -> None:
    x0, y0, x1, y1 = box
    frame, panes = look
    _rect(image, ppm, x0 - 0.12, y0 - 0.14, x1 + 0.12, y0 - 0.02, np.array(frame) * 0.85)
    _rect(image, ppm, x0 - 0.1, y1, x1 + 0.1, y1 + 0.22, np.array(frame) * 0.78)
    _rect(image, ppm, x0 - 0.04, y0 - 0.04, x1 + 0.04, y1 + 0.02, (50, 48, 46))
    _rect(image, ppm, x0, y0, x1, y1, frame)
    lit = lamps and rng.random() < 0.45
    dark = np.array((250, 205, 130) if lit else (38, 44, 50), np.float32) * rng.uniform(0.75, 1.15)
    shine = dark + (np.array(sky) - dark) * (0.0 if lit else rng.uniform(0.1, 0.45))
    w, h, e = x1 - x0, y1 - y0, 0.07
    for i in range(panes):
        for j in range(2):
            a, b = x0 + w * i / panes, y0 + h * j / 2
            _rect(image, ppm, a + e, b + e * 0.7, a + w / panes - e, b + h / 2 - e * 0.7, dark if j == 0 else shine)
    if rng.random() < 0.45:  # a blind or curtains
        drop = rng.uniform(0.15, 0.7)
        cloth = np.array([(206, 200, 188), (180, 170, 160), (150, 140, 130)][int(rng.integers(3))]) * (
            1.1 if lit else 0.72
        )
        if rng.random() < 0.5:
            _rect(image, ppm, x0 + e, y1 - drop * h, x1 - e, y1 - e, cloth)
        else:
            _rect(image, ppm, x0 + e, y0 + e, x0 + e + w * 0.2, y1 - e, cloth)
            _rect(image, ppm, x1 - e - w * 0.2, y0 + e, x1 - e, y1 - e, cloth)


def _shop(image: Floats, ppm: float, rng: np.random.Generator, length: float, lamps: bool, sky: Rgb) -> None:
    colour = np.array(
        [(40, 70, 60), (120, 36, 36), (30, 44, 80), (40, 40, 42), (196, 180, 140), (170, 90, 30), (90, 110, 120)][
            int(rng.integers(7))
        ],
        np.float32,
    )
    _rect(image, ppm, 0.1, 0, length - 0.1, 3.5, colour * 0.8)
    _rect(image, ppm, 0.15, 2.75, length - 0.15, 3.4, colour)
    x = length * rng.uniform(0.2, 0.35)
    for _ in range(int(rng.integers(5, 11))):  # letters, too small to read
        w = rng.uniform(0.14, 0.3)
        _rect(image, ppm, x, 2.93, x + w, 3.24, (230, 226, 210))
        _rect(image, ppm, x + w * 0.35, 3.0, x + w * 0.7, 3.1, colour)
        x += w + 0.08
    door = rng.uniform(0.3, max(length - 1.4, 0.4))
    x = 0.3
    while x < length - 0.6:
        w = min(rng.uniform(1.2, 2.2), length - 0.3 - x)
        glass = np.array((210, 190, 150) if lamps or rng.random() < 0.25 else (58, 64, 68), np.float32)
        low = 0.1 if x <= door < x + w else 0.55
        _rect(image, ppm, x, low, x + w - 0.1, 2.6, glass)
        _rect(image, ppm, x, 1.7, x + w - 0.1, 2.6, glass + (np.array(sky) - glass) * 0.3)
        for _ in range(4):
            a, b, c = x + rng.uniform(0, w * 0.7), rng.uniform(0.6, 1.2), rng.uniform(0.15, 0.4)
            _rect(
                image,
                ppm,
                a,
                b,
                a + c,
                b + rng.uniform(0.2, 0.6),
                glass * rng.uniform(0.6, 1.8) + rng.uniform(0, 40, 3),
            )
        x += w
    if rng.random() < 0.4:
        _rect(image, ppm, 0.2, 2.45, length - 0.2, 2.9, np.minimum(colour * 1.7 + 30, 240))


def front(house: House, ppm: float, noise: Floats, lamps: bool, sky: Rgb) -> Floats:
    """The flat front: f32 [height * ppm, length * ppm, 3], top row first, before light falls on it."""
    rng = np.random.default_rng(house.seed)
    image = wall(rng, house, ppm, noise)
    shop = "shop" in house.style
    storey = rng.uniform(2.7, 3.2)
    frame: Rgb = ((226, 224, 216), (60, 60, 62), (120, 84, 60), (220, 214, 200))[int(rng.integers(4))]
    if "glass" in house.style or "concrete" in house.style:
        _office(image, ppm, rng, house, storey, lamps, sky)
        return image
    count = max(int(house.length / rng.uniform(2.1, 3.0)), 1)
    ww, wh = rng.uniform(0.9, 1.35), rng.uniform(1.3, 1.75)
    door = int(rng.integers(count))
    level, floor = (1, 3.6) if shop else (0, 0.2)
    while floor + storey * 0.8 < house.height:
        for i in range(count):
            x = (i + 0.5) * house.length / count
            if level == 0 and i == door:
                wood = np.array(
                    [(120, 30, 32), (34, 50, 76), (44, 66, 50), (60, 56, 52), (220, 218, 210)][int(rng.integers(5))],
                    np.float32,
                )
                _rect(image, ppm, x - 0.65, 0, x + 0.65, 2.75, np.array(frame) * 0.9)
                _rect(image, ppm, x - 0.48, 0.12, x + 0.48, 2.15, wood)
                _rect(image, ppm, x - 0.32, 0.3, x - 0.06, 1.0, wood * 0.75)
                _rect(image, ppm, x + 0.06, 0.3, x + 0.32, 1.0, wood * 0.75)
                _rect(image, ppm, x - 0.48, 2.22, x + 0.48, 2.6, (60, 66, 72))
                continue
            _window(
                image,
                ppm,
                rng,
                (x - ww / 2, floor + 0.75, x + ww / 2, min(floor + 0.75 + wh, house.height - 0.35)),
                (frame, 1 + (ww > 1.1)),
                lamps,
                sky,
            )
        floor += storey
        level += 1
    if shop:
        _shop(image, ppm, rng, house.length, lamps, sky)
    _rect(image, ppm, 0, house.height - 0.28, house.length, house.height, np.array(house.paint) * 0.8)
    _rect(image, ppm, 0, house.height - 0.36, house.length, house.height - 0.28, np.array(house.paint) * 0.5)
    _rect(image, ppm, 0.08, 0, 0.18, house.height, (58, 56, 54))
    return image


def _office(
    image: Floats, ppm: float, rng: np.random.Generator, house: House, storey: float, lamps: bool, sky: Rgb
) -> None:
    storey += 0.5
    glassy = "glass" in house.style
    pitch = rng.uniform(1.2, 2.4)
    count = max(int(house.length / pitch), 1)
    pitch = house.length / count
    floor = 0.4
    tint = np.array([(70, 92, 106), (60, 74, 80), (84, 100, 98)][int(rng.integers(3))], np.float32)
    while floor + storey < house.height:
        if not glassy:
            _rect(image, ppm, 0, floor + storey - 0.25, house.length, floor + storey, np.array(house.paint) * 0.86)
        for i in range(count):
            lit = rng.random() < (0.4 if lamps else 0.06)
            pane = np.array((240, 220, 170), np.float32) if lit else tint * rng.uniform(0.55, 1.0)
            edge = 0.06 if glassy else 0.22
            low, high = floor + (0.08 if glassy else 0.85), floor + storey - (0.1 if glassy else 0.5)
            _rect(image, ppm, i * pitch + edge, low, (i + 1) * pitch - edge, high, pane * 0.85)
            _rect(
                image,
                ppm,
                i * pitch + edge,
                low + (high - low) * rng.uniform(0.2, 0.8),
                (i + 1) * pitch - edge,
                high,
                pane + (np.array(sky) - pane) * (0.05 if lit else rng.uniform(0.15, 0.5)),
            )
        floor += storey
