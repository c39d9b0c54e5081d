"""The side-by-side video of `streamseg eval --video`: each run's labels, the truth, and what flickered. No thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from streamseg.engine.tiling import WHOLE, View
from streamseg.evaluation.scoring import Seen
from streamseg.evaluation.truth import Truth
from streamseg.ingest.record import Recorder
from streamseg.types import U8, ClassInfo, Frame

WIDEST = 640
"""Pixels across one panel at most: four of them are as wide as most screens."""
ALPHA = 0.5
"""Share of the class colour in the blend."""
FLICKERED = ((255, 40, 40), (255, 220, 0), (60, 200, 255))
"""RGB of what flickered in the first, second and third run; the later ones are drawn over the earlier."""


class Panels:
    """A watch for `score` that records what it sees; a context manager, which opens and closes the file."""

    def __init__(self, path: Path, classes: Sequence[ClassInfo], truth: Truth | None, view: View = WHOLE) -> None:
        """Of the part of the picture that `view` covers."""
        self._recorder = Recorder(path)
        self._view = view
        self._labels = truth.covered(view).labels if truth is not None else None
        self._colours = np.zeros((256, 3), np.uint8)
        self._classes = len(classes)
        self._size: tuple[int, int] | None = None
        for c in classes:
            self._colours[c.id] = c.colour

    def __enter__(self) -> Panels:
        self._recorder.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._recorder.__exit__(kind, error, at)

    def __call__(self, frame: Frame, number: int, seen: Mapping[str, Seen]) -> None:
        part = self._view.part(frame.picture.width, frame.picture.height)
        shown = part or frame.picture
        self._size = self._size or panel_size(shown.width, shown.height)
        picture = frame.picture.rgb(*self._size, part)
        panels = [_captioned(self._blended(picture, s.labels), mode) for mode, s in seen.items()]
        if self._labels is not None and number < len(self._labels):
            panels.append(_captioned(self._blended(picture, self._labels[number]), "truth"))
        why = "changed without cause" if self._labels is not None else "changed"
        panels.append(_flicker(picture, seen, why))
        self._recorder.write(np.ascontiguousarray(np.hstack(panels)), frame.media_ns)

    def _blended(self, picture: U8, labels: U8) -> U8:
        """Labels that are no class (void) keep the camera's own colours."""
        size = (picture.shape[1], picture.shape[0])
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        mixed = cv2.addWeighted(picture, 1 - ALPHA, self._colours[labels], ALPHA, 0)
        return np.where((labels < self._classes)[..., None], mixed, picture).astype(np.uint8)


def panel_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of one panel: even, at most WIDEST across, at the picture's aspect."""
    scale = min(1.0, WIDEST / width)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _flicker(picture: U8, seen: Mapping[str, Seen], why: str) -> U8:
    """The picture in dim grey, each run's flicker in a colour of its own."""
    size = (picture.shape[1], picture.shape[0])
    panel = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] // 3, 3, axis=2)
    colours = dict(zip(seen, cycle(FLICKERED), strict=False))
    for mode, run in seen.items():
        where = cv2.resize(run.flickered.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        panel[where > 0] = colours[mode]
    right = _caption(panel, f"{why}:")
    for mode, colour in colours.items():
        right = _caption(panel, mode, right, colour)
    return panel


def _captioned(panel: U8, text: str) -> U8:
    _caption(panel, text)
    return panel


def _caption(panel: U8, text: str, left: int = 0, colour: tuple[int, int, int] = (255, 255, 255)) -> int:
    """Writes on a dark box in the upper left corner, in place, from `left` on; returns where it ended."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, panel.shape[0] / 800)
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    margin = height // 2
    right: int = left + width + margin
    bottom = height + below + 2 * margin
    panel[:bottom, left : right + margin] //= 4
    cv2.putText(panel, text, (left + margin, height + margin), font, scale, colour, 1, cv2.LINE_AA)
    return right
