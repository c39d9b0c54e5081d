"""What the fronts of houses look like: bricks, windows, doors and shops, painted flat in metres."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streamseg.street.light import Light, Rgb
from streamseg.street.scene import Floats, House

Box = tuple[float, float, float, float]
"""Left, bottom, right, top: metres from the left and from the ground."""


def front(house: House, ppm: float, noise: Floats, light: Light) -> Floats:
    """The flat front: f32 [height * ppm, length * ppm, 3], top row first, before light falls on it."""
    rng = np.random.default_rng(house.seed)
    sheet = _Sheet(wall(rng, house, ppm, noise), ppm, rng, light.lamps, np.array(light.horizon))
    shop = "shop" in house.style
    storey = rng.uniform(2.7, 3.2)
    frame: Rgb = ((226, 224, 216), (60, 60, 62), (120, 84, 60), (220, 214, 200))[int(rng.integers(4))]
    if "glass" in house.style or "concrete" in house.style:
        sheet.office(house, storey + 0.5)
        return sheet.image
    count = max(int(house.length / rng.uniform(2.1, 3.0)), 1)
    ww, wh = rng.uniform(0.9, 1.35), rng.uniform(1.3, 1.75)
    door = int(rng.integers(count))
    level, floor = (1, 3.6) if shop else (0, 0.2)
    while floor + storey * 0.8 < house.height:
        for i in range(count):
            x = (i + 0.5) * house.length / count
            if level == 0 and i == door:
                sheet.door(x, frame)
            else:
                top = min(floor + 0.75 + wh, house.height - 0.35)
                sheet.window((x - ww / 2, floor + 0.75, x + ww / 2, top), frame, panes=1 + (ww > 1.1))
        floor += storey
        level += 1
    if shop:
        sheet.shop(house.length)
    sheet.rect((0, house.height - 0.28, house.length, house.height), np.array(house.paint) * 0.8)
    sheet.rect((0, house.height - 0.36, house.length, house.height - 0.28), np.array(house.paint) * 0.5)
    sheet.rect((0.08, 0, 0.18, house.height), (58, 56, 54))
    return sheet.image


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


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A front while it is painted, `ppm` pixels a metre; `lamps` are lit inside where it is dark."""

    image: Floats
    ppm: float
    rng: np.random.Generator
    lamps: bool
    sky: Floats

    def rect(self, box: Box, colour: Rgb | Floats) -> None:
        (x0, y0, x1, y1), ppm, h = box, self.ppm, self.image.shape[0]
        start, end = (round(x0 * ppm), round(h - y1 * ppm)), (round(x1 * ppm) - 1, round(h - y0 * ppm) - 1)
        cv2.rectangle(self.image, start, end, tuple(float(c) for c in colour), -1)

    def pick(self, *colours: Rgb) -> Floats:
        return np.array(colours[int(self.rng.integers(len(colours)))], np.float32)

    def mirrored(self, glass: Floats, share: float) -> Floats:
        """Glass in which so much of the sky is seen."""
        return glass + (self.sky - glass) * share

    def door(self, x: float, frame: Rgb) -> None:
        wood = self.pick((120, 30, 32), (34, 50, 76), (44, 66, 50), (60, 56, 52), (220, 218, 210))
        self.rect((x - 0.65, 0, x + 0.65, 2.75), np.array(frame) * 0.9)
        self.rect((x - 0.48, 0.12, x + 0.48, 2.15), wood)
        self.rect((x - 0.32, 0.3, x - 0.06, 1.0), wood * 0.75)
        self.rect((x + 0.06, 0.3, x + 0.32, 1.0), wood * 0.75)
        self.rect((x - 0.48, 2.22, x + 0.48, 2.6), (60, 66, 72))

    def window(self, box: Box, frame: Rgb, panes: int) -> None:
        rng, (x0, y0, x1, y1) = self.rng, box
        self.rect((x0 - 0.12, y0 - 0.14, x1 + 0.12, y0 - 0.02), np.array(frame) * 0.85)
        self.rect((x0 - 0.1, y1, x1 + 0.1, y1 + 0.22), np.array(frame) * 0.78)
        self.rect((x0 - 0.04, y0 - 0.04, x1 + 0.04, y1 + 0.02), (50, 48, 46))
        self.rect(box, frame)
        lit = self.lamps and rng.random() < 0.45
        dark = np.array((250, 205, 130) if lit else (38, 44, 50), np.float32) * rng.uniform(0.75, 1.15)
        shine = self.mirrored(dark, 0.0 if lit else rng.uniform(0.1, 0.45))
        w, h, e = x1 - x0, y1 - y0, 0.07
        for i in range(panes):
            for j, tone in enumerate((dark, shine)):
                a, b = x0 + w * i / panes, y0 + h * j / 2
                self.rect((a + e, b + e * 0.7, a + w / panes - e, b + h / 2 - e * 0.7), tone)
        if rng.random() < 0.45:  # a blind or curtains
            drop = rng.uniform(0.15, 0.7)
            cloths = ((206, 200, 188), (180, 170, 160), (150, 140, 130))
            cloth = np.array(cloths[int(rng.integers(3))]) * (1.1 if lit else 0.72)
            if rng.random() < 0.5:
                self.rect((x0 + e, y1 - drop * h, x1 - e, y1 - e), cloth)
            else:
                self.rect((x0 + e, y0 + e, x0 + e + w * 0.2, y1 - e), cloth)
                self.rect((x1 - e - w * 0.2, y0 + e, x1 - e, y1 - e), cloth)

    def shop(self, length: float) -> None:
        rng = self.rng
        colour = self.pick(
            (40, 70, 60), (120, 36, 36), (30, 44, 80), (40, 40, 42), (196, 180, 140), (170, 90, 30), (90, 110, 120)
        )
        self.rect((0.1, 0, length - 0.1, 3.5), colour * 0.8)
        self.rect((0.15, 2.75, length - 0.15, 3.4), colour)
        x = length * rng.uniform(0.2, 0.35)
        for _ in range(int(rng.integers(5, 11))):  # letters, too small to read
            w = rng.uniform(0.14, 0.3)
            self.rect((x, 2.93, x + w, 3.24), (230, 226, 210))
            self.rect((x + w * 0.35, 3.0, x + w * 0.7, 3.1), colour)
            x += w + 0.08
        door = rng.uniform(0.3, max(length - 1.4, 0.4))
        x = 0.3
        while x < length - 0.6:
            w = min(rng.uniform(1.2, 2.2), length - 0.3 - x)
            glass = np.array((210, 190, 150) if self.lamps or rng.random() < 0.25 else (58, 64, 68), np.float32)
            low = 0.1 if x <= door < x + w else 0.55
            self.rect((x, low, x + w - 0.1, 2.6), glass)
            self.rect((x, 1.7, x + w - 0.1, 2.6), self.mirrored(glass, 0.3))
            for _ in range(4):
                a, b, c = x + rng.uniform(0, w * 0.7), rng.uniform(0.6, 1.2), rng.uniform(0.15, 0.4)
                goods = (a, b, a + c, b + rng.uniform(0.2, 0.6))
                self.rect(goods, glass * rng.uniform(0.6, 1.8) + rng.uniform(0, 40, 3))
            x += w
        if rng.random() < 0.4:
            self.rect((0.2, 2.45, length - 0.2, 2.9), np.minimum(colour * 1.7 + 30, 240))

    def office(self, house: House, storey: float) -> None:
        rng, glassy = self.rng, "glass" in house.style
        count = max(int(house.length / rng.uniform(1.2, 2.4)), 1)
        pitch = house.length / count
        floor = 0.4
        tint = self.pick((70, 92, 106), (60, 74, 80), (84, 100, 98))
        edge, sill, lintel = (0.06, 0.08, 0.1) if glassy else (0.22, 0.85, 0.5)
        while floor + storey < house.height:
            if not glassy:
                self.rect((0, floor + storey - 0.25, house.length, floor + storey), np.array(house.paint) * 0.86)
            for i in range(count):
                lit = rng.random() < (0.4 if self.lamps else 0.06)
                pane = np.array((240, 220, 170), np.float32) if lit else tint * rng.uniform(0.55, 1.0)
                left, right = i * pitch + edge, (i + 1) * pitch - edge
                low, high = floor + sill, floor + storey - lintel
                self.rect((left, low, right, high), pane * 0.85)
                seen_from = low + (high - low) * rng.uniform(0.2, 0.8)
                sky = self.mirrored(pane, 0.05 if lit else rng.uniform(0.15, 0.5))
                self.rect((left, seen_from, right, high), sky)
            floor += storey
