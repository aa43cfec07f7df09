"""`wsfast.uvicorn`: how connections behave under uvicorn, on both loops, in both ways to use it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import logging
import pickle
import re
import socket
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from asgi_helpers import WAYS, Event, Quiet, Receive, Recorder, Running, Scope, Send, accept, echo, running
from raw import MASK, PATIENCE, RawClient, binary, close, open_raw, ping, request, text
from shared import until
from vectors import PONG, frame

import wsfast.uvicorn
from wsfast import Deflate
from wsfast.asgi import ClientDisconnected, Host, bridge, broadcast, of
from wsfast.asgi.conversation import message_of
from wsfast.uvicorn.protocol import Options, limits_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How uvicorn is told to use wsfast."""
    return WAYS[request.param]


async def forever(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and wait for something else than the peer."""
    await accept(receive, send)
    await asyncio.Event().wait()


# --- Messages and the scope ----------------------------------------------------------------------------------


async def test_messages_are_events(way: dict[str, Any]) -> None:
    async with running(echo, **way) as run, await run.connect() as client:
        client.send(text("héllo"), binary(b"\x00\xff"), text(""))
        assert await client.receive_message() == "héllo"
        assert await client.receive_message() == b"\x00\xff"
        assert await client.receive_message() == ""
        await client.end()


async def test_an_event_has_one_kind_of_data() -> None:
    app = Recorder()
    async with running(app) as run, await run.connect() as client:
        client.send(text("a"), binary(b"b"))
        await client.end()
        await app.end()
    assert app.events == [
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.receive", "bytes": b"b"},
        {"type": "websocket.disconnect", "code": 1000, "reason": ""},
    ]


async def test_connections_share_what_is_alike_in_their_scopes(way: dict[str, Any]) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with running(app, **way) as run:
        for port in ("1", "1", "2"):
            async with await run.connect(headers={"X-Port": port, "Cookie": "secret"}) as client:
                await client.end()
    one, other, last = scopes
    # An idle connection through FastAPI holds 20 KB, of which this is one.
    assert one["server"] is other["server"] is last["server"] == ("127.0.0.1", run.port)
    assert one["client"] != other["client"]
    shared = [pair[0].decode() for pair, again in zip(one["headers"], other["headers"], strict=True) if pair is again]
    assert set(shared) == {"host", "upgrade", "connection", "sec-websocket-version"}
    assert one["headers"] is not other["headers"]
    assert (b"cookie", b"secret") in other["headers"]
    assert (b"x-port", b"2") in last["headers"]


async def test_the_scope(way: dict[str, Any]) -> None:
    app = Recorder()
    async with running(app, root_path="/api", **way) as run:
        client = await run.open()
        name = client.writer.get_extra_info("sockname")
        headers = {"X-Latin": "\xe9", "X-Twice": " a\t"}
        sent = request("v1, v2", path="/r%C3%BCst/a%2Fb?x=%20&y", headers=headers).decode()
        client.writer.write(sent.replace("X-Twice", "x-twice: b\r\nX-TWICE").encode("latin-1"))
        await client.reader.readuntil(b"\r\n\r\n")
        client.abort()
        await app.end()
    scope = app.scope
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "ws"
    assert scope["client"] == name
    assert scope["server"] == ("127.0.0.1", run.port)
    assert scope["root_path"] == "/api"
    assert scope["path"] == "/api/rüst/a/b"
    assert scope["raw_path"] == b"/api/r%C3%BCst/a%2Fb"
    assert scope["query_string"] == b"x=%20&y"
    assert scope["subprotocols"] == ["v1", "v2"]
    assert (b"x-latin", b"\xe9") in scope["headers"]
    assert [value for key, value in scope["headers"] if key == b"x-twice"] == [b"b", b"a"]
    assert scope["headers"][0] == (b"host", b"example.com")
    assert scope["state"] == {}
    assert "websocket.http.response" in scope["extensions"]


async def test_the_state_is_copied_for_each_connection(way: dict[str, Any]) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["n"] = 1
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(dict(scope["state"]))
        scope["state"]["n"] += 1
        await echo(scope, receive, send)

    async with running(app, lifespan="on", **way) as run:
        for _ in range(2):
            async with await run.connect() as client:
                await client.end()
    assert seen == [{"n": 1}, {"n": 1}]


async def test_a_context_of_its_own() -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(var.get())
        await echo(scope, receive, send)

    var.set("of the server")
    for reset in False, True:
        async with running(app, reset_contextvars=reset) as run, await run.connect() as client:
            await client.end()
    assert seen == ["of the server", "none"]


# --- Accepting and refusing ----------------------------------------------------------------------------------


async def test_accept_with_headers_and_a_subprotocol(way: dict[str, Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-one", b"1"), [b"X-Two", b"\xe9"]]
        await accept(receive, send, subprotocol="v2", headers=headers)
        assert (await receive())["type"] == "websocket.disconnect"

    async with running(app, headers=[("x-config", "c")], **way) as run:
        await until(lambda: run.state.default_headers)
        client = await run.open()
        client.writer.write(request("v1, v2"))
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        assert "\r\nsec-websocket-protocol: v2\r\n" in head
        assert "\r\nx-one: 1\r\nx-two: \xe9\r\n" in head
        assert "\r\ndate: " in head
        assert "\r\nserver: uvicorn\r\nx-config: c\r\n" in head
        await client.end()
        client.abort()


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"subprotocol": "v3"}, "expected a subprotocol that the client offers"),
        ({"headers": [(b"x-a", b"1\r\nx-b: 2")]}, "without control characters"),
        ({"headers": [(b"x a", b"1")]}, "to be a token"),
        ({"headers": [("x-a", "1")]}, "pairs of bytes"),
        ({"headers": 1}, "pairs of bytes, got int"),
        ({"headers": 0}, "pairs of bytes, got int"),
        ({"headers": [(b"Content-Length", b"0")]}, "part of the handshake"),
        ({"headers": [(b"sec-websocket-accept", b"x")]}, "part of the handshake"),
    ],
)
async def test_what_cannot_be_accepted_is_an_error_of_the_application(event: Event, error: str) -> None:
    raised = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await send({"type": "websocket.accept", **event})
        except (TypeError, ValueError) as exc:
            raised.append(str(exc))
            raise

    async with running(app) as run, await run.open() as client:
        await client.handshake("v1")
        assert client.status == 500
        assert client.body == b"Internal Server Error"
        assert "x-b" not in client.headers
    assert len(raised) == 1
    assert error in raised[0]


async def test_a_subprotocol_may_be_given_as_a_header() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send, headers=[(b"sec-websocket-protocol", b"v1")])

    async with running(app) as run, await run.connect("v1") as client:
        assert client.headers["sec-websocket-protocol"] == "v1"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"client": None}, ' - "WebSocket /a" [accepted]'),
        ({"client": ("10.0.0.1", None)}, '10.0.0.1 - "WebSocket /a" [accepted]'),
        ({"client": ["::1", 5]}, '::1:5 - "WebSocket /a" [accepted]'),
        ({"client": "somewhere", "raw_path": None}, 'somewhere - "WebSocket /a" [accepted]'),
        ({"client": None, "path": "/\u20ac\r", "raw_path": None}, ' - "WebSocket /\\u20ac\\r" [accepted]'),
    ],
)
async def test_what_middleware_makes_of_the_scope_can_be_logged(
    changes: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(changes)
        await echo(scope, receive, send)

    async with running(app) as run, await run.open() as client:
        await client.handshake(path="/a")
        assert client.status == 101
        assert line in caplog.messages
        await client.end()


async def test_close_before_accept_is_403(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})
        seen.extend([await receive(), await receive()])
        with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
            await send({"type": "websocket.accept"})

    with caplog.at_level(logging.INFO, "uvicorn.error"):
        async with running(app, **way) as run, await run.open() as client:
            await client.handshake(path="/a?b")
            assert client.status == 403
            assert client.body == b""
            assert client.headers["connection"] == "close"
            await until(lambda: not run.state.tasks)
    assert seen == [{"type": "websocket.disconnect", "code": 1006}] * 2
    assert [line for line in caplog.messages if line.endswith('"WebSocket /a?..." 403')]


async def test_a_denial_response(way: dict[str, Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-type", b"application/json"), (b"connection", b"keep-alive")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"{}"})

    async with running(app, **way) as run, await run.open() as client:
        await until(lambda: run.state.default_headers)
        await client.handshake()
        assert client.status == 401
        assert client.body == b"{}"
        assert client.headers["content-type"] == "application/json"
        assert client.headers["content-length"] == "2"
        assert client.headers["connection"] == "close"
        assert client.headers["server"] == "uvicorn"


async def test_a_denial_response_is_streamed(way: dict[str, Any]) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "websocket.http.response.body", "body": b"second"})

    async with running(app, **way) as run, await run.open() as client:
        client.writer.write(request())
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\ntransfer-encoding: chunked\r\n" in head
        assert await client.reader.readexactly(10) == b"5\r\nfirst\r\n"
        go_on.set()
        assert await client.reader.read() == b"6\r\nsecond\r\n0\r\n\r\n"


async def test_a_denial_response_waits_for_a_peer_that_does_not_read() -> None:
    pieces = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal pieces
        await receive()
        await send({"type": "websocket.http.response.start", "status": 400, "headers": []})
        while pieces < 2000:
            await send({"type": "websocket.http.response.body", "body": bytes(65536), "more_body": True})
            pieces += 1

    async with running(app) as run:
        client = await run.open()
        client.writer.write(request())
        client.pause_reading()
        await _settled(lambda: pieces)
        assert pieces < 200
        client.abort()
        await until(lambda: not run.state.tasks)
    assert pieces < 200


async def test_a_long_denial_response_comes_whole_however_slowly_it_is_read(
    way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "LINGER", 0.25)
    size = 8_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 400, "headers": []})
        await send({"type": "websocket.http.response.body", "body": bytes(size)})

    async with running(app, **way) as run, await run.open() as client:
        client.writer.write(request())
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 8000000\r\n" in head
        for _ in range(20):
            await client.reader.readexactly(size // 20)
            await asyncio.sleep(0.05)  # in all four times as long as a peer may take that takes nothing
        assert await client.reader.read() == b""


async def test_a_peer_that_takes_nothing_of_a_long_denial_response_is_dropped(
    way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "LINGER", 0.25)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 400, "headers": []})
        await send({"type": "websocket.http.response.body", "body": bytes(50_000_000)})

    async with running(app, **way) as run, await run.open() as client:
        client.writer.write(request())
        client.pause_reading()
        await until(lambda: run.state.connections)
        await until(lambda: not run.state.connections)


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([{"status": 700, "headers": []}], 500),
        ([{"status": 101, "headers": []}], 500),
        ([{"status": 404, "headers": [(b"content-length", b"0")]}], 404),
        ([{"status": 404, "headers": []}], 404),
        ([{"status": 404, "headers": [(b"content-length", b"3")]}], 500),
        ([{"status": 404, "headers": [(b"content-length", b"3")]}, {"body": b"four"}], 500),
        ([{"status": 404, "headers": [(b"content-length", b"3")]}, {"body": b"no"}], 500),
        ([{"status": 404, "headers": [(b"x", b"\r\n")]}], 500),
        ([{"status": 404, "headers": [(b"content-length", b"-3")]}], 500),
    ],
)
async def test_a_denial_response_that_is_not_finished(events: list[Event], status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for kind, event in zip(("start", "body"), events, strict=False):
            await send({"type": f"websocket.http.response.{kind}", **event})

    async with running(app) as run, await run.open() as client:
        await client.handshake()
        assert client.status == status


async def test_a_denial_response_that_breaks_off_is_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 400, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"first", "more_body": True})
        raise ValueError

    async with running(app) as run, await run.open() as client:
        client.writer.write(request())
        try:
            got = await client.reader.read()
        except ConnectionResetError:
            got = b""
        assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_an_application_that_ends_before_it_decides_gives_500(
    way: dict[str, Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if how == "raises":
            raise ValueError("oh no")

    async with running(app, **way) as run, await run.open() as client:
        await client.handshake()
        assert client.status == 500
        assert b"oh no" not in client.body
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "uvicorn.error"
    expected = "Exception in ASGI application" if how == "raises" else "returned without completing handshake"
    assert expected in record.message


@pytest.mark.parametrize("way", ["http"], indirect=True)
async def test_a_bad_request_is_refused(way: dict[str, Any]) -> None:
    async with running(echo, **way) as run:
        async with await run.open() as client:
            await client.exchange(request().replace(b"Version: 13", b"Version: 8"))
            assert client.status == 426
            assert client.headers["sec-websocket-version"] == "13"
        async with await run.open() as client:
            await client.exchange(request().replace(b"Key: ", b"Key: x"))
            assert client.status == 400
        async with await run.connect() as client:
            await client.end()


# --- How it ends -------------------------------------------------------------------------------------------


async def test_an_application_that_returns_closes_with_1000(
    way: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "bye"})

    async with running(app, **way) as run, await run.connect() as client:
        assert await client.receive_message() == "bye"
        assert await client.receive_close() == (1000, "")
        client.send(close())
        await client.receive_eof()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "how", ["raises", "exits", "returns a value", "is cancelled", "accepts twice", "sends nonsense"]
)
async def test_an_application_that_fails_closes_with_1011(
    way: dict[str, Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await accept(receive, send)
        await receive()
        if how == "raises":
            raise ValueError("a secret")
        if how == "exits":
            raise SystemExit(3)
        if how == "is cancelled":
            raise asyncio.CancelledError
        if how == "accepts twice":
            await send({"type": "websocket.accept"})
        if how == "sends nonsense":
            await send({"type": "nonsense"})
        return 1

    async with running(app, **way) as run, await run.connect() as client:
        client.send(text("go"))
        assert await client.receive_close() == (1011, "")
        client.send(close(1011))
        await client.receive_eof()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR
    assert record.name == "uvicorn.error"
    assert not run.state.tasks


async def test_accepting_fails(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """By an extension of the program's own: the application learns it, and the client gets an answer."""
    raised: list[Exception] = []

    class Faulty:
        name = "faulty"

        def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
            raise KeyError("faulty")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await accept(receive, send)
        except KeyError as exc:
            raised.append(exc)
            raise

    kind = wsfast.uvicorn.configure(extensions=[Faulty()])  # type: ignore[list-item]
    async with running(app, **{**way, "ws": kind}) as run:
        client = await run.open()
        await client.handshake(headers={"Sec-WebSocket-Extensions": "faulty"})
        assert (client.status, client.body) == (500, b"Internal Server Error")
    assert len(raised) == 1
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["ERROR"]


async def test_the_servers_own_headers_are_malformed(caplog: pytest.LogCaptureFixture) -> None:
    async with running(echo, headers=[("X A", "b")]) as run:
        client = await run.open()
        client.send(request())
        await client.receive_eof()
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert "a header's name" in errors[1]


async def test_the_application_closes_with_code_and_reason(way: dict[str, Any]) -> None:
    seen: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 3001, "reason": "enough"})
        seen.append(await receive())
        with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
            await send({"type": "websocket.send", "text": "x"})
        seen.append(await receive())

    async with running(app, **way) as run, await run.connect() as client:
        assert await client.receive_close() == (3001, "enough")
        client.send(close(3001))
        await client.receive_eof()
        await until(lambda: not run.state.tasks)
    assert seen == [{"type": "websocket.disconnect", "code": 3001, "reason": "enough"}] * 2


@pytest.mark.parametrize("event", [{"code": 1006}, {"code": "1000"}, {"reason": "x" * 124}, {"code": 999}])
async def test_what_cannot_be_said_in_closing_is_an_error(event: Event) -> None:
    raised = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            await send({"type": "websocket.close", **event})
        except (TypeError, ValueError) as exc:
            raised.append(exc)

    async with running(app) as run, await run.connect() as client:
        assert await client.receive_close() == (1000, "")
    assert len(raised) == 1


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({}, "got neither"),
        ({"text": "a", "bytes": b"b"}, "got both"),
        ({"text": b"a"}, "expected str"),
        ({"bytes": "a"}, "expected bytes"),
        ({"text": "a", "compress": 1}, "'compress'"),
    ],
)
async def test_what_cannot_be_sent_is_an_error(event: Event, error: str) -> None:
    raised = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            await send({"type": "websocket.send", **event})
        except (TypeError, ValueError) as exc:
            raised.append(str(exc))
        await send({"type": "websocket.send", "text": "still here", "bytes": None})
        await send({"type": "websocket.send", "text": None, "bytes": bytearray(b"and")})
        await send({"type": "websocket.send", "bytes": memoryview(b"here")})

    async with running(app) as run, await run.connect() as client:
        assert await client.receive_message() == "still here"
        assert await client.receive_message() == b"and"
        assert await client.receive_message() == b"here"
    assert len(raised) == 1
    assert error in raised[0]


async def test_an_event_means_the_same_whatever_else_is_in_it() -> None:
    """The hot path looks at no more keys than it must; `message_of` at all."""
    nothing = object()
    values: dict[str, list[object]] = {
        "text": [nothing, None, "a", b"a", 5],
        "bytes": [nothing, None, b"b", "b", bytearray(b"c"), memoryview(b"d"), 5],
        "compress": [nothing, None, True, False, 1],
        "more": [nothing, 1],
    }
    events: list[Event] = []
    for chosen in itertools.product(*values.values()):
        given = {name: value for name, value in zip(values, chosen, strict=True) if value is not nothing}
        events.append({"type": "websocket.send", **given})
    sent: list[object] = []
    wrong: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for event in events:
            try:
                data = message_of(event).data
            except (TypeError, ValueError) as exc:
                with pytest.raises(type(exc), match=re.escape(str(exc))):
                    await send(event)
                wrong.append(event)
            else:
                await send(event)
                sent.append(data if isinstance(data, str) else bytes(data))

    async with running(app) as run, await run.connect() as client:
        received = [await client.receive_message() for _ in range(64)]
        await client.end()
    assert received == sent
    assert len(sent) + len(wrong) == len(events) == 350


async def test_the_peers_close_is_told_after_its_messages(way: dict[str, Any]) -> None:
    app = Recorder()
    async with running(app, **way) as run, await run.connect() as client:
        client.send(text("a"), text("b"), close(4000, "because"))
        assert (await client.receive_close())[0] == 4000
        await client.receive_eof()
        assert await app.end() == {"type": "websocket.disconnect", "code": 4000, "reason": "because"}
    assert [event.get("text") for event in app.events[:-1]] == ["a", "b"]


@pytest.mark.parametrize(("code", "told"), [(None, 1005), (1001, 1001)])
async def test_a_close_without_a_reason(code: int | None, told: int) -> None:
    app = Recorder()
    async with running(app) as run, await run.connect() as client:
        client.send(close(code))
        assert await app.end() == {"type": "websocket.disconnect", "code": told, "reason": ""}


@pytest.mark.parametrize("how", ["reset", "eof"])
async def test_a_lost_connection_is_told_again_and_again(
    way: dict[str, Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Recorder()
    async with running(app, **way) as run:
        client = await run.connect()
        client.send(text("last"))
        await until(lambda: app.events)
        if how == "reset":
            client.reset()
        else:
            client.writer.write_eof()
        assert await app.end() == {"type": "websocket.disconnect", "code": 1006}
        await until(lambda: not run.state.connections)
        client.abort()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_peer_that_leaves_before_it_is_accepted(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(await receive())
        left.set()
        await send({"type": "websocket.accept"})

    async with running(app, **way) as run:
        client = await run.open()
        client.writer.write(request())
        await until(lambda: run.state.tasks)
        client.abort()
        await asyncio.wait_for(left.wait(), PATIENCE)
        await until(lambda: not run.state.tasks)
    assert seen == [{"type": "websocket.disconnect", "code": 1006}]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("then", ["accept", "return"])
async def test_a_peer_that_leaves_before_it_is_accepted_is_no_error_though_nobody_was_told(
    way: dict[str, Any], then: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        (protocol,) = run.state.connections
        transport = protocol.bridge.transport
        while not transport.is_closing():
            await asyncio.sleep(0)
        assert protocol.bridge.transport is not None  # `connection_lost` comes in the next turn
        if then == "accept":
            try:
                await send({"type": "websocket.accept"})
            except OSError as exc:
                raised.append(exc)
                raise

    async with running(app, **way) as run:
        client = await run.open()
        client.writer.write(request())
        await until(lambda: run.state.tasks)
        client.abort()
        await until(lambda: not run.state.tasks)
    assert len(raised) == (then == "accept")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or "WebSocket" in record.msg]


async def test_send_after_the_end_raises_oserror(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        for event in (
            {"type": "websocket.send", "text": "x"},
            {"type": "websocket.close"},
            {"type": "websocket.accept"},
        ):
            try:
                await send(event)
            except OSError as exc:
                raised.append(exc)
        await send({"type": "websocket.send", "text": "x"})  # and nobody catches it

    async with running(app, **way) as run, await run.connect() as client:
        await client.end()
        await until(lambda: not run.state.tasks)
    assert [type(exc) for exc in raised] == [ClientDisconnected] * 3
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_message_that_is_too_big(way: dict[str, Any]) -> None:
    app = Recorder()
    async with running(app, ws_max_size=1000, **way) as run, await run.connect() as client:
        client.send(text("x" * 1000), text("x" * 1001))
        code, reason = await client.receive_close()
        assert code == 1009
        assert await app.end() == {"type": "websocket.disconnect", "code": 1009, "reason": reason}
    assert len(app.events) == 2


async def test_a_peer_that_is_gone_is_told_1011() -> None:
    app = Recorder()
    async with running(app, ws_ping_interval=0.1, ws_ping_timeout=0.1) as run, await run.connect() as client:
        assert (await client.receive()).opcode == 9
        reason = "keepalive ping timeout"
        assert await client.receive_close() == (1011, reason)
        assert await app.end() == {"type": "websocket.disconnect", "code": 1011, "reason": reason}


async def test_a_healthy_peer_lives_while_its_messages_wait_unread(way: dict[str, Any]) -> None:
    """uvicorn's sansio stops to read at the first message, and closes such a peer with 1011."""
    stop = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while not stop.is_set():
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.05)

    async with running(app, ws_ping_interval=0.1, ws_ping_timeout=0.1, **way) as run, await run.connect() as client:
        client.send(text("never read"))
        pinged = 0
        while pinged < 6:
            received = await client.receive()
            if received.opcode == 9:
                pinged += 1
                client.send(pong(received.payload))
        stop.set()
        while (received := await client.receive()).opcode != 8:
            if received.opcode == 9:
                client.send(pong(received.payload))
        assert received.payload[:2] == (1000).to_bytes(2, "big")


async def test_a_close_is_answered_while_messages_wait_unread(way: dict[str, Any]) -> None:
    failed: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.02)
        except OSError:
            failed.append(time.monotonic())
        # What was not read is still there.
        assert await receive() == {"type": "websocket.receive", "text": "never read"}
        assert await receive() == {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async with running(app, **way) as run, await run.connect() as client:
        client.send(text("never read"))
        await client.receive_message()
        begun = time.monotonic()
        client.send(close())
        while (await client.receive()).opcode != 8:
            pass
        assert time.monotonic() - begun < 3
        await client.receive_eof()
        await until(lambda: not run.state.tasks)
    assert failed


async def test_a_ping_is_answered_while_messages_wait_unread(way: dict[str, Any]) -> None:
    async with running(forever, **way) as run, await run.connect() as client:
        client.send(text("a"), text("b"), ping(b"now"))
        received = await client.receive()
        assert (received.opcode, received.payload) == (PONG, b"now")


async def test_closing_drops_what_waits_unread() -> None:
    """uvicorn's `test_close_resumes_reads_paused_on_an_unconsumed_message`, with as much as pauses reading here."""
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await go_on.wait()
        await send({"type": "websocket.close", "code": 1000})

    async with running(app) as run, await run.connect() as client:
        for _ in range(20):
            client.send(binary(bytes(65536)))
        (protocol,) = run.state.connections
        await until(lambda: protocol.paused)
        go_on.set()
        assert await client.receive_close() == (1000, "")
        client.send(close())
        await client.receive_eof()


async def test_a_peer_that_never_answers_a_close() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close"})

    ws = wsfast.uvicorn.configure(close_timeout=0.1)
    async with running(app, ws=ws) as run, await run.connect() as client:
        assert await client.receive_close() == (1000, "")
        await until(lambda: not run.state.connections)
        client.abort()


async def test_a_frame_after_the_close_is_ignored() -> None:
    app = Recorder()
    async with running(app) as run, await run.connect() as client:
        (protocol,) = run.state.connections
        await client.end()
        await until(lambda: not run.state.connections)
        protocol.data_received(b"\x8a\x80\0\0\0\0")
        await app.end()
    assert len(app.events) == 1


# --- Stopping ------------------------------------------------------------------------------------------------


async def test_stopping_tells_the_application_at_once(way: dict[str, Any]) -> None:
    app = Recorder()
    async with running(app, **way) as run, await run.connect() as client:
        run.server.should_exit = True
        assert await app.end() == {"type": "websocket.disconnect", "code": 1012}
        assert await client.receive_close() == (1012, "")
        client.send(close(1012))
        await client.receive_eof()
        client.abort()
        assert await run.stop() < 1


async def test_stopping_does_not_wait_for_what_is_unread() -> None:
    seen: list[Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        (protocol,) = run.state.connections
        while protocol.bridge._stopping is None:
            await asyncio.sleep(0.01)
        seen.append(await receive())

    async with running(app) as run, await run.connect() as client:
        client.send(text("unread"))
        run.server.should_exit = True
        assert await client.receive_close() == (1012, "")
        client.send(close(1012))
        await run.stop()
    assert seen == [{"type": "websocket.disconnect", "code": 1012}]


async def test_stopping_ends_an_application_that_waits_elsewhere(
    way: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await forever(scope, receive, send)
        except BaseException as exc:
            ended.append(exc)
            raise

    async with running(app, **way) as run, await run.connect() as client:
        took = await run.stop()
        assert await client.receive_close() == (1012, "")
    assert took < 4
    assert [type(exc) for exc in ended] == [asyncio.CancelledError]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_stopping_ends_an_application_whose_peer_has_gone(way: dict[str, Any]) -> None:
    async with running(forever, **way) as run:
        client = await run.connect()
        client.reset()
        (protocol,) = run.state.connections
        await until(lambda: protocol.transport is None)
        assert await run.stop() < 4
        assert not run.state.tasks


async def test_stopping_does_not_wait_for_a_peer_that_does_not_answer() -> None:
    """It is given 2 s; uvicorn's `test_shutdown_while_the_close_reply_is_pending` asks for none."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 4000})

    async with running(app) as run, await run.connect() as client:
        assert await client.receive_close() == (4000, "")
        assert await run.stop() < 4
        client.abort()


async def test_an_application_that_cleans_up_within_the_time_is_not_cancelled() -> None:
    cleaned = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await asyncio.sleep(0.5)
        cleaned.append(True)

    async with running(app) as run, await run.connect():
        await run.stop()
    assert cleaned


async def test_timeout_graceful_shutdown_goes_before_our_own() -> None:
    ended: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await forever(scope, receive, send)
        finally:
            ended.append(time.monotonic())

    async with running(app, timeout_graceful_shutdown=1) as run, await run.connect():
        begun = time.monotonic()
        await run.stop()
        await until(lambda: ended)
        assert 0.9 < ended[0] - begun < 1.9


async def test_an_application_that_is_cancelled_before_it_begins_gives_500(
    way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_application = Host.run

    def cancelled(host: Host, bridge: Any) -> asyncio.Task[None]:
        task = run_application(host, bridge)
        task.cancel()  # as a server that stops does to all tasks
        return task

    monkeypatch.setattr(Host, "run", cancelled)
    async with running(forever, **way) as run, await run.open() as client:
        client.writer.write(request())
        assert (await client.reader.read()).startswith(b"HTTP/1.1 500")
        await until(lambda: not run.state.connections)
        assert not run.state.tasks


@pytest.mark.parametrize("phase", ["deciding", "denying"])
async def test_stopping_before_the_application_has_accepted(way: dict[str, Any], phase: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if phase == "denying":
            await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await asyncio.Event().wait()

    async with running(app, **way) as run, await run.open() as client:
        client.writer.write(request())
        await until(lambda: run.state.tasks)
        assert await run.stop() < 4
        answer = await client.reader.read()
        assert answer.startswith(b"HTTP/1.1 503" if phase == "deciding" else b"HTTP/1.1 404")


@pytest.mark.parametrize("way", ["http"], indirect=True)
async def test_stopping_with_a_connection_that_has_sent_nothing(way: dict[str, Any]) -> None:
    async with running(echo, **way) as run, await run.open() as client:
        await until(lambda: run.state.connections)
        assert await run.stop() < 1
        await client.receive_eof()


# --- Waiting and cancelling ----------------------------------------------------------------------------------


async def test_a_cancelled_receive_loses_nothing(way: dict[str, Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        received: list[str] = []
        while len(received) < 50:
            waiting = asyncio.ensure_future(receive())
            for _ in range(len(received) % 4):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                received.append((await waiting)["text"])
            except asyncio.CancelledError:
                # Cancelled, it took nothing.
                received.append((await receive())["text"])
        await send({"type": "websocket.send", "text": ",".join(received)})

    async with running(app, **way) as run, await run.connect() as client:
        for n in range(50):
            client.send(text(str(n)))
            await asyncio.sleep(0)
        assert await client.receive_message() == ",".join(map(str, range(50)))


async def test_receive_by_another_task_ends_with_the_connection() -> None:
    seen: list[Event] = []
    tasks = []

    async def listen(receive: Receive) -> None:
        while True:
            seen.append(await receive())
            if seen[-1]["type"] == "websocket.disconnect":
                return

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        tasks.append(asyncio.ensure_future(listen(receive)))
        await asyncio.sleep(0)

    async with running(app) as run, await run.connect() as client:
        assert await client.receive_close() == (1000, "")
        await asyncio.wait_for(tasks[0], PATIENCE)
    assert seen[-1]["type"] == "websocket.disconnect"


async def test_send_waits_while_the_peer_does_not_read(way: dict[str, Any]) -> None:
    sent = 0
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await accept(receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
                sent += 65536
        except OSError as exc:
            ended.append(exc)

    async with running(app, **way) as run:
        client = await run.connect()
        client.pause_reading()
        await _settled(lambda: sent)
        assert sent < 20_000_000
        client.reset()
        await until(lambda: ended)


async def test_a_cancelled_send_is_whole_or_nothing(way: dict[str, Any]) -> None:
    done: list[int] = []
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        n = 0
        while True:
            event = {"type": "websocket.send", "bytes": n.to_bytes(4, "big") * 16384}
            try:
                await asyncio.wait_for(send(event), 0.2)
            except TimeoutError:
                break
            done.append(n)
            n += 1
        cancelled.append(n)
        await go_on.wait()
        await send({"type": "websocket.send", "text": "after"})

    cancelled: list[int] = []
    async with running(app, **way) as run, await run.connect() as client:
        client.pause_reading()
        await until(lambda: cancelled)
        client.resume_reading()
        go_on.set()
        numbers: list[int] = []
        while isinstance(message := await client.receive_message(), bytes):
            assert message == message[:4] * 16384
            numbers.append(int.from_bytes(message[:4], "big"))
        assert message == "after"
    assert numbers in ([*done], [*done, *cancelled])


async def test_a_peer_that_floods_is_held_back(way: dict[str, Any]) -> None:
    async with running(forever, **way) as run:
        client = await run.connect()
        one = binary(bytes(16384))
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 200e6:
                client.send(one)
                sent += len(one)
                await asyncio.wait_for(client.writer.drain(), 0.3)
        (protocol,) = run.state.connections
        assert protocol.held < 1_000_000
        client.abort()


async def test_early_messages_are_bounded_and_kept(way: dict[str, Any]) -> None:
    go_on = asyncio.Event()
    received = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await receive()
        await go_on.wait()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            received += len(event["bytes"])

    async with running(app, **way) as run:
        client = await run.open()
        client.writer.write(request())
        await until(lambda: run.state.tasks)
        one = binary(bytes(16384))
        sent = 0
        while sent < 1000 * 16384:
            client.send(one)
            sent += 16384
        (protocol,) = run.state.connections
        transport = protocol.bridge.transport
        await until(lambda: not transport.is_reading())
        assert len(protocol.bridge._early) < 1_000_000
        go_on.set()
        await client.reader.readuntil(b"\r\n\r\n")
        client.send(close())
        await until(lambda: received == sent)


# --- `HTTP` ------------------------------------------------------------------------------------------------


async def http_and_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HTTP with the path, and WebSockets with an echo."""
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
        return
    body = b""
    while True:
        event = await receive()
        body += event["body"]
        if not event["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode() + body})


async def test_frames_right_behind_the_request_are_kept() -> None:
    async with running(echo, **WAYS["http"]) as run, await run.open() as client:
        await client.exchange(request() + text("early") + text("bird"))
        assert client.status == 101
        assert await client.receive_message() == "early"
        assert await client.receive_message() == "bird"


@pytest.mark.parametrize("cut", [1, 10, 60, -1])
async def test_a_request_in_pieces_and_frames_behind_it(cut: int) -> None:
    async with running(echo, **WAYS["http"]) as run, await run.open() as client:
        data = request()
        client.writer.write(data[:cut])
        await until(lambda: type(next(iter(run.state.connections), None)).__name__ == "_HTTPTools")
        await client.exchange(data[cut:] + text("early"))
        assert client.status == 101
        assert await client.receive_message() == "early"
        await client.end()
        await until(lambda: not run.state.connections)


async def test_http_and_then_a_websocket_on_one_connection() -> None:
    async with running(http_and_echo, **WAYS["http"]) as run, await run.open() as client:
        for path in "/a", "/b":
            client.writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".encode())
            client.writer.write(b"xy")
            answer = await client.reader.readuntil(path.encode() + b"xy")
            while not answer.endswith(path.encode() + b"xy"):
                answer += await client.reader.read(1000)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            rest = await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), PATIENCE)
            assert rest
        await client.exchange(request() + text("early"))
        assert client.status == 101
        assert await client.receive_message() == "early"
        client.send(text("late"))
        assert await client.receive_message() == "late"
        await client.end()


@pytest.mark.filterwarnings("ignore:Uvicorn's native WSGI:DeprecationWarning")
@pytest.mark.parametrize("ws", ["auto", wsfast.uvicorn.Protocol], ids=["auto", "Protocol"])
async def test_http_leaves_a_program_of_wsgi_to_uvicorn(ws: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-length", "2")])
        return [b"hi"]

    options = {"http": wsfast.uvicorn.HTTP, "ws": ws, "interface": "wsgi", "timeout_keep_alive": 0}
    async with running(app, **options) as run, await run.open() as client:
        await client.handshake()
        assert (client.status, client.body) == (200, b"hi")


@pytest.mark.parametrize("ws", ["none", "websockets-sansio"])
async def test_http_obeys_another_choice_of_ws(ws: str) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], "wsfast" in scope.get("extensions", {})))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await http_and_echo(scope, receive, send)

    options = {"http": wsfast.uvicorn.HTTP, "ws": ws, "timeout_keep_alive": 0}
    async with running(app, **options) as run, await run.open() as client:
        await client.handshake(headers={"X": "Y"})
        assert client.status == (403 if ws != "none" else 200)
    assert seen == [("websocket", False) if ws != "none" else ("http", False)]


async def test_http_has_the_options_of_ws() -> None:
    app = Recorder()
    ws = wsfast.uvicorn.configure(max_size=10)
    for cut in None, 20:
        async with running(app, http=wsfast.uvicorn.HTTP, ws=ws) as run, await run.open() as client:
            data = request()
            if cut is not None:
                client.writer.write(data[:cut])
                await until(lambda: type(next(iter(run.state.connections), None)).__name__ == "_HTTPTools")
            await client.exchange(data[cut or 0 :])
            client.send(text("x" * 11))
            assert (await client.receive_close())[0] == 1009


async def test_nonsense_is_answered_by_uvicorn() -> None:
    async with running(echo, **WAYS["http"]) as run, await run.open() as client:
        await client.exchange(b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03" + b"x" * 200 + b"\r\n\r\n")
        assert client.status == 400


async def test_limit_concurrency(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async with running(http_and_echo, limit_concurrency=3, **way) as run:
        one, two = await run.connect(), await run.connect()
        async with await run.open() as client:
            await client.handshake()
            assert client.status == 503
        async with await run.open() as client:
            await client.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.status == 503
        await one.end()
        await until(lambda: len(run.state.connections) == 1)
        async with await run.connect() as client:
            await client.end()
        await two.end()
    assert "Exceeded concurrency limit." in caplog.messages


async def test_tls(way: dict[str, Any], certs: Any) -> None:
    app = Recorder()
    options = {"ssl_certfile": certs.server}
    async with running(app, **options, **way) as run:
        client = await run.open(ssl=certs.client_context())
        await client.handshake()
        assert client.status == 101
        client.send(text("secret"), close())
        assert await client.receive_close() == (1000, "")
        await app.end()
    assert app.scope["scheme"] == "wss"
    assert app.events[0]["text"] == "secret"


async def test_a_unix_socket(way: dict[str, Any], tmp_path: Any) -> None:
    app = Recorder()
    path = str(tmp_path / "s")
    async with running(app, uds=path, **way), await open_raw(unix=path) as client:
        await client.handshake()
        assert client.status == 101
        await client.end()
        await app.end()
    assert app.scope["client"] is None
    assert app.scope["server"] == (path, None)


# --- Options ------------------------------------------------------------------------------------------------


def config(**options: Any) -> uvicorn.Config:
    return uvicorn.Config(echo, log_config=None, **options)


def test_uvicorns_options_mean_what_they_mean() -> None:
    limits = limits_of(config(), {})
    assert limits.max_size == 16 * 1024 * 1024
    assert limits.ping_interval == limits.ping_timeout == 20.0
    assert limits.compression == Deflate()
    limits = limits_of(config(ws_max_size=7, ws_ping_interval=3.0, ws_ping_timeout=4.0), {})
    assert (limits.max_size, limits.ping_interval, limits.ping_timeout) == (7, 3.0, 4.0)
    for off in None, 0, 0.0:
        limits = limits_of(config(ws_ping_interval=off, ws_ping_timeout=off, ws_per_message_deflate=False), {})
        assert limits.ping_interval is limits.ping_timeout is None
    assert limits.compression is None
    assert limits_of(config(), {"max_size": None, "compression": None}).max_size is None


def test_what_configure_takes() -> None:
    ws = wsfast.uvicorn.configure(compression="deflate", write_limit=7, overflow="drop", ping_interval=None)
    assert issubclass(ws, wsfast.uvicorn.Protocol)
    limits = limits_of(config(ws_per_message_deflate=False), ws.options)
    assert (limits.write_limit, limits.overflow, limits.ping_interval) == (7, "drop", None)
    assert limits.compression == Deflate()
    with pytest.raises(TypeError, match=r"configure\(\) got an unexpected .*'max_sise': did you mean 'max_size'"):
        wsfast.uvicorn.configure(max_sise=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="overflow must be"):
        wsfast.uvicorn.configure(overflow="explode")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_size must be positive"):
        wsfast.uvicorn.configure(max_size=0)
    with pytest.raises(TypeError, match="compression must be"):
        wsfast.uvicorn.configure(compression=True)  # type: ignore[arg-type]


def test_the_table_of_options_has_all_of_uvicorns() -> None:
    """Of each option that uvicorn has, the documentation says what it does to WebSockets."""
    page = (Path(__file__).parent.parent / "docs" / "asgi.md").read_text()
    table = page.partition("## Options")[2].partition("\n## ")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    named = {name.replace("-", "_") for cell in first for name in re.findall(r"`(?:--(?:no-)?)?([\w*-]+)[^`]*`", cell)}
    called = {"headers": "header", "reload_dirs": "reload_dir", "reload_includes": "reload_include"}
    called |= {"reload_excludes": "reload_exclude", "ws": "http"}  # `--ws` is what the whole page is about
    missing = [
        name
        for name in list(inspect.signature(uvicorn.Config).parameters)[1:]
        if called.get(name, name) not in named and not (name.startswith("ssl_") and "ssl_*" in named)
    ]
    assert not missing
    assert set(Options.__annotations__) <= named


def test_a_configured_class_can_be_pickled_for_workers() -> None:
    """`uvicorn.run(ws=configure(...), workers=2)` hands its options to processes that it spawns."""
    ws = wsfast.uvicorn.configure(max_size=7)
    copy = pickle.loads(pickle.dumps(ws))
    assert copy.options == {"max_size": 7}
    assert pickle.loads(pickle.dumps(wsfast.uvicorn.Protocol)) is wsfast.uvicorn.Protocol
    assert pickle.loads(pickle.dumps(wsfast.uvicorn.HTTP)) is wsfast.uvicorn.HTTP


# --- What is beneath -----------------------------------------------------------------------------------------


async def test_of_gives_the_websocket(way: dict[str, Any]) -> None:
    class Holder:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ws = of(scope)
        assert ws.state.name == "CONNECTING"
        assert ws.request is not None
        assert ws.request.path == "/p"
        await accept(receive, send, subprotocol="v1")
        assert of(Holder(scope)) is of(dict(scope)) is of(ws) is ws
        assert ws.state is wsfast.State.OPEN
        assert ws.subprotocol == "v1"
        assert await (await ws.ping()) > 0
        assert ws.latency > 0
        ws.send_nowait("nowait")
        await receive()
        assert ws.counters["messages_sent"] == 1

    async with running(app, **way) as run, await run.connect("v1", path="/p") as client:
        received = await client.receive()
        client.send(pong(received.payload))
        assert await client.receive_message() == "nowait"
        client.send(text("x"))
        assert await client.receive_close() == (1000, "")


def test_of_what_is_not_served_by_wsfast() -> None:
    with pytest.raises(LookupError, match="this websocket is not served by wsfast"):
        of({"type": "websocket", "extensions": {}})
    with pytest.raises(LookupError, match="this http is not served by wsfast"):
        of({"type": "http"})
    with pytest.raises(TypeError, match="got int"):
        of(1)


async def test_broadcast(way: dict[str, Any]) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        scopes.append(scope)
        if len(scopes) == 3:
            broadcast(scopes, "to all")
        await receive()

    async with running(app, **way) as run:
        clients = [await run.connect() for _ in range(3)]
        for client in clients:
            assert await client.receive_message() == "to all"
            client.abort()


async def test_compress_false_sends_a_message_as_it_is() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "x" * 1000})
        await send({"type": "websocket.send", "text": "x" * 1000, "compress": False})

    async with running(app) as run, await run.open() as client:
        await client.handshake(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        assert "permessage-deflate" in client.headers["sec-websocket-extensions"]
        packed, plain = await client.receive(), await client.receive()
    assert (packed.rsv, plain.rsv) == (4, 0)
    assert plain.payload == b"x" * 1000


@pytest.mark.parametrize("first", ["application", "connection"])
async def test_nothing_is_kept_of_a_connection_that_has_ended(way: dict[str, Any], first: str) -> None:
    kept: list[weakref.ref[Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(weakref.ref(of(scope)))
        await accept(receive, send)
        if first == "connection":
            await receive()

    async with running(app, **way) as run:
        gc.collect()
        gc.disable()
        try:
            client = await run.connect()
            if first == "application":
                assert await client.receive_close() == (1000, "")
                client.send(close())
                await client.receive_eof()
            else:
                await client.end()
            await until(lambda: not run.state.connections and not run.state.tasks)
            await until(lambda: kept[0]() is None)
        finally:
            gc.enable()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_that_runs_again(way: dict[str, Any], loop_factory: Any) -> None:
    server = Quiet(uvicorn.Config(echo, host="127.0.0.1", port=0, lifespan="off", log_config=None, **way))

    async def once() -> None:
        server.should_exit = server.started = False
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        run = Running(server, task)
        client = await run.connect()
        client.send(text("hello"))
        assert await client.receive_message() == "hello"
        await run.stop()
        assert await client.receive_close() == (1012, "")
        client.abort()

    for _ in range(2):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(once())


async def test_serve() -> None:
    stop = asyncio.Event()
    started = asyncio.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    app = Recorder()

    async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            events.append((await receive())["type"])
            await send({"type": "lifespan.startup.complete"})
            events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await app(scope, receive, send)

    events: list[str] = []
    serving = asyncio.create_task(
        wsfast.uvicorn.serve(with_lifespan, [sock], stop=stop, started=started.set, log_config=None)
    )
    await asyncio.wait_for(started.wait(), PATIENCE)
    client = RawClient(*await asyncio.open_connection("127.0.0.1", port))
    await client.handshake()
    assert client.status == 101
    stop.set()
    assert await client.receive_close() == (1012, "")
    client.abort()
    await asyncio.wait_for(serving, PATIENCE)
    assert events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("end", ["cancel", "startup"])
async def test_serve_ends(end: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        if end == "startup":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        ended.append(True)
        await send({"type": "lifespan.shutdown.complete"})

    ended: list[bool] = []
    started = asyncio.Event()
    serving = asyncio.create_task(
        wsfast.uvicorn.serve(app, host="127.0.0.1", port=0, started=started.set, log_config=None)
    )
    if end == "startup":
        with pytest.raises(RuntimeError, match="did not start"):
            await asyncio.wait_for(serving, PATIENCE)
        return
    await asyncio.wait_for(started.wait(), PATIENCE)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ended


def pong(payload: bytes) -> bytes:
    """Build a masked Pong frame."""
    return frame(PONG, payload, key=MASK)


async def _settled(value: Any) -> None:
    """Wait until a number that grows has stood still for a while."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.5 or not last:
        await asyncio.sleep(0.05)
        if value() != last:
            last, since = value(), time.monotonic()
