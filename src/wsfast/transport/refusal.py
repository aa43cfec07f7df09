"""What the operating system refused, in words."""

from __future__ import annotations

import os
import socket
import ssl

__all__ = ["why_refused"]


def why_refused(exc: Exception) -> str:
    """Say in a few words why something failed, for a text that names the address.

    The own text of an error from the system may hold the address once more, as a tuple, and differs between event
    loops.
    """
    if not isinstance(exc, OSError):
        return str(exc) or type(exc).__name__
    if exc.errno is None or exc.errno <= 0 or isinstance(exc, (socket.gaierror, ssl.SSLError)):
        return exc.strerror or str(exc) or type(exc).__name__
    return os.strerror(exc.errno)
