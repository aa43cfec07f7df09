"""A peer that asks for new keys over and over, and reads nothing: real OpenSSL at both ends, in every shell.

Each KeyUpdate that asks for one (RFC 8446, 4.6.3) is answered by the TLS library itself, whatever this program sends.
What is answered while the peer takes none of it must stay bounded: the connection is dropped, or not read any more.
"""

from __future__ import annotations

import _ssl
import asyncio
import ctypes
import functools
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hostile import head

import wsfast
import wsfast.sync
import wsfast.trio

MOST = 30_000
ANSWER = 27  # bytes of a record with a KeyUpdate


def library() -> Any:
    """Return the OpenSSL that `ssl` is linked with."""
    made = ctypes.CDLL(_ssl.__file__)
    made.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    made.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    return made


def listening() -> socket.socket:
    """Return a bound socket, whose connections hold little in the system."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.bind(("127.0.0.1", 0))
    return sock


def flood(port: int, context: ssl.SSLContext) -> tuple[str, int]:
    """Open a connection and ask for new keys without reading; return how that ended and how much had been answered."""
    openssl = library()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", port))

        def more() -> None:
            if outgoing.pending:
                sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                more()
        tls.write(head())
        sock.sendall(outgoing.read())
        response = b""
        while b"\r\n\r\n" not in response:
            try:
                response += tls.read(1000)
            except ssl.SSLWantReadError:
                more()
        inner = ctypes.c_void_p.from_address(id(tls._sslobj) + 3 * ctypes.sizeof(ctypes.c_void_p))  # type: ignore[attr-defined]
        sock.settimeout(1)
        try:
            for _ in range(MOST):
                assert openssl.SSL_key_update(inner, 1) == 1
                assert openssl.SSL_do_handshake(inner) == 1
                if outgoing.pending > 30_000:
                    sock.sendall(outgoing.read())
        except TimeoutError:
            return "not read", 0
        except OSError:
            return "dropped", 0
        received = 0
        try:
            while data := sock.recv(1 << 20):
                received += len(data)
        except TimeoutError:
            return "kept", received
        except OSError:
            pass
        return "dropped", received


async def on_asyncio(certs: Any) -> tuple[str, int]:
    async with wsfast.serve(echo, sock=listening(), ssl=certs.server_context(), stop_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.to_thread(flood, port, certs.client_context())


def on_sync(certs: Any) -> tuple[str, int]:
    def receive(ws: wsfast.sync.WebSocket) -> None:
        for _ in ws:
            pass

    with wsfast.sync.serve(receive, sock=listening(), ssl=certs.server_context(), stop_timeout=1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            return flood(server.socket.getsockname()[1], certs.client_context())
        finally:
            server.shutdown()
            thread.join(10)


async def on_trio(certs: Any) -> tuple[str, int]:
    import trio

    async with trio.open_nursery() as nursery:
        options = {"ssl": certs.server_context(), "stop_timeout": 1, "close_timeout": 0.5}
        serve = functools.partial(wsfast.trio.serve, echo, None, None, sock=listening(), **options)
        server = await nursery.start(serve)
        port = server.sockets[0].getsockname()[1]
        result = await trio.to_thread.run_sync(flood, port, certs.client_context())
        nursery.cancel_scope.cancel()
    return result


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def run_trio(certs: Any) -> tuple[str, int]:
    import trio

    result: tuple[str, int] = trio.run(on_trio, certs)
    return result


SHELLS: dict[str, Callable[[Any], tuple[str, int]]] = {
    "asyncio": lambda certs: asyncio.run(on_asyncio(certs)),
    "sync": on_sync,
    "trio": run_trio,
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_flood_of_key_updates(shell: str, certs: Any) -> None:
    how, answered = SHELLS[shell](certs)
    assert how in ("dropped", "not read")
    assert answered < MOST * ANSWER
