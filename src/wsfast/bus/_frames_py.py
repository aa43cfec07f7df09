"""The frames of `LocalBus`, in plain Python: the readable specification. `_frames.pyx` is its fast twin.

A frame is the number of bytes that follow the first six, in four bytes, the least first; what it is, in one; the number
of bytes of its topic's name, in one; the name; and what its kind says.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

__all__ = ["HEAD_SIZE", "MAX_FRAME", "MESSAGE", "make", "take"]

_HEAD: Final = Struct("<IBB")
HEAD_SIZE: Final = 6
MAX_FRAME: Final = 134_217_728
MESSAGE: Final = 5
"""The kind of nearly all frames: a message without a history."""


def make(kind: int, topic: str, body: bytes) -> bytes:
    """Make a frame.

    Raises:
        ValueError: the name has more than 255 bytes, or it and the body more than `MAX_FRAME`.
    """
    name = topic.encode()
    if len(name) > 255 or len(name) + len(body) > MAX_FRAME:
        raise ValueError("a frame's name must have at most 255 bytes, and all of it at most MAX_FRAME")
    return _HEAD.pack(len(name) + len(body), kind, len(name)) + name + body


def take(
    data: bytes,
    topics: dict[bytes, str],
    received: Callable[[str, bytes, None], object] | None,
    other: Callable[[int, bytes, bytes], object],
) -> int:
    """Hand on the frames that bytes begin with, and return how many bytes that were.

    Args:
        data: the bytes.
        topics: whose messages are received: what is called with them, by the name as bytes.
        received: called with each message of one of `topics`; None if `other` gets those, too.
        other: called with the kind, the name and the body of each other frame.

    Raises:
        ValueError: a frame is longer than `MAX_FRAME`, or its name than all of it.
    """
    at, end = 0, len(data)
    while end - at >= HEAD_SIZE:
        size, kind, named = _HEAD.unpack_from(data, at)
        if size > MAX_FRAME or named > size:
            raise ValueError(f"a frame of {size} bytes")
        start = at + HEAD_SIZE
        if end - start < size:
            break
        at = start + size
        name, body = data[start : start + named], data[start + named : at]
        if kind == MESSAGE and received is not None:
            topic = topics.get(name)
            if topic is not None:
                received(topic, body, None)
                continue
        other(kind, name, body)
    return at
