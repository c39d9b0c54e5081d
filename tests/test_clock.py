"""When a frame was taken: by the camera's clock where RTCP tells it and it can be right, else by arrival."""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import pytest

from streamseg.config import StreamConfig
from streamseg.ingest.clock import CameraClock
from streamseg.ingest.reader import open_capture


@pytest.mark.apt("gst-rtsp-server")
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_rtsp_cameras_own_time_is_used_where_asked_for_once_its_first_report_has_come(
    rtsp_server: Any, transport: str
) -> None:
    server = rtsp_server()
    camera = StreamConfig(source=server.url(), transport=transport, clock="rtcp")  # type: ignore[arg-type]
    capture = open_capture(camera, threading.Event())
    clocks = []
    try:
        for captured in capture:
            clocks.append(captured.clock)
            if captured.clock == "rtcp":
                assert abs(captured.captured_ns - time.time_ns()) < 2e9
                break
    finally:
        capture.close()
    assert clocks[0] == "host"
    assert clocks[-1] == "rtcp"


class Packet:
    """As PyAV gives it."""

    def __init__(self, pts: int, taken_ns: int) -> None:
        self.pts = pts
        self._data = struct.pack("=qi", taken_ns // 1000, 24)

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft"

    def get_sidedata(self, kind: str) -> bytes:
        return self._data


def test_frames_that_leave_the_decoder_in_another_order_keep_their_own_time() -> None:
    clock, now = CameraClock(), time.time_ns()
    for pts in (0, 3, 1, 2):
        clock.note(Packet(pts, now + pts * 40_000_000))
    assert [clock.captured(pts, now)[0] // 1000 for pts in range(4)] == [
        (now + pts * 40_000_000) // 1000 for pts in range(4)
    ]


def test_a_camera_whose_clock_was_never_set_is_not_believed() -> None:
    clock, now = CameraClock(), time.time_ns()
    clock.note(Packet(7, 1_000_000_000))
    assert clock.captured(7, now) == (now, "host")
    assert clock.captured(None, now) == (now, "host")
