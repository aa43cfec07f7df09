"""The codec of RFC 6455, section 5, in Cython: the fast twin of `_codec_py.py`.

It owns the bytes of frames and nothing else; `_codec_py.py` is the specification, with the same names,
signatures, errors and texts, and is where the rules are explained. Here stands only how they are made fast:

* A small whole message, the common case, is unmasked straight from the input into its final object.
* A large one is received straight into its final object: `get_buffer` lends that object's memory. Text goes into a
  `str` for ASCII, which is the message if nothing else comes, and only the memory to decode from if it does.
* Frames to send gather in one `bytes` object that `take` hands over without a copy.
* The memory of the last few large messages and frames is used again, once nobody else refers to it.

Without a GIL (free-threaded CPython), an object is locked while a method of it is at work, and each thread has keys and
kept memory of its own.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.list cimport PyList_Append
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport SIZE_MAX, UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memcpy, memmove

from .events import Close, Fragment, Ping, Pong
from .exceptions import InvalidPayload, PayloadTooBig, PeerError, ProtocolError

__all__ = ["Decoder", "Encoder", "apply_mask", "encode_frame"]


cdef extern from "_codec_utf8.h" nogil:
    ctypedef struct wsf_checked:
        size_t bytes
        size_t length
        uint8_t largest
    int WSF_HAS_AVX512
    int wsf_choose(int most)
    uint64_t wsf_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key)
    uint64_t wsf_any(const uint8_t *s, size_t n)
    void wsf_turn_key(uint8_t *key, size_t n)
    bint wsf_utf8_check(const uint8_t *s, size_t n, wsf_checked *text)
    bint wsf_utf8_pays(size_t n)
    Py_UCS4 wsf_utf8_widest(uint8_t largest)
    void wsf_utf8_decode(void *text, int width, const uint8_t *s, size_t n)
    size_t wsf_utf8_length(const void *text, int width, size_t n)
    void wsf_utf8_encode(uint8_t *out, const void *text, int width, size_t n)


cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    #endif
    /* Whether nothing is kept of a `bytes` or ASCII `str` that would be wrong if it had another content. */
    static int wsf_is_pristine(PyObject *message)
    {
        if (PyBytes_Check(message))
            return ((PyBytesObject *)message)->ob_shash == -1;
    #if PY_VERSION_HEX < 0x030C0000
        if (((PyASCIIObject *)message)->wstr != NULL)
            return 0;
    #endif
        return ((PyASCIIObject *)message)->hash == -1 && !PyUnicode_CHECK_INTERNED(message);
    }
    #if defined(__GNUC__) || defined(__clang__)
    #pragma GCC diagnostic pop
    #endif
    """
    bint wsf_is_pristine(PyObject *message)
    char *PyByteArray_AS_STRING(object data)
    Py_ssize_t PyByteArray_GET_SIZE(object data)
    # Declared with PyObject * where Cython must not count references.
    PyObject *PyBytes_New "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t n) except NULL
    int PyBytes_Resize "_PyBytes_Resize"(PyObject **obj, Py_ssize_t n) except -1
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *overflow) except? -1  # NULL: cut to the range
    char *PyBytes_Memory "PyBytes_AS_STRING"(PyObject *obj)
    Py_ssize_t PyBytes_Length "PyBytes_GET_SIZE"(PyObject *obj)
    bint PyBytes_Checked "PyBytes_Check"(PyObject *obj)
    PyObject *PyUnicode_Made "PyUnicode_New"(Py_ssize_t n, Py_UCS4 widest) except NULL
    int PyUnicode_Resize(PyObject **obj, Py_ssize_t n) except -1
    void *PyUnicode_Memory "PyUnicode_DATA"(PyObject *obj)
    Py_ssize_t PyUnicode_Length "PyUnicode_GET_LENGTH"(PyObject *obj)
    Py_ssize_t PY_SSIZE_T_MAX
    PyObject *PyThreadState_GetDict()  # borrowed; NULL for none
    object PyUnicode_New(Py_ssize_t n, Py_UCS4 widest)
    object PyUnicode_DecodeUTF8(const char *s, Py_ssize_t n, const char *errors)
    void *PyUnicode_DATA(object text)
    int PyUnicode_KIND(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)


cdef extern from "_threads.h":
    """
    enum { WSF_SPARES = 4, WSF_KEY_BLOCK = 4096 };
    static WSF_OF_THREAD PyObject *wsf_spares[WSF_SPARES];
    static WSF_OF_THREAD int wsf_next_spare = 0;
    static WSF_OF_THREAD int wsf_keeping = 0; /* whether the end of the thread gives them up */
    static WSF_OF_THREAD uint8_t wsf_keys[WSF_KEY_BLOCK];
    static WSF_OF_THREAD size_t wsf_keys_left = 0;
    """
    bint WSF_FREE_THREADED
    Py_ssize_t wsf_holders(PyObject *thing)
    enum:
        WSF_SPARES
        WSF_KEY_BLOCK
    PyObject **wsf_spares
    int wsf_next_spare
    bint wsf_keeping
    uint8_t *wsf_keys
    size_t wsf_keys_left


cdef extern from "_seal.h":
    int wsf_seal(PyObject *sealed) except -1


cdef enum:
    RECEIVE_SIZE = 65536
    MOST_INFLATED = 65536
    SPARE_LEAST = 16384
    SPARE_MOST = 1048576 + 14  # 1 MiB, the default `max_size`, and the head of its frame
    HEADER = 64  # the most bytes of an object besides its content
    UNMADE = 2  # of a Decoder's _busy

cdef uint64_t LONGEST = 0x7FFFFFFFFFFFFFFF
cdef uint64_t NOT_ASCII = 0x8080808080808080


wsf_choose(WSF_HAS_AVX512)


def _choose(most):
    """Use vector code of levels up to `most`, 0 for none, and return the level that is used; for tests."""
    return wsf_choose(most)


# --- Memory that is used again --------------------------------------------------------------------------

# The large objects that were delivered, sent or decoded from last, on any connection. The next large message is
# received into one of them to which nobody else refers any more. Without this, the C library returns the pages of each
# freed message to the system and requests new ones for the next: for 1 MiB, more work than all the rest. Each process
# has one such store; without a GIL, each thread.


@cython.final
cdef class _Keeper:
    """Stands in the dict of a thread's state, and gives up with it what the thread keeps."""

    def __dealloc__(self):
        _give_up_spares()


cdef inline size_t _size(PyObject *message) noexcept:
    return PyBytes_Length(message) if PyBytes_Checked(message) else PyUnicode_Length(message)


cdef inline PyObject *_new_bytes(size_t n) except NULL:
    """Return new `bytes` to be filled. On 32-bit platforms a sum of lengths may be more than an object holds."""
    if n > <size_t>PY_SSIZE_T_MAX - HEADER:
        raise MemoryError
    return PyBytes_New(NULL, n)


cdef int _begin_keeping() except -1:
    """See to it that the end of this thread gives up what it keeps."""
    cdef PyObject *state = PyThreadState_GetDict()
    if state != NULL:
        (<dict>state)[_Keeper] = _Keeper.__new__(_Keeper)
        global wsf_keeping
        wsf_keeping = True
    return 0


cdef int _keep_spare(PyObject *message) except -1:
    """Keep `bytes`, or a `str` made for ASCII, to be used again when nobody else refers to it."""
    global wsf_next_spare
    cdef PyObject *dropped
    cdef int i
    if SPARE_LEAST <= _size(message) <= SPARE_MOST:
        if WSF_FREE_THREADED and not wsf_keeping:
            _begin_keeping()
            if not wsf_keeping:
                return 0
        for i in range(WSF_SPARES):
            if wsf_spares[i] == NULL:
                break
        else:
            i = wsf_next_spare = (wsf_next_spare + 1) % WSF_SPARES
        dropped = wsf_spares[i]
        Py_INCREF(<object>message)
        wsf_spares[i] = message
        Py_XDECREF(dropped)
    return 0


def _drop_spares():
    """Give up the memory that is kept to be used again; for tests."""
    _give_up_spares()


cdef void _give_up_spares() noexcept:
    global wsf_keeping
    cdef PyObject *dropped
    cdef int i
    wsf_keeping = False
    for i in range(WSF_SPARES):
        dropped = wsf_spares[i]
        wsf_spares[i] = NULL
        Py_XDECREF(dropped)


cdef PyObject *_take_spare(bint text, size_t room) except? NULL:
    """Return an object of just that many bytes, a `str` for text or `bytes`, to which nobody refers; NULL for none."""
    cdef PyObject *spare
    cdef int i
    if SPARE_LEAST <= room <= SPARE_MOST:
        for i in range(WSF_SPARES):
            spare = wsf_spares[i]
            if (
                spare != NULL and wsf_holders(spare) == 1 and PyBytes_Checked(spare) != text
                and room <= _size(spare) <= 2 * room and wsf_is_pristine(spare)
            ):
                wsf_spares[i] = NULL
                if _size(spare) != room:
                    _resize(&spare, room)
                return spare
    return NULL


cdef inline PyObject *_new_message(bint text, size_t room) except NULL:
    """Return an object of that many bytes to write a message into; text goes into a `str` for ASCII."""
    if not text:
        return _new_bytes(room)
    if room > <size_t>PY_SSIZE_T_MAX - HEADER:
        raise MemoryError
    return PyUnicode_Made(room, 127)


cdef inline int _resize(PyObject **message, size_t room) except -1:
    """Change the size of a message to which nobody else refers; where memory cannot be had, `bytes` are gone."""
    cdef PyObject *made = NULL
    if WSF_FREE_THREADED and wsf_holders(message[0]) != 1:
        # Another thread has made it, so that CPython would refuse.
        try:
            made = _new_message(not PyBytes_Checked(message[0]), room)
            memcpy(_memory(made), _memory(message[0]), min(room, _size(message[0])))
        finally:
            Py_XDECREF(message[0])
            message[0] = made
        return 0
    if PyBytes_Checked(message[0]):
        return PyBytes_Resize(message, room)
    return PyUnicode_Resize(message, room)


cdef inline uint8_t *_memory(PyObject *message) noexcept:
    """Return where the bytes of a message under construction are: a `bytes` object, or a `str` made for ASCII."""
    return <uint8_t *>(PyBytes_Memory(message) if PyBytes_Checked(message) else PyUnicode_Memory(message))


# --- Bytes-like arguments -------------------------------------------------------------------------------


cdef inline int _borrow(object data, Py_buffer *view, str expected) except -1:
    """Fill a view of any bytes-like object, through a copy if it is strided."""
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"expected {expected}, got {type(data).__name__}")
    try:
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    except BufferError:
        PyObject_GetBuffer(memoryview(data).tobytes(), view, PyBUF_SIMPLE)
    return 0


# --- Masking keys ---------------------------------------------------------------------------------------


cdef inline int _next_key(uint8_t *key) except -1:
    """Take a key from a block of the operating system's random source, drawn when the last is used up."""
    global wsf_keys_left
    cdef bytes block
    if not wsf_keys_left:
        block = os.urandom(WSF_KEY_BLOCK)
        memcpy(wsf_keys, PyBytes_AS_STRING(block), WSF_KEY_BLOCK)
        wsf_keys_left = WSF_KEY_BLOCK
    wsf_keys_left -= 4
    memcpy(key, wsf_keys + wsf_keys_left, 4)
    return 0


def _forget_keys():
    """Drop the block: after a fork, parent and child must not use the same keys."""
    global wsf_keys_left
    wsf_keys_left = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_keys)


# --- Encoding -------------------------------------------------------------------------------------------


cdef inline size_t _write_head(uint8_t *out, uint8_t first, uint64_t length, bint masked) noexcept nogil:
    """Write the head of a frame without its key; at most 10 bytes."""
    cdef uint8_t flag = 0x80 if masked else 0
    cdef int i
    out[0] = first
    if length < 126:
        out[1] = flag | <uint8_t>length
        return 2
    if length < 65536:
        out[1] = flag | 126
        out[2] = <uint8_t>(length >> 8)
        out[3] = <uint8_t>length
        return 4
    out[1] = flag | 127
    for i in range(8):
        out[2 + i] = <uint8_t>(length >> (56 - 8 * i))
    return 10


cdef inline uint8_t _first_byte(object opcode, size_t length, bint fin, bint rsv1) except? 0:
    cdef Py_ssize_t code = PyNumber_AsSsize_t(opcode, NULL)
    if not (0 <= code <= 2 or 8 <= code <= 10):
        raise ValueError(f"unknown opcode {PyNumber_Index(opcode)}")
    if code & 8:
        if not fin:
            raise ValueError("a control frame cannot be fragmented")
        if length > 125:
            raise ValueError(f"a control frame's payload must have at most 125 bytes, got {length}")
    return <uint8_t>code | (0x80 if fin else 0) | (0x40 if rsv1 else 0)


cdef int _refuse_surrogate(object text) except -1:
    str.encode(text)
    raise AssertionError("a str with a lone surrogate was encoded")


cdef class Encoder:
    """Encoder(*, mask=False)
--

Frames of one side, gathered until they are taken, so that many go out in one write.

Specified in `_codec_py.py`.
"""
    # CPython reads the signature of a type in C from the first line of its docstring.

    def __cinit__(self):
        self._out = NULL

    def __init__(self, *, mask=False):
        if self._made:
            raise RuntimeError(f"{type(self).__name__}.__init__() was called twice")
        self._mask = bool(mask)
        self._made = True

    def __dealloc__(self):
        Py_XDECREF(self._out)

    def __len__(self):
        return self._used

    cdef uint8_t *_extend(self, size_t n) except NULL:
        """Make room for n more bytes and return where they go; the caller writes all of them."""
        cdef size_t needed, room
        cdef uint8_t *start
        if n > <size_t>PY_SSIZE_T_MAX - self._used:
            raise MemoryError
        needed = self._used + n
        if self._out == NULL:
            if not self._made:
                raise RuntimeError(f"{type(self).__name__}.__init__() was not called")
            # The first frame gets its exact size: mostly it is the only one, and `take` need not shrink it.
            self._out = _take_spare(False, needed)
            if self._out == NULL:
                self._out = _new_message(False, needed)
            self._room = needed
        elif needed > self._room:
            room = max(needed, min(max(2 * self._room, <size_t>1024), <size_t>PY_SSIZE_T_MAX))
            if self._shared:
                return self._copy(room, needed)
            try:
                _resize(&self._out, room)
            except BaseException:
                self._used = self._room = 0  # it was freed
                raise
            self._room = room
        start = <uint8_t *>PyBytes_Memory(self._out) + self._used
        self._used = needed
        return start

    cdef uint8_t *_copy(self, size_t room, size_t needed) except NULL:
        """Copy what was shared into memory of its own, of which `needed` bytes will be used."""
        cdef PyObject *own = _new_bytes(room)
        cdef uint8_t *start = <uint8_t *>PyBytes_Memory(own) + self._used
        memcpy(PyBytes_Memory(own), PyBytes_Memory(self._out), self._used)
        Py_XDECREF(self._out)
        self._out = own
        self._shared = False
        self._room = room
        self._used = needed
        return start

    cdef int _append(self, uint8_t first, const uint8_t *data, size_t n) except -1:
        cdef size_t head = (2 if n < 126 else 4 if n < 65536 else 10)
        cdef uint8_t *out
        cdef uint8_t[4] key
        if self._mask:
            _next_key(key)  # first, since it may fail
            out = self._extend(head + 4 + n)
            _write_head(out, first, n, True)
            memcpy(out + head, key, 4)
            wsf_mask(out + head + 4, data, n, key)
        else:
            out = self._extend(head + n)
            _write_head(out, first, n, False)
            if n:
                memcpy(out + head, data, n)
        return 0

    cdef int _head(self, uint8_t first, size_t n) except -1:
        """Append the head of an unmasked frame whose n bytes the caller sends by itself."""
        _write_head(self._extend(2 if n < 126 else 4 if n < 65536 else 10), first, n, False)
        return 0

    cdef int _append_text(self, uint8_t first, object text) except -1:
        cdef size_t n = PyUnicode_GET_LENGTH(text)
        cdef int width = PyUnicode_KIND(text)
        cdef size_t length, head
        cdef uint8_t *out
        cdef uint8_t[4] key
        if PyUnicode_IS_ASCII(text):
            return self._append(first, <const uint8_t *>PyUnicode_DATA(text), n)
        length = wsf_utf8_length(PyUnicode_DATA(text), width, n)
        if length == SIZE_MAX:
            _refuse_surrogate(text)
        head = (2 if length < 126 else 4 if length < 65536 else 10)
        if self._mask:
            _next_key(key)
            out = self._extend(head + 4 + length)
            _write_head(out, first, length, True)
            memcpy(out + head, key, 4)
            wsf_utf8_encode(out + head + 4, PyUnicode_DATA(text), width, n)
            wsf_mask(out + head + 4, out + head + 4, length, key)
        else:
            out = self._extend(head + length)
            _write_head(out, first, length, False)
            wsf_utf8_encode(out + head, PyUnicode_DATA(text), width, n)
        return 0

    @cython.critical_section
    def message(self, data):
        """Append a whole message: a text frame for `str`, a binary frame for bytes-like."""
        self._message(data)

    cdef int _message(self, object data) except -1:
        cdef Py_buffer view
        if type(data) is bytes:
            self._append(0x82, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        elif isinstance(data, str):
            self._append_text(0x81, data)
        else:
            _borrow(data, &view, "str or a bytes-like object")
            try:
                self._append(0x82, <const uint8_t *>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        return 0

    @cython.critical_section
    def frame(self, opcode, payload=b"", *, fin=True, rsv1=False):
        """Append one frame; arguments and errors are those of `encode_frame`."""
        cdef Py_buffer view
        cdef size_t length
        if isinstance(payload, str):
            length = wsf_utf8_length(PyUnicode_DATA(payload), PyUnicode_KIND(payload), PyUnicode_GET_LENGTH(payload))
            if length == SIZE_MAX:
                _refuse_surrogate(payload)
            self._append_text(_first_byte(opcode, length, fin, rsv1), payload)
            return
        _borrow(payload, &view, "str or a bytes-like object")
        try:
            self._append(_first_byte(opcode, view.len, fin, rsv1), <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    @cython.critical_section
    def encoded(self, frames):
        """Append frames that were encoded before, as `encode_frame` returns them."""
        cdef Py_buffer view
        if type(frames) is bytes:
            self._share(<bytes>frames)
            return
        _borrow(frames, &view, "a bytes-like object")
        try:
            if view.len:
                memcpy(self._extend(view.len), view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int _share(self, bytes frames) except -1:
        """Append frames that were encoded before; those that nothing precedes are kept as they are, uncopied."""
        cdef size_t n = PyBytes_GET_SIZE(frames)
        if not n:
            return 0
        if self._out == NULL and self._made:
            Py_INCREF(frames)
            self._out = <PyObject *>frames
            self._used = self._room = n
            self._shared = True
            return 0
        memcpy(self._extend(n), PyBytes_AS_STRING(frames), n)
        return 0

    @cython.critical_section
    def take(self):
        """Return all that was gathered, and forget it."""
        return self._take()

    cdef bytes _take(self):
        cdef bytes taken
        if self._out == NULL:
            return b""
        if self._used < self._room:
            _resize(&self._out, self._used)
        taken = <bytes>self._out
        Py_DECREF(taken)
        self._out = NULL
        self._used = 0
        self._shared = False
        return taken


cdef inline uint8_t *_exact(object data, Py_ssize_t *n) noexcept:
    """Return the memory of the two usual types, for which a view would take longer than the work on it; else NULL."""
    if type(data) is bytes:
        n[0] = PyBytes_GET_SIZE(data)
        return <uint8_t *>PyBytes_AS_STRING(data)
    if type(data) is bytearray and not WSF_FREE_THREADED:  # without a GIL another thread could resize it meanwhile
        n[0] = PyByteArray_GET_SIZE(data)
        return <uint8_t *>PyByteArray_AS_STRING(data)
    return NULL


# CPython calls functions of C that are not of Cython's own type directly: a mask of 16 bytes takes 36 ns, not 42.
# It reads their signatures from the first line of their docstrings.
@cython.binding(False)
def apply_mask(data, mask, out=None):
    """apply_mask(data, mask, out=None)
--

Mask or unmask data: XOR it with a repeated four-byte key (RFC 6455, 5.3).
"""
    cdef Py_buffer source, key, target
    cdef bytes masked
    cdef Py_ssize_t n = 0, four = 0
    cdef uint8_t *start = _exact(data, &n)
    cdef uint8_t *four_bytes = _exact(mask, &four)
    cdef uint8_t copied_key[4]
    if start != NULL and four_bytes != NULL and four == 4:
        if out is None:
            masked = <bytes>_new_bytes(n)
            Py_DECREF(masked)
            wsf_mask(<uint8_t *>PyBytes_AS_STRING(masked), start, n, four_bytes)
            return masked
        if out is data and type(data) is bytearray:
            memcpy(copied_key, four_bytes, 4)  # it may lie in data
            wsf_mask(start, start, n, copied_key)
            return None
    _borrow(data, &source, "a bytes-like object")
    try:
        _borrow(mask, &key, "a bytes-like object")
        try:
            if key.len != 4:
                raise ValueError(f"mask must have 4 bytes, got {key.len}")
            if out is None:
                masked = <bytes>_new_bytes(source.len)
                Py_DECREF(masked)
                wsf_mask(<uint8_t *>PyBytes_AS_STRING(masked), <const uint8_t *>source.buf, source.len,
                         <const uint8_t *>key.buf)
                return masked
            if not PyObject_CheckBuffer(out):
                raise TypeError(f"out must be a bytes-like object, got {type(out).__name__}")
            try:
                PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
            except BufferError:
                raise TypeError("out must be writable and contiguous") from None
            try:
                if target.len != source.len:
                    raise ValueError(f"out must have {source.len} bytes as data has, got {target.len}")
                _mask_onto(<uint8_t *>target.buf, <const uint8_t *>source.buf, source.len, <const uint8_t *>key.buf)
            finally:
                PyBuffer_Release(&target)
        finally:
            PyBuffer_Release(&key)
    finally:
        PyBuffer_Release(&source)


cdef int _mask_onto(uint8_t *target, const uint8_t *source, size_t n, const uint8_t *key) except -1:
    """Mask into memory that may overlap the source, or the key, in any way."""
    cdef uint8_t copied_key[4]
    memcpy(copied_key, key, 4)
    if target != source and n:
        memmove(target, source, n)
    wsf_mask(target, target, n, copied_key)
    return 0


@cython.binding(False)
def encode_frame(opcode, payload=b"", *, fin=True, rsv1=False, mask=None):
    """encode_frame(opcode, payload=b"", *, fin=True, rsv1=False, mask=None)
--

Encode one frame (RFC 6455, 5.2).
"""
    cdef Py_buffer view, key
    cdef bytes frame
    cdef uint8_t first
    cdef uint8_t *out
    cdef size_t length, head
    _borrow(str.encode(payload) if isinstance(payload, str) else payload, &view, "str or a bytes-like object")
    try:
        length = view.len
        first = _first_byte(opcode, length, fin, rsv1)
        head = (2 if length < 126 else 4 if length < 65536 else 10)
        if mask is None:
            frame = <bytes>_new_bytes(head + length)
            Py_DECREF(frame)
            out = <uint8_t *>PyBytes_AS_STRING(frame)
            _write_head(out, first, length, False)
            if length:
                memcpy(out + head, view.buf, length)
            return frame
        _borrow(mask, &key, "a bytes-like object")
        try:
            if key.len != 4:
                raise ValueError(f"mask must have 4 bytes, got {key.len}")
            frame = <bytes>_new_bytes(head + 4 + length)
            Py_DECREF(frame)
            out = <uint8_t *>PyBytes_AS_STRING(frame)
            _write_head(out, first, length, True)
            memcpy(out + head, key.buf, 4)
            wsf_mask(out + head + 4, <const uint8_t *>view.buf, length, out + head)
            return frame
        finally:
            PyBuffer_Release(&key)
    finally:
        PyBuffer_Release(&view)


# --- Decoding -------------------------------------------------------------------------------------------


@cython.final
cdef class _Lease:
    """Memory of a message under construction, lent to a transport.

    It keeps the message's object alive, so that a view that somebody kept too long can do no harm.
    """

    cdef PyObject *_owner
    cdef size_t _start
    cdef size_t _length

    def __dealloc__(self):
        Py_XDECREF(self._owner)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self._owner == NULL:
            raise BufferError("no memory is lent")
        PyBuffer_FillInfo(view, self, _memory(self._owner) + self._start, self._length, 0, flags)


cdef object _decode_text(const uint8_t *s, size_t n, size_t length, uint8_t largest):
    """Make the `str` of UTF-8 that was checked."""
    cdef object text = PyUnicode_New(length, wsf_utf8_widest(largest))
    if length == n:
        memcpy(PyUnicode_DATA(text), s, n)
    else:
        wsf_utf8_decode(PyUnicode_DATA(text), PyUnicode_KIND(text), s, n)
    return text


cdef class Decoder:
    """Decoder(*, masked, max_size=1048576, max_fragments=None, max_events=None, inflate=None, extensions=None,
    buffer=None)
--

The frames of the peer, parsed from any cut of its byte stream into events.

Specified in `_codec_py.py`.
"""

    def __cinit__(self):
        self._message = NULL
        self._input = NULL
        self._busy = UNMADE

    def __init__(
        self, *, masked, max_size=1048576, max_fragments=None, max_events=None, inflate=None, extensions=None,
        buffer=None
    ):
        if self._busy != UNMADE:
            raise RuntimeError(f"{type(self).__name__}.__init__() was called twice")
        self._max_size = _limit("max_size", max_size)
        self._max_fragments = _limit("max_fragments", max_fragments)
        self._max_events = _limit("max_events", max_events)
        self._masked = bool(masked)
        self._inflate = inflate
        self._extensions = extensions
        self._buffer = None
        if buffer is not None:
            self._buffer = _receive_buffer(buffer)
        self._busy = False

    def __dealloc__(self):
        Py_XDECREF(self._message)
        Py_XDECREF(self._input)

    @property
    def streaming(self):
        """Whether messages are delivered piece by piece, as `Fragment` events; may be set at any time."""
        return self._streaming != 0

    @streaming.setter
    def streaming(self, value):
        self._streaming = bool(value)

    @property
    def held(self):
        """The bytes that are kept of an unfinished frame or message."""
        cdef size_t held = self._input_end - self._input_start + self._used
        return held if self._extensions is None else held + self._extensions.held

    @property
    def in_message(self):
        """Whether a message has begun to arrive and its last frame has not; meaningless after a failure."""
        return self._opcode != 0

    @property
    def pending(self):
        """Whether `max_events` stopped the last call, so that ``feed(b"")`` may go on; it may return nothing yet."""
        return self._stopped != 0

    @cython.critical_section
    def feed(self, data):
        """Take in received bytes, of any number, and return the events they complete, in order."""
        cdef Py_buffer view
        _borrow(data, &view, "a bytes-like object")
        try:
            return self._take_in(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    @cython.critical_section
    def get_buffer(self, sizehint=-1):
        """Lend memory to receive into; which memory, and how much, is the decoder's choice."""
        return self._lend()

    cdef int _refuse(self, str call) except -1:
        if self._busy == UNMADE:
            raise RuntimeError(f"{type(self).__name__}.__init__() was not called")
        raise RuntimeError(f"the decoder is at work: {call}() was called from within inflate(), or by another thread")

    cdef object _lend(self):
        cdef _Lease lease
        if self._busy:
            # This memory is being parsed; nothing may be written to it now.
            self._refuse("get_buffer")
        # In the middle of a large frame, the memory of its message is lent, up to the end of the frame.
        if (
            self._partial and self._remaining >= 4096 and not self._compressed and self._input == NULL
            and not (self._streaming or self._emitted) and not self._done
        ):
            self._reserve(1, self._remaining)
            # The references to it when it is filled: this decoder's and the transport's, unless an earlier view was
            # kept.
            self._lent_message = 2 if wsf_holders(self._message) == 1 else 1
            lease = _Lease.__new__(_Lease)
            lease._owner = self._message
            Py_INCREF(<object>self._message)
            lease._start = self._used
            lease._length = min(self._room - self._used, self._remaining)
            self._lent = lease._length
            return memoryview(lease)
        if self._buffer is None:
            self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._lent_message = 0
        self._lent = len(self._buffer)
        return self._buffer

    @cython.critical_section
    def buffer_updated(self, nbytes):
        """Take in the first bytes of what `get_buffer` lent, and return the events they complete."""
        cdef Py_ssize_t n = PyNumber_AsSsize_t(nbytes, NULL)
        if n < 0 or <size_t>n > self._lent:
            raise ValueError(f"nbytes must be from 0 to the {self._lent} bytes lent, got {PyNumber_Index(nbytes)}")
        return self._filled(n)

    cdef list _filled(self, size_t n):
        """Take in the first n bytes of what was lent; n is checked."""
        cdef Py_buffer view
        cdef Py_ssize_t holders
        cdef list events
        if not self._lent_message:
            if n == 0:
                return self._take_in(NULL, 0)
            # Held while it is read: `inflate` might release it.
            PyObject_GetBuffer(self._buffer, &view, PyBUF_SIMPLE)
            try:
                return self._take_in(<const uint8_t *>view.buf, n)
            finally:
                PyBuffer_Release(&view)
        holders = self._lent_message
        self._lent = 0
        self._lent_message = 0
        events = []
        if n:
            self._busy = True
            try:
                self._received_in_place(n, holders, events)
            except PeerError as failure:
                self._fail(events, failure)
            except BaseException:
                self._give_up()
                raise
            finally:
                self._busy = False
        return events

    cdef int _received_in_place(self, size_t n, Py_ssize_t holders, list events) except -1:
        cdef uint8_t *start = _memory(self._message) + self._used
        cdef uint64_t seen
        if self._masked:
            seen = wsf_mask(start, start, n, self._mask)
            wsf_turn_key(self._mask, n)
        else:
            seen = wsf_any(start, n) if self._opcode == 1 else 0
        self._remaining -= n
        self._grow(n, seen, self._remaining == 0 and self._fin)
        if self._remaining == 0:
            self._partial = False
            if self._fin:
                self._finish(events, holders)
        if self._streaming:  # since the memory was lent
            self._emit(events)
        return 0

    cdef list _take_in(self, const uint8_t *data, size_t n):
        """Parse n bytes that follow what is kept of earlier input; keep what is left."""
        cdef list events = []
        cdef size_t kept = 0, used
        cdef PyObject *joined = NULL
        cdef bytes plain
        self._lent = 0
        self._lent_message = 0
        if self._busy:
            self._refuse("feed")
        if self._done:
            return events
        self._busy = True
        self._stopped = False
        self._inflated = 0
        try:
            if self._extensions is not None:
                plain = self._without_extensions(data, n)
                data = <const uint8_t *>PyBytes_AS_STRING(plain)
                n = PyBytes_GET_SIZE(plain)
            if self._input != NULL:
                # What is kept is less than a head or a control frame, or what max_events left.
                kept = self._input_end - self._input_start
                if n:
                    joined = _new_bytes(kept + n)
                    memcpy(PyBytes_Memory(joined), PyBytes_Memory(self._input) + self._input_start, kept)
                    memcpy(PyBytes_Memory(joined) + kept, data, n)
                    self._drop_input()
                    self._input = joined
                    self._input_end = kept + n
                data = <const uint8_t *>PyBytes_Memory(self._input) + self._input_start
                n += kept
            used = self._parse(data, n, events)
            if (self._streaming or self._emitted) and not self._done:
                self._emit(events)
            self._keep(data, used, n)
            if self._extensions is not None:
                self._follow_extensions()
        except PeerError as failure:
            self._fail(events, failure)
        except BaseException:
            # `inflate` or `extensions` is at fault, not the peer. The data it was given is lost, so decoding cannot go
            # on.
            self._give_up()
            raise
        finally:
            self._busy = False
        return events

    cdef bytes _without_extensions(self, const uint8_t *data, size_t n):
        """Have extensions taken off the frames that came."""
        cdef bytes came = <bytes>_new_bytes(n)
        cdef Py_ssize_t most = MOST_INFLATED
        Py_DECREF(came)
        if self._input != NULL:
            most = 0
        elif self._max_events == UINT64_MAX:
            most = PY_SSIZE_T_MAX
        if n:
            memcpy(PyBytes_AS_STRING(came), data, n)
        return self._extensions.receive(came, most)

    cdef int _follow_extensions(self) except -1:
        """Once all is parsed that extensions made of what came: fail as they did, or stop as they did."""
        cdef object failure
        if self._done or self._stopped:
            return 0
        failure = self._extensions.failure
        if failure is not None:
            raise failure
        self._stopped = self._extensions.pending
        return 0

    cdef int _keep(self, const uint8_t *data, size_t used, size_t n) except -1:
        """Keep what is behind the first `used` of n bytes; they are in _input, if there is one."""
        cdef size_t left = n - used
        cdef PyObject *kept
        if self._done or not left:
            return self._drop_input()
        if self._input != NULL and left >= n - left:
            # The rest is moved only when it has halved: a long one would be copied each time `max_events` stops us.
            self._input_start = self._input_end - left
            return 0
        kept = _new_bytes(left)
        memcpy(PyBytes_Memory(kept), data + used, left)
        self._drop_input()
        self._input = kept
        self._input_end = left
        return 0

    cdef int _fail(self, list events, object failure) except -1:
        if self._streaming or self._emitted:
            self._emit(events)
        # Its traceback could keep more alive than the event itself.
        events.append(failure.with_traceback(None))
        return self._give_up()

    cdef int _give_up(self) except -1:
        self._done = True
        self._drop_input()
        return self._drop_message()

    cdef int _drop_input(self) except -1:
        Py_XDECREF(self._input)
        self._input = NULL
        self._input_start = self._input_end = 0
        return 0

    cdef int _drop_message(self) except -1:
        Py_XDECREF(self._message)
        self._message = NULL
        self._used = self._room = self._checked = self._length = 0
        self._largest = 0
        return 0

    cdef Py_ssize_t _parse(self, const uint8_t *p, size_t n, list events) except -1:
        """Parse frames until the input ends or the decoder stops; return how many bytes were used."""
        cdef size_t at = 0, head = 6 if self._masked else 2, length, step
        cdef uint8_t flag = 0x80 if self._masked else 0
        cdef uint8_t first, second
        cdef uint64_t left = self._max_events
        while True:
            if not self._partial:
                if n - at < 2:
                    break
                first = p[at]
                second = p[at + 1] ^ flag
                # The common case at once: a whole unfragmented message of less than 126 bytes.
                if (
                    second < 126 and (first == 0x81 or first == 0x82) and n - at - 2 >= head - 2 + <size_t>second
                    and not self._opcode and second <= self._max_size and not self._streaming
                ):
                    length = second
                    PyList_Append(events, self._whole(first == 0x81, p + at + head, length, p + at + 2))
                    at += head + length
                else:
                    step = self._frame(p + at, n - at, events)
                    if step == 0:
                        break
                    at += step
                    if self._done:
                        break
                    if self._partial:
                        continue
            else:
                if self._remaining and at == n:
                    break
                at += self._payload(p + at, n - at, events)
                if self._partial:
                    break
            if <uint64_t>len(events) == left or self._inflated >= MOST_INFLATED:
                self._stopped = at < n
                break
        return at

    cdef object _whole(self, bint text, const uint8_t *data, size_t n, const uint8_t *key):
        """Make the object of a message whose payload is there in whole."""
        cdef object made
        cdef uint8_t *out
        cdef uint64_t seen
        cdef wsf_checked checked
        if not text:
            made = <object>_new_bytes(n)
            Py_DECREF(made)
            out = <uint8_t *>PyBytes_AS_STRING(made)
            if self._masked:
                wsf_mask(out, data, n, key)
            else:
                memcpy(out, data, n)
            return made
        made = PyUnicode_New(n, 127)
        if n == 0:
            return made
        out = <uint8_t *>PyUnicode_DATA(made)
        if self._masked:
            seen = wsf_mask(out, data, n, key)
        else:
            seen = wsf_mask(out, data, n, b"\0\0\0\0")
        if not seen & NOT_ASCII:
            return made
        # Not ASCII after all: the object serves as scratch memory and is dropped.
        if wsf_utf8_pays(n):
            if not wsf_utf8_check(out, n, &checked) and checked.bytes == n:
                return _decode_text(out, n, checked.length, checked.largest)
        else:
            try:
                return PyUnicode_DecodeUTF8(<const char *>out, n, NULL)
            except UnicodeDecodeError as exc:
                checked.bytes = exc.start
        raise InvalidPayload(f"text message is not UTF-8 at byte {checked.bytes}")

    cdef Py_ssize_t _frame(self, const uint8_t *p, size_t n, list events) except -1:
        """Parse the head of a frame, and the whole of a control frame; 0 if more input is needed."""
        cdef uint8_t first = p[0], second = p[1]
        cdef uint8_t opcode = first & 0x0F, reserved = first & 0x70
        cdef bint fin = first & 0x80, control = opcode & 8
        cdef uint64_t length
        cdef size_t at = 2
        cdef int i
        cdef uint8_t[4] key = [0, 0, 0, 0]
        cdef bytes payload
        if reserved and not (reserved == 0x40 and self._inflate is not None and (opcode == 1 or opcode == 2)):
            raise ProtocolError(f"reserved bits 0x{reserved:02x} set in a frame with opcode 0x{opcode:x}")
        if opcode > 10 or 2 < opcode < 8:
            raise ProtocolError(f"reserved opcode 0x{opcode:x}")
        if control:
            if not fin:
                raise ProtocolError(f"control frame with opcode 0x{opcode:x} is fragmented")
        elif opcode == 0:
            if not self._opcode:
                raise ProtocolError("continuation frame without a message to continue")
        elif self._opcode:
            raise ProtocolError("new message before the last one was finished")
        if (second & 0x80 != 0) != self._masked:
            raise ProtocolError("frame is not masked" if self._masked else "frame is masked")
        length = second & 0x7F
        if length > 125:
            if control:
                raise ProtocolError(f"control frame with opcode 0x{opcode:x} has more than 125 bytes")
            at = 4 if length == 126 else 10
            if n < at:
                return 0
            length = 0
            for i in range(2, <int>at):
                length = length << 8 | p[i]
            if length < <uint64_t>(126 if at == 4 else 65536):
                raise ProtocolError(f"length {length} is not encoded in the shortest form")
            if length >> 63:
                raise ProtocolError(f"length {length} has its most significant bit set")
        if not control:
            if self._fragments >= self._max_fragments:
                raise PayloadTooBig(f"message has more than {self._max_fragments} fragments")
            if not (reserved if opcode else self._compressed):
                if length > self._max_size - self._size and self._max_size != UINT64_MAX:
                    self._too_big(length, self._max_size)
                if length > <uint64_t>PY_SSIZE_T_MAX - self._used and not (self._streaming or self._emitted):
                    self._too_big(length, PY_SSIZE_T_MAX)
        if self._masked:
            if n - at < 4:
                return 0
            memcpy(key, p + at, 4)
            at += 4
        if control:
            if n - at < length:
                return 0
            if self._streaming or self._emitted:
                self._emit(events)
                if <uint64_t>len(events) == self._max_events:
                    self._stopped = True
                    return 0
            payload = <bytes>_new_bytes(length)
            Py_DECREF(payload)
            if self._masked:
                wsf_mask(<uint8_t *>PyBytes_AS_STRING(payload), p + at, length, key)
            else:
                memcpy(PyBytes_AS_STRING(payload), p + at, length)
            self._control(opcode, payload, events)
            return at + length
        if opcode:
            self._opcode = opcode
            self._compressed = reserved != 0
        self._fragments += 1
        self._fin = fin
        memcpy(self._mask, key, 4)
        self._remaining = length
        self._partial = True
        return at

    cdef int _too_big(self, uint64_t more, uint64_t limit) except -1:
        raise PayloadTooBig(f"message has {self._size + more} bytes or more, the limit is {limit}")

    cdef int _control(self, uint8_t opcode, bytes payload, list events) except -1:
        if opcode == 9:
            events.append(Ping(payload))
        elif opcode == 10:
            events.append(Pong(payload))
        else:
            events.append(_parse_close(payload))
            self._done = True
            self._drop_message()
        return 0

    cdef Py_ssize_t _payload(self, const uint8_t *p, size_t n, list events) except -1:
        """Take what there is of a data frame's payload; return how many bytes that was."""
        cdef size_t taken = min(<uint64_t>n, self._remaining)
        cdef bint ends = taken == self._remaining
        cdef bint final = ends and self._fin
        cdef bint text
        cdef size_t inflated
        cdef uint64_t seen = 0
        cdef object plain, limit
        cdef uint8_t *start
        if final and not self._size and not self._compressed and not self._streaming:
            # The whole message is there.
            self._partial = False
            self._fragments = 0
            self._drop_message()  # memory that was lent, and not used
            text = self._opcode == 1
            self._opcode = 0
            PyList_Append(events, self._whole(text, p, taken, self._mask))
            return taken
        self._remaining -= taken
        if self._compressed:
            plain = self._whole(False, p, taken, self._mask)
            wsf_turn_key(self._mask, taken)
            limit = -1 if self._max_size == UINT64_MAX else self._max_size - self._size
            plain = self._inflate(plain, final, limit)
            if not isinstance(plain, bytes):
                raise TypeError(f"inflate must return bytes, got {type(plain).__name__}")
            inflated = PyBytes_GET_SIZE(plain)
            if self._max_size != UINT64_MAX and inflated > self._max_size - self._size:
                self._too_big(inflated, self._max_size)
            if self._max_events != UINT64_MAX:
                self._inflated += inflated
            if inflated:
                self._reserve(inflated, 0)
                start = <uint8_t *>PyBytes_AS_STRING(plain)
                memcpy(_memory(self._message) + self._used, start, inflated)
                seen = wsf_any(start, inflated) if self._opcode == 1 else 0
            self._grow(inflated, seen, final)
        else:
            if taken:
                self._reserve(taken, self._remaining + taken)
                start = _memory(self._message) + self._used
                if self._masked:
                    seen = wsf_mask(start, p, taken, self._mask)
                    wsf_turn_key(self._mask, taken)
                else:
                    memcpy(start, p, taken)
                    seen = wsf_any(start, taken) if self._opcode == 1 else 0
            self._grow(taken, seen, final)
        if ends:
            self._partial = False
            if final:
                self._finish(events, 1)
        return taken

    cdef int _reserve(self, size_t needed, uint64_t coming) except -1:
        """Make room for `needed` more bytes of the message; `coming` is what its frame declared to come.

        Memory follows what arrived, not what was declared: a peer that declares much and sends
        little holds little.
        """
        cdef size_t least
        cdef uint64_t most
        cdef PyObject *other = NULL
        if needed > <size_t>PY_SSIZE_T_MAX - self._used:
            self._too_big(needed, PY_SSIZE_T_MAX)
        least = self._used + needed
        if self._message != NULL and least <= self._room:
            return 0
        most = max(<uint64_t>4096, (4 if least < 16384 else 17) * <uint64_t>least)  # from a read of 64 KiB, 1 MiB
        # A 32-bit process has at most 2 GiB in one piece: there, growing by more than doubling may find no memory.
        most = min(most, min(<uint64_t>PY_SSIZE_T_MAX, max(<uint64_t>PY_SSIZE_T_MAX // 16, 2 * <uint64_t>least)))
        if coming:
            most = min(most, self._used + coming)
        elif self._message == NULL:
            most = least
        if not self._fin:
            most = max(most, min(2 * <uint64_t>least, <uint64_t>PY_SSIZE_T_MAX))  # more fragments follow
        most = max(min(most, self._max_size), <uint64_t>least)
        if self._fin and most == self._used + coming:  # it need not grow any more
            other = _take_spare(self._opcode == 1, most)
        if self._message != NULL and other == NULL and wsf_holders(self._message) == 1:
            try:
                _resize(&self._message, most)
            except BaseException:
                self._give_up()
                raise
        else:
            if other == NULL:
                other = _new_message(self._opcode == 1, most)
            if self._message != NULL:
                memcpy(_memory(other), _memory(self._message), self._used)
                Py_XDECREF(self._message)
            self._message = other
        self._room = most
        return 0

    cdef int _grow(self, size_t n, uint64_t seen, bint final) except -1:
        """Count n bytes that were written behind the message, and check them if they are text; `seen` ORs them."""
        cdef wsf_checked text
        cdef bint invalid = False
        self._used += n
        self._size += n
        if self._opcode == 1:
            if not seen & NOT_ASCII and self._checked == self._used - n:
                self._checked = self._used
                self._length += n
            else:
                invalid = wsf_utf8_check(
                    _memory(self._message) + self._checked, self._used - self._checked, &text
                )
                self._checked += text.bytes
                self._length += text.length
                self._largest = max(self._largest, text.largest)
            if invalid or (final and self._checked != self._used):
                raise InvalidPayload(f"text message is not UTF-8 at byte {self._emitted + self._checked}")
        return 0

    cdef int _finish(self, list events, Py_ssize_t holders) except -1:
        """Deliver the message, as it is if its memory has at most `holders`, none of whom will write to it any more."""
        cdef object message
        if self._message == NULL:
            message = "" if self._opcode == 1 else b""
        elif self._largest < 0x80 and self._used == self._room and wsf_holders(self._message) <= holders:
            message = <object>self._message
        elif self._largest < 0x80 and wsf_holders(self._message) == 1:
            _resize(&self._message, self._used)
            message = <object>self._message
        elif self._opcode == 2:
            message = PyBytes_Memory(self._message)[:self._used]
        else:
            message = _decode_text(_memory(self._message), self._used, self._length, self._largest)
        if self._message != NULL and not self._compressed:  # inflated data goes elsewhere
            _keep_spare(self._message)
        self._drop_message()
        events.append(Fragment(message, True) if self._streaming or self._emitted else message)
        self._opcode = 0
        self._fragments = self._size = self._emitted = 0
        return 0

    cdef int _emit(self, list events) except -1:
        """In streaming mode, deliver what has arrived of a message, up to its last whole character."""
        cdef size_t n = self._checked if self._opcode == 1 else self._used
        cdef char *memory
        cdef object message
        if not n:
            return 0
        memory = <char *>_memory(self._message)
        if self._opcode == 1:
            message = _decode_text(<uint8_t *>memory, n, self._length, self._largest)
        else:
            message = memory[:n]
        events.append(Fragment(message, False))
        if n < self._used:
            memmove(memory, memory + n, self._used - n)
            self._used -= n
            self._checked = self._length = 0
            self._largest = 0
        else:
            self._drop_message()
        self._emitted += n
        return 0


cdef uint64_t _limit(str name, object value) except? 0:
    if value is None:
        return UINT64_MAX
    value = PyNumber_Index(value)
    if value < 1:
        raise ValueError(f"{name} must be positive or None, got {value}")
    return min(value, LONGEST)


cdef object _receive_buffer(object buffer):
    cdef object view
    if not PyObject_CheckBuffer(buffer):
        raise TypeError(f"buffer must be a bytes-like object, got {type(buffer).__name__}")
    view = buffer if type(buffer) is memoryview else memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise TypeError("buffer must be writable and contiguous")
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    if len(view) < 1024:
        raise ValueError(f"buffer must have at least 1024 bytes, got {len(view)}")
    return view


cdef object _parse_close(bytes payload):
    cdef unsigned int code
    cdef Py_ssize_t at
    if not payload:
        return Close(1005)
    if len(payload) == 1:
        raise ProtocolError("close frame with a body of 1 byte")
    code = (<unsigned int><uint8_t>payload[0] << 8) | <uint8_t>payload[1]
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolError(f"close frame with the code {code}")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError as exc:
        at = exc.start
    raise InvalidPayload(f"close reason is not UTF-8 at byte {at}")


cdef int _seal(dict names) except -1:
    """Refuse to make objects of a module's own types, but for those in its `__all__`, where Python code asks for it."""
    cdef object value
    for name, value in names.items():
        if isinstance(value, type) and value.__module__ == names["__name__"] and name not in names["__all__"]:
            wsf_seal(<PyObject *>value)
    return 0


_seal(globals())
