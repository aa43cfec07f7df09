"""`wsfast.asgi` without a server: what an application may send when, and what comes of it."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import pytest
from raw import request

import wsfast.asgi
from wsfast.asgi.conversation import (
    TABLE,
    Accept,
    Answer,
    ClientDisconnected,
    Close,
    Conversation,
    Cut,
    Message,
    Phase,
    Start,
)
from wsfast.asgi.scope import header_pairs, websocket_scope
from wsfast.handshake import Request, RequestParser

EVENTS: dict[str, dict[str, Any]] = {
    "websocket.accept": {},
    "websocket.send": {"text": "x"},
    "websocket.close": {},
    "websocket.http.response.start": {"status": 404, "headers": []},
    "websocket.http.response.body": {"body": b"x"},
}
BEFORE = {
    Phase.CONNECTING: [],
    Phase.DENYING: ["websocket.http.response.start"],
    Phase.OPEN: ["websocket.accept"],
    Phase.CLOSED: ["websocket.accept", "websocket.close"],
}


def take(conversation: Conversation, kind: str, **more: Any) -> Any:
    """Have an application send an event."""
    return conversation.take({"type": kind, **EVENTS.get(kind, {}), **more})


def reached(phase: Phase) -> Conversation:
    """Return a conversation in a phase."""
    conversation = Conversation(["v1"])
    for kind in BEFORE[phase]:
        take(conversation, kind)
    assert conversation.phase is phase
    return conversation


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("kind", [*EVENTS, "nonsense"])
def test_every_event_in_every_phase(phase: Phase, kind: str) -> None:
    conversation = reached(phase)
    if kind in TABLE[phase]:
        assert isinstance(take(conversation, kind), (Accept, Message, Close, Start, Answer))
    else:
        with pytest.raises(RuntimeError, match=r"xpected ASGI message '"):
            take(conversation, kind)
        assert conversation.phase is phase
        conversation.disconnect(1006)
        with pytest.raises(ClientDisconnected):
            take(conversation, kind)


ODD = [None, True, 1, -1, 1005, 99999, 1.5, "x", "\ud800", b"x", "x" * 200, [], [None], [("a", "b")], [(b"a b", b"c")]]


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.DENYING, Phase.OPEN])
def test_what_an_application_sends_is_taken_or_changes_nothing(phase: Phase) -> None:
    """One that stood as closed after an error would never be closed."""
    keys = ("code", "reason", "text", "bytes", "compress", "subprotocol", "headers", "status", "body", "more_body")
    for kind, key, value in itertools.product(TABLE[phase], keys, ODD):
        conversation = reached(phase)
        try:
            take(conversation, kind, **{key: value})
        except (TypeError, ValueError, RuntimeError):
            assert (conversation.phase, conversation.end) == (phase, None), (kind, key, value)


def test_a_close_without_a_code() -> None:
    conversation = reached(Phase.OPEN)
    assert take(conversation, "websocket.close", code=None) == (None, "")
    assert conversation.end == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


def test_the_error_says_what_was_expected() -> None:
    with pytest.raises(
        RuntimeError,
        match=r"^Expected ASGI message 'websocket\.accept', 'websocket\.close' or 'websocket\.http\.response\.start' "
        r"but got 'websocket\.send'\.$",
    ):
        take(Conversation(), "websocket.send")


@pytest.mark.parametrize("event", [None, "websocket.accept", {}, {"type": None}, {"type": 1}])
def test_what_is_no_event(event: Any) -> None:
    with pytest.raises(TypeError, match="expected an ASGI event"):
        Conversation().take(event)


@pytest.mark.parametrize(
    ("phase", "failed", "kind", "end"),
    [
        (Phase.CONNECTING, False, Answer, 1006),
        (Phase.CONNECTING, True, Answer, 1006),
        (Phase.DENYING, False, Answer, 1006),
        (Phase.OPEN, False, Close, 1000),
        (Phase.OPEN, True, Close, 1011),
        (Phase.CLOSED, False, type(None), 1000),
        (Phase.CLOSED, True, type(None), 1000),
    ],
)
def test_how_an_application_ends(phase: Phase, failed: bool, kind: type, end: int) -> None:
    conversation = reached(phase)
    action = conversation.leave(failed=failed)
    assert type(action) is kind
    assert conversation.end is not None
    assert conversation.end["code"] == end
    assert conversation.phase is Phase.CLOSED


@pytest.mark.parametrize("phase", list(Phase))
def test_nothing_is_left_to_do_once_the_peer_has_gone(phase: Phase) -> None:
    conversation = reached(phase)
    conversation.disconnect(4000, "why")
    first = conversation.end
    conversation.disconnect(1006)
    assert conversation.leave(failed=True) is None
    assert conversation.end == first


def test_a_response_that_was_begun_and_breaks_off() -> None:
    conversation = reached(Phase.DENYING)
    first = take(conversation, "websocket.http.response.body", more_body=True)
    assert first == Answer(404, b"connection: close\r\ntransfer-encoding: chunked\r\n", b"1\r\nx\r\n", False)
    assert take(conversation, "websocket.http.response.body", body=b"", more_body=True).body == b""
    assert conversation.leave(failed=True) == Cut()


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_has_no_body(status: int) -> None:
    conversation = Conversation()
    take(conversation, "websocket.http.response.start", status=status)
    with pytest.raises(RuntimeError, match="longer than Content-Length"):
        take(conversation, "websocket.http.response.body")
    assert take(conversation, "websocket.http.response.body", body=b"") == Answer(
        status, b"connection: close\r\n", b"", True
    )


def test_the_applications_own_close_is_the_end() -> None:
    conversation = reached(Phase.OPEN)
    assert take(conversation, "websocket.close", code=3000, reason=None) == Close(3000, "")
    assert conversation.end == {"type": "websocket.disconnect", "code": 3000, "reason": ""}
    assert not conversation.gone


@pytest.mark.parametrize("target", ["/a%20b?x=1", "http://example.com/a%20b?x=1"])
def test_the_scope_of_a_target(target: str) -> None:
    parsed = RequestParser().feed(request(path=target))
    assert parsed is not None
    scope = websocket_scope(parsed, [], scheme="ws", client=None, server=None, root_path="/r")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/r/a b", b"/r/a%20b", b"x=1")
    assert header_pairs(parsed)[1] == (b"upgrade", b"websocket")


def test_headers_are_in_order_in_lower_case_and_without_white_space_around_values() -> None:
    lines = [
        b"HOST: x:1",
        b"Host-Like:\t a b \t",
        b"Sec-WebSocket-Version:13",
        b"sec-webSocket-Key: " + b"A" * 22 + b"==",
        b"X-Empty:",
        b"Upgrade: websocket \t",
        b"X-Empty: :\xff",
    ]
    raw = b"\r\n".join([b"GET / HTTP/1.1", *lines, b"", b""])
    pairs = header_pairs(Request(raw))
    assert pairs == [
        (b"host", b"x:1"),
        (b"host-like", b"a b"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"A" * 22 + b"=="),
        (b"x-empty", b""),
        (b"upgrade", b"websocket"),
        (b"x-empty", b":\xff"),
    ]
    # Those of most requests are not kept again for each connection.
    again = header_pairs(Request(bytes(bytearray(raw))))
    assert [one[0] is other[0] for one, other in zip(pairs, again, strict=True)].count(True) == 4
    assert pairs[2][1] is again[2][1]
    assert pairs[5][1] is again[5][1]
    assert [one is other for one, other in zip(pairs, again, strict=True)] == [
        True,
        False,
        True,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("module", ["conversation", "scope"])
def test_sans_io(module: str) -> None:
    path = Path(wsfast.asgi.__file__).with_name(f"{module}.py")
    imported = {
        (alias.name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert not imported & {"asyncio", "socket", "ssl", "threading", "time"}


@pytest.mark.parametrize("module", ["asgi", "uvicorn"])
def test_they_are_there_without_an_import_of_their_own(module: str) -> None:
    assert getattr(wsfast, module).__name__ == f"wsfast.{module}"


def test_of_takes_the_client_from_the_scope() -> None:
    """As middleware has written it there; on a Unix socket there is none, though the scope may have a path."""
    for client, told in ((("192.0.2.7", 0), ("192.0.2.7", 0)), (["192.0.2.7", 1], ("192.0.2.7", 1))):
        ws = wsfast.WebSocket()
        assert wsfast.asgi.of({"client": client, "extensions": {"wsfast": {"websocket": ws}}}) is ws
        assert ws.remote_address == told
    for missing in None, ("/run/peer.sock", None):
        ws = wsfast.WebSocket()
        assert wsfast.asgi.of({"client": missing, "extensions": {"wsfast": {"websocket": ws}}}) is ws
        assert ws.remote_address is None
