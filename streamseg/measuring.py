"""The commands that measure: `eval` and `bench`. Nothing heavy is imported before a command needs it."""

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

bench_app = typer.Typer(help="Measure this machine; see deploy/BENCHMARKS.md.", no_args_is_help=True)


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


@bench_app.command("pipeline")
def bench_pipeline(
    source: Annotated[str, typer.Argument(help="A file, or synthetic://street?pace=max&frames=500.")],
    engine: Annotated[str, typer.Option(help="An engine's name or folder.")] = "street-edge",
    streams: Annotated[int, typer.Option(min=1, help="Copies of the source, side by side.")] = 1,
    paced: Annotated[bool, typer.Option("--paced", help="Play each at its own rate instead of flat out.")] = False,
    seconds: Annotated[float, typer.Option(min=3, help="Paced: end after this long.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions; the median one is reported.")] = 3,
    stage_frames: Annotated[int, typer.Option(min=1, help="Frames over which each stage alone is timed.")] = 200,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Alternate with the loop one would write by hand.")
    ] = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """The whole pipeline against the sum of its stages' CPU time, with one subscriber to pictures and label maps.

    bound = cores / (CPU seconds that the stages need alone, one thread each); efficiency = FPS / bound.

    \b
        streamseg bench pipeline clip-1080p.mp4 --baseline
        streamseg bench pipeline "synthetic://street?fps=25" --paced --seconds 20
    """
    from streamseg.bench import pipeline as bench

    plan = bench.Plan(source, engine, streams, paced, seconds, rounds, stage_frames, baseline, tuple(overrides or ()))
    report = bench.run(plan, lambda line: print(line, file=sys.stderr))
    print(json.dumps(report) if as_json else bench.text(report))


@bench_app.command("engine")
def bench_engine(
    engines: Annotated[
        list[str] | None, typer.Argument(help="Engines' names or folders [default: street-edge].")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME,…", help="auto, openvino, onnxruntime, torch, torch-cuda, torch-inductor, tensorrt."
        ),
    ] = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME,…", help="auto, fp32, bf16, fp16, int8.")] = "auto",
    threads: Annotated[str, typer.Option(metavar="N,…", help="Inference threads.")] = "1",
    smoothing: Annotated[str | None, typer.Option(metavar="MODE,…", help="[default: off and the engine's own]")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="[default: the engine's own, at 16:9]")] = None,
    batch: Annotated[str, typer.Option(metavar="N,…", help="Pictures at once, of backends that batch.")] = "1",
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each combination.")] = 200,
    plot: Annotated[Path | None, typer.Option(help="Draw mIoU against milliseconds to this picture.")] = None,
    published: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Mark these too as published by others, as imported ones are.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown, threads side by side.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Milliseconds of every combination: the whole program, its network and its upsampling alone.

    The ways of smoothing take turns, and their cost is told in percent of the time without. Of GPU backends also
    without transfers, with batches overlapping, and beside the floor: what the device copies and multiplies at best.

    \b
        streamseg bench engine street-edge --precision fp32,bf16 --threads 1,2
        streamseg bench engine street-edge --backend torch-cuda,tensorrt --batch 1,8,32 --smoothing off
        streamseg bench engine street-edge people-vehicles --smoothing off --threads 1,2 --plot engines.png --markdown
    """
    from streamseg import drawing
    from streamseg.bench import engine as bench
    from streamseg.bench import plot as plots
    from streamseg.bench import told

    if plot is not None:
        drawing.check("--plot", plot, "engines.png")
    plan = bench.Plan(
        engines=tuple(engines or ["street-edge"]),
        backends=tuple(backend.split(",")),
        precisions=tuple(precision.split(",")),
        threads=tuple(_whole(threads, "--threads")),
        smoothing=tuple(smoothing.split(",")) if smoothing else (),
        size=size_of(size) if size else None,
        batches=tuple(_whole(batch, "--batch")),
        runs=runs,
        published=tuple(published.split(",")) if published else (),
    )
    report = bench.run(plan, lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(report))
    elif markdown:
        print(told.markdown(report))
    else:
        print(told.above(report))
        table(told.table(report))
        if gpu := told.on_gpu(report):
            print(told.above_gpu(report))
            table(gpu)
    if plot is not None:  # last: where it cannot be drawn, the numbers are told all the same
        plots.write_plot(plot, report)


def _whole(text: str, option: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"{option}: {text!r} is not made of whole numbers from 1 on")
    return [int(part) for part in parts]
