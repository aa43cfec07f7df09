"""The conversation of a server with an ASGI application about one WebSocket, sans-IO.

It follows the ASGI specification, "WebSocket", version 2.4, and its extension "WebSocket Denial Response".
`Conversation` judges what the application sends and says what the server is to do; it knows no event loop and no
sockets.

The rules are all in `TABLE`: what an application may send in each phase. All else that it sends raises `RuntimeError`
in the application.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias

from ..closing import encode_close
from ..codes import CloseCode
from ..escape import show
from ..events import BytesLike
from ..http import check_token
from ..octets import copied, is_bytes_like

__all__ = [
    "TABLE",
    "Accept",
    "Action",
    "Answer",
    "ClientDisconnected",
    "Close",
    "Conversation",
    "Cut",
    "Event",
    "Message",
    "Phase",
    "Start",
    "message_of",
    "refusal",
    "status_line",
]

Event: TypeAlias = dict[str, Any]
"""An ASGI event, of either direction."""

Pairs: TypeAlias = list[tuple[bytes, bytes]]
"""Headers as ASGI has them."""


class ClientDisconnected(OSError):
    """`send` was called after the connection had ended.

    ASGI asks for an `OSError`. An application need not catch it: one that it ends is not an error of the application.
    """


class Phase(IntEnum):
    """What the application has decided so far, in the order in which it is lived."""

    CONNECTING = 0
    """Nothing yet."""
    DENYING = 1
    """It has begun an HTTP response."""
    OPEN = 2
    """It has accepted the connection."""
    CLOSED = 3
    """It has closed the connection, or refused it, or has returned."""


class Accept(NamedTuple):
    """Accept the connection."""

    subprotocol: str | None
    headers: list[tuple[str, str]]


class Start(NamedTuple):
    """An HTTP response was begun; nothing is to be written yet."""

    status: int


class Answer(NamedTuple):
    """Write a piece of an HTTP response."""

    status: int
    """For the status line; 0 if the head was written before."""
    headers: bytes
    """The lines of the head, but for the first, each with its end."""
    body: bytes
    last: bool
    """Whether the transport is to be closed afterwards."""


class Message(NamedTuple):
    """Send a message."""

    data: str | BytesLike
    compress: bool | None


class Close(NamedTuple):
    """Start the closing handshake."""

    code: int | None
    """None for a Close frame without one."""
    reason: str


class Cut(NamedTuple):
    """Drop the connection, within a response that cannot be finished."""


# What `Accept` does is written in Python and takes as long as three calls.
_accepted: Callable[[tuple[str | None, list[tuple[str, str]]]], Accept] = partial(tuple.__new__, Accept)


Action: TypeAlias = Accept | Start | Answer | Message | Close | Cut

# As globals: to get a member from its class takes CPython 3.11 some 900 instructions.
_CONNECTING: Final = Phase.CONNECTING
_DENYING: Final = Phase.DENYING
_OPEN: Final = Phase.OPEN
_CLOSED: Final = Phase.CLOSED

_HANDSHAKE: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
# RFC 9110, 5.5: what a field's value must not hold.
_BAD_VALUE: Final = re.compile(rb"[^\t -~\x80-\xff]")
_FRAMING: Final = frozenset({b"connection", b"transfer-encoding"})


class Conversation:
    """One call of an ASGI application.

    Args:
        offers: the subprotocols that the client offered.

    Attributes:
        offers: the same.
        phase: a `Phase`.
        gone: whether the connection has ended, or ends, by the peer's or the server's doing; `send` raises then.
        end: the event "websocket.disconnect" once it is known, else None. The first reason stays.
    """

    __slots__ = ("_chunked", "_left", "_start", "_status", "end", "gone", "offers", "phase")

    def __init__(self, offers: list[str] | None = None) -> None:
        self.offers: list[str] = [] if offers is None else offers
        self.phase: Phase = _CONNECTING
        self.gone: bool = False
        self.end: Event | None = None

    # --- What the application sends ----------------------------------------------------------------------

    def take(self, event: Event) -> Action:
        """Judge an event that the application sends, and return what the server is to do.

        Raises:
            ClientDisconnected: the connection has ended.
            RuntimeError: such an event is not allowed now, or its HTTP response is wrong.
            TypeError, ValueError: the event is malformed.
        """
        if not isinstance(event, (dict, Mapping)) or not isinstance(kind := event.get("type"), str):
            came = f"one of {type(kind).__name__}" if isinstance(event, Mapping) else type(event).__name__
            raise TypeError(f"expected an ASGI event, a dict with a 'type', got {came}")
        if self.gone:
            raise ClientDisconnected("the connection has ended")
        judge = TABLE[self.phase].get(kind)
        if judge is None:
            if self.phase is _CLOSED:
                raise RuntimeError(f"Unexpected ASGI message {show(kind)}, after sending 'websocket.close'.")
            *names, last = (f"'{name}'" for name in TABLE[self.phase])
            expected = f"{', '.join(names)} or {last}" if names else last
            raise RuntimeError(f"Expected ASGI message {expected} but got {show(kind)}.")
        return judge(self, event)

    def _accept(self, event: Event) -> Accept:
        subprotocol = event.get("subprotocol") or None
        headers: list[tuple[str, str]] = []
        given = event.get("headers")
        for name, value in () if given is None else _decoded(given):
            low = name.lower()
            if low == "sec-websocket-protocol" and subprotocol is None:
                subprotocol = value
            elif low in _HANDSHAKE or low.startswith("sec-websocket-"):
                raise ValueError(f"'websocket.accept' must not have the header {low}: it is part of the handshake")
            else:
                headers.append((name, value))
        if subprotocol is not None and subprotocol not in self.offers:
            # RFC 6455, 4.1: a client must fail the connection.
            raise ValueError(f"expected a subprotocol that the client offers, {self.offers!r}, got {subprotocol!r}")
        self.phase = _OPEN
        return _accepted((subprotocol, headers))

    def _refuse(self, event: Event) -> Answer:
        self._close(1006)
        return refusal(403)

    def _begin(self, event: Event) -> Start:
        status = event.get("status")
        if not isinstance(status, int) or not 200 <= status < 600:
            raise RuntimeError(f"Invalid HTTP status code {status!r} in response: expected 200 to 599.")
        lines = []
        self._left: int | None = None  # bytes of the body that are to come, if that is known
        for name, value in _decoded(event.get("headers")):
            low = name.lower().encode("latin-1")
            if low in _FRAMING:
                continue  # it is the server that frames the body, and the connection ends with it
            if low == b"content-length":
                if not (value.isascii() and value.isdigit()):
                    raise ValueError(f"expected a number in the header content-length, got {show(value)}")
                self._left = int(value)
            lines.append(f"{name}: {value}\r\n")
        lines.append("connection: close\r\n")
        self._start: bytes | None = "".join(lines).encode("latin-1")
        self._status = status
        self._chunked = False
        self.phase = _DENYING
        return Start(status)

    def _go_on(self, event: Event) -> Answer:
        body = event.get("body", b"")
        return self._piece(copied(body), not event.get("more_body", False))

    def _piece(self, body: bytes, last: bool) -> Answer:
        left, headers = self._left, self._start or b""
        if self._start is not None:
            if self._status in (204, 304):
                left = 0  # RFC 9112, 6.3
            elif left is None and last:
                left = len(body)
                headers += b"content-length: %d\r\n" % left
            elif left is None:
                self._chunked = True
                headers += b"transfer-encoding: chunked\r\n"
        if self._chunked:
            # RFC 9112, 7.1: a chunk of no bytes is the last.
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"0\r\n\r\n" if last else b"")
        else:
            assert left is not None
            if len(body) > left:
                raise RuntimeError(f"Response content longer than Content-Length: {left} bytes are left")
            left -= len(body)
            if last and left:
                raise RuntimeError(f"Response content shorter than Content-Length: {left} bytes are left")
        status = 0 if self._start is None else self._status
        self._left, self._start = left, None
        if last:
            self._close(1006)
        return Answer(status, headers, body, last)

    def _send(self, event: Event) -> Message:
        return message_of(event)

    def _finish(self, event: Event) -> Close:
        code, reason = event.get("code", CloseCode.NORMAL_CLOSURE), event.get("reason") or ""
        encode_close(code, reason)  # raises for what must not be sent
        self._close(code, reason)
        return Close(code, reason)

    def _close(self, code: int | None, reason: str | None = None) -> None:
        self.phase = _CLOSED
        self._end(code, reason)

    # --- What happens to the connection ------------------------------------------------------------------

    def disconnect(self, code: int, reason: str | None = None) -> None:
        """Note that the connection has ended, or is about to, and why."""
        self.gone = True
        self._end(code, reason)

    def _end(self, code: int | None, reason: str | None) -> None:
        if self.end is None:
            self.end = {"type": "websocket.disconnect", "code": 1005 if code is None else int(code)}
            if reason is not None:
                self.end["reason"] = reason

    # --- How the application ends ------------------------------------------------------------------------

    def leave(self, *, failed: bool) -> Action | None:
        """Return what is to be done now that the application has returned, or raised if `failed`."""
        phase, self.phase = self.phase, _CLOSED
        action: Action | None = None
        if self.gone:
            pass
        elif phase is _CONNECTING:
            action = refusal(500)
        elif phase is _DENYING:
            if self._start is None:
                action = Cut()
            elif self._left:
                action = refusal(500)  # the body that it promised will not come
            else:
                action = self._piece(b"", True)
        elif phase is _OPEN:
            action = Close(CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE, "")
            self._end(*action)
        if self.end is None:
            self._end(CloseCode.ABNORMAL_CLOSURE, None)
        return action


TABLE: Final[dict[Phase, dict[str, Callable[[Conversation, Event], Action]]]] = {
    Phase.CONNECTING: {
        "websocket.accept": Conversation._accept,
        "websocket.close": Conversation._refuse,
        "websocket.http.response.start": Conversation._begin,
    },
    Phase.DENYING: {"websocket.http.response.body": Conversation._go_on},
    Phase.OPEN: {"websocket.send": Conversation._send, "websocket.close": Conversation._finish},
    Phase.CLOSED: {},
}
"""What an application may send in each phase, and what judges it."""


def message_of(event: Event) -> Message:
    """Return the message of an event "websocket.send".

    Its key ``compress``, which is wsfast's own, tells whether to compress the message; default: None.

    Raises:
        TypeError, ValueError: it has no message, or two, or one of the wrong type.
    """
    data, text, compress = event.get("bytes"), event.get("text"), event.get("compress")
    if compress is not None and not isinstance(compress, bool):
        raise TypeError(f"expected True, False or None as 'compress' of 'websocket.send', got {compress!r}")
    if (data is None) is (text is None):
        came = "neither" if data is None else "both"
        raise ValueError(f"expected either 'bytes' or 'text' in 'websocket.send', got {came}")
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"expected str as 'text' of 'websocket.send', got {type(text).__name__}")
        return Message(text, compress)
    if not is_bytes_like(data):
        raise TypeError(f"expected bytes as 'bytes' of 'websocket.send', got {type(data).__name__}")
    return Message(data, compress)  # type: ignore[arg-type]


_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """Return the first line of a response, without its end."""
    return b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b""))


def refusal(status: int) -> Answer:
    """Return a whole response of the server's own: plain text that names the status, none for 403."""
    body = b"" if status == 403 else _PHRASES[status]
    headers = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    return Answer(status, headers, body, True)


def _kinds(pair: object) -> str:
    """Tell of what types something is that should be a header; its value may be a secret."""
    if isinstance(pair, (tuple, list)):
        return f"{type(pair).__name__} of {', '.join(type(part).__name__ for part in pair[:3]) or 'nothing'}"
    return type(pair).__name__


def _decoded(headers: Iterable[Iterable[bytes]] | None) -> Iterable[tuple[str, str]]:
    """Check an application's headers, which it gives as pairs of bytes, and decode them."""
    if headers is not None and not isinstance(headers, Iterable):
        raise TypeError(f"expected headers as pairs of bytes, got {type(headers).__name__}")
    for pair in headers or ():
        try:
            name, value = pair
            text, bad = name.decode("latin-1"), _BAD_VALUE.search(value)
        except (TypeError, ValueError, AttributeError):
            kind = _kinds(pair)
            raise TypeError(f"expected headers as pairs of bytes, got {kind}") from None
        check_token("a header's name", text)
        if bad is not None:
            # The value may be a secret.
            raise ValueError(f"expected the header {text} without control characters, got {bad.group()!r} in it")
        yield text, value.decode("latin-1")
