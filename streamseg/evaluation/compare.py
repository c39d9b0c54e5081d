"""`streamseg eval` of several clips, or several ways of smoothing, side by side. Runs in the caller's thread."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from streamseg.config import Config
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError
from streamseg.evaluation.bar import bar
from streamseg.evaluation.evaluate import accuracy, class_ids
from streamseg.evaluation.panels import Panels
from streamseg.evaluation.scoring import ClipScore, Watch, rounded, score
from streamseg.evaluation.temporal import Entry, mean_lag
from streamseg.evaluation.truth import Truth, read_truth
from streamseg.motion import MotionGate
from streamseg.pipeline import engine_of, gate_of

MEASURES = {
    "inferred": "frames analysed",
    "miou": "mIoU",
    "miou_present": "mIoU of classes present",
    "pixel_accuracy": "pixel accuracy",
    "flicker": "flicker",
    "changed": "labels changed",
    "mvc8": "mVC8",
    "mvc16": "mVC16",
    "moving_iou": "moving mIoU",
    "moving_recall": "moving recall",
    "uncovered_recall": "uncovered recall",
    "foreground_iou": "foreground IoU",
    "foreground_recall": "foreground recall",
}
"""Shares, each with its name in the table, in its order."""


def run(
    configs: Mapping[str, Config], clips: Sequence[Path], *, foreground: Sequence[str] = (), video: Path | None = None
) -> dict[str, Any]:
    """Every configuration (a way of smoothing; by name, an empty name takes the engine's) over every clip.

    {"engine", "modes", "base", "clips": [{"data", "pictures", "modes": {mode: measures}}], "mean": {mode: measures},
    "change": {mode: {measure: {"points", "percent"}}}, "confusion": {mode: pixels [true][predicted] of all clips},
    "seconds"}. `mean` is over the clips, lags over all objects; `change` is against `base`, which is `off` or else the
    first mode. `video` (one clip only) shows the modes side by side. Raises ConfigError, EngineError, SourceError.
    """
    begin = time.monotonic()
    truths = [_truth(clip, watched=video is not None) for clip in clips]
    if video is not None and len(clips) > 1:
        raise ConfigError(f"--video shows one clip, not {len(clips)}")
    if video is not None and video.resolve() == clips[0].resolve():
        raise ConfigError(f"--video {video}: this is the clip itself; give another name")
    engines, gates = _runs(configs)
    first = next(iter(engines.values()))
    chosen = class_ids(first.classes, foreground)
    results: list[dict[str, ClipScore]] = []
    with ExitStack() as opened:
        lengths = [len(t) if t else None for t in truths]
        advance = opened.enter_context(bar("frames", None if None in lengths else sum(n or 0 for n in lengths)))
        watches: list[Watch] = [lambda *_: advance()]
        if video is not None:
            watches.append(opened.enter_context(Panels(video, first.classes, truths[0], first.view("file"))))
        for number, (clip, truth) in enumerate(zip(clips, truths, strict=True)):
            results.append(score(engines, clip, truth, foreground=chosen, number=number, gates=gates, watches=watches))
    rows = [{mode: _measures(s, first) for mode, s in result.items()} for result in results]
    base = "off" if "off" in engines else next(iter(engines))
    means = {mode: _mean(mode, rows, results) for mode in engines}
    return {
        "engine": first.identity,
        "modes": list(engines),
        "base": base,
        "clips": [
            {"data": str(clip), "pictures": next(iter(result.values())).frames, "modes": row}
            for clip, result, row in zip(clips, results, rows, strict=True)
        ],
        "mean": means,
        "change": {mode: _change(mode, base, means, rows, results) for mode in engines if mode != base},
        "confusion": {mode: _pixels(mode, results) for mode in engines},
        "seconds": round(time.monotonic() - begin, 2),
    }


def _truth(clip: Path, watched: bool) -> Truth | None:
    if not clip.is_file():
        raise ConfigError(f"{clip}: {'a folder' if clip.is_dir() else 'no such file'}; only clips can be compared")
    truth = read_truth(clip)
    if truth is None and not watched and clip.suffix.lower() in (".npz", ".png", ".jpg"):
        raise ConfigError(f"{clip}: not a clip")
    return truth


def _runs(configs: Mapping[str, Config]) -> tuple[dict[str, Engine], dict[str, MotionGate]]:
    """Engines, and the gates of those that skip still frames, by mode. One that is asked for twice, by its own name and
    as the engine's own, runs once."""
    engines: dict[str, Engine] = {}
    gates: dict[str, MotionGate] = {}
    for given, config in configs.items():
        engine = engine_of(config, threads=os.cpu_count() or 1)
        name = given or (engine.spec.mode if engine.spec.smooths else "off")
        engines[name] = engine
        if config.streams[0].motion.skip is True:
            gates[name] = gate_of(config.streams[0])
    return engines, gates


def _measures(scored: ClipScore, engine: Engine) -> dict[str, Any]:
    known = accuracy(scored.confusion, engine.classes) if scored.confusion.counts.any() else {}
    return known | scored.report()


def _mean(mode: str, rows: list[dict[str, Any]], results: list[dict[str, ClipScore]]) -> dict[str, Any]:
    """Over the clips that have the measure; lag over the objects of all clips, and how many there were."""
    mean: dict[str, Any] = {}
    for measure in MEASURES:
        values = [row[mode][measure] for row in rows if row[mode].get(measure) is not None]
        if values:
            mean[measure] = round(float(np.mean(values)), 5)
    entries = [entry for result in results for entry in result[mode].entries]
    if entries:
        undetected = sum(entry.lag is None for entry in entries)
        mean |= {"lag_frames": rounded(mean_lag(entries)), "objects": len(entries), "undetected": undetected}
    return mean


def _pixels(mode: str, results: list[dict[str, ClipScore]]) -> list[list[int]]:
    total: list[list[int]] = np.sum([result[mode].confusion.counts[:, :-1] for result in results], axis=0).tolist()
    return total


def _change(
    mode: str,
    base: str,
    means: dict[str, dict[str, Any]],
    rows: list[dict[str, Any]],
    results: list[dict[str, ClipScore]],
) -> dict[str, Any]:
    """Points (hundredths) and percent of the means, percent clip by clip; lag in frames, object by object."""
    change: dict[str, Any] = {}
    for measure in MEASURES.keys() & means[base].keys() & means[mode].keys():
        before, after = means[base][measure], means[mode][measure]
        pairs = [(row[base].get(measure), row[mode].get(measure)) for row in rows]
        change[measure] = {
            "points": round(100 * (after - before), 3),
            "percent": _percent(before, after),
            "percent_by_clip": [None if a is None or b is None else _percent(a, b) for a, b in pairs],
        }
    pairs_of_entries = [
        pair for result in results for pair in zip(result[base].entries, result[mode].entries, strict=True)
    ]
    if pairs_of_entries:
        change["lag"] = _lag_change(pairs_of_entries)
    return {measure: change[measure] for measure in (*MEASURES, "lag") if measure in change}


def _percent(before: float, after: float) -> float | None:
    return round(100 * (after / before - 1), 2) if before else None


def _lag_change(pairs: list[tuple[Entry, Entry]]) -> dict[str, Any]:
    """Only objects that both detected can be compared in frames; what one of them alone detected is counted."""
    both = [b.lag - a.lag for a, b in pairs if a.lag is not None and b.lag is not None]
    return {
        "frames": round(float(np.mean(both)), 3) if both else None,
        "worst_frames": max(both, default=None),
        "objects": len(both),
        "lost": sum(a.lag is not None and b.lag is None for a, b in pairs),
        "gained": sum(a.lag is None and b.lag is not None for a, b in pairs),
    }


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The means for people: one row a measure, shares in percent, a column a mode and one for each change."""
    rows = []
    for measure, title in MEASURES.items():
        if measure not in report["mean"][report["base"]]:
            continue
        row: dict[str, Any] = {"mean over clips": f"{title} %"}
        for mode in report["modes"]:
            share = report["mean"][mode].get(measure)  # one that never saw the foreground has no IoU of it
            row[mode] = "-" if share is None else f"{100 * share:.2f}"
            if mode != report["base"]:
                row[f"{mode} - {report['base']}"] = _told(measure, report["change"][mode].get(measure))
        rows.append(row)
    return rows + _lag_rows(report)


def _told(measure: str, change: dict[str, Any] | None) -> str:
    if change is None:
        return "-"
    if measure in ("flicker", "changed"):
        return "-" if change["percent"] is None else f"{change['percent']:+.1f} %"
    return f"{change['points']:+.2f} points"


def _lag_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    if "objects" not in report["mean"][report["base"]]:
        return []
    rows: list[dict[str, Any]] = [{"mean over clips": "lag, frames"}, {"mean over clips": "objects never detected"}]
    for mode in report["modes"]:
        mean = report["mean"][mode]
        rows[0][mode] = mean["lag_frames"]
        rows[1][mode] = f"{mean['undetected']} of {mean['objects']}"
        if mode != report["base"]:
            lag = report["change"][mode]["lag"]
            frames = "-" if lag["frames"] is None else f"{lag['frames']:+.2f} frames ({lag['objects']} objects)"
            rows[0][f"{mode} - {report['base']}"] = frames
            rows[1][f"{mode} - {report['base']}"] = f"{lag['lost']} lost, {lag['gained']} gained"
    return rows
