"""The frames of `LocalBus`, in Cython: the fast twin of `_frames_py.py`, which explains the rules."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

__all__ = ["HEAD_SIZE", "MAX_FRAME", "MESSAGE", "make", "take"]

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

HEAD_SIZE = 6
MAX_FRAME = 134_217_728
MESSAGE = 5

cdef enum:
    _HEAD_SIZE = 6
    _MAX_FRAME = 134217728
    _MESSAGE = 5


def make(uint8_t kind, str topic not None, bytes body not None):
    """Make a frame; see `_frames_py.py`."""
    cdef Py_ssize_t named = 0, size = PyBytes_GET_SIZE(body)
    cdef const char *name = PyUnicode_AsUTF8AndSize(topic, &named)
    cdef bytes frame
    cdef uint8_t *out
    if named > 255 or size > _MAX_FRAME - named:
        raise ValueError("a frame's name must have at most 255 bytes, and all of it at most MAX_FRAME")
    frame = PyBytes_FromStringAndSize(NULL, _HEAD_SIZE + named + size)
    out = <uint8_t *>PyBytes_AS_STRING(frame)
    size += named
    out[0], out[1], out[2], out[3] = size & 0xFF, size >> 8 & 0xFF, size >> 16 & 0xFF, size >> 24 & 0xFF
    out[4], out[5] = kind, <uint8_t>named
    memcpy(out + _HEAD_SIZE, name, named)
    memcpy(out + _HEAD_SIZE + named, PyBytes_AS_STRING(body), size - named)
    return frame


def take(bytes data not None, dict topics not None, received, other):
    """Hand on the frames that bytes begin with, and return how many bytes that were; see `_frames_py.py`."""
    cdef const uint8_t *head
    cdef Py_ssize_t at = 0, end = PyBytes_GET_SIZE(data)
    cdef uint32_t size
    cdef uint8_t kind, named
    cdef bytes name, body
    while end - at >= _HEAD_SIZE:
        head = <const uint8_t *>PyBytes_AS_STRING(data) + at
        size = head[0] | <uint32_t>head[1] << 8 | <uint32_t>head[2] << 16 | <uint32_t>head[3] << 24
        kind, named = head[4], head[5]
        if size > _MAX_FRAME or named > size:
            raise ValueError(f"a frame of {size} bytes")
        if end - at - _HEAD_SIZE < <Py_ssize_t>size:
            break
        at += _HEAD_SIZE + <Py_ssize_t>size
        name = PyBytes_FromStringAndSize(<const char *>head + _HEAD_SIZE, named)
        body = PyBytes_FromStringAndSize(<const char *>head + _HEAD_SIZE + named, size - named)
        if kind == _MESSAGE and received is not None:
            topic = topics.get(name)
            if topic is not None:
                received(topic, body, None)
                continue
        other(kind, name, body)
    return at
