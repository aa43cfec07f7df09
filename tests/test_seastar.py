"""The acceptance vectors of Seastar's WebSocket server, whose design wsfast follows, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from certificates import Certificates, make_certificates
from raw import ACCEPT, RawClient, binary, close, connect_raw, open_raw, ping, request, text
from shared import echo, port_of, serving, stream_echo, until
from vectors import BINARY, CLOSE, PONG, TEXT, frame

import wsfast

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def with_stream_echo(server: wsfast.Server) -> None:
    server.register_stream_handler("echo", stream_echo)


# --- The opening handshake ------------------------------------------------------------------------------


async def test_handshake_with_a_subprotocol() -> None:
    async with serving(register=with_stream_echo) as server, await open_raw(server) as client:
        await client.handshake("echo")
        assert client.status == 101
        assert client.headers["sec-websocket-accept"] == ACCEPT
        assert client.headers["sec-websocket-protocol"] == "echo"
        assert client.headers["upgrade"].lower() == "websocket"
        assert client.headers["connection"].lower() == "upgrade"


async def test_handshake_without_a_subprotocol() -> None:
    async with (
        serving(register=lambda server: server.register_stream_handler(None, stream_echo)) as server,
        await open_raw(server) as client,
    ):
        await client.handshake()
        assert client.status == 101
        assert client.headers["sec-websocket-accept"] == ACCEPT
        assert "sec-websocket-protocol" not in client.headers
        assert "sec-websocket-extensions" not in client.headers


@pytest.mark.parametrize("offers", [["chat"], ["ECHO"], ["Echo"], ["echo2", "ech"]])
async def test_an_unknown_subprotocol_is_refused(offers: list[str]) -> None:
    async with serving(register=with_stream_echo) as server, await open_raw(server) as client:
        await client.handshake(*offers)
        assert client.status == 400
        assert b"echo" in client.body
        assert client.headers["connection"] == "close"


@pytest.mark.parametrize(
    "offers", [["echo, chat"], ["chat, echo"], ["chat", "echo"], ["chat,superchat", "x ,echo"], [" echo "]]
)
async def test_offers_in_lists_and_in_several_headers(offers: list[str]) -> None:
    async with serving(register=with_stream_echo) as server, await open_raw(server) as client:
        await client.handshake(*offers)
        assert client.status == 101
        assert client.headers["sec-websocket-protocol"] == "echo"


# --- Data -----------------------------------------------------------------------------------------------


async def test_a_masked_message_comes_back_unmasked() -> None:
    async with serving(register=with_stream_echo) as server, await connect_raw(server, "echo") as client:
        client.send(b"\x82\x84TEST\x00\x00\x00\x00")
        async with asyncio.timeout(5):
            assert await client.reader.readexactly(6) == b"\x82\x04TEST"


THREE = binary(b"TEST1") + binary(b"TEST2") + binary(b"TEST3")


async def test_three_frames_cut_at_every_offset() -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    ends: asyncio.Queue[bytes] = asyncio.Queue()

    async def collect(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                await received.put(await reader.readexactly(5))
        await ends.put(await reader.read())

    async with serving(register=lambda server: server.register_stream_handler(None, collect)) as server:
        for cut in range(len(THREE) + 1):
            async with await connect_raw(server) as client, asyncio.timeout(5):
                before = server.counters["bytes_received"]
                client.send(THREE[:cut])
                await until(lambda: server.counters["bytes_received"] == before + cut)  # noqa: B023
                client.send(THREE[cut:])
                assert [await received.get() for _ in range(3)] == [b"TEST1", b"TEST2", b"TEST3"]
                await client.end()
                assert await ends.get() == b""


@pytest.mark.parametrize("handler", ["messages", "stream", "listener"])
async def test_three_frames_and_the_close_in_one_packet(handler: str) -> None:
    class Echo(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while len(data := await reader.read(5)) == 5:
            await writer.write(data)
            await writer.flush()

    def register(server: wsfast.Server) -> None:
        if handler == "messages":
            server.register_handler(None, echo)
        elif handler == "stream":
            server.register_stream_handler(None, stream)
        else:
            server.register_listener(None, Echo)

    async with serving(register=register) as server, await connect_raw(server) as client:
        client.send(THREE, close(1001, "bye"))
        assert [await client.receive_message() for _ in range(3)] == [b"TEST1", b"TEST2", b"TEST3"]
        assert await client.receive_close() == (1001, "bye")
        await client.receive_eof()


@pytest.mark.parametrize("ssl", [False, True], ids=["ws", "wss"])
async def test_ping(ssl: bool, certificates: Certificates) -> None:
    async with (
        serving(register=with_stream_echo, ssl=certificates.server_context() if ssl else None) as server,
        await connect_raw(server, "echo", ssl=certificates.client_context() if ssl else None) as client,
    ):
        client.send(b"\x89\x80TEST")
        async with asyncio.timeout(5):
            assert await client.reader.readexactly(2) == b"\x8a\x00"
        client.send(ping(b"12345"))
        assert await client.receive() == (True, 0, PONG, b"12345")


async def test_an_unsolicited_pong_is_ignored() -> None:
    async with serving(register=with_stream_echo) as server, await connect_raw(server, "echo") as client:
        client.send(frame(PONG, b"unasked", key=b"TEST"), binary(b"x"))
        assert await client.receive() == (True, 0, BINARY, b"x")
        await client.end()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_an_empty_message_does_not_end_a_stream(opcode: int) -> None:
    async with serving(register=with_stream_echo) as server, await connect_raw(server, "echo") as client:
        client.send(frame(opcode, b"", key=b"TEST"))
        client.send(ping())
        assert (await client.receive()).opcode == PONG
        client.send(binary(b"still here"))
        assert await client.receive_message() == b"still here"


async def test_64_kib_written_to_a_stream_are_one_message() -> None:
    async def whole(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        data = await reader.readexactly(65536)
        await writer.write(data)
        await writer.flush()

    async with (
        serving(register=lambda server: server.register_stream_handler("echo", whole)) as server,
        await connect_raw(server, "echo") as client,
    ):
        data = bytes(range(256)) * 256
        client.send(binary(data))
        assert await client.receive_message() == data
        assert (await client.receive()).opcode == CLOSE


async def test_text_echoes_as_text_from_a_message_handler() -> None:
    async with (
        serving(register=lambda server: server.register_handler("echo", echo)) as server,
        await connect_raw(server, "echo") as client,
    ):
        client.send(text("TEST é"), binary(b"TEST"))
        assert await client.receive() == (True, 0, TEXT, "TEST é".encode())
        assert await client.receive() == (True, 0, BINARY, b"TEST")


async def test_text_comes_out_of_a_stream_as_bytes() -> None:
    async with serving(register=with_stream_echo) as server, await connect_raw(server, "echo") as client:
        client.send(text("é"))
        assert await client.receive() == (True, 0, BINARY, "é".encode())


# --- Ends -----------------------------------------------------------------------------------------------


async def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        await reader.read()
        raise ValueError("a secret")

    def register(server: wsfast.Server) -> None:
        with_stream_echo(server)
        server.register_stream_handler("faulty", faulty)

    caplog.set_level(logging.WARNING)
    async with serving(register=register) as server:
        async with await connect_raw(server, "faulty") as client:
            client.send(binary(b"x"))
            assert await client.receive_close() == (1011, "")
            client.send(close(1011))
            await client.receive_eof()
        [record] = caplog.records
        assert (record.name, record.levelname) == ("wsfast.server", "ERROR")
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
        assert record.exc_info[2] is not None
        async with await connect_raw(server, "echo") as client:
            client.send(binary(b"served on"))
            assert await client.receive_message() == b"served on"
            await client.end()


async def test_stop_while_clients_are_idle_mid_handshake_and_mute() -> None:
    loop = asyncio.get_running_loop()
    server = wsfast.Server(stop_timeout=1.0)
    server.register_stream_handler("echo", stream_echo)
    server.register_handler(None, echo)
    await server.start("127.0.0.1", 0)
    idle = [await connect_raw(server, "echo"), await connect_raw(server)]
    mute = [await connect_raw(server, "echo"), await connect_raw(server)]
    silent, halfway = await open_raw(server), await open_raw(server)
    halfway.writer.write(request("echo")[:50])
    await until(lambda: server.counters["handshakes"] == 2)

    async def answer(client: RawClient) -> None:
        assert await client.receive_close() == (1001, "")
        client.send(close(1001))
        await client.receive_eof()

    answering = [asyncio.ensure_future(answer(client)) for client in idle]
    began = loop.time()
    server.close()
    await server.wait_closed()
    assert loop.time() - began < 1.5
    async with asyncio.timeout(5):
        await asyncio.gather(*answering)
        for client in mute:
            assert await client.receive_close() == (1001, "")
        for client in (*mute, silent, halfway):
            with suppress(ConnectionResetError):
                assert await client.reader.read() == b""
    for client in (*idle, *mute, silent, halfway):
        client.abort()
    assert server.connections == set()


async def test_stop_with_idle_clients_only_is_quick() -> None:
    loop = asyncio.get_running_loop()
    async with serving(register=with_stream_echo) as server:
        port = port_of(server)
        clients = [await connect_raw(server, "echo") for _ in range(5)]
        began = loop.time()
        server.close()
        for client in clients:
            assert await client.receive_close() == (1001, "")
            client.send(close(1001))
            await client.receive_eof()
            client.abort()
        await server.wait_closed()
        assert loop.time() - began < 1
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
