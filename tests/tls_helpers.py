"""What the tests of TLS share: both twins of the transport, a peer in memory, and a transport below that is none."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import wsfast._built
import wsfast.transport.tls

TWINS = ("cython", "python")
VERSIONS = {"TLSv1.3": ssl.TLSVersion.TLSv1_3, "TLSv1.2": ssl.TLSVersion.TLSv1_2}


def load_tls(twin: str) -> ModuleType:
    """Load `wsfast.transport.tls` once more, on one of the twins. A missing extension is an error, never a skip."""
    spec = importlib.util.spec_from_file_location(f"wsfast.transport.tls_{twin}", wsfast.transport.tls.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    built: Any = wsfast._built
    chosen, built.IMPLEMENTATION = built.IMPLEMENTATION, twin
    try:
        spec.loader.exec_module(module)
    finally:
        built.IMPLEMENTATION = chosen
    expected = {"cython": "wsfast.transport._tls", "python": "wsfast.transport._tls_py"}[twin]
    assert module.TLSTransport.__mro__[1].__module__ == expected
    return module


class Peer:
    """The other end, in memory: what it `takes` is to be carried to this side, what it `receives` came from there.

    Attributes:
        got: what it was sent, decrypted.
        ended: whether that was followed by close_notify.
        alert: the name of the alert that it was sent, or that it found a reason for.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side, None if server_side else "localhost")
        self.got = b""
        self.ended = False
        self.alert = ""
        self._open = False

    def take(self) -> bytes:
        """Return the records that it wants to send."""
        return self._out.read()

    def begin(self) -> bytes:
        """Return its first records."""
        self.receive(b"")
        return self.take()

    def send(self, *messages: bytes) -> bytes:
        """Return records, at least one for each message."""
        for message in messages:
            self.tls.write(message)
        return self.take()

    def close_notify(self) -> bytes:
        """Return the record that ends its side."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.take()

    def receive(self, records: bytes) -> bytes:
        """Take in records; return what was in them."""
        self._in.write(records)
        came = b""
        try:
            if not self._open:
                self.tls.do_handshake()
                self._open = True
            while data := self.tls.read(65536):
                came += data
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as exc:
            self.alert = exc.reason or ""
        self.got += came
        return came


class Below(asyncio.Transport):
    """What is below: `arrive` puts bytes into its socket, which it reads as long as it is not paused.

    Attributes:
        writes: what was written and not yet taken by `written`.
        calls: what was asked of it beside that.
        unsent: what it says of its buffer.
    """

    def __init__(self, protocol: Any) -> None:
        super().__init__({"peername": ("peer", 1), "sockname": ("here", 2), "socket": None})
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.calls: list[str] = []
        self.unsent = 0
        self._came = b""
        self._end: Callable[[], None] | None = None
        self._reading = True
        self._closing = False
        self._lost = False
        self.loop = asyncio.get_running_loop()

    # --- What happens to the socket

    def arrive(self, data: bytes = b"", *, piece: int = 1 << 30, then: str = "") -> None:
        """Let the peer send, in pieces of a size, and then end: by ``"eof"`` or ``"reset"``."""
        self._came += data
        self._piece = piece
        if then:
            self._end = {"eof": self._on_eof, "reset": self._on_reset}[then]
        self._read()

    def _read(self) -> None:
        while self._came and self._reading and not self._closing:
            view = self.protocol.get_buffer(-1)
            n = min(len(view), len(self._came), self._piece)
            view[:n] = self._came[:n]
            self._came = self._came[n:]
            try:
                self.protocol.buffer_updated(n)
            except Exception as exc:  # as the event loops do it
                self.calls.append(f"raised {exc!r}")
                self._force_close(exc)
        if self._reading and not self._closing and self._end is not None:
            end, self._end = self._end, None
            end()

    def _on_eof(self) -> None:
        if not self.protocol.eof_received():
            self.close()

    def _on_reset(self) -> None:
        self._force_close(ConnectionResetError())

    def fail(self, exc: Exception) -> None:
        """Let the connection be lost though reading is paused, as when something was to be sent."""
        self._force_close(exc)

    def _force_close(self, exc: Exception | None) -> None:
        self._closing = True
        if not self._lost:
            self._lost = True
            self.loop.call_soon(self.protocol.connection_lost, exc)

    def written(self) -> list[bytes]:
        """Take what was written."""
        writes, self.writes = self.writes, []
        return writes

    # --- What the protocol above calls

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append(f"limits {high} {low}")

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        assert not self._closing
        assert "write_eof" not in self.calls
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        assert not self._closing
        self._reading = False

    def resume_reading(self) -> None:
        assert not self._closing
        self._reading = True
        self.loop.call_soon(self._read)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def close(self) -> None:
        if not self._closing:
            self.calls.append("close")
            self._force_close(None)

    def abort(self) -> None:
        self.calls.append("abort")
        self._force_close(None)


class App:
    """A protocol that notes what it is told.

    Attributes:
        told: "made", "eof", "lost", "pause" and "resume", in their order, and the bytes it was handed.
        on: what to do besides, by what is told ("data" for bytes); called with the transport.
    """

    def __init__(self, **on: Callable[[Any], object]) -> None:
        self.told: list[str | bytes] = []
        self.error: Exception | None = None
        self.on = on
        self.transport: Any = None

    def _tell(self, what: str | bytes) -> None:
        self.told.append(what)
        if do := self.on.get(what if isinstance(what, str) else "data"):
            do(self.transport)

    @property
    def data(self) -> bytes:
        """What it was handed."""
        return b"".join(what for what in self.told if isinstance(what, bytes))

    @property
    def events(self) -> list[str]:
        """What else it was told."""
        return [what for what in self.told if isinstance(what, str)]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._tell("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self._tell("lost")

    def eof_received(self) -> None:
        self._tell("eof")

    def pause_writing(self) -> None:
        self._tell("pause")

    def resume_writing(self) -> None:
        self._tell("resume")


class PlainApp(App, asyncio.Protocol):
    """One that is handed bytes."""

    def data_received(self, data: bytes) -> None:
        self._tell(data)


class BufferedApp(App, asyncio.BufferedProtocol):
    """One that lends memory, of a size."""

    def __init__(self, size: int = 65536, **on: Callable[[Any], object]) -> None:
        super().__init__(**on)
        self.memory = bytearray(size)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.memory)

    def buffer_updated(self, nbytes: int) -> None:
        self._tell(bytes(self.memory[:nbytes]))


class StubObject:
    """In place of an `ssl.SSLObject`: no encryption, and it can be told to fail.

    Attributes:
        waits: after how many more writes it wants to read first; -1 for never.
        error: what its next `write` raises instead.
    """

    def __init__(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.waits = -1
        self.error: Exception | None = None
        self.asked: list[bytes] = []

    def do_handshake(self) -> None:
        pass

    def pending(self) -> int:
        return 0

    def read(self, n: int, buffer: Any) -> int:
        data = self._incoming.read(n)
        if not data:
            raise ssl.SSLWantReadError
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        if self.error is not None:
            raise self.error
        if self.waits == 0:
            self.asked.append(bytes(data))
            raise ssl.SSLWantReadError
        self.waits -= 1
        if self.asked:
            # OpenSSL takes it for a mistake if a write is taken up again with something else.
            assert {bytes(data)} == set(self.asked)
            self.asked.clear()
        return self._outgoing.write(data)

    def unwrap(self) -> None:
        self._outgoing.write(b"<close_notify>")


class StubContext:
    """In place of an `ssl.SSLContext`."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *rest: object) -> StubObject:
        return StubObject(incoming, outgoing)


def cuts(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    """Cut data in pieces of the sizes."""
    at = 0
    while at < len(data):
        size = next(sizes)
        yield data[at : at + size]
        at += size
