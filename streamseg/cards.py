"""How the catalogue is printed: the table of engines, and one engine's facts before its model card. No thread."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from streamseg.bench import speed
from streamseg.engine.machine import cpu
from streamseg.errors import BackendUnavailable

WIDTH = 110
"""Columns where the output is no terminal."""


def show_list(rows: list[dict[str, Any]]) -> None:
    """`rows` as `catalogue.rows` gives them; damaged engines in red, each with its error below."""
    console = _console()
    table = Table(box=None, pad_edge=False)
    for title in ("name", "task", "classes", "size", "params", "GMAC", "MB", "mIoU", "ms", "mIoU of"):
        table.add_column(title, justify="left" if title in ("name", "task", "size", "mIoU of") else "right")
    for row in rows:
        table.add_row(*([Text(row["name"], "red"), Text("damaged", "red")] if "error" in row else _cells(row)))
    console.print(table if rows else "no engines; `streamseg engine import` and `streamseg train` make some")
    for row in rows:
        if "error" in row:
            console.print(Text(f"{row['name']}: {row['error']}", "red"), soft_wrap=True)
    if any(row.get("ms") for row in rows):
        console.print(Text(f"ms: a picture, one thread, {_machine()}", "dim"), soft_wrap=True)


def _cells(row: dict[str, Any]) -> list[str | Text]:
    task = row["task"].partition("-")[0]
    return [
        Text(row["name"], "bold"),
        task,
        str(row["classes"]),
        row["size"],
        millions(row["parameters"]),
        _or_dash(row["gmac"], ".2f"),
        f"{row['bytes'] / 1e6:.1f}",
        "-" if row["miou"] is None else f"{100 * row['miou']:.1f}",
        _or_dash(row["ms"], ".1f") + " int8" * (row["precision"] == "int8"),
        Text(row["miou_of"] or "-", "dim"),
    ]


def show_card(facts: dict[str, Any], card: str) -> None:
    """`facts` as `catalogue.facts` gives them, then the Markdown of `card`."""
    console = _console()
    console.print(Text.assemble((facts["engine"], "bold"), "   ", (facts["path"], "dim")), soft_wrap=True)
    console.print()
    lines = Table(box=None, show_header=False, pad_edge=False)
    lines.add_column(style="dim")
    lines.add_column(overflow="fold")
    for key, value in _lines(facts):
        lines.add_row(key, value)
    console.print(lines)
    console.print()
    console.print(_classes(facts))
    console.print()
    console.print(_files(facts["files"]))
    if card:
        console.rule(style="dim")
        console.print(Markdown(card))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    entry, accuracy, smoothing = facts["input"], facts["accuracy"], facts["smoothing"]
    fixed = " only" if entry["fixed"] else f" at 16:9, other sizes in multiples of {entry['multiple']}"
    lines = [
        ("task", facts["task"]),
        ("for", facts["description"]),
        ("size", f"{entry['width']}x{entry['height']}{fixed}"),
        ("pixels", f"mean {_numbers(entry['mean'])}, std {_numbers(entry['std'])} of RGB in 0..1"),
        ("parameters", millions(facts["parameters"])),
        ("GMAC", _or_dash(facts["gmac"], ".3f")),
        ("smoothing", " ".join(str(v) for v in smoothing.values() if v is not None)),
        ("weights", facts["origin"]),
        ("licence", facts["licence"]),
        ("data", facts["data"]),
    ]
    if accuracy.get("miou") is not None:
        lines.append(("mIoU", f"{100 * accuracy['miou']:.2f} % of {accuracy.get('data', 'data that is not stated')}"))
    if accuracy.get("pixel_accuracy") is not None:
        lines.append(("pixels right", f"{100 * accuracy['pixel_accuracy']:.2f} %"))
    if facts["int8"] is not None:
        lines.append(("int8", _quantised(facts["int8"])))
    return [(key, value) for key, value in lines if value]


def _quantised(entry: dict[str, Any]) -> str:
    alike = f"{100 * entry['agreement']:.2f} % of the labels as in fp32"
    if entry["loss"] is None:
        return alike
    return f"{entry['loss']:+.2f} points of mIoU lost{entry['data'] and ' on '}{entry['data']}; {alike}"


def _classes(facts: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    iou = facts["accuracy"].get("iou") or {}
    for title in ("id", "", "class", "colour", "IoU %", ""):
        table.add_column(title, justify="right" if title in ("id", "IoU %") else "left")
    for number, entry in enumerate(facts["classes"]):
        red, green, blue = entry["colour"]
        notes = ["moves"] * entry["moves"] + ["not drawn"] * (not entry["draw"])
        share = iou.get(entry["name"])
        table.add_row(
            str(number),
            Text("  ", style=f"on #{red:02x}{green:02x}{blue:02x}"),
            entry["name"],
            f"{red}, {green}, {blue}",
            "-" if share is None else f"{100 * share:.1f}",
            Text(", ".join(notes), "dim"),
        )
    return table


def _files(files: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("file")
    table.add_column("bytes", justify="right")
    table.add_column("SHA-256", style="dim", no_wrap=True)
    for file in files:
        table.add_row(file["name"], f"{file['bytes']:,}", file["sha256"])
    return table


def millions(count: int | None) -> str:
    """ "1.53 M", or "20 k" where that says more."""
    if count is None:
        return "-"
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k" if count >= 1e3 else str(count)


def _or_dash(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _machine() -> str:
    try:
        return f"{speed.backend()}, {cpu()}"
    except BackendUnavailable:
        return cpu()


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH)
