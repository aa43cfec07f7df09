"""What the supervisor and its workers agree on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import ssl
from math import inf

__all__ = ["Settings", "hold_signals", "load_certificate", "take_signals"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve; `run` documents the fields.

    Raises:
        ValueError, TypeError: a value is out of range, or of another type; the text names it.
    """

    target: str = ""
    workers: int = 1
    host: str | None = "127.0.0.1"
    port: int = 8765
    unix: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    uvloop: bool = False
    reload: bool = False
    directory: str = ""
    stop_timeout: float = 30.0
    hang_timeout: float | None = 30.0
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name, least, most in (("workers", 1, 1024), ("port", 0, 65535)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be int, got {type(value).__name__}")
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, got {value}")
        for name in ("stop_timeout", "hang_timeout"):
            value = getattr(self, name)
            if value is None and name == "hang_timeout":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number of seconds, got {type(value).__name__}")
            if not 0 < value < inf:
                raise ValueError(f"{name} must be a positive number of seconds, got {value}")
        for name in ("host", "unix", "certfile", "keyfile"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"{name} must be str or None, got {type(value).__name__}")
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("keyfile goes with certfile")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ValueError(f"log_level must be debug, info, warning or error, got {self.log_level!r}")

    def dump(self) -> str:
        """Return them as text."""
        return json.dumps(dataclasses.asdict(self), default=os.fspath)

    @classmethod
    def load(cls, text: str) -> Settings:
        """Read what `dump` made."""
        return cls(**json.loads(text))


def load_certificate(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    """Return the context of a server with a certificate.

    Args:
        certfile: the certificate's chain in PEM.
        keyfile: its key in PEM; None if that is in `certfile`.

    Raises:
        OSError: they cannot be read, are not PEM, or do not belong together; the text names the files.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        names = certfile if keyfile is None else f"{certfile} with {keyfile}"
        raise OSError(f"cannot use the certificate {names}: {getattr(exc, 'strerror', None) or exc}") from None
    return context


def hold_signals() -> None:
    """Have the signals that end or reload a program wait, here and in processes started from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def take_signals() -> None:
    """Take those that wait: it is known what to do now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
