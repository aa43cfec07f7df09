# Part of `_socket.pyx`: one epoll of our own for the connections of an event loop, which the loop watches by one
# `add_reader`. A connection costs the loop no handle and no entry then, and a turn one call of Python instead of one
# for each connection.
#
# Whoever uses a connection sees what `add_reader` for each would show. Each has a context of its own, copied where
# reading began. What a callback raises, to end the program say, comes out of the loop at once; the connections behind
# it are read when the loop goes on, since epoll tells of them until they are. The loop watches a connection itself, so
# that nobody can tell,
#
# * in debug mode, where it names what was slow,
# * if it may be run within one of its callbacks, or is of a class that we do not know (`may_nest`),
# * while there are only a few: a turn with one that is ready costs a system call more here.

import weakref


cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


cdef extern from "_poller.h" nogil:
    enum:
        WSF_BATCH
    int wsf_poller()
    int wsf_poll(int poller, int fd)
    void wsf_poll_no_more(int poller, int fd)
    int wsf_polled(int poller, int *fds)
    void wsf_close(int fd)


cdef enum:
    FEW = 4  # connections of a loop that it watches itself


cdef dict _watchers = {}  # by `id(loop)`, which may be another loop's once the first is gone


@cython.final
cdef class Watcher:
    """Sees to it that a loop calls its transports when they have something to read; each of them has it."""

    cdef bint _poll(self, SocketTransport transport) except -1:
        """Have a transport polled; return False where the loop has to watch it."""
        cdef Poller poller
        cdef object loop = transport._loop
        if self._apart < FEW or loop.get_debug() or _may_nest(loop):
            return False
        poller = self._polling()
        if poller is None:
            poller = Poller.__new__(Poller)
            poller._watcher = self
            if poller._epoll < 0:
                return False  # out of descriptors, or a system without epoll
            loop.add_reader(poller._epoll, poller)
            self._poller = weakref.ref(poller)
        return poller._take(transport)

    cdef Poller _polling(self):
        """Return the loop's poller; None if it has none, and once it was closed."""
        return None if self._poller is None else self._poller()

    cdef int _poll_no_more(self, SocketTransport transport) except -1:
        cdef Poller poller = self._polling()
        if poller is not None:
            poller._drop(transport)
        return 0


cdef Watcher _watcher_of(object loop):
    watcher = _watchers.get(id(loop))
    if watcher is None or (<Watcher>watcher)._loop() is not loop:
        for key, old in list(_watchers.items()):
            if (<Watcher>old)._loop() is None:
                _watchers.pop(key, None)
        watcher = Watcher.__new__(Watcher)
        (<Watcher>watcher)._loop = weakref.ref(loop)
        _watchers[id(loop)] = watcher
    return <Watcher>watcher


@cython.final
cdef class Poller:
    """Calls the transports that have something to read; the loop calls it, and alone has it.

    So a loop that is closed forgets its transports, as it does those which it watches itself.
    """

    def __cinit__(self):
        self._epoll = wsf_poller()
        self._transports = []

    def __dealloc__(self):
        if self._epoll >= 0:
            wsf_close(self._epoll)

    def __repr__(self):
        return f"<poller of {self._polled} connections>"

    cdef bint _take(self, SocketTransport transport) except -1:
        cdef int fd = transport._fd, missing
        if wsf_poll(self._epoll, fd) < 0:
            self._end_if_unused()
            return False
        missing = fd + 1 - <int>len(self._transports)
        if missing > 0:
            self._transports.extend([None] * missing)
        self._transports[fd] = transport
        self._polled += 1
        transport._context = PyContext_CopyCurrent()
        return True

    cdef int _drop(self, SocketTransport transport) except -1:
        wsf_poll_no_more(self._epoll, transport._fd)
        self._transports[transport._fd] = None
        self._polled -= 1
        return self._end_if_unused()

    cdef int _end_if_unused(self) except -1:
        """Leave nothing with a loop that has no connections: it may be closed next."""
        if not self._polled:
            self._watcher._poller = None
            loop = self._watcher._loop()
            if loop is not None and not loop.is_closed():
                loop.remove_reader(self._epoll)
        return 0

    def __call__(self):
        cdef int fds[WSF_BATCH]
        cdef int i, n
        if not self._polled:
            return
        if self._watcher._loop().get_debug():
            self._give_back()
            return
        n = wsf_polled(self._epoll, fds)
        for i in range(n):
            # Whoever comes before may have closed it. If the number is another's by now, that one reads in vain.
            transport = self._transports[fds[i]]
            if transport is not None:
                self._call(<SocketTransport>transport)

    cdef int _call(self, SocketTransport transport) except -1:
        cdef object context = transport._context
        PyContext_Enter(context)
        try:
            transport._read_ready()
        finally:
            PyContext_Exit(context)
        return 0

    def _give_back(self):
        """Let the loop watch all of them, each in the context that it has."""
        cdef SocketTransport transport
        for transport in [transport for transport in self._transports if transport is not None]:
            context = transport._context
            transport._stop_reading()
            context.run(transport._watch)
