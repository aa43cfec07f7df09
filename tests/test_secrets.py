"""No credential gets into a text: of an exception, those it is chained to, a repr, or a line of a log."""

from __future__ import annotations

import asyncio
import base64
import importlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from hostile import Peer, serving
from shared import echo, until

import wsfast
import wsfast.cli
import wsfast.sync
import wsfast.websockets.asyncio.client
import wsfast.websockets.sync.client
from wsfast.asgi.conversation import Conversation
from wsfast.dial.proxy import parse_proxy
from wsfast.handshake import ClientHandshake, RequestParser, check_request, parse_uri
from wsfast.handshake.accept import Upgrade
from wsfast.handshake.forwarded import read_proxied
from wsfast.handshake.key import accept_token
from wsfast.http import Headers, HeadersView, check_header
from wsfast.websockets import ClientProtocol, ServerProtocol, http11
from wsfast.websockets import datastructures as dropin
from wsfast.websockets.proxy import parse_proxy as parse_dropin_proxy
from wsfast.websockets.uri import parse_uri as parse_dropin_uri

pytestmark = pytest.mark.anyio

CANARY = "CaNaRy"

WRONG = [
    "ws://u:{}/x@h/",
    "ws://u:{}?x@h/",
    "ws://u:{}#x@h/",
    "ws://u:x/{}@h/",
    "ws://{}/x#@h/",
    "ws://{}@h/#f",
    "ws://u:{}@h:99999/",
    "ws://u:{}@h:port/",
    "ws://u:{}@/",
    "ws://u:{}@[::1/",
    "ws://u:{}@[::g]/",
    "ws://u:{}@a..b/",
    "ws://u:{}@a b/",
    "ws://u:{} @h/",
    "ws://u:{}\n@h/",
    "ws://u:{}\x00@h/",
    "ws://u:{}@h/\ud800",
    "ws://u:{}@h/?\ud800",
    "ws://u:{}%FF@h/",
    "ws://{}%FF:p@h/",
    "ws://u:{}\udcff@h/",
    "ws://u:{}@\u3002\u3002/",
    "ws://u:[{}@h/",
    "ws://u:]{}@h/",
    "ws://[{}]:x@h#/",
    "ws://u\u2100:{}@h/",
    "ws://u:{}\u2100h/",
    "ws://u:{}\uff03@h/",
    "http://u:{}@h/",
    "{}://u@h/",
    "u:{}@h",
    "{}@h",
    "ws:u:{}@h",
    "ws:/u:{}@h/",
    "://u:{}@h/",
    "ws://u:{}%40h/",
    "ws://u:{}",
    "ws://h/#access_token={}",
    "ws://h:99999/?token={}",
    "ws://u@{}@h/#f",
]
"""Addresses that are not valid, with a secret in each."""


def told(exc: BaseException | None, seen: set[int] | None = None) -> Iterator[str]:
    """Yield every text of an exception and of those that it is chained to."""
    seen = set() if seen is None else seen
    if exc is None or id(exc) in seen:
        return
    seen.add(id(exc))
    yield from (str(exc), repr(exc), repr(exc.args), repr(exc.__dict__), *getattr(exc, "__notes__", ()))
    yield from told(exc.__cause__, seen)
    yield from told(exc.__context__, seen)


def check(exc: BaseException) -> None:
    for text in told(exc):
        assert CANARY.lower() not in text.lower()


@pytest.mark.parametrize("form", WRONG, ids=ascii)
def test_uris(form: str) -> None:
    uri = form.format(CANARY)
    with pytest.raises(wsfast.InvalidURI) as info:
        parse_uri(uri)
    check(info.value)
    for connect in (wsfast.connect, wsfast.sync.connect):
        with pytest.raises(wsfast.InvalidURI) as info:
            connect(uri)
        check(info.value)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h", "socks4", "ftp"])
@pytest.mark.parametrize("form", WRONG, ids=ascii)
def test_proxies(form: str, scheme: str) -> None:
    proxy = form.format(CANARY).replace("ws:", f"{scheme}:", 1)
    if not proxy.startswith("http:") or "?" in proxy or "#" in proxy:
        with pytest.raises(wsfast.InvalidProxy) as info:
            parse_proxy(proxy)
        check(info.value)
    for connect in (wsfast.connect, wsfast.sync.connect):
        try:
            parse_proxy(proxy)
        except wsfast.InvalidProxy:
            with pytest.raises(wsfast.InvalidProxy) as info:
                connect("ws://h/", proxy=proxy)
            check(info.value)


@pytest.mark.parametrize(
    "proxy", ["http://u%3A{}:p@h", "http://u:{}%00@h", "socks5://u:{}%0d@h", "socks5://u:" + "{}" * 50 + "@h"]
)
def test_credentials_that_a_proxy_cannot_be_sent(proxy: str) -> None:
    with pytest.raises(wsfast.InvalidProxy) as info:
        parse_proxy(proxy.replace("{}", CANARY))
    check(info.value)


async def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ws_proxy", "socks_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ws_proxy", f"http://u:{CANARY}/x@h")
    with pytest.raises(wsfast.InvalidProxy) as info:
        await wsfast.connect("ws://server.test/")
    check(info.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", f"Bearer {CANARY}\r\nX: y"),
        ("Authorization", f"Bearer {CANARY}\ud800"),
        ("Authorization", CANARY.encode()),
        (f"Authorization: Bearer {CANARY}", ""),
        (f"Authorization: Bearer {CANARY}", None),
        (f"Cookie={CANARY}", "x"),
        (f"{CANARY}:", "x"),
    ],
)
def test_headers(name: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as info:
        check_header(name, value)
    if not name.startswith(CANARY):
        check(info.value)
    for options in ({"additional_headers": [(name, value)]}, {"additional_headers": {name: value}}):
        with pytest.raises((TypeError, ValueError)) as info:
            wsfast.connect("ws://h/", **options)
        check(info.value)


@pytest.mark.parametrize("token", [f"{CANARY} x", f"{CANARY}\n", CANARY.encode(), f"{CANARY}\xe9"])
def test_tokens(token: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as info:
        wsfast.connect("ws://h/", bearer_token=token)
    check(info.value)


def test_reprs() -> None:
    uri = parse_uri(f"ws://{CANARY}:{CANARY}@h/?{CANARY}")
    token = parse_uri(f"ws://{CANARY}@h/")
    handshake = ClientHandshake(uri, bearer_token=CANARY, additional_headers={"Cookie": CANARY})
    connector = wsfast.connect(f"ws://{CANARY}:{CANARY}@h/", bearer_token=CANARY, proxy=f"http://u:{CANARY}@h")
    for thing in (uri, token, handshake, handshake.request, connector, parse_proxy(f"http://{CANARY}:{CANARY}@h")):
        assert CANARY not in repr(thing)
        assert CANARY not in str(thing)
    headers = {"Cookie": CANARY, "X-Api-Key": CANARY, "Sec-WebSocket-Protocol": CANARY, "Server": "s"}
    theirs = dropin.Headers(headers)
    upgrade = Upgrade("", [CANARY], [], None)
    proxy = parse_dropin_proxy(f"http://u:{CANARY}@h")
    request, response = http11.Request(f"/?{CANARY}", theirs), http11.Response(101, "", theirs)
    more: list[Any] = [Headers(headers), HeadersView(Headers(headers)), theirs, request, response, upgrade, proxy]
    for thing in more:
        assert CANARY not in repr(thing)
    assert repr(Headers(headers)).endswith("'Server': 's')>")
    assert CANARY not in repr(parse_dropin_uri(f"ws://u:{CANARY}@h/?{CANARY}"))
    assert repr(parse_uri("ws://h/")).startswith("URI(secure=False, host='h', port=80")


@pytest.mark.parametrize(
    "data",
    [
        f"GET / HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer {CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: h\r\nCookie: a={CANARY}\x00\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=\r\n b={CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: h\r\nCookie a={CANARY}\r\n\r\n",
        f"GET /?token={CANARY} HTTP/1.1 x\r\nHost: h\r\n\r\n",
        f"GET /?token={CANARY}\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
        f"GET /#token={CANARY} HTTP/1.1\r\nHost: h\r\n\r\n",
        f"GET http://u:{CANARY}@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        f"GET /?name=a b&token={CANARY} HTTP/1.1\r\nHost: h\r\n\r\n",
        f"GET http://u:{CANARY}@h/\n HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
async def test_what_a_client_sends_to_a_server(data: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(wsfast.HandshakeRefused) as info:
        RequestParser().feed(data.encode())
    check(info.value)
    async with serving(echo) as server:
        peer = await Peer.dial(server)
        await peer.send(data.encode())
        assert CANARY.encode() not in await peer.read_to_end()
        peer.close()
    assert any("refused" in record.getMessage() for record in caplog.records)
    assert CANARY not in caplog.text


def wrong_requests() -> Iterator[bytes]:
    """Yield a request that has a secret wherever there can be one, with each byte of it wrong in many ways."""
    good = (
        f"GET /chat?token={CANARY} HTTP/1.1\r\nHost: h.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: a, {CANARY}\r\nAuthorization: Bearer {CANARY}\r\nCookie: s={CANARY}\r\n"
        f"X-Api-Key: {CANARY}\r\n\r\n"
    ).encode()
    for at in range(len(good)):
        yield good[:at] + good[at + 1 :]
        for byte in b'\x00\t\n\r ",/:=?@#\x7f\xff':
            yield good[:at] + bytes([byte]) + good[at:]
            yield good[:at] + bytes([byte]) + good[at + 1 :]
    lines = good.split(b"\r\n")
    for at, line in enumerate(lines[:-2]):
        for more in ([], [line, line], [line] * 130, [line + b"x" * 9000]):
            yield b"\r\n".join([*lines[:at], *more, *lines[at + 1 :]])


def test_a_request_that_is_wrong_anywhere() -> None:
    refused = 0
    for data in wrong_requests():
        try:
            request = RequestParser().feed(data)
            if request is not None:
                check_request(request)
        except wsfast.HandshakeRefused as exc:
            refused += 1
            for text in told(exc):
                assert CANARY.lower() not in text.lower(), data
    assert refused > 2000


def test_subprotocols() -> None:
    """Browsers can send a token nowhere else."""
    for offers in ([f"{CANARY}="], ["a", f"{CANARY}, b"], [CANARY, CANARY], [f"{CANARY} "]):
        with pytest.raises(ValueError, match="subprotocol") as info:
            wsfast.connect("ws://h/", subprotocols=offers)
        check(info.value)
    handshake = ClientHandshake(parse_uri("ws://h/"), subprotocols=["a", CANARY])
    for lines in ([f"a, {CANARY}"], [CANARY, "a"], [f"b,{CANARY}"]):
        headers = Headers({"Upgrade": "websocket", "Connection": "Upgrade"})
        headers["Sec-WebSocket-Accept"] = accept_token(handshake.key.encode()).decode()
        for line in lines:
            headers.add("Sec-WebSocket-Protocol", line)
        with pytest.raises(wsfast.InvalidHandshake) as wrong:
            handshake.check_response(wsfast.Response(101, None, headers))
        check(wrong.value)


@pytest.mark.parametrize("offers", [f"a, {CANARY}", f"a, {CANARY}=", f"{CANARY}, {CANARY}"])
async def test_subprotocols_that_a_server_refuses(offers: str, caplog: pytest.LogCaptureFixture) -> None:
    def choose(ws: wsfast.WebSocket, offers: Sequence[str]) -> str:
        return CANARY

    caplog.set_level(logging.DEBUG)
    choices: list[dict[str, Any]] = [{}, {"select_subprotocol": choose}]
    for options in choices:
        async with serving(echo, noise=True, **options) as server:
            peer = await Peer.dial(server)
            await peer.send(
                f"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Sec-WebSocket-Protocol: {offers}\r\n\r\n".encode()
            )
            assert (await peer.read_to_end()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 500 "))
            peer.close()
    assert "refused" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        *("nats:/u:{}@h", "u:{}@h", "http://u:{}@h", "redis://:{}/x@h", "redis://:{}@h/?db={}"),
        *("redis://:{}@h:port", "redis://:{}@[::1", "redis://h/?socket_timeout={}"),
    ],
)
def test_addresses_of_buses(url: str) -> None:
    nats = pytest.importorskip("wsfast.bus.nats", reason="needs nats-py")
    redis = pytest.importorskip("wsfast.bus.redis", reason="needs redis-py")
    for bus in (redis.RedisBus, nats.NatsBus):
        with pytest.raises(ValueError, match="must be like") as info:
            bus(url.format(CANARY, CANARY))
        check(info.value)


INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true}\r\n'
PASSWORD = f'{CANARY}-1"\u00e9/{"x" * 200}'  # which is escaped and shortened where it is said back


def say_of_redis(came: bytes) -> bytes:
    """As Redis does where AUTH was renamed."""
    name, *others = (word for word in came.split(b"\r\n") if word and word[:1] not in b"*$")
    return b"-ERR unknown command '%b', with args beginning with: %b\r\n" % (name, b" ".join(others)[:128])


def say_all(came: bytes) -> bytes:
    return b"-ERR '%b'\r\n" % came.replace(b"\r\n", b" ").replace(b"'", b"")


@pytest.mark.parametrize("where", ["url", "option"])
@pytest.mark.parametrize(("engine", "say"), [("redis", say_of_redis), ("redis", say_all), ("nats", say_all)])
async def test_an_engine_that_says_back_what_it_was_sent(
    engine: str, say: Callable[[bytes], bytes], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    module = pytest.importorskip(f"wsfast.bus.{engine}", reason=f"needs a client of {engine}")
    said: list[bytes] = []
    connected = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        if engine == "nats":
            writer.write(INFO)
        with suppress(OSError):
            while came := await reader.read(65536):
                said.append(say(came))
                writer.write(said[-1])
        writer.close()
        connected -= 1

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    at = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        if engine == "redis":
            given = {} if where == "option" else {"url": f"redis://u:{quote(PASSWORD, safe='')}@{at}"}
            bus = module.RedisBus(**(given or {"url": f"redis://{at}", "username": "u", "password": PASSWORD}))
        else:
            given = {} if where == "option" else {"servers": f"nats://{quote(PASSWORD, safe='')}@{at}"}
            bus = module.NatsBus(**(given or {"servers": f"nats://{at}", "user": "u", "password": PASSWORD}))
        async with wsfast.Topics(bus=bus) as topics:
            await until(lambda: "bus is down" in caplog.text)
            if where == "url":
                with pytest.raises(wsfast.BusUnavailable) as info:
                    await topics.publish("news", "hello")
                check(info.value)
            assert CANARY not in topics.health
        await until(lambda: not connected)
    assert any(CANARY.encode() in one for one in said)
    assert CANARY not in caplog.text


def test_a_proxy_that_does_not_begin_as_it_should() -> None:
    with pytest.raises(ValueError, match="got b'GET'") as info:
        read_proxied(f"GET /?{CANARY} HTTP/1.1\r\n".encode())
    check(info.value)


@pytest.mark.parametrize(
    "headers",
    [[("Set-Cookie", CANARY)], [(b"Set-Cookie", CANARY)], [(f"Set-Cookie: {CANARY}".encode(), b"")], [CANARY]],
)
def test_headers_of_an_asgi_application(headers: Any) -> None:
    conversation = Conversation()
    with pytest.raises((TypeError, ValueError)) as info:
        conversation.take({"type": "websocket.accept", "headers": headers})
    check(info.value)


@pytest.mark.parametrize(
    "location", ["ws://u:{}/x@h/", "http://u:{}@[::1/", "ws://u:{}@h\u2100/", "//u:{}@h:port/", "ftp://u:{}@h/"]
)
async def test_redirects(location: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def redirect(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response:
        response = ws.respond(302, "elsewhere\n")
        response.headers["Location"] = location.format(CANARY).encode().decode("latin-1")
        return response

    async with serving(echo, process_request=redirect) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(wsfast.RedirectError) as info:
            await wsfast.connect(f"ws://127.0.0.1:{port}/")
        check(info.value)
    assert CANARY not in caplog.text


async def test_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """All that is logged of a connection that is made with secrets, of one that fails, and of one that is refused."""
    caplog.set_level(logging.DEBUG)
    secrets: dict[str, Any] = {"additional_headers": {"Cookie": CANARY}}

    def refuse(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
        return ws.respond(403, "No\n") if request.path.startswith("/no") else None

    async with serving(echo, process_request=refuse) as server:
        at = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with wsfast.connect(f"ws://u:{CANARY}@{at}/?{CANARY}", **secrets) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
            assert CANARY not in repr(ws)
        with pytest.raises(wsfast.InvalidStatus) as info:
            await wsfast.connect(f"ws://u:{CANARY}@{at}/no?{CANARY}", **secrets)
        check(info.value)

        async def again() -> None:
            delays = iter((0.0,))
            async for _ in wsfast.connect(
                f"ws://u:{CANARY}@{at}/no?{CANARY}",
                process_exception=lambda exc: None,
                reconnect_delays=lambda: delays,
                **secrets,
            ):
                raise AssertionError("it was refused")

        with pytest.raises(wsfast.InvalidStatus):
            await again()
    assert "connecting again" in caplog.text
    assert "process_request answered" in caplog.text
    assert CANARY not in caplog.text


# --- The other front ends -----------------------------------------------------------------------------------


async def entered(manager: Any) -> None:
    async with manager:
        raise AssertionError("it connected")


def with_asyncio(*args: Any, **options: Any) -> None:
    async def enter() -> None:
        await entered(wsfast.websockets.asyncio.client.connect(*args, **options))

    asyncio.run(enter())


def with_trio(module: str, *args: Any, **options: Any) -> None:
    trio = pytest.importorskip("trio", reason="needs trio")
    connect = importlib.import_module(module).connect
    trio.run(lambda: entered(connect(*args, **options)))


FRONTS: dict[str, Callable[..., object]] = {
    "trio": partial(with_trio, "wsfast.trio"),
    "websockets, asyncio": with_asyncio,
    "websockets, threads": wsfast.websockets.sync.client.connect,
    "websockets, trio": partial(with_trio, "wsfast.websockets.trio.client"),
}


@pytest.mark.parametrize("front", FRONTS)
def test_other_clients(front: str) -> None:
    for form in WRONG:
        uri = form.format(CANARY)
        with pytest.raises(wsfast.InvalidURI) as wrong_uri:
            FRONTS[front](uri)
        check(wrong_uri.value)
        proxy = uri.replace("ws:", "socks5:", 1)
        try:
            parse_proxy(proxy)
        except wsfast.InvalidProxy:
            with pytest.raises(wsfast.InvalidProxy) as wrong_proxy:
                FRONTS[front]("ws://127.0.0.1:1/", proxy=proxy)
            check(wrong_proxy.value)
    for options in (
        {"additional_headers": {"Authorization": f"Bearer {CANARY}\r\nX: y"}},
        {"additional_headers": {f"Authorization: Bearer {CANARY}": ""}},
    ):
        with pytest.raises((TypeError, ValueError, wsfast.WebSocketError)) as wrong_header:
            FRONTS[front]("ws://127.0.0.1:1/", **options)
        check(wrong_header.value)


@pytest.mark.parametrize("front", FRONTS)
def test_a_proxy_that_refuses(front: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            asked.append(sock.recv(65536))
            sock.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,), daemon=True)
        thread.start()
        proxy = f"http://u:{CANARY}@127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(wsfast.ProxyError) as info:
            FRONTS[front](f"ws://u:{CANARY}@127.0.0.1:1/?{CANARY}", proxy=proxy, additional_headers={"Cookie": CANARY})
        thread.join(10)
    credentials = base64.b64encode(f"u:{CANARY}".encode())
    assert credentials in asked[0]
    check(info.value)
    assert not any(credentials.decode() in text for text in told(info.value))
    assert CANARY not in caplog.text
    assert credentials.decode() not in caplog.text


ALL_FRONTS: dict[str, Callable[..., object]] = {
    **FRONTS,
    "asyncio": lambda *args, **options: asyncio.run(entered(wsfast.connect(*args, **options))),
    "threads": wsfast.sync.connect,
}
SAID: dict[str, Callable[[bytes], bytes]] = {
    "all": lambda request: request,
    "a part": lambda request: request.partition(b" HTTP")[0],
    "with LF": lambda request: request.replace(b"\r\n", b"\n"),
    "in headers": lambda request: b"HTTP/1.1 101 Yes\r\n" + request.partition(b"\r\n")[2][:-2],
    "as a header": lambda request: b"HTTP/1.1 101 Yes\r\n" + request,
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("front", ALL_FRONTS)
def test_a_server_that_says_back_what_it_was_sent(front: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def say(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            request = b""
            while b"\r\n\r\n" not in request:
                request += sock.recv(65536)
            sock.sendall(SAID[said](request))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=say, args=(listener,), daemon=True)
        thread.start()
        headers = {"Cookie": CANARY, "Authorization": f"Bearer {CANARY}"}
        uri = f"ws://127.0.0.1:{listener.getsockname()[1]}/?{CANARY}"
        with pytest.raises(Exception, match=r"expected|did not receive|invalid") as info:
            ALL_FRONTS[front](uri, additional_headers=headers, proxy=None)
        thread.join(10)
    assert isinstance(info.value, (wsfast.WebSocketError, wsfast.websockets.exceptions.WebSocketException))
    check(info.value)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("form", [*WRONG, "ws://{}@h/", "ws://{}@h/?{}"], ids=ascii)
def test_the_uri_of_a_protocol(form: str) -> None:
    with pytest.raises(wsfast.InvalidURI) as info:
        parse_dropin_uri(form.format(CANARY, CANARY))
    check(info.value)


@pytest.mark.parametrize("address", [f"u:{CANARY}@h", f"{CANARY}@h", f"wss:/u:{CANARY}@h"])
def test_an_address_that_is_none(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        wsfast.cli.main([address])
    told = "".join(capsys.readouterr())
    assert told
    assert CANARY not in told


@pytest.mark.parametrize("command", ["connect", "bench"])
def test_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [[form.format(CANARY)] for form in WRONG]
    given += [["--header", header, "ws://h/"] for header in (f"Bearer {CANARY}", f"Cookie: {CANARY}\x00")]
    given += [[*wrong, "ws://h/"] for wrong in (["--token", CANARY], [f"--hedder={CANARY}"], [f"--he={CANARY}"])]
    given += [["ws://h/", wrong] for wrong in (f"--insecure={CANARY}", f"-H{CANARY}", CANARY, f"ws://u:{CANARY}@h/")]
    given += [["ws://h/", "--subprotocol", f"{CANARY}="], ["ws://h/", "--proxy", f"http://u:{CANARY}/x@h"]]
    for arguments in [*given, [f"ws://u:{CANARY}@127.0.0.1:1/?{CANARY}"]]:
        try:
            status = wsfast.cli.main([command, *arguments])
        except SystemExit as exc:
            status = int(str(exc.code))
        assert status, arguments
        told = "".join(capsys.readouterr())
        assert told, arguments
        # The usage names no value; what is told of the error must not either.
        assert CANARY.lower() not in told.lower(), arguments


def test_records_of_a_protocol(caplog: pytest.LogCaptureFixture) -> None:
    """The drop-in logs headers as `websockets` does, but for what lets somebody in."""
    caplog.set_level(logging.DEBUG)
    client = ClientProtocol(parse_dropin_uri(f"ws://u:{CANARY}@h/chat?token={CANARY}"))
    server = ServerProtocol()
    request = client.connect()
    for name in ("Cookie", "Proxy-Authorization", "X-Api-Key", "Sec-WebSocket-Protocol"):
        request.headers[name] = CANARY
    client.send_request(request)
    server.receive_data(b"".join(client.data_to_send()))
    (came,) = server.events_received()
    response = server.accept(came)  # type: ignore[arg-type]
    response.headers["Set-Cookie"] = CANARY
    response.headers["Location"] = f"ws://u:{CANARY}@h/"
    server.send_response(response)
    client.receive_data(b"".join(server.data_to_send()))
    assert CANARY in str(came.headers)  # type: ignore[union-attr]
    for line in (
        *("> GET /chat?... HTTP/1.1", "> Authorization: ...", "> Cookie: ...", "> Proxy-Authorization: ..."),
        *("< GET /chat?... HTTP/1.1", "< Authorization: ...", "< Cookie: ...", "< Proxy-Authorization: ..."),
        *("> X-Api-Key: ...", "< Sec-WebSocket-Protocol: ..."),
        *("> Set-Cookie: ...", "< Set-Cookie: ...", "> Location: ...", "< Location: ...", "< Host: h"),
    ):
        assert line in caplog.messages
    assert CANARY not in caplog.text
    assert base64.b64encode(f"u:{CANARY}".encode()).decode() not in caplog.text
