"""The request of an opening handshake as nearly all are, in Cython: the fast reading of `_request_py.py`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

__all__ = ["read_usual"]


cdef extern from *:
    object PyUnicode_DecodeLatin1(const char *data, Py_ssize_t size, const char *errors)


cdef enum:
    MAX_LINE = 8192
    MAX_HEADERS = 128
    # What a byte may be in:
    NAME = 1  # of a header
    TARGET = 2
    VALUE = 4
    HOST = 8
    BASE64 = 16

# The headers that the handshake looks at.
cdef enum:
    HOST_HEADER
    UPGRADE
    CONNECTION
    VERSION
    KEY
    ORIGIN
    PROTOCOL
    EXTENSIONS
    COUNT
    BODY = 8  # Content-Length, Transfer-Encoding: a request that has one is not usual
    OTHER


cdef uint8_t MAY[256]


cdef int _fill() except -1:
    cdef int byte
    cdef bint letter
    for byte in range(256):
        letter = 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122
        MAY[byte] = (
            (NAME if letter or (byte < 128 and chr(byte) in "!#$%&'*+-.^_`|~") else 0)
            | (TARGET if 33 <= byte <= 126 and byte != 35 else 0)
            | (VALUE if byte == 9 or 32 <= byte != 127 else 0)
            | (HOST if letter or byte == 45 or byte == 46 else 0)
            | (BASE64 if letter or byte == 43 or byte == 47 else 0)
        )
    return 0


_fill()


cdef struct Text:
    const uint8_t *data  # NULL if the header is not there
    Py_ssize_t size


cdef inline bint _is(const uint8_t *data, Py_ssize_t size, const char *lower, Py_ssize_t length) noexcept:
    """Compare without regard to case; all that `data` may hold is a name or a value, so no control characters."""
    cdef Py_ssize_t at
    if size != length:
        return False
    for at in range(length):
        if (data[at] | 32) != <uint8_t>lower[at]:
            return False
    return True


cdef int _which(const uint8_t *name, Py_ssize_t size) noexcept:
    if size == 4:
        return HOST_HEADER if _is(name, size, b"host", 4) else OTHER
    if size == 6:
        return ORIGIN if _is(name, size, b"origin", 6) else OTHER
    if size == 7:
        return UPGRADE if _is(name, size, b"upgrade", 7) else OTHER
    if size == 10:
        return CONNECTION if _is(name, size, b"connection", 10) else OTHER
    if size == 14:
        return BODY if _is(name, size, b"content-length", 14) else OTHER
    if size == 17:
        if _is(name, size, b"transfer-encoding", 17):
            return BODY
        return KEY if _is(name, size, b"sec-websocket-key", 17) else OTHER
    if size == 21:
        return VERSION if _is(name, size, b"sec-websocket-version", 21) else OTHER
    if size == 22:
        return PROTOCOL if _is(name, size, b"sec-websocket-protocol", 22) else OTHER
    if size == 24:
        return EXTENSIONS if _is(name, size, b"sec-websocket-extensions", 24) else OTHER
    return OTHER


cdef Py_ssize_t _read(const uint8_t *p, Py_ssize_t n, Text *found) noexcept:
    """Find the headers in a well-formed head, and return where it ends; 0 if it is not usual."""
    cdef Py_ssize_t i = 5, start, end
    cdef int headers = 0
    cdef int which
    if n < 5 or memcmp(p, b"GET /", 5):
        return 0
    while i < n and MAY[p[i]] & TARGET:
        i += 1
    if n - i < 11 or memcmp(p + i, b" HTTP/1.1\r\n", 11):
        return 0
    i += 11
    while True:
        start = i
        while i < n and MAY[p[i]] & NAME:
            i += 1
        if n - i < 2:
            return 0
        if i == start:
            return i + 2 if p[i] == 13 and p[i + 1] == 10 else 0
        headers += 1
        if headers > MAX_HEADERS or p[i] != 58:
            return 0
        end = i
        i += 1
        which = _which(p + start, end - start)
        while i < n and (p[i] == 32 or p[i] == 9):
            i += 1
        start = i
        while i < n and MAY[p[i]] & VALUE:
            i += 1
        if n - i < 2 or p[i] != 13 or p[i + 1] != 10 or p[i - 1] == 32 or p[i - 1] == 9:
            return 0
        if which < COUNT:
            if found[which].data != NULL:
                return 0
            found[which].data = p + start
            found[which].size = i - start
        elif which == BODY:
            return 0
        i += 2


cdef bint _is_plain_host(const uint8_t *p, Py_ssize_t n) noexcept:
    """Tell whether it is a name or an IPv4 address, and a port below 60,000 if any."""
    cdef Py_ssize_t i = 0, digits
    while i < n and MAY[p[i]] & HOST:
        i += 1
    if i == n or not i:
        return i > 0
    if p[i] != 58:
        return False
    i += 1
    digits = n - i
    if digits < 1 or digits > 5 or (digits == 5 and not 49 <= p[i] <= 53):
        return False
    while i < n:
        if not 48 <= p[i] <= 57:
            return False
        i += 1
    return True


cdef bint _is_key(const uint8_t *p, Py_ssize_t n) noexcept:
    cdef int i
    if n != 24 or p[22] != 61 or p[23] != 61:
        return False
    for i in range(22):
        if not MAY[p[i]] & BASE64:
            return False
    return True


cdef object _text(Text found):
    return None if found.data == NULL else PyUnicode_DecodeLatin1(<const char *>found.data, found.size, NULL)


def read_usual(bytes data not None):
    """Read a request that is whole, well-formed, and asks for a WebSocket in order; None if it is not as most are."""
    cdef Text found[COUNT]
    cdef Text text
    cdef int which
    cdef Py_ssize_t end
    for which in range(COUNT):
        found[which].data = NULL
        found[which].size = 0
    end = _read(<const uint8_t *>PyBytes_AS_STRING(data), min(PyBytes_GET_SIZE(data), MAX_LINE), found)
    if not end:
        return None
    text = found[CONNECTION]
    if (
        not _is(found[UPGRADE].data, found[UPGRADE].size, b"websocket", 9)
        or not (_is(text.data, text.size, b"upgrade", 7) or _is(text.data, text.size, b"keep-alive, upgrade", 19))
        or found[VERSION].size != 2 or memcmp(found[VERSION].data, b"13", 2)
        or not _is_key(found[KEY].data, found[KEY].size)
        or not _is_plain_host(found[HOST_HEADER].data, found[HOST_HEADER].size)
    ):
        return None
    return end, _text(found[KEY]), _text(found[ORIGIN]), _text(found[PROTOCOL]), _text(found[EXTENSIONS])
