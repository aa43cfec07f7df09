"""Echoes in a process whose system calls fail at random (`faulty_calls.c`); see `test_faulty_calls.py`.

usage: faulty_echo.py asyncio|uvloop plain|tls benign|fatal|accept DIRECTORY
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import random
import ssl
import sys
from pathlib import Path
from typing import Any

import wsfast

SIZES = [0, 1, 125, 126, 5000, 16384, 32768, 65535, 65536, 100_000, 300_000]
CALLS: Any = ctypes.CDLL(None)


class Echo(wsfast.Listener):
    """The callback form."""

    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


async def echo(ws: wsfast.WebSocket) -> None:
    """Send back what comes; `ended` counts how often that ends."""
    global ended
    try:
        async for message in ws:
            await ws.send(message)
    finally:
        ended += 1


ended = 0


def contexts(directory: str) -> tuple[Any, Any]:
    """Return those for TLS, of both sides."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(Path(directory, "server.pem"))
    client = ssl.create_default_context(cafile=Path(directory, "authority.pem"))
    return server, client


async def benign(url: str, options: dict[str, Any]) -> None:
    """Messages of many sizes, several at a time: none is lost, none comes twice, none is changed."""
    chance = random.Random(5)

    async def one(subprotocol: str) -> None:
        async with wsfast.connect(url, subprotocols=[subprotocol], **options) as ws:
            for size in SIZES:
                sent = [chance.randbytes(chance.randrange(size + 1)) if k else bytes(size) for k in range(4)]
                sent += ["x" * size]  # type: ignore[list-item]
                sending = asyncio.create_task(send(ws, sent))
                assert [await ws.recv() for _ in sent] == sent
                await sending
        assert ws.close_code == 1000, ws

    async def send(ws: wsfast.WebSocket, messages: list[Any]) -> None:
        for message in messages:
            await ws.send(message)

    await asyncio.gather(one("echo"), one("listener"), one("echo"))
    assert CALLS.faulty_count() > 100, CALLS.faulty_count()


async def fatal(url: str, options: dict[str, Any], server: wsfast.Server) -> None:
    """Whichever call fails, both sides end, once, and what is delivered is what was sent."""
    for kind in (0, 1):
        for number in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT):
            for count in range(1, 12):
                CALLS.faulty_arm(kind, count, number)
                try:
                    async with wsfast.connect(url, subprotocols=["echo"], **options) as ws:
                        for k in range(5):
                            await ws.send(f"{k}" * 50_000)
                            assert await ws.recv() == f"{k}" * 50_000
                except (OSError, wsfast.WebSocketError):
                    pass
                CALLS.faulty_arm(-1, 0, 0)
                async with asyncio.timeout(10):
                    while server.connections or server.counters["handshakes"]:
                        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    assert ended == server.counters["opened"], (ended, server.counters)


async def out_of_descriptors(url: str, options: dict[str, Any], records: list[logging.LogRecord]) -> None:
    """One line when it begins, one when it ends, and connections in between wait."""
    for number in (errno.EMFILE, errno.ENOBUFS):
        records.clear()
        CALLS.faulty_accept(3, number)
        connectors = [wsfast.connect(url, subprotocols=["echo"], **options) for _ in range(5)]
        opened = await asyncio.gather(*(connector._await() for connector in connectors))
        for ws in opened:
            await ws.send("x")
            assert await ws.recv() == "x"
            await ws.close()
        told = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
        assert len(told) == 2, told
        assert told[0].startswith("no connections are accepted for now: "), told
        assert told[1].startswith("connections are accepted again, after "), told
    records.clear()
    CALLS.faulty_accept(3, errno.ECONNABORTED)
    async with wsfast.connect(url, subprotocols=["echo"], **options):
        pass
    assert not [record for record in records if record.levelno >= logging.WARNING]


async def main(kind: str, how: str, directory: str) -> None:
    """Serve, and be the client."""
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    logging.getLogger("wsfast").addHandler(handler)
    inner, outer = contexts(directory) if kind == "tls" else (None, None)
    async with wsfast.serve({"echo": echo, "listener": Echo}, "127.0.0.1", 0, ssl=inner, stop_timeout=5) as server:
        url = f"ws{'s' if inner else ''}://localhost:{server.sockets[0].getsockname()[1]}/"
        options = {"ssl": outer, "proxy": None, "open_timeout": 60}
        if how == "benign":
            await benign(url, options)
        elif how == "fatal":
            await fatal(url, options, server)
        else:
            await out_of_descriptors(url, options, records)
    assert not unhandled, unhandled


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop

        uvloop.run(main(*sys.argv[2:]))
    else:
        asyncio.run(main(*sys.argv[2:]))
