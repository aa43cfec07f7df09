"""A request's head that came whole, in Cython: the fast twin of `_head_py.py`, which explains the rules.

Each byte is looked at once, and a `str` is made of the values that the handshake looks at.
"""

import re

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from ..http import TCHAR
from ._head_py import MAX_LAST, NAMES, find_fields
from ._head_py import lower_pairs as _pairs_of_any

__all__ = ["find_fields", "find_key", "lower_pairs", "take_head"]


cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)


cdef enum:
    # What a byte may be part of:
    TOKEN = 1
    VALUE = 2
    TARGET = 4
    HOST = 8
    BASE64 = 16


cdef uint8_t _kinds[256]
cdef Py_ssize_t _max_last = MAX_LAST
cdef tuple _names = NAMES
cdef tuple _lower_names = tuple([name.lower().encode() for name in NAMES])
cdef const uint8_t *_lower_at[32]  # where those are, and their lengths
cdef Py_ssize_t _lengths[32]
cdef Py_ssize_t _known_names = len(NAMES)
cdef int _i

if _known_names > 32:
    raise ImportError("there are more names than places for them")
for _i in range(_known_names):
    _lower_at[_i] = <const uint8_t *>PyBytes_AS_STRING(_lower_names[_i])
    _lengths[_i] = PyBytes_GET_SIZE(_lower_names[_i])


for _i in range(256):
    _kinds[_i] = (
        (TOKEN if _i < 128 and re.fullmatch(TCHAR, chr(_i)) else 0)
        | (VALUE if _i == 9 or 32 <= _i <= 126 or _i >= 128 else 0)
        | (TARGET if 33 <= _i <= 126 and _i != 35 else 0)
        | (HOST if re.fullmatch(r"[0-9A-Za-z\-.]", chr(_i)) else 0)
        | (BASE64 if re.fullmatch(r"[0-9A-Za-z+/]", chr(_i)) else 0)
    )


cdef object _known(const uint8_t *name, Py_ssize_t n):
    """Return the header's name as `NAMES` has it; None if it is not among them."""
    cdef const uint8_t *lower
    cdef Py_ssize_t i, k
    for i in range(_known_names):
        if _lengths[i] == n:
            lower = _lower_at[i]
            k = 0
            # Of a token's characters, no two become a letter or a hyphen by this but those of its two cases.
            while k < n and name[k] | 32 == lower[k]:
                k += 1
            if k == n:
                return _names[i]
    return None


cdef object _value(const uint8_t *start, const uint8_t *end):
    while start < end and start[0] in (9, 32):
        start += 1
    while end > start and end[-1] in (9, 32):
        end -= 1
    return PyUnicode_DecodeLatin1(<const char *>start, end - start, NULL)


cdef const uint8_t *_skip(const uint8_t *at, const uint8_t *end, uint8_t kind) noexcept:
    """Return the first byte that is not of a kind, or the end."""
    while at < end and _kinds[at[0]] & kind:
        at += 1
    return at


cdef inline bint _begins(const uint8_t *at, const uint8_t *end, const char *text, Py_ssize_t n) noexcept:
    return end - at >= n and memcmp(at, text, n) == 0


cdef inline bint _ends_line(const uint8_t *at, const uint8_t *end) noexcept:
    return end - at >= 2 and at[0] == 13 and at[1] == 10


def take_head(bytes data not None, Py_ssize_t max_size, Py_ssize_t max_headers):
    """Take the head of a request that comes whole and in order, of GET and with a target in origin-form."""
    cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef const uint8_t *end = begin + min(PyBytes_GET_SIZE(data), max_size)
    cdef const uint8_t *at = begin
    cdef const uint8_t *start
    cdef const uint8_t *colon
    cdef dict fields
    if not _begins(at, end, "GET /", 5):
        return None
    at = _skip(at + 5, end, TARGET)
    if not _begins(at, end, " HTTP/1.1\r\n", 11):
        return None
    at += 11
    fields = {}
    while not _ends_line(at, end):
        start = at
        at = colon = _skip(at, end, TOKEN)
        if at == start or not (at < end and at[0] == 58):
            return None
        at = _skip(at + 1, end, VALUE)
        if not _ends_line(at, end) or not max_headers:
            return None
        max_headers -= 1
        name = _known(start, colon - start)
        if name is not None:
            value = _value(colon + 1, at)
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        at += 2
    return at + 2 - begin, fields, _find_key(fields)


cdef bint _is(object value, bytes lower) except -1:
    """Tell whether the value of a header is a text, in letters of either case."""
    cdef const uint8_t *at
    cdef const uint8_t *wanted = <const uint8_t *>PyBytes_AS_STRING(lower)
    cdef Py_ssize_t i, n = PyBytes_GET_SIZE(lower)
    if not PyUnicode_CheckExact(value) or PyUnicode_GET_LENGTH(value) != n or not PyUnicode_IS_ASCII(value):
        return False
    at = <const uint8_t *>PyUnicode_DATA(value)
    for i in range(n):
        # No character that a value may hold becomes another than itself, or its lower case, in any of these texts.
        if at[i] | 32 != wanted[i]:
            return False
    return True


cdef bint _is_of(object value, uint8_t kind, Py_ssize_t length) except -1:
    """Tell whether a value consists of as many characters of a kind, and of what `kind` says may follow them."""
    cdef const uint8_t *at
    cdef Py_ssize_t i = 0, n
    if not PyUnicode_CheckExact(value) or not PyUnicode_IS_ASCII(value):
        return False
    at = <const uint8_t *>PyUnicode_DATA(value)
    n = PyUnicode_GET_LENGTH(value)
    while i < n and i < length and _kinds[at[i]] & kind:
        i += 1
    if kind == BASE64:
        return i == length and n == length + 2 and at[i] == 61 and at[i + 1] == 61  # "=="
    if i and i < n and at[i] == 58 and 2 <= n - i <= 5:  # a colon, and a port of up to four digits
        i += 1
        while i < n and 48 <= at[i] <= 57:
            i += 1
    return i and i == n


cdef object _find_key(dict fields):
    if not _is(fields.get("Upgrade"), b"websocket"):
        return None
    connection = fields.get("Connection")
    if not _is(connection, b"upgrade") and not _is(connection, b"keep-alive, upgrade"):
        return None
    if not _is(fields.get("Sec-WebSocket-Version"), b"13"):
        return None
    if "Transfer-Encoding" in fields or "Content-Length" in fields:
        return None
    key = fields.get("Sec-WebSocket-Key")
    return key if _is_of(key, BASE64, 22) and _is_of(fields.get("Host"), HOST, PY_SSIZE_T_MAX) else None


def find_key(dict fields not None):
    """Return the key if the fields ask for a WebSocket in the usual words; else None, and they are to be looked at."""
    return _find_key(fields)


def lower_pairs(bytes head not None, dict known not None, dict last not None):
    """Return the headers of a well-formed head, in order, names in lower case."""
    cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(head)
    cdef const uint8_t *end = begin + PyBytes_GET_SIZE(head)
    cdef const uint8_t *at = begin
    cdef const uint8_t *start
    cdef const uint8_t *stop
    cdef list pairs = []
    cdef bytes name, value
    cdef tuple pair
    cdef Py_ssize_t n
    while not _ends_line(at, end):
        if at == end:
            return _pairs_of_any(head, known, last)  # it is not well-formed
        at += 1
    at += 2
    while not _ends_line(at, end):
        start = at
        at = _skip(at, end, TOKEN)
        if not (at < end and at[0] == 58):
            return _pairs_of_any(head, known, last)
        name = PyBytes_FromStringAndSize(<const char *>start, at - start)
        _lower(<uint8_t *>PyBytes_AS_STRING(name), at - start)
        start = at + 1
        at = stop = _skip(start, end, VALUE)
        if not _ends_line(at, end):
            return _pairs_of_any(head, known, last)
        at += 2
        while start < stop and start[0] in (9, 32):
            start += 1
        while stop > start and stop[-1] in (9, 32):
            stop -= 1
        pair, n = last.get(name), stop - start
        if pair is None:
            value = PyBytes_FromStringAndSize(<const char *>start, n)
            pair = (known.get(name, name), known.get(value, value))
        elif not _equals(pair[1], start, n):
            value = PyBytes_FromStringAndSize(<const char *>start, n)
            pair = (pair[0], known.get(value, value))
            if n <= _max_last:
                last[name] = pair
        pairs.append(pair)
    return pairs


cdef bint _equals(bytes value, const uint8_t *start, Py_ssize_t n) noexcept:
    return PyBytes_GET_SIZE(value) == n and memcmp(PyBytes_AS_STRING(value), start, n) == 0


cdef void _lower(uint8_t *at, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(n):
        if 65 <= at[i] <= 90:
            at[i] |= 32
