"""The traps that others fell into, as docs/design.md lists them: each was an advisory or a bug of a well-known library.

What needs many cases has a file of its own; here each trap is sprung once, from the wire, on the whole server.
"""

from __future__ import annotations

import array
import asyncio
import random
import socket
import time
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hostile import BINARY, CLOSE, CONT, FORMS, PING, PONG, TEXT, Peer, close_frame, frame, head, serving
from shared import SLOWNESS, echo, until

import wsfast

pytestmark = pytest.mark.anyio

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover"


def deflated(data: bytes) -> bytes:
    """Compress a message as RFC 7692, 7.2.1 says."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


# --- One read can hold 40,000 tiny messages -----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_one_read_of_many_messages_leaves_room_for_others(form: str | None) -> None:
    """Python peers kept other clients waiting for 1 to 13 s."""
    count = 40_000
    async with serving(FORMS) as server:
        peer, other = await Peer.open(server, form), await Peer.open(server)
        sending = asyncio.create_task(peer.send(b"".join(frame(BINARY, b"%05d" % i) for i in range(count))))
        turns = []
        got = b""
        reading = asyncio.create_task(other.answered())
        while len(got) < 5 * count:
            began = time.process_time()
            got += (await peer.read())[1]
            turns.append(time.process_time() - began)
            if reading.done():
                await reading
                reading = asyncio.create_task(other.answered())
        await reading
        await sending
        assert got == b"".join(b"%05d" % i for i in range(count))
        assert max(turns) < 0.5 * SLOWNESS


# --- Never pause reading to bound a partial frame or message ------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_message_larger_than_every_limit_on_what_is_held(form: str | None) -> None:
    """aiohttp paused reading for it, and nothing resumed it."""
    async with serving(FORMS, read_limit=1, write_limit=1) as server:
        peer = await Peer.open(server, form)
        part = b"x" * 100_000
        fragments = frame(BINARY, part, fin=False) + frame(CONT, part, fin=False) + frame(CONT, part)
        for data in (frame(BINARY, part * 3), fragments):
            sending = asyncio.create_task(peer.send(data))
            got = 0
            while got < 300_000:
                got += len((await peer.read())[1])
            await sending


@pytest.mark.parametrize(("limit", "sizes", "good"), [
    (10, [5, 5], True), (10, [5, 6], False), (10, [10, 0, 0, 0], True), (10, [10, 1], False), (10, [0, 0, 11], False),
])  # fmt: skip
async def test_the_limit_counts_what_is_held_already(limit: int, sizes: list[int], good: bool) -> None:
    async with serving(echo, max_size=limit) as server:
        peer = await Peer.open(server)
        frames = [frame(CONT if i else TEXT, b"x" * size, fin=i == len(sizes) - 1) for i, size in enumerate(sizes)]
        await peer.send(*frames)
        if good:
            assert await peer.read() == (TEXT, b"x" * sum(sizes))
        else:
            assert (await peer.read_close())[0] == 1009


# --- A limit after decompression ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("over", [-1, 0, 1, 100_000_000])
async def test_one_byte_over_after_decompression(form: str | None, over: int) -> None:
    """Cutting the inflater's output off would pass half a message for a whole one."""
    limit = 100_000
    async with serving(FORMS, compression="deflate", max_size=limit) as server:
        peer = await Peer.open(server, form, DEFLATE)
        assert b"permessage-deflate" in peer.response
        await peer.send(frame(TEXT, deflated(b"\0" * (limit + over)), rsv=0x40))
        if over > 0:
            assert (await peer.read_close())[0] == 1009
            return
        got = b""
        while len(got) < limit + over:
            _, payload = await peer.read()
            got += zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        assert got == b"\0" * (limit + over)


# --- The handshake's deadline is absolute -------------------------------------------------------------------


async def test_a_handshake_byte_by_byte_takes_time_in_proportion() -> None:
    """The scan for its end goes on where it stopped."""
    async with serving(echo) as server:
        peer = await Peer.dial(server)
        sock = peer.sock
        began = time.process_time()
        for byte in head(None, *["X-Pad: " + "x" * 4000] * 3):
            sock.send(bytes([byte]))
            if not byte % 7:
                await asyncio.sleep(0)
        assert b" 101 " in await peer.read_response()
        assert time.process_time() - began < 2


# --- Closing with unread bytes in the socket ----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [b"\xff\xff", frame(TEXT, b"\xff"), close_frame(3999)], ids=["1002", "1007", "close"])
async def test_the_close_frame_survives_what_the_peer_sent_besides(form: str | None, bad: bytes) -> None:
    """A reset, sent because of unread bytes, could overtake it."""
    async with serving(FORMS) as server:
        for _ in range(5):
            peer = await Peer.open(server, form)
            sending = asyncio.create_task(peer.send(bad, b"\0" * 2_000_000))
            code, _ = await peer.read_close()
            assert code in (1002, 1007, 3999)
            with suppress(OSError):
                await sending
            peer.close()


# --- Half-closed is not closed ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [b"\xff\xff", close_frame(), b"GET"], ids=["failure", "close", "handshake"])
async def test_a_peer_that_keeps_talking_does_not_hold_the_descriptor(bad: bytes) -> None:
    async with serving(echo) as server:
        peer = await (Peer.dial if bad == b"GET" else Peer.open)(server)
        await peer.send(b"GET nonsense\r\n\r\n" if bad == b"GET" else bad)
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 4:
                await peer.send(b"\0" * 100)
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 3.5
        assert server.counters["connections"] == server.counters["handshakes"] == 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_fin_without_a_close_frame(form: str | None) -> None:
    async with serving(FORMS) as server:
        peer = await Peer.open(server, form)
        await peer.send(frame(TEXT, b"last words"))
        peer.sock.shutdown(socket.SHUT_WR)
        assert await peer.read_to_end() in (b"\x81\x0alast words", b"\x82\x0alast words")
        await until(lambda: not server.counters["connections"])


# --- Masking reads past the end; uninitialised bytes --------------------------------------------------------


@pytest.mark.parametrize("size", [*range(20), 63, 64, 65, 125, 126, 127, 65535, 65536])
async def test_masking_at_every_length(size: int) -> None:
    async with serving(FORMS) as server:
        peer = await Peer.open(server)
        payload = bytes(i * 7 % 256 for i in range(size))
        await peer.send(frame(BINARY, payload, mask=b"\x12\x34\x56\x78"))
        assert await peer.read() == (BINARY, payload)


ODD: dict[str, Any] = {
    "bytearray": bytearray(b"abcdefgh"),
    "memoryview": memoryview(b"abcdefgh"),
    "slice": memoryview(b"__abcdefgh__")[2:10],
    "strided": memoryview(b"a_b_c_d_e_f_g_h_")[::2],
    "reversed": memoryview(b"hgfedcba")[::-1],
    "array of 32 bits": array.array("I", [0x64636261, 0x68676665]),
    "two dimensions": memoryview(b"abcdefgh").cast("B", (2, 4)),
}


@pytest.mark.parametrize("what", ODD)
async def test_odd_buffers_are_sent_as_they_are(what: str) -> None:
    """Others sent uninitialised memory, or the wrong number of bytes."""

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send(ODD[what])
        ws.send_nowait(ODD[what])
        await ws.ping(ODD[what])
        await ws.pong(ODD[what])
        await ws.send([ODD[what], ODD[what]])

    async with serving(handler) as server:
        peer = await Peer.open(server)
        payload = b"abcdefgh"
        for opcode in (BINARY, BINARY, PING, PONG, BINARY, CONT):
            assert await peer.read() == (opcode, payload)


# --- A parser's exception must not escape -------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_random_bytes_end_in_a_documented_close(form: str | None, compression: Any) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    async with serving(FORMS, compression=compression, max_size=5000, close_timeout=0.2, noise=False) as server:
        for _ in range(25):
            peer = await Peer.open(server, form, *([DEFLATE] if compression else []))
            parts = []
            for _ in range(chance.randrange(1, 8)):
                opcode = chance.choice([0, 1, 2, 8, 9, 10, chance.randrange(16)])
                payload = chance.randbytes(chance.choice([0, 1, 2, 100, 126, 4000]))
                parts.append(
                    frame(opcode, payload, fin=chance.random() < 0.7, rsv=chance.choice([0, 0, 0, 0x40, 0x10]))
                )
            data = bytearray(b"".join(parts))
            if chance.random() < 0.5:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            with suppress(OSError):
                await peer.send(bytes(data))
                peer.sock.shutdown(socket.SHUT_WR)
            code, _ = await peer.read_close()
            assert code in (1000, 1002, 1003, 1005, 1006, 1007, 1009, 1010, 1011) or 3000 <= code <= 4999
            peer.close()
        await until(lambda: not server.counters["connections"])


@pytest.mark.parametrize("rubbish", [b"\xff" * 64, b"\x06\x00", deflated(b"good")[:-2], b"\x01\x00\x00\xff\xfe"])
async def test_rubbish_in_a_compressed_message(rubbish: bytes) -> None:
    async with serving(FORMS, compression="deflate") as server:
        for form in FORMS:
            peer = await Peer.open(server, form, DEFLATE)
            await peer.send(frame(TEXT, rubbish, rsv=0x40), close_frame())
            assert (await peer.read_close())[0] in (1000, 1002, 1007)


# --- Connection: keep-alive, Upgrade ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "good"),
    [("keep-alive, Upgrade", True), ("upgrade", True), ("Keep-Alive,\tUPGRADE ,x", True), ("keep-alive", False),
     ("Upgraded", False), ("not-Upgrade", False), (", Upgrade,", True)],
)  # fmt: skip
async def test_token_lists_not_strings(value: str, good: bool) -> None:
    """Firefox sends "keep-alive, Upgrade"."""
    async with serving(echo) as server:
        peer = await Peer.dial(server)
        await peer.send(head().replace(b"Connection: Upgrade", b"Connection: " + value.encode()))
        assert (await peer.read_response()).startswith(b"HTTP/1.1 101" if good else b"HTTP/1.1 400")


# --- Reserved bits and close codes --------------------------------------------------------------------------


@pytest.mark.parametrize("rsv", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT, PING, PONG, CLOSE])
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_reserved_bits(rsv: int, opcode: int, compression: Any) -> None:
    async with serving(echo, compression=compression) as server:
        peer = await Peer.open(server, None, *([DEFLATE] if compression else []))
        if opcode == CONT:
            await peer.send(frame(TEXT, b"x", fin=False))
        agreed = compression and rsv == 0x40 and opcode in (TEXT, BINARY)
        payload = deflated(b"x") if agreed else b"\x03\xe8" if opcode == CLOSE else b"x"
        await peer.send(frame(opcode, payload, rsv=rsv))
        if agreed:
            assert (await peer.read())[0] == opcode
        else:
            assert (await peer.read_close())[0] == 1002


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1013, 1014, 1015, 1016, 1999, 2000,
             2999, 3000, 3999, 4000, 4999, 5000, 65535],
)  # fmt: skip
async def test_close_codes(code: int) -> None:
    good = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    refused = []

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.recv()
        try:
            ws.close_nowait(code)
        except ValueError as exc:
            refused.append(exc)

    async with serving({None: echo, "ours": handler}) as server:
        peer = await Peer.open(server)
        await peer.send(close_frame(code))
        assert (await peer.read_close())[0] == (code if good else 1002)
        peer = await Peer.open(server, "ours")
        await peer.send(frame(TEXT, b"go"))
        # 1005 stands for a Close frame without a code.
        assert (await peer.read_close())[0] == (code if good or code == 1005 else 1000)
        assert bool(refused) is (not good and code != 1005)


# --- CR, LF, NUL and length of what the caller supplies -----------------------------------------------------


@pytest.mark.parametrize("bad", ["a\r\nb", "a\nb", "a\rb", "a\0b"])
async def test_no_header_injection(bad: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        wsfast.Server(response_headers={"X": bad})
    with pytest.raises(ValueError):  # noqa: PT011
        wsfast.Server(response_headers={bad: "x"})
    with pytest.raises(ValueError):  # noqa: PT011
        wsfast.Server(server_header=bad)
    with pytest.raises(ValueError, match="token"):
        wsfast.Server().register_handler(bad, echo)

    async def process_request(ws: wsfast.WebSocket, request: wsfast.Request) -> Any:
        response = ws.respond(200, "fine")
        response.headers["X"] = bad
        return response

    async with serving(echo, noise=True, process_request=process_request) as server:
        peer = await Peer.dial(server)
        await peer.send(head())
        answer = await peer.read_to_end()
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"fine" not in answer


@pytest.mark.parametrize(("reason", "good"), [("x" * 123, True), ("x" * 124, False), ("\u20ac" * 41, True),
                                              ("\u20ac" * 42, False), ("\ud800", False)])  # fmt: skip
async def test_close_reasons(reason: str, good: bool) -> None:
    refused = []

    async def handler(ws: wsfast.WebSocket) -> None:
        try:
            ws.close_nowait(1000, reason)
        except ValueError as exc:
            refused.append(exc)

    async with serving(handler) as server:
        peer = await Peer.open(server)
        assert await peer.read_close() == (1000, reason if good else "")
        assert bool(refused) is not good


# --- Cancelling ---------------------------------------------------------------------------------------------


async def test_a_message_is_not_popped_before_it_is_delivered() -> None:
    got: list[str | bytes] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        while len(got) < 500:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    got.append(await ws.recv())
            with suppress(TimeoutError):
                async with asyncio.timeout(0.0002):
                    got.append(await ws.recv())

    async with serving(handler) as server:
        peer = await Peer.open(server)
        for i in range(500):
            await peer.send(frame(TEXT, b"%d" % i))
        assert (await peer.read_close())[0] == 1000
    assert got == [str(i) for i in range(500)]
