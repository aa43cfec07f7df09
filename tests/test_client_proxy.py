"""Proxies between a client and its server."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import asyncio
import builtins
import socket
import sys
from typing import Any

import pytest
from certificates import Certificates
from client_helpers import Peer, nothing_left, scripted, url_of
from proxies import proxy
from shared import echo, port_of

import wsfast
from wsfast.dial.proxy import Proxy, bypasses, connect_request, find_proxy, parse_proxy
from wsfast.dial.tunnel import _TunnelProtocol
from wsfast.handshake.uri import parse_uri
from wsfast.testing import Pipe

pytestmark = pytest.mark.anyio


async def talk(ws: wsfast.WebSocket) -> None:
    for message in ("through the tunnel", b"x" * 200_000):
        await ws.send(message)
        assert await ws.recv() == message


# --- Addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://proxy", Proxy("http", "proxy", 80)),
        ("https://proxy", Proxy("https", "proxy", 443)),
        ("http://a%40b:c%3Ad@proxy:3128/", Proxy("http", "proxy", 3128, "a@b", "c:d")),
        ("http://a@proxy", Proxy("http", "proxy", 80, "a", "")),
        ("socks5h://[::1]:9050", Proxy("socks5h", "::1", 9050)),
        ("socks4a://Proxy", Proxy("socks4a", "proxy", 1080)),
        ("http://bücher.example", Proxy("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_addresses(address: str, expected: Proxy) -> None:
    assert parse_proxy(address) == expected


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("proxy:80", "scheme"),
        ("ftp://p", "scheme"),
        ("http://", "host"),
        ("http://p:x", "port"),
        ("http://p?q", "nothing after the port"),
        ("http://a:secret@p/x", "nothing after the port"),
        ("http://a:secret@p\n.example", r"control characters, got '\\n'"),
        ("http://a:secret @p", "spaces"),
        ("http://[::1]x:3128", "port"),
        ("http://p,q:3128", "host name"),
        ("http://p%2e:3128", "host name"),
        ("https://" + "p" * 64, "host name"),
        ("socks5://p..q", "host name"),
        ("http://" + "é" * 70, "IDNA"),
        ("http://a%FF:secret@p", "UTF-8"),
        ("http://a%3Ab:secret@p", "without a colon"),
        ("https://a:secret%0d@p", "control characters"),
    ],
)
def test_wrong_addresses(address: str, text: str) -> None:
    with pytest.raises(wsfast.InvalidProxy, match=text) as caught:
        parse_proxy(address)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_passwords_are_not_shown() -> None:
    assert "secret" not in str(parse_proxy("http://user:secret@proxy"))


def test_request_for_a_tunnel() -> None:
    assert connect_request(Proxy("http", "p", 80), "::1", 443, None) == (
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"
    )
    assert connect_request(Proxy("http", "p", 80, "u", "p"), "host", 80, "agent") == (
        b"CONNECT host:80 HTTP/1.1\r\nHost: host:80\r\nUser-Agent: agent\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
    )


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the system's settings come in too")
@pytest.mark.parametrize(
    ("environment", "uri", "expected"),
    [
        ({}, "ws://h", None),
        ({"http_proxy": "http://a"}, "ws://h", "http://a"),
        ({"http_proxy": "http://a"}, "wss://h", None),
        ({"http_proxy": "http://a", "https_proxy": "http://b"}, "ws://h", "http://b"),
        ({"http_proxy": "http://a", "https_proxy": "http://b"}, "wss://h", "http://b"),
        ({"https_proxy": "http://b", "socks_proxy": "http://c:1"}, "wss://h", "socks5h://c:1"),
        ({"https_proxy": "http://b", "socks_proxy": "socks5://c:1"}, "wss://h", "socks5://c:1"),
        ({"ws_proxy": "http://d", "socks_proxy": "socks5://c:1"}, "ws://h", "http://d"),
        ({"wss_proxy": "http://e", "https_proxy": "http://b"}, "wss://h", "http://e"),
        ({"http_proxy": "http://a", "no_proxy": "h"}, "ws://h", None),
        ({"http_proxy": "http://a", "no_proxy": "h:81"}, "ws://h", "http://a"),
        ({"http_proxy": "http://a", "no_proxy": ".example"}, "ws://h.example", None),
        ({"http_proxy": "http://a", "no_proxy": "*"}, "ws://h", None),
        # Lower case counts first, and what a CGI program finds may be a header that the client sent.
        ({"WS_PROXY": "http://a", "ws_proxy": ""}, "ws://h", None),
        ({"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"}, "ws://h", None),
        ({"http_proxy": "a:3128"}, "ws://h", "http://a:3128"),
        ({"http_proxy": "u:p@a:3128"}, "ws://h", "http://u:p@a:3128"),
        ({"https_proxy": "localhost"}, "wss://h", "http://localhost"),
        ({"socks_proxy": "a:1080"}, "wss://h", "socks5h://a:1080"),
        ({"http_proxy": "http://a", "NO_PROXY": "10.0.0.0/8"}, "ws://10.1.2.3", None),
        ({"http_proxy": "http://a", "NO_PROXY": "*", "no_proxy": ""}, "ws://h", "http://a"),
    ],
)
def test_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], uri: str, expected: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_proxy(parse_uri(uri)) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        ("", "h", 80, False),
        (",", "h", 80, False),
        ("*", "::1", 80, True),
        ("a, *", "h", 80, True),
        # names
        ("example.com", "example.com", 80, True),
        ("example.com", "www.example.com", 80, True),
        ("example.com", "notexample.com", 80, False),
        ("example.com", "example.com.evil", 80, False),
        (".example.com", "www.example.com", 80, True),
        (".example.com", "example.com", 80, True),
        ("*.example.com", "www.example.com", 80, True),
        ("*.example.com", "example.com", 80, False),
        ("EXAMPLE.com", "www.example.com", 80, True),
        ("example.com.", "example.com", 80, True),
        ("example.com", "example.com.", 80, True),
        ("a b,c\td", "d", 80, True),
        ("example.com:8080", "www.example.com", 8080, True),
        ("example.com:8080", "www.example.com", 80, False),
        ("*.example.com:80", "www.example.com", 80, True),
        ("bücher.example", "xn--bcher-kva.example", 80, True),
        (".BÜCHER.example:80", "www.xn--bcher-kva.example", 80, True),
        ("*.bücher.example", "xn--bcher-kva.example", 80, False),
        ("\ud800.example", "example", 80, False),
        # addresses
        ("127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.1", "127.0.0.11", 80, False),
        ("0.0.1", "127.0.0.1", 80, False),
        ("127.0.0.1:81", "127.0.0.1", 80, False),
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:81", "::1", 80, False),
        ("0:0:0:0:0:0:0:1", "::1", 80, True),
        ("2001:DB8::0001", "2001:db8::1", 80, True),
        ("::ffff:10.0.0.1", "10.0.0.1", 80, True),
        ("fe80::1", "fe80::1%eth0", 80, True),
        ("1", "::1", 80, False),
        # addresses as the system reads them
        ("127.0.0.1", "127.1", 80, True),
        ("127.0.0.1", "2130706433", 80, True),
        ("127.0.0.0/8", "0x7f.0.0.1", 80, True),
        ("127.0.0.0/8", "0200.1", 80, False),
        ("127.1:80", "127.0.0.1", 80, True),
        ("127.1", "127.1", 80, True),
        ("10.0.0.0/8", "10.1.2.3.", 80, True),
        ("10.1.2.3.", "10.1.2.3", 80, True),
        ("example", "10.example", 80, True),
        ("1\ud800", "127.0.0.1", 80, False),
        # networks
        ("10.0.0.0/8", "10.255.0.1", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.1.2.3/8", "10.255.0.1", 80, True),
        ("10.0.0.0/8", "h", 80, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("[fd00::]/8", "fd12::1", 80, True),
        ("fd00::/8", "fe80::1", 80, False),
        ("::/0", "10.0.0.1", 80, False),
        ("10.0.0.0/99", "10.0.0.1", 80, False),
        ("::ffff:10.0.0.0/104", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 80, True),
        ("fe80::/10", "fe80::1%eth0", 80, True),
        ("http://example.com", "example.com", 80, False),
    ],
)
def test_no_proxy_as_curl_and_go_read_it(no_proxy: str, host: str, port: int, expected: bool) -> None:
    assert bypasses(no_proxy, host, port) is expected
    assert bypasses(f"other.example,{no_proxy}", host, port) is expected


# --- HTTP -------------------------------------------------------------------------------------------------------


async def test_http() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server, proxy("http") as tunnels:
        async with nothing_left(tunnels.port):
            async with wsfast.connect(
                url_of(server), proxy=f"http://127.0.0.1:{tunnels.port}", user_agent_header="agent/1"
            ) as ws:
                await talk(ws)
                assert ws.remote_address[1] == tunnels.port
        ((host, port, head),) = tunnels.asked
        assert (host, port) == ("127.0.0.1", port_of(server))
        assert b"User-Agent: agent/1\r\n" in head
        assert b"Proxy-Authorization" not in head


async def test_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server, proxy("http") as tunnels:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{tunnels.port}")
        async with wsfast.connect(url_of(server)) as ws:
            await talk(ws)
        assert len(tunnels.asked) == 1
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with wsfast.connect(url_of(server)) as ws:
            await talk(ws)
        assert len(tunnels.asked) == 1


async def test_credentials() -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0) as server,
        proxy("http", credentials=("user", "p:ss")) as tunnels,
        nothing_left(tunnels.port),
    ):
        async with wsfast.connect(url_of(server), proxy=f"http://user:p%3Ass@127.0.0.1:{tunnels.port}") as ws:
            await talk(ws)
            assert ws.request is not None
            assert "Proxy-Authorization" not in ws.request.headers
        for credentials in ("", "user:wrong@"):
            with pytest.raises(wsfast.ProxyError, match="407") as caught:
                await wsfast.connect(url_of(server), proxy=f"http://{credentials}127.0.0.1:{tunnels.port}")
            assert caught.value.response is not None
            assert caught.value.response.status_code == 407
            assert caught.value.response.body == b"who are you?"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_wss_through_a_proxy(certs: Certificates, scheme: str) -> None:
    """With TLS to the proxy, TLS to the server runs within it."""
    tls = certs.server_context() if scheme == "https" else None
    options: dict[str, Any] = {"proxy_ssl": certs.client_context()} if tls else {}
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, ssl=certs.server_context()) as server,
        proxy("http", tls=tls) as tunnels,
        nothing_left(tunnels.port),
    ):
        async with wsfast.connect(
            url_of(server, scheme="wss", host="localhost"),
            proxy=f"{scheme}://localhost:{tunnels.port}",
            ssl=certs.client_context(),
            **options,
        ) as ws:
            assert ws.transport is not None
            assert ws.transport.get_extra_info("ssl_object") is not None
            await talk(ws)
        assert tunnels.asked[0][0] == "localhost"


async def test_ws_through_a_proxy_with_tls(certs: Certificates) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0) as server,
        proxy("http", tls=certs.server_context()) as tunnels,
        nothing_left(tunnels.port),
    ):
        address = f"https://127.0.0.1:{tunnels.port}"
        async with wsfast.connect(url_of(server), proxy=address, proxy_ssl=certs.client_context()) as ws:
            await talk(ws)
        async with wsfast.connect(
            url_of(server), proxy=address, proxy_ssl=certs.client_context(), proxy_server_hostname="localhost"
        ) as ws:
            await talk(ws)
        with pytest.raises(wsfast.ProxyError, match=r"(?i)certificate") as caught:
            await wsfast.connect(url_of(server), proxy=address)
        assert isinstance(caught.value.__cause__, OSError)


async def test_server_with_a_wrong_certificate_behind_a_proxy(certs: Certificates) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, ssl=certs.server_context()) as server,
        proxy("http") as tunnels,
        nothing_left(tunnels.port),
    ):
        with pytest.raises(OSError, match=r"(?i)certificate"):
            await wsfast.connect(
                url_of(server, scheme="wss", host="localhost"), proxy=f"http://127.0.0.1:{tunnels.port}"
            )


async def test_nothing_behind_the_proxy() -> None:
    async with proxy("http") as tunnels, nothing_left(tunnels.port):
        with pytest.raises(wsfast.ProxyError, match="502"):
            await wsfast.connect("ws://127.0.0.1:1/", proxy=f"http://127.0.0.1:{tunnels.port}")


async def test_no_proxy_there() -> None:
    with pytest.raises(
        wsfast.ProxyError, match=r"could not connect to the proxy http://127\.0\.0\.1:1: Connection refused$"
    ) as caught:
        await wsfast.connect("ws://127.0.0.1:2/", proxy="http://user:secret@127.0.0.1:1")
    assert isinstance(caught.value.__cause__, OSError)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0\r\n", "no valid answer"),
        (b"", "no valid answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101", "before the handshake"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, "128 headers"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\nContent-Length: 0\r\n\r\n", "302"),
    ],
)
async def test_proxy_that_misbehaves(answer: bytes, text: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.write(answer)
        peer.writer.write_eof()
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.ProxyError, match=text):
            await wsfast.connect("ws://127.0.0.1:1/", proxy=f"http://127.0.0.1:{port_of(server)}")


async def test_proxy_that_drops_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.writer.transport.abort()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.ProxyError, match="expected an answer from the proxy") as caught:
            await wsfast.connect("ws://127.0.0.1:1/", proxy=f"http://127.0.0.1:{port_of(server)}")
        assert isinstance(caught.value.__cause__, ConnectionResetError)


class Far(asyncio.Protocol):
    """The proxy's end of a tunnel, in memory: it answers the request with some bytes, and may end the connection."""

    def __init__(self, *answers: bytes, end: bool = False) -> None:
        self.answers = answers
        self.end = end
        self.request = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.request += data
        if self.request.endswith(b"\r\n\r\n"):
            for answer in self.answers:
                self.transport.write(answer)
            if self.end:
                self.transport.write_eof()


async def tunnel(far: Far, **options: Any) -> tuple[Pipe, _TunnelProtocol]:
    """Ask for a tunnel, and take no note of the answer until everything has come."""
    pipe = Pipe(**options)
    near = _TunnelProtocol(b"CONNECT a:1 HTTP/1.1\r\n\r\n", asyncio.get_running_loop())
    pipe.start(near, far)
    for _ in range(200):
        await asyncio.sleep(0)
    assert far.request == b"CONNECT a:1 HTTP/1.1\r\n\r\n"
    return pipe, near


async def test_answer_byte_by_byte() -> None:
    far = Far(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nVia: x\r\n\r\n")
    pipe, near = await tunnel(far, chunk_size=1)
    assert (await near.response).headers["Via"] == "x"
    assert not pipe.client.is_closing()
    pipe.client.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("what", ["bytes", "end"])
async def test_what_follows_a_proxys_answer_at_once_ends_the_tunnel(what: str) -> None:
    """It comes before the protocol that is to use the tunnel is set."""
    answer = b"HTTP/1.1 200 OK\r\n\r\n"
    pipe, near = await tunnel(Far(answer, b"hello") if what == "bytes" else Far(answer, end=True))
    assert (await near.response).status_code == 200
    assert pipe.client.is_closing()


async def test_proxy_that_is_silent() -> None:
    async with scripted(lambda peer: peer.until_end()) as server, nothing_left(port_of(server)):
        for scheme in ("http", "socks5"):
            with pytest.raises(TimeoutError, match="opening handshake"):
                await wsfast.connect(
                    "ws://127.0.0.1:1/", proxy=f"{scheme}://127.0.0.1:{port_of(server)}", open_timeout=0.2
                )


async def test_server_behind_a_proxy_that_is_silent(certs: Certificates) -> None:
    async with (
        scripted(lambda peer: peer.until_end()) as server,
        proxy("http") as tunnels,
        nothing_left(tunnels.port),
    ):
        for scheme in ("ws", "wss"):
            with pytest.raises(TimeoutError, match="opening handshake"):
                await wsfast.connect(
                    url_of(server, scheme=scheme, host="localhost"),
                    ssl=certs.client_context() if scheme == "wss" else None,
                    proxy=f"http://127.0.0.1:{tunnels.port}",
                    open_timeout=0.3,
                )


# --- SOCKS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
async def test_socks(scheme: str) -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server, proxy("socks") as tunnels, nothing_left(tunnels.port):
        async with wsfast.connect(url_of(server, host="localhost"), proxy=f"{scheme}://127.0.0.1:{tunnels.port}") as ws:
            await talk(ws)
        ((host, port, version),) = tunnels.asked
        assert host == ("localhost" if scheme[-1] in "ah" else "127.0.0.1")
        assert port == port_of(server)
        assert version.decode() == scheme[:6]


async def test_socks_and_tls(certs: Certificates) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, ssl=certs.server_context()) as server,
        proxy("socks", credentials=("user", "word")) as tunnels,
        nothing_left(tunnels.port),
    ):
        uri = url_of(server, scheme="wss", host="localhost")
        async with wsfast.connect(
            uri, proxy=f"socks5h://user:word@127.0.0.1:{tunnels.port}", ssl=certs.client_context()
        ) as ws:
            await talk(ws)
        with pytest.raises(wsfast.ProxyError):
            await wsfast.connect(
                uri, proxy=f"socks5h://user:wrong@127.0.0.1:{tunnels.port}", ssl=certs.client_context()
            )
        with pytest.raises(OSError, match=r"(?i)certificate"):
            await wsfast.connect(uri, proxy=f"socks5h://user:word@127.0.0.1:{tunnels.port}")


async def test_socks_failures() -> None:
    async with proxy("socks") as tunnels, nothing_left(tunnels.port):
        with pytest.raises(wsfast.ProxyError, match="through the proxy"):
            await wsfast.connect("ws://127.0.0.1:1/", proxy=f"socks5://127.0.0.1:{tunnels.port}")
    with pytest.raises(wsfast.ProxyError):
        await wsfast.connect("ws://127.0.0.1:2/", proxy="socks5://127.0.0.1:1")


async def test_socks_without_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("python_socks"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"wsfast\[proxy\]"):
        await wsfast.connect("ws://127.0.0.1:2/", proxy="socks5://127.0.0.1:1")


async def test_cancelled_while_the_proxy_is_silent() -> None:
    async with scripted(lambda peer: peer.until_end()) as server, nothing_left(port_of(server)):
        for scheme in ("http", "socks5h"):
            connecting = wsfast.connect("ws://127.0.0.1:1/", proxy=f"{scheme}://127.0.0.1:{port_of(server)}")
            task = asyncio.ensure_future(connecting._await())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
