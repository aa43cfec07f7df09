"""What the tests of the client share: servers that misbehave as told, and the proof that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import socket
import ssl
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from shared import port_of

from wsfast.handshake import accept_key

Script = Callable[["Peer"], Awaitable[Any]]


def url_of(server: Any, path: str = "/", *, scheme: str = "ws", host: str = "127.0.0.1") -> str:
    """Return a URI of a server."""
    return f"{scheme}://{host}:{port_of(server)}{path}"


class Peer:
    """One connection of a server that does what a script says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    async def read_head(self) -> bytes:
        """Read a request's head, or what there is of it."""
        try:
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            self.head = exc.partial
        return self.head

    def header(self, name: str) -> str | None:
        """Return the value of a header of the request."""
        found = re.search(rb"(?im)^%s:[ \t]*(.*?)\r$" % name.encode(), self.head)
        return None if found is None else found[1].decode("latin-1")

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    def accept(self, *headers: str, key: str | None = None, leave_out: str = "none") -> None:
        """Send a response that agrees to a WebSocket, but for what is asked to be wrong."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(key or self.header('Sec-WebSocket-Key') or '')}",
            *headers,
        ]
        lines = [line for line in lines if not line.lower().startswith(leave_out.lower())]
        self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def until_end(self) -> bytes:
        """Read until the client ends the connection; return what came."""
        came = b""
        with contextlib.suppress(OSError):
            while data := await self.reader.read(65536):
                came += data
        return came


@contextlib.asynccontextmanager
async def scripted(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[asyncio.Server]:
    """Run a server whose connections do what a script says; at the end, all have ended."""
    tasks: set[asyncio.Task[Any]] = set()
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer))
            await writer.drain()
        except OSError:
            pass  # the client has gone, as it may
        except asyncio.CancelledError:
            pass
        except BaseException as exc:
            failures.append(exc)
        finally:
            tasks.discard(task)
            writer.transport.abort()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    try:
        yield server
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
    assert not failures, failures


def connected_to(port: int) -> list[int]:
    """Return the descriptors of this process that are connected to a port."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            blocking = os.get_blocking(int(name))
            with socket.socket(fileno=os.dup(int(name))) as sock:
                sock.setblocking(blocking)  # on PyPy it would block now, and so would whoever has the other descriptor
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername()[1] == port:
                    found.append(int(name))
    return found


@contextlib.asynccontextmanager
async def nothing_left(port: int) -> AsyncIterator[None]:
    """Assert that a block leaves no task, thread, dead reader of the loop, nor socket that is connected to a port.

    What it made must be freed without a warning, too.
    """
    # What a test before this one left is not this one's to answer for.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = hook
    before = asyncio.all_tasks()
    threads = set(threading.enumerate())
    yield
    await asyncio.sleep(0)  # a task that learns of the end by `recv` is resumed before the transport closes its socket
    assert not connected_to(port)
    for _ in range(5):
        await asyncio.sleep(0)  # for tasks of the server that the end of the connection cancelled
    assert not {task for task in asyncio.all_tasks() - before if "scripted" not in repr(task.get_coro())}
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("wsfast")]
    selector = getattr(asyncio.get_running_loop(), "_selector", None)  # uvloop tells nothing
    for descriptor in selector.get_map() if selector is not None else ():
        os.fstat(descriptor)  # raises for one that was closed while the loop still waits for it
    gc.collect()  # an unclosed transport or an unretrieved exception warns, and a warning is an error
