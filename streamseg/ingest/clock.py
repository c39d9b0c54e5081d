"""The camera's own clock, where it tells it: RTCP sender reports tie RTP timestamps to UTC. One ingest thread's."""

from __future__ import annotations

import struct
from typing import Any

from streamseg.types import Clock

TRUSTED_NS = 10_000_000_000
"""A camera clock that is further off than this has not been set; the host's time of arrival is used instead."""
_KEPT = 256  # packets whose frames have not come out of the decoder yet


class CameraClock:
    """Remembers each packet's capture time until its frame comes out of the decoder.

    FFmpeg computes it from the last RTCP sender report (RFC 3550, 6.4.1) and attaches it as "prft" side data
    (AVProducerReferenceTime: i64 microseconds since the epoch, i32 flags).
    """

    def __init__(self) -> None:
        self._times_ns: dict[int, int] = {}

    def note(self, packet: Any) -> None:
        if packet.pts is None or not packet.has_sidedata("prft"):
            return
        if len(self._times_ns) >= _KEPT:
            self._times_ns.clear()
        data = bytes(packet.get_sidedata("prft"))
        if len(data) >= 8:
            self._times_ns[packet.pts] = struct.unpack_from("=q", data)[0] * 1000

    def captured(self, pts: int | None, arrived_ns: int) -> tuple[int, Clock]:
        """(UTC ns, "rtcp") of the frame of that PTS, or (`arrived_ns`, "host") where the camera's time is not known."""
        told_ns = self._times_ns.pop(pts, None) if pts is not None else None
        if told_ns is None or abs(told_ns - arrived_ns) > TRUSTED_NS:
            return arrived_ns, "host"
        return told_ns, "rtcp"
