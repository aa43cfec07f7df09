"""The numbers of RFC 6455: opcodes, close codes, what a Close frame says, and who closed a connection.

This module owns names for numbers on the wire and imports nothing of the package.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

__all__ = ["Close", "CloseCause", "CloseCode", "Opcode"]


class Opcode(IntEnum):
    """The meaning of a frame (RFC 6455, 5.2 and 11.8)."""

    CONT = 0x0
    """A further fragment of a message (5.4)."""
    TEXT = 0x1
    """A message, or its first fragment, in UTF-8 (5.6)."""
    BINARY = 0x2
    """A message, or its first fragment, of any bytes (5.6)."""
    CLOSE = 0x8
    """The start, or the answer, of the closing handshake (5.5.1)."""
    PING = 0x9
    """A question that a pong must answer (5.5.2)."""
    PONG = 0xA
    """The answer to a ping, or an unsolicited sign of life (5.5.3)."""


class CloseCode(IntEnum):
    """Why a connection was closed (RFC 6455, 7.4.1, and the IANA registry).

    1005, 1006 and 1015 never stand on the wire: they describe a connection that
    ended without a code.
    """

    NORMAL_CLOSURE = 1000
    """What the connection was for is done."""
    GOING_AWAY = 1001
    """The server goes down, or the browser leaves the page."""
    PROTOCOL_ERROR = 1002
    """The peer broke the protocol."""
    UNSUPPORTED_DATA = 1003
    """The peer sent a kind of data that this side does not take, such as binary messages."""
    NO_STATUS_RCVD = 1005
    """A Close frame without a code."""
    ABNORMAL_CLOSURE = 1006
    """The connection ended without a Close frame."""
    INVALID_DATA = 1007
    """A message does not fit its type, such as text that is not UTF-8."""
    POLICY_VIOLATION = 1008
    """The peer broke a rule of the application, and no other code fits."""
    MESSAGE_TOO_BIG = 1009
    """The peer sent a message that is too big to process."""
    MANDATORY_EXTENSION = 1010
    """The server did not agree to an extension that the client needs."""
    INTERNAL_ERROR = 1011
    """Something failed that this side did not expect."""
    SERVICE_RESTART = 1012
    """The server restarts: connect again, after a random delay (IANA)."""
    TRY_AGAIN_LATER = 1013
    """The server has too much to do: connect again later (IANA)."""
    BAD_GATEWAY = 1014
    """A gateway got no valid answer from the server behind it (IANA)."""
    TLS_HANDSHAKE = 1015
    """The TLS handshake failed."""


class Close(NamedTuple):
    """What a Close frame said (RFC 6455, 5.5.1)."""

    code: int
    """The close code; 1005 if the frame has none."""
    reason: str = ""
    """At most 123 bytes in UTF-8."""

    def __str__(self) -> str:
        try:
            name = f" ({CloseCode(self.code).name})"
        except ValueError:
            name = ""
        return f"{self.code}{name}" + (f" {self.reason!r}" if self.reason else "")

    def check(self) -> None:
        """Check that a Close frame may be sent with this code (RFC 6455, 7.4).

        Raises:
            ValueError: the code is not one of 1000 to 1003, 1007 to 1014 and 3000 to 4999.
        """
        check_code(self.code)


def check_code(code: int) -> None:
    """Check that a close code may be sent; errors are those of `Close.check`."""
    # RFC 6455, 7.4.2: 0-999 "are not used", 1000-2999 are the protocol's own, of which 1004-1006 and 1015 are reserved.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ValueError(f"code must be 1000-1003, 1007-1014 or 3000-4999, got {code}")


NO_CLOSE: Final = Close(CloseCode.ABNORMAL_CLOSURE)
"""What the peer is taken to have said if no Close frame came (RFC 6455, 7.1.5): 1006, which no frame ever has."""


class CloseCause(StrEnum):
    """Who or what ended a connection, for logs, counters and exceptions."""

    PEER = "closed by peer"
    """The peer sent the first Close frame, with a code that blames nobody."""
    LOCAL = "closed by us"
    """This side called `close`, or its handler returned."""
    PROTOCOL_ERROR = "peer broke the protocol"
    """The peer sent what RFC 6455 forbids; this side failed the connection (1002 or 1007)."""
    TOO_BIG = "message too big"
    """A message passed `max_size` or `max_fragments` of this side, which failed the connection (1009)."""
    REJECTED = "peer rejected our data"
    """The peer closed with 1002, 1003, 1007, 1009 or 1010: it blames this side."""
    HANDLER_ERROR = "handler raised"
    """An exception escaped from this side's handler, listener or extension (1011)."""
    KEEPALIVE = "keepalive timeout"
    """The peer did not answer a keepalive ping in time."""
    TIMEOUT = "close timeout"
    """The peer did not answer a Close frame in time."""
    OVERFLOW = "send buffer overflow"
    """`send_nowait` met its limit under the policy ``"close"`` (1013)."""
    STOP = "server stopped"
    """The server is stopping (1001)."""
    LOST = "connection lost"
    """The transport ended, or was reset, without a Close frame."""
