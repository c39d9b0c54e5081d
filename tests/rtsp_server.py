"""A real RTSP server for tests: `RtspServer` starts this very file with the system's Python, which has GStreamer.

The top half runs in pytest and knows nothing of GStreamer; `serve` runs in the child, on GLib's main loop.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
wanted = ("qtdemux", "matroskademux", "tsdemux", "h264parse", "h265parse", "rtph264pay", "rtph265pay", "appsrc")
raise SystemExit(", ".join(name for name in wanted if not Gst.ElementFactory.find(name)) or 0)
"""

DEMUXERS = {".mp4": "qtdemux", ".mkv": "matroskademux", ".ts": "tsdemux"}


class RtspServer:
    """One server process on loopback. Every client gets the clip from its first picture, at the clip's own pace.

    `mounts`: path on the server -> mp4, mkv or ts file (H.264 or H.265, sent as it is). `once`: end the stream with the
    clip instead of looping it. `method`: "basic" or "digest", asked for when there is a `user`.
    """

    def __init__(
        self,
        mounts: dict[str, Path],
        *,
        user: str | None = None,
        password: str = "",
        method: str = "digest",
        once: bool = False,
    ) -> None:
        self.mounts, self.user, self.password = mounts, user, password
        self.port = 0
        self._options = ["--once"] if once else []
        if user is not None:
            self._options += ["--user", user, "--password", password, "--auth", method]
        self._process: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        return f"RtspServer({sorted(self.mounts)}, port={self.port}, running={self._process is not None})"

    def start(self, timeout: float = 15) -> RtspServer:
        """Starts, on the same port as before if it ran before; returns when it accepts connections."""
        mounts = [word for path, file in self.mounts.items() for word in ("--mount", f"{path}={file}")]
        command = [SYSTEM_PYTHON, __file__, "--port", str(self.port), *mounts, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # ends at once if the process dies
        if not line.startswith("listening on port "):
            self.kill()
            raise RuntimeError(f"the RTSP server did not start: {line!r}")
        self.port = int(line.split()[-1])
        return self

    def url(self, path: str | None = None, *, user: str | None = None, password: str | None = None) -> str:
        """The URL of a mount (the first, if none is named) with the right credentials, or with those given."""
        path = next(iter(self.mounts)) if path is None else path
        user = self.user if user is None else user
        password = self.password if password is None else password
        return f"rtsp://{f'{user}:{password}@' if user else ''}127.0.0.1:{self.port}{path}"

    def freeze(self) -> None:
        """A camera that hangs: its connections stay open and nothing comes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """A camera that loses power: no farewell. `start` brings it back on the same port."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def restart(self) -> RtspServer:
        self.kill()
        return self.start()

    def _signal(self, number: int) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)


@dataclass(frozen=True)
class AccessUnit:
    """One coded picture. Times in nanoseconds from the clip's first; `dts` is None where the container has none."""

    data: bytes
    pts: int
    dts: int | None
    duration: int


def serve(arguments: argparse.Namespace) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(arguments.port))
    if arguments.user is not None:
        server.set_auth(credentials(arguments.user, arguments.password, arguments.auth))
    for mount in arguments.mount:
        path, _, file = mount.partition("=")
        factory = media_factory(*read_clip(file), once=arguments.once)
        if arguments.user is not None:
            permissions = GstRtspServer.RTSPPermissions()
            for permission in ("media.factory.access", "media.factory.construct"):
                permissions.add_permission_for_role("viewer", permission, True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        raise SystemExit(f"port {arguments.port} cannot be bound")
    print("listening on port", server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)
    loop.run()


def credentials(user: str, password: str, method: str) -> Any:
    from gi.repository import GstRtsp, GstRtspServer

    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    # One method, not both: PyGObject has the flags as an enumeration, which cannot hold their sum.
    if method == "basic":
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
    else:
        auth.add_digest(user, password, token)
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    return auth


def read_clip(file: str) -> tuple[str, list[AccessUnit]]:
    """The codec ("h264" or "h265") and every coded picture of a clip, in decoding order."""
    from gi.repository import Gst

    pipeline = Gst.parse_launch(f"filesrc name=file ! {DEMUXERS[Path(file).suffix]} name=parts")
    pipeline.get_by_name("file").set_property("location", file)
    found: dict[str, Any] = {}

    def link(_parts: Any, pad: Any) -> None:
        codec = pad.query_caps(None).get_structure(0).get_name().removeprefix("video/x-")
        if codec not in ("h264", "h265") or found:
            return
        found[codec] = Gst.parse_bin_from_description(
            f"{codec}parse config-interval=-1 ! video/x-{codec},stream-format=byte-stream,alignment=au "
            "! appsink name=out sync=false",
            True,
        )
        pipeline.add(found[codec])
        found[codec].sync_state_with_parent()
        pad.link(found[codec].get_static_pad("sink"))

    pipeline.get_by_name("parts").connect("pad-added", link)
    pipeline.set_state(Gst.State.PLAYING)
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        if pipeline.get_bus().timed_pop_filtered(20 * Gst.MSECOND, Gst.MessageType.ERROR | Gst.MessageType.EOS):
            break
    if not found:
        raise SystemExit(f"no H.264 or H.265 video in {file}")
    ((codec, branch),) = found.items()
    samples = iter(lambda: branch.get_by_name("out").emit("pull-sample"), None)
    units = [unit for sample in samples if (unit := access_unit(sample.get_buffer()))]
    pipeline.set_state(Gst.State.NULL)
    start = min(unit.pts if unit.dts is None else unit.dts for unit in units)
    return codec, [
        AccessUnit(u.data, u.pts - start, None if u.dts is None else u.dts - start, u.duration) for u in units
    ]


def access_unit(buffer: Any) -> AccessUnit | None:
    from gi.repository import Gst

    if buffer.pts == Gst.CLOCK_TIME_NONE:
        return None
    dts = None if buffer.dts == Gst.CLOCK_TIME_NONE else buffer.dts
    duration = 40_000_000 if buffer.duration == Gst.CLOCK_TIME_NONE else buffer.duration
    return AccessUnit(buffer.extract_dup(0, buffer.get_size()), buffer.pts, dts, duration)


def media_factory(codec: str, units: list[AccessUnit], once: bool) -> Any:
    """Feeds the coded pictures of the clip to each client by their own timestamps; the RTSP sinks keep the pace."""
    from gi.repository import Gst, GstRtspServer

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( appsrc name=clip format=time is-live=true max-bytes=400000 "
        f"caps=video/x-{codec},stream-format=byte-stream,alignment=au "
        f"! {codec}parse ! rtp{codec}pay name=pay0 pt=96 config-interval=-1 )"
    )
    length = max(unit.pts + unit.duration for unit in units)

    def configure(_factory: Any, media: Any) -> None:
        position = {"next": 0}

        def feed(source: Any, _wanted: int) -> None:
            rounds, index = divmod(position["next"], len(units))
            if once and rounds:
                source.emit("end-of-stream")
                return
            unit, offset = units[index], rounds * length
            buffer = Gst.Buffer.new_wrapped(unit.data)
            buffer.pts, buffer.duration = unit.pts + offset, unit.duration
            if unit.dts is not None:
                buffer.dts = unit.dts + offset
            position["next"] += 1
            source.emit("push-buffer", buffer)

        media.get_element().get_by_name_recurse_up("clip").connect("need-data", feed)

    factory.connect("media-configure", configure)
    return factory


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves clips over RTSP on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mount", action="append", required=True, metavar="/PATH=FILE")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=["basic", "digest"], default="digest")
    parser.add_argument("--once", action="store_true")
    serve(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
