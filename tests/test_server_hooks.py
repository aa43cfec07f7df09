"""What a server's hooks may do to its responses, and what a server tells of itself."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest
from raw import close, connect_raw, open_raw, request
from shared import port_of, serving, until

import wsfast
import wsfast.sync
import wsfast.trio
from wsfast import Request, Response, WebSocket

pytestmark = pytest.mark.anyio


async def idle(ws: WebSocket) -> None:
    await ws.wait_closed()


async def ask(server: wsfast.Server, **options: Any) -> bytes:
    async with await open_raw(server) as client:
        client.send(request(**options))
        return await client.reader.readuntil(b"\r\n\r\n")


@pytest.fixture(params=["plain", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def hook(kind: str, call: Any) -> Any:
    """Make a hook of either kind of a plain function."""
    if kind == "plain":
        return call

    async def later(*args: Any) -> Any:
        await asyncio.sleep(0)
        return call(*args)

    return later


async def test_process_response_changes_what_is_accepted(kind: str) -> None:
    seen: list[tuple[str, int]] = []

    def process_response(ws: WebSocket, request: Request, response: Response) -> None:
        seen.append((request.path, response.status_code))
        response.headers["X-Seen"] = "yes"

    async with serving(idle, process_response=hook(kind, process_response)) as server:
        async with await connect_raw(server):
            (ws,) = server.connections
            assert ws.response is not None
            assert ws.response.headers["X-Seen"] == "yes"
        assert b"\r\nX-Seen: yes\r\n" in await ask(server)
    assert seen == [("/", 101)] * 2


async def test_process_response_refuses(kind: str) -> None:
    def process_response(ws: WebSocket, request: Request, response: Response) -> Response:
        return ws.respond(403, "no\n")

    async with serving(idle, process_response=hook(kind, process_response)) as server:
        assert (await ask(server)).startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert server.connections == set()


async def test_process_response_sees_refusals(kind: str) -> None:
    seen: list[int] = []

    def process_response(ws: WebSocket, request: Request, response: Response) -> None:
        seen.append(response.status_code)
        response.headers["X-Seen"] = "yes"

    def process_request(ws: WebSocket, request: Request) -> Response | None:
        return ws.respond(200, "OK\n") if request.path == "/health" else None

    async with serving(
        idle,
        process_response=hook(kind, process_response),
        process_request=hook(kind, process_request),
        origins=["http://a"],
    ) as server:
        assert b"\r\nX-Seen: yes\r\n" in await ask(server, path="/health")
        assert b"\r\nX-Seen: yes\r\n" in await ask(server)
    assert seen == [200, 403]


async def test_process_response_is_not_asked_where_there_is_no_request() -> None:
    def process_response(ws: WebSocket, request: Request, response: Response) -> None:
        raise AssertionError("called")

    async with serving(idle, process_response=process_response) as server, await open_raw(server) as client:
        client.send(b"nonsense\r\n\r\n")
        assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("answer", ["a string", "another 101", "an exception", "a wrong header"])
async def test_process_response_goes_wrong(kind: str, answer: str, caplog: pytest.LogCaptureFixture) -> None:
    def process_response(ws: WebSocket, request: Request, response: Response) -> Any:
        if answer == "an exception":
            raise LookupError("boom")
        if answer == "a wrong header":
            response.headers["X-Bad"] = "a\r\nb"
            return None
        return Response(101) if answer == "another 101" else "nonsense"

    def process_request(ws: WebSocket, request: Request) -> Response | None:
        return ws.respond(404, "") if answer == "another 101" else None

    async with serving(idle, process_response=hook(kind, process_response), process_request=process_request) as server:
        with caplog.at_level(logging.ERROR, "wsfast.server"):
            head = await ask(server)
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"X-Bad" not in head
        assert server.connections == set()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_stop_while_process_response_is_at_work() -> None:
    asked = asyncio.Event()

    async def process_response(ws: WebSocket, request: Request, response: Response) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(idle, process_response=process_response) as server, await open_raw(server) as client:
        client.send(request())
        await asked.wait()
        server.close()
        assert (await client.reader.read()).startswith(b"HTTP/1.1 503 ")


async def test_the_hook_must_be_callable() -> None:
    with pytest.raises(TypeError, match="process_response must be callable, got str"):
        wsfast.Server(process_response="no")  # type: ignore[arg-type]


async def test_is_serving_and_get_loop() -> None:
    server = wsfast.Server()
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="has not listened yet"):
        server.get_loop()
    async with server:
        await server.start("127.0.0.1", 0)
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
    assert not server.is_serving()


async def test_listening_that_starts_later() -> None:
    async with serving(idle, start_serving=False) as server:
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()
        async with await connect_raw(server):
            pass
    with pytest.raises(RuntimeError, match="the server is closed"):
        await server.start_serving()


async def test_a_stop_that_leaves_connections_alone() -> None:
    async with serving(idle, stop_timeout=0.01) as server, await connect_raw(server) as client:
        waiting = asyncio.ensure_future(server.wait_closed())
        server.close(close_connections=False)
        await until(lambda: not server.is_serving())
        client.send(b"\x89\x80\0\0\0\0")
        assert (await client.receive()).opcode == 10
        assert not waiting.done()
        await client.end()
        await waiting


async def test_a_stop_that_changes_its_mind() -> None:
    async with serving(idle) as server, await connect_raw(server) as client:
        waiting = asyncio.ensure_future(server.wait_closed())
        server.close(close_connections=False)
        server.close(close_connections=False)
        await asyncio.sleep(0)
        server.close(1012, "restart")
        server.close(1001)
        assert (await client.receive()).payload == b"\x03\xf4restart"
        client.send(close(1012))
        await client.receive_eof()
        await waiting


@pytest.mark.parametrize("reviewed", [False, True])
@pytest.mark.parametrize(
    ("offered", "headers"),
    [
        ({}, []),
        (
            {"compression": "deflate", "subprotocols": ["b", "a"]},
            ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"],
        ),
    ],
    ids=["plain", "agreed"],
)
async def test_the_response_is_made_again_as_it_was_sent(
    offered: dict[str, Any], headers: list[str], reviewed: bool
) -> None:
    def process_response(ws: WebSocket, request: Request, response: Response) -> None:
        assert ws.response is None
        response.headers["X-Reviewed"] = "yes"

    served: list[Response | None] = []

    async def handler(ws: WebSocket) -> None:
        # 200 bytes that an idle connection need not hold; what a hook has changed cannot be made again.
        assert (ws._response is None) is not reviewed
        served.append(ws.response)
        assert ws.response is served[0]

    options: dict[str, Any] = {"process_response": process_response} if reviewed else {}
    async with (
        asyncio.timeout(20),
        wsfast.serve(
            handler,
            "127.0.0.1",
            0,
            subprotocols=["a", "b"],
            compression="deflate",
            response_headers={"X-A": "1"},
            **options,
        ) as server,
        wsfast.connect("ws://{}:{}/".format(*server.sockets[0].getsockname()), proxy=None, **offered) as ws,
    ):
        await ws.wait_closed()
        assert ws.response is not None
        assert served[0] is not None
        assert served[0].serialize() == ws.response.serialize()
        assert served[0].headers["X-A"] == "1"
        assert all(name in served[0].headers for name in headers)
        assert ("X-Reviewed" in served[0].headers) is reviewed


async def test_a_class_of_ones_own() -> None:
    """`create_connection`: the hooks and the handler have it, and `Server.connections`; a listener has it too."""
    seen: list[WebSocket] = []

    class Own(WebSocket):
        def who(self) -> str:
            assert self.request is not None
            return self.request.path

    class Paths(wsfast.Listener):
        def on_open(self) -> None:
            assert isinstance(self.ws, Own)
            self.ws.send_nowait(self.ws.who())

    async def handler(ws: WebSocket) -> None:
        assert isinstance(ws, Own)
        await ws.send(ws.who())
        await ws.wait_closed()

    def note(ws: WebSocket, request: Request) -> None:
        seen.append(ws)

    handlers: Any = {None: handler, "paths": Paths}
    serve = wsfast.serve(handlers, "127.0.0.1", 0, create_connection=Own, process_request=note)
    async with asyncio.timeout(20), serve as server:
        for subprotocols in (None, ["paths"]):
            async with wsfast.connect(f"ws://127.0.0.1:{port_of(server)}/a", subprotocols=subprotocols) as ws:
                assert await ws.recv() == "/a"
    assert [type(one) for one in seen] == [Own, Own]


@pytest.mark.parametrize("wrong", [dict, lambda *args: None, "Own", 0])
def test_a_class_that_is_no_websocket(wrong: Any) -> None:
    handler: Any = idle
    calls: list[tuple[str, Any]] = [
        ("asyncio", wsfast.Server),
        ("asyncio", partial(wsfast.serve, handler)),
        ("sync", partial(wsfast.sync.serve, print)),
        ("trio", lambda **options: wsfast.trio.serve(handler, **options).send(None)),
    ]
    for package, call in calls:
        with pytest.raises(TypeError, match=rf"create_connection must be a subclass of wsfast\.{package}\.websocket"):
            call(create_connection=wrong)
