"""Two asyncio transports in memory that are each other's peer, with a network in between that a test commands."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final, Literal, TypeAlias, cast

__all__ = ["MemoryTransport", "Pipe", "Side", "check_network"]

Side: TypeAlias = Literal["client", "server"]
"""An end of a pipe."""

_PIECE: Final = 65536
"""The most bytes of one delivery, as one read of a socket has a limit."""
_SMOOTH: Final = 0.02
"""Seconds that one delivery stands for, at most, where `bandwidth` is limited."""
_HIGH: Final = 65536
_EOF: Final = b""


class MemoryTransport(asyncio.Transport):
    """One end of a `Pipe`, as asyncio wants a transport: flow control both ways, half-closing, `BufferedProtocol`.

    Args:
        pipe: what it belongs to.
        side: which end it is.
    """

    def __init__(self, pipe: Pipe, side: Side) -> None:
        names = {"client": ("127.0.0.1", 49152), "server": ("127.0.0.1", 80)}
        other: Side = "server" if side == "client" else "client"
        super().__init__({"sockname": names[side], "peername": names[other]})
        self._pipe = pipe
        self._side: Side = side
        self._protocol: Any = None
        self._unsent: deque[memoryview] = deque()  # written, not yet taken by the network
        self._unsent_size = 0
        self._high = _HIGH
        self._low = _HIGH // 4
        self._writing_paused = False
        self._reading_paused = False
        self._closing = False
        self._ended = False  # write_eof was called
        self._eof_sent = False
        self._lost = False

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<MemoryTransport {self._side} {state}>"

    # --- What asyncio.Transport asks for

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return cast(asyncio.BaseProtocol, self._protocol)

    def is_closing(self) -> bool:
        """Tell whether it is closed or closing."""
        return self._closing

    def is_reading(self) -> bool:
        """Tell whether what the peer sends is delivered."""
        return not self._closing and not self._reading_paused

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`; the network holds `window` bytes, the peer's buffer the rest."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Deliver again."""
        if self._reading_paused:
            self._reading_paused = False
            self._pipe._schedule(self._other())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the bytes unsent above which the protocol is paused, and at which it is resumed."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._check_writing()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, low and high."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return the bytes that were written and that the network has not taken."""
        return self._unsent_size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be a bytes-like object, got {type(data).__name__}")
        if self._ended:
            raise RuntimeError("cannot write after write_eof()")
        if self._closing or not len(data):
            return
        copy = memoryview(bytes(data))
        self._unsent.append(copy)
        self._unsent_size += len(copy)
        self._pipe._push(self)
        self._check_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send bytes that come in several pieces."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return True: it can be half-closed."""
        return True

    def write_eof(self) -> None:
        """End the sending side, after what is written was sent."""
        if not self._ended and not self._closing:
            self._ended = True
            self._pipe._push(self)

    def close(self) -> None:
        """Close, after what is written was sent."""
        if self._closing:
            return
        self._closing = True
        self._pipe._push(self)
        if not self._unsent:
            self._lose(None)

    def abort(self) -> None:
        """Close at once; what the network has not taken is lost."""
        self._closing = True
        self._unsent.clear()
        self._unsent_size = 0
        self._pipe._push(self)
        self._lose(None)

    # --- What the pipe asks for

    def _other(self) -> MemoryTransport:
        return self._pipe.server if self._side == "client" else self._pipe.client

    def _check_writing(self) -> None:
        if not self._writing_paused and self._unsent_size > self._high:
            self._writing_paused = True
            self._protocol.pause_writing()
        elif self._writing_paused and self._unsent_size <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()

    def _take(self, most: int) -> bytes:
        """Give the network the next piece that was written."""
        piece = self._unsent[0]
        if len(piece) > most:
            self._unsent[0] = piece[most:]
            piece = piece[:most]
        else:
            self._unsent.popleft()
        self._unsent_size -= len(piece)
        return bytes(piece)

    def _taken(self) -> None:
        """Note that the network took something."""
        if self._lost:
            return
        if not self._closing:
            self._check_writing()
        elif not self._unsent:
            self._lose(None)

    def _deliver(self, data: bytes) -> None:
        protocol = self._protocol
        if data is _EOF:
            keep_open = protocol.eof_received()
            if not keep_open:
                self.close()
        elif isinstance(protocol, asyncio.BufferedProtocol):
            while data:
                buffer = memoryview(cast(Any, protocol.get_buffer(len(data))))
                if not len(buffer):
                    raise RuntimeError("get_buffer() returned an empty buffer")
                n = min(len(buffer), len(data))
                buffer[:n] = data[:n]
                del buffer
                protocol.buffer_updated(n)
                data = data[n:]
                protocol = self._protocol
                if data and not isinstance(protocol, asyncio.BufferedProtocol):
                    protocol.data_received(data)
                    return
        else:
            protocol.data_received(data)

    def _lose(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._unsent.clear()
        self._unsent_size = 0
        self._pipe.loop.call_soon(self._protocol_lost, exc)

    def _protocol_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)


def check_network(latency: object, bandwidth: object, chunk_size: object, window: object) -> None:
    """Check what a `Pipe` is told; errors are those of it."""
    if not callable(latency):
        if isinstance(latency, bool) or not isinstance(latency, (int, float)):
            raise TypeError(f"latency must be a number of seconds or callable, got {type(latency).__name__}")
        if not 0 <= latency < inf:
            raise ValueError(f"latency must be at least 0 seconds, got {latency}")
    if bandwidth is not None:
        if isinstance(bandwidth, bool) or not isinstance(bandwidth, (int, float)):
            raise TypeError(f"bandwidth must be a number of bytes a second or None, got {type(bandwidth).__name__}")
        if not 0 < bandwidth < inf:
            raise ValueError(f"bandwidth must be a positive number of bytes a second, got {bandwidth}")
    for name, value in (("chunk_size", chunk_size), ("window", window)):
        if value is None and name == "chunk_size":
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            kind = "int or None" if name == "chunk_size" else "int"
            raise TypeError(f"{name} must be {kind}, got {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1 byte, got {value}")


class _Flight:
    """What is on its way in one direction."""

    __slots__ = ("free_at", "handle", "last", "pieces", "size", "stalled")

    def __init__(self) -> None:
        self.pieces: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.last = 0.0  # when the last piece is due: nothing overtakes
        self.free_at = 0.0  # when the line has sent what it took
        self.handle: asyncio.Handle | None = None
        self.stalled = False


class Pipe:
    """A network of two ends, in memory. `pair` makes one; by itself it serves to test protocols and transports.

    Args:
        loop: the event loop; default the running one.
        latency: seconds from one end to the other, or a callable that returns them for each piece. Default 0: at the
            loop's next turn. Order is kept.
        bandwidth: bytes a second, each way; default no limit.
        chunk_size: the most bytes that arrive at once; default 64 KiB. With 1, every byte comes by itself.
        window: bytes that the network holds each way while the receiver does not read; more stays in the sender's
            buffer. Default 64 KiB.

    Attributes:
        client, server: the two `MemoryTransport`.
        latency, bandwidth, chunk_size, window: as given; they can be set at any time, for what is sent from then on.

    Raises:
        ValueError, TypeError: one of them is out of range, or of another type; the text names it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        latency: float | Callable[[], float] = 0.0,
        bandwidth: float | None = None,
        chunk_size: int | None = None,
        window: int = 65536,
    ) -> None:
        check_network(latency, bandwidth, chunk_size, window)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop() if loop is None else loop
        self.latency = latency
        self.bandwidth = bandwidth
        self.chunk_size = chunk_size
        self.window = window
        self.client: MemoryTransport = MemoryTransport(self, "client")
        self.server: MemoryTransport = MemoryTransport(self, "server")
        self._flights: dict[MemoryTransport, _Flight] = {self.client: _Flight(), self.server: _Flight()}
        self._dropped = False

    def start(self, client: asyncio.BaseProtocol, server: asyncio.BaseProtocol) -> None:
        """Give each end its protocol, and tell both that the connection is made, the server's first."""
        self.server.set_protocol(server)
        self.client.set_protocol(client)
        server.connection_made(self.server)
        client.connection_made(self.client)

    # --- What a test commands

    def pause(self, side: Side | None = None) -> None:
        """Hold what is sent until `resume`: the network stalls, and neither end is told.

        Args:
            side: hold only what this end sends; None, the default, for both.
        """
        for end in self._ends(side):
            self._flights[end].stalled = True

    def resume(self, side: Side | None = None) -> None:
        """Deliver what `pause` held, in order."""
        for end in self._ends(side):
            self._flights[end].stalled = False
            self._schedule(end)

    def drop(self) -> None:
        """Lose all that is on its way and all that is still sent, for good, and tell neither end: a cable was pulled.

        The ends find out by their timeouts.
        """
        self._dropped = True
        for flight in self._flights.values():
            flight.stalled = True
            flight.pieces.clear()

    def reset(self) -> None:
        """Break the connection: what is on its way is lost, and both ends get `ConnectionResetError`."""
        self.drop()
        for end in self._ends(None):
            end._lose(ConnectionResetError("the connection was reset by its test"))

    def half_close(self, side: Side) -> None:
        """End what one end sends, as if it had closed its sending side: the other end gets the end of the stream.

        What this end sends from then on is lost.

        Args:
            side: the end that sends no more.
        """
        (end,) = self._ends(side)
        if not end._eof_sent:
            end._eof_sent = True
            self._fly(end, _EOF)

    @property
    def in_flight(self) -> dict[Side, int]:
        """Bytes of each end that are on their way, as a new dict."""
        return {end._side: self._flights[end].size for end in self._ends(None)}

    # --- How it works

    def _ends(self, side: Side | None) -> list[MemoryTransport]:
        if side is None:
            return [self.client, self.server]
        if side not in ("client", "server"):
            raise ValueError(f"side must be 'client' or 'server', got {side!r}")
        return [getattr(self, side)]

    def _push(self, end: MemoryTransport) -> None:
        """Let the network take what it has room for."""
        flight = self._flights[end]
        while end._unsent and (flight.size < self.window or end._eof_sent):
            if end._eof_sent:
                end._take(_PIECE)  # nobody will read it
                continue
            most = min(self.chunk_size or _PIECE, self.window - flight.size, _PIECE)
            if self.bandwidth is not None:
                most = min(most, max(1, int(self.bandwidth * _SMOOTH)))
            self._fly(end, end._take(most))
        if not end._unsent and (end._ended or end._closing) and not end._eof_sent:
            end._eof_sent = True
            self._fly(end, _EOF)

    def _fly(self, end: MemoryTransport, piece: bytes) -> None:
        flight = self._flights[end]
        flight.size += len(piece)
        if self._dropped:
            return  # the sender's window fills up, and nobody acknowledges
        due = self.loop.time()
        if self.bandwidth is not None:
            due = flight.free_at = max(due, flight.free_at) + len(piece) / self.bandwidth
        due += self.latency() if callable(self.latency) else self.latency
        flight.last = max(flight.last, due)
        flight.pieces.append((flight.last, piece))
        self._schedule(end)

    def _schedule(self, end: MemoryTransport) -> None:
        """See to it that the next piece of an end arrives when it is due."""
        flight = self._flights[end]
        if flight.handle is not None or flight.stalled or not flight.pieces:
            return
        if end._other()._reading_paused and not end._other()._closing:
            return
        due = flight.pieces[0][0]
        if due <= self.loop.time():
            flight.handle = self.loop.call_soon(self._arrive, end)
        else:
            flight.handle = self.loop.call_at(due, self._arrive, end)

    def _hurry(self) -> None:
        """Deliver what is on its way now, and what is still sent at once."""
        self.latency = 0.0
        self.bandwidth = None
        now = self.loop.time()
        for end, flight in self._flights.items():
            flight.last = flight.free_at = now
            flight.pieces = deque((now, piece) for _, piece in flight.pieces)
            if flight.handle is not None:
                flight.handle.cancel()
                flight.handle = None
            flight.stalled = self._dropped
            self._schedule(end)

    def _arrive(self, end: MemoryTransport) -> None:
        flight = self._flights[end]
        flight.handle = None
        target = end._other()
        if flight.stalled or not flight.pieces or (target._reading_paused and not target._closing):
            return
        # Some loops' timers are a little early.
        _, piece = flight.pieces.popleft()
        flight.size -= len(piece)
        try:
            if not target._closing:
                target._deliver(piece)
            elif piece and target._lost:
                # Nobody is left to take the data, and the sender's system learns that.
                end._lose(ConnectionResetError("the peer has closed the connection"))
        except Exception as exc:
            self.loop.call_exception_handler(
                {"message": "a protocol raised", "exception": exc, "transport": target, "protocol": target._protocol}
            )
            target._lose(exc)
        finally:
            self._push(end)
            end._taken()
            self._schedule(end)
