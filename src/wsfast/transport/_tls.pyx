"""The hot path of TLS, in Cython: the fast twin of `_tls_py.py`, where the rules are explained.

What is different here is only:

* With the transport of wsfast below, and a protocol of wsfast above, bytes move without a call of Python in between.
* What is called for each message is below `ssl.SSLObject`, whose methods only call it.
"""

import asyncio
import ssl
from collections import deque

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t

from .._codec cimport _seal
from ._socket cimport Receiver, SocketTransport, as_receiver

__all__ = ["ReceiveBuffer", "TLSPipe"]


cdef enum:
    HEAD = 5  # bytes of a record's head
    LONGEST = 18432  # bytes that follow it at most
    PORTION = 32768  # bytes of records after which no further one is taken in before they are handed on
    PIECE = 65536  # bytes that are encrypted in one go
    HELD = 81920  # bytes of records that are sent without waiting for the end of the batch
    OVERHEAD = 32  # bytes of a record, about, that are not the protocol's
    SPARE = 18432  # bytes of memory for a connection while another one is at work on the shared memory
    OWN = 65536  # bytes that the peer may make TLS itself say while it takes none of it
    NONE = -1  # missing of a record that is none
    ANY = 1 << 30  # records

cdef object SSLError = ssl.SSLError
cdef object SSLWantReadError = ssl.SSLWantReadError


cdef inline Py_ssize_t _following(const uint8_t *head, int n) noexcept:
    cdef Py_ssize_t length
    if not 20 <= head[0] <= 24 or n > 1 and head[1] != 3:
        return NONE
    if n < HEAD:
        return 0
    length = head[3] << 8 | head[4]
    return length if 0 < length <= LONGEST else NONE


@cython.final
cdef class _Memory:
    """Memory for the `ssl` module to read or to fill, which is only looked at while that is called."""

    cdef uint8_t *_start
    cdef Py_ssize_t _size

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self._start == NULL:
            raise BufferError("the memory was given back")
        PyBuffer_FillInfo(view, self, self._start, self._size, 0, flags)


cdef class ReceiveBuffer:
    """The memory that the TLS connections of a loop receive into, and whether one of them is at work on it."""

    cdef bytearray _memory
    cdef Py_buffer *_view  # held to the end, so that nobody can resize it; Cython would let go of a view of its own
    cdef bint _busy

    def __cinit__(self, Py_ssize_t size):
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        self._memory = bytearray(size)
        self._view = <Py_buffer *>PyMem_Calloc(1, sizeof(Py_buffer))
        if self._view == NULL:
            raise MemoryError
        PyObject_GetBuffer(self._memory, self._view, PyBUF_WRITABLE)

    def __dealloc__(self):
        if self._view != NULL:
            PyBuffer_Release(self._view)
            PyMem_Free(self._view)


cdef class TLSPipe(Receiver):
    """The bytes of one TLS connection, between its transport and its protocol.

    Specified in `_tls_py.py`.
    """

    cdef readonly object app
    cdef readonly object transport
    cdef public bint established
    cdef public bint finished
    cdef public bint nests
    cdef public bint read_paused
    cdef readonly object _object
    cdef object _ssl  # what the methods of _object call
    cdef object _incoming
    cdef object _outgoing
    cdef ReceiveBuffer _buffer
    cdef ReceiveBuffer _lent  # it, or other memory; None while nothing is lent
    cdef uint8_t *_rest  # of what was received and is not taken in
    cdef Py_ssize_t _left
    cdef _Memory _memory
    cdef object _backlog
    cdef Py_ssize_t _waiting
    cdef Py_ssize_t _held
    cdef Py_ssize_t _own
    cdef Py_ssize_t _whole
    cdef Py_ssize_t _missing
    cdef uint8_t _head[HEAD]
    cdef uint8_t _head_size
    cdef SocketTransport _link  # the transport, if it is one of wsfast
    cdef Receiver _receiver  # the protocol above, if its memory can be had without a call of Python
    cdef bint _app_buffered
    cdef bint _at_end
    cdef bint _pumping

    def __cinit__(self, *args, **kwargs):
        if type(self) is TLSPipe:
            raise TypeError("cannot create 'TLSPipe' instances: it is the base class of TLSTransport")

    def begin(self, app, ReceiveBuffer buffer not None, context, bint server_side, name):
        """Set it up; called once, before anything else."""
        self._buffer = buffer
        self._memory = _Memory.__new__(_Memory)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        self._ssl = self._object._sslobj if type(self._object) is ssl.SSLObject else self._object
        self.set_protocol(app)

    def attach(self, transport):
        """Set the transport; called once, when TCP is set up."""
        self.transport = transport
        self._link = transport if isinstance(transport, SocketTransport) else None

    def detach(self):
        """Forget the transport, which has ended."""
        self.transport = None
        self._link = None

    cpdef set_protocol(self, protocol):
        """Let another protocol have what comes from now on."""
        self.app = protocol
        self._receiver = as_receiver(protocol)
        self._app_buffered = isinstance(protocol, asyncio.BufferedProtocol)

    # --- Receiving

    cdef char *_lend_memory(self, Py_ssize_t *size) except NULL:
        # In a nested loop, what another connection received stands in the shared memory, and is not taken in.
        self._lent = ReceiveBuffer(SPARE) if self._buffer._busy else self._buffer
        size[0] = self._lent._view.len
        return <char *>self._lent._view.buf

    cdef bint _memory_filled(self, Py_ssize_t n) except -1:
        self._filled(n)
        return False

    def get_buffer(self, sizehint):
        """Lend the transport memory to receive into."""
        cdef Py_ssize_t size
        self._lend_memory(&size)
        return memoryview(self._lent._memory)

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take in what the transport received."""
        cdef Py_ssize_t size = 0 if self._lent is None else self._lent._view.len
        if not 0 <= nbytes <= size:
            raise ValueError(f"nbytes must be from 0 to the {size} bytes lent, got {nbytes}")
        if nbytes:
            self._filled(nbytes)

    cdef int _filled(self, Py_ssize_t nbytes) except -1:
        cdef ReceiveBuffer lent = self._lent
        cdef uint8_t *data = <uint8_t *>lent._view.buf
        cdef Py_ssize_t n
        cdef bint outer = self._pumping, shared = lent is self._buffer
        self._lent = None
        if self.finished:
            return 0
        if not self.established:
            self._take_in(data, nbytes, nbytes)
            self.shake_hands()
            return 0
        if shared:
            self._buffer._busy = True
        self._pumping = True
        try:
            self._take_rest()
            self._rest = data
            self._left = nbytes
            while self._left and not self.finished:
                n = self._take_in(self._rest, self._left, PORTION)
                self._rest += n
                self._left -= n
                self._hand_all_on(False)
        finally:
            try:
                self._take_rest()
            finally:
                self._pumping = outer
                if shared:
                    self._buffer._busy = False
        self._answer()
        return 0

    def go_on(self):
        """Go on delivering a batch while the protocol runs the loop within itself; what comes later waits."""
        if self._pumping and not self.finished:
            self._take_rest()
            self._hand_all_on(False)

    cdef int _take_rest(self) except -1:
        """Take in what is left: because of an exception, or because a nested loop reads on before it is handled."""
        cdef Py_ssize_t n = self._left
        self._left = 0
        if n and not self.finished:
            self._take_in(self._rest, n, n)
        return 0

    cdef Py_ssize_t _take_in(self, uint8_t *data, Py_ssize_t n, Py_ssize_t limit) except -1:
        n = self._follow(data, n, limit)
        self._memory._start = data
        self._memory._size = n
        try:
            self._incoming.write(self._memory)
        finally:
            self._memory._start = NULL
        return n

    cdef Py_ssize_t _follow(self, const uint8_t *data, Py_ssize_t n, Py_ssize_t limit) noexcept:
        cdef Py_ssize_t at = 0, step
        while at < n and self._missing != NONE:
            if not self._missing:
                self._head[self._head_size] = data[at]
                self._head_size += 1
                at += 1
                self._missing = _following(self._head, self._head_size)
                if self._missing:
                    self._head_size = 0
                continue
            step = min(self._missing, n - at)
            at += step
            self._missing -= step
            if not self._missing:
                self._whole += 1
                if at >= limit:
                    return at
        if self._missing == NONE:
            self._whole = ANY
        return n

    cpdef pump(self, bint drain):
        """Decrypt what was taken in and hand it to the protocol, many records at a time."""
        cdef bint outer = self._pumping
        if not self._incoming.pending and not self._ssl.pending():
            self._whole = 0
        self._pumping = True
        try:
            self._hand_all_on(drain)
        finally:
            self._pumping = outer
        self._answer()

    cdef int _answer(self) except -1:
        if self._backlog and not self.finished:
            self._catch_up()
        if self._held or self._outgoing.pending:
            self._flush()
        return 0

    cdef int _hand_all_on(self, bint drain) except -1:
        while (drain or not self.read_paused) and not self.finished and self._hand_on():
            pass
        return 0

    cdef bint _hand_on(self) except -1:
        cdef Py_ssize_t n, used = 0, size, before = 0
        cdef object memory = None, error = None
        cdef bint ended = False, nothing = False, behind
        cdef Receiver receiver = self._receiver
        cdef uint8_t *start
        cdef Py_buffer view
        if self._at_end:
            self.read_ended()
            return False
        if not self._whole:
            return False
        behind = self._is_behind()
        if behind:
            before = self._outgoing.pending
        else:
            self._own = 0
        if receiver is not None:
            start = <uint8_t *>receiver._lend_memory(&size)
        else:
            memory = self.app.get_buffer(-1) if self._app_buffered else bytearray(PIECE)
            PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
            start = <uint8_t *>view.buf
            size = view.len
        try:
            while used < size and self._whole and not ended:
                self._memory._start = start + used
                self._memory._size = size - used
                n = self._ssl.read(size - used, self._memory)
                used += n
                ended = not n
                if used < size or not self._ssl.pending():
                    self._whole -= 1
        except SSLWantReadError:
            self._whole = 0
            nothing = not used
        except Exception as exc:
            error = exc.with_traceback(None)
            self.finished = True
        finally:
            self._memory._start = NULL
            if receiver is None:
                PyBuffer_Release(&view)
        if behind:
            self._own += <Py_ssize_t>self._outgoing.pending - before
            if self._own > OWN and error is None:
                error = ConnectionAbortedError("the peer makes TLS say more than it takes")
                self.finished = True
        if nothing and error is None:
            return False
        if used:
            if self.nests:
                self.go_on_soon()
            if receiver is not None:
                receiver._memory_filled(used)
            elif self._app_buffered:
                self.app.buffer_updated(used)
            else:
                self.app.data_received(bytes(memoryview(memory)[:used]))
        elif error is None and not ended:
            raise RuntimeError("get_buffer() returned an empty buffer")
        if error is not None:
            self.failed(error)
        if ended:
            self._at_end = True
        return True

    cdef bint _is_behind(self) except -1:
        if self._link is not None:
            return self._link._buffered > 0
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    # --- Sending

    cpdef let_write(self):
        """Let the protocol write what it has gathered, before somebody else writes or ends the sending side."""
        if isinstance(self.app, Receiver):
            (<Receiver>self.app)._write_gathered()

    def write(self, data):
        """Encrypt data and send it; without effect once the sending side has ended."""
        self.let_write()
        self._write(data)

    cdef int _write(self, data) except -1:
        if self.finished:
            return 0
        if self._backlog:
            waiting = bytes(memoryview(data))
            self._backlog.append(waiting)
            self._waiting += len(waiting)
        else:
            self._encrypt(data)
        if not self._pumping or self.nests or self._held >= HELD:
            self._flush()
        return 0

    def writelines(self, parts):
        """Do the same with several parts, in one go."""
        cdef bint pumping = self._pumping
        self.let_write()
        self._pumping = True
        try:
            for part in parts:
                self._write(part)
        finally:
            self._pumping = pumping
            if not pumping:
                self._flush()

    cdef bint _encrypt(self, data) except -1:
        cdef Py_ssize_t at = 0, n = len(data)
        cdef object view = data if type(data) is bytes and n <= PIECE else memoryview(data)
        while at < n:
            try:
                self._ssl.write(view if n <= PIECE else view[at:at + PIECE])
            except SSLWantReadError:
                if self._backlog is None:
                    self._backlog = deque()
                self._backlog.appendleft(bytes(view[at:]))
                self._waiting += n - at
                self.stalled(True)
                return False
            except SSLError as exc:
                self.failed(exc.with_traceback(None))
                return False
            self._held += min(n - at, PIECE) + OVERHEAD
            at += PIECE
            if self._held >= HELD:
                self._flush()
        return True

    cdef int _catch_up(self) except -1:
        while self._backlog:
            data = self._backlog.popleft()
            self._waiting -= len(data)
            if not self._encrypt(data):
                return 0
        self.stalled(False)
        return 0

    def flush(self):
        """Send the records that are ready."""
        self._flush()

    cdef int _flush(self) except -1:
        cdef bytes data = self._outgoing.read()
        self._held = 0
        if self._link is not None:
            self._link._send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data, False)
        elif data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)
        return 0

    def get_write_buffer_size(self):
        """Return how many bytes were not yet taken by the operating system."""
        if self.transport is None:
            return 0
        return self.transport.get_write_buffer_size() + self._outgoing.pending + self._waiting


_seal(globals())
