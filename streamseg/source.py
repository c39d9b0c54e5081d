"""What a source string means: its kind, what to open, and how it may be shown (never with its password)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from streamseg.synthetic import StreetSpec

Kind = Literal["file", "rtsp", "http", "v4l2", "synthetic"]
SCHEMES: dict[str, Kind] = {
    "file": "file",
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "v4l2": "v4l2",
    "synthetic": "synthetic",
}
# Greedy up to the last @: a password may itself hold an @ or a slash. Hidden also where the scheme is mistyped.
_CREDENTIALS = re.compile(r"(:/{1,2}|(?<![^\s'\"])(?=[^\s:/@]+:(?!/)))\S*@")
_SECRET_QUERY = re.compile(r"(?i)((?:pass|pwd|password|token|key|auth|secret)[a-z_]*=)[^&#]*")


@dataclass(frozen=True, slots=True)
class Source:
    """`location` is what FFmpeg opens and may hold a password: only `shown` goes to logs, errors and headers."""

    kind: Kind
    location: str = field(repr=False)
    shown: str
    street: StreetSpec | None = None

    @property
    def default_stream(self) -> str:
        """A stream id for a source that was given none."""
        if self.kind in ("file", "v4l2"):
            name = Path(self.location).stem
        else:
            parts = urlsplit(self.shown)
            last = parts.path.strip("/").rsplit("/", 1)[-1]
            name = parts.netloc if self.kind == "synthetic" else Path(last).stem or parts.hostname or "camera"
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "camera"


def masked(text: str) -> str:
    """`text` with the user name and password of any URL in it, and secret query values, replaced."""
    return _SECRET_QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def parse(text: str) -> Source:
    """Reads a file path, /dev/videoN or a URL. Raises ConfigError for what it cannot be; opens nothing."""
    if not text.strip():
        raise ConfigError("the source is empty; give a file, rtsp://…, http://…, /dev/video0 or synthetic://street")
    scheme, separator, _ = text.partition("://")
    if not separator:
        if re.fullmatch(r"/dev/(video\d+|v4l/.+)", text):
            return Source("v4l2", text, text)
        return _file(Path(text).expanduser())
    kind = SCHEMES.get(scheme.lower())
    if kind is None:
        allowed = ", ".join(f"{s}://" for s in SCHEMES)
        raise ConfigError(f"source {masked(text)!r}: no scheme {scheme!r}; use a file path or one of {allowed}")
    if kind == "synthetic":
        from streamseg.synthetic import StreetSpec

        return Source(kind, text, text, StreetSpec.from_url(text))
    if kind == "file":
        return _file(Path(unquote(urlsplit(text).path)))
    if kind == "v4l2":
        device = text.partition("://")[2]
        return Source(kind, device, device)
    if not urlsplit(text).hostname:
        raise ConfigError(f"source {masked(text)!r}: the host name is missing")
    return Source(kind, text, masked(text))


def _file(path: Path) -> Source:
    shown = masked(str(path))  # perhaps a URL that was mistyped
    if path.is_dir():
        raise ConfigError(f"source {shown!r} is a folder; give a video file")
    if not path.exists():
        raise ConfigError(f"source {shown!r}: no such file (looked in {Path.cwd()})")
    return Source("file", str(path.absolute()), str(path))  # FFmpeg takes what is before a colon for a protocol
