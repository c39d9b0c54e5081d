"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from streamseg import bench_cli, building, engines_cli, eval_cli
from streamseg.commandline import Json, Overrides, configured, is_config
from streamseg.errors import ConfigError, StreamsegError

app = typer.Typer(
    name="streamseg",
    help="Camera streams in, steady segmentation masks out over ZeroMQ.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
engine_app = typer.Typer(help="The engines there are: list them, read a card, bring one in.", no_args_is_help=True)
app.add_typer(engine_app, name="engine")
app.add_typer(bench_cli.bench_app, name="bench")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of a write, which unlike opening a file names none."""


def main() -> None:
    """The entry point."""
    try:
        _command()
    except SystemExit as leaving:
        _leave(leaving.code)
        raise


def _leave(code: Any) -> None:
    """Ends the process at once if a thread is still held by a library, as by a connection attempt that nothing can
    interrupt. Libraries would be torn down while it runs in them, and now and then that is a segmentation fault."""
    if all(thread is threading.current_thread() or not thread.daemon for thread in threading.enumerate()):
        return
    with suppress(OSError, ValueError):  # nobody reads, or closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _command() -> None:
    """Every StreamsegError becomes one line on stderr and an exit code."""
    try:
        app()
    except SystemExit as leaving:
        # With 1 typer and rich leave when nobody reads any more, but `streamseg subscribe … | head` is no fault.
        if isinstance(leaving.__context__, BrokenPipeError):
            sys.exit(0)
        raise
    except StreamsegError as error:
        _fail(str(error), error.exit_code)
    except TimeoutError as error:
        _fail(str(error))
    except OSError as error:  # a folder that cannot be written to, a full disk
        if error.filename is None and error.errno not in _FULL:
            raise
        _fail(f"{error.filename or 'what was to be written'}: {error.strerror}")


def _fail(text: str, exit_code: int = 1) -> NoReturn:
    for line in text.splitlines():
        print(f"streamseg: error: {line}", file=sys.stderr)
    sys.exit(exit_code)


def _print_version(asked: bool) -> None:
    if asked:
        from streamseg import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


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
    smoothing: Annotated[str | None, typer.Option(help="off, average or adaptive.")] = None,
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

    \b
        streamseg run synthetic://street
        streamseg run rtsp://user:password@camera/stream --fps 5
        streamseg run cameras.yaml --set publish.bind=tcp://127.0.0.1:7000
    """
    from_file = is_config(source)
    config = configured(
        source,
        overrides,
        {
            "engine.name": engine,
            "smoothing.mode": smoothing,
            "publish.bind": bind,
            "publish.encoding": encoding,
            "publish.wait_subscriber": wait_subscriber or None,
        },
        fps,
    )
    from streamseg import service  # heavy: a slip on the command line is told before it

    service.log_to_stderr(verbose)
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
            if name in outcome.failed and not stream["frames"]:
                continue  # its error says it all
            dropped = ", ".join(f"{count} {reason}" for reason, count in stream["dropped"].items()) or "0"
            print(
                f"{name}: {stream['frames']} frames in, {stream['published']} published, dropped: {dropped}",
                file=sys.stderr,
            )
    if outcome.failed:
        raise next(iter(outcome.failed.values()))


@app.command()
def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG|SOURCE", help="The configuration, or one source.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Validate a configuration, load its engine, probe each camera and name what is wrong. Ends with 1 if one fails."""
    settings = configured(config, overrides)
    from streamseg import probe, security
    from streamseg.pipeline import engine_of

    security.check_bind(settings.publish)
    if settings.publish.curve is not None:
        security.server_keys(settings.publish.curve)
    engine = engine_of(settings)
    engine.prepare()
    serves = f"{engine.identity} on {engine.backend}"
    if not as_json:
        print(f"ok      engine {serves}", flush=True)
    reports = []
    for report in probe.streams(settings, engine):
        reports.append(report)
        if not as_json:
            print(f"{'ok' if report.ok else 'FAILED':<7} {report.stream}: {report.detail}", flush=True)
    if as_json:
        print(json.dumps({"engine": serves, "streams": [asdict(report) for report in reports]}))
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@app.command()
def subscribe(
    endpoint: Annotated[str, typer.Argument(help="Where a daemon publishes, such as tcp://127.0.0.1:5555.")],
    kind: Annotated[str, typer.Option(help="mask, labels, frame, picture, event or heartbeat.")] = "mask",
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream. Repeatable.")] = None,
    class_name: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class's masks. Repeatable.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many messages.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="End with 1 when nothing comes for this long (s).")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Take every message; by default only each topic's newest.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write each message into this folder (PNG or JPEG, and JSON).")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Draw what comes in this terminal.")] = False,
    server_key: Annotated[str | None, typer.Option(help="The daemon's CURVE public key (Z85).")] = None,
    key_file: Annotated[Path | None, typer.Option(help="This client's CURVE secret key file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message's header, JSON, a line each.")] = False,
) -> None:
    """Print, save or show what a daemon publishes.

    streamseg subscribe tcp://127.0.0.1:5555 --class pedestrian --stream gate
    streamseg subscribe tcp://127.0.0.1:5555 --kind frame --save pictures
    """
    from streamseg import subscriber, viewer

    with subscriber.subscribe(
        endpoint,
        kind=kind,
        streams=stream,
        classes=class_name,
        every=every,
        timeout=timeout,
        server_key=server_key,
        key_file=key_file,
    ) as messages:
        viewer.follow(messages, viewer.Output(as_json=as_json, save=save, show=show, count=count))


engine_app.command("list")(engines_cli.list_engines)
engine_app.command("info")(engines_cli.engine_info)
engine_app.command("import")(engines_cli.import_engine)
engine_app.command("build")(building.build_engine)
app.command("eval")(eval_cli.evaluate)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe.yaml; see engines/street-edge/recipe.yaml.")],
    out: Annotated[Path | None, typer.Option(help="The engine bundle to write [default: the recipe's folder].")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the labelled folders are, in place of their roots.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Fit the rest of the schedule into this time.")] = None,
    work: Annotated[Path | None, typer.Option(help="Checkpoint and log [default: runs/NAME].")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in the work folder, if there is one.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="[default: all cores]")] = None,
) -> None:
    """Train an engine. Ctrl-C keeps a checkpoint, and the same command goes on from it.

    streamseg train engines/street-edge/recipe.yaml
    """
    try:
        from streamseg import training
        from streamseg.training.bundle import claim, write_bundle
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs {error.name}; pip install 'streamseg[train]'") from None

    name = training.read_recipe(recipe).name
    work, out = work or Path("runs") / name, out or recipe.parent
    claim(out, name)
    checkpoint = work / "checkpoint.pt"
    try:
        trained = training.train(
            recipe,
            out=work,
            data_root=data,
            resume=resume and checkpoint.exists(),
            epochs=epochs,
            minutes=minutes,
            threads=threads,
        )
    except KeyboardInterrupt:
        kept = f"the same command goes on from {checkpoint}" if checkpoint.exists() else "nothing was trained yet"
        print(f"stopped: {kept}", file=sys.stderr)
        raise typer.Exit(130) from None
    bundle = write_bundle(trained, out, data, recipe.resolve().parent)
    print(f"{bundle.identity} written to {bundle.path}: mIoU {bundle.manifest.accuracy.get('miou', 'not measured')}")
