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
    """What a decoder needs of extensions that stand between it and the network; `extensions.Chain` is one."""

    failure: PeerError | None
    """What ends it all, behind the frames that `receive` has returned; None if nothing does."""
    pending: bool
    """Whether `receive` may return more without having been given more."""

    @property
    def held(self) -> int:
        """The bytes that are kept of frames that are not returned yet."""
        ...

    def receive(self, data: bytes, most: int, /) -> bytes:
        """Take in what came; return frames without extensions, whole ones, and no more once they cost `most` bytes."""
        ...


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
