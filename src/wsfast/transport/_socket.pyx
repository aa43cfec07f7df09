"""A stream socket as an asyncio transport, in Cython: the fast twin of `_socket_py.py`, which explains the rules.

What is different here is only:

* The system is called directly, and `recv` fills what a `Receiver` lends without a call of Python in between.
* A large message is sent by sendmsg(2) from where it is.
* A socket that was accepted becomes an object of Python only if somebody asks for it.
* Many connections of a loop share one epoll (`_poller.pxi`).
"""

import asyncio
import os
import socket
import warnings
from asyncio.trsock import TransportSocket

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.string cimport memcpy

from .._codec cimport _seal

from .loops import may_nest

__all__ = ["Addresses", "Receiver", "SocketTransport", "accept", "nothing_unread_at"]


cdef extern from "_socket.h" nogil:
    ctypedef struct wsf_part:
        void *iov_base
        size_t iov_len
    ctypedef struct wsf_address:
        pass

    Py_ssize_t wsf_recv(int fd, char *data, Py_ssize_t n)
    Py_ssize_t wsf_send(int fd, const char *data, Py_ssize_t n, bint last)
    Py_ssize_t wsf_sendv(int fd, wsf_part *parts, int count)
    bint wsf_nothing_unread(int fd)
    bint wsf_again(int number)
    bint wsf_later(int number)
    bint wsf_nobody(int number)
    int wsf_accept(int fd, wsf_address *peer)
    void wsf_peer(int fd, wsf_address *peer)
    void wsf_local(int fd, wsf_address *local)
    bint wsf_has_text(const wsf_address *peer)
    int wsf_text(const wsf_address *peer, char *text, int *port, unsigned *flow, unsigned *scope)
    long wsf_unacknowledged(int fd)
    int wsf_end_sending(int fd)
    void wsf_close(int fd)


cdef enum:
    SCRATCH = 65536  # bytes received at a time for a protocol that lends no memory
    SHARE = 1048576  # bytes of a large message after which others have a turn
    KEEP = 16384  # bytes from which on what waits is kept as it is, not copied
    GATHERED = 65536  # bytes of what waits that are put together
    PARTS = 64  # that one call sends
    AGAIN = -1  # of `_receive`: nothing is there
    MOST = 0x7FFFFFFF  # of a limit
    HEAP_TYPE = 1 << 9  # of a type's flags: it was made by a class statement


cdef extern from "_threads.h":
    """
    static WSF_OF_THREAD char wsf_scratch[65536];
    """
    char *wsf_scratch
    unsigned int wsf_version(object thing)


cdef unsigned int _flat = 0  # the version of a class of loops that do not nest


cdef bint _may_nest(object loop) except -1:
    """Tell what `may_nest` does, which is known for as long as the class is not changed."""
    global _flat
    if _flat and _flat == wsf_version(loop):
        return False
    if may_nest(type(loop)):
        return True
    _flat = wsf_version(loop)
    return False


cdef class Receiver:
    """A protocol whose memory is filled without calls of Python: `get_buffer` and `buffer_updated`, in C."""

    def __cinit__(self, *args, **kwargs):
        if type(self) is Receiver:
            raise TypeError("cannot create 'Receiver' instances: it is a base class of protocols")

    cdef char *_lend_memory(self, Py_ssize_t *size) except NULL:
        raise NotImplementedError

    cdef bint _memory_filled(self, Py_ssize_t n) except -1:
        """Take in what was received; return whether a large message is under way."""
        raise NotImplementedError

    cdef int _write_gathered(self) except -1:
        """Write what was gathered for the end of the turn: somebody else writes to the transport, or ends it."""
        return 0


include "_poller.pxi"


cdef dict _plain_types = {}  # whether the type of a Receiver leaves `get_buffer` and `buffer_updated` as they are


cdef bint _is_plain(object kind) except -1:
    plain = _plain_types.get(kind)
    if plain is None:
        plain = not any(
            "get_buffer" in base.__dict__ or "buffer_updated" in base.__dict__
            for base in kind.__mro__
            if base.__flags__ & HEAP_TYPE and base is not asyncio.BufferedProtocol
        )
        if len(_plain_types) < 64:
            _plain_types[kind] = plain
    return plain


cdef Receiver as_receiver(object protocol):
    """Return a protocol whose memory can be had without a call of Python, or None."""
    return <Receiver>protocol if isinstance(protocol, Receiver) and _is_plain(type(protocol)) else None


@cython.final
cdef class Addresses:
    """The addresses of both ends of a connection, for after its end; they become objects of Python when asked for."""

    cdef wsf_address _remote
    cdef wsf_address _local

    @property
    def remote(self):
        return _address_of(&self._remote)

    @property
    def local(self):
        return _address_of(&self._local)


@cython.final
cdef class _Reader:
    """The callback of `add_reader`; it notices if the loop has dropped it.

    libuv calls once for a socket that failed, and never again: what is left in it has to be read all the same.
    """

    cdef SocketTransport _transport

    def __call__(self):
        self._transport._read_ready()

    def __repr__(self):
        return f"<reader of {self._transport!r}>"

    def __del__(self):
        if self._transport is not None and self._transport._registered:
            self._transport._reader_dropped()


cdef class SocketTransport:
    """A stream socket as an asyncio transport.

    Specified in `_socket_py.py`.
    """

    def __cinit__(self):
        self._fd = -1
        self._closing = True  # until there is a socket
        self._high = 65536
        self._low = 16384

    def __init__(self, loop, sock, protocol, owner=None):
        cdef int fd
        if self._loop is not None:
            raise RuntimeError("a transport is set up once")
        if sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket, got {sock!r}")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._loop = loop
        self._owner = owner
        fd = sock.detach()
        if fd < 0:
            raise ValueError("the socket is closed")
        self._fd = fd
        self._closing = False
        wsf_peer(fd, <wsf_address *>self._peer)
        self._set_protocol(protocol)

    def begin(self):
        """Call ``protocol.connection_made`` and begin to read; called once."""
        self._begin()

    cdef int _begin(self) except -1:
        try:
            self._protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._failed(exc, "protocol.connection_made() raised")
        if self._fd >= 0 and not self._closing and not self._read_paused and not self._registered:
            self._watch()
        return 0

    def __del__(self):
        if self._fd >= 0:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._end_socket()

    def __repr__(self):
        if self._fd < 0:
            return "<SocketTransport closed>"
        state = "closing" if self._closing else "reading" if self.is_reading() else "paused"
        return f"<SocketTransport fd={self._fd} {state}, {self._buffered} bytes unsent>"

    # --- Receiving

    cdef int _set_protocol(self, object protocol) except -1:
        self._protocol = protocol
        self._receiver = as_receiver(protocol)
        self._buffered_protocol = self._receiver is None and isinstance(protocol, asyncio.BufferedProtocol)
        return 0

    def set_protocol(self, protocol):
        """Let another protocol have what comes from now on."""
        self._set_protocol(protocol)

    def get_protocol(self):
        """Return the protocol; None once it was told of the end."""
        return self._protocol

    def _watch(self):
        cdef _Reader reader
        if self._watcher is None:
            self._watcher = _watcher_of(self._loop)
        if not self._watcher._poll(self):
            reader = _Reader.__new__(_Reader)
            reader._transport = self
            self._loop.add_reader(self._fd, reader)
            self._watcher._apart += 1
        self._registered = True

    cdef int _stop_reading(self) except -1:
        if self._registered:
            self._registered = False
            if self._context is not None:
                self._context = None
                self._watcher._poll_no_more(self)
            else:
                self._watcher._apart -= 1
                if not self._loop.is_closed():
                    self._loop.remove_reader(self._fd)
        return 0

    cdef int _stop_writing(self) except -1:
        if self._writing:
            self._writing = False
            if not self._loop.is_closed():
                self._loop.remove_writer(self._fd)
        return 0

    def _reader_dropped(self):
        # It stays registered: uvloop keeps a dead poll under this number, which `remove_reader` has to take away before
        # the number is somebody else's.
        if self._fd >= 0 and not self._closing and not self._loop.is_closed():
            self._loop.call_soon(self._reader_lost)

    def _reader_lost(self):
        if self._fd >= 0 and not self._closing:
            self._stop_reading()
            self._read_rest()

    def _read_rest(self):
        """Arrange to read again, in case the loop does not call again by itself."""
        cdef Py_ssize_t n
        if self._fd < 0 or self._closing or self._read_paused or self._registered:
            return
        n = self._receive()
        if self._fd < 0 or self._closing or self._read_paused or self._registered:
            return
        if n > 0:
            self._loop.call_soon(self._read_rest)
        elif n == AGAIN:
            self._watch()

    cpdef _read_ready(self):
        if self._closing or self._fd < 0:
            return
        if self._read_paused:
            # Only now: reading that is paused for a moment costs nothing.
            self._stop_reading()
            return
        if not _may_nest(self._loop):
            self._receive()
        elif not self._due:
            self._due = True
            self._loop.call_soon(self._receive_soon)

    def _receive_soon(self):
        self._due = False
        if not (self._closing or self._read_paused or self._fd < 0):
            self._receive()

    cdef Py_ssize_t _receive(self) except -2:
        """Read what is there, once, and again while a large message is under way; return how much, 0 at the end."""
        cdef Py_ssize_t n, size = 0, total = 0
        cdef char *memory
        cdef bint more
        cdef Receiver receiver
        cdef Py_buffer view
        cdef bint lent
        cdef int number
        try:
            while True:
                lent = False
                receiver = self._receiver
                if receiver is not None:
                    memory = receiver._lend_memory(&size)
                elif self._buffered_protocol:
                    buffer = self._protocol.get_buffer(-1)
                    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
                    memory = <char *>view.buf
                    size = view.len
                    if not size:
                        PyBuffer_Release(&view)
                        raise RuntimeError("get_buffer() returned an empty buffer")
                    lent = True
                else:
                    memory = wsf_scratch
                    size = SCRATCH
                n = wsf_recv(self._fd, memory, size)
                number = errno
                if lent:
                    PyBuffer_Release(&view)
                    buffer = None
                if n <= 0:
                    if n == 0:
                        self._end_reached()
                        return 0
                    if wsf_later(number):
                        return total if total else AGAIN
                    self._read_failed(number)
                    return 0
                total += n
                if receiver is not None:
                    more = receiver._memory_filled(n)
                elif lent:
                    self._protocol.buffer_updated(n)
                    more = False
                else:
                    self._protocol.data_received(PyBytes_FromStringAndSize(wsf_scratch, n))
                    more = False
                if not more or n < size or total >= SHARE or self._closing or self._read_paused or self._fd < 0:
                    return total
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._failed(exc, "the protocol raised")
        return total

    def _end_reached(self):
        if self._broken:
            return  # `_read_to_end` tells why
        keep_open = self._protocol.eof_received()
        if self._closing or self._fd < 0:
            return
        if keep_open:
            self._read_paused = True
            self._stop_reading()
        else:
            self.close()

    def _read_failed(self, number):
        if not self._broken:
            self._force_close(_error(number))

    cdef int _failed(self, object exc, object message) except -1:
        """Drop the connection because its protocol raised, which a protocol must not do."""
        loop = self._loop
        if loop is None:
            raise exc
        self._force_close(exc if isinstance(exc, Exception) else None)
        loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )
        return 0

    def is_reading(self):
        """Tell whether the protocol is handed what comes."""
        return not self._read_paused and not self._closing and self._fd >= 0

    def pause_reading(self):
        """Hand nothing to the protocol for now."""
        self._read_paused = True

    def resume_reading(self):
        """Go on."""
        if self._read_paused:
            self._read_paused = False
            if not self._registered and not self._closing and self._fd >= 0:
                self._watch()

    cdef bint _nothing_unread(self) noexcept:
        return self._fd >= 0 and not self._closing and wsf_nothing_unread(self._fd)

    def nothing_unread(self):
        """Tell whether it is certain that nothing waits to be read, not even the end."""
        return self._nothing_unread()

    # --- Sending

    cdef int _let_write(self) except -1:
        """Let the protocol write what it has gathered, before somebody else writes or ends the sending side."""
        if isinstance(self._protocol, Receiver):
            (<Receiver>self._protocol)._write_gathered()
        return 0

    cdef int _send(self, const char *data, Py_ssize_t n, bytes owner, bint last) except -1:
        """Send data; `owner` has it, or is None where it must be copied to be kept."""
        cdef Py_ssize_t sent = 0
        if self._closing or self._broken or not n:
            return 0
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self._buffered:
            sent = wsf_send(self._fd, data, n, last)
            if sent == n:
                return 0
            if sent < 0:
                if not wsf_later(errno):
                    return self._write_failed(errno)
                sent = 0
        self._keep(owner, data, n, sent)
        return self._wait_for_room()

    cdef int _send_two(self, bytes head, object owner, const char *data, Py_ssize_t m) except -1:
        """Send two pieces in one go, of which the second is large and stays as it is for as long as `owner` lives."""
        cdef Py_ssize_t sent = 0, n = PyBytes_GET_SIZE(head)
        cdef wsf_part parts[2]
        if self._closing or self._broken:
            return 0
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self._buffered:
            parts[0].iov_base = <void *>PyBytes_AS_STRING(head)
            parts[0].iov_len = n
            parts[1].iov_base = <void *>data
            parts[1].iov_len = m
            sent = wsf_sendv(self._fd, parts, 2)
            if sent - n == m:
                return 0
            if sent < 0:
                if not wsf_later(errno):
                    return self._write_failed(errno)
                sent = 0
        if sent < n:
            self._keep(head, PyBytes_AS_STRING(head), n, sent)
        self._keep(owner, data, m, max(sent - n, 0))
        return self._wait_for_room()

    cdef int _keep(self, object owner, const char *data, Py_ssize_t n, Py_ssize_t sent) except -1:
        """Keep what the system did not take: in one piece, small ones put together."""
        cdef list pieces
        cdef bytearray tail
        cdef Py_ssize_t left = n - sent, held
        if self._pieces is None:
            self._pieces = []
        pieces = self._pieces
        if not pieces:
            self._offset = 0
        if owner is not None and left >= KEEP:
            if pieces:
                # Only what is first was sent in part.
                pieces.append(owner if not sent else memoryview(owner)[sent:])
            else:
                pieces.append(owner)
                self._offset = sent
        elif left >= KEEP:
            pieces.append(PyBytes_FromStringAndSize(data + sent, left))
        else:
            if pieces and type(pieces[-1]) is bytearray and PyByteArray_GET_SIZE(pieces[-1]) + left <= GATHERED:
                tail = <bytearray>pieces[-1]
            else:
                tail = bytearray()
                pieces.append(tail)
            held = PyByteArray_GET_SIZE(tail)
            PyByteArray_Resize(tail, held + left)
            memcpy(PyByteArray_AS_STRING(tail) + held, data + sent, left)
        self._buffered += left
        return 0

    cdef int _wait_for_room(self) except -1:
        if not self._writing and not self._broken:
            self._loop.add_writer(self._fd, self._write_ready)
            self._writing = True
        if self._buffered > self._high and not self._protocol_paused:
            self._pause_protocol()
        return 0

    def _pause_protocol(self):
        self._protocol_paused = True
        try:
            self._protocol.pause_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, "protocol.pause_writing() raised")

    def _resume_protocol(self):
        self._protocol_paused = False
        try:
            self._protocol.resume_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, "protocol.resume_writing() raised")

    def _report(self, exc, message):
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )

    def _write_ready(self):
        cdef wsf_part parts[PARTS]
        cdef Py_buffer views[PARTS]
        cdef Py_ssize_t sent, size
        cdef int count = 0, filled = 0, k, number = 0
        cdef list pieces = self._pieces
        if self._fd < 0 or not self._writing or self._broken:
            return
        try:
            for piece in pieces:
                PyObject_GetBuffer(piece, &views[filled], PyBUF_SIMPLE)
                parts[filled].iov_base = views[filled].buf
                parts[filled].iov_len = views[filled].len
                filled += 1
                if filled == PARTS:
                    break
            parts[0].iov_base = <char *>parts[0].iov_base + self._offset
            parts[0].iov_len -= self._offset
            sent = wsf_sendv(self._fd, parts, filled)
            number = errno
        finally:
            for k in range(filled):
                PyBuffer_Release(&views[k])
        if sent < 0:
            if not wsf_later(number):
                self._write_failed(number)
            return
        self._buffered -= sent
        sent += self._offset
        while count < filled:
            size = views[count].len
            if sent < size:
                break
            sent -= size
            count += 1
        del pieces[:count]
        self._offset = sent
        try:
            if self._protocol_paused and self._buffered <= self._low:
                self._resume_protocol()  # which may write, or end the program
        finally:
            if self._fd >= 0 and not self._buffered:
                self._pieces = None
                self._stop_writing()
                if self._closing:
                    self._loop.call_soon(self._lost, None)
                elif self._eof:
                    self._end_sending()

    cdef int _write_failed(self, int number) except -1:
        """Note that nothing can be sent any more; what the peer sent before it went is read all the same."""
        cdef object exc = _error(number)
        self._broken = True
        self._pieces = None
        self._buffered = 0
        self._stop_writing()
        if self._closing:
            self._loop.call_soon(self._lost, exc)
        else:
            self._loop.call_soon(self._read_to_end, exc)
        return 0

    def _read_to_end(self, exc):
        cdef Py_ssize_t total = 0, n
        while self._fd >= 0 and not self._closing and not self._read_paused and total < SHARE:
            n = self._receive()
            if n <= 0:
                break
            total += n
        self._force_close(exc)

    def write(self, data):
        """Send data; what the system does not take now is kept, and sent when there is room."""
        cdef Py_buffer view
        self._let_write()
        if type(data) is bytes:
            self._send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), <bytes>data, False)
            return
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, got {type(data).__name__}")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._send(<const char *>view.buf, view.len, None, False)
        finally:
            PyBuffer_Release(&view)

    def writelines(self, parts):
        """Do the same with several parts."""
        self.write(b"".join(parts))

    def can_write_eof(self):
        """Return True: `write_eof` can be called."""
        return True

    def write_eof(self):
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

    def _end_sending(self):
        if wsf_end_sending(self._fd) < 0:
            self._write_failed(errno)

    @property
    def eof_written(self):
        """Whether `write_eof` was called."""
        return <bint>self._eof

    def get_write_buffer_size(self):
        """Return how many bytes wait here for the system to take them."""
        return self._buffered

    def get_write_buffer_limits(self):
        """Return the numbers of unsent bytes, low and high, at which the protocol is told to go on and to pause."""
        return self._low, self._high

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the numbers of unsent bytes at which the protocol is told to pause, and to go on."""
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

    def unacknowledged(self):
        """Return how many bytes the system holds that the peer's has not acknowledged; 0 if it does not tell."""
        return 0 if self._fd < 0 else wsf_unacknowledged(self._fd)

    # --- The end

    def is_closing(self):
        """Tell whether the connection has ended, or is ending."""
        return <bint>(self._closing or self._broken or self._fd < 0)

    def close(self):
        """End the connection once all is sent."""
        self._let_write()
        if self._closing or self._fd < 0:
            return
        self._closing = True
        self._stop_reading()
        if not self._buffered:
            self._stop_writing()
            self._loop.call_soon(self._lost, None)

    def abort(self):
        """End the connection at once."""
        self._force_close(None)

    def _force_close(self, exc):
        cdef bint told = self._closing and not self._buffered
        if self._fd < 0 or told:
            return
        self._closing = True
        self._pieces = None
        self._buffered = 0
        self._stop_writing()
        self._stop_reading()
        self._loop.call_soon(self._lost, exc)

    def _lost(self, exc):
        """Tell the protocol, and close the socket."""
        protocol = self._protocol
        if self._fd < 0:
            return
        try:
            protocol.connection_lost(exc)
        finally:
            self._end_socket()
            self._protocol = self._receiver = self._loop = self._watcher = None

    def _end_socket(self):
        cdef int fd = self._fd
        self._fd = -1
        self._closing = True
        sock, self._socket = self._socket, None
        if sock is not None:
            sock._sock.detach()  # whoever was given it finds it closed
        if fd >= 0:
            wsf_close(fd)
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    def get_extra_info(self, name, default=None):
        """Return what is known of the connection: ``socket``, ``peername`` or ``sockname``."""
        if name == "peername" or name == "sockname":
            return self._address(name, default)
        if name == "socket":
            sock = self._made_socket()
            return default if sock is None else sock
        return default

    def addresses(self):
        """Return the addresses of both ends, for use after the end."""
        cdef Addresses both = Addresses.__new__(Addresses)
        if self._fd < 0:
            return None
        memcpy(&both._remote, self._peer, sizeof(wsf_address))
        wsf_local(self._fd, &both._local)
        return both if wsf_has_text(&both._remote) and wsf_has_text(&both._local) else None

    def _address(self, name, default):
        cdef wsf_address local
        cdef object address
        if name == "peername":
            address = _address_of(<wsf_address *>self._peer)
        elif self._fd < 0:
            return default
        else:
            wsf_local(self._fd, &local)
            address = _address_of(&local)
        if address is not None:
            return address
        sock = self._made_socket()
        if sock is None:
            return default
        try:
            return sock.getpeername() if name == "peername" else sock.getsockname()
        except OSError:
            return default

    def _made_socket(self):
        if self._socket is None:
            if self._fd < 0:
                return None
            sock = socket.socket(fileno=self._fd)
            try:
                sock.setblocking(False)
            except OSError:
                pass
            self._socket = TransportSocket(sock)
        return self._socket


cdef object _address_of(const wsf_address *address):
    """Return an address of the Internet as `socket` gives it; None for another kind."""
    cdef char text[64]
    cdef int port = 0, kind
    cdef unsigned flow = 0, scope = 0
    kind = wsf_text(address, text, &port, &flow, &scope)
    if kind == 4:
        return (<bytes>text).decode("ascii"), port
    if kind == 6:
        return (<bytes>text).decode("ascii"), port, flow, scope
    return None


cdef object _error(int number):
    return OSError(number, os.strerror(number))


def nothing_unread_at(int fd):
    """Tell whether it is certain that nothing waits to be read from another's socket, not even the end."""
    return wsf_nothing_unread(fd)


def accept(loop, listening, factory):
    """Accept one connection, if one waits; specified in `_socket_py.py`."""
    cdef SocketTransport transport
    cdef wsf_address peer
    cdef int fd = wsf_accept(listening.fileno(), &peer), number = errno
    if fd < 0:
        if wsf_nobody(number):
            return True
        if wsf_again(number):
            return False
        raise _error(number)
    transport = SocketTransport.__new__(SocketTransport)
    transport._fd = fd
    transport._closing = False
    memcpy(transport._peer, &peer, sizeof(wsf_address))
    transport._loop = loop
    try:
        transport._set_protocol(factory())
    except BaseException as exc:
        transport._end_socket()
        if not isinstance(exc, Exception):
            raise
        loop.call_exception_handler({"message": "the protocol of a connection could not be made", "exception": exc})
    else:
        transport._begin()
    return True


_seal(globals())
