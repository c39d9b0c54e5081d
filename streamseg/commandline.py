"""What every command shares: its common options, the configuration made of them, tables. Light to import."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from streamseg.config import Config

Json = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object on stdout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any setting, such as streams[0].fps=5. Repeatable."),
]


def is_config(source: str) -> bool:
    return source.lower().endswith((".yaml", ".yml"))


def configured(
    source: str, overrides: list[str] | None, options: dict[str, Any] | None = None, fps: float | None = None
) -> Config:
    """The configuration of a file, or of one bare source, with the command line's options laid over it."""
    from streamseg.config import read, validated

    data: dict[str, Any] = read(Path(source)) if is_config(source) else {"streams": [{"source": source}]}
    for path, value in (options or {}).items():
        section, _, key = path.partition(".")
        if value is not None and isinstance(data.setdefault(section, {}), dict):
            data[section][key] = value
    streams = data.get("streams")
    for stream in streams if isinstance(streams, list) else []:
        if fps is not None and isinstance(stream, dict):
            stream["fps"] = fps
    return validated(data, overrides or [], source if is_config(source) else "")


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT. Raises ConfigError."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None or not all(32 <= int(n) <= 8192 for n in match.groups()):
        raise ConfigError(f"--size {text!r}: WIDTHxHEIGHT is wanted, each from 32 to 8192, as in 512x288")
    return int(match[1]), int(match[2])


def table(rows: list[dict[str, Any]]) -> None:
    """Prints `rows`, whose keys are the columns' titles."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*(rows[0] if rows else ["nothing found"]), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
