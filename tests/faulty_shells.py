"""Echoes in threads and on trio, in a process whose system calls fail (`faulty_calls.c`); see `test_faulty_calls.py`.

usage: faulty_shells.py threads|trio plain|tls benign|fatal DIRECTORY
"""

from __future__ import annotations

import errno
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio
from faulty_echo import CALLS, SIZES, contexts

import wsfast.sync
import wsfast.trio

FATAL = [
    (kind, number, count) for kind in (0, 1) for number in (errno.ECONNRESET, errno.EPIPE) for count in range(1, 6)
]


def messages(seed: int) -> Iterator[list[str | bytes]]:
    """Make lists of messages of many sizes."""
    chance = random.Random(seed)
    for size in SIZES:
        yield [bytes(size), chance.randbytes(chance.randrange(size + 1)), "x" * size]


@contextmanager
def failing(kind: int, number: int, count: int) -> Iterator[None]:
    """Let one call fail, and the program go on."""
    CALLS.faulty_arm(kind, count, number)
    try:
        yield
    except (OSError, wsfast.WebSocketError):
        pass
    finally:
        CALLS.faulty_arm(-1, 0, 0)


# --- In threads


def echo(ws: wsfast.sync.WebSocket) -> None:
    """Send back what comes."""
    for message in ws:
        ws.send(message)


def send_all(ws: wsfast.sync.WebSocket, sent: list[str | bytes]) -> None:
    """Send messages, one after the other."""
    for message in sent:
        ws.send(message)


def in_threads(how: str, inner: Any, outer: Any) -> None:
    """Serve, and be the client, without an event loop."""
    with wsfast.sync.serve(echo, "127.0.0.1", 0, ssl=inner, stop_timeout=5) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws{'s' if inner else ''}://localhost:{server.socket.getsockname()[1]}/"
        connect = partial(wsfast.sync.connect, url, ssl=outer, proxy=None, open_timeout=30)
        if how == "benign":
            with connect() as ws:
                for sent in messages(3):
                    sender = threading.Thread(target=send_all, args=(ws, sent))
                    sender.start()
                    assert [ws.recv(timeout=30) for _ in sent] == sent
                    sender.join()
            assert ws.close_code == 1000, ws
            return
        for fault in FATAL:
            with failing(*fault), connect() as ws:
                for k in range(3):
                    ws.send(f"{k}" * 50_000)
                    assert ws.recv(timeout=10) == f"{k}" * 50_000
            end = time.monotonic() + 10
            while server._served:
                assert time.monotonic() < end, fault
                time.sleep(0.001)


# --- On trio


async def trio_echo(ws: wsfast.trio.WebSocket) -> None:
    """Send back what comes."""
    async for message in ws:
        await ws.send(message)


async def on_trio(how: str, inner: Any, outer: Any) -> None:
    """Serve, and be the client, on trio."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(wsfast.trio.serve, trio_echo, "127.0.0.1", 0, ssl=inner, stop_timeout=5, close_timeout=0.3)
        )
        url = f"ws{'s' if inner else ''}://localhost:{server.sockets[0].getsockname()[1]}/"
        connect = partial(wsfast.trio.connect, url, ssl=outer, proxy=None, open_timeout=30, close_timeout=0.3)
        if how == "benign":
            async with connect() as ws:
                for sent in messages(4):

                    async def send(sent: list[Any]) -> None:
                        for one in sent:
                            await ws.send(one)

                    async with trio.open_nursery() as sending:
                        sending.start_soon(send, sent)
                        assert [await ws.recv() for _ in sent] == sent
            assert ws.close_code == 1000, ws
        else:
            # After a failed write, what may tell why is read for `close_timeout`.
            for fault in [fault for fault in FATAL if fault[1] == errno.ECONNRESET and fault[2] > 1]:
                with failing(*fault):
                    async with connect() as ws:
                        for k in range(3):
                            await ws.send(f"{k}" * 50_000)
                            assert await ws.recv() == f"{k}" * 50_000
                with trio.fail_after(10):
                    while server._served:
                        await trio.sleep(0.001)
        await server.shutdown()


if __name__ == "__main__":
    shell, kind, how, directory = sys.argv[1:]
    inner, outer = contexts(directory) if kind == "tls" else (None, None)
    if shell == "threads":
        in_threads(how, inner, outer)
    else:
        trio.run(on_trio, how, inner, outer)
    if how == "benign":
        assert CALLS.faulty_count() > 30, CALLS.faulty_count()
