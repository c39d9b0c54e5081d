"""Where the publisher may bind, and who may connect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
from publishing import Open, eventually, joined, publisher_fixture, subscriber_fixture  # noqa: F401
from results import result

from streamseg.config import CurveConfig
from streamseg.errors import BindError, ConfigError

# ---- where it may bind, and who may connect ----


def test_a_port_in_use_is_a_bind_error_that_says_what_to_do(publisher: Open) -> None:
    _, endpoint = publisher()
    port = endpoint.rpartition(":")[2]
    with pytest.raises(BindError, match=rf"port {port} on 127.0.0.1 is in use: .*--bind"):
        publisher(bind=endpoint)


@pytest.mark.parametrize("path", ["{}/masks", "masks", "@{}/masks"])
def test_an_ipc_path_in_use_is_not_taken_away(
    publisher: Open, subscriber: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made, endpoint = publisher(bind=f"ipc://{path.format(tmp_path)}")
    with pytest.raises(BindError, match=f"^{endpoint} is in use: .*--bind"):
        publisher(bind=endpoint)
    reader = subscriber(endpoint, "labels/")
    joined(made, "labels/cam1/")
    made.publish(result(3))
    assert reader.receive()[1].frame == 3


@pytest.mark.parametrize(("bind", "what"), [
    ("tcp://192.0.2.1:*", "no address 192.0.2.1"),
    ("ipc:///no/such/folder/masks", "folder does not exist"),
])  # fmt: skip
def test_an_address_that_cannot_be_bound_is_named(publisher: Open, bind: str, what: str) -> None:
    with pytest.raises(BindError, match=what):
        publisher(bind=bind, insecure=True)


@pytest.mark.parametrize("bind", ["tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*", "tcp://192.168.1.5:5555",
                                  "tcp://eth0:5555", "tcp://camera.example:5555"])  # fmt: skip
def test_what_others_can_reach_is_refused_unless_told_otherwise(publisher: Open, bind: str) -> None:
    with pytest.raises(ConfigError, match="insecure: true"):
        publisher(bind=bind)


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:70000", "tcp://127.0.0.1", "udp://127.0.0.1:5555", "127.0.0.1:5555",
                                  "tcp://127.0.0.1:5555;10.0.0.1:1", "ipc://", ""])  # fmt: skip
def test_what_is_no_endpoint_is_refused(publisher: Open, bind: str) -> None:
    with pytest.raises(ConfigError, match="expected tcp://ADDRESS:PORT"):
        publisher(bind=bind)


def test_insecure_binds_everywhere(publisher: Open, subscriber: Any) -> None:
    made, endpoint = publisher(bind="tcp://0.0.0.0:*", insecure=True)
    subscriber(endpoint.replace("0.0.0.0", "127.0.0.1"), "labels/")
    joined(made, "labels/cam1/")


def test_curve_lets_in_who_is_authorised_and_nobody_else(
    publisher: Open, subscriber: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zmq.auth.create_certificates(tmp_path, "server")
    server, _ = zmq.auth.load_certificate(tmp_path / "server.key")
    good, bad = zmq.curve_keypair(), zmq.curve_keypair()
    curve = CurveConfig(secret_key_file=tmp_path / "server.key_secret", authorised_keys=(good[0].decode(),))
    made, endpoint = publisher(bind="tcp://0.0.0.0:*", curve=curve)
    endpoint = endpoint.replace("0.0.0.0", "127.0.0.1")
    keys = {"curve_serverkey": server, "curve_publickey": bad[0], "curve_secretkey": bad[1]}
    stranger, plain = subscriber(endpoint, "frame/", **keys), subscriber(endpoint, "picture/")
    keys |= {"curve_publickey": good[0], "curve_secretkey": good[1]}
    friend = subscriber(endpoint, "labels/", **keys)
    joined(made, "labels/cam1/")
    made.publish(result(1))
    assert friend.receive()[1].frame == 1
    assert not made.wants("frame/cam1/")
    assert not made.wants("picture/cam1/")
    assert stranger.nothing_waits()
    assert plain.nothing_waits()
    refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert refused == [
        f"a subscriber was refused: publish.curve.authorised_keys lacks its public key {bad[0].decode()}"
    ]


@pytest.mark.parametrize("content", [b"", b"hunter2", b"\xff" * 40, b'secret-key = "short"'])
def test_a_bad_key_file_is_named_but_never_shown(publisher: Open, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "daemon.key"
    path.write_bytes(content)
    curve = CurveConfig(secret_key_file=path, authorised_keys=("x" * 40,))
    with pytest.raises(ConfigError, match=r"daemon\.key") as caught:
        publisher(curve=curve)
    assert not content or content.decode(errors="replace") not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        publisher(curve=CurveConfig(secret_key_file=tmp_path / "none", authorised_keys=("x" * 40,)))
    with pytest.raises(ConfigError, match="authorised_keys is empty"):
        publisher(curve=CurveConfig(secret_key_file=path))
