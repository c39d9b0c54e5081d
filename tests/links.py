"""A network link that a test can let hang."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def hanging_link(port: int, seconds: float) -> Iterator[tuple[int, threading.Event]]:
    """The port of a link to `port` that hangs once for so long, in the middle of a packet; set when that is over."""
    hung = threading.Event()

    def forward(source: socket.socket, to: socket.socket, hang: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if hang and passed > 20_000 and len(data) > 400 and not hung.is_set():
                    to.sendall(data[: len(data) // 2])
                    time.sleep(seconds)
                    data = data[len(data) // 2 :]
                    hung.set()
                to.sendall(data)
        with suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as camera:
                upwards = threading.Thread(target=forward, args=(client, camera, False))
                upwards.start()
                forward(camera, client, True)
                upwards.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = threading.Thread(target=accept)
        link.start()
        try:
            yield listener.getsockname()[1], hung
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            link.join()
