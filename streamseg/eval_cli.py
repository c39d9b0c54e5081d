"""The command `eval`. Nothing heavy is imported before it needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamseg.commandline import Json, Overrides, configured, size_of, table
from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from streamseg.config import Config


def evaluate(
    engine: Annotated[str, typer.Argument(help="An engine's name or folder.")],
    data: Annotated[
        list[str],
        typer.Argument(
            help="A folder with SPLIT/ and SPLITannot/, clips with their labels in .npz, or synthetic://street."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which split of the folder.")] = "test",
    smoothing: Annotated[
        str | None,
        typer.Option(
            metavar="MODE[:STRENGTH][+skip],…",
            help="off, average:0.2, …; clips only. Several are compared. +skip: frames on which nothing moved are not "
            "analysed, as of live streams.",
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Analyse at this size, not the daemon's.")] = None,
    save_labels: Annotated[
        Path | None, typer.Option(help="One clip: write the label maps, u8 [F,H,W], to this .npz.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="One clip: write raw, smoothed, truth and flicker side by side.")
    ] = None,
    foreground: Annotated[
        str | None,
        typer.Option(metavar="CLASS,…", help="The classes that a clip's mask of moving objects (.npz) shows."),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(metavar="CLASS,…", help="Of labelled pictures: classes whose pixels do not count (void)."),
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="Draw which class is taken for which, in percent, to this picture.")
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Write the accuracy into the engine's manifest, as that on data of this name."
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Accuracy on labelled pictures; on clips also flicker, video consistency, moving objects and detection lag.

    streamseg eval street-edge ../shared/data/camvid --split test --json
    streamseg eval street-edge ../shared/data/camvid --confusion confusion.png
    streamseg eval street-edge gate.mp4 yard.mp4 --smoothing off,average
    streamseg eval street-edge gate.mp4 --smoothing adaptive,adaptive+skip
    streamseg eval street-edge gate.mp4 --video side-by-side.mp4
    """
    modes = smoothing.split(",") if smoothing else ["off", ""] if video else [""]
    configs = {}
    for mode in modes:
        name, _, strength = mode.removesuffix("+skip").partition(":")
        options = {"engine.name": engine, "engine.size": size_of(size) if size else None}
        options |= {"smoothing.mode": name or None, "smoothing.strength": strength or None}
        skip = ["streams[0].motion.skip=true"] if mode.endswith("+skip") else []
        configs[mode] = configured("synthetic://street", [*(overrides or []), *skip], options)
    shown, ignored = (names.split(",") if names else [] for names in (foreground, ignore))
    if confusion is not None:
        from streamseg import drawing

        drawing.check("--confusion", confusion, "confusion.png")
        if len(configs) > 1:
            raise ConfigError("--confusion takes one way of smoothing")
    if len(data) > 1 or len(configs) > 1 or video or modes[0].endswith("+skip"):
        if alone := [n for n, v in (("save-labels", save_labels), ("record", record), ("ignore", ignore)) if v]:
            raise ConfigError(f"--{alone[0]} takes one set of data and one way of smoothing")
        return _compared(configs, data, shown, video, confusion, as_json)
    from streamseg.evaluation import evaluate as evaluation

    report = evaluation.run(configs[modes[0]], data[0], split, save_labels, shown, ignored)
    if confusion is not None:
        of = f"{data[0]} {split}" if Path(data[0]).is_dir() else data[0]
        _draw_confusion(confusion, report.get("confusion"), engine, f"{report['engine']} on {of}")
    if record is not None:
        _record(engine, report, record)
    if "doubt" in report:
        print(f"warning: {report['doubt']}", file=sys.stderr)
    if as_json:
        return print(json.dumps(report))
    if "iou" in report:
        table([{"class": name, "IoU": iou} for name, iou in report["iou"].items()])
        print(f"mIoU {report['miou']}   pixel accuracy {report['pixel_accuracy']}")
    if "changed" in report:
        single = {k: v for k, v in report.items() if isinstance(v, int | float | None) and k != "seconds"}
        print("   ".join(f"{k} {v}" for k, v in single.items() if k not in ("miou", "pixel_accuracy", "pictures")))
    return print(f"{report['pictures']} pictures, {report['engine']}, {report['seconds']} s")


def _compared(
    configs: dict[str, Config],
    data: list[str],
    foreground: list[str],
    video: Path | None,
    confusion: Path | None,
    as_json: bool,
) -> None:
    from streamseg.evaluation import compare

    if urls := [each for each in data if "://" in each]:  # as a path it would be told with one slash
        raise ConfigError(f"{urls[0]}: no file; only clips can be compared")
    clips = [Path(each) for each in data]
    report = compare.run(configs, clips, foreground=foreground, video=video)
    if confusion is not None:
        (counts,) = report["confusion"].values()
        _draw_confusion(
            confusion, counts, next(iter(configs.values())).engine.name, f"{report['engine']} on {len(clips)} clips"
        )
    if as_json:
        return print(json.dumps(report))
    table(compare.table(report))
    pictures = sum(clip["pictures"] for clip in report["clips"])
    counted = f"{len(clips)} clip{'s' if len(clips) > 1 else ''}, {pictures} pictures"
    return print(f"{counted}, {report['engine']}, {report['seconds']} s")


def _draw_confusion(path: Path, counts: list[list[int]] | None, engine: str, title: str) -> None:
    from streamseg.engine.bundle import find
    from streamseg.evaluation import matrix
    from streamseg.evaluation.accuracy import Confusion

    classes = find(engine).classes
    matrix.write(path, Confusion.of(counts) if counts else Confusion(len(classes)), classes, title)


def _record(engine: str, report: dict[str, Any], data: str) -> None:
    from streamseg.engine.bundle import find, rewrite

    if report.get("miou") is None:
        raise ConfigError("--record: the data has no labels of the engine's classes")
    if "doubt" in report:
        raise ConfigError(f"--record: not recorded: {report['doubt']} (pixels that shall not count are labelled 255)")
    bundle = find(engine)
    if report["engine"] != bundle.identity:
        raise ConfigError("--record: this was int8's accuracy, not the model's; add --set engine.precision=bf16")
    accuracy = {"data": data, **{key: report[key] for key in ("pictures", "miou", "pixel_accuracy", "iou")}}
    rewrite(bundle, bundle.manifest.model_copy(update={"accuracy": accuracy}))
