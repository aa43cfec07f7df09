"""The exceptions of `websockets`: its names, constructors and texts, each one of wsfast's too where that has it.

What wsfast itself raises while a connection is open is the same class under both names: `WebSocketException` is
`wsfast.WebSocketError`, `ConcurrencyError`, `InvalidState` and `ProtocolError` are wsfast's.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from wsfast import exceptions as native
from wsfast.codes import CloseCause, CloseCode
from wsfast.exceptions import ConcurrencyError, InvalidState, NegotiationError, ProtocolError

from .imports import lazy_import

if TYPE_CHECKING:
    from .frames import Close
    from .http11 import Response

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeaderLineTooLong",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
]

WebSocketException = native.WebSocketError
InvalidHandshake = native.InvalidHandshake


class ConnectionClosed(native.ConnectionClosed):
    """The connection is closed, or is closing, and no message is left.

    Args:
        rcvd: the `Close` that the peer sent, or None.
        sent: the `Close` that this side sent, or None.
        rcvd_then_sent: which came first, None if fewer than two were exchanged.
        cause: see `wsfast.ConnectionClosed`.
    """

    args: tuple[Any, ...]

    def __init__(
        self,
        rcvd: Close | None,
        sent: Close | None,
        rcvd_then_sent: bool | None = None,
        cause: CloseCause = CloseCause.LOST,
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent, cause)
        assert (rcvd_then_sent is None) == (rcvd is None or sent is None)
        self.args = rcvd, sent, rcvd_then_sent  # which `repr` shows

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.cause), self.__dict__

    def __str__(self) -> str:
        if self.rcvd is None:
            return (
                "no close frame received or sent" if self.sent is None else f"sent {self.sent}; no close frame received"
            )
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        first, then = f"received {self.rcvd}", f"sent {self.sent}"
        return f"{first}; then {then}" if self.rcvd_then_sent else f"{then}; then {first}"

    @property
    def code(self) -> int:
        """Deprecated: the close code that the peer sent."""
        warnings.warn(
            "ConnectionClosed.code is deprecated; use Protocol.close_code or ConnectionClosed.rcvd.code",
            DeprecationWarning,
            stacklevel=2,
        )
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """Deprecated: the close reason that the peer sent."""
        warnings.warn(
            "ConnectionClosed.reason is deprecated; use Protocol.close_reason or ConnectionClosed.rcvd.reason",
            DeprecationWarning,
            stacklevel=2,
        )
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed, native.ConnectionClosedOK):
    """The connection ended well: Close frames with 1000 or 1001, or without a code, both ways."""


class ConnectionClosedError(ConnectionClosed, native.ConnectionClosedError):
    """The connection ended in an error: another close code, or no closing handshake."""


class InvalidURI(native.InvalidURI):
    """The URI is not valid for a WebSocket."""

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.uri} isn't a valid URI: {self.msg}"


class InvalidProxy(native.InvalidProxy):
    """The proxy's URL is not valid."""

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.proxy} isn't a valid proxy: {self.msg}"


class SecurityError(native.RedirectError):
    """A request, a response or a redirect breaks a rule of security."""


class RequestLineTooLong(SecurityError):
    """The request line is too long."""


class StatusLineTooLong(SecurityError):
    """The status line is too long."""


class HeaderLineTooLong(SecurityError):
    """A header is too long."""


class TooManyHeaders(SecurityError):
    """There are too many headers."""


class ProxyError(native.ProxyError):
    """The proxy could not be reached, or refused."""


class InvalidProxyMessage(ProxyError):
    """What the proxy answered is no HTTP."""


class InvalidProxyStatus(ProxyError):
    """The proxy refused; `response` has its answer."""

    response: Response  # type: ignore[assignment]

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


class InvalidMessage(native.InvalidMessage):
    """What came is no HTTP request, or no HTTP response."""


class InvalidMethod(InvalidHandshake):
    """The request's method is not GET."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {self.method}"


class InvalidProtocol(InvalidHandshake):
    """The request is not by HTTP/1.1."""

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {self.protocol}"


class InvalidStatus(native.InvalidStatus):
    """The server answered with another status than 101; `response` has it."""

    response: Response  # type: ignore[assignment]

    def __init__(self, response: Response) -> None:
        super().__init__(response)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"


class InvalidHeader(native.InvalidHeader):
    """A header is missing, doubled or has a wrong value."""

    def __init__(self, name: str, value: str | None = None) -> None:
        native.InvalidHeader.__init__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.value), self.__dict__

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        return f"invalid {self.name} header: {self.value}" if self.value else f"empty {self.name} header"


class InvalidHeaderFormat(InvalidHeader, native.InvalidHeaderFormat):
    """A header does not follow its grammar."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")
        self._args = (name, error, header, pos)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args, self.__dict__


class InvalidHeaderValue(InvalidHeader):
    """A header has a value that is not acceptable."""


class InvalidOrigin(InvalidHeader, native.InvalidOrigin):
    """The Origin header is not one of those that are allowed."""

    def __init__(self, origin: str | None) -> None:
        InvalidHeader.__init__(self, "Origin", origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value,), self.__dict__


class InvalidUpgrade(InvalidHeader, native.InvalidUpgrade):
    """The Upgrade or the Connection header does not ask for, or agree to, a WebSocket."""


class DuplicateParameter(NegotiationError):
    """A parameter of an extension comes twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {self.name}"


class InvalidParameterName(NegotiationError):
    """A parameter of an extension is not known."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {self.name}"


class InvalidParameterValue(NegotiationError):
    """A parameter of an extension has a wrong value."""

    def __init__(self, name: str, value: str | None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if self.value == "":
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {self.value}"


class PayloadTooBig(native.PayloadTooBig):
    """A frame or a message is too big.

    Args:
        size_or_message: the size in bytes, or None; a text is deprecated.
        max_size: the limit in bytes.
        current_size: what was read of the message before.
    """

    def __init__(
        self, size_or_message: int | str | None, max_size: int | None = None, current_size: int | None = None
    ) -> None:
        self._args = (size_or_message, max_size, current_size)
        self.message: str | None = None
        self.size: int | None = None
        self.max_size: int | None = None
        self.current_size: int | None = None
        if isinstance(size_or_message, str):
            assert max_size is None
            assert current_size is None
            warnings.warn(
                "PayloadTooBig(message) is deprecated; change to PayloadTooBig(size, max_size)",
                DeprecationWarning,
                stacklevel=2,
            )
            self.message = size_or_message
        else:
            assert max_size is not None
            self.size = size_or_message
            self.max_size = max_size
            self.set_current_size(current_size)
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args, self.__dict__

    def __str__(self) -> str:
        if self.message is not None:
            return self.message
        size = "" if self.size is None else f"with {self.size} bytes "
        current = "" if self.current_size is None else f"after reading {self.current_size} bytes "
        return f"frame {size}{current}exceeds limit of {self.max_size} bytes"

    def set_current_size(self, current_size: int | None) -> None:
        """Note what was read of the message before this frame."""
        assert self.current_size is None
        if current_size is not None:
            assert self.max_size is not None
            self.max_size += current_size
            self.current_size = current_size


class TooManyFragments(WebSocketException):
    """A message has too many fragments."""

    def __init__(self, max_fragments: int) -> None:
        super().__init__(max_fragments)
        self.max_fragments = max_fragments

    def __str__(self) -> str:
        return f"fragmented message exceeds limit of {self.max_fragments} frames"


lazy_import(
    globals(),
    deprecated_aliases={
        "AbortHandshake": ".legacy.exceptions",
        "InvalidStatusCode": ".legacy.exceptions",
        "RedirectHandshake": ".legacy.exceptions",
        "WebSocketProtocolError": ".legacy.exceptions",
    },
)
