"""Every error that streamseg raises on purpose; each message says what was wrong and what to do.

StreamsegError
├── ConfigError (ValueError)      a setting is missing, unknown or out of range    exit code 2
│   └── EngineNotFound            no such engine bundle                            exit code 2
├── SourceError (OSError)         a camera, file or URL cannot be read             exit code 1
│   ├── SourceNotFound            no such file, device or path on the server
│   ├── SourceRefused             nothing listens there, or the host is unreachable
│   ├── SourceUnauthorised        the user name or password is wrong
│   ├── SourceNoVideo             it opened, but holds no video (audio only, text, empty)
│   ├── SourceTimeout             it did not answer in time, or stalled
│   └── SourceCorrupt             it is damaged or cut short, or its codec is unknown
├── FrameError (ValueError)       one picture cannot be used; it is counted and skipped
├── EngineError (RuntimeError)    a bundle is damaged, or a backend cannot run it  exit code 1
│   └── BackendUnavailable        the backend's package or device is not here
├── BindError (OSError)           the address to publish on cannot be bound        exit code 1
├── WireError (ValueError)        a message breaks the wire contract
│   └── UnsupportedVersion        a message of another major version of it
└── StageError (RuntimeError)     a pipeline stage died; names the stage           exit code 1
"""

from __future__ import annotations


class StreamsegError(Exception):
    """The base of all; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(StreamsegError, ValueError):
    exit_code = 2


class EngineNotFound(ConfigError):
    pass


class SourceError(StreamsegError, OSError):
    """`reason` is the short word used in events, logs and `streamseg check`."""

    reason = "failed"

    def __str__(self) -> str:  # OSError would print a tuple for two arguments
        return str(self.args[0]) if self.args else self.reason


class SourceNotFound(SourceError):
    reason = "not-found"


class SourceRefused(SourceError):
    reason = "refused"


class SourceUnauthorised(SourceError):
    reason = "unauthorised"


class SourceNoVideo(SourceError):
    reason = "no-video"


class SourceTimeout(SourceError):
    reason = "timeout"


class SourceCorrupt(SourceError):
    reason = "corrupt"


class FrameError(StreamsegError, ValueError):
    pass


class EngineError(StreamsegError, RuntimeError):
    pass


class BackendUnavailable(EngineError):
    pass


class BindError(StreamsegError, OSError):
    pass


class WireError(StreamsegError, ValueError):
    pass


class UnsupportedVersion(WireError):
    pass


class StageError(StreamsegError, RuntimeError):
    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"{stage} stopped: {type(cause).__name__}: {cause}")
