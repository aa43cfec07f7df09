"""The hot path between an asyncio transport and a handler, in Cython: the fast twin of `_channel_py.py`.

It owns the way of a message on an open connection: received bytes to the decoder, messages to whoever
consumes them, frames into the encoder, and the encoder's bytes to the transport. Everything rare
(control frames, closing, timers, compression) is left to `protocol.py`, whose class derives from `Channel`.
`_channel_py.py` is where the rules are explained; what is different here is only:

* With the transport of wsfast, memory is filled and frames are sent without a call of Python in between.
* The last frame goes out with the end of the stream, where it is sure that nothing follows either way.
* A task that waits for a message is resumed from the transport's callback itself where nobody can tell (see
  `Turn._may_resume`): no new Future, no handle and no further turn of the loop for each message. A message that is
  alone stands beside the queue, and `async for` steps through an object of its own.
"""

import asyncio
from asyncio import Future, sleep
from time import perf_counter
from types import FunctionType
from warnings import warn

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.limits cimport INT_MAX
from libc.stdint cimport uint8_t, uint64_t

from .._codec cimport Decoder, Encoder, _keep_spare, _seal
from ..transport._socket cimport Receiver, SocketTransport

from ..connection import State
from ..events import Fragment
from ..exceptions import ENDS_PROGRAM, ONE_RECEIVER, ConcurrencyError, InvalidState
from ..transport.loops import OtherThread, is_stock_transport, may_nest, write_parts

__all__ = ["Channel", "Endpoint", "EventEndpoint", "Turn"]


cdef extern from *:
    """
    /* Give a type a way to be awaited and iterated that raises no StopIteration where none is needed. */
    static void wsf_set_slots(PyObject *type, void *send, void *next)
    {
        ((PyTypeObject *)type)->tp_as_async->am_send = (sendfunc)send;
        ((PyTypeObject *)type)->tp_iternext = (iternextfunc)next;
        PyType_Modified((PyTypeObject *)type);
    }
    """
    Py_ssize_t PY_SSIZE_T_MAX
    int PyIter_Send(PyObject *coroutine, PyObject *value, PyObject **result) except -1  # PYGEN_ERROR
    object PyObject_CallNoArgs(PyObject *function)
    object PyObject_Vectorcall(PyObject *function, PyObject **arguments, size_t count, PyObject *names)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    void PyErr_SetObject(object kind, object value)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    enum:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    void wsf_set_slots(PyObject *type, void *send, void *next)
    unsigned long PyThread_get_thread_ident()


cdef extern from *:
    """
    /* Seconds of a monotonic clock that takes few nanoseconds to read, and may be some milliseconds behind. */
    #ifdef _WIN32
    #include <windows.h>
    static double wsf_clock(void) { return (double)GetTickCount64() / 1e3; }
    #else
    #include <time.h>
    #ifdef CLOCK_MONOTONIC_COARSE
    enum { WSF_CLOCK = CLOCK_MONOTONIC_COARSE };
    #else
    enum { WSF_CLOCK = CLOCK_MONOTONIC };
    #endif
    static double wsf_clock(void)
    {
        struct timespec now;
        clock_gettime(WSF_CLOCK, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    }
    #endif
    """
    double wsf_clock()


cdef extern from "_threads.h":
    Py_ssize_t wsf_holders(object thing)
    unsigned int wsf_version(object thing)
    unsigned long wsf_load(const unsigned long *place)
    void wsf_store(unsigned long *place, unsigned long value)


cdef enum:
    CORK_SIZE = 65536  # bytes gathered that are written without waiting for the end of the turn
    LARGE = 32768  # bytes of a message that is not copied into the encoder
    COMING = 16384  # bytes still to come of a frame for which reading goes on at once
    TURN_SIZE = 131072  # bytes written of one turn after which a task that sends gives others one
    MANY_FRAGMENTS = 1024  # of one message, from which on each read ends its turn
    TURN_SENDS = 2048  # messages after which a task that sends without end gives others a turn
    TURN_PACKED = 256  # what TURN_SENDS is, for messages that may be compressed, which takes longer
    LARGE_PACKED = 65536  # bytes of a message whose compression fills a turn
    SLICE_WRITES = 32  # connections written to at the end of a turn, between two looks at the clock
    OVERHEAD = 64  # bytes that a held message counts for beyond its own size
    QUEUE_SLACK = 64  # places of taken messages that the queue may keep
    # Why reading is paused:
    PAUSED_HELD = 1  # the consumer is behind
    PAUSED_PENDING = 2  # the decoder has more events than one turn may handle
    PAUSED_WRITING = 4  # the peer does not take what is sent to it
    # Kinds of event loops:
    OTHER = 0
    ASYNCIO = 1
    UVLOOP = 2


cdef double SLICE = 0.005  # seconds that the end of one turn may take before others get one


@cython.final
cdef class Turn:
    """The channels of one event loop whose frames wait to be written, and the loop's receive buffer."""

    cdef readonly object loop
    cdef readonly object buffer
    cdef public int gathering  # indexes of topics that have messages for the end of this turn
    cdef object done  # a Future that is done
    cdef list _dirty
    cdef unsigned long _thread  # in which the loop runs; others look at it, and at nothing else that changes
    cdef int _stock  # whether nobody runs such a loop within itself, as of `_version` of its class; see `_is_stock`
    cdef bint _nests  # what `may_nest` tells, as of then
    cdef unsigned int _version
    cdef bint _resuming  # a task is being resumed from a transport's callback
    cdef Py_buffer *_view  # of the object that owns the buffer's memory: held to the end, so that nobody can resize it

    def __cinit__(self, loop, buffer):
        self._view = <Py_buffer *>PyMem_Calloc(1, sizeof(Py_buffer))
        if self._view == NULL:
            raise MemoryError
        PyObject_GetBuffer(memoryview(buffer).obj, self._view, PyBUF_WRITABLE)
        if self._view.len != len(buffer):
            raise ValueError("expected a view of all of a buffer")
        self.loop = loop
        self.buffer = buffer
        self.done = Future(loop=loop)
        self.done.set_result(None)
        self._dirty = []
        wsf_store(&self._thread, PyThread_get_thread_ident())

    cdef inline int _check(self, Channel channel) except -1:
        """Do what `check_thread` does, at little cost: what a turn holds back already, the loop has agreed to."""
        if PyThread_get_thread_ident() != wsf_load(&self._thread) or not (channel._corked or self._dirty):
            self.check_thread()
        return 0

    cpdef int check_thread(self) except -1:
        """Raise RuntimeError in any thread but the event loop's, and while another loop runs in that."""
        cdef object running = PyObject_CallNoArgs(<PyObject *>_get_running_loop)
        if running is not self.loop:
            if running is not None or PyThread_get_thread_ident() != wsf_load(&self._thread):
                raise OtherThread(OTHER_THREAD)
        else:
            wsf_store(&self._thread, PyThread_get_thread_ident())  # a loop may run in one thread after another
        return 0

    cdef bint _may_resume(self) except -1:
        """Whether nobody can tell that a task was resumed from a transport's callback, not by a handle of the loop.

        A handler that runs the loop within itself (nest_asyncio, GUIs) would find the callback on the stack, with
        frames held back; and in debug mode, what takes long would bear the callback's name.
        """
        if self._resuming:
            return False
        self._know_loop()
        if self._stock == ASYNCIO:
            return not self.loop._debug  # what `get_debug` returns: to call that takes 600 instructions
        return self._stock == UVLOOP and not self.loop.get_debug()

    cdef inline int _know_loop(self) except -1:
        """Look at the loop's class, unless that was done since it was changed."""
        if self._version != wsf_version(self.loop) or self._version == 0:
            self._stock = _is_stock(type(self.loop))
            self._nests = may_nest(type(self.loop))
            self._version = wsf_version(self.loop)
        return 0

    def __dealloc__(self):
        if self._view != NULL:
            PyBuffer_Release(self._view)
            PyMem_Free(self._view)

    cdef int _add(self, Channel channel) except -1:
        if not self._dirty:
            self.loop.call_soon(self._run)
        self._dirty.append(channel)
        return 0

    def _run(self):
        cdef list dirty = self._dirty
        cdef Channel channel
        cdef Py_ssize_t i = 0
        cdef double end = perf_counter() + SLICE if len(dirty) > SLICE_WRITES else 0.0
        self._dirty = []
        for channel in dirty:
            i += 1
            if channel._dirty:
                try:
                    channel._flush()
                except Exception as exc:
                    channel.transport_failed(exc)
                except BaseException:
                    # It ends the loop. Where that runs again, to stop in order, the others are written.
                    self._put_off(dirty[i:])
                    raise
            if end and not i % SLICE_WRITES and i < len(dirty) and perf_counter() > end:
                self._put_off(dirty[i:])  # others get a turn first
                break

    cdef int _put_off(self, list rest) except -1:
        if rest:
            self._dirty[:0] = rest
            self.loop.call_soon(self._run)
        return 0


OTHER_THREAD = (
    "a connection can be used by its own event loop only, in the thread of that: from elsewhere, use "
    "asyncio.run_coroutine_threadsafe() for a coroutine such as send(), and loop.call_soon_threadsafe() for a call"
)


def _is_stock(kind):
    """Tell whether a class of event loops is asyncio's (1) or uvloop's own (2), and unchanged; 0 for all others."""
    stock, module = OTHER, ""
    if kind.__name__ == "_UnixSelectorEventLoop":
        stock, module = ASYNCIO, "asyncio.unix_events"
    elif kind.__name__ == "Loop":
        stock, module = UVLOOP, "uvloop"
    if kind.__module__ != module:
        return OTHER
    for name in ("run_forever", "run_until_complete", "_run_once", "_check_running", "get_debug"):
        method = getattr(kind, name, None)
        if isinstance(method, FunctionType) and method.__module__.partition(".")[0] != "asyncio":
            return OTHER
    return stock


cdef object _get_running_loop = asyncio._get_running_loop
cdef object _remove_done_callback = Future.remove_done_callback
# From Python 3.14 on a Future refers to the tasks that wait for it, until their wake-up has been called with it.
cdef object _discard_from_awaited_by = getattr(asyncio.futures, "future_discard_from_awaited_by", None)
cdef object _Fragment = Fragment
cdef object _OPEN = State.OPEN
cdef object _DRAINING = State.DRAINING
cdef str _RECEIVE = "websocket.receive"
cdef str _SEND = "websocket.send"
cdef list _NO_QUEUE = []  # shared by all channels that hold at most one message


cdef inline object _call_with_two(PyObject *function, object first, object second):
    """Call a function that all threads call, without counting a reference to it, at which they would meet."""
    cdef PyObject **arguments = [<PyObject *>first, <PyObject *>second]
    return PyObject_Vectorcall(function, arguments, 2, NULL)


@cython.freelist(64)
@cython.final
cdef class Receive:
    """The awaitable of one `recv` or of one step of ``async for``; a coroutine to whoever awaits it."""

    cdef Channel _channel
    cdef EventEndpoint _events  # who takes messages as events, or None
    cdef object _decode
    cdef bint _iterating
    cdef bint _pieces
    cdef bint _finished
    cdef bint _started
    cdef bint _waiting

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef PyObject *result = NULL
        cdef object made
        cdef int kind = _receive_send(<PyObject *>self, NULL, &result)
        made = <object>result
        Py_DECREF(made)
        if kind == PYGEN_RETURN:
            raise StopIteration(made)
        return made

    def throw(self, kind, value=None, traceback=None):
        self._leave()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self):
        self._leave()

    cdef int _advance(self, PyObject **result) except PYGEN_ERROR:
        """Finish with a message, or suspend the task."""
        cdef Channel channel = self._channel
        cdef object made
        channel.turn._check(channel)
        if self._finished:
            raise RuntimeError("cannot reuse already awaited recv()")
        if self._waiting:
            raise RuntimeError("recv() was resumed before it was done")
        if self._started:
            channel._receiver = None
        elif channel._receiver is not None:
            self._finished = True
            raise ConcurrencyError(ONE_RECEIVER.format("recv_streaming" if self._pieces else "recv"))
        elif channel.streaming and not self._pieces:
            self._finished = True
            raise ConcurrencyError(ONE_RECEIVER.format("recv"))
        if channel._next is None and not channel.ended:
            channel._idle()
        if channel._next is not None:
            self._finished = True
            made = channel._pop()
            if self._decode is not None:
                made = _decoded(made, self._decode)
            if self._events is not None:
                made = {"type": _RECEIVE, "text" if type(made) is str else "bytes": made}
            Py_INCREF(made)
            result[0] = <PyObject *>made
            return PYGEN_RETURN
        if channel.ended:
            self._finished = True
            if self._events is not None:
                made = self._events.last_event()
                Py_INCREF(made)
                result[0] = <PyObject *>made
                return PYGEN_RETURN
            if self._iterating and channel.connection.closed_ok:
                raise StopAsyncIteration
            raise channel.connection.closed_error()
        made = channel._future
        if made is None:
            made = channel._future = Future(loop=channel.turn.loop)
        channel._receiver = self
        self._started = True
        self._waiting = True
        made._asyncio_future_blocking = True
        Py_INCREF(made)
        result[0] = <PyObject *>made
        return PYGEN_NEXT

    cdef int _leave(self) except -1:
        self._finished = True
        self._waiting = False
        if self._channel._receiver is self:
            self._channel._receiver = None
            self._channel._forget_waiting()
        return 0

    cdef int _wake(self) except -1:
        """Resume the task that waits: at once if nobody can tell, else by the loop.

        At once: the task waits for a Future that never completes. Its wake-up callback is removed and called with a
        Future that has completed, which the task takes for the one that it waited for.
        """
        cdef Channel channel = self._channel
        cdef object future = channel._future, wakeup = channel._wakeup, context = channel._context
        if not self._waiting:
            return 0
        self._waiting = False
        if not channel._resumes or not channel.turn._may_resume():
            channel._forget_waiting()
            if not future.done():
                future.set_result(None)
            return 0
        # Wake-ups of one task compare equal, so the cached one removes the new one, unless another task waits.
        if wakeup is None or _call_with_two(<PyObject *>_remove_done_callback, future, wakeup) != 1:
            channel._forget_waiting()
            if future.done():
                return 0  # the task was cancelled and learns that in this turn; the message stays in the queue
            callbacks = future._callbacks
            if callbacks is None or len(callbacks) != 1:
                future.set_result(None)  # nobody waits yet, or not a task
                return 0
            wakeup, context = callbacks[0]
            future.remove_done_callback(wakeup)
            channel._future = future
        if _discard_from_awaited_by is not None:
            _call_with_two(<PyObject *>_discard_from_awaited_by, future, getattr(wakeup, "__self__", None))
        channel.turn._resuming = True
        try:
            PyContext_Enter(context)
            try:
                wakeup(channel.turn.done)
            finally:
                PyContext_Exit(context)
        except RuntimeError:
            # Another task is at work: the transport was fed by a coroutine, not by the loop.
            channel._forget_waiting()
            future.add_done_callback(wakeup, context=context)
            future.set_result(None)
            return 0
        except ENDS_PROGRAM as exc:
            if channel._hands_on:
                raise
            # uvloop's transports would take it for a fault of the connection.
            channel.turn.loop.call_soon(_raise, exc)
        finally:
            channel.turn._resuming = False
        if channel._receiver is None:
            # The task does not wait here any more and might have ended: keep no reference to it.
            channel._wakeup = channel._context = None
        elif channel._wakeup is None and channel._future is not None:
            channel._wakeup = wakeup
            channel._context = context
        return 0


def _raise(exc):
    raise exc


cdef int _receive_send(PyObject *receive, PyObject *value, PyObject **result) except PYGEN_ERROR:
    return (<Receive>receive)._advance(result)


cdef PyObject *_receive_next(PyObject *receive) except? NULL:
    cdef PyObject *result = NULL
    cdef object made
    if (<Receive>receive)._advance(&result) == PYGEN_RETURN:
        # A Fragment is a tuple: given bare, it would be taken for the arguments of StopIteration.
        made = StopIteration(<object>result) if isinstance(<object>result, tuple) else <object>result
        Py_DECREF(<object>result)
        PyErr_SetObject(StopIteration, made)
        return NULL
    return result


# CPython resumes an awaitable by am_send or by tp_iternext, depending on its version.
wsf_set_slots(<PyObject *>Receive, <void *>_receive_send, <void *>_receive_next)


@cython.final
cdef class _Characters:
    """The memory of a `str` of ASCII, for a transport to write from."""

    cdef str _text

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, PyUnicode_DATA(self._text), PyUnicode_GET_LENGTH(self._text), 1, flags)


cdef _Characters _characters(str text):
    cdef _Characters memory = _Characters.__new__(_Characters)
    memory._text = text
    return memory


cdef object _decoded(object message, object decode):
    """Make text of a binary message, or bytes of a text message, as `recv(decode=)` asks."""
    if decode:
        return (<bytes>message).decode() if type(message) is bytes else message
    return (<str>message).encode() if type(message) is str else message


cdef inline Py_ssize_t _size(object event) except -1:
    if type(event) is bytes:
        return PyBytes_GET_SIZE(event)
    if type(event) is str:
        return PyUnicode_GET_LENGTH(event)
    return len(event.data)


cdef class Channel(Receiver):
    """One open connection's way between its transport and the consumer of its messages.

    Specified in `_channel_py.py`.
    """

    cdef public object opening
    cdef public object member
    cdef Decoder _decoder
    cdef Encoder _encoder
    cdef Receive _receiver
    cdef object _next  # the message that is the consumer's next, or None
    cdef list _queue  # what came after it, `_head` of which were taken
    cdef Py_ssize_t _head
    cdef readonly object on_message
    cdef object _terminal
    cdef object _future  # what a receiving task waits for; it never completes, so it can be used again and again
    cdef object _wakeup  # wake-up callback of the task that was resumed and waits again, with the task's context
    cdef object _context
    cdef bint _resumes  # whether the transport is one from whose callbacks tasks are resumed
    cdef bint _hands_on  # whether it hands on what is raised in its callback, to the loop and whoever runs it
    cdef SocketTransport _link  # the transport, if it is one of wsfast
    cdef readonly int paused
    cdef public int moves
    cdef uint8_t _corked
    cdef uint8_t _dirty
    cdef public bint turn_full
    cdef readonly object connection
    cdef readonly object transport
    cdef public bint owes
    cdef double _taken_at
    cdef public bint receiving
    cdef public bint streaming
    cdef public bint sendable
    cdef public bint packs
    cdef public bint write_paused
    cdef public bint ended
    cdef int _at  # how many of `_events` were delivered
    cdef list _events  # being delivered, or None
    cdef readonly Turn turn
    cdef readonly Py_ssize_t held
    cdef readonly Py_ssize_t high_water
    cdef readonly Py_ssize_t low_water
    cdef int _overhead
    cdef int _most
    cdef Py_ssize_t _easy
    cdef Py_ssize_t _max_buffered
    cdef public Py_ssize_t thread_size
    cdef readonly uint64_t messages_received
    cdef readonly uint64_t messages_sent
    cdef readonly uint64_t bytes_received
    cdef readonly uint64_t bytes_sent
    cdef uint64_t _turn_start  # what `bytes_sent` was when this turn began

    def __cinit__(self, *args, **kwargs):
        if type(self) is Channel:
            raise TypeError("cannot create 'Channel' instances: it is the base class of ConnectionProtocol")

    def begin(self, turn, opening):
        """Set the channel up for the opening handshake; called once, before anything else."""
        self.turn = turn
        self.opening = opening

    def attach(self, connection, transport, read_limit, max_buffered, write_limit):
        """Set the channel up for messages; called once."""
        self.opening = None
        self.connection = connection
        self.use_transport(transport)
        self._decoder = connection.decoder
        self._encoder = connection.encoder
        self._queue = _NO_QUEUE
        self.high_water = read_limit
        self.low_water = self.high_water // 4
        self._overhead = OVERHEAD
        self._most = INT_MAX
        # A character takes up to four bytes.
        self._easy = PY_SSIZE_T_MAX if max_buffered is None else max(0, (max_buffered - write_limit) // 4)
        self._max_buffered = PY_SSIZE_T_MAX if max_buffered is None else max_buffered
        self.thread_size = PY_SSIZE_T_MAX
        self.receiving = True

    def use_marks(self, marks):
        """Pause reading at other marks than those of `attach`; to be called before there is a message."""
        self.high_water, self.low_water, self._overhead, self._most = marks

    cdef inline Py_ssize_t _weight(self, object message) except -1:
        cdef Py_ssize_t weight = _size(message) + self._overhead
        return weight if weight < self._most else self._most

    cpdef use_transport(self, transport):
        """Use a transport from now on: the first one, or another once nothing is unsent on the one before."""
        self.transport = transport
        self._link = transport if isinstance(transport, SocketTransport) else None
        # wsfast's own transports do, and TLS above one.
        self._hands_on = self._link is not None or isinstance(getattr(transport, "transport", None), SocketTransport)
        # The callbacks of a `Backlog` are those of its inner transport.
        self._resumes = self._hands_on or is_stock_transport(type(getattr(transport, "inner", transport)))

    def derive_flags(self, bint gated):
        """Derive what may be sent and received from state, transport and compression."""
        cdef object connection = self.connection, state = connection.state, compression = connection.compression
        cdef bint free = state is _OPEN and not gated and not connection.in_message
        free = free and connection.outgoing is self._encoder  # else extensions are in front of it
        self.sendable = free and compression is None
        self.packs = free and compression is not None
        self.ended = state is _DRAINING or self.transport is None
        self.receiving = self.receiving and not self.ended

    def consume(self, on_message):
        """Hand each message to a callable instead of queueing it for `recv`."""
        self.on_message = on_message

    # --- Receiving

    def get_buffer(self, sizehint):
        """Lend the transport memory to receive into."""
        if self.opening is not None:
            return self.turn.buffer
        return self._decoder._lend()

    cdef char *_lend_memory(self, Py_ssize_t *size) except NULL:
        cdef object memory
        cdef Py_buffer view
        cdef char *start
        if self.opening is None:
            memory = self._decoder._lend()
            if memory is not self.turn.buffer:
                # The message's own memory: the decoder does not move it until it is filled.
                PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
                start = <char *>view.buf
                size[0] = view.len
                PyBuffer_Release(&view)
                return start
        size[0] = self.turn._view.len
        return <char *>self.turn._view.buf

    cdef bint _memory_filled(self, Py_ssize_t n) except -1:
        if self.opening is not None:
            self.opening.data_received(PyBytes_FromStringAndSize(<const char *>self.turn._view.buf, n))
            return False
        self.bytes_received += n
        self._deliver(self._decoder._filled(n))
        return self._decoder._partial and self._decoder._remaining >= COMING

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take in what the transport received."""
        if self.opening is not None:
            self.opening.data_received(bytes(self.turn.buffer[:nbytes]))
            return
        if nbytes < 0 or <size_t>nbytes > self._decoder._lent:
            raise ValueError(f"nbytes must be from 0 to the {self._decoder._lent} bytes lent, got {nbytes}")
        self.count_read()
        self.bytes_received += nbytes
        self._deliver(self._decoder._filled(nbytes))

    cpdef count_read(self):
        """Count a read of the transport, before what it has read is handled: see `moves`."""
        if self.moves:
            self.moves -= 1
            if not self.moves:
                self.move()

    def feed(self, data):
        """Take in bytes that were received in another way."""
        self.bytes_received += len(data)
        self._deliver(self._decoder.feed(data))

    def show_held(self):
        """Deliver, in streaming mode, what has come of a message already: its sender may wait for a reaction."""
        # Another's transport may be receiving into the memory that the decoder lent; then wait for its next read.
        if self._decoder.held and not self._decoder._stopped and (self._link is not None or not self._decoder._lent):
            self._deliver(self._decoder.feed(b""))

    def take_rest(self):
        """Deliver what `max_events` left in the decoder, all of it: the transport has ended."""
        self._deliver_rest()
        while self._decoder._stopped:
            self._deliver(self._decoder.feed(b""))

    cpdef _deliver_rest(self):
        """Go on delivering a batch while a listener of it runs the loop within itself."""
        if self._events is not None and self._at < len(self._events):
            self._deliver([])

    cdef int _deliver(self, list events) except -1:
        cdef object event
        cdef object on_message = self.on_message
        self.turn._know_loop()
        if self.turn._nests and on_message is not None:
            self.turn.loop.call_soon(self._deliver_rest)
        self._corked = not self.turn._nests
        self.turn_full = False
        self._turn_start = self.bytes_sent
        if self._events is not None:
            events = self._events[self._at:] + events
        self._events = events
        self._at = 0
        try:
            while self._events is not None and self._at < len(self._events):
                event = self._events[self._at]
                self._at += 1
                if type(event) is bytes or type(event) is str or type(event) is _Fragment:
                    if not self.receiving:
                        continue
                    if type(event) is not _Fragment or event.final:
                        self.messages_received += 1
                    if on_message is None:
                        if type(event) is _Fragment:
                            event = self.handle_fragment(event)
                            if event is None:
                                continue
                        Channel.put_back(self, event)  # which nobody overrides, and looks for no override
                    else:
                        try:
                            on_message(event)
                        except BaseException as exc:
                            self.consumer_failed(exc)
                            if isinstance(exc, ENDS_PROGRAM):
                                raise
                elif self.is_terminal(event):
                    # The messages before this event are answered first: see `idle`.
                    self._terminal = event
                else:
                    self.handle_event(event)
            if self._receiver is not None and (self._terminal is not None or self._next is not None):
                self._receiver._wake()
            if self._terminal is not None and events:
                self._settle()
        finally:
            self._corked = False
            self._events = None
            if self._encoder._used:
                self._flush()
        if self.held > self.high_water and self.receiving and not self.paused & PAUSED_HELD:
            self.pause(PAUSED_HELD)
        if self._decoder._stopped or (self._decoder._fragments > MANY_FRAGMENTS and not events):
            self.pause(PAUSED_PENDING)
            if self.paused == PAUSED_PENDING:
                self.turn.loop.call_soon(self._continue)
        return 0

    def _continue(self):
        """Handle the next batch of what one read brought; see `pause`."""
        if self.paused != PAUSED_PENDING:
            return
        if self._decoder._stopped:
            try:
                self._deliver(self._decoder.feed(b""))
            except BaseException as exc:
                self.transport_failed(exc)
                raise
        if not self._decoder._stopped:
            self.unpause(PAUSED_PENDING)

    cdef int _forget_waiting(self) except -1:
        """Have the next that waits do so for another Future: something else than `_wake` is done to this one."""
        self._future = self._wakeup = self._context = None
        return 0

    cdef int _idle(self) except -1:
        self.owes = False
        if self._terminal is not None:
            self.settle()
        return 0

    def idle(self):
        """Note that the consumer has nothing left to answer and asks for more."""
        self._idle()

    def owed_for(self):
        """Return how many seconds ago the latest message was taken from the queue, to some milliseconds."""
        return wsf_clock() - self._taken_at

    cdef int _settle(self) except -1:
        if not self.receiving or self._next is None and not self.owes:
            self.settle()
        else:
            self.settle_later()
        return 0

    cpdef settle(self):
        """Handle the Close frame, or the failure, that was kept back until the messages before it were answered."""
        event, self._terminal = self._terminal, None
        if event is not None:
            self.handle_event(event)

    cdef object _pop(self):
        cdef object message = self._next
        if self._queue is _NO_QUEUE:
            self._next = None
        else:
            self._next = self._queue[self._head]
            self._queue[self._head] = None
            self._head += 1
            if self._head == len(self._queue):
                self._queue = _NO_QUEUE
                self._head = 0
            elif self._head >= QUEUE_SLACK and self._head * 2 >= len(self._queue):
                # The queue of a consumer that is always behind is never empty: cut off the taken part now and then.
                del self._queue[:self._head]
                self._head = 0
        self.held -= self._weight(message)
        self.owes = True
        self._taken_at = wsf_clock()
        if self.paused & PAUSED_HELD and self.held <= self.low_water:
            self.unpause(PAUSED_HELD)
        return message

    cpdef put_back(self, event):
        """Put a message, or a piece of one, at the end of the queue."""
        if self._next is None:
            self._next = event
        elif self._queue is _NO_QUEUE:
            self._queue = [event]
        else:
            self._queue.append(event)
        self.held += self._weight(event)

    cdef int _empty(self) except -1:
        self._next = None
        self._queue = _NO_QUEUE
        self._head = 0
        self.held = 0
        return 0

    def take_queue(self):
        """Return what is in the queue, and empty it."""
        rest = [] if self._next is None else [self._next, *self._queue[self._head:]]
        self._empty()
        return rest

    def count_sent(self):
        """Count a message that was put into the encoder by other means than this class."""
        self.messages_sent += 1

    def discard(self):
        """Forget the messages that nobody will consume, and drop what is still to come."""
        self.receiving = False
        self._empty()
        self.owes = False
        self.unpause(PAUSED_HELD)
        if self._terminal is not None:
            self.settle()

    def wake_receiver(self):
        """Let a task that waits in `recv` see that there is a message, or that none will come."""
        if self._receiver is not None:
            self._receiver._wake()

    cpdef pause(self, int reason):
        """Stop reading for one more reason; without effect if that reason is set already."""
        if not self.paused:
            self.transport_reading(False)
        self.paused |= reason

    cpdef unpause(self, int reason):
        """Take back a reason to stop reading; read on if it was the last."""
        if not self.paused & reason:
            return
        self.paused &= ~reason
        if not self.paused:
            self.transport_reading(True)
        elif self.paused == PAUSED_PENDING:
            self.turn.loop.call_soon(self._continue)

    # --- Sending

    def settle_gathered(self):
        """Put what was published to this connection's topics into the encoder, ahead of what is sent next."""
        if self.turn.gathering and self.member is not None:
            self.member.settle()

    cdef inline int _before_sending(self) except -1:
        if self.turn.gathering and self.member is not None:
            self.member.settle()
        return 0

    def send_gathered(self, bytes frames not None, Py_ssize_t count, bint cork=False):
        """Send `count` whole messages whose frames were made for many connections, as one write."""
        if not self.sendable or self._encoder._mask or not self._has_room(PyBytes_GET_SIZE(frames)):
            return False
        self.messages_sent += count
        if cork or self._corked or self._encoder._used:
            self._encoder._share(frames)
            if cork or self._corked:
                self._written()
            else:
                self._flush()
        else:
            self._put(frames)
        return True

    def send_behind(self, bytes frames not None, Py_ssize_t count):
        """Send as `send_gathered` does, by the end of the turn, and also to a peer that is behind."""
        if not self.sendable or self._encoder._mask or not self._may_wait(PyBytes_GET_SIZE(frames)):
            return False
        self.messages_sent += count
        self._encoder._share(frames)
        self._written()
        return True

    cdef bint _may_wait(self, Py_ssize_t n) except -1:
        """Tell whether so many bytes more may wait for the peer to take them."""
        cdef long long unsent
        if self.transport is None:
            return False
        if self._max_buffered == PY_SSIZE_T_MAX:
            return True
        unsent = self._link._buffered if self._link is not None else self.transport.get_write_buffer_size()
        return unsent + <long long>self._encoder._used <= <long long>self._max_buffered - n

    cdef int _write(self, object data) except -1:
        self._before_sending()
        if not self.sendable:
            if self.packs and (type(data) is bytes or type(data) is str):
                self._pack(data, None, PY_SSIZE_T_MAX)
            else:
                self.send_rare(data)
            return 0
        if not self._encoder._mask:
            if type(data) is bytes:
                if PyBytes_GET_SIZE(data) >= LARGE:
                    return self._write_large(0x82, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            elif type(data) is str and PyUnicode_IS_ASCII(data) and PyUnicode_GET_LENGTH(data) >= LARGE:
                return self._write_large(0x81, data, <const char *>PyUnicode_DATA(data), PyUnicode_GET_LENGTH(data))
        self._encoder._message(data)
        self.messages_sent += 1
        return self._written()

    cdef bint _pack(self, object data, object compress, Py_ssize_t limit) except -1:
        """Send a message, compressed or not, where compression was agreed on; False if it is larger than `limit`."""
        cdef uint8_t first = 0x82 if type(data) is bytes else 0x81
        cdef bytes payload = <bytes>data if first == 0x82 else (<str>data).encode()
        cdef Py_ssize_t n = PyBytes_GET_SIZE(payload)
        self._before_sending()
        if n >= limit and compress is not False:
            return False
        if n >= LARGE_PACKED:
            self.turn_full = True
        if self.connection.compression.should_compress(n) if compress is None else compress:
            payload = self.connection.compression.compress(payload)
            first |= 0x40
        self._encoder._append(first, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.messages_sent += 1
        self._written()
        return True

    cdef int _write_large(self, uint8_t first, object data, const char *payload, Py_ssize_t m) except -1:
        """Send a large message from where it is, not through the encoder: `bytes`, or `str` of ASCII."""
        cdef bytes head
        self.messages_sent += 1
        self._dirty = False
        self._encoder._head(first, m)
        head = self._encoder._take()
        if self._is_closing():
            return 0
        self.bytes_sent += PyBytes_GET_SIZE(head) + m
        self._fill_turn()
        if self._link is not None:
            self._link._send_two(head, data if first == 0x82 else _characters(data), payload, m)
        else:
            write_parts(self.transport, head, data if first == 0x82 else (<str>data).encode())
        return 0

    cdef bint _is_closing(self) except -1:
        if self._link is not None:
            return self._link._closing or self._link._broken or self._link._eof
        return self.transport is None or self.transport.is_closing()

    cdef inline void _fill_turn(self) noexcept:
        if self.bytes_sent - self._turn_start >= TURN_SIZE:
            self.turn_full = True

    cdef int _written(self) except -1:
        if self._encoder._used >= CORK_SIZE:
            self._flush()
            self._fill_turn()
            return 0
        if not self._corked and not self._dirty:
            self._dirty = True
            self.turn._add(self)
        return 0

    cpdef object next_turn(self):
        """Return an awaitable that lets others run, and then gives this connection a new turn."""
        self.turn_full = False
        self._turn_start = self.bytes_sent
        return sleep(0)

    def write(self, data):
        """Encode a message and see to it that it goes out."""
        self._write(data)

    cdef inline bint _has_room(self, Py_ssize_t n) noexcept:
        return (
            (self.sendable or self.packs) and not self.write_paused
            and n <= self._easy - <Py_ssize_t>self._encoder._used
        )

    def has_room(self, Py_ssize_t n):
        """Tell whether a message of `n` bytes may be sent without waiting; False if that is not certain."""
        return self._has_room(n)

    cdef int _write_encoded(self, bytes frame) except -1:
        self._before_sending()
        self.messages_sent += 1
        if PyBytes_GET_SIZE(frame) < LARGE or self._corked or self._dirty:
            self._encoder._share(frame)
            return self._written()
        return self._put(frame)

    def write_encoded(self, bytes frame not None):
        """Send a whole message whose one frame was encoded for many connections at once, by the end of the turn."""
        self._write_encoded(frame)

    def written(self):
        """Note that frames were put into the encoder, so that they go out by the end of the turn."""
        self._written()

    def flush(self):
        """Write what the encoder holds now."""
        self._flush()

    cdef int _write_gathered(self) except -1:
        if self._encoder is not None and self._encoder._used:
            self._flush()
        return 0

    def write_gathered(self):
        """Write what was gathered for the end of the turn; called before others write to the transport, or end it."""
        self._write_gathered()

    def flush_last(self):
        """Write what the encoder holds; nothing follows it either way."""
        cdef bint may_close = self._link is not None and self._link._nothing_unread()
        self._flush(may_close)
        return may_close

    cdef int _flush(self, bint last=False) except -1:
        cdef bytes frames
        cdef bint shared = self._encoder._shared
        self._dirty = False
        if not self._encoder._used:
            return 0
        frames = self._encoder._take()
        self._put(frames, last)
        return 0 if shared else _keep_spare(<PyObject *>frames)

    def write_head(self, bytes head not None):
        """Send the response to the opening handshake, before anything else; the totals do not count it."""
        self._put(head)
        self.bytes_sent = 0

    cdef int _put(self, bytes data, bint last=False) except -1:
        if self._is_closing():
            return 0
        self.bytes_sent += PyBytes_GET_SIZE(data)
        if self._link is not None:
            self._link._send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data, last)
        else:
            self.transport.write(data)
        return 0

    @property
    def buffered(self):
        """Bytes that were sent by the program and not yet taken by the operating system."""
        if self.transport is None:
            return 0
        return self._encoder._used + self.transport.get_write_buffer_size()

    def detach(self):
        """Note that the transport has ended, and forget the consumer; messages that were received stay queued."""
        if self.member is not None:
            self.member.leave()
        self.transport = None
        self.on_message = None
        self._link = None
        self.write_paused = False


@cython.final
cdef class Iteration:
    """What ``async for`` steps through: the `__anext__` of `WebSocket`, a class in Python, is looked up by its name."""

    cdef Endpoint _endpoint
    cdef Receive _latest

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Receive receive = self._latest
        if receive is None or wsf_holders(receive) > 2:
            receive = self._latest = self._endpoint._step()
        else:
            # No other reference to it is left.
            receive._finished = receive._started = False
        return receive

    async def aclose(self):
        """Do nothing: what was received stays for the next call. `contextlib.aclosing` calls it."""


cdef class Endpoint:
    """The fast part of `WebSocket`: receiving and sending whole messages.

    Specified in `_channel_py.py`.
    """

    cdef readonly Channel _channel

    def __cinit__(self, *args, **kwargs):
        if type(self) is Endpoint:
            raise TypeError("cannot create 'Endpoint' instances: it is the base class of WebSocket")
        self._channel = None

    def _open(self, Channel channel):
        self._channel = channel

    def _send_encoded(self, bytes frame not None):
        """Send a frame that was made for many connections of servers; return False if it does not fit this one."""
        cdef Channel channel = self._channel
        if channel is None:
            return False
        channel.turn._check(channel)
        if not channel.sendable or channel._encoder._mask:
            return False
        if not channel._has_room(PyBytes_GET_SIZE(frame)) and not channel._may_wait(PyBytes_GET_SIZE(frame)):
            return False
        channel._write_encoded(frame)
        return True

    def __aiter__(self):
        cdef Iteration iteration = Iteration.__new__(Iteration)
        iteration._endpoint = self
        return iteration

    cdef inline Channel _opened(self):
        if self._channel is None:
            raise InvalidState("the opening handshake is not finished")
        return self._channel

    cdef Receive _step(self):
        cdef Receive receive = Receive.__new__(Receive)
        receive._channel = self._opened()
        receive._iterating = True
        return receive

    def __anext__(self):
        return self._step()

    def _receive(self, decode):
        """Return the awaitable of the next message; see `WebSocket.recv`."""
        cdef Receive receive = Receive.__new__(Receive)
        receive._channel = self._opened()
        receive._decode = decode
        return receive

    def _recv_piece(self):
        cdef Receive receive = Receive.__new__(Receive)
        receive._channel = self._opened()
        receive._pieces = True
        return receive

    def _send_first(self, message, text, compress):
        """Send a message if that takes one step, and return None; else return an awaitable that does the rest."""
        cdef Channel channel = self._opened()
        channel.turn._check(channel)
        if text is not None or not (type(message) is str or type(message) is bytes):
            return self._send(message, text, compress)
        if not channel.sendable:
            if not channel.packs or not channel._pack(message, compress, channel.thread_size):
                return self._send(message, text, compress)
            if channel.write_paused:
                return self._drain()
            if channel.turn_full or not channel.messages_sent % TURN_PACKED:
                return channel.next_turn()
            return None
        channel._write(message)
        if channel.write_paused:
            return self._drain()
        if channel.turn_full or not channel.messages_sent % TURN_SENDS:
            return channel.next_turn()
        return None

    def send_nowait(self, message):
        """Send a message without waiting; it goes out by the end of the loop's turn.

        Args:
            message: `str` for a text message, bytes-like for a binary one.

        Returns:
            Whether it was sent: False only where more than `max_buffered` would be unsent and `overflow` is ``"drop"``.

        Raises:
            BufferFull: more than `max_buffered` bytes would be unsent and `overflow` is ``"error"``.
            ConnectionClosed: the connection is closed, or was closed now because `overflow` is ``"close"``.
            InvalidState: a message in fragments is unfinished.
            TypeError: `message` is of another type.
            RuntimeError: this is another thread than the event loop's.
        """
        cdef Channel channel = self._opened()
        channel.turn._check(channel)
        # The length of others is not in bytes.
        if not (
            (type(message) is bytes and channel._has_room(PyBytes_GET_SIZE(message)))
            or (type(message) is str and channel._has_room(PyUnicode_GET_LENGTH(message)))
        ) and not channel.may_buffer(message):
            return False
        channel._write(message)
        return True


@cython.freelist(64)
@cython.final
cdef class SendEvent:
    """The awaitable of one `send` of an ASGI application; a coroutine to whoever awaits it."""

    cdef EventEndpoint _endpoint
    cdef object _event
    cdef object _rest  # the coroutine that does what is left to do
    cdef bint _begun
    cdef bint _finished

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef PyObject *result = NULL
        cdef object made
        cdef int kind = self._advance(<PyObject *>value, &result)
        made = <object>result
        Py_DECREF(made)
        if kind == PYGEN_RETURN:
            raise StopIteration(made)
        return made

    def throw(self, kind, value=None, traceback=None):
        self._begun = True
        if self._rest is not None and not self._finished:
            try:
                return self._rest.throw(kind) if value is None else self._rest.throw(kind, value, traceback)
            except BaseException:
                self._finished = True
                raise
        self._finished = True
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self):
        self._begun = self._finished = True
        if self._rest is not None:
            self._rest.close()

    def __dealloc__(self):
        # Not `__del__`: Python calls it once for an object's memory, which the freelist uses again and again.
        if not self._begun:
            warn("coroutine 'send' was never awaited", RuntimeWarning)

    cdef int _advance(self, PyObject *value, PyObject **result) except PYGEN_ERROR:
        """Send at once, or by the coroutine that does what is rare."""
        cdef int kind
        if self._finished:
            raise RuntimeError("cannot reuse already awaited send()")
        if not self._begun:
            self._begun = True
            self._rest = self._endpoint._send_first(self._event)
            if self._rest is None:
                self._finished = True
                Py_INCREF(None)
                result[0] = <PyObject *>None
                return PYGEN_RETURN
        try:
            kind = PyIter_Send(<PyObject *>self._rest, value, result)
        except BaseException:
            self._finished = True
            raise
        self._finished = kind == PYGEN_RETURN
        return kind


cdef int _send_event_send(PyObject *sending, PyObject *value, PyObject **result) except PYGEN_ERROR:
    return (<SendEvent>sending)._advance(value, result)


cdef PyObject *_send_event_next(PyObject *sending) except? NULL:
    cdef PyObject *result = NULL
    if (<SendEvent>sending)._advance(<PyObject *>None, &result) == PYGEN_RETURN:
        Py_DECREF(<object>result)
        PyErr_SetObject(StopIteration, None)
        return NULL
    return result


wsf_set_slots(<PyObject *>SendEvent, <void *>_send_event_send, <void *>_send_event_next)


cdef class EventEndpoint:
    """The fast part of an ASGI application's `receive` and `send`: messages as events.

    Specified in `_channel_py.py`.
    """

    cdef Channel _channel
    cdef public bint greeted

    def __cinit__(self, *args, **kwargs):
        if type(self) is EventEndpoint:
            raise TypeError("cannot create 'EventEndpoint' instances: it is a base class")

    def join(self, Channel channel):
        """Exchange events over an open connection from now on; None when it has ended."""
        self._channel = channel

    def receive(self):
        """Receive an event: ASGI's ``receive``. Cancelling it loses nothing."""
        cdef Receive receive
        if self._channel is None or not self.greeted:
            return self.receive_rare()
        receive = Receive.__new__(Receive)
        receive._channel = self._channel
        receive._events = self
        return receive

    def send(self, event):
        """Send an event: ASGI's ``send``.

        Raises:
            ClientDisconnected: the connection has ended; it is an `OSError`.
            RuntimeError: such an event is not allowed now.
            TypeError, ValueError: the event is malformed.
        """
        cdef SendEvent sending = SendEvent.__new__(SendEvent)
        sending._endpoint = self
        sending._event = event
        return sending

    cdef object _send_first(self, object event):
        """Send a message if that takes one step, and return None; else return an awaitable that does the rest."""
        cdef Channel channel = self._channel
        cdef object data, text
        cdef int most = TURN_SENDS
        if channel is None:
            return self.send_rare(event)
        channel.turn._check(channel)
        if type(event) is not dict or channel.write_paused:
            return self.send_rare(event)
        if (<dict>event).get("type") != _SEND:
            return self.send_rare(event)
        data = (<dict>event).get("bytes")
        if type(data) is not bytes or len(<dict>event) > 2:  # the event has more than its type and its bytes
            if len(<dict>event) > 2 and (<dict>event).get("compress") is not None:
                return self.send_rare(event)
            text = (<dict>event).get("text")
            if data is None:
                if type(text) is not str:
                    return self.send_rare(event)
                data = text
            elif text is not None or type(data) is not bytes:
                return self.send_rare(event)
        if channel.sendable:
            channel._write(data)
        elif channel.packs and channel._pack(data, None, channel.thread_size):
            most = TURN_PACKED
        else:
            return self.send_rare(event)
        if channel.write_paused:
            return self.drained()
        if channel.turn_full or not channel.messages_sent % most:
            return channel.next_turn()
        return None


_seal(globals())
