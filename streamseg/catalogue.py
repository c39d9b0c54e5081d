"""The catalogue of engines: what `streamseg engine list` and `engine info` tell of each. No thread of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streamseg.bench import speed
from streamseg.engine.bundle import FLOAT, INT8, Bundle, folders
from streamseg.engine.complexity import counted
from streamseg.errors import StreamsegError

Say = Callable[[str], None]


def rows(say: Say, *, measure: bool, again: bool) -> Iterator[dict[str, Any]]:
    """One row an engine, by name. Of a damaged one only {"name", "path", "error"}. `measure`: engines whose speed is
    not known are timed; `again`: all are. `say` is told which."""
    found = sorted(folders(), key=lambda folder: folder.name)
    for number, folder in enumerate(found, 1):
        head = {"name": folder.name, "path": str(folder)}
        try:
            bundle = Bundle.open(folder)
            row = head | _row(bundle)
            known = None if again else speed.remembered(bundle)
            if known is None and (measure or again):
                say(f"{folder.name} ({number} of {len(found)}): measuring its speed on this machine")
                known = speed.measured(bundle)
            yield row | {"ms": known and known.ms, "precision": known and known.precision}
        except StreamsegError as error:
            yield head | {"error": str(error)}


def _row(bundle: Bundle) -> dict[str, Any]:
    manifest, quantised = bundle.manifest, bundle.path / INT8
    return {
        "engine": bundle.identity,
        "task": manifest.task,
        "classes": len(manifest.classes),
        "size": f"{manifest.input.width}x{manifest.input.height}",
        **counted(bundle),
        "bytes": (bundle.path / FLOAT).stat().st_size,
        "bytes_int8": quantised.stat().st_size if quantised.is_file() else None,
        "miou": manifest.accuracy.get("miou"),
        "miou_of": manifest.accuracy.get("data"),
        "origin": manifest.origin,
    }


def facts(bundle: Bundle) -> dict[str, Any]:
    """The whole manifest, what can be counted, and every file with its size in bytes and SHA-256."""
    files = sorted(path for path in bundle.path.iterdir() if path.is_file() and not path.name.startswith("."))
    manifest = bundle.manifest.model_dump(mode="json")
    head = {"engine": bundle.identity, "digest": bundle.digest, "path": str(bundle.path)}
    return head | manifest | counted(bundle) | {"files": [_file(path) for path in files]}


def _file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"name": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
