"""What a decoder returns besides messages.

A message is a plain `str` or `bytes`, and a failure is a `PeerError`, so the common case
allocates nothing else. The rare events have the small classes of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, Union

from .codes import Close
from .exceptions import PeerError

__all__ = ["BytesLike", "Close", "Event", "Extensions", "Fragment", "Inflate", "Ping", "Pong"]

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Any object with the buffer protocol is accepted at run time."""

Inflate: TypeAlias = Callable[[bytes, bool, int], bytes]
"""Decompress a piece of a message: ``inflate(data, fin, limit)``; see `Decoder`."""

Event: TypeAlias = Union[str, bytes, "Ping", "Pong", Close, "Fragment", PeerError]
"""What a decoder returns."""


class Extensions(Protocol):
    """The interface of extensions that stand between a decoder and the network; `extensions.Chain` implements it."""

    failure: PeerError | None
    """The error that follows the frames that `receive` has returned; None if there is none."""
    pending: bool
    """Whether `receive` may return more without having been given more."""

    @property
    def held(self) -> int:
        """The bytes that are kept of frames that are not returned yet."""
        ...

    def receive(self, data: bytes, most: int, /) -> bytes:
        """Take in received bytes; return whole frames with the extensions undone, up to about `most` bytes of them."""
        ...


class Ping(NamedTuple):
    """A Ping frame (RFC 6455, 5.5.2)."""

    payload: bytes
    """0 to 125 bytes, which the pong repeats."""


class Pong(NamedTuple):
    """A Pong frame (RFC 6455, 5.5.3)."""

    payload: bytes
    """0 to 125 bytes: those of the ping that it answers."""


class Fragment(NamedTuple):
    """A piece of a message, in streaming mode (RFC 6455, 5.4).

    A piece is what has just arrived: one frame may come in several pieces.
    """

    data: str | bytes
    """`str` in a text message, `bytes` in a binary one; it may be empty in the last piece."""
    final: bool
    """Whether it is the last piece of its message."""
