"""The transport's classes as other extension modules of wsfast see them; `_socket.pyx` explains them."""

from libc.stdint cimport uint8_t


cdef class Receiver:
    cdef char *_lend_memory(self, Py_ssize_t *size) except NULL
    cdef bint _memory_filled(self, Py_ssize_t n) except -1
    cdef int _write_gathered(self) except -1


cdef Receiver as_receiver(object protocol)


cdef class Watcher:
    cdef object _loop  # a weak reference
    cdef object _poller  # a weak reference; None while it polls none
    cdef int _apart  # how many transports the loop watches itself

    cdef bint _poll(self, SocketTransport transport) except -1
    cdef Poller _polling(self)
    cdef int _poll_no_more(self, SocketTransport transport) except -1


cdef class Poller:
    cdef Watcher _watcher
    cdef list _transports  # by descriptor; None for those which are not polled
    cdef int _epoll
    cdef int _polled  # how many it polls
    cdef object __weakref__

    cdef bint _take(self, SocketTransport transport) except -1
    cdef int _drop(self, SocketTransport transport) except -1
    cdef int _end_if_unused(self) except -1
    cdef int _call(self, SocketTransport transport) except -1


cdef class SocketTransport:
    cdef object _loop
    cdef object _protocol
    cdef Receiver _receiver  # the protocol, if its memory can be had without a call of Python
    cdef object _owner  # a socket that is to be closed with this one
    cdef object _socket  # what `get_extra_info` handed out
    cdef object _pieces  # a list of what waits to be sent, or None
    cdef Watcher _watcher  # of the loop; None before it was read
    cdef object _context  # in which the poller calls; None while it does not
    cdef Py_ssize_t _offset  # of the first of them, what was sent
    cdef readonly long long _buffered  # an object that waits several times may be more than memory holds
    cdef Py_ssize_t _high
    cdef Py_ssize_t _low
    cdef int _fd
    cdef uint8_t _buffered_protocol
    cdef uint8_t _registered  # the loop calls when there is something to read
    cdef uint8_t _writing  # the loop calls when there is room
    cdef uint8_t _read_paused
    cdef uint8_t _protocol_paused
    cdef uint8_t _eof
    cdef uint8_t _closing
    cdef uint8_t _broken  # nothing can be sent any more
    cdef uint8_t _due  # `_receive_soon` will be called
    cdef unsigned int _peer[8]  # a `wsf_address`
    cdef object __weakref__

    cdef int _send(self, const char *data, Py_ssize_t n, bytes owner, bint last) except -1
    cdef int _send_two(self, bytes head, object owner, const char *data, Py_ssize_t m) except -1
    cdef int _keep(self, object owner, const char *data, Py_ssize_t n, Py_ssize_t sent) except -1
    cdef int _wait_for_room(self) except -1
    cdef int _write_failed(self, int number) except -1
    cdef int _set_protocol(self, object protocol) except -1
    cpdef _read_ready(self)
    cdef Py_ssize_t _receive(self) except -2
    cdef int _failed(self, object exc, object message) except -1
    cdef int _begin(self) except -1
    cdef int _stop_reading(self) except -1
    cdef int _stop_writing(self) except -1
    cdef bint _nothing_unread(self) noexcept
    cdef int _let_write(self) except -1
