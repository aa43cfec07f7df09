"""What `Topics` sees of a connection in threads or on trio: the part that is the same for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import BufferFull
from ..telling import tell

if TYPE_CHECKING:
    from ..session import Limits
    from .index import Member

__all__ = ["Sink"]


class Sink:
    """Where a connection's messages from topics go.

    A subclass has `connection`, `outbox`, `write_paused`, `has_room`, `send_gathered`, and `write_encoded` or
    `write_shared`.

    Args:
        ws: the connection, which is open.
        turn: that of the part of the topics that it belongs to.

    Attributes:
        ws, turn: the arguments.
        member: its subscriptions, None if it has none.
    """

    def __init__(self, ws: Any, turn: Any) -> None:
        self.ws = ws
        self.turn = turn
        self.member: Member | None = None
        self.host = self
        self.logger: Any = ws.logger
        self.limits: Limits = ws._limits

    @property
    def is_sending(self) -> bool:
        """Whether another message is under way in fragments."""
        return self.ws._sender is not None or self.ws._connection.in_message

    def may_buffer(self, payload: bytes, held: int = 0) -> bool:
        """Tell whether a message may be sent to a peer that is behind.

        Args:
            payload: the message.
            held: how many bytes are unsent besides those that the connection has been given.

        Raises:
            BufferFull: too much is unsent.
        """
        limit, unsent = self.limits.max_buffered, self.ws.buffered_amount + held
        if limit is not None and unsent + len(payload) > limit:
            raise BufferFull(f"{unsent} bytes are unsent, the limit is {limit} (max_buffered)")
        return True

    def send_behind(self, frames: bytes, count: int) -> bool:
        """Leave a peer that is behind to `may_buffer`, message by message."""
        return False

    def transport_failed(self, exc: BaseException) -> None:
        """Drop the connection after an error of this program's own."""
        tell(self.logger.error, "a connection failed while it was written to", exc_info=exc)
        self.ws.abort()
