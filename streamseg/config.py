"""The configuration, as pydantic models: what a YAML file may say, and what `--set` may override.

Passwords do not belong in the file: `${NAME}` takes one from the environment, `${file:/run/secrets/x}` from a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamseg.errors import ConfigError
from streamseg.source import Source, masked, parse
from streamseg.types import NAME, Encoding, Precision, SmoothingMode

StreamId = Annotated[str, Field(pattern=f"^{NAME}$")]
Side = Annotated[int, Field(ge=32, le=8192)]
Share = Annotated[float, Field(ge=0, le=1)]
Box = tuple[Share, Share, Share, Share]
"""[x, y, width, height] in shares of the picture."""


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CurveConfig(Model):
    """CURVE on the publishing socket: keys are files as `zmq.auth.create_certificates` writes them, or bare Z85."""

    secret_key_file: Path
    authorised_keys: tuple[Annotated[str, Field(min_length=40, max_length=40)], ...] = ()
    """Z85 public keys of the clients that may subscribe."""


class PublishConfig(Model):
    bind: str = "tcp://127.0.0.1:5555"
    insecure: bool = False
    """Allow binding beyond loopback without CURVE."""
    curve: CurveConfig | None = None
    encoding: Encoding = "deflate"
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 80
    jpeg: Literal["cpu", "gpu"] = "cpu"
    """gpu: pictures that were decoded on a GPU are drawn and encoded there too (by nvImageCodec); others on the CPU."""
    queue_messages: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Messages that may wait for one slow subscriber before newer ones are dropped for it. One that has stopped costs
    the memory of so many: 30 MB of 1080p pictures of a real camera (0.47 MB each); halve it for 4K."""
    encode_threads: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """1: the publisher's own thread encodes, with the fewest hand-overs. auto: 1 up to 3 cores, else half of them."""
    wait_subscriber: bool = False
    """Lossless mode for files: hold the first frame until somebody subscribes; block rather than drop."""

    @field_validator("encoding")
    @classmethod
    def _possible(cls, encoding: Encoding) -> Encoding:
        if encoding == "zstd" and find_spec("zstandard") is None:  # else the first subscriber would end the daemon
            raise ValueError("needs the package zstandard: pip install 'streamseg[zstd]'")
        return encoding


class EngineConfig(Model):
    name: str = "street-edge"
    """An engine's name, or the folder of its bundle."""
    backend: Literal["auto", "openvino", "onnxruntime", "torch", "torch-cuda", "torch-inductor", "tensorrt"] = "auto"
    """auto: on an NVIDIA GPU torch-cuda at once, and TensorRT from when its plan is built; else the CPU's OpenVINO."""
    device: str = "auto"
    """auto: all GPUs, the streams spread over them, or the CPU where there is none; cuda:N: that GPU."""
    precision: Precision = "auto"
    """auto: int8 where the engine has it, its loss is within its bound and it is faster here; else bf16 where the CPU
    has it. See `streamseg engine build`."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Inference threads. One is right beside decoders and encoders on 2 cores; raise it on an idle machine."""
    size: tuple[Side, Side] | None = None
    """(width, height) that pictures are analysed at; by default the engine's own, at each camera's aspect."""
    max_batch: Annotated[int, Field(ge=1, le=256)] = 32
    """Frames of different streams that are analysed at once (backends that batch: those of a GPU)."""
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long the first frame of a batch may wait for others (backends that batch)."""

    @field_validator("device")
    @classmethod
    def _known(cls, device: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda:[0-9]{1,2}", device):
            return device
        raise ValueError("choose auto, cpu, or one GPU by its number, such as cuda:0")


class SmoothingConfig(Model):
    mode: SmoothingMode | None = None
    """None: as the engine's manifest says."""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """0: none; 1: a time constant, at any frame rate, of 0.5 s (average) or of 4 s where nothing moves (adaptive)."""

    @field_validator("mode", mode="before")
    @classmethod
    def _unquoted(cls, mode: Any) -> Any:
        return "off" if mode is False else mode  # YAML reads a bare `off` as false


class MotionConfig(Model):
    """Frames on which nothing moved are not analysed: the last result is published again (`reused` in the header)."""

    skip: bool | Literal["auto"] = "auto"
    """auto: for live streams; of a file every frame is analysed."""
    refresh_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """The longest age of a result before inference runs anyway."""
    ignore: tuple[Box, ...] = ()
    """Where motion does not count (a flag, a screen, the clock in the corner)."""


class TilingConfig(Model):
    """A large picture is analysed in overlapping tiles, each as large to the engine as a whole picture would be: 2x2
    sees twice the detail, and costs four times the inference. `tiling: auto` is `tiling: {}`.

    An engine that takes any size can see as much in one piece, for all streams: `engine.size`.
    """

    columns: Annotated[int, Field(ge=1, le=8)] | None = None
    """None: one for every 1920 pixels or so of the source, which makes 2 of 4K."""
    rows: Annotated[int, Field(ge=1, le=8)] | None = None
    """None: one for every 1080 pixels or so."""
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.125
    """The share of a tile that its neighbour covers too, at least; there one fades into the other."""


class StreamConfig(Model):
    id: StreamId | None = None
    """Its name on the wire; by default made from the source."""
    source: str = Field(repr=False)
    fps: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """At most this many frames a second are analysed; 0: all."""
    transport: Literal["tcp", "udp"] = "tcp"
    clock: Literal["host", "rtcp"] = "host"
    """What `captured_ns` tells: arrival here, or the camera's own time from RTCP (RTSP cameras whose clock is set)."""
    decode_threads: Annotated[int, Field(ge=0, le=64)] = 0
    """0: one for a live stream, two for a file."""
    pace: Literal["max", "realtime"] = "max"
    """Files only: as fast as they are analysed, or at their own rate, as a camera would."""
    start_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Files at their own rate begin so much later: cameras are not in step."""
    stall_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """A live stream that sends nothing for this long is taken for lost and opened again."""
    rotate: Literal["auto", 0, 90, 180, 270] = "auto"
    """Degrees clockwise, for a camera that hangs sideways or upside down; auto: as a recording's rotation tag says."""
    motion: MotionConfig = MotionConfig()
    roi: Box | None = None
    """[x, y, width, height] in shares of the picture: nothing else of it is analysed, and all of the engine's
    resolution goes there. Headers tell it in pixels; motion elsewhere does not count."""
    tiling: TilingConfig | None = None
    """For 4K and larger: `auto`, or {columns: 2, rows: 2, overlap: 0.125}. Of the `roi`, where there is one."""

    @field_validator("roi")
    @classmethod
    def _inside(cls, box: Box | None) -> Box | None:
        if box is None:
            return None
        for side, begin, length in (("width", box[0], box[2]), ("height", box[1], box[3])):
            if length == 0:
                raise ValueError(f"its {side} is 0; [x, y, width, height] are shares of the picture, such as 0.5")
            if begin + length > 1.0001:  # [0.33, 0, 0.67, 1] in binary
                raise ValueError(
                    f"leaves the picture: {'xy'[side == 'height']} + {side} is {begin + length:.4g}; "
                    "[x, y, width, height] are shares of the picture, and the sums at most 1"
                )
        return box

    @field_validator("tiling", mode="before")
    @classmethod
    def _tiles(cls, value: Any) -> Any:
        if value == "auto":
            return {}
        if value is None or isinstance(value, dict | TilingConfig):
            return value
        raise ValueError("must be auto, or such as {columns: 2, rows: 2, overlap: 0.125}")

    @field_validator("source")
    @classmethod
    def _understood(cls, text: str) -> str:
        text = _SECRET.sub(lambda match: quote(_secret(match[1]), safe=""), text)
        parse(text)
        return text

    @property
    def parsed(self) -> Source:
        return parse(self.source)

    @property
    def name(self) -> str:
        return self.id or self.parsed.default_stream


class Config(Model):
    """The whole of it."""

    streams: tuple[StreamConfig, ...]
    engine: EngineConfig = EngineConfig()
    smoothing: SmoothingConfig = SmoothingConfig()
    publish: PublishConfig = PublishConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if not self.streams:
            raise ValueError("streams: none given; list at least one, such as {id: gate, source: rtsp://…}")
        names = [stream.name for stream in self.streams]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(
                    f"streams[{i}].id: {name!r} is also the id of streams[{names.index(name)}]; ids are unique"
                )
        live = [s.name for s in self.streams if s.parsed.kind not in ("file", "synthetic") or s.pace == "realtime"]
        if self.publish.wait_subscriber and live:
            raise ValueError(f"publish.wait_subscriber: only for files, but {live[0]!r} is live and cannot wait")
        return self


_SECRET = re.compile(r"\$\{([^}]*)\}")


def _secret(name: str) -> str:
    if name.startswith("file:"):
        try:
            return Path(name.removeprefix("file:")).read_text().strip()
        except OSError as error:
            raise ValueError(f"the secret file {error.filename} cannot be read: {error.strerror}") from None
    if name not in os.environ:
        raise ValueError(f"the environment has no variable {name}; set it, or use ${{file:/path/of/the/secret}}")
    return os.environ[name]


class _Loader(yaml.SafeLoader):
    """Of a key that is given twice YAML takes the last: half of the cameras would be gone without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def from_yaml(text: str) -> Any:
    """Plain data, of whatever people write for us. Raises yaml.YAMLError, also for a key that is given twice."""
    return yaml.load(text, _Loader)


def read(path: Path) -> dict[str, Any]:
    """The plain data of a YAML configuration, not validated yet. Raises ConfigError."""
    try:
        data = from_yaml(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys such as `streams:` at the top, found {type(data).__name__}")
    return data


def validated(data: dict[str, Any], overrides: Iterable[str] = (), where: str = "") -> Config:
    """A Config from plain data and `path.to.key=value` overrides; `where` (a file's name) begins every error line.

    Raises ConfigError with a line a fault: the key's path, its value, and what is allowed.
    """
    for override in overrides:
        _override(data, override)
    # A section that is there with nothing in it, such as `publish:` with its lines commented out, is as one left out.
    data = {key: value for key, value in data.items() if value is not None}
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = [f"{where}: {_explained(e)}".removeprefix(": ") for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None


def _override(data: dict[str, Any], text: str) -> None:
    path, separator, value = text.partition("=")
    keys = re.findall(r"[^.\[\]]+", path)
    if not separator or not keys:
        raise ConfigError(f"--set {text!r}: write path.to.key=value, such as streams[0].fps=5")
    node: Any = data
    try:
        for key in keys[:-1]:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(keys[-1]) if isinstance(node, list) else keys[-1]] = yaml.safe_load(value)
    except (IndexError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        raise ConfigError(f"--set {text!r}: there is no {path} to set") from None


WORDS = {
    "tuple_type": "expected a list: items that begin with `- `, or [a, b]",
    "model_type": "expected settings: lines of `key: value`, or {key: value}",
}
"""Where pydantic speaks of Python's types. By its error types."""


def _explained(error: Any) -> str:
    """`streams[2].fps: -1: input should be greater than or equal to 0`."""
    path = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in error["loc"]).lstrip(".")
    message = WORDS.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"there is no such setting; {_meant(error['loc'])}"
    if isinstance(error["input"], dict | list | tuple | BaseModel):
        return f"{path}: {message}" if path else message
    value = masked(repr(error["input"]))[:120]
    return f"{path}: {value}: {message}"


def _meant(path: Sequence[str | int]) -> str:
    """The setting that was probably meant by the last of `path`, or else all that there are in its place."""
    names: list[str] = list(Config.model_fields)
    annotation: Any = Config
    for key in path[:-1]:
        models = [model for model in _models(annotation) if key in model.model_fields]
        if models:
            annotation = models[0].model_fields[str(key)].annotation
            names = [name for model in _models(annotation) for name in model.model_fields]
    close = get_close_matches(str(path[-1]), names, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in `tuple[StreamConfig, ...]`, `RoiConfig | None` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _one_line(error: Exception) -> str:
    return " ".join(masked(str(error)).split())
