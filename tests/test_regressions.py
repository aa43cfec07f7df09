"""What fuzzing and coverage runs found: each input, or circumstance, that failed once."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import wsfast
from wsfast.codec import encode_frame
from wsfast.connection import Connection, Side
from wsfast.exceptions import InvalidURI
from wsfast.handshake.uri import parse_uri


@pytest.mark.parametrize("uri", ["ws://us\udcff:pw@a.example/", "ws://user:p\udcff@a.example/"])
def test_uri_with_a_lone_surrogate_in_its_credentials(uri: str) -> None:
    with pytest.raises(InvalidURI, match="a user name and a password in UTF-8") as caught:
        parse_uri(uri)
    assert "pw" not in str(caught.value)
    assert "\udcff" not in str(caught.value)


@pytest.mark.parametrize("rest", ["x", "", "\u20ac"])
def test_str_fragment_after_half_a_character(rest: str) -> None:
    # It would have sent text that is not UTF-8.
    connection = Connection(Side.SERVER)
    connection.send_fragment(b"a\xe2\x82", False, text=True)
    sent = connection.encoder.take()
    with pytest.raises(UnicodeDecodeError):
        connection.send_fragment(rest, True)
    assert sent == b"\x01\x03a\xe2\x82"
    assert connection.encoder.take() == b""
    # The message can still be finished.
    connection.send_fragment(b"\xac", True)
    assert connection.encoder.take() == b"\x80\x01\xac"


@pytest.mark.anyio
async def test_streaming_receive_where_awaitables_are_iterated(anyio_backend: Any) -> None:
    # CPython 3.12 and later resume an awaitable by tp_iternext, and so does 3.11 while a trace function is set. A
    # Fragment is a tuple, and was taken for the arguments of StopIteration: messages ended with their first piece.
    received: asyncio.Future[list[str | bytes]] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        pieces = []
        async for piece in ws.recv_streaming():
            pieces.append(piece)
            begun.set()
        received.set_result(pieces)

    before = sys.gettrace()
    async with wsfast.serve(handler, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        if before is None:
            sys.settrace(lambda *_: None)
        try:
            writer.write(encode_frame(1, "be", fin=False, mask=bytes(4)))
            await asyncio.wait_for(begun.wait(), 10)
            writer.write(encode_frame(0, "gun", fin=True, mask=bytes(4)))
            pieces = await asyncio.wait_for(received, 10)
        finally:
            sys.settrace(before)
        writer.close()
    assert pieces[0] == "be"
    assert "".join(map(str, pieces)) == "begun"
