"""Every exception that wsfast raises, in one tree under `WebSocketError`.

Whose fault it is shows in the type:

    WebSocketError
    ├── PeerError                    the peer broke a rule; `code` is the close code to send
    │   ├── ProtocolError            1002
    │   ├── InvalidPayload           1007
    │   ├── PayloadTooBig            1009
    │   └── ExtensionError           1011, an extension of this program's own failed
    ├── CallerError                  this program used the library wrongly
    │   ├── InvalidState         (also an `AssertionError`, as in `websockets`)
    │   ├── ConcurrencyError     (also a `RuntimeError`)
    │   ├── BufferFull
    │   ├── TooManySubscriptions
    │   └── NotAuthorized
    ├── ConnectionClosed             `ConnectionClosedOK`, `ConnectionClosedError`
    ├── BusUnavailable               other processes cannot be reached
    ├── NotRecovered                 messages that were missed are not kept any more
    ├── InvalidURI                   (also a `ValueError`)
    ├── InvalidProxy                 (also a `ValueError`)
    └── InvalidHandshake
        ├── HandshakeRefused         the server's side refuses; carries the HTTP response to send
        ├── InvalidMessage           what came is not HTTP/1.1, or exceeds a limit
        ├── InvalidHeader            a header is missing, doubled or malformed
        │   ├── InvalidHeaderFormat
        │   ├── InvalidUpgrade
        │   └── InvalidOrigin
        ├── InvalidStatus            the client's side got another status than 101
        ├── NegotiationError         a subprotocol or an extension that was not offered
        ├── RedirectError            a redirect that must not or can not be followed
        └── ProxyError

Bad argument types are `TypeError`, bad values `ValueError`, as everywhere in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .codes import NO_CLOSE, Close, CloseCause, CloseCode
from .escape import show as show

if TYPE_CHECKING:
    from .http import Response  # whose module loads multidict

__all__ = [
    "BufferFull",
    "BusUnavailable",
    "CallerError",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "ExtensionError",
    "HandshakeRefused",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidPayload",
    "InvalidProxy",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "NotAuthorized",
    "NotRecovered",
    "PayloadTooBig",
    "PeerError",
    "ProtocolError",
    "ProxyError",
    "RedirectError",
    "TooManySubscriptions",
    "WebSocketError",
]


ONE_RECEIVER = "cannot call {} while another coroutine is already running recv or recv_streaming"
"""The text of `ConcurrencyError` where two receive from one connection, the same as in `websockets`."""


class WebSocketError(Exception):
    """Base of every exception of wsfast."""


class PeerError(WebSocketError):
    """The peer broke a rule, and the connection must fail (RFC 6455, 7.1.7).

    Attributes:
        code: the close code to send to the peer.
        reason: what was expected and what came; also the text of the exception.
    """

    code: int = CloseCode.PROTOCOL_ERROR

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason,), self.__dict__


class ProtocolError(PeerError):
    """The peer sent frames that RFC 6455 forbids (1002)."""

    code: int = CloseCode.PROTOCOL_ERROR


class InvalidPayload(PeerError):
    """The peer sent data that does not fit the message's type, such as text that is not UTF-8 (1007)."""

    code: int = CloseCode.INVALID_DATA


class PayloadTooBig(PeerError):
    """The peer sent a message with more bytes or fragments than this side's limit (1009)."""

    code: int = CloseCode.MESSAGE_TOO_BIG


class ExtensionError(PeerError):
    """An extension of this program's own failed; `__cause__` is what it raised.

    On what the peer sent, it ends the connection with 1011. On a message that was to be sent, the call that sends it
    raises this, and the connection goes on without the message.
    """

    code: int = CloseCode.INTERNAL_ERROR


class CallerError(WebSocketError):
    """This program used the library in a way that cannot work."""


class InvalidState(CallerError, AssertionError):
    """The call does not fit the connection's state, such as writing before it is open."""


class ConcurrencyError(CallerError, RuntimeError):
    """Two tasks did at the same time what only one may do, such as receiving."""


class BufferFull(CallerError):
    """`send_nowait` would hold more than `max_buffered` bytes unsent."""


class TooManySubscriptions(CallerError):
    """A connection would have more topics, or a process more subscriptions, than their limits."""


class NotAuthorized(CallerError):
    """The hook `authorize` of `Topics` does not allow a connection to subscribe to a topic."""


class BusUnavailable(WebSocketError):
    """Other processes cannot be reached now, so that a message may not get there, or a history cannot be read.

    The text says why: which server was tried, without its password, and how that failed the last time.
    """


class NotRecovered(WebSocketError):
    """Messages that were missed cannot be recovered: they are not kept any more, or their history was lost."""


class ConnectionClosed(WebSocketError):
    """The connection is closed, or is closing, and no message is left.

    Attributes:
        rcvd: the `Close` frame that the peer sent, or None.
        sent: the `Close` frame that this side sent, or None.
        rcvd_then_sent: True if the peer closed first, None if fewer than two Close frames were exchanged.
        cause: a `CloseCause`: who or what ended it.
        code: the close code as RFC 6455, 7.1.5 defines it: the peer's, 1005 without one, 1006 without a Close frame.
        reason: the peer's close reason, ``""`` without one.
    """

    def __init__(
        self,
        rcvd: Close | None,
        sent: Close | None,
        rcvd_then_sent: bool | None = None,
        cause: CloseCause = CloseCause.LOST,
    ) -> None:
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent
        self.cause = cause
        super().__init__(rcvd, sent, rcvd_then_sent, cause)

    @property
    def code(self) -> int:
        return (self.rcvd or NO_CLOSE).code

    @property
    def reason(self) -> str:
        return (self.rcvd or NO_CLOSE).reason

    def __str__(self) -> str:
        got = "no close frame received" if self.rcvd is None else f"received {self.rcvd}"
        gave = "no close frame sent" if self.sent is None else f"sent {self.sent}"
        first, then = (got, gave) if self.rcvd_then_sent is not False else (gave, got)
        return f"{self.cause}: {first}; then {then}" if self.rcvd and self.sent else f"{self.cause}: {got}; {gave}"


class ConnectionClosedOK(ConnectionClosed):
    """The connection ended well: Close frames with 1000 or 1001, or without a code, both ways."""


class ConnectionClosedError(ConnectionClosed):
    """The connection ended in an error: another close code, or no closing handshake."""


class InvalidURI(WebSocketError, ValueError):
    """A URI is not a valid ws:// or wss:// URI (RFC 6455, 3)."""

    def __init__(self, uri: str, message: str) -> None:
        super().__init__(uri, message)
        self.uri = uri
        self.message = message

    def __str__(self) -> str:
        return f"{self.uri!r} is not a valid WebSocket URI: {self.message}"


class InvalidProxy(WebSocketError, ValueError):
    """The URL of a proxy is not valid."""

    def __init__(self, proxy: str, message: str) -> None:
        super().__init__(proxy, message)
        self.proxy = proxy
        self.message = message

    def __str__(self) -> str:
        return f"{self.proxy!r} is not a valid address of a proxy: {self.message}"


class InvalidHandshake(WebSocketError):
    """The opening handshake failed (RFC 6455, 4).

    Attributes:
        response: on the client's side, the HTTP response that came, with up to 64 KiB of its body, or None.
    """

    response: Response | None = None


class HandshakeRefused(InvalidHandshake):
    """The server's side refuses a request; `response` is the HTTP answer to send.

    The text is for the log: it says what was expected and what came, with the peer's bytes escaped.

    Attributes:
        response: the argument.
        line: what came in the place of a request line, if that is what is wrong; else None. It is without its CR LF,
            and without what may be a secret: a query, a fragment, a user name.
    """

    line: bytes | None = None

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response: Response = response

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.response), self.__dict__


class InvalidMessage(InvalidHandshake):
    """What came is not an HTTP/1.1 message, or exceeds a limit of its size.

    Attributes:
        line: what came in the place of a status line, without its CR LF, if that is what is wrong; else None.
    """

    line: bytes | None = None


class InvalidHeader(InvalidHandshake):
    """A header is missing, doubled or has a wrong value.

    Attributes:
        name: the header's name.
        value: what came, or None if it is missing.
    """

    def __init__(self, name: str, value: str | None = None, message: str | None = None) -> None:
        super().__init__(name, value, message)
        self.name = name
        self.value = value
        self.message = message

    def __str__(self) -> str:
        if self.value is None:
            text = f"missing {self.name} header"
        elif self.value == "":
            text = f"empty {self.name} header"
        else:
            text = f"invalid {self.name} header: {show(self.value)}"
        return f"{text}: {self.message}" if self.message else text


class InvalidHeaderFormat(InvalidHeader):
    """A header does not follow its grammar."""


class InvalidUpgrade(InvalidHeader):
    """The Upgrade or the Connection header does not ask for, or agree to, a WebSocket."""


class InvalidOrigin(InvalidHeader):
    """The Origin header is not one of those that are allowed."""

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value,), self.__dict__


class InvalidStatus(InvalidHandshake):
    """The server answered with another status than 101; `response` has it."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response: Response = response

    def __str__(self) -> str:
        text = f"server answered HTTP {self.response.status_code}, expected 101"
        # The first line of a body mostly tells why: "Missing token", or "<html>".
        line = self.response.body.lstrip().partition(b"\n")[0].strip().decode(errors="replace")
        return f"{text}: {show(line, 100)}" if line else text


class NegotiationError(InvalidHandshake):
    """The server chose a subprotocol or an extension that was not offered, or with wrong parameters."""


class RedirectError(InvalidHandshake):
    """A redirect that must not be followed: too many, from wss to ws, or to no WebSocket URI."""


class ProxyError(InvalidHandshake):
    """The proxy could not be reached, refused (then `response` is its answer), or did not answer in HTTP."""


SKIPPED: Final = (ConcurrencyError, BufferFull, ExtensionError)
"""Why a broadcast skips a connection that is open."""
Skipped: TypeAlias = ConcurrencyError | BufferFull | ExtensionError
"""The same as a type."""
ENDS_PROGRAM: Final = (SystemExit, KeyboardInterrupt)
"""Exceptions that end the program: what asyncio lets out of its event loop. All others are a fault of what raised."""


def is_only(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Tell whether an exception, or each one of a group as task groups and nurseries raise it, is of some kinds."""
    if isinstance(exc, BaseExceptionGroup):
        return all(is_only(one, kinds) for one in exc.exceptions)
    return isinstance(exc, kinds)
