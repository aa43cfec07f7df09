"""A stream socket as an asyncio transport, in plain Python: the readable specification.

The socket belongs to the transport from `accept` or `connect` to the end: nobody else reads from it, writes to it or
closes it, so the descriptor cannot come to name another file in the meantime. It works on every loop that has
``add_reader`` and ``add_writer``. `_socket.pyx` is its fast twin, with the same names and the same behaviour.

Reading: once for each call of the loop, into the memory that the protocol lends; in Cython again at once while a large
message is under way.

Writing: at once; bytes that the system does not take are kept here, counted, and sent when there is room. What the peer
sent before it went is read even when writing fails.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..events import BytesLike
from ..octets import copied
from .binding import LATER
from .loops import may_nest
from .unacknowledged import unacknowledged

__all__ = ["Addresses", "Receiver", "SocketTransport", "accept", "nothing_unread_at"]

SCRATCH: Final = 65536
"""Bytes received at a time for a protocol that lends no memory."""
SHARE: Final = 1048576
"""The most bytes that are read from a peer that has gone."""
KEEP: Final = 16384
"""Waiting data of so many bytes is kept as it is, not copied."""
GATHERED: Final = 65536
"""Smaller pieces of waiting data are put together, up to so many bytes."""
PARTS: Final = 64
"""Pieces that one call sends."""
MOST: Final = 0x7FFFFFFF
"""Of a limit."""
MOST_SENT: Final = 1 << 30
"""Bytes that one call sends: some systems refuse more than an int holds, instead of taking a part of it."""

NOBODY: Final = frozenset(
    getattr(errno, name, -1)
    for name in (
        "ECONNABORTED",
        "EINTR",
        "EPERM",
        "ENETDOWN",
        "EPROTO",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "ETIMEDOUT",
    )
)
"""Errors of `accept` that belong to the one connection, which has ended by now; accept(2) has the list."""


def _views(parts: list[bytes | bytearray], start: int, most: int) -> list[memoryview]:
    """Return views of parts, from a place in the first on, of no more than so many bytes in all."""
    views = []
    for part in parts:
        with memoryview(part) as whole:
            views.append(whole[start : start + most])
        most -= len(views[-1])
        start = 0
        if not most:
            break
    return views


class Receiver:
    """A protocol whose memory is filled without calls of Python; only the Cython twin has such protocols."""

    __slots__ = ()


class Addresses:
    """The addresses of both ends of a connection, for after its end; they become objects of Python when asked for."""

    __slots__ = ("local", "remote")

    def __init__(self, remote: Any, local: Any) -> None:
        self.remote: Any = remote
        self.local: Any = local


class SocketTransport:
    """A stream socket as an asyncio transport.

    Args:
        loop: the event loop, which has ``add_reader`` and ``add_writer``.
        sock: a connected stream socket. The transport takes it over: to the caller it is closed.
        protocol: an `asyncio.Protocol` or an `asyncio.BufferedProtocol`.
        owner: closed, by ``owner.close()``, when the transport closes its socket; or None.

    Raises:
        ValueError: `sock` is closed, or no stream socket.
    """

    __slots__ = (
        "__weakref__",
        "_broken",
        "_buffered",
        "_buffered_protocol",
        "_closing",
        "_due",
        "_eof",
        "_high",
        "_loop",
        "_low",
        "_offset",
        "_owner",
        "_peer",
        "_pieces",
        "_protocol",
        "_protocol_paused",
        "_read_paused",
        "_registered",
        "_sock",
        "_writing",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.BaseProtocol, owner: Any = None
    ) -> None:
        self._sock: socket.socket | None = None
        if sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket, got {sock!r}")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        family, kind, proto = sock.family, sock.type, sock.proto
        fd = sock.detach()
        if fd < 0:
            raise ValueError("the socket is closed")
        self._sock = socket.socket(family, kind, proto, fileno=fd)
        self._sock.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = loop
        self._owner = owner
        self._pieces: list[Any] = []
        self._offset = 0  # of the first of them, what was sent
        self._buffered = 0
        self._high, self._low = 65536, 16384
        self._due = False  # `_receive_soon` will be called
        self._registered = False  # the loop calls when there is something to read
        self._writing = False  # the loop calls when there is room
        self._read_paused = self._protocol_paused = self._eof = self._closing = False
        self._broken = False  # nothing can be sent any more
        try:
            self._peer: Any = self._sock.getpeername()
        except OSError:
            self._peer = None
        self.set_protocol(protocol)

    def begin(self) -> None:
        """Call ``protocol.connection_made`` and begin to read; called once."""
        try:
            self._protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._failed(exc, "protocol.connection_made() raised")
        if self._sock is not None and not self._closing and not self._read_paused and not self._registered:
            self._watch()

    def __del__(self) -> None:
        if self._sock is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._end_socket()

    def __repr__(self) -> str:
        if self._sock is None:
            return "<SocketTransport closed>"
        state = "closing" if self._closing else "reading" if self.is_reading() else "paused"
        return f"<SocketTransport fd={self._sock.fileno()} {state}, {self._buffered} bytes unsent>"

    # --- Receiving ----------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what comes from now on."""
        self._protocol: Any = protocol
        self._buffered_protocol = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> Any:
        """Return the protocol; None once it was told of the end."""
        return self._protocol

    def _watch(self) -> None:
        assert self._loop is not None
        self._loop.add_reader(self._sock, _Reader(self))  # type: ignore[arg-type]
        self._registered = True

    def _stop_reading(self) -> None:
        if self._registered:
            self._registered = False
            assert self._loop is not None
            if not self._loop.is_closed():
                self._loop.remove_reader(self._sock)  # type: ignore[arg-type]

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            assert self._loop is not None
            if not self._loop.is_closed():
                self._loop.remove_writer(self._sock)  # type: ignore[arg-type]

    def _reader_dropped(self) -> None:
        # It stays registered: uvloop keeps a dead poll under this number, which `remove_reader` has to take away before
        # the number is somebody else's.
        if self._sock is not None and not self._closing and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._reader_lost)

    def _reader_lost(self) -> None:
        if self._sock is not None and not self._closing:
            self._stop_reading()
            self._read_rest()

    def _read_rest(self) -> None:
        """Arrange to read again, in case the loop does not call again by itself."""
        if not self._may_read() or self._registered:
            return
        n = self._receive()
        if not self._may_read() or self._registered:
            return
        assert self._loop is not None
        if n is None:
            self._watch()
        elif n:
            self._loop.call_soon(self._read_rest)

    def _may_read(self) -> bool:
        return self._sock is not None and not self._closing and not self._read_paused

    def _read_ready(self) -> None:
        if self._closing or self._sock is None:
            return
        if self._read_paused:
            # Only now: reading that is paused for a moment costs nothing.
            self._stop_reading()
            return
        if not may_nest(type(self._loop)):  # type: ignore[arg-type]
            self._receive()
        elif not self._due:
            # Not here: while a callback of the reader is at work, a nested loop cannot call it again.
            self._due = True
            assert self._loop is not None
            self._loop.call_soon(self._receive_soon)

    def _receive_soon(self) -> None:
        self._due = False
        if self._may_read():
            self._receive()

    def _receive(self) -> int | None:
        """Read what is there, once; return how much, 0 at the end, and None if there was nothing."""
        assert self._sock is not None
        try:
            buffer = memoryview(self._protocol.get_buffer(-1) if self._buffered_protocol else bytearray(SCRATCH))
            if not buffer.nbytes:
                raise RuntimeError("get_buffer() returned an empty buffer")
            try:
                n = self._sock.recv_into(buffer)
            except OSError as exc:
                if exc.errno in LATER:
                    return None
                if not self._broken:  # else `_read_to_end` tells why
                    self._force_close(exc)
                return 0
            if not n:
                self._end_reached()
            elif self._buffered_protocol:
                del buffer
                self._protocol.buffer_updated(n)
            else:
                self._protocol.data_received(bytes(buffer[:n]))
            return n
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._failed(exc, "the protocol raised")
            return 0

    def _end_reached(self) -> None:
        if self._broken:
            return  # `_read_to_end` tells why
        keep_open = self._protocol.eof_received()
        if self._closing or self._sock is None:
            return
        if keep_open:
            self._read_paused = True
            self._stop_reading()
        else:
            self.close()

    def _failed(self, exc: BaseException, message: str) -> None:
        """Drop the connection because its protocol raised, which a protocol must not do."""
        loop = self._loop
        if loop is None:
            raise exc
        self._force_close(exc if isinstance(exc, Exception) else None)
        loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )

    def is_reading(self) -> bool:
        """Tell whether the protocol is handed what comes."""
        return not self._read_paused and not self._closing and self._sock is not None

    def pause_reading(self) -> None:
        """Hand nothing to the protocol for now."""
        self._read_paused = True

    def resume_reading(self) -> None:
        """Go on."""
        if self._read_paused:
            self._read_paused = False
            if not self._registered and not self._closing and self._sock is not None:
                self._watch()

    def nothing_unread(self) -> bool:
        """Tell whether it is certain that nothing waits to be read, not even the end."""
        if self._sock is None or self._closing:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    # --- Sending ------------------------------------------------------------------------------------------

    def _let_write(self) -> None:
        """Let the protocol write what it has gathered, before somebody else writes or ends the sending side."""
        write_gathered = getattr(self._protocol, "write_gathered", None)
        if write_gathered is not None:
            write_gathered()

    def write(self, data: BytesLike) -> None:
        """Send data; what the system does not take now is kept, and sent when there is room.

        Without effect once the connection is closing, or has failed.

        Raises:
            RuntimeError: `write_eof` was called.
            TypeError: data is not bytes-like.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, got {type(data).__name__}")
        self._let_write()
        if self._closing or self._broken or not len(data):
            return
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        assert self._sock is not None
        assert self._loop is not None
        view = memoryview(copied(data))
        if not self._buffered:
            try:
                sent = self._sock.send(view[:MOST_SENT])
            except OSError as exc:
                if exc.errno not in LATER:
                    self._write_failed(exc)
                    return
                sent = 0
            view = view[sent:]
            if not view:
                return
        self._keep(view)
        if not self._writing:
            self._loop.add_writer(self._sock, self._write_ready)
            self._writing = True
        if self._buffered > self._high and not self._protocol_paused:
            self._pause_protocol()

    def _keep(self, view: memoryview) -> None:
        """Keep what the system did not take: small pieces put together."""
        if not self._pieces:
            self._offset = 0
        n = len(view)
        if n >= KEEP:
            self._pieces.append(bytes(view))
        elif self._pieces and type(self._pieces[-1]) is bytearray and len(self._pieces[-1]) + n <= GATHERED:
            self._pieces[-1] += view
        else:
            self._pieces.append(bytearray(view))
        self._buffered += n

    def writelines(self, parts: Iterable[BytesLike]) -> None:
        """Do the same with several parts."""
        self.write(b"".join(parts))

    def _pause_protocol(self) -> None:
        self._protocol_paused = True
        try:
            self._protocol.pause_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, "protocol.pause_writing() raised")

    def _resume_protocol(self) -> None:
        self._protocol_paused = False
        try:
            self._protocol.resume_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, "protocol.resume_writing() raised")

    def _report(self, exc: BaseException, message: str) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )

    def _write_ready(self) -> None:
        if self._sock is None or not self._writing or self._broken:
            return
        assert self._loop is not None
        parts = self._pieces[:PARTS]
        sizes = [len(part) for part in parts]
        views = _views(parts, self._offset, MOST_SENT)
        try:
            sent = self._sock.sendmsg(views)
        except OSError as exc:
            if exc.errno not in LATER:
                self._write_failed(exc)
            return
        finally:
            for view in views:
                view.release()  # the last part may grow
        self._buffered -= sent
        sent += self._offset
        count = 0
        for size in sizes:
            if sent < size:
                break
            sent -= size
            count += 1
        del self._pieces[:count]
        self._offset = sent
        try:
            if self._protocol_paused and self._buffered <= self._low:
                self._resume_protocol()  # which may write, or end the program
        finally:
            if self._sock is not None and not self._buffered:
                self._stop_writing()
                if self._closing:
                    self._loop.call_soon(self._lost, None)
                elif self._eof:
                    self._end_sending()

    def _write_failed(self, exc: OSError) -> None:
        """Note that nothing can be sent any more; what the peer sent before it went is read all the same."""
        assert self._loop is not None
        self._broken = True
        self._pieces = []
        self._buffered = 0
        self._stop_writing()
        self._loop.call_soon(self._lost if self._closing else self._read_to_end, exc)

    def _read_to_end(self, exc: OSError) -> None:
        total = 0
        while self._may_read() and total < SHARE:
            n = self._receive()
            if not n:
                break
            total += n
        self._force_close(exc)

    def can_write_eof(self) -> bool:
        """Return True: `write_eof` can be called."""
        return True

    def write_eof(self) -> None:
        """End the sending side once all is sent."""
        self._let_write()
        if self._closing or self._eof or self._broken:
            return
        self._eof = True
        if not self._buffered:
            self._end_sending()
        sending_ended = getattr(self._protocol, "sending_ended", None)
        if sending_ended is not None:
            sending_ended()

    def _end_sending(self) -> None:
        assert self._sock is not None
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self._write_failed(exc)

    @property
    def eof_written(self) -> bool:
        """Whether `write_eof` was called."""
        return self._eof

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait here for the system to take them."""
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the numbers of unsent bytes, low and high, at which the protocol is told to go on and to pause."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the numbers of unsent bytes at which the protocol is told to pause, and to go on.

        Args:
            high: 64 KiB by default, or four times `low`; more than 2 GiB is the same as 2 GiB.
            low: a quarter of `high` by default.

        Raises:
            ValueError: `low` is more than `high`, or negative.
        """
        if high is None:
            high = 65536 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"expected high >= low >= 0, got high={high!r} and low={low!r}")
        self._high = min(high, MOST)
        self._low = min(low, MOST)
        if self._buffered > self._high and not self._protocol_paused:
            self._pause_protocol()

    def unacknowledged(self) -> int:
        """Return how many bytes the system holds that the peer's has not acknowledged; 0 if it does not tell."""
        return unacknowledged(self._sock)

    # --- The end ------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Tell whether the connection has ended, or is ending."""
        return self._closing or self._broken or self._sock is None

    def close(self) -> None:
        """End the connection once all is sent."""
        self._let_write()
        if self._closing or self._sock is None:
            return
        assert self._loop is not None
        self._closing = True
        self._stop_reading()
        if not self._buffered:
            self._stop_writing()
            self._loop.call_soon(self._lost, None)

    def abort(self) -> None:
        """End the connection at once."""
        self._force_close(None)

    def _force_close(self, exc: Exception | None) -> None:
        if self._sock is None or (self._closing and not self._buffered):
            return
        assert self._loop is not None
        self._closing = True
        self._pieces = []
        self._buffered = 0
        self._stop_writing()
        self._stop_reading()
        self._loop.call_soon(self._lost, exc)

    def _lost(self, exc: Exception | None) -> None:
        """Tell the protocol, and close the socket."""
        if self._sock is None:
            return
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._end_socket()
            self._protocol = self._loop = None

    def _end_socket(self) -> None:
        sock, self._sock = self._sock, None
        self._closing = True
        if sock is not None:
            sock.close()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection: ``socket``, ``peername`` or ``sockname``.

        The peer's address is known after the end, too. The socket is for asking and for setting options: it can
        neither be closed nor be taken out of the transport.
        """
        if name == "peername" and self._peer is not None:
            return self._peer
        if self._sock is None:
            return default
        try:
            if name == "socket":
                return TransportSocket(self._sock)
            if name == "sockname":
                return self._sock.getsockname()
            if name == "peername":
                return self._sock.getpeername()
        except OSError:
            pass
        return default

    def addresses(self) -> Addresses | None:
        """Return the addresses of both ends, for use after the end.

        Returns:
            None if they are not addresses of IPv4 or IPv6, or not known.
        """
        sock = self._sock
        if sock is None or self._peer is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        try:
            return Addresses(self._peer, sock.getsockname())
        except OSError:
            return None


class _Reader:
    """The callback of `add_reader`; it notices if the loop has dropped it.

    libuv calls once for a socket that failed, and never again: what is left in it has to be read all the same.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: SocketTransport) -> None:
        self._transport = transport

    def __call__(self) -> None:
        self._transport._read_ready()

    def __repr__(self) -> str:
        return f"<reader of {self._transport!r}>"

    def __del__(self) -> None:
        if self._transport._registered:
            self._transport._reader_dropped()


def nothing_unread_at(fd: int) -> bool:
    """Tell whether it is certain that nothing waits to be read from another's socket, not even the end.

    Args:
        fd: its descriptor, which does not block.
    """
    try:
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError):
        return False
    try:
        sock.setblocking(False)  # PyPy has just let it block, for both
        sock.recv(1, socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0))
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        sock.detach()
    return False


def accept(
    loop: asyncio.AbstractEventLoop, listening: socket.socket, factory: Callable[[], asyncio.BaseProtocol]
) -> bool:
    """Accept one connection, if one waits, and begin it.

    Args:
        loop: the event loop.
        listening: a listening socket that does not block.
        factory: makes the protocol; what it raises is for the loop's exception handler.

    Returns:
        False if none waits.

    Raises:
        OSError: the system refuses: it is out of descriptors or memory, or the socket does not listen.
    """
    try:
        sock, _ = listening.accept()
    except OSError as exc:
        if exc.errno in NOBODY:
            return True
        if exc.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
            return False
        raise OSError(exc.errno, os.strerror(exc.errno or 0)) from None
    try:
        transport = SocketTransport(loop, sock, factory())
    except BaseException as exc:
        sock.close()
        if not isinstance(exc, Exception):
            raise
        loop.call_exception_handler({"message": "the protocol of a connection could not be made", "exception": exc})
    else:
        transport.begin()
    return True
