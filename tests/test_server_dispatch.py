"""Which handler a connection gets, and what is answered where there is none."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import types
from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest import mock

import pytest
from raw import binary, connect_raw, open_raw, request, text
from shared import echo, port_of, serving, stream_echo
from vectors import BINARY, TEXT
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import InvalidStatus

import wsfast
from wsfast.handshake import refuse


class EchoListener(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


def all_three(server: wsfast.Server) -> None:
    server.register_handler("messages", echo)
    server.register_stream_handler("stream", stream_echo)
    server.register_stream_handler("text-stream", stream_echo, text=True)
    server.register_listener("listener", EchoListener)
    server.register_handler(None, echo)


# --- Registration ---------------------------------------------------------------------------------------


def test_decorators_return_what_they_decorate() -> None:
    server = wsfast.Server()
    assert server.handler("a")(echo) is echo
    assert server.stream_handler("b", text=True)(stream_echo) is stream_echo
    assert server.listener("c")(EchoListener) is EchoListener
    assert all(map(server.is_registered, "abc"))
    assert not server.is_registered("A")
    assert not server.is_registered(None)
    server.handler(None)(echo)
    assert server.is_registered(None)


@pytest.mark.parametrize("name", ["a", None])
@pytest.mark.parametrize("first", ["register_handler", "register_stream_handler", "register_listener"])
@pytest.mark.parametrize("second", ["register_handler", "register_stream_handler", "register_listener"])
def test_a_name_is_registered_once(name: str | None, first: str, second: str) -> None:
    server = wsfast.Server()
    served = {"register_handler": echo, "register_stream_handler": stream_echo, "register_listener": EchoListener}
    getattr(server, first)(name, served[first])
    with pytest.raises(ValueError, match=re.escape(f"subprotocol {name!r} is registered already")):
        getattr(server, second)(name, served[second])


@pytest.mark.parametrize("name", ["", " ", "a b", "a,b", "a\r\nb", "é", 'a"', "a\0", "a/b", "(a)"])
def test_names_are_tokens(name: str) -> None:
    server = wsfast.Server()
    with pytest.raises(ValueError, match="must be a token"):
        server.register_handler(name, echo)
    assert not server.is_registered(name)


@pytest.mark.parametrize("name", [b"a", 1, ["a"]])
def test_names_are_str(name: Any) -> None:
    with pytest.raises(TypeError, match="must be str or None"):
        wsfast.Server().register_handler(name, echo)


@pytest.mark.parametrize("form", ["handler", "stream_handler", "listener"])
def test_decorators_without_parentheses(form: str) -> None:
    """The function would stand where the name should, and nothing be registered."""
    with pytest.raises(TypeError, match="must be str or None, got function"):
        getattr(wsfast.Server(), form)(echo)


@pytest.mark.parametrize("form", ["register_handler", "register_stream_handler", "register_listener"])
def test_handlers_are_callable(form: str) -> None:
    with pytest.raises(TypeError, match="a handler must be callable, got NoneType"):
        getattr(wsfast.Server(), form)("a", None)


class Callable1:
    async def __call__(self, ws: wsfast.WebSocket) -> None: ...

    async def method(self, ws: wsfast.WebSocket) -> None: ...

    @classmethod
    async def of_class(cls, ws: wsfast.WebSocket) -> None: ...

    @staticmethod
    async def static(ws: wsfast.WebSocket) -> None: ...


async def with_more(more: int, ws: wsfast.WebSocket, another: int = 1) -> None: ...


def returns_awaitable(ws: wsfast.WebSocket) -> Any:
    return echo(ws)


def may_return_awaitable(ws: wsfast.WebSocket) -> Any:
    if ws is None:
        return None
    return echo(ws)


def raises(ws: wsfast.WebSocket) -> Any:
    raise ValueError


@functools.wraps(echo)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return echo(*args, **kwargs)


@types.coroutine
def old_coroutine(ws: wsfast.WebSocket) -> Any:
    yield from asyncio.sleep(0).__await__()


@pytest.mark.parametrize(
    "handler",
    [
        echo,
        Callable1(),
        Callable1().method,
        Callable1.of_class,
        Callable1.static,
        functools.partial(with_more, 1),
        functools.partial(functools.partial(with_more, another=2), 1),
        functools.partial(Callable1.method, Callable1()),
        returns_awaitable,
        may_return_awaitable,
        raises,
        lambda ws: echo(ws),
        lambda *args: echo(*args),
        wrapped,
        old_coroutine,
        mock.Mock(),
        mock.AsyncMock(),
        mock.MagicMock(spec=echo),
        mock.create_autospec(echo),
        print,
    ],
)
def test_handlers_that_may_serve(handler: Any) -> None:
    wsfast.Server().register_handler(None, handler)
    assert wsfast.Server().handler("a")(handler) is handler
    wsfast.serve(handler)
    wsfast.serve({"a": handler})


class Listener1(wsfast.Listener): ...


async def no_argument() -> None: ...


async def two_arguments(ws: wsfast.WebSocket, path: str) -> None: ...


async def by_name(*, ws: wsfast.WebSocket) -> None: ...


async def yields(ws: wsfast.WebSocket) -> AsyncIterator[int]:
    yield 1


def generator(ws: wsfast.WebSocket) -> Any:
    yield 1


def plain(ws: wsfast.WebSocket) -> None:
    print(ws)


def plain_with_returns(ws: wsfast.WebSocket) -> None:
    if ws:
        return
    for _ in range(3):
        print(ws)


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (no_argument, r"must take 1 argument \(ws\), got no_argument\(\)"),
        (two_arguments, r"must take 1 argument \(ws\), got two_arguments\(ws: .*missing a required argument: 'path'"),
        (two_arguments, r"; the path is ws.request.path$"),
        (by_name, "must take 1 argument"),
        (Callable1, "must take 1 argument"),
        (Listener1, "Listener1 is a class: see register_listener"),
        (wsfast.Listener, "Listener is a class"),
        (Callable1.method, "must take 1 argument"),
        (functools.partial(echo, None), "must take 1 argument"),  # type: ignore[arg-type]
        (with_more, "must take 1 argument"),
        (yields, r"must be a coroutine function: async def handler\(ws\); yields yields"),
        (generator, "generator yields"),
        (plain, "plain is a plain function that returns nothing"),
        (plain_with_returns, "plain_with_returns is a plain function"),
        (functools.partial(plain), "plain is a plain function"),
        (lambda ws: None, "<lambda> is a plain function"),
    ],
)
def test_handlers_that_cannot_serve(handler: Any, text: str) -> None:
    server = wsfast.Server()
    with pytest.raises(TypeError, match=text):
        server.register_handler("a", handler)
    with pytest.raises(TypeError, match=text):
        server.handler("a")(handler)
    assert not server.is_registered("a")
    if isinstance(handler, type) and issubclass(handler, wsfast.Listener):
        wsfast.serve(handler)  # type: ignore[arg-type]
        return
    with pytest.raises(TypeError, match=text):
        wsfast.serve(handler)
    with pytest.raises(TypeError, match=text):
        wsfast.serve({None: handler})


def test_stream_handlers_take_two_arguments() -> None:
    server = wsfast.Server()
    server.register_stream_handler("a", stream_echo)
    with pytest.raises(TypeError, match=r"must take 2 arguments \(reader, writer\), got echo\(ws"):
        server.register_stream_handler("b", echo)  # type: ignore[arg-type]


@pytest.mark.parametrize("headers", [{"A": "b\r\nC: d"}, {"A\n": "b"}, {"A b": "c"}, {"A": "\0"}])
def test_response_headers_are_checked_at_once(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"A|b"):
        wsfast.Server(response_headers=headers)


# --- Choice ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "opcode"),
    [("messages", TEXT), ("stream", BINARY), ("text-stream", TEXT), ("listener", TEXT), (None, TEXT)],
)
async def test_the_three_forms_on_one_server(name: str | None, opcode: int) -> None:
    async with serving(register=all_three) as server, await open_raw(server) as client:
        await client.handshake(*[name] if name else [])
        assert client.status == 101
        assert client.headers.get("sec-websocket-protocol") == name
        client.send(text("é"))
        assert await client.receive() == (True, 0, opcode, "é".encode())
        await client.end()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["messages", "stream", "listener", None])
async def test_the_websockets_client_with_each_form(name: Any) -> None:
    async with serving(register=all_three) as server:
        offers = [name] if name else None
        async with websockets_connect(f"ws://127.0.0.1:{port_of(server)}/p?q", subprotocols=offers) as ws:
            assert ws.subprotocol == name
            for message in (b"hello", bytes(range(256)) * 10, b""):
                await ws.send(message)
                if message or name != "stream":
                    assert await ws.recv() == message
        assert ws.close_code == 1000


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (["b", "a"], "b"),
        (["a, b"], "a"),
        (["x, y", "z, b , a"], "b"),
        ([f"x{number}" for number in range(10)] + ["a"], "a"),
        ([",, a ,,"], "a"),
    ],
)
async def test_the_first_offer_that_is_registered_wins(offers: list[str], chosen: str) -> None:
    served: list[tuple[str, str | None]] = []

    def register(server: wsfast.Server) -> None:
        for name in ("a", "b"):

            async def handler(ws: wsfast.WebSocket, name: str = name) -> None:
                served.append((name, ws.subprotocol))

            server.register_handler(name, handler)

    async with serving(register=register) as server, await open_raw(server) as client:
        await client.handshake(*offers)
        assert client.headers["sec-websocket-protocol"] == chosen
        assert await client.receive_close() == (1000, "")
    assert served == [(chosen, chosen)]


@pytest.mark.anyio
@pytest.mark.parametrize("none_too", [False, True])
@pytest.mark.parametrize("offers", [["x"], ["A"], ["aa, x"]])
async def test_offers_and_nothing_in_common(
    none_too: bool, offers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def register(server: wsfast.Server) -> None:
        server.register_handler("a", echo)
        server.register_handler("b", echo)
        if none_too:
            server.register_handler(None, echo)

    caplog.set_level(logging.INFO)
    async with serving(register=register) as server, await open_raw(server) as client:
        await client.handshake(*offers)
        assert client.status == 400
        assert client.body.decode().strip() == "None of the subprotocols offered is supported; supported: a, b."
        assert client.headers["connection"] == "close"
        assert client.headers["content-length"] == str(len(client.body))
        assert client.headers["content-type"].startswith("text/plain")
        assert server.counters["refused"] == {400: 1}
        [record] = [record for record in caplog.records if "refused" in record.getMessage()]
        assert (record.levelname, record.exc_info) == ("INFO", None)


@pytest.mark.anyio
async def test_no_offer_and_no_handler_for_none() -> None:
    async with (
        serving(register=lambda server: server.register_handler("a", echo)) as server,
        await open_raw(server) as client,
    ):
        await client.handshake()
        assert client.status == 400
        assert client.body.decode().strip() == "A subprotocol is required; supported: a."


@pytest.mark.anyio
async def test_nothing_registered() -> None:
    async with serving(register=lambda server: None) as server, await open_raw(server) as client:
        await client.handshake()
        assert client.status == 400
        assert client.body.decode().strip() == "A subprotocol is required; supported: none."


@pytest.mark.anyio
async def test_a_malformed_offer_is_refused() -> None:
    async with serving() as server:
        for offer in ("a b", "(a)", "a\x01"):
            async with await open_raw(server) as client:
                await client.handshake(offer)
                assert client.status == 400


@pytest.mark.anyio
async def test_select_subprotocol_overrides() -> None:
    asked: list[list[str]] = []

    def choose(ws: wsfast.WebSocket, offers: Sequence[str]) -> str | None:
        assert ws.request is not None
        asked.append(list(offers))
        return offers[-1] if ws.request.path != "/none" and offers else None

    def register(server: wsfast.Server) -> None:
        server.register_handler("a", echo)
        server.register_handler("b", echo)
        server.register_handler(None, echo)

    async with serving(register=register, select_subprotocol=choose) as server:
        for path, offers, chosen in [("/", ["a, b"], "b"), ("/", [], None), ("/none", ["a"], None), ("/", ["b"], "b")]:
            async with await open_raw(server) as client:
                await client.handshake(*offers, path=path)
                assert client.status == 101
                assert client.headers.get("sec-websocket-protocol") == chosen
    assert asked == [["a", "b"], [], ["a"], ["b"]]


@pytest.mark.anyio
@pytest.mark.parametrize("answer", ["c", "b", 1, ValueError("boom")])
async def test_a_select_subprotocol_that_is_wrong(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def choose(ws: wsfast.WebSocket, offers: Sequence[str]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def register(server: wsfast.Server) -> None:
        server.register_handler("a", echo)
        server.register_handler("b", echo)

    async with serving(register=register, select_subprotocol=choose) as server, await open_raw(server) as client:
        await client.handshake("a, c")
        assert client.status == 500
        assert b"boom" not in client.body
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None


@pytest.mark.anyio
async def test_a_select_subprotocol_may_raise_negotiation_error(caplog: pytest.LogCaptureFixture) -> None:
    """As with websockets: it is no fault of the hook's."""
    caplog.set_level(logging.INFO)

    def choose(ws: wsfast.WebSocket, offers: Sequence[str]) -> str | None:
        raise wsfast.NegotiationError("too old\r\nX: y")

    def register(server: wsfast.Server) -> None:
        server.register_handler("a", echo)
        server.register_handler(None, echo)

    async with serving(register=register, select_subprotocol=choose) as server:
        for offers in (["b"], []):
            async with await open_raw(server) as client:
                await client.handshake(*offers)
                assert client.status == 400
                assert b"supported: a" in client.body
                assert b"old" not in client.body
        assert server.counters["refused"] == {400: 2}
    told = [record for record in caplog.records if "refused" in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO", "INFO"]
    assert all(r"'too old\r\nX: y'" in record.getMessage() for record in told)


@pytest.mark.anyio
async def test_a_select_subprotocol_may_refuse() -> None:
    def choose(ws: wsfast.WebSocket, offers: Sequence[str]) -> str | None:
        raise refuse(403, "Not you")

    async with serving(select_subprotocol=choose) as server, await open_raw(server) as client:
        await client.handshake("a")
        assert (client.status, client.body.strip()) == (403, b"Not you.")


# --- The short form -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_serve_with_one_handler_and_names() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, subprotocols=["a", "b"]) as server:
        for offers, chosen in [([], None), (["a"], "a"), (["x, b"], "b")]:
            async with await connect_raw(server, *offers) as client:
                assert client.headers.get("sec-websocket-protocol") == chosen
                client.send(text("x"))
                assert await client.receive_message() == "x"


def test_serve_with_a_name_in_place_of_a_list() -> None:
    with pytest.raises(TypeError, match="subprotocols as a list of strings, got str"):
        wsfast.serve(echo, "127.0.0.1", 0, subprotocols="chat")


def test_serve_with_nothing() -> None:
    with pytest.raises(ValueError, match="at least one subprotocol, got an empty mapping"):
        wsfast.serve({}, "127.0.0.1", 0)


@pytest.mark.anyio
async def test_serve_with_a_mapping() -> None:
    async with wsfast.serve({"chat.v2": echo, "ticks": EchoListener, None: EchoListener}, "127.0.0.1", 0) as server:
        for offers in (["chat.v2"], ["ticks"], []):
            async with await connect_raw(server, *offers) as client:
                client.send(binary(b"x"))
                assert await client.receive_message() == b"x"


def test_serve_refuses_what_it_cannot_serve() -> None:
    with pytest.raises(TypeError, match="subprotocols goes with a single handler"):
        wsfast.serve({None: echo}, subprotocols=["a"])
    with pytest.raises(TypeError, match="must be callable"):
        wsfast.serve(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be a token"):
        wsfast.serve(echo, subprotocols=["a b"])


# --- Hooks ----------------------------------------------------------------------------------------------


def health(ws: wsfast.WebSocket, asked: wsfast.Request) -> wsfast.Response | None:
    return ws.respond(200, "OK\n") if asked.path == "/healthz" else None


async def async_health(ws: wsfast.WebSocket, asked: wsfast.Request) -> wsfast.Response | None:
    await asyncio.sleep(0)
    return health(ws, asked)


@pytest.mark.anyio
@pytest.mark.parametrize("hook", [health, async_health])
async def test_process_request_answers_http(hook: Any) -> None:
    async with serving(process_request=hook) as server:
        for raw in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", request(path="/healthz")):
            async with await open_raw(server) as client:
                await client.exchange(raw)
                assert (client.status, client.body) == (200, b"OK\n")
                assert client.headers["connection"] == "close"
        async with await connect_raw(server) as client:
            client.send(text("x"))
            assert await client.receive_message() == "x"
        with pytest.raises(InvalidStatus):
            await websockets_connect(f"ws://127.0.0.1:{port_of(server)}/healthz")


@pytest.mark.anyio
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    "answer", [ValueError("a secret"), asyncio.CancelledError(), "OK", b"OK", 200, refuse(418, "Teapot")]
)
async def test_process_request_that_is_wrong_or_refuses(
    later: bool, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(ws: wsfast.WebSocket, asked: wsfast.Request) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def async_hook(ws: wsfast.WebSocket, asked: wsfast.Request) -> Any:
        await asyncio.sleep(0)
        return hook(ws, asked)

    async with serving(process_request=async_hook if later else hook) as server, await open_raw(server) as client:
        await client.handshake()
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        if isinstance(answer, wsfast.HandshakeRefused):
            assert (client.status, client.body.strip()) == (418, b"Teapot.")
            assert errors == []
        else:
            assert client.status == 500
            assert b"secret" not in client.body
            [record] = errors
            assert record.name == "wsfast.server"
            assert record.exc_info is not None


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 100, 300_000])
async def test_frames_that_come_while_process_request_is_at_work(size: int) -> None:
    gate = asyncio.Event()
    asked = asyncio.Event()

    async def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        asked.set()
        await gate.wait()

    async with serving(process_request=hook) as server, await open_raw(server) as client:
        client.send(request(), text("1"))
        await asked.wait()
        client.send(binary(bytes(size)), text("3"))
        drained = asyncio.ensure_future(client.writer.drain())
        await asyncio.sleep(0.01)  # not for anything: so that some of it is there before the hook is done
        gate.set()
        async with asyncio.timeout(5):
            await client.reader.readuntil(b"\r\n\r\n")
        assert [await client.receive_message() for _ in range(3)] == ["1", bytes(size), "3"]
        await drained


@pytest.mark.anyio
async def test_a_client_that_goes_while_process_request_is_at_work() -> None:
    asked = asyncio.Event()
    cancelled = asyncio.Event()

    async def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(process_request=hook) as server:
        async with await open_raw(server) as client:
            client.send(request())
            await asked.wait()
        async with asyncio.timeout(5):
            await cancelled.wait()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://a.example", 101),
        ("https://b.example", 403),
        ("https://x.c.example", 101),
        ("https://x.c.example.evil", 403),
        (None, 101),
        ("null", 403),
    ],
)
async def test_origins(origin: str | None, status: int) -> None:
    allowed = ["https://a.example", re.compile(r"https://\w+\.c\.example"), None]
    async with serving(origins=allowed) as server, await open_raw(server) as client:
        await client.handshake(headers={"Origin": origin} if origin else {})
        assert client.status == status


@pytest.mark.anyio
async def test_origins_without_none_refuse_who_sends_none() -> None:
    async with serving(origins=["https://a.example"]) as server, await open_raw(server) as client:
        await client.handshake()
        assert client.status == 403


@pytest.mark.parametrize("origins", ["https://a.example", ["https://a.example", 5], [b"https://a.example"]])
def test_origins_of_a_wrong_type(origins: Any) -> None:
    with pytest.raises(
        TypeError, match=r"origins must be a list of str, compiled patterns and None, got (str|int|bytes)"
    ):
        wsfast.Server(origins=origins)


@pytest.mark.anyio
async def test_response_headers() -> None:
    async with (
        serving(response_headers={"X-One": "1", "Set-Cookie": "a=b"}, server_header="me") as server,
        await connect_raw(server) as client,
    ):
        assert client.headers["x-one"] == "1"
        assert client.headers["set-cookie"] == "a=b"
        assert client.headers["server"] == "me"
    async with serving(server_header=None) as server, await connect_raw(server) as client:
        assert "server" not in client.headers


@pytest.mark.anyio
async def test_what_a_handler_knows_of_the_request() -> None:
    seen: list[wsfast.WebSocket] = []

    async def look(ws: wsfast.WebSocket) -> None:
        seen.append(ws)
        assert ws.request is not None
        assert ws.request.path == "/a/b?c=d"
        assert ws.request.headers["cookie"] == "e=f"
        assert ws.subprotocol == "look"
        assert ws.remote_address == expected[0]
        assert ws.local_address == expected[1]
        await ws.send("fine")

    async with (
        serving(register=lambda server: server.register_handler("look", look)) as server,
        await open_raw(server) as client,
    ):
        expected = client.writer.get_extra_info("sockname"), client.writer.get_extra_info("peername")
        await client.handshake("look", path="/a/b?c=d", headers={"Cookie": "e=f"})
        assert await client.receive_message() == "fine"
        assert await client.receive_close() == (1000, "")
    assert seen[0].request is not None


# --- Faults of handlers ---------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["plain function", "factory", "on_open", "wrong factory"])
async def test_handlers_that_do_not_even_begin(form: str, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[int] = []

    class Faulty(wsfast.Listener):
        def on_open(self) -> None:
            raise ValueError("boom")

        def on_close(self, code: int, reason: str) -> None:
            closed.append(code)

    def fail(ws: wsfast.WebSocket) -> Any:
        raise ValueError("boom")

    def register(server: wsfast.Server) -> None:
        if form == "plain function":
            server.register_handler(None, lambda ws: str(ws))  # type: ignore[arg-type,return-value]
        else:
            factory: Any = {"factory": fail, "on_open": Faulty, "wrong factory": lambda ws: object()}[form]
            server.register_listener(None, factory)

    async with serving(register=register) as server:
        async with await connect_raw(server) as client:
            client.send(text("dropped"))
            assert await client.receive_close() == (1011, "")
        async with asyncio.timeout(5):
            server.close()
            await server.wait_closed()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    if form == "plain function":
        assert "must be an `async def` or return an awaitable, got str" in str(record.exc_info[1])
    assert closed == ([1006] if form == "on_open" else [])


@pytest.mark.anyio
async def test_a_handler_may_return_any_awaitable() -> None:
    def handler(ws: wsfast.WebSocket) -> asyncio.Future[None]:
        return asyncio.ensure_future(echo(ws))

    async with (
        serving(register=lambda server: server.register_handler(None, handler)) as server,
        await connect_raw(server) as client,
    ):
        client.send(text("x"))
        assert await client.receive_message() == "x"
        await client.end()
