"""The configuration, as pydantic models: what a YAML file may say, and what `--set` may override."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Encoding = Literal["raw", "deflate", "zstd", "png", "coco-rle"]
StreamId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CurveConfig(Model):
    """CURVE on the publishing socket: keys are files as `zmq.auth.create_certificates` writes them, or bare Z85."""

    secret_key_file: Path
    authorised_keys: tuple[Annotated[str, Field(min_length=40, max_length=40)], ...] = ()
    """Z85 public keys of the clients that may subscribe."""


class PublishConfig(Model):
    bind: str = "tcp://127.0.0.1:5555"
    insecure: bool = False
    """Allow binding beyond loopback without CURVE."""
    curve: CurveConfig | None = None
    encoding: Encoding = "deflate"
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 80
    queue_messages: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Messages that may wait for one slow subscriber before newer ones are dropped for it."""
    wait_subscriber: bool = False
    """Lossless mode for files: hold the first frame until somebody subscribes; block rather than drop."""
