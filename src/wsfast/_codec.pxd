"""The codec's classes as other extension modules of wsfast see them; `_codec.pyx` explains them."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t


cdef int _keep_spare(PyObject *message) except -1
cdef int _seal(dict names) except -1


cdef class Encoder:
    cdef PyObject *_out  # bytes under construction, or NULL
    cdef size_t _used
    cdef size_t _room
    cdef bint _mask
    cdef bint _made
    cdef bint _shared  # `_out` is somebody else's, too: it is copied before anything follows

    cdef uint8_t *_extend(self, size_t n) except NULL
    cdef uint8_t *_copy(self, size_t room, size_t needed) except NULL
    cdef int _append(self, uint8_t first, const uint8_t *data, size_t n) except -1
    cdef int _head(self, uint8_t first, size_t n) except -1
    cdef int _append_text(self, uint8_t first, object text) except -1
    cdef int _message(self, object data) except -1
    cdef int _share(self, bytes frames) except -1
    cdef bytes _take(self)


cdef class Decoder:
    cdef object _inflate
    cdef object _extensions
    cdef object _buffer  # memoryview, or None until it is needed
    cdef PyObject *_message  # bytes under construction, or NULL
    cdef PyObject *_input  # bytes: received, not yet parsed, or NULL
    cdef size_t _input_start
    cdef size_t _input_end
    cdef uint64_t _max_size  # UINT64_MAX: no limit
    cdef uint64_t _max_fragments
    cdef uint64_t _max_events
    cdef uint64_t _remaining
    cdef uint64_t _fragments
    cdef uint64_t _size
    cdef uint64_t _emitted
    cdef size_t _used  # bytes in _message
    cdef size_t _room
    cdef size_t _checked  # bytes of a text that were checked
    cdef size_t _length  # characters in them
    cdef size_t _lent
    cdef size_t _inflated  # by this call, where max_events bounds it
    cdef uint8_t _mask[4]
    cdef uint8_t _opcode
    cdef uint8_t _masked
    cdef uint8_t _streaming
    cdef uint8_t _done
    cdef uint8_t _stopped
    cdef uint8_t _lent_message  # how many may hold it then, or 0 if the receive buffer was lent
    cdef uint8_t _partial
    cdef uint8_t _fin
    cdef uint8_t _compressed
    cdef uint8_t _largest  # byte of them: from 0x80 on, the text is not ASCII
    cdef uint8_t _busy  # while `inflate` or `extensions` may be running, or UNMADE until `__init__` has run

    cdef int _refuse(self, str call) except -1
    cdef object _lend(self)
    cdef list _filled(self, size_t n)
    cdef int _received_in_place(self, size_t n, Py_ssize_t holders, list events) except -1
    cdef list _take_in(self, const uint8_t *data, size_t n)
    cdef bytes _without_extensions(self, const uint8_t *data, size_t n)
    cdef int _follow_extensions(self) except -1
    cdef int _keep(self, const uint8_t *data, size_t used, size_t n) except -1
    cdef int _fail(self, list events, object failure) except -1
    cdef int _give_up(self) except -1
    cdef int _drop_input(self) except -1
    cdef int _drop_message(self) except -1
    cdef Py_ssize_t _parse(self, const uint8_t *p, size_t n, list events) except -1
    cdef object _whole(self, bint text, const uint8_t *data, size_t n, const uint8_t *key)
    cdef Py_ssize_t _frame(self, const uint8_t *p, size_t n, list events) except -1
    cdef int _too_big(self, uint64_t more, uint64_t limit) except -1
    cdef int _control(self, uint8_t opcode, bytes payload, list events) except -1
    cdef Py_ssize_t _payload(self, const uint8_t *p, size_t n, list events) except -1
    cdef int _reserve(self, size_t needed, uint64_t coming) except -1
    cdef int _grow(self, size_t n, uint64_t seen, bint final) except -1
    cdef int _finish(self, list events, Py_ssize_t holders) except -1
    cdef int _emit(self, list events) except -1
