"""FFmpeg's errors in streamseg's words. FFmpeg puts the whole URL, password included, into its messages: none of its
text but `strerror` is ever passed on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import av.error

from streamseg.errors import (
    SourceCorrupt,
    SourceError,
    SourceNotFound,
    SourceNoVideo,
    SourceRefused,
    SourceTimeout,
    SourceUnauthorised,
)
from streamseg.source import Source


@contextmanager
def translated(source: Source, timed_out: Callable[[], bool]) -> Iterator[None]:
    """Raises what FFmpeg raises inside as a SourceError; `timed_out` tells whether the time allowed was used up."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        # `from None`: the original's text holds the password.
        raise _translate(source, error, timed_out()) from None


def _translate(source: Source, error: Exception, timed_out: bool) -> SourceError:
    shown = source.shown
    match error:
        case av.error.HTTPUnauthorizedError() | av.error.HTTPForbiddenError():
            return SourceUnauthorised(f"{shown}: user name or password refused; check them")
        case av.error.HTTPNotFoundError():
            return SourceNotFound(f"{shown}: the server answers, but has no such path (404); check the path")
        case av.error.ConnectionRefusedError():
            return SourceRefused(f"{shown}: connection refused; is it running, and is the port right?")
        case av.error.FileNotFoundError():
            return SourceNotFound(f"{shown}: no such {'device' if source.kind == 'v4l2' else 'file'}")
        case av.error.PermissionError():
            hint = "; add the user to the group 'video'" if source.kind == "v4l2" else ""
            return SourceUnauthorised(f"{shown}: no permission to read it{hint}")
        case av.error.ExitError() | av.error.TimeoutError():
            return SourceTimeout(f"{shown}: no answer in time; is it reachable?")
        case av.error.InvalidDataError():
            return _invalid(source, timed_out)
    if source.kind in ("rtsp", "http") and not _resolves(source):
        return SourceRefused(f"{shown}: the host name cannot be resolved; check the name")
    if source.kind == "v4l2":
        return SourceNoVideo(f"{shown}: not a camera that delivers video")
    number = getattr(error, "errno", 0) or 0
    reason = getattr(error, "strerror", None) or (os.strerror(number) if 0 < number < 200 else type(error).__name__)
    if source.kind == "file":
        return SourceCorrupt(f"{shown}: the video file is damaged or cut short ({reason})")
    return SourceError(f"{shown}: {reason}")


def _invalid(source: Source, timed_out: bool) -> SourceError:
    """FFmpeg says "invalid data" for an empty file, for text, for a cut mp4 and for a camera that never answers."""
    shown = source.shown
    if source.kind == "rtsp":
        if timed_out:
            return SourceTimeout(f"{shown}: connected, but no answer in time; is the camera hung?")
        return SourceError(f"{shown}: what answers does not speak RTSP; is the port right?")
    if source.kind == "http":
        return SourceNoVideo(f"{shown}: the server sends something that is not video")
    if source.kind == "v4l2":
        return SourceNoVideo(f"{shown}: not a camera that delivers video")
    with Path(source.location).open("rb") as file:
        head = file.read(16)
    if not head:
        return SourceNoVideo(f"{shown}: the file is empty (0 bytes)")
    if head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3"):
        return SourceCorrupt(f"{shown}: the video file is damaged or cut short (its index is missing)")
    return SourceNoVideo(f"{shown}: not a video file")


def _resolves(source: Source) -> bool:
    try:
        socket.getaddrinfo(urlsplit(source.location).hostname, None)
    except (OSError, UnicodeError):
        return False
    return True
