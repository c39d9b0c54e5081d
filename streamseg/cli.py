"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from streamseg.errors import ConfigError, StreamsegError

app = typer.Typer(
    name="streamseg",
    help="Camera streams in, steady segmentation masks out over ZeroMQ.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
engine_app = typer.Typer(help="The engines there are: list them, read a model card.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure this machine: every number is a ratio from one run.", no_args_is_help=True)
app.add_typer(engine_app, name="engine")
app.add_typer(bench_app, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object on stdout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any setting, such as streams[0].fps=5. Repeatable."),
]


def main() -> None:
    """The entry point: every StreamsegError becomes one line on stderr and an exit code."""
    try:
        app()
    except StreamsegError as error:
        for line in str(error).splitlines():
            print(f"streamseg: error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `streamseg subscribe … | head` is no fault
        sys.stderr.close()
        sys.exit(0)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from streamseg import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|CONFIG",
            help="A file, rtsp://…, http://…, /dev/video0, synthetic://street, or a .yaml configuration for many.",
        ),
    ],
    engine: Annotated[str | None, typer.Option(help="An engine's name or folder (see: streamseg engine list).")] = None,
    smoothing: Annotated[str | None, typer.Option(help="off or average.")] = None,
    bind: Annotated[str | None, typer.Option(help="Where to publish [default: tcp://127.0.0.1:5555].")] = None,
    fps: Annotated[float | None, typer.Option(help="Analyse at most this many frames a second of each stream.")] = None,
    encoding: Annotated[str | None, typer.Option(help="raw, deflate, zstd, png or coco-rle.")] = None,
    wait_subscriber: Annotated[
        bool,
        typer.Option("--wait-subscriber", help="Files only: hold the first frame for a subscriber, then lose nothing."),
    ] = False,
    overrides: Overrides = None,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the daemon: decode, segment, publish.

    Ends by itself with 0 when every source was a file and has ended. A live source that is lost is opened again;
    one given on the command line must answer the first time, one in a configuration is waited for.

        streamseg run synthetic://street
        streamseg run rtsp://user:password@camera/stream --fps 5
        streamseg run cameras.yaml --set publish.bind=tcp://127.0.0.1:7000
    """
    from streamseg import service

    service.log_to_stderr(verbose)
    config, from_file = _config(source, overrides or [], engine, smoothing, bind, fps, encoding, wait_subscriber)
    outcome = service.run(config, give_up_unopened=not from_file, show_status=not as_json)
    report: dict[str, Any] = {
        "seconds": round(outcome.seconds, 3),
        "streams": outcome.streams,
        "encoded": outcome.encoded,
        "failed": {name: str(error) for name, error in outcome.failed.items()},
    }
    if as_json:
        print(json.dumps(report))
    else:
        for name, stream in outcome.streams.items():
            dropped = ", ".join(f"{count} {reason}" for reason, count in stream["dropped"].items()) or "0"
            print(f"{name}: {stream['frames']} frames in, {stream['published']} published, dropped: {dropped}", file=sys.stderr)
    if outcome.failed:
        raise next(iter(outcome.failed.values()))


def _config(source: str, overrides: list[str], engine: Any, smoothing: Any, bind: Any, fps: Any, encoding: Any, wait: bool) -> Any:
    """The configuration of a bare source or of a file, with the options laid over it; and whether it was a file."""
    from streamseg.config import load, plain

    from_file = source.lower().endswith((".yaml", ".yml"))
    data = plain(Path(source)) if from_file else {"streams": [{"source": source}]}
    for key, value in {
        "engine.name": engine,
        "smoothing.mode": smoothing,
        "publish.bind": bind,
        "publish.encoding": encoding,
        "publish.wait_subscriber": wait or None,
    }.items():
        if value is not None:
            section, _, name = key.partition(".")
            data.setdefault(section, {})[name] = value
    if fps is not None:
        for stream in data["streams"]:
            stream["fps"] = fps
    return load(data, overrides, source if from_file else ""), from_file


@app.command()
def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG|SOURCE", help="The configuration, or one source.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Validate a configuration, load its engine, probe each camera and name what is wrong. Ends with 1 if one fails."""
    from streamseg import probe

    settings, _ = _config(config, overrides or [], None, None, None, None, None, False)
    reports = probe.all_streams(settings)
    if as_json:
        print(json.dumps({"engine": probe.engine(settings), "streams": [report.as_dict() for report in reports]}))
    else:
        print(f"engine   {probe.engine(settings)}")
        for report in reports:
            print(f"{'ok' if report.ok else 'FAILED':<8} {report.stream}: {report.detail}")
    if not all(report.ok for report in reports):
        raise typer.Exit(1)
