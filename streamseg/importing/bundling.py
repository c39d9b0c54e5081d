"""What `streamseg engine import` does, from end to end. The bundle is made and proven aside, and moved when whole."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from streamseg.engine import complexity, program
from streamseg.engine.bundle import Bundle, ClassEntry, InputEntry, Manifest, Triple, write
from streamseg.errors import ConfigError
from streamseg.importing import onnx_model, prove
from streamseg.importing.heads import Wish
from streamseg.importing.prove import Proof
from streamseg.types import Frame

NETWORKS = {".onnx"}
CHECKPOINTS = {".pth", ".pt", ".ckpt", ".tar", ".bin"}


@dataclass(frozen=True, slots=True)
class Request:
    """The command line, read. `classes` in the order of their ids; `output` None: the one that fits."""

    source: Path
    classes: tuple[ClassEntry, ...]
    wish: Wish
    folder: Path
    name: str
    licence: str
    data: str
    description: str = ""
    output: str | None = None
    architecture: str | None = None
    picture: str | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    bundle: Bundle
    proof: Proof
    notes: Mapping[str, str]
    """What was decided about the file: layout, range of pixels, output…"""


def run(request: Request) -> Imported:
    """Writes the bundle `request.folder`. Raises ConfigError or EngineError, and leaves nothing behind then."""
    if request.source.is_dir():
        raise ConfigError(f"{request.source} is a folder; the model's own file in it is wanted")
    if not request.source.is_file():
        raise ConfigError(f"there is no file {request.source}")
    _check_place(request.folder, request.replace)
    suffix = request.source.suffix.lower()
    if request.architecture is None and suffix in CHECKPOINTS:
        raise ConfigError(f"{request.source} is a checkpoint: say of which network with --architecture")
    if request.architecture is not None and suffix in NETWORKS:
        raise ConfigError("--architecture is for checkpoints; an ONNX file holds its own network")
    frame = prove.pictured(request.picture)
    with _aside(request.folder) as folder:
        if request.architecture is None:
            proof, notes = _from_onnx(request, frame, folder)
        else:
            proof, notes = _from_checkpoint(request, frame, folder)
        (folder / "README.md").write_text(_card(request, proof, notes))
    return Imported(Bundle.open(request.folder), proof, notes)


def _check_place(folder: Path, replace: bool) -> None:
    """Raises ConfigError where something is that shall stay. What replaces a folder replaces all that is in it, so only
    an engine's is: never one with other engines in it, or somebody's home."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "engine.yaml").is_file():
        raise ConfigError(f"{folder} is there already, and is no engine that could be replaced; give another --out")
    if not replace:
        raise ConfigError(f"{folder} is there already; give another --name or --out, or --force to replace it")


def _from_onnx(request: Request, frame: Frame, folder: Path) -> tuple[Proof, Mapping[str, str]]:
    rgb = frame.picture.rgb(frame.picture.width, frame.picture.height)
    adapted = onnx_model.adapt(request.source, len(request.classes), request.wish, request.output, rgb)
    head = adapted.head
    entry = InputEntry(
        width=head.width,
        height=head.height,
        multiple=adapted.multiple,
        fixed=adapted.fixed,
        padded=head.padded,
        mean=head.mean,
        std=head.std,
    )
    bundle = _written(request, folder, adapted.network, entry)
    return prove.prove(bundle, frame, adapted), adapted.notes


def _from_checkpoint(request: Request, frame: Frame, folder: Path) -> tuple[Proof, Mapping[str, str]]:
    try:
        from streamseg.importing import checkpoint
        from streamseg.training import weights
        from streamseg.training.export import export_network
    except ModuleNotFoundError as error:
        raise ConfigError(f"checkpoints need {error.name}; pip install 'streamseg[train]'") from None
    assert request.architecture is not None
    loaded = checkpoint.load(request.source, request.architecture, len(request.classes))
    exported = folder / "network.onnx"
    export_network(checkpoint.Reversed(loaded.model) if request.wish.bgr else loaded.model, exported)
    network = onnx.load(exported)
    exported.unlink()
    width, height = request.wish.size or (512, 288)
    mean, std = request.wish.normalised(loaded.mean, loaded.std)
    entry = InputEntry(width=width, height=height, multiple=onnx_model.multiple_of(width, height), mean=mean, std=std)
    bundle = _written(request, folder, network, entry)
    weights.write(folder, request.architecture, [c.name for c in request.classes], loaded.model)
    order = ", taken as BGR" if request.wish.bgr else ""
    notes = {"size": f"{width}x{height}, and others", "pixels": f"mean {mean}, std {std}, of RGB in 0..1{order}"}
    return prove.prove(bundle, frame, None), {**loaded.notes, **notes}


def _written(request: Request, folder: Path, network: onnx.ModelProto, entry: InputEntry) -> Bundle:
    measured = complexity.measure(network, entry.width, entry.height)
    manifest = Manifest(
        name=request.name,
        description=request.description or f"imported from {request.source.name}",
        classes=request.classes,
        input=entry,
        licence=request.licence,
        data=request.data,
        origin="published",
        parameters=measured.parameters,
        gmac=measured.gmac,
    )
    # As it is shipped it does not smooth: an engine puts the tail on that its settings ask for.
    return write(folder, manifest, program.build(network, program.ProgramSpec(entry.mean, entry.std, mode="off")))


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which it replaces when all went well; else nothing is left of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two folders deep, where nobody looks for engines.
    aside = Path(tempfile.mkdtemp(prefix=".importing-", dir=folder.parent))
    work = aside / folder.name
    try:
        work.mkdir()
        yield work
        if folder.exists():
            folder.rename(aside / "replaced")
        work.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def name_of(source: Path) -> str:
    """An engine's name made of a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", source.stem).strip("-.")[:64] or "imported"


def triple(text: str | None, option: str) -> Triple | None:
    """ "0.5" or "0.485,0.456,0.406". Raises ConfigError."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        raise ConfigError(f"{option} {text!r}: one number or three are wanted, as in 0.485,0.456,0.406")
    a, b, c = values * 3 if len(values) == 1 else values
    return a, b, c


def _card(request: Request, proof: Proof, notes: Mapping[str, str]) -> str:
    rows = "\n".join(f"| {key} | {' '.join(value.split())} |" for key, value in notes.items())
    report = "\n".join(f"    {line}" for line in prove.lines(proof))
    return f"""# {request.name}

{request.description or "An imported engine."} Made by `streamseg engine import` of `{request.source.name}`.

* Classes: {", ".join(c.name for c in request.classes)}
* Licence: {request.licence}
* Data: {request.data}

What was found out about the file:

| | |
|---|---|
{rows}

What it made of one picture (`proof.jpg`):

{report}
"""
