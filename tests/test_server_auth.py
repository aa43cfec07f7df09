"""`basic_auth` and `route`: who comes in, and to which handler."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from client_helpers import url_of
from werkzeug.routing import Map, Rule

import wsfast
from wsfast import Request, Response, WebSocket
from wsfast.exceptions import InvalidHeader, InvalidHeaderFormat
from wsfast.handshake.headers import build_www_authenticate_basic, parse_authorization_basic
from wsfast.server import Router, basic_auth, route, unix_route

pytestmark = pytest.mark.anyio


async def greet(ws: WebSocket) -> None:
    await ws.send(f"hello {ws.username}")


@asynccontextmanager
async def serving(**auth: Any) -> AsyncIterator[wsfast.Server]:
    options: dict[str, Any] = {"process_request": basic_auth(**auth)}
    async with asyncio.timeout(20), wsfast.serve(greet, "127.0.0.1", 0, **options) as server:
        yield server


async def refused(server: Any, *values: str) -> Response:
    with pytest.raises(wsfast.InvalidStatus, match="401") as caught:
        await wsfast.connect(url_of(server), additional_headers=[("Authorization", value) for value in values])
    return caught.value.response


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


async def test_who_knows_the_password_comes_in() -> None:
    async with serving(realm='the "inner" circle', credentials=[("alice", "s:é"), ("bob", "b")]) as server:
        for given in ("alice:s:é", "bob:b"):
            headers = {"Authorization": basic(given)}
            async with wsfast.connect(url_of(server), additional_headers=headers) as ws:
                assert await ws.recv() == f"hello {given.partition(':')[0]}"
        for values, text in (
            ((), b"Missing credentials\n"),
            ((basic("alice:s:é"), basic("bob:b")), b"Missing credentials\n"),
            (("Digest abc",), b"Unsupported credentials\n"),
            (("Basic !",), b"Unsupported credentials\n"),
            ((basic("alice"),), b"Unsupported credentials\n"),
            ((basic("alice:b"),), b"Invalid credentials\n"),
            ((basic("carol:b"),), b"Invalid credentials\n"),
            ((basic("bob:"),), b"Invalid credentials\n"),
        ):
            response = await refused(server, *values)
            assert response.body == text
            assert response.headers["WWW-Authenticate"] == 'Basic realm="the \\"inner\\" circle", charset="UTF-8"'


@pytest.mark.parametrize("later", [False, True])
async def test_credentials_are_checked_by_a_function(later: bool) -> None:
    def check(username: str, password: str) -> bool:
        return (username, password) == ("a", "b")

    async def check_later(username: str, password: str) -> bool:
        await asyncio.sleep(0)
        return check(username, password)

    async with serving(check_credentials=check_later if later else check) as server:
        async with wsfast.connect(url_of(server).replace("ws://", "ws://a:b@")) as ws:
            assert await ws.recv() == "hello a"
        assert (await refused(server, basic("a:c"))).headers["WWW-Authenticate"] == 'Basic realm="", charset="UTF-8"'


def test_wrong_arguments_of_basic_auth() -> None:
    for arguments in ({}, {"credentials": ("a", "b"), "check_credentials": lambda *_: True}):
        with pytest.raises(ValueError, match=r"^provide either credentials or check_credentials$"):
            basic_auth(**arguments)  # type: ignore[arg-type]
    for credentials in (42, [42], [("a", 1)], "ab", [], ("a", "b", "c")):
        with pytest.raises(TypeError, match=r"^invalid credentials argument: ") as caught:
            basic_auth(credentials=credentials)  # type: ignore[arg-type]
        assert "a" not in str(caught.value).removeprefix("invalid credentials argument: ").replace("str", "")
    with pytest.raises(ValueError, match="expected a realm of printable ASCII characters"):
        basic_auth("a\r\nb", credentials=("a", "b"))
    with pytest.raises(TypeError, match="expected the realm as str, got bytes"):
        build_www_authenticate_basic(b"a")  # type: ignore[arg-type]


def test_credentials_in_a_header() -> None:
    assert parse_authorization_basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==") == ("Aladdin", "open sesame")
    assert parse_authorization_basic("bAsIc  dGVzdDoxMjPCow==") == ("test", "123£")
    for value in ("", "Basic", "// Basic QQ==", "Basic\tQQ==", "Basic ***", "Basic QQ== //"):
        with pytest.raises(InvalidHeaderFormat):
            parse_authorization_basic(value)
    for value in ("Digest abc", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Basic QWxhZGNlc2FtZQ==", "Basic /w=="):
        with pytest.raises(InvalidHeader) as caught:
            parse_authorization_basic(value)
        assert "QWxh" not in str(caught.value)


# --- Routing ----------------------------------------------------------------------------------------------


async def channel(ws: WebSocket, name: str, number: int = 0) -> None:
    await ws.send(f"{name} {number}")


def paths() -> Map:
    return Map(
        [
            Rule("/named/<name>", endpoint=channel),
            Rule("/both/<name>/<int:number>", endpoint=channel),
            Rule("/old/<name>", redirect_to="/named/<name>"),
        ]
    )


async def answer(server: Any, path: str) -> Any:
    async with wsfast.connect(url_of(server, path)) as ws:
        return await ws.recv()


async def test_handlers_by_path() -> None:
    async with asyncio.timeout(20), route(paths(), "127.0.0.1", 0) as server:
        assert await answer(server, "/named/a?x=y") == "a 0"
        assert await answer(server, "/both/b/7") == "b 7"
        assert await answer(server, "/old/c") == "c 0"
        for path in ("/", "/named/", "/both/b/x"):
            with pytest.raises(wsfast.InvalidStatus, match="404"):
                await answer(server, path)


async def test_a_hook_before_the_router() -> None:
    seen: list[str] = []

    async def process_request(ws: WebSocket, request: Request) -> Response | None:
        seen.append(request.path)
        return ws.respond(418, "") if request.path == "/tea" else None

    async with asyncio.timeout(20), route(paths(), "127.0.0.1", 0, process_request=process_request) as server:
        assert await answer(server, "/named/a") == "a 0"
        with pytest.raises(wsfast.InvalidStatus, match="418"):
            await answer(server, "/tea")
    assert seen == ["/named/a", "/tea"]


async def test_a_router_of_ones_own(tmp_path: Path) -> None:
    class Mine(Router):
        def not_found(self, connection: WebSocket) -> Response:
            return connection.respond(410, "gone\n")

    place = tmp_path / "s"
    options: dict[str, Any] = {"server_name": "example.com", "ssl": True, "create_router": Mine}
    async with asyncio.timeout(20), unix_route(paths(), place, **options):
        with pytest.raises(wsfast.InvalidStatus, match="410"):
            await wsfast.unix_connect(place, "ws://localhost/none")
        with pytest.raises(wsfast.InvalidStatus, match="302") as caught:
            await wsfast.unix_connect(place, "ws://localhost/old/a", max_redirects=0)
        assert caught.value.response.headers["Location"] == "wss://example.com/named/a"


# --- Changing a request -----------------------------------------------------------------------------------


def test_rewriting_a_request() -> None:
    request = Request(b"GET /a HTTP/1.1\r\nHost: b\r\nX: 1\r\n\r\n")
    request.rewrite("/c?d")
    assert (request.path, request.headers["Host"], request.headers["X"]) == ("/c?d", "b", "1")
    request.rewrite(headers=[("Host", "e"), ("Y", "é")])
    assert request.raw == b"GET /c?d HTTP/1.1\r\nHost: e\r\nY: \xe9\r\n\r\n"
    for path in ("/a b", "/a#b", "", "/é", "/a\r\nX: y"):
        with pytest.raises(ValueError, match="expected a path"):
            request.rewrite(path)
    with pytest.raises(ValueError, match="without control characters"):
        request.rewrite(headers=[("A", "b\r\nc")])
    assert request.headers["Host"] == "e"


async def test_a_hook_that_changes_the_request() -> None:
    def process_request(ws: WebSocket, request: Request) -> None:
        kept = [(name, value) for name, value in request.headers.items() if name != "Origin"]
        request.rewrite("/other", kept)

    async def handler(ws: WebSocket) -> None:
        assert ws.request is not None
        await ws.send(ws.request.path)

    options: dict[str, Any] = {"process_request": process_request, "origins": [None]}
    async with (
        asyncio.timeout(20),
        wsfast.serve(handler, "127.0.0.1", 0, **options) as server,
        wsfast.connect(url_of(server), origin="http://evil") as ws,
    ):
        assert await ws.recv() == "/other"
