"""Redirects: which are followed, and what goes along."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from client_helpers import Peer, nothing_left, scripted, url_of
from multidict import CIMultiDict
from shared import echo, port_of

import wsfast
from wsfast.handshake import Request, Response

pytestmark = pytest.mark.anyio

SECRETS = {"Authorization": "Bearer mine", "Cookie": "session=1", "Proxy-Authorization": "x", "X-Harmless": "y"}


def redirecting(to: dict[str, str], status: int = 302) -> Any:
    """Make a `process_request` that redirects from some paths."""

    def process_request(ws: wsfast.WebSocket, request: Request) -> Response | None:
        if request.path in to:
            return Response(status, None, CIMultiDict({"Location": to[request.path]}), b"moved")
        return None

    return process_request


@contextlib.asynccontextmanager
async def two_servers(location: str, **options: Any) -> AsyncIterator[tuple[wsfast.Server, list[Request], str]]:
    """Run one server that redirects to another one, which notes the requests that it gets."""
    seen: list[Request] = []

    async def note(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        seen.append(ws.request)
        await echo(ws)

    async with wsfast.serve(note, "127.0.0.1", 0) as other:
        to = {"/": location.format(port=port_of(other))}
        async with wsfast.serve(echo, "127.0.0.1", 0, process_request=redirecting(to), **options) as server:
            yield server, seen, to["/"]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_to_another_path(status: int) -> None:
    async with wsfast.serve(
        echo, "127.0.0.1", 0, process_request=redirecting({"/": "/a", "/a": "?b=1"}, status)
    ) as server:
        async with nothing_left(port_of(server)):
            uri = url_of(server, host="user:word@127.0.0.1")
            async with wsfast.connect(uri, additional_headers=SECRETS) as ws:
                assert ws.request is not None
                assert ws.request.path == "/a?b=1"
                for name, value in SECRETS.items():
                    assert ws.request.headers[name] == value
            async with wsfast.connect(uri) as ws:
                assert ws.request is not None
                assert ws.request.headers["Authorization"].startswith("Basic ")
            async with wsfast.connect(url_of(server), bearer_token="token") as ws:
                assert ws.request is not None
                assert ws.request.headers["Authorization"] == "Bearer token"


@pytest.mark.parametrize("scheme", ["ws", "http", "HTTP"])
async def test_to_another_origin(scheme: str) -> None:
    async with two_servers(scheme + "://127.0.0.1:{port}/there#part") as (server, seen, _):
        uri = url_of(server, host="user:word@127.0.0.1")
        for options in ({"additional_headers": {**SECRETS, "Host": "mine.example"}}, {"bearer_token": "token"}, {}):
            async with wsfast.connect(uri, **options) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
        assert [request.path for request in seen] == ["/there"] * 3
        for request in seen:
            for name in ("Authorization", "Cookie", "Proxy-Authorization"):
                assert name not in request.headers
            assert request.headers["Host"].startswith("127.0.0.1:")
        assert seen[0].headers["X-Harmless"] == "y"


async def test_credentials_of_the_location_are_used() -> None:
    async with two_servers("ws://other:word@127.0.0.1:{port}/") as (server, seen, _):
        async with wsfast.connect(url_of(server)):
            pass
        assert seen[0].headers["Authorization"] == "Basic b3RoZXI6d29yZA=="


async def test_credentials_of_a_location_at_the_same_origin_are_used() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        server.process_request = redirecting({"/": url_of(server, "/there", host="other:word@127.0.0.1")})
        async with wsfast.connect(url_of(server, host="user:word@127.0.0.1")) as ws:
            assert ws.request is not None
            assert ws.request.path == "/there"
            assert ws.request.headers["Authorization"] == "Basic b3RoZXI6d29yZA=="


@pytest.mark.parametrize("location", [b"/caf\xe9", "/café".encode()], ids=["latin-1", "utf-8"])
async def test_location_that_is_not_in_ascii(location: bytes) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())
        if len(heads) == 1:
            peer.write(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location)
        else:
            peer.accept()
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        ws = await wsfast.connect(url_of(server))
        ws.abort()
        await ws.wait_closed()
    assert heads[1].startswith(b"GET /caf%C3%A9 HTTP/1.1\r\n")


async def test_there_and_back_does_not_bring_credentials_back() -> None:
    """Who was redirected by a stranger to the first server does not ask in the first one's name."""
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())
        if len(heads) == 1:
            peer.write(b"HTTP/1.1 302 Found\r\nLocation: ws://localhost:%d/\r\n\r\n" % port)
        elif len(heads) == 2:
            peer.write(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:%d/secret\r\n\r\n" % port)
        else:
            peer.accept()
        peer.writer.write_eof()
        await peer.until_end()

    async with scripted(script) as server:
        port = port_of(server)
        async with wsfast.connect(url_of(server, host="user:word@127.0.0.1"), additional_headers=SECRETS) as ws:
            await ws.wait_closed()
    assert [b"Authorization: " in head for head in heads] == [True, False, False]
    assert [b"Cookie" in head for head in heads] == [True, False, False]


async def test_no_downgrade(certs: Certificates) -> None:
    for location in ("ws://localhost:1/", "http://localhost:1/"):
        async with two_servers(location, ssl=certs.server_context()) as (server, seen, _):
            async with nothing_left(port_of(server)):
                with pytest.raises(wsfast.RedirectError, match="from wss to ws") as caught:
                    await wsfast.connect(url_of(server, scheme="wss", host="localhost"), ssl=certs.client_context())
            assert caught.value.response is not None
            assert caught.value.response.status_code == 302
            assert isinstance(caught.value.__cause__, wsfast.InvalidStatus)
            assert not seen


async def test_relative_location_keeps_tls(certs: Certificates) -> None:
    async with wsfast.serve(
        echo, "127.0.0.1", 0, ssl=certs.server_context(), process_request=redirecting({"/": "//127.0.0.1:{port}/x"})
    ) as server:
        assert server.process_request is not None
        server.process_request = redirecting({"/": f"//127.0.0.1:{port_of(server)}/x"})
        async with wsfast.connect(url_of(server, scheme="wss", host="localhost"), ssl=certs.client_context()) as ws:
            assert ws.request is not None
            assert ws.request.path == "/x"


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("ftp://example.com/", "scheme"),
        ("http://", "expected a host"),
        ("ws://[::1/", "WebSocket URI"),
        ("ws://example.com:0/", "port"),
        ("/a b", "spaces"),
    ],
)
async def test_locations_that_lead_nowhere(location: str, text: str) -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, process_request=redirecting({"/": location})) as server:
        async with nothing_left(port_of(server)):
            with pytest.raises(wsfast.RedirectError, match=text) as caught:
                await wsfast.connect(url_of(server))
            assert caught.value.response is not None
            assert caught.value.response.body == b"moved"


async def test_limit() -> None:
    to = {f"/{number}": f"/{number + 1}" for number in range(20)}
    async with wsfast.serve(echo, "127.0.0.1", 0, process_request=redirecting(to)) as server:
        async with nothing_left(port_of(server)):
            with pytest.raises(wsfast.RedirectError, match="at most 10 redirects"):
                await wsfast.connect(url_of(server, "/9"))
            async with wsfast.connect(url_of(server, "/10")) as ws:
                assert ws.request is not None
                assert ws.request.path == "/20"
            with pytest.raises(wsfast.RedirectError, match="at most 1 redirects"):
                await wsfast.connect(url_of(server, "/18"), max_redirects=1)
            with pytest.raises(wsfast.InvalidStatus):
                await wsfast.connect(url_of(server, "/19"), max_redirects=0)


async def test_loop_is_bounded_by_the_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.write(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 10\r\n\r\n")
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(TimeoutError, match=r"more than 0\.3 s"):  # as in threads and on trio: it would be followed
            await wsfast.connect(url_of(server), open_timeout=0.3)


async def test_two_locations_and_none() -> None:
    def process_request(ws: wsfast.WebSocket, request: Request) -> Response:
        headers: CIMultiDict[str] = CIMultiDict()
        if request.path == "/two":
            headers.add("Location", "/a")
            headers.add("Location", "/b")
        return Response(302, None, headers)

    async with wsfast.serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        with pytest.raises(wsfast.RedirectError, match="one Location"):
            await wsfast.connect(url_of(server, "/two"))
        with pytest.raises(wsfast.InvalidStatus):
            await wsfast.connect(url_of(server, "/none"))


@pytest.mark.parametrize("fixed", ["host", "port", "server_hostname"])
async def test_options_that_tie_to_one_server(fixed: str) -> None:
    """They would send the request for another origin to this one."""
    async with two_servers("ws://127.0.0.1:{port}/there") as (server, seen, _):
        value: Any = port_of(server) if fixed == "port" else "127.0.0.1"
        with pytest.raises(wsfast.RedirectError, match=fixed):
            await wsfast.connect(url_of(server), **{fixed: value})
        assert not seen


async def test_a_unix_socket_is_one_server(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    to = {"/": "/there", "/away": "ws://other.example/there"}
    async with wsfast.serve(echo, path=path, process_request=redirecting(to)):
        async with wsfast.unix_connect(path) as ws:
            assert ws.request is not None
            assert ws.request.path == "/there"
        with pytest.raises(wsfast.RedirectError, match=r"where unix is given, to 'ws://other\.example'"):
            await wsfast.unix_connect(path, "ws://localhost/away")
