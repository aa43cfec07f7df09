"""A request's head that came whole, in Cython: the fast reading of `_head_py.py`, which has the rules.

Each byte is looked at once, and a `str` is made of the values that the handshake looks at.
"""

import re

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t

from ..http import TCHAR
from ._head_py import NAMES, find_fields

__all__ = ["find_fields", "take_head"]


cdef enum:
    # What a byte may be part of:
    TOKEN = 1
    VALUE = 2
    TARGET = 4


cdef uint8_t _kinds[256]
cdef tuple _names = NAMES
cdef tuple _lower_names = tuple([name.lower().encode() for name in NAMES])
cdef int _i


for _i in range(256):
    _kinds[_i] = (
        (TOKEN if _i < 128 and re.fullmatch(TCHAR, chr(_i)) else 0)
        | (VALUE if _i == 9 or 32 <= _i <= 126 or _i >= 128 else 0)
        | (TARGET if 33 <= _i <= 126 and _i != 35 else 0)
    )


cdef object _known(const uint8_t *name, Py_ssize_t n):
    """Return the header's name as `NAMES` has it; None if it is not among them."""
    cdef const uint8_t *lower
    cdef Py_ssize_t i, k
    for i in range(len(_lower_names)):
        if PyBytes_GET_SIZE(_lower_names[i]) == n:
            lower = <const uint8_t *>PyBytes_AS_STRING(_lower_names[i])
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


cdef bint _begins(const uint8_t *at, const uint8_t *end, bytes text) noexcept:
    cdef Py_ssize_t k
    if end - at < PyBytes_GET_SIZE(text):
        return False
    for k in range(PyBytes_GET_SIZE(text)):
        if at[k] != <uint8_t>PyBytes_AS_STRING(text)[k]:
            return False
    return True


def take_head(bytes data not None, Py_ssize_t max_size, Py_ssize_t max_headers):
    """Take the head of a request that comes whole and in order, of GET and with a target in origin-form."""
    cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef const uint8_t *end = begin + min(PyBytes_GET_SIZE(data), max_size)
    cdef const uint8_t *at = begin
    cdef const uint8_t *start
    cdef const uint8_t *colon
    cdef dict fields
    if not _begins(at, end, b"GET /"):
        return None
    at = _skip(at + 5, end, TARGET)
    if not _begins(at, end, b" HTTP/1.1\r\n"):
        return None
    at += 11
    fields = {}
    while not _begins(at, end, b"\r\n"):
        start = at
        at = colon = _skip(at, end, TOKEN)
        if at == start or not _begins(at, end, b":"):
            return None
        at = _skip(at + 1, end, VALUE)
        if not _begins(at, end, b"\r\n") or not max_headers:
            return None
        max_headers -= 1
        name = _known(start, colon - start)
        if name is not None:
            value = _value(colon + 1, at)
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        at += 2
    return at + 2 - begin, fields
