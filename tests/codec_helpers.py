"""What the codec's tests share: ways to feed a decoder, and the trace it leaves."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, TypeAlias

from wsfast.events import Fragment
from wsfast.exceptions import PeerError

Trace: TypeAlias = list[tuple[Any, ...]]


def trace(events: Iterable[Any]) -> Trace:
    """Turn events into what can be compared: type and content, of a failure class, code and text."""
    return [
        (type(event), event.code, event.reason, str(event)) if isinstance(event, PeerError) else (type(event), event)
        for event in events
    ]


def merged(events: Iterable[Any]) -> list[Any]:
    """Join the pieces of each message, which depend on the cuts of the input."""
    joined: list[Any] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Fragment) and isinstance(last, Fragment) and not last.final:
            joined[-1] = Fragment(last.data + event.data, event.final)  # type: ignore[operator]
        else:
            joined.append(event)
    return joined


def cut(data: bytes, size: int) -> list[bytes]:
    """Cut data in pieces of a size."""
    return [data[i : i + size] for i in range(0, len(data), size)]


def feed_all(decoder: Any, pieces: Iterable[bytes]) -> list[Any]:
    """Feed pieces one by one, taking what `max_events` held back, and return all events."""
    events = []
    for piece in pieces:
        events += decoder.feed(piece)
        while decoder.pending:
            events += decoder.feed(b"")
    return events


def receive_all(decoder: Any, pieces: Iterable[bytes]) -> list[Any]:
    """As `feed_all`, through the memory that the decoder lends, as a transport would."""
    events = []
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            with decoder.get_buffer(len(rest))[: len(rest)] as lent:
                count = len(lent)
                lent[:] = rest[:count]
            events += decoder.buffer_updated(count)
            rest = rest[count:]
            while decoder.pending:
                events += decoder.feed(b"")
    return events


def decode(codec: ModuleType, data: bytes, *, masked: bool = False, **options: Any) -> list[Any]:
    """Decode bytes that come at once with a new decoder, of frames that are not masked unless said."""
    events: list[Any] = codec.Decoder(masked=masked, **options).feed(data)
    return events


class Inflater:
    """An `inflate` that records its calls, and gives back each byte `factor` times."""

    def __init__(self, factor: int = 1) -> None:
        self.calls: list[tuple[bytes, bool, int]] = []
        self.factor = factor

    def __call__(self, data: bytes, fin: bool, limit: int) -> bytes:
        self.calls.append((data, fin, limit))
        return data * self.factor
