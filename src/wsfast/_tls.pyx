"""The hot path of TLS, in Cython: the fast reading of `_tls_py.py`, where the rules are explained.

What is different here is only that records go to the socket by send(2), at once, as long as the transport itself has
nothing left to write.
"""

import asyncio
import ssl

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

__all__ = ["TLSPipe"]


cdef extern from "_socket.h" nogil:
    Py_ssize_t wsf_send(int fd, const char *data, Py_ssize_t n)


cdef enum:
    PIECE = 65536  # bytes that are encrypted in one go
    HELD = 81920  # bytes of records that are sent without waiting for the end of the batch

cdef object SSLError = ssl.SSLError
cdef object SSLWantReadError = ssl.SSLWantReadError


cdef class TLSPipe:
    """One TLS connection's way between its transport and its protocol.

    Specified in `_tls_py.py`.
    """

    cdef readonly object app
    cdef readonly object transport
    cdef public bint established
    cdef public bint finished
    cdef public bint read_paused
    cdef readonly object _object
    cdef object _incoming
    cdef object _outgoing
    cdef object _buffer
    cdef list _backlog
    cdef int _fd
    cdef bint _app_buffered
    cdef bint _at_end
    cdef bint _pumping
    cdef bint _behind  # the transport may have something left to write

    def begin(self, app, buffer, context, bint server_side, name):
        """Set it up; called once, before anything else."""
        self._buffer = buffer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        self._backlog = []
        self._fd = -1
        self.set_protocol(app)

    def attach(self, transport, int fd):
        """Set the transport; called once, when TCP is set up."""
        self.transport = transport
        self._fd = fd

    def detach(self):
        """Forget the transport, which has ended."""
        self.transport = None
        self._fd = -1

    cpdef set_protocol(self, protocol):
        """Let another protocol have what comes from now on."""
        self.app = protocol
        self._app_buffered = isinstance(protocol, asyncio.BufferedProtocol)

    # --- Receiving

    def get_buffer(self, sizehint):
        """Lend the transport memory to receive into."""
        return self._buffer

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take in what the transport received."""
        if self.finished:
            return
        self._incoming.write(self._buffer[:nbytes])
        if not self.established:
            self.shake_hands()
        else:
            self.pump(False)

    cpdef pump(self, bint drain):
        """Decrypt what has arrived and hand it to the protocol, many records at a time."""
        self._pumping = True
        try:
            while (drain or not self.read_paused) and not self.finished and self._hand_on():
                pass
        finally:
            self._pumping = False
        if self._backlog and not self.finished:
            self._catch_up()
        if self._outgoing.pending:
            self._flush()

    cdef bint _hand_on(self) except -1:
        cdef Py_ssize_t n, used = 0, size
        cdef object view, error = None
        cdef bint ended = False
        if self._at_end:
            self.read_ended()
            return False
        if not self._incoming.pending and not self._object.pending():
            return False
        view = self.app.get_buffer(-1) if self._app_buffered else memoryview(bytearray(PIECE))
        size = len(view)
        if not size:
            raise RuntimeError("get_buffer() returned an empty buffer")
        try:
            while used < size and not ended:
                n = self._object.read(size - used, view[used:] if used else view)
                used += n
                ended = not n
                if not self._incoming.pending:
                    break
        except SSLWantReadError:
            if not used:
                return False
        except Exception as exc:
            error = exc.with_traceback(None)
            self.finished = True
        if used:
            if self._app_buffered:
                self.app.buffer_updated(used)
            else:
                self.app.data_received(bytes(view[:used]))
        if error is not None:
            self.failed(error)
        self._at_end = ended
        return True

    # --- Sending

    def write(self, data):
        """Encrypt data and send it; without effect once the sending side has ended."""
        if self.finished:
            return
        if self._backlog:
            self._backlog.append(bytes(memoryview(data)))
        else:
            self._encrypt(data)
        if not self._pumping or <Py_ssize_t>self._outgoing.pending >= HELD:
            self._flush()

    def writelines(self, parts):
        """Do the same with several parts, in one go."""
        cdef bint pumping = self._pumping
        self._pumping = True
        try:
            for part in parts:
                self.write(part)
        finally:
            self._pumping = pumping
            if not pumping:
                self._flush()

    cdef bint _encrypt(self, data) except -1:
        cdef Py_ssize_t at = 0, n = len(data)
        cdef object view = data if type(data) is bytes and n <= PIECE else memoryview(data)
        while at < n:
            try:
                self._object.write(view if n <= PIECE else view[at:at + PIECE])
            except SSLWantReadError:
                self._backlog.insert(0, bytes(view[at:]))
                self.stalled(True)
                return False
            except SSLError as exc:
                self.failed(exc.with_traceback(None))
                return False
            at += PIECE
            if <Py_ssize_t>self._outgoing.pending >= HELD:
                self._flush()
        return True

    cdef int _catch_up(self) except -1:
        while self._backlog:
            if not self._encrypt(self._backlog.pop(0)):
                return 0
        self.stalled(False)
        return 0

    def flush(self):
        """Send the records that are ready."""
        self._flush()

    cdef int _flush(self) except -1:
        cdef bytes data = self._outgoing.read()
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data), sent
        if not n or self.transport is None or self.transport.is_closing():
            return 0
        if self._behind and self.transport.get_write_buffer_size() == 0:
            self._behind = False
        if self._fd >= 0 and not self._behind:
            sent = wsf_send(self._fd, PyBytes_AS_STRING(data), n)
            if sent == n:
                return 0
            # What the socket did not take, or its error, is for the transport.
            if sent > 0:
                data = data[sent:]
        self._behind = True
        self.transport.write(data)
        return 0

    def get_write_buffer_size(self):
        """Return how many bytes were not yet taken by the operating system."""
        if self.transport is None:
            return 0
        return self.transport.get_write_buffer_size() + self._outgoing.pending + sum(map(len, self._backlog))
