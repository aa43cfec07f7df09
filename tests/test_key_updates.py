"""A peer that asks for new keys over and over, and reads nothing: real OpenSSL at both ends, in every shell.

Each KeyUpdate that asks for one (RFC 8446, 4.6.3) is answered by the TLS library itself, whatever this program sends.
What is answered while the peer takes none of it must stay bounded: the connection is dropped, or not read any more.
"""

from __future__ import annotations

import _ssl
import asyncio
import contextlib
import ctypes
import functools
import re
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
from wsfast.handshake import accept_key

MOST = 30_000
ANSWER = 27  # bytes of a record with a KeyUpdate
BESIDE = 1 << 18  # bytes at most that wait for the peer beside answers: `write_limit`, a message, the system's buffers


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


class Flooder:
    """The peer: TLS in memory on a blocking socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_side: bool) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, name)
        sock.settimeout(20)

    def retry(self, call: Callable[[], Any]) -> Any:
        """Call until TLS has what it wants to read."""
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self.push()
                self.incoming.write(self.sock.recv(65536))
            finally:
                self.push()

    def push(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def read_head(self) -> bytes:
        """Read the head of a request or a response."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.retry(lambda: self.tls.read(1000))
        return data

    def flood(self) -> tuple[str, int]:
        """Ask for new keys without reading; return how that ended and how many bytes had been sent to this peer."""
        openssl = library()
        # Behind what each object has, and its `Socket`.
        place = id(self.tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)  # type: ignore[attr-defined]
        inner = ctypes.c_void_p.from_address(place)
        self.sock.settimeout(1)
        try:
            for _ in range(MOST):
                assert openssl.SSL_key_update(inner, 1) == 1
                assert openssl.SSL_do_handshake(inner) == 1
                if self.outgoing.pending > 30_000:
                    self.push()
        except TimeoutError:
            return "not read", 0
        except OSError:
            return "dropped", 0
        received = 0
        try:
            while data := self.sock.recv(1 << 20):
                received += len(data)
        except TimeoutError:
            return "kept", received
        except OSError:
            pass
        return "dropped", received


def small(sock: socket.socket) -> socket.socket:
    """Let a socket hold little in the system."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    return sock


def flood_server(port: int, context: ssl.SSLContext) -> tuple[str, int]:
    """Open a connection and flood it."""
    with small(socket.socket()) as sock:
        sock.settimeout(20)
        sock.connect(("127.0.0.1", port))
        peer = Flooder(sock, context, server_side=False)
        peer.retry(peer.tls.do_handshake)
        peer.tls.write(head())
        peer.push()
        peer.read_head()
        return peer.flood()


def flood_client(listener: socket.socket, context: ssl.SSLContext) -> tuple[str, int]:
    """Take a connection and flood it."""
    sock, _ = listener.accept()
    with small(sock):
        peer = Flooder(sock, context, server_side=True)
        peer.retry(peer.tls.do_handshake)
        found = re.search(rb"(?im)^Sec-WebSocket-Key: *(\S+)", peer.read_head())
        assert found is not None
        peer.tls.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(found[1].decode()).encode()
        )
        peer.push()
        return peer.flood()


# --- What the program does beside: it receives, or it receives and sends without end


async def receive(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def send(ws: Any) -> None:
    while True:
        await ws.send(b"m" * 1000)


async def send_in_asyncio(ws: Any) -> None:
    sending = asyncio.create_task(send(ws))
    try:
        await receive(ws)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def send_in_trio(ws: Any) -> None:
    import trio

    async def sending() -> None:
        with contextlib.suppress(wsfast.ConnectionClosed):
            await send(ws)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sending)
        try:
            await receive(ws)
        finally:
            nursery.cancel_scope.cancel()


def receive_in_thread(ws: wsfast.sync.WebSocket) -> None:
    for _ in ws:
        pass


def send_in_thread(ws: wsfast.sync.WebSocket) -> None:
    def sending() -> None:
        with contextlib.suppress(wsfast.ConnectionClosed):
            while True:
                ws.send(b"m" * 1000)

    thread = threading.Thread(target=sending)
    thread.start()
    try:
        receive_in_thread(ws)
    finally:
        thread.join(20)


HANDLERS: dict[str, tuple[Any, Any, Any]] = {
    "receives": (receive, receive_in_thread, receive),
    "sends too": (send_in_asyncio, send_in_thread, send_in_trio),
}


# --- The shells


async def serve_on_asyncio(certs: Any, handler: Any) -> tuple[str, int]:
    async with wsfast.serve(handler, sock=listening(), ssl=certs.server_context(), stop_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.to_thread(flood_server, port, certs.client_context())


async def connect_on_asyncio(certs: Any, handler: Any) -> tuple[str, int]:
    with listening() as listener:
        listener.listen()
        flooding = asyncio.create_task(asyncio.to_thread(flood_client, listener, certs.server_context()))
        sock = small(socket.create_connection(listener.getsockname()))
        with sock:
            try:
                async with wsfast.connect("wss://localhost/", sock=sock, ssl=certs.client_context()) as ws:
                    handling = asyncio.create_task(handler(ws))
                    result = await flooding
                    handling.cancel()
                    await asyncio.gather(handling, return_exceptions=True)
                    ws.abort()
            finally:
                await asyncio.gather(flooding, return_exceptions=True)
    return result


def serve_in_threads(certs: Any, handler: Any) -> tuple[str, int]:
    with wsfast.sync.serve(handler, sock=listening(), ssl=certs.server_context(), stop_timeout=1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            return flood_server(server.socket.getsockname()[1], certs.client_context())
        finally:
            server.shutdown()
            thread.join(10)


def connect_in_threads(certs: Any, handler: Any) -> tuple[str, int]:
    result: list[tuple[str, int]] = []
    with listening() as listener:
        listener.listen()
        flooding = threading.Thread(target=lambda: result.append(flood_client(listener, certs.server_context())))
        flooding.start()
        with small(socket.create_connection(listener.getsockname())) as sock:
            ws = wsfast.sync.connect("wss://localhost/", sock=sock, ssl=certs.client_context())
            handling = threading.Thread(target=suppress_closed, args=(handler, ws))
            handling.start()
            flooding.join(60)
            ws.abort()
            handling.join(20)
    return result[0]


def suppress_closed(handler: Any, ws: Any) -> None:
    with contextlib.suppress(wsfast.ConnectionClosed):
        handler(ws)


async def serve_on_trio(certs: Any, handler: Any) -> tuple[str, int]:
    import trio

    async with trio.open_nursery() as nursery:
        options = {"ssl": certs.server_context(), "stop_timeout": 1, "close_timeout": 0.5}
        serve = functools.partial(wsfast.trio.serve, handler, None, None, sock=listening(), **options)
        server = await nursery.start(serve)
        port = server.sockets[0].getsockname()[1]
        result = await trio.to_thread.run_sync(flood_server, port, certs.client_context())
        nursery.cancel_scope.cancel()
    return result


async def connect_on_trio(certs: Any, handler: Any) -> tuple[str, int]:
    import trio

    result: list[tuple[str, int]] = []
    with listening() as listener:
        listener.listen()

        async def flooding() -> None:
            result.append(await trio.to_thread.run_sync(flood_client, listener, certs.server_context()))
            nursery.cancel_scope.cancel()

        async def handling() -> None:
            try:
                await handler(ws)
            except* wsfast.ConnectionClosed:
                pass

        sock = small(socket.create_connection(listener.getsockname()))
        with sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flooding)
                async with wsfast.trio.connect("wss://localhost/", sock=sock, ssl=certs.client_context()) as ws:
                    nursery.start_soon(handling)
                    await trio.sleep_forever()
    return result[0]


def on_uvloop(main: Any) -> Callable[[Any, Any], tuple[str, int]]:
    def run(certs: Any, handler: Any) -> tuple[str, int]:
        uvloop = pytest.importorskip("uvloop", reason="needs uvloop")
        result: tuple[str, int] = uvloop.run(main(certs, handler))
        return result

    return run


def on_trio(main: Any) -> Callable[[Any, Any], tuple[str, int]]:
    def run(certs: Any, handler: Any) -> tuple[str, int]:
        import trio

        result: tuple[str, int] = trio.run(main, certs, handler)
        return result

    return run


SHELLS: dict[str, tuple[Callable[[Any, Any], tuple[str, int]], int]] = {
    "asyncio server": (lambda certs, handler: asyncio.run(serve_on_asyncio(certs, handler)), 0),
    "asyncio client": (lambda certs, handler: asyncio.run(connect_on_asyncio(certs, handler)), 0),
    "uvloop server": (on_uvloop(serve_on_asyncio), 0),
    "uvloop client": (on_uvloop(connect_on_asyncio), 0),
    "threads server": (serve_in_threads, 1),
    "threads client": (connect_in_threads, 1),
    "trio server": (on_trio(serve_on_trio), 2),
    "trio client": (on_trio(connect_on_trio), 2),
}


@pytest.mark.parametrize("beside", HANDLERS)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_flood_of_key_updates(shell: str, beside: str, certs: Any) -> None:
    run, kind = SHELLS[shell]
    how, answered = run(certs, HANDLERS[beside][kind])
    assert how in ("dropped", "not read")
    assert answered < BESIDE
