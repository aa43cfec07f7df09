"""Whom a connection comes from behind a proxy: the PROXY protocol, and Forwarded and X-Forwarded-For."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

import wsfast
from wsfast.handshake.forwarded import Networks, Proxied, forwarded_for, read_proxied

pytestmark = pytest.mark.anyio

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + b"\x1f\x90\x01\xbb"
V6 = SIGNATURE + b"\x21\x21\x00\x24" + bytes(15) + b"\x01" + bytes(15) + b"\x02" + b"\x00\x01\x00\x02"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 443\r\n"
FOUND = Proxied(("192.0.2.7", 8080), ("198.51.100.1", 443), 0)

GOOD = [
    (LINE, FOUND),
    (b"PROXY TCP6 2001:DB8::1 ::1 65535 0\r\n", Proxied(("2001:db8::1", 65535, 0, 0), ("::1", 0, 0, 0), 0)),
    (b"PROXY UNKNOWN\r\n", Proxied(None, None, 0)),
    (b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n", Proxied(None, None, 0)),
    (V4, FOUND),
    (V6, Proxied(("::1", 1, 0, 0), ("::2", 2, 0, 0), 0)),
    (V4[:12] + b"\x21\x11\x00\x10" + V4[16:] + b"\x04\x00\x01x", FOUND),  # with what else it tells
    (SIGNATURE + b"\x20\x00\x00\x00", Proxied(None, None, 0)),  # LOCAL
    (SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12), Proxied(None, None, 0)),
    (SIGNATURE + b"\x21\x00\x00\x03abc", Proxied(None, None, 0)),  # UNSPEC
    (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), Proxied(None, None, 0)),  # a Unix socket
    (SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12), Proxied(None, None, 0)),  # UDP
    (
        SIGNATURE + b"\x21\x11\x10\x00" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + b"\x1f\x90\x01\xbb" + bytes(4084),
        FOUND,
    ),
]


@pytest.mark.parametrize(("data", "expected"), GOOD, ids=[ascii(data[:40]) for data, _ in GOOD])
def test_headers(data: bytes, expected: Proxied) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", data):
        assert read_proxied(data + rest) == expected._replace(size=len(data))
    for cut in range(len(data)):
        assert read_proxied(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.777 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 \xb2 2\r\n",
        b"PROXY TCP4 host 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 100,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n" + b"x" * 100,
        b"\r\n\r\n\x00\r\nQUIX\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x23" + bytes(35),
        SIGNATURE + b"\x21\x11\x10\x01",
        SIGNATURE + b"\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\x00",
        b"\x00",
    ],
)
def test_wrong_headers(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected .* got ") as info:
        read_proxied(data)
    assert str(info.value).isascii()
    assert str(info.value).isprintable()
    assert len(str(info.value)) < 250


TRUSTED = Networks(["10.0.0.0/8", "fd00::/8", "192.0.2.1"], "forwarded")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"X-Forwarded-For": "203.0.113.5"}, "203.0.113.5"),
        ({"X-Forwarded-For": "203.0.113.5, 10.0.0.2"}, "203.0.113.5"),
        ({"X-Forwarded-For": "1.1.1.1, 203.0.113.5"}, "203.0.113.5"),  # what the client claims does not count
        ({"X-Forwarded-For": "1.1.1.1, 203.0.113.5,10.0.0.3 , fd00::1"}, "203.0.113.5"),
        ({"X-Forwarded-For": "10.0.0.9, 10.0.0.2"}, "10.0.0.9"),
        ({"X-Forwarded-For": "203.0.113.5:1234"}, "203.0.113.5"),
        ({"X-Forwarded-For": "[2001:db8::1]:1234"}, "2001:db8::1"),
        ({"X-Forwarded-For": "2001:db8::1"}, "2001:db8::1"),
        ({"X-Forwarded-For": "::ffff:203.0.113.5"}, "203.0.113.5"),
        ({"X-Forwarded-For": "unknown"}, None),
        ({"X-Forwarded-For": "203.0.113.5, unknown"}, None),
        ({"X-Forwarded-For": "203.0.113.5, unknown, 10.0.0.2"}, "10.0.0.2"),
        ({"X-Forwarded-For": ""}, None),
        ({"X-Forwarded-For": "203.0.113.5,"}, None),
        ({"X-Forwarded-For": "203.0.113.5:x"}, None),
        ({"Forwarded": "for=203.0.113.5"}, "203.0.113.5"),
        ({"Forwarded": "For=203.0.113.5;proto=https;by=10.0.0.1"}, "203.0.113.5"),
        ({"Forwarded": 'proto=https ; for="203.0.113.5:4711"'}, "203.0.113.5"),
        ({"Forwarded": 'for="[2001:db8::1]:4711"'}, "2001:db8::1"),
        ({"Forwarded": "for=1.1.1.1, for=203.0.113.5, for=10.0.0.2"}, "203.0.113.5"),
        ({"Forwarded": 'for="1.1.1.1, for=6.6.6.6", for=203.0.113.5'}, "203.0.113.5"),
        # What the client has left open, or what is nothing at all, does not hide what the proxies add.
        ({"Forwarded": 'for="1.1.1.1, for=203.0.113.5'}, "203.0.113.5"),
        ({"Forwarded": 'nonsense, for="1.1.1.1, for=203.0.113.5;by="x,y;z=", for=10.0.0.2'}, "203.0.113.5"),
        ({"Forwarded": 'for="1.1.1.1, for=10.0.0.2'}, "10.0.0.2"),
        ({"Forwarded": "for=203.0.113.5, proto=https"}, None),
        ({"Forwarded": "for=_hidden"}, None),
        ({"Forwarded": "for=203.0.113.5, for=_hidden, for=10.0.0.2"}, "10.0.0.2"),
        ({"Forwarded": "nonsense"}, None),
        ({"Forwarded": 'for="[2001:db8::1]:_hidden"'}, "2001:db8::1"),  # RFC 7239, 6: a port may have a name
        ({"Forwarded": 'for="203.0.113.5:_x"'}, "203.0.113.5"),
        ({"Forwarded": 'for="203.0.113.5:x"'}, None),
        ({"Forwarded": 'for="[2001:db8::1]80"'}, None),
        ({"Forwarded": 'for="[203.0.113.5]"'}, None),
        ({"Forwarded": "for=203.0.113.5;for=6.6.6.6"}, None),
        ({"Forwarded": "for=1.1.1.1;for=6.6.6.6, for=203.0.113.5"}, "203.0.113.5"),
        ({"Forwarded": " \t , for=203.0.113.5\t; , for=10.0.0.2"}, "203.0.113.5"),
        ({"Forwarded": "\t for=203.0.113.5 ;\t proto=https\t,  for=10.0.0.2 "}, "203.0.113.5"),
        ({"X-Forwarded-For": "203.0.113.5%x"}, None),
        ({"Forwarded": "for=203.0.113.5", "X-Forwarded-For": "203.0.113.5"}, "203.0.113.5"),
        ({"Forwarded": "for=6.6.6.6", "X-Forwarded-For": "203.0.113.5"}, None),
        ({"Forwarded": "nonsense", "X-Forwarded-For": "203.0.113.5"}, None),
    ],
)
def test_forwarded(headers: dict[str, str], expected: str | None) -> None:
    found = forwarded_for(CIMultiDictProxy(CIMultiDict(headers)), TRUSTED)
    assert (None if found is None else found[0]) == expected


@given(
    st.text(st.sampled_from('for=6.1;",\\ \tx[]:') | st.characters(codec="latin-1", exclude_characters="\r\n\0")),
    st.sampled_from(
        [
            "for=203.0.113.5",
            'proto=https;for="203.0.113.5:47";by=_me',
            # A proxy tells what the client asked for, too, as a string in which a quotation mark has a backslash.
            r'for=203.0.113.5;host="x, for=6.6.6.6;y=\", for=6.6.6.7, z="',
            'for=203.0.113.5;host="x, for=6.6.6.6;y=";by="[::1]"',
        ]
    ),
)
def test_what_a_client_sends_does_not_hide_what_the_proxies_add(sent: str, added: str) -> None:
    for value in (f"{sent}, {added}", f"{sent},{added} , for=10.0.0.2"):
        found = forwarded_for(CIMultiDictProxy(CIMultiDict({"Forwarded": value})), TRUSTED)
        assert found is not None
        assert found[0] == "203.0.113.5"


@pytest.mark.parametrize(
    "piece", [" ", ",", ";", 'x="', "x,", "x=y,", 'x=",', 'x="\\,', "for=10.0.0.1,", "x" * 100 + ","]
)
def test_what_a_client_sends_costs_little(piece: str) -> None:
    value = piece * (60_000 // len(piece)) + "x"
    began = time.monotonic()
    assert forwarded_for(CIMultiDictProxy(CIMultiDict({"Forwarded": value})), TRUSTED) is None
    assert time.monotonic() - began < 2  # one step for each character: spaces took 15 s once


@pytest.mark.parametrize(
    ("network", "peer", "expected"),
    [
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),  # IPv4 in IPv6 is IPv4, on either side
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "11.1.2.3", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("::/0", "10.0.0.1", False),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_networks(network: str, peer: str, expected: bool) -> None:
    assert ((peer, 1) in Networks([network], "forwarded")) is expected


def test_headers_that_come_twice_are_one_list() -> None:
    headers = CIMultiDictProxy(CIMultiDict([("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "203.0.113.5")]))
    assert forwarded_for(headers, TRUSTED) == ("203.0.113.5", 0)


@pytest.mark.parametrize(
    ("networks", "text"),
    [("10.0.0.0/8", "must be a list"), ([1], "got int in it"), (["host"], "'host'"), (["10.0.0.0/99"], "10.0.0.0/99")],
)
@pytest.mark.parametrize("option", ["forwarded", "proxy_protocol"])
def test_wrong_networks(networks: Any, text: str, option: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{option} must be a list of networks.*{text}|{text}"):
        wsfast.Server(**{option: networks})


# --- Over real sockets -------------------------------------------------------------------------------------------


async def tell(ws: wsfast.WebSocket) -> None:
    await ws.send(repr((ws.remote_address, ws.local_address)))
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[wsfast.Server, int]]:
    listen = {name: options.pop(name) for name in ("ssl", "path") if name in options}
    server = wsfast.Server(**options)
    server.register_handler(None, tell)
    async with server:
        if "path" in listen:
            await server.start(**listen)
            yield server, 0
        else:
            await server.start("127.0.0.1", 0, **listen)
            yield server, server.sockets[0].getsockname()[1]


async def dial(port: int, header: bytes) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, header)
    return sock


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("header", [LINE, V4], ids=["v1", "v2"])
async def test_the_client_is_whom_the_proxy_names(header: bytes, secure: bool, certs: Certificates) -> None:
    ours = certs.server_context() if secure else None
    theirs = certs.client_context() if secure else None
    seen: list[Any] = []

    def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        assert ws.transport is not None
        seen.append((ws.remote_address, ws.local_address, ws.transport.get_extra_info("ssl_object") is not None))

    async with serving(proxy_protocol=True, process_request=hook, ssl=ours) as (_, port):
        sock = await dial(port, header)
        uri = f"{'wss' if secure else 'ws'}://localhost:{port}/"
        async with wsfast.connect(uri, sock=sock, ssl=theirs) as ws:
            assert await ws.recv() == repr((("192.0.2.7", 8080), ("198.51.100.1", 443)))
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
    assert seen == [(("192.0.2.7", 8080), ("198.51.100.1", 443), secure)]


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_the_header_comes_in_pieces_with_the_request(step: int) -> None:
    async with serving(proxy_protocol=["127.0.0.1"]) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = LINE + (
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        for i in range(0, len(data), step):
            writer.write(data[i : i + step])
            await asyncio.sleep(0)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert b"192.0.2.7" in await reader.read(200)
        writer.close()


async def test_local_and_unknown_are_who_they_are() -> None:
    async with serving(proxy_protocol=True) as (_, port):
        for header in (SIGNATURE + b"\x20\x00\x00\x00", b"PROXY UNKNOWN\r\n"):
            sock = await dial(port, header)
            here, there = sock.getsockname(), sock.getpeername()
            async with wsfast.connect(f"ws://127.0.0.1:{port}/", sock=sock) as ws:
                assert await ws.recv() == repr((here, there))


@pytest.mark.parametrize("secure", [False, True])
async def test_a_trusted_proxy_must_send_it(
    secure: bool, certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsfast")
    ours = certs.server_context() if secure else None
    theirs = certs.client_context() if secure else None
    async with serving(proxy_protocol=True, ssl=ours) as (server, port):
        with pytest.raises((OSError, wsfast.InvalidMessage)):
            await wsfast.connect(f"{'wss' if secure else 'ws'}://localhost:{port}/", ssl=theirs, proxy=None)
        assert server.counters["opened"] == 0
    assert any("expected a header of the PROXY protocol" in record.getMessage() for record in caplog.records)


async def test_it_is_not_taken_from_others() -> None:
    for options in ({"proxy_protocol": ["10.0.0.0/8"]}, {}):
        async with serving(**options) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(LINE + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            async with wsfast.connect(f"ws://127.0.0.1:{port}/", proxy=None) as ws:
                assert "127.0.0.1" in str(await ws.recv())


async def test_the_header_is_bounded_in_time_and_the_server_can_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsfast")
    async with serving(proxy_protocol=True, open_timeout=0.2) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LINE[:-1])
        with pytest.raises(ConnectionResetError):
            assert await reader.read() == b""
            raise ConnectionResetError
        assert server.counters["handshakes"] == 0
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LINE[:-1])
        while not server.counters["handshakes"]:
            await asyncio.sleep(0)
    assert any("took too long" in record.getMessage() for record in caplog.records)
    writer.close()


async def test_forwarded_over_sockets() -> None:
    for networks, expected in ((["127.0.0.0/8"], "203.0.113.5"), (["10.0.0.0/8"], "127.0.0.1"), (None, "127.0.0.1")):
        async with (
            serving(forwarded=networks) as (_, port),
            wsfast.connect(
                f"ws://127.0.0.1:{port}/", proxy=None, additional_headers={"X-Forwarded-For": "1.1.1.1, 203.0.113.5"}
            ) as ws,
        ):
            assert expected in str(await ws.recv())


async def test_both_ways_together() -> None:
    """A balancer speaks the PROXY protocol to us, and names a proxy that names the client."""
    async with serving(proxy_protocol=True, forwarded=["192.0.2.0/24"]) as (_, port):
        sock = await dial(port, LINE)
        headers = {"Forwarded": 'for="[2001:db8::9]:77"'}
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", sock=sock, additional_headers=headers) as ws:
            assert await ws.recv() == repr((("2001:db8::9", 77, 0, 0), ("198.51.100.1", 443)))


@pytest.mark.parametrize("networks", [None, ["unix"]])
async def test_unix_sockets(networks: list[str] | None, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    seen: list[Any] = []

    def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        seen.append((ws.remote_address, ws.local_address))

    async with (
        serving(path=path, forwarded=networks, process_request=hook) as (server, _),
        wsfast.unix_connect(path, additional_headers={"X-Forwarded-For": "203.0.113.5"}) as ws,
    ):
        expected = None if networks is None else ("203.0.113.5", 0)
        assert await ws.recv() == repr((expected, path))
        assert seen == [(expected, path)]
        assert ws.remote_address is None
        (served,) = server.connections
    assert (served.remote_address, served.local_address) == (expected, path)


@pytest.mark.parametrize("secure", [False, True])
async def test_both_addresses_are_there_before_and_after(secure: bool, certs: Certificates) -> None:
    ours = certs.server_context() if secure else None
    theirs = certs.client_context() if secure else None
    seen: list[Any] = []
    held: list[wsfast.WebSocket] = []

    def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        assert ws.transport is not None
        tls = ws.transport.get_extra_info("ssl_object")
        assert isinstance(tls, (ssl.SSLObject, ssl.SSLSocket)) == secure
        seen.append((ws.remote_address, ws.local_address))
        held.append(ws)

    async with serving(process_request=hook, ssl=ours) as (_, port):
        uri = f"{'wss' if secure else 'ws'}://localhost:{port}/"
        async with wsfast.connect(uri, ssl=theirs, proxy=None, host="127.0.0.1") as client:
            assert await client.recv() == repr(seen[0])
            ends = client.local_address, client.remote_address
            assert ends == seen[0]
            assert (held[0].remote_address, held[0].local_address) == ends
        await held[0].wait_closed()
        assert client.transport is None
        assert held[0].transport is None
        assert (client.local_address, client.remote_address) == ends
        assert (held[0].remote_address, held[0].local_address) == ends
