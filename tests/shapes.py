"""A small labelled data set and its recipe, for tests of training: a red box and a green disc on grey ground."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

CLASSES = ("ground", "box", "disc")


def drawn(seed: int, width: int = 96, height: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A grey ground with a red box and a green disc, and a corner that nobody labelled (7)."""
    rng = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), 110, np.uint8)
    labels = np.zeros((height, width), np.uint8)
    x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
    for target, red, green in ((rgb, (200, 40, 40), (40, 190, 60)), (labels, 1, 2)):
        cv2.rectangle(target, (x, y), (x + 30, y + 20), red, -1)
        cv2.circle(target, (width - 1 - x, height - 1 - y), 14, green, -1)
    labels[:4, :4] = 7
    return np.clip(rgb + rng.normal(0, 6, rgb.shape), 0, 255).astype(np.uint8), labels


def labelled(root: Path) -> Path:
    """`root` with 8 pictures to train on and 3 to test on."""
    for split, count in (("train", 8), ("test", 3)):
        (root / split).mkdir()
        (root / f"{split}annot").mkdir()
        for i in range(count):
            rgb, labels = drawn(i + 100 * (split == "test"))
            cv2.imwrite(str(root / split / f"{i:02}.png"), rgb[..., ::-1])
            cv2.imwrite(str(root / f"{split}annot" / f"{i:02}.png"), labels)
    return root


def write(path: Path, root: Path, **changes: Any) -> Path:
    """A recipe for `labelled(root)`, with these changes."""
    recipe = {
        "name": "tiny",
        "licence": "none",
        "data": "drawn by the test",
        "width": 96,
        "height": 64,
        "classes": classes(*CLASSES),
        "datasets": [{"kind": "folders", "root": str(root), "splits": ["train"]}],
        "report": {"kind": "folders", "root": str(root), "splits": ["test"]},
        "crop": [96, 64],
        "batch": 4,
        "epochs": 2,
        "warmup_epochs": 0,
        "ema": 0.5,
        "augment": {"scale": [0.9, 1.2]},
    } | changes
    path.write_text(yaml.safe_dump(recipe))
    return path


def classes(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "colour": [50 * (i % 5), 0, 0]} for i, name in enumerate(names)]


def palette(path: Path, values: list[list[int]], colours: list[tuple[int, int, int]], bits: int = 8) -> None:
    """A PNG of palette indices, as VOC's are; cv2 writes none."""
    rows = np.array(values, np.uint8)
    each = 8 // bits
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % each)))
    packed = sum(padded[:, i::each].astype(int) << (8 - bits * (i + 1)) for i in range(each))
    lines = b"".join(b"\0" + bytes(row.astype(np.uint8)) for row in np.atleast_2d(packed))
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, 3, 0, 0, 0)
    table = b"".join(bytes(c) for c in colours)
    chunks = [(b"IHDR", header), (b"PLTE", table), (b"tRNS", b"\0"), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    )
