"""Who may connect: the loopback rule, CURVE keys, and ZAP authorisation. Called by the thread that owns the socket."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamseg.errors import ConfigError

if TYPE_CHECKING:
    import zmq

    from streamseg.config import CurveConfig, PublishConfig

_log = logging.getLogger("streamseg.publish")
_REFUSALS_TOLD = 20
_DOMAIN = "streamseg"  # a ZAP domain that is set makes libzmq refuse clients should the authenticator be gone
_ENDPOINT = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:\[\];/]+):(?P<port>\d{1,5}|\*)")
_Z85 = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class Keys:
    """A CURVE key pair, Z85."""

    public: bytes
    secret: bytes = field(repr=False)


def check_bind(config: PublishConfig) -> None:
    """Raises ConfigError for an endpoint that cannot be meant, or that strangers could reach unencrypted."""
    if config.bind.startswith("ipc://") and len(config.bind) > len("ipc://"):
        return
    parts = _ENDPOINT.fullmatch(config.bind)
    if parts is None or (parts["port"] != "*" and int(parts["port"]) > 65535):
        raise ConfigError(f"publish.bind is {config.bind!r}; expected tcp://ADDRESS:PORT or ipc://PATH")
    if config.curve is not None or config.insecure or _is_loopback(parts["host"].strip("[]")):
        return
    raise ConfigError(
        f"publish.bind is {config.bind!r}, which other machines can reach, unencrypted and without authorisation: "
        "bind tcp://127.0.0.1:PORT, configure publish.curve, or accept the risk with publish.insecure: true"
    )


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "lo"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # `*`, a network interface or a host name
        return False


def read_keys(path: Path) -> Keys:
    """The key pair in `path`: a secret certificate of `zmq.auth.create_certificates`, or 40 characters of Z85.

    Raises ConfigError, which names the file but never shows what is in it.
    """
    import zmq

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"key file {str(path)!r} cannot be read: {os.strerror(error.errno or 0)}") from None
    certified = re.search(rb"^\s*secret-key\s*=\s*[\"'](.{40})[\"']\s*$", content, re.MULTILINE)
    secret = certified[1] if certified else content.strip()
    if not _Z85.fullmatch(secret):
        raise ConfigError(
            f"key file {str(path)!r} holds no CURVE secret key: expected 40 characters of Z85, "
            "or the *.key_secret file that zmq.auth.create_certificates writes"
        )
    return Keys(zmq.curve_public(secret), secret)


class _Authorised:
    """ZAP's question "may this key connect?", asked by the authenticator's thread with the key in Z85."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = frozenset(key.encode() for key in keys)
        self._refused: set[bytes] = set()

    def callback(self, domain: str, key: bytes) -> bool:
        if key in self._keys:
            return True
        if key not in self._refused and len(self._refused) < _REFUSALS_TOLD:  # it tries again, every second
            self._refused.add(key)
            _log.warning(
                "a subscriber was refused: publish.curve.authorised_keys lacks its public key %s", key.decode()
            )
        return False


def server_keys(curve: CurveConfig) -> Keys:
    """Raises ConfigError for keys that are missing or malformed."""
    if not curve.authorised_keys:
        raise ConfigError(
            "publish.curve.authorised_keys is empty: nobody could subscribe; list the clients' public keys"
        )
    for number, key in enumerate(curve.authorised_keys):
        if not _Z85.fullmatch(key.encode()):
            raise ConfigError(
                f"publish.curve.authorised_keys[{number}] is no CURVE key: expected 40 characters of Z85, "
                "the public-key of the *.key file that zmq.auth.create_certificates writes"
            )
    return read_keys(curve.secret_key_file)


@contextmanager
def curve_server(socket: zmq.Socket[bytes], curve: CurveConfig) -> Iterator[None]:
    """While inside, `socket` speaks CURVE only and accepts the authorised keys only. Enter before binding.

    Raises ConfigError, see `server_keys`.
    """
    from zmq.auth.thread import ThreadAuthenticator

    keys = server_keys(curve)
    authenticator = ThreadAuthenticator(socket.context)
    authenticator.start()
    try:
        authenticator.configure_curve_callback(_DOMAIN, _Authorised(curve.authorised_keys))
        socket.zap_domain = _DOMAIN.encode()
        socket.curve_secretkey, socket.curve_publickey = keys.secret, keys.public
        socket.curve_server = True
        yield
    finally:
        authenticator.stop()


def curve_client(socket: zmq.Socket[Any], server_key: str | None, key_file: Path | str | None) -> None:
    """Has a subscriber's socket speak CURVE, if there are keys; to be called before it connects. Raises ConfigError.

    `server_key` is the daemon's public key (Z85); `key_file` the client's own secret key, see `read_keys`.
    """
    if server_key is None and key_file is None:
        return
    if server_key is None or key_file is None:
        raise ConfigError(
            "CURVE needs both server_key (the daemon's public key) and key_file (this client's secret key)"
        )
    if not _Z85.fullmatch(server_key.encode()):
        raise ConfigError("server_key is no CURVE key: expected 40 characters of Z85")
    keys = read_keys(Path(key_file))
    socket.curve_serverkey = server_key.encode()
    socket.curve_secretkey, socket.curve_publickey = keys.secret, keys.public
