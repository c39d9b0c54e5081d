"""A clip's measures: every engine given runs over the same frames, as the daemon would run it. No thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError
from streamseg.evaluation.accuracy import Confusion
from streamseg.evaluation.temporal import (
    Consistency,
    Entries,
    Entry,
    Flicker,
    ForegroundAccuracy,
    Mask,
    MovingAccuracy,
    mean_lag,
)
from streamseg.evaluation.truth import Truth
from streamseg.ingest.frames import file_frames
from streamseg.motion import MotionGate
from streamseg.types import U8, Frame


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame of one run, for whoever watches: the label map as the engine gave it, and where it flickered (at the
    size of the truth, where there is one)."""

    labels: U8
    flickered: Mask


Watch = Callable[[Frame, int, Mapping[str, Seen]], None]
"""Called for every frame with its number and what each run saw."""


class ClipScore:
    """All measures of one run over one clip. `foreground` are the class ids that a mask of moving objects is held
    against, where the truth is such a mask."""

    def __init__(self, names: Sequence[str], truth: Truth | None, foreground: Sequence[int] = ()) -> None:
        self._names, self._truth, self._chosen = list(names), truth, foreground
        self.frames = self.inferred = 0
        self.confusion = Confusion(len(names))
        self._flicker = Flicker(len(names))
        self._consistency = Consistency(len(names))
        self._moving = MovingAccuracy(len(names))
        self._entries = Entries(len(names))
        self._foreground = ForegroundAccuracy(foreground)

    def add(self, predicted: U8) -> Seen:
        """The next frame's label map u8 [h, w], stretched to the truth's size. Frames past the truth only flicker."""
        index, truth = self.frames, self._truth
        self.frames += 1
        if truth is None or index >= len(truth):
            return Seen(predicted, self._flicker.add(predicted))
        raw, predicted = predicted, stretched(predicted, truth.shape)
        if truth.labels is None:
            return Seen(raw, self._against_foreground(predicted, index))
        true = truth.labels[index]
        self.confusion.add(predicted, true)
        self._consistency.add(predicted, true)
        if truth.moving is not None:
            self._moving.add(predicted, true, truth.moving[index])
            self._entries.add(predicted, true, truth.moving[index])
        return Seen(raw, self._flicker.add(predicted, true))

    def _against_foreground(self, predicted: U8, index: int) -> Mask:
        """What is no moving object in either of two frames is background that stood still: its label must too."""
        assert self._truth is not None
        assert self._truth.foreground is not None
        foreground = self._truth.foreground[index]
        if len(self._chosen):
            self._foreground.add(predicted, foreground)
        return self._flicker.add(predicted, np.where(foreground == 0, np.uint8(0), np.uint8(255)))

    @property
    def entries(self) -> list[Entry]:
        return self._entries.entries

    def report(self) -> dict[str, Any]:
        """The measures that this clip's truth allows, 0..1 but `lag_frames`; None where nothing could be counted."""
        report: dict[str, Any] = {"inferred": rounded(self.inferred / max(1, self.frames))}
        report["changed"] = rounded(self._flicker.changed())
        if self._truth is None:
            return report
        report["flicker"] = rounded(self._flicker.share())
        if self._truth.labels is not None:
            report |= {"mvc8": rounded(self._consistency.mvc(8)), "mvc16": rounded(self._consistency.mvc(16))}
        if self._truth.moving is not None:
            classes = zip(self._names, self._moving.iou(), strict=True)
            report |= {
                "moving_iou": rounded(self._moving.miou()),
                "moving_class_iou": {name: rounded(iou) for name, iou in classes if np.isfinite(iou)},
                "moving_recall": rounded(self._moving.recall()),
                "uncovered_recall": rounded(self._moving.uncovered_recall()),
                "lag_frames": rounded(mean_lag(self.entries)),
                "objects": len(self.entries),
                "undetected": sum(entry.lag is None for entry in self.entries),
            }
        if self._truth.foreground is not None and len(self._chosen):
            report |= {
                "foreground_iou": rounded(self._foreground.iou()),
                "foreground_recall": rounded(self._foreground.recall()),
            }
        return report


def score(
    engines: Mapping[str, Engine],
    clip: Path,
    truth: Truth | None,
    *,
    foreground: Sequence[int] = (),
    number: int = 0,
    gates: Mapping[str, MotionGate] | None = None,
    watches: Sequence[Watch] = (),
) -> dict[str, ClipScore]:
    """Every engine over every frame, decoded once. Clips that follow each other through the same engines take another
    `number` each, so that nothing is carried over. An engine with a gate skips frames on which nothing moved.
    Raises ConfigError when the truth has another number of frames."""
    scores = {
        n: ClipScore([c.name for c in e.classes], truth and truth.covered(e.view("file")), foreground)
        for n, e in engines.items()
    }
    frames = 0
    for decoded in file_frames(clip, skip_still=bool(gates)):
        frame = replace(decoded, state_key=number * 1_000_000 + decoded.state_key)
        seen = {n: scores[n].add(_labels(e, frame, (gates or {}).get(n), scores[n])) for n, e in engines.items()}
        for watch in watches:
            watch(frame, frames, seen)
        frames += 1
    if truth is not None and frames != len(truth):
        raise ConfigError(f"{clip} has {frames} frames, but {truth.path.name} has labels for {len(truth)}")
    return scores


def _labels(engine: Engine, frame: Frame, gate: MotionGate | None, scored: ClipScore) -> U8:
    result = gate.reuse(frame) if gate else None
    if result is None:
        result = engine.run([frame])[0]
        scored.inferred += 1
        if gate:
            gate.keep(result)
    return result.labels


def stretched(labels: U8, shape: tuple[int, ...]) -> U8:
    """`labels` at (height, width) `shape`, by nearest neighbour."""
    if labels.shape == shape:
        return labels
    return np.asarray(cv2.resize(labels, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST), np.uint8)


def rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
