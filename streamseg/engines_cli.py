"""The commands about engines: `engine list`, `info`, `import`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer

from streamseg.commandline import Json, size_of
from streamseg.errors import ConfigError


def list_engines(
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time engines whose speed here is not known yet.")
    ] = True,
    again: Annotated[bool, typer.Option("--again", help="Time all anew, such as after a busy moment.")] = False,
    as_json: Json = False,
) -> None:
    """The engines there are: what they are for, their size, their accuracy, and their speed on this machine.

    The speed is measured at first sight and remembered: one picture of a 16:9 camera to its label map, on one thread,
    with the backend and the precision that the daemon would choose.
    """
    from rich.console import Console

    from streamseg import cards, catalogue

    with Console(stderr=True).status("reading the engines") as status:
        rows = list(catalogue.rows(status.update, measure=measure, again=again))
    if as_json:
        return print(json.dumps(rows))
    return cards.show_list(rows)


def engine_info(
    name: Annotated[str, typer.Argument(help="An engine's name or folder.")], as_json: Json = False
) -> None:
    """An engine's facts, its classes with their colours and accuracy, its files, and its model card."""
    from streamseg import cards, catalogue
    from streamseg.engine.bundle import find

    bundle = find(name)
    facts = catalogue.facts(bundle)
    if as_json:
        return print(json.dumps(facts))
    card = bundle.path / "README.md"
    return cards.show_card(facts, card.read_text(errors="replace") if card.is_file() else "")


def import_engine(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="An .onnx model, or a checkpoint (.pth, .pt).")],
    classes: Annotated[
        str,
        typer.Option(
            help="voc, cityscapes, camvid, …; names with commas between; or a file, a name a line, YAML, JSON."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The engine's name [default: the file's].")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder [default: engines/NAME].")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="The size it is meant for; needed if any goes.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="One number or three, of pixels in 0..1 or 0..255.")] = None,
    std: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    pixels: Annotated[str | None, typer.Option(help="0..1, 0..255 or -1..1, in place of --mean and --std.")] = None,
    bgr: Annotated[
        bool, typer.Option("--bgr", help="The model takes blue, green, red (so do its mean and std).")
    ] = False,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Of one size only: stretch other aspects to it, in place of padding.")
    ] = False,
    layout: Annotated[str | None, typer.Option(help="nchw or nhwc [default: found out].")] = None,
    output: Annotated[str | None, typer.Option(help="Which output is the segmentation [default: found out].")] = None,
    architecture: Annotated[str | None, typer.Option(help="Of a checkpoint: bisenetv2, espnetv2, …")] = None,
    picture: Annotated[str | None, typer.Option(help="Prove it on this picture or clip [default: the street].")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "not stated",
    data: Annotated[str, typer.Option(help="What it was trained on.")] = "not stated",
    description: Annotated[str, typer.Option(help="For the model card.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an engine of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Make an engine of a published network, and prove it on a picture.

    Any ONNX segmentation model goes: NCHW or NHWC, bytes or floats, logits, probabilities or labels, any stride. What
    is not said is found out, and told. The engine's labels must agree with the model's own.

    \b
        streamseg engine import deeplab.onnx --classes voc --licence Apache-2.0
        streamseg engine import fcn.onnx --classes names.txt --size 512x288 --mean 123.7,116.3,103.5 --std 58.4
        streamseg engine import espnetv2.pth --architecture espnetv2 --classes voc --size 512x384
    """
    from streamseg.importing import bundling, prove
    from streamseg.importing import classes as known
    from streamseg.importing.heads import Layout, Pixels, Wish

    called = name or bundling.name_of(source)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", called) or called.strip(".") == "":
        raise ConfigError(f"--name {called!r}: letters, digits, _ . and - only, at most 64")
    wish = Wish(
        size=size_of(size) if size else None,
        layout=cast("Layout | None", _one_of("--layout", layout, ("nchw", "nhwc"))),
        mean=bundling.triple(mean, "--mean"),
        std=bundling.triple(std, "--std"),
        pixels=cast("Pixels | None", _one_of("--pixels", pixels, ("0..1", "0..255", "-1..1"))),
        bgr=bgr,
        stretch=stretch,
    )
    request = bundling.Request(
        source=source,
        classes=known.parse(classes),
        wish=wish,
        folder=out or Path("engines") / called,
        name=called,
        licence=licence,
        data=data,
        description=description,
        output=output,
        architecture=architecture,
        picture=picture,
        replace=force,
    )
    imported = bundling.run(request)
    bundle = imported.bundle
    if as_json:
        report = {"engine": bundle.identity, "path": str(bundle.path), "proof": asdict(imported.proof)}
        return print(json.dumps(report | {"decided": dict(imported.notes)}))
    for key, value in imported.notes.items():
        print(f"{key + ':':<10} {value}")
    print("\n".join(prove.lines(imported.proof)))
    return print(f"{bundle.identity} written to {bundle.path}; see {bundle.path / 'proof.jpg'}")


def _one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise ConfigError(f"{option} {value!r}: choose {', '.join(allowed)}")
    return value
