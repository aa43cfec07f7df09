"""Small things of the protocol under the names of `websockets`."""

from __future__ import annotations

import socket

from wsfast.events import BytesLike
from wsfast.handshake.key import accept_token, generate_key

__all__ = ["accept_key", "apply_mask", "generate_key", "get_socket_name"]


def accept_key(key: str) -> str:
    """Compute the value of Sec-WebSocket-Accept for one of Sec-WebSocket-Key."""
    return accept_token(key.encode("latin-1")).decode("ascii")


def apply_mask(data: BytesLike, mask: bytes | bytearray) -> bytes:
    """Mask, or unmask, the payload of a frame (RFC 6455, 5.3).

    Raises:
        ValueError: the mask has not 4 bytes.
    """
    if len(mask) != 4:
        raise ValueError("mask must contain 4 bytes")
    payload = bytes(data)
    size = len(payload)
    repeated = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def get_socket_name(sock: socket.socket) -> str:
    """Return a socket's own address as text."""
    name = sock.getsockname()
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    if sock.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    return str(name)
