"""What a decoder returns besides messages.

A message is a plain `str` or `bytes`, and a failure is a `PeerError`, so the common case
allocates nothing else. The rare events have the small classes of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, Union

from .codes import Close
from .exceptions import PeerError

__all__ = ["BytesLike", "Close", "Event", "Fragment", "Inflate", "Ping", "Pong"]

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Any object with the buffer protocol is accepted at run time."""

Inflate: TypeAlias = Callable[[bytes, bool, int], bytes]
"""Decompress a piece of a message: ``inflate(data, fin, limit)``; see `Decoder`."""

Event: TypeAlias = Union[str, bytes, "Ping", "Pong", Close, "Fragment", PeerError]
"""What a decoder returns."""


class Ping(NamedTuple):
    """A Ping frame (RFC 6455, 5.5.2). The payload has 0 to 125 bytes."""

    payload: bytes


class Pong(NamedTuple):
    """A Pong frame (RFC 6455, 5.5.3). The payload has 0 to 125 bytes."""

    payload: bytes


class Fragment(NamedTuple):
    """A piece of a message, in streaming mode (RFC 6455, 5.4).

    The pieces follow the stream as it arrives, not the frames: a frame may come in several pieces.
    The last piece of a message has `final` set and may be empty.
    """

    data: str | bytes
    final: bool
