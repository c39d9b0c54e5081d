"""A bar on stderr while pictures are read or measured; nothing where that is no terminal. The caller's thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Yields what is to be called after each one. The bar disappears when all is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def shown(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items, counted on a bar."""
    with bar(what, len(items)) as advance:
        for item in items:
            yield item
            advance()
