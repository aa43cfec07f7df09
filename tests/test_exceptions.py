"""`wsfast.exceptions`: one tree, whose types say whose fault it is."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from wsfast import exceptions
from wsfast.codes import CloseCause, CloseCode
from wsfast.events import Close
from wsfast.exceptions import (
    BufferFull,
    CallerError,
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeRefused,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidMessage,
    InvalidOrigin,
    InvalidPayload,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    PayloadTooBig,
    PeerError,
    ProtocolError,
    ProxyError,
    RedirectError,
    WebSocketError,
)
from wsfast.handshake import Response


def defined() -> list[type]:
    return [
        thing
        for thing in vars(exceptions).values()
        if inspect.isclass(thing) and thing.__module__ == exceptions.__name__
    ]


def test_one_tree() -> None:
    for cls in defined():
        assert issubclass(cls, WebSocketError), cls


def test_all_are_public() -> None:
    assert exceptions.__all__ == sorted(cls.__name__ for cls in defined())


def test_the_tree_in_the_docstring_is_true() -> None:
    drawn: dict[str, str] = {}
    branch: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if match := re.match(r"    ((?:│   |    )*)(?:[├└]── )?(\w+)", line):
            depth = len(match[1]) // 4 + ("── " in line)
            branch[depth:] = [match[2]]
            names = [match[2]]
            if depth and match[2] == "ConnectionClosed":
                names += re.findall(r"`(\w+)`", line)
            for name in names:
                drawn[name] = name if not depth else branch[depth - 1] if name == match[2] else match[2]
    assert drawn.pop("WebSocketError") == "WebSocketError"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in defined() if cls is not WebSocketError}


@pytest.mark.parametrize(
    ("cls", "code"),
    [(PeerError, 1002), (ProtocolError, 1002), (InvalidPayload, 1007), (PayloadTooBig, 1009)],
)
def test_peer_errors_carry_the_code_to_send(cls: type[PeerError], code: int) -> None:
    error = cls("what came")
    assert error.code == code
    assert isinstance(error.code, CloseCode)
    assert error.reason == str(error) == "what came"
    assert not issubclass(cls, CallerError)


@pytest.mark.parametrize("cls", [InvalidState, ConcurrencyError, BufferFull])
def test_caller_errors(cls: type[CallerError]) -> None:
    assert issubclass(cls, CallerError)
    assert not issubclass(cls, PeerError)


class TestConnectionClosed:
    @pytest.mark.parametrize(
        ("arguments", "code", "reason", "text"),
        [
            (
                (Close(1000), Close(1000), True, CloseCause.PEER),
                1000,
                "",
                "closed by peer: received 1000 (NORMAL_CLOSURE); then sent 1000 (NORMAL_CLOSURE)",
            ),
            (
                (Close(1000, "ok"), Close(1001, "bye"), False, CloseCause.LOCAL),
                1000,
                "ok",
                "closed by us: sent 1001 (GOING_AWAY) 'bye'; then received 1000 (NORMAL_CLOSURE) 'ok'",
            ),
            (
                (None, None, None, CloseCause.LOST),
                1006,
                "",
                "connection lost: no close frame received; no close frame sent",
            ),
            (
                (None, Close(1011, "keepalive"), None, CloseCause.KEEPALIVE),
                1006,
                "",
                "keepalive timeout: no close frame received; sent 1011 (INTERNAL_ERROR) 'keepalive'",
            ),
            (
                (Close(1005), None, None),
                1005,
                "",
                "connection lost: received 1005 (NO_STATUS_RCVD); no close frame sent",
            ),
        ],
    )
    def test_says_who_and_why(self, arguments: tuple[Any, ...], code: int, reason: str, text: str) -> None:
        for cls in (ConnectionClosed, ConnectionClosedOK, ConnectionClosedError):
            error = cls(*arguments)
            assert error.code == code
            assert error.reason == reason
            assert str(error) == text
            assert (error.rcvd, error.sent) == arguments[:2]

    def test_defaults(self) -> None:
        error = ConnectionClosedError(None, None)
        assert error.rcvd_then_sent is None
        assert error.cause is CloseCause.LOST

    def test_a_reason_is_escaped(self) -> None:
        text = str(ConnectionClosedError(Close(4000, "a\nb\x00"), None))
        assert "\n" not in text
        assert "\x00" not in text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidHeader("Host"), "missing Host header"),
        (InvalidHeader("Host", ""), "empty Host header"),
        (InvalidHeader("Host", "a b"), "invalid Host header: 'a b'"),
        (InvalidHeader("Host", "a\r\nb"), "invalid Host header: 'a\\r\\nb'"),
        (InvalidHeader("Host", "a", "why"), "invalid Host header: 'a': why"),
        (InvalidHeader("Host", None, "why"), "missing Host header: why"),
        (InvalidHeaderFormat("Sec-WebSocket-Key", "x"), "invalid Sec-WebSocket-Key header: 'x'"),
        (InvalidUpgrade("Connection", "close"), "invalid Connection header: 'close'"),
        (InvalidOrigin(None), "missing Origin header"),
        (InvalidOrigin("http://evil"), "invalid Origin header: 'http://evil'"),
        (InvalidURI("http://x", "no ws"), "'http://x' is not a valid WebSocket URI: no ws"),
        (InvalidMessage("line too long"), "line too long"),
        (NegotiationError("no such subprotocol"), "no such subprotocol"),
        (RedirectError("too many"), "too many"),
        (ProxyError("refused"), "refused"),
    ],
)
def test_texts(error: WebSocketError, text: str) -> None:
    assert str(error) == text
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == text
    assert vars(copy) == vars(error)


def test_long_values_are_shortened() -> None:
    """What a peer sent stands in log lines."""
    assert len(str(InvalidHeader("Origin", "x" * 100_000))) < 1000


def test_invalid_uri_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="not a valid WebSocket URI"):
        raise InvalidURI("x", "no scheme")


def test_handshake_errors_have_a_response() -> None:
    assert InvalidHandshake("x").response is None
    assert InvalidMessage("x").response is None


@pytest.mark.parametrize(
    "error",
    [
        PeerError("a"),
        ProtocolError("a"),
        InvalidPayload("a"),
        PayloadTooBig("a"),
        BufferFull("a"),
        ConnectionClosedOK(Close(1000), Close(1000, "b"), True, CloseCause.PEER),
        ConnectionClosedError(None, None),
    ],
)
def test_pickles(error: WebSocketError) -> None:
    """Errors cross process boundaries."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_errors_with_a_response() -> None:
    response = Response(403, body=b"no")
    refused = HandshakeRefused("origin not allowed", response)
    assert refused.response is response
    assert str(refused) == "origin not allowed"
    status = InvalidStatus(response)
    assert status.response is response
    assert str(status) == "server answered HTTP 403, expected 101: 'no'"
    for error in (refused, status):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.response.status_code == 403
    response.body = b""
    assert str(status) == "server answered HTTP 403, expected 101"
    for body, shown in (
        (b"Missing token\nmore", "'Missing token'"),
        (b"\r\n <html>\r\n<body>", "'<html>'"),
        (b"\x1b[31m\xff", "'\\x1b[31m\\ufffd'"),
        (b"x" * 1000, f"'{'x' * 100}'... (1000 bytes)"),
    ):
        status.response.body = body
        assert str(status) == f"server answered HTTP 403, expected 101: {shown}"
        assert copy.response.body == b"no"
