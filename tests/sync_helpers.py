"""What tests of the client without an event loop share: servers in threads, well-behaved and scripted."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from shared import echo

import wsfast
from wsfast.handshake import accept_key

PATIENCE = 10.0  # seconds that anything in these tests may take at most


def until(condition: Callable[[], object]) -> None:
    """Wait for what has no event."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def in_thread(call: Callable[[], Any]) -> threading.Thread:
    """Call in a thread."""
    thread = threading.Thread(target=call, name="test")
    thread.start()
    return thread


def client_threads() -> list[threading.Thread]:
    """Return the threads of the client's that run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("wsfast")]


class Running:
    """A wsfast server on an event loop in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: wsfast.Server, uri: str) -> None:
        self.loop = loop
        self.server = server
        self.uri = uri

    def call(self, make: Callable[[], Any]) -> Any:
        """Run a coroutine function on the server's loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(PATIENCE)


@contextlib.contextmanager
def running(handler: Any = echo, *, port: int = 0, **options: Any) -> Iterator[Running]:
    """Run a wsfast server; options are those of `wsfast.serve`."""
    started: list[Running] = []
    ready = threading.Event()
    stop: list[Callable[[], object]] = []
    failed: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        where = () if "path" in options else ("127.0.0.1", port)
        async with wsfast.serve(handler, *where, **options) as server:
            scheme = "wss" if options.get("ssl") else "ws"
            address = server.sockets[0].getsockname()
            uri = "ws://localhost/" if "path" in options else f"{scheme}://localhost:{address[1]}/"
            started.append(Running(loop, server, uri))
            ready.set()
            await stopping.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as exc:
            failed.append(exc)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(PATIENCE)
    try:
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        if stop:
            stop[0]()
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Peer:
    """One connection of a scripted server: a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""

    def read_head(self) -> bytes:
        """Read a head."""
        while not self.head.endswith(b"\r\n\r\n"):
            data = self.sock.recv(1)
            if not data:
                break
            self.head += data
        return self.head

    def header(self, name: str) -> str | None:
        """Return the value of a header of the request."""
        found = re.search(rb"(?im)^%s:[ \t]*(.*?)\r$" % name.encode(), self.head)
        return None if found is None else found[1].decode("latin-1")

    def accept(self, *headers: str, key: str | None = None) -> None:
        """Read the request and agree to a WebSocket."""
        self.read_head()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(key or self.header('Sec-WebSocket-Key') or '')}",
            *headers,
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def until_end(self) -> bytes:
        """Read until the client ends the connection; return what came."""
        came = b""
        with contextlib.suppress(OSError):
            while data := self.sock.recv(65536):
                came += data
        return came

    def reset(self) -> None:
        """End with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


@contextlib.contextmanager
def scripted(script: Callable[[Peer], Any], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run a server whose connections do what a script says, each in a thread; yields its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    peers: list[socket.socket] = []
    failures: list[BaseException] = []

    def serve(sock: socket.socket) -> None:
        try:
            with sock:
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_side=True)
                with sock:
                    peers.append(sock)
                    script(Peer(sock))
        except OSError:
            pass  # the client has gone, as it may
        except BaseException as exc:
            failures.append(exc)

    def run() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(sock,)))
            threads[-1].start()

    accepting = threading.Thread(target=run)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(PATIENCE)
        for sock in peers:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert not failures, failures


def relay(one: socket.socket, other: socket.socket) -> None:
    """Copy bytes both ways until one side ends."""
    pairs = {one: other, other: one}
    while True:
        waiting = [sock for sock in pairs if isinstance(sock, ssl.SSLSocket) and sock.pending()]
        ready = waiting or select.select(list(pairs), [], [])[0]
        for sock in ready:
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                return
            pairs[sock].sendall(data)


def http_proxy(seen: list[bytes], answer: bytes | None = None) -> Callable[[Peer], None]:
    """Make the script of an HTTP proxy: it notes the requests, and connects to where they say unless told to answer."""

    def script(peer: Peer) -> None:
        head = peer.read_head()
        seen.append(head)
        if answer is not None:
            peer.sock.sendall(answer)
            peer.until_end()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as there:
            peer.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            relay(peer.sock, there)

    return script


def socks_proxy(seen: list[str]) -> Callable[[Peer], None]:
    """Make the script of a SOCKS5 proxy (RFC 1928) with user name and password (RFC 1929)."""

    def take(sock: socket.socket, n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = sock.recv(n - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    def script(peer: Peer) -> None:
        sock = peer.sock
        methods = take(sock, take(sock, 2)[1])
        if 2 in methods:
            sock.sendall(b"\5\2")
            name = take(sock, take(sock, 2)[1]).decode()
            password = take(sock, take(sock, 1)[0]).decode()
            seen.append(f"{name}:{password}")
            sock.sendall(b"\1\0")
        else:
            sock.sendall(b"\5\0")
        kind = take(sock, 4)[3]
        host = socket.inet_ntoa(take(sock, 4)) if kind == 1 else take(sock, take(sock, 1)[0]).decode()
        port = int.from_bytes(take(sock, 2), "big")
        seen.append(f"{host}:{port}")
        with socket.create_connection((host, port), timeout=PATIENCE) as there:
            sock.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            relay(sock, there)

    return script
