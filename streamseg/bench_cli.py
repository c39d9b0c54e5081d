"""The commands `bench …`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamseg.commandline import Json, Overrides, size_of, table
from streamseg.errors import ConfigError

bench_app = typer.Typer(help="Measure this machine; see deploy/BENCHMARKS.md.", no_args_is_help=True)


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


@bench_app.command("streams")
def bench_streams(
    source: Annotated[
        str, typer.Argument(help="A file, a camera's URL, or `synthetic`: the street at 1080p.")
    ] = "synthetic",
    engine: Annotated[str, typer.Option(help="An engine's name or folder.")] = "street-edge",
    p95_ms: Annotated[float, typer.Option(min=1, help="The latency that 95 of 100 messages must hold.")] = 100,
    fps: Annotated[
        float | None, typer.Option(min=1, max=240, help="Play it at this rate [default: its own; 25 of the street].")
    ] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="Try no more cameras than this.")] = 512,
    seconds: Annotated[float, typer.Option(min=1, help="Measured of each step.")] = 10,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds left out before, once every camera runs.")] = 3,
    subscribe: Annotated[
        str, typer.Option(metavar="KIND,…", help="frame (overlay and JPEG), picture (JPEG), labels.")
    ] = "frame,labels",
    watched: Annotated[
        int | None, typer.Option(min=1, help="Subscribe to so many cameras only [default: to all].")
    ] = None,
    motion_skip: Annotated[
        bool, typer.Option("--motion-skip", help="Let frames on which nothing moved go without inference.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw latency over cameras to this picture.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """The most cameras that hold a p95 latency, from a packet's arrival to the message at a subscriber.

    Each step is a run of the real pipeline in a process of its own; cameras play the source at its own rate, not in
    step. One that drops a frame, or falls behind, does not hold, and no rate is told of it. Ends with 1 if not one
    camera holds.

    \b
        streamseg bench streams
        streamseg bench streams gate-1080p.mp4 --p95-ms 80 --fps 30 --plot cameras.png
        streamseg bench streams --subscribe labels --set engine.backend=tensorrt
    """
    from streamseg import drawing
    from streamseg.bench import streams, streams_plot

    if plot is not None:
        drawing.check("--plot", plot, "engines.png")
    plan = streams.Plan(
        source=source,
        engine=engine,
        p95_ms=p95_ms,
        fps=fps,
        limit=most,
        seconds=seconds,
        warm_up_s=warm_up,
        kinds=tuple(subscribe.split(",")),
        watched=watched,
        motion_skip=motion_skip,
        overrides=tuple(overrides or ()),
    )
    report = streams.run(plan, lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(report))
    else:
        print(streams.text(report))
        table(streams.table(report))
        print(streams.verdict(report))
    if plot is not None:  # last: where it cannot be written, the numbers are told all the same
        streams_plot.write_plot(plot, report)
    if not report["cameras"]:
        raise typer.Exit(1)


@bench_app.command("stages")
def bench_stages(
    source: Annotated[str, typer.Argument(help="A file, or synthetic://street?size=1920x1080.")],
    engine: Annotated[str, typer.Option(help="An engine's name or folder.")] = "street-edge",
    frames: Annotated[int, typer.Option(min=1, help="Over which each stage is timed.")] = 200,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Each stage of a frame's way alone: decoding, scaling, engine, labels, overlay, JPEG, encoding, publishing.

    \b
        streamseg bench stages gate-1080p.mp4
        streamseg bench stages "synthetic://street?size=1920x1080" --set engine.precision=fp32
    """
    from streamseg.bench import stages

    report = stages.run(source, engine, frames, tuple(overrides or ()))
    if as_json:
        return print(json.dumps(report))
    print(stages.text(report))
    table(stages.table(report))
    return print(f"sum of a frame's way: {report['sum_cpu_ms']:.2f} CPU ms")


@bench_app.command("clip")
def bench_clip(
    out: Annotated[Path, typer.Argument(help="The file to write, such as street-1080p.mp4.")],
    size: Annotated[str, typer.Option(metavar="WxH", help="Its pictures.")] = "1920x1080",
    fps: Annotated[float, typer.Option(min=1, max=240)] = 25,
    seconds: Annotated[float, typer.Option(min=0.1, help="Drawing takes about 60 ms a picture of 1080p.")] = 20,
) -> None:
    """Write the synthetic street as a camera would send it (H.264, 4 Mbit/s at 1080p25), to measure with anywhere.

    \b
        streamseg bench clip street-1080p.mp4 && streamseg bench pipeline street-1080p.mp4 --baseline
    """
    from streamseg.bench import clip
    from streamseg.synthetic import StreetSpec

    spec = StreetSpec.from_url(f"synthetic://street?size={size}&fps={fps}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    clip.write(spec, out, seconds)
    print(f"{out}: {spec.width}x{spec.height}, {fps:g} FPS, {seconds:g} s, {out.stat().st_size / 1e6:.1f} MB")


@bench_app.command("network")
def bench_network(
    architecture: Annotated[str, typer.Argument(help="Such as bisenetv2, ddrnet23-slim, unet; see streamseg/models.")],
    out: Annotated[Path, typer.Argument(help="The folder of the engine to write.")],
    size: Annotated[str, typer.Option(metavar="WxH", help="What pictures are analysed at.")] = "1024x512",
    classes: Annotated[int, typer.Option(min=2, max=255)] = 19,
) -> None:
    """Write an engine with untrained weights: how fast an architecture is does not hang on what it has learned.

    \b
        streamseg bench network bisenetv2 bisenetv2 && streamseg bench engine ./bisenetv2 --size 1024x512
    """
    chosen = size_of(size)
    try:
        from streamseg.bench.torch_untrained import write_engine

        bundle = write_engine(architecture, out, classes, chosen)
    except ModuleNotFoundError as error:
        raise ConfigError(f"this needs {error.name}; pip install 'streamseg[train]'") from None
    manifest = bundle.manifest
    counted = f"{(manifest.parameters or 0) / 1e6:.2f} M parameters"
    counted += "" if manifest.gmac is None else f", {manifest.gmac:.2f} GMAC at {size}"
    print(f"{bundle.identity} written to {out}: {counted}")


def _whole(text: str, option: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"{option}: {text!r} is not made of whole numbers from 1 on")
    return [int(part) for part in parts]
