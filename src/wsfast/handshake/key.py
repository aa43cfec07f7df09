"""The key of an opening handshake and its answer (RFC 6455, 1.3 and 4), which both sides compute."""

from __future__ import annotations

import os
from base64 import b64encode
from binascii import b2a_base64
from hashlib import sha1
from typing import Final

from ._head_py import KEY

__all__ = ["KEY", "accept_key", "accept_token", "generate_key"]


# RFC 6455, 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_token(key: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept for a key (RFC 6455, 4.2.2, item 5.4), as bytes."""
    # SHA-1 is what the RFC asks for, and no secret hangs on it: FIPS builds of OpenSSL want to be told.
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def accept_key(key: str) -> str:
    """Return the value of Sec-WebSocket-Accept for a key (RFC 6455, 4.2.2, item 5.4)."""
    return accept_token(key.encode("latin-1")).decode("ascii")


def generate_key() -> str:
    """Draw a value of Sec-WebSocket-Key from the operating system's random source (RFC 6455, 4.1, item 7)."""
    return b64encode(os.urandom(16)).decode("ascii")
