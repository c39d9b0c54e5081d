"""Engine bundles: a folder with `engine.yaml` and `model.onnx`. Finding, reading and writing them; no thread."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from streamseg.errors import EngineError, EngineNotFound
from streamseg.types import NAME, ClassInfo, SmoothingMode

Channel = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[float, float, float]
FLOAT, INT8 = "model.onnx", "model-int8.onnx"
LEAST_SIDE = 32


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassEntry(_Model):
    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    colour: tuple[Channel, Channel, Channel]
    draw: bool = True
    """Whether the overlay colours it (a background class is better left as it is)."""
    moves: bool = False
    """Whether it is of things that move (people, vehicles): where the picture changes, smoothing favours these."""


class InputEntry(_Model):
    width: Annotated[int, Field(ge=32, le=8192)]
    height: Annotated[int, Field(ge=32, le=8192)]
    multiple: Annotated[int, Field(ge=1, le=128)] = 8
    fixed: bool = False
    """True where the network accepts no other size than width x height."""
    padded: bool = False
    """With `fixed`: a picture of another aspect is fitted into the upper left of it, and not stretched."""
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)


class SmoothingEntry(_Model):
    mode: SmoothingMode = "adaptive"
    strength: Annotated[float, Field(ge=0, le=1)] | None = None


class Int8Entry(_Model):
    """What `engine build --precision int8` measured of model-int8.onnx, against model.onnx in fp32."""

    of: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    """The digest of the model.onnx that it was made of."""
    loss: float | None = None
    """Points of mIoU (0..100) lost on labelled pictures; None where it was not measured on such."""
    agreement: Annotated[float, Field(ge=0, le=1)]
    """Share of the pixels that keep their label."""
    max_loss: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Up to this loss `precision: auto` may pick int8, where it is faster."""
    calibrated: str = ""
    """On which pictures."""
    data: str = ""
    """Where `loss` (or else `agreement`) was measured."""

    @property
    def within(self) -> bool:
        return self.loss is not None and self.loss <= self.max_loss


class Manifest(_Model):
    """`engine.yaml`. A class's id is its position in `classes`."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    task: Literal["semantic-segmentation"] = "semantic-segmentation"
    description: str = ""
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=2, max_length=255)]
    input: InputEntry
    smoothing: SmoothingEntry = SmoothingEntry()
    licence: str
    data: str
    origin: Literal["trained", "published"] = "trained"
    """Whose weights: `trained` with this project, or `published` by others and imported. Plots mark them apart."""
    parameters: int | None = None
    gmac: float | None = None
    """Both as `complexity.measure` counts them, the latter at the input's size."""
    accuracy: dict[str, Any] = Field(default_factory=dict)
    int8: Int8Entry | None = None

    @model_validator(mode="after")
    def _unique_names(self) -> Manifest:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"two classes share a name: {', '.join(n for n in set(names) if names.count(n) > 1)}")
        return self


class Bundle:
    """One engine on disk. `open` reads the manifest; the model is read on first use."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.classes = tuple(ClassInfo(i, c.name, c.colour) for i, c in enumerate(manifest.classes))
        self.moving = tuple(i for i, c in enumerate(manifest.classes) if c.moves)
        self.undrawn = frozenset(i for i, c in enumerate(manifest.classes) if not c.draw)

    def __repr__(self) -> str:
        return f"Bundle({self.identity}, {len(self.classes)} classes)"

    @classmethod
    def open(cls, path: Path) -> Bundle:
        try:
            manifest = Manifest.model_validate(yaml.safe_load((path / "engine.yaml").read_text()))
        except OSError as error:
            raise EngineError(f"{path / 'engine.yaml'} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise EngineError(f"{path / 'engine.yaml'} is damaged: {_one_line(error)}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise EngineError(f"{path / 'engine.yaml'}: {where}: {_one_line(first['msg'])}") from error
        if not (path / "model.onnx").is_file():
            raise EngineError(f"the engine bundle {path} has no model.onnx; train or import it again")
        return cls(path, manifest)

    @cached_property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of model.onnx."""
        return _digest(self.path / FLOAT)

    @property
    def identity(self) -> str:
        return f"{self.manifest.name}@{self.digest}"

    @cached_property
    def int8_identity(self) -> str:
        """The same of model-int8.onnx: another file, which may give other labels."""
        return f"{self.manifest.name}@{_digest(self.path / INT8)}"

    @cached_property
    def program(self) -> onnx.ModelProto:
        """The engine program as shipped. Raises EngineError."""
        return _loaded(self.path / FLOAT)

    @cached_property
    def int8_program(self) -> onnx.ModelProto:
        """The same with int8 weights. Raises EngineError where there is none, or one of another model.onnx."""
        if fault := self.int8_fault:
            raise EngineError(f"{self.path}: {fault}; streamseg engine build {self.path} --precision int8 makes it")
        return _loaded(self.path / INT8)

    @property
    def int8_fault(self) -> str | None:
        """Why there is no int8 program to be used, if so."""
        if self.manifest.int8 is None or not (self.path / INT8).is_file():
            return f"the engine has no {INT8}"
        if self.manifest.int8.of != self.digest:
            return f"{INT8} was made of another {FLOAT}"
        return None

    @property
    def whole(self) -> tuple[int, int]:
        """(width, height) of the picture that the network is meant for."""
        entry = self.manifest.input
        return self.fit(entry.width, entry.height) if entry.fixed else (512, 512)

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the program's input for a source picture: the bundle's area at the source's aspect."""
        entry = self.manifest.input
        if entry.fixed and entry.padded:
            scale, of = min(entry.width / width, entry.height / height), entry.multiple
            across, down = entry.width // of * of, entry.height // of * of
            return min(_multiple(width * scale, of), across), min(_multiple(height * scale, of), down)
        if entry.fixed:
            return entry.width, entry.height
        # The default's width is kept and the height follows, up to a square: cameras are wide, and 480x272 for 16:9
        # and 480x360 for 4:3 are the sizes that the accuracies are stated for.
        long = _multiple(entry.width, entry.multiple)
        # Ours pool at 1/32 of the picture, for which OpenVINO refuses 480x16: a strip must not end the daemon.
        short = _multiple(max(LEAST_SIDE, entry.width * min(width, height) / max(width, height)), entry.multiple)
        return (short, long) if width < height else (long, short)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _loaded(file: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf raises its own classes, which differ between versions
        again = "copy or train it again" if file.name == FLOAT else "build it again"
        raise EngineError(f"{file} is damaged; {again} ({_one_line(error)[:200]})") from error
    return model


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _multiple(value: float, of: int) -> int:
    return max(of, round(value / of) * of)


def write_int8(bundle: Bundle, program: onnx.ModelProto, entry: Int8Entry) -> Bundle:
    """Puts model-int8.onnx into a bundle; the manifest, which says what it was made of, last."""
    _put(bundle.path / INT8, program.SerializeToString())
    return rewrite(bundle, bundle.manifest.model_copy(update={"int8": entry}))


def write(path: Path, manifest: Manifest, program: onnx.ModelProto) -> Bundle:
    """Writes a bundle; the model first and the manifest last, so that half a bundle is never found."""
    path.mkdir(parents=True, exist_ok=True)
    _put(path / FLOAT, program.SerializeToString())
    _put(path / "engine.yaml", _yaml(manifest))
    return Bundle.open(path)


def rewrite(bundle: Bundle, manifest: Manifest) -> Bundle:
    """The same bundle with another manifest; its model is not touched."""
    _put(bundle.path / "engine.yaml", _yaml(manifest))
    return Bundle.open(bundle.path)


def _put(file: Path, data: bytes) -> None:
    temporary = file.with_name(f".{file.name}.part")
    temporary.write_bytes(data)
    temporary.replace(file)


def _yaml(manifest: Manifest) -> bytes:
    told = manifest.model_dump(mode="json")
    text: str = yaml.safe_dump(told, sort_keys=False, default_flow_style=None, width=100)
    return text.encode()


def search_path() -> list[Path]:
    """Where engines are looked for, first match wins: ./engines, the user's data folder, those that were installed."""
    import platformdirs

    package = Path(__file__).resolve().parents[1]
    user = Path(platformdirs.user_data_dir("streamseg")) / "engines"
    return [Path("engines"), user, package / "_engines", package.parent / "engines"]


def folders() -> Iterator[Path]:
    """The folder of every engine that `find` would give; what is in it may be damaged."""
    seen: set[str] = set()
    for folder in search_path():
        for manifest in sorted(folder.glob("*/engine.yaml")):
            if manifest.parent.name not in seen:
                seen.add(manifest.parent.name)
                yield manifest.parent


def find(name: str | Path) -> Bundle:
    """The bundle of that name, or in that folder. Raises EngineNotFound, naming what there is."""
    path = Path(name)
    if (path / "engine.yaml").is_file():
        return Bundle.open(path)
    # By their folders: one that is damaged must not hide the others.
    there = {folder.name: folder for folder in folders()}
    if str(name) in there:
        return Bundle.open(there[str(name)])
    names = ", ".join(sorted(there)) or "none"
    raise EngineNotFound(f"no engine named {str(name)!r}; there are: {names} (a folder with an engine.yaml works too)")
