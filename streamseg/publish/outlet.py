"""The XPUB socket, and what is counted per topic. Made, used and closed in the publisher thread."""

from __future__ import annotations

import errno
import socket as sockets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import zmq

from streamseg import security, wire
from streamseg.config import PublishConfig
from streamseg.errors import BindError

_BUFFER_BYTES = 256 * 1024
_MAX_INCOMING = 4096  # subscribers send handshakes and prefixes; libzmq drops who sends more
_BLOCK_MS = 200  # lossless: how long one attempt to send blocks before subscriptions and closing are looked at


class Outlet:
    """Sends messages, numbers them, and keeps the last of every topic for late joiners."""

    def __init__(self, config: PublishConfig) -> None:
        self._config = config
        self._stack = ExitStack()
        self._socket: zmq.Socket[bytes]
        self._poller = zmq.Poller()
        self._last: dict[str, tuple[dict[str, Any], bytes]] = {}  # header and payload by topic
        self.sent: dict[str, int] = {}

    def open(self, wake: sockets.socket) -> str:
        """Bind; returns the endpoint with its real port. `wake` becoming readable ends `poll`. Raises BindError."""
        security.check_bind(self._config)
        context = zmq.Context()
        self._stack.callback(context.term)
        self._socket = self._stack.enter_context(context.socket(zmq.XPUB))
        self._socket.linger = 0
        try:
            self._configure(self._socket)
            _refuse_taken_ipc(self._config.bind)
            self._socket.bind(self._config.bind)
        except zmq.ZMQError as error:
            self._stack.close()
            raise _bind_error(self._config.bind, error) from None
        except BaseException:
            self._stack.close()
            raise
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(wake, zmq.POLLIN)
        return self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _configure(self, socket: zmq.Socket[bytes]) -> None:
        lossless = self._config.wait_subscriber
        # Not to be changed later: libzmq 4.3.5 would send the new mark to connections that it has freed already (seen
        # as a crash of its I/O thread when a subscriber left meanwhile).
        socket.sndhwm = self._config.queue_messages
        socket.sndbuf = socket.rcvbuf = _BUFFER_BYTES
        socket.maxmsgsize = _MAX_INCOMING
        socket.tcp_keepalive = 1
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # else a second subscriber to a topic would get no last value
        if lossless:  # a file waits for its slowest subscriber; live, one stalled reader would starve all
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.sndtimeo = _BLOCK_MS
        if ":[" in self._config.bind or "//[" in self._config.bind:
            socket.ipv6 = True
        if self._config.curve is not None:
            # Entered after the socket: the authenticator's own sockets must be gone before the context ends.
            self._stack.enter_context(security.curve_server(socket, self._config.curve))

    def poll(self, timeout_s: float) -> None:
        """Wait for a subscription message or the wake-up."""
        self._poller.poll(max(0, int(timeout_s * 1000 + 0.999)))

    def incoming(self) -> Iterator[bytes]:
        """Every subscription message there is."""
        with suppress(zmq.Again):
            while True:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                if len(parts) == 1:
                    yield parts[0]

    def send(
        self, topic: str, fields: dict[str, Any], payload: bytes, *, replay: bool = False, retry: Callable[[], bool]
    ) -> None:
        """Number and send one message. `retry` is asked, when a lossless send has blocked a while, whether to go on."""
        last, _ = self._last.get(topic, ({}, b""))
        seq = last["seq"] + 1 if last.get("epoch") == fields["epoch"] else 0
        fields = fields | {"seq": seq, "replay": replay, "published_ns": time.time_ns()}
        if self._put(topic, fields, payload, retry):
            self._last[topic] = fields, payload

    def replay(self, topic: str, retry: Callable[[], bool]) -> None:
        """Send the topic's last message once more, under its own number."""
        if topic in self._last:
            fields, payload = self._last[topic]
            self._put(topic, fields | {"replay": True, "published_ns": time.time_ns()}, payload, retry)

    def _put(self, topic: str, fields: dict[str, Any], payload: bytes, retry: Callable[[], bool]) -> bool:
        parts = [topic.encode(), wire.dump_header(fields), payload]
        while True:
            try:
                self._socket.send_multipart(parts)
            except zmq.Again:  # only the first part can say so, and only when lossless: live, XPUB drops
                if not retry():
                    return False
            else:
                break
        self.sent[topic] = self.sent.get(topic, 0) + 1
        return True

    def holds(self, topic: str, epoch: int, frame: int) -> bool:
        """Whether the topic's last message is that of this frame."""
        last, _ = self._last.get(topic, ({}, b""))
        return (last.get("epoch"), last.get("frame")) == (epoch, frame)

    def sequences(self, topics: list[str]) -> dict[str, int]:
        return {topic: self._last[topic][0]["seq"] for topic in topics if topic in self._last}

    def close(self, linger_s: float) -> None:
        """Wait up to `linger_s` (infinite: for ever) until everything has left, then free the address."""
        self._socket.linger = -1 if linger_s == float("inf") else int(linger_s * 1000)
        self._stack.close()


def _refuse_taken_ipc(endpoint: str) -> None:
    """libzmq takes an ipc path away from whoever is bound to it; two daemons must not do so to each other."""
    if not endpoint.startswith("ipc://") or endpoint.startswith(("ipc://*", "ipc://@")):
        return  # of those two kinds libzmq invents a path, and refuses what is taken by itself
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        try:
            probe.connect(endpoint.removeprefix("ipc://"))
        except OSError:
            return
    raise _taken(endpoint)


def _taken(endpoint: str) -> BindError:
    return BindError(f"{endpoint} is in use: stop the other daemon, or choose another address with --bind")


def _bind_error(endpoint: str, error: zmq.ZMQError) -> BindError:
    if error.errno == errno.EADDRINUSE and endpoint.startswith("ipc://"):
        return _taken(endpoint)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    match error.errno:
        case errno.EADDRINUSE:
            what = f"port {port} on {host} is in use: stop the other daemon, or choose another port with --bind"
        case errno.ENODEV | errno.EADDRNOTAVAIL:
            what = f"this machine has no address {host}: bind to one that it has (`ip address` lists them), or to *"
        case errno.EACCES:
            what = f"no permission to bind {endpoint}: use a port from 1024 on, or a folder that you may write to"
        case errno.ENOENT:
            what = f"cannot bind {endpoint}: its folder does not exist"
        case _:
            what = f"cannot bind {endpoint}: {error.strerror}"
    return BindError(what)
