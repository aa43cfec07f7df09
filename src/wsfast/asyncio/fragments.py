"""What becomes of messages that come in pieces: they are put together for `recv`, or left so for `recv_streaming`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..assembly import Assembler
from ..events import Fragment
from .channel import PAUSED_HELD

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["Fragments"]


class Fragments:
    """The pieces of messages of one connection whose consumer takes them from the queue.

    Args:
        channel: the connection's protocol.
    """

    __slots__ = ("_assembler", "_channel")

    def __init__(self, channel: ConnectionProtocol) -> None:
        self._channel = channel
        self._assembler = Assembler()  # of a message that was begun in pieces, and is now wanted whole, or not at all

    def add(self, piece: Fragment) -> str | bytes | Fragment | None:
        """Take the next piece; return what of it is for the queue: itself, the whole message, or None for nothing."""
        return piece if self._channel.streaming else self._assembler.add(piece)

    def begin(self) -> None:
        """Deliver the next message in pieces."""
        channel = self._channel
        channel.streaming = True
        channel.connection.decoder.streaming = True
        if self._assembler.holding:
            channel.put_back(self._assembler.take())
        channel.show_held()

    def end(self, *, skip: bool) -> None:
        """Deliver messages whole again; `skip` drops the rest of the message of which a piece was taken."""
        channel = self._channel
        channel.streaming = False
        channel.connection.decoder.streaming = False
        if skip:
            self._assembler.skip()
        for event in channel.take_queue():
            kept = self.add(event) if isinstance(event, Fragment) else event
            if kept is not None:
                channel.put_back(kept)
        if channel.paused & PAUSED_HELD and channel.held <= channel.low_water:
            channel.unpause(PAUSED_HELD)
