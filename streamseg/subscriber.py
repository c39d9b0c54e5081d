"""The client library: masks, label maps, pictures and events as they arrive. Everything runs in the caller's thread."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import zmq
import zmq.asyncio

from streamseg import security
from streamseg.errors import ConfigError
from streamseg.received import Message, Names, Reader, Selection

__all__ = ["AsyncSubscription", "Message", "Subscription", "subscribe", "subscribe_async"]

_BUFFER_BYTES = 256 * 1024
_QUEUE_MESSAGES = 64
_DRAIN_S = 0.1  # how long a drain may go on: a publisher faster than this reader must not starve the caller
_PING_MS, _PING_TIMEOUT_MS = 2000, 6000  # a daemon whose machine vanished is noticed, and connected to again


def subscribe(
    endpoint: str,
    *,
    kind: str | Iterable[str] = "mask",
    streams: Names = None,
    classes: Names = None,
    every: bool = False,
    timeout: float | None = None,
    server_key: str | None = None,
    key_file: Path | str | None = None,
) -> Subscription:
    """Subscribe to a daemon and iterate over what it publishes.

        for message in streamseg.subscribe("tcp://127.0.0.1:5555", classes="person"):
            print(message.header.stream, message.header.pixels, message.array.shape)

    By default only the newest message of each topic is yielded, however slow the caller: what came in between is
    counted in `skipped`. With `every`, nothing that arrives is passed over.

    kind: one or more of mask, labels, frame, picture, event, heartbeat.
    streams, classes: names to restrict it to; `classes` goes for masks only.
    timeout: seconds after which silence raises TimeoutError; the iterator can be used again after it.
    server_key, key_file: CURVE, the daemon's public key (Z85) and this client's secret key file.

    A daemon may start later, restart or vanish for a while: the subscription comes back by itself, and numbers of a
    new epoch are no loss. Messages of another major version are skipped, with one warning in the log.
    Not thread-safe. Closed by `close`, at the end of a `with`, or when it is garbage collected.
    Raises ConfigError (a ValueError) for arguments that cannot be meant.
    """
    reader = Reader(endpoint, Selection(kind, streams, classes), every, timeout)
    context = zmq.Context()
    socket = _connect(context, endpoint, reader, (server_key, key_file))
    return Subscription(reader, context, socket)


def subscribe_async(
    endpoint: str,
    *,
    kind: str | Iterable[str] = "mask",
    streams: Names = None,
    classes: Names = None,
    every: bool = False,
    timeout: float | None = None,
    server_key: str | None = None,
    key_file: Path | str | None = None,
) -> AsyncSubscription:
    """`subscribe` for asyncio: `async for message in subscribe_async(...)`. Use it in the loop it was made in."""
    reader = Reader(endpoint, Selection(kind, streams, classes), every, timeout)
    context = zmq.asyncio.Context()
    socket = _connect(context, endpoint, reader, (server_key, key_file))
    return AsyncSubscription(reader, context, socket)


class Subscription:
    """An iterator of messages, made by `subscribe`."""

    def __init__(self, reader: Reader, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        self._reader = reader
        self._socket = socket
        self._end = _at_the_end_of(self, socket, context)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        patience = self._reader.patience()
        while not self._socket.closed:
            _drain(self._socket, self._reader)
            if (message := self._reader.next()) is not None:
                return message
            self._socket.poll(self._reader.left_ms(patience))
        raise StopIteration

    def close(self) -> None:
        """Idempotent."""
        self._end()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncSubscription:
    """An asynchronous iterator of messages, made by `subscribe_async`. Cancelling a wait loses nothing."""

    def __init__(self, reader: Reader, context: zmq.asyncio.Context, socket: zmq.asyncio.Socket) -> None:
        self._reader = reader
        self._socket = socket
        # Read without futures: those of zmq.asyncio keep what they raise, and with it the frames that hold `self`.
        self._plain: zmq.Socket[bytes] = zmq.Socket.shadow(socket.underlying)
        self._end = _at_the_end_of(self, socket, context)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        patience = self._reader.patience()
        await asyncio.sleep(0)  # else a stream faster than the caller leaves other tasks, and a cancel, no turn
        while not self._socket.closed:
            _drain(self._plain, self._reader)
            if (message := self._reader.next()) is not None:
                return message
            try:
                await self._socket.poll(self._reader.left_ms(patience))
            except asyncio.CancelledError:
                if not self._socket.closed or _cancelled():
                    raise
        raise StopAsyncIteration

    def close(self) -> None:
        """Idempotent."""
        self._end()

    async def __aenter__(self) -> AsyncSubscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def _cancelled() -> bool:
    """Whether somebody cancelled the running task; `close` in another one cancels no more than its wait."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


SocketT = TypeVar("SocketT", bound=zmq.Socket[Any])


def _drain(socket: zmq.Socket[bytes], reader: Reader) -> None:
    """What has arrived goes to the reader."""
    until = time.monotonic() + _DRAIN_S
    while time.monotonic() < until:
        try:
            parts = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        if reader.add(parts):
            return


def _at_the_end_of(owner: object, socket: zmq.Socket[Any], context: zmq.Context[Any]) -> Callable[[], object]:
    """Closes both when it is called, or when `owner` is forgotten.

    No `__del__`: where a subscription is part of a reference cycle, the collector finalises its context first, which
    has lost sight of its socket by then, and waits for ever for that to be closed.
    """
    end = weakref.finalize(owner, _close, socket, context)
    end.atexit = False  # another thread may still be reading; the process's end closes it anyway
    return end


def _close(socket: zmq.Socket[Any], context: zmq.Context[Any]) -> None:
    socket.close(linger=0)
    context.term()


def _connect(
    context: zmq.Context[SocketT], endpoint: str, reader: Reader, curve: tuple[str | None, Path | str | None]
) -> SocketT:
    """A socket that subscribes; the context is gone too where that fails."""
    try:
        socket = context.socket(zmq.SUB)
        socket.linger = 0
        socket.rcvhwm = _QUEUE_MESSAGES
        socket.rcvbuf = socket.sndbuf = _BUFFER_BYTES
        socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 1000
        socket.ipv6 = "[" in endpoint
        if not reader.every:  # a stop of this process makes pings overdue: connecting again would lose what had waited
            socket.heartbeat_ivl, socket.heartbeat_timeout = _PING_MS, _PING_TIMEOUT_MS
        security.curve_client(socket, *curve)
        for prefix in reader.prefixes:
            socket.subscribe(prefix)
        socket.connect(endpoint)
    except BaseException as error:
        context.destroy(linger=0)
        if isinstance(error, zmq.ZMQError):
            raise ConfigError(f"{endpoint!r} is no endpoint such as tcp://127.0.0.1:5555: {error.strerror}") from None
        raise
    return socket
