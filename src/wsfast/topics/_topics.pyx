"""The index of topics and the gathering of a turn, in Cython: the fast twin of `_topics_py.py`.

`_topics_py.py` is where the rules are explained; what is different here is only:

* A subscription is two entries of 16 bytes, in an array of the topic and in one of the member, each with its place in
  the other; taking one away moves the last of each array into its place.
* A flush goes along the array of each topic. Where that changes meanwhile, a member that would be moved to a place that
  was passed already is visited first.
"""

from time import perf_counter

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcpy, memmove

__all__ = ["Index", "Member", "Topic"]


cdef double SLICE = 0.005

cdef enum:
    SLICE_WRITES = 16
    PENDING_SIZE = 1048576
    FEW = 32  # messages that are sorted by insertion


cdef struct Link:
    PyObject *other  # not owned: both ends take it away when they go
    uint32_t place  # in the other's array


cdef struct Item:
    PyObject *shared  # owned by the topic
    PyObject *frame  # owned by the topic
    uint64_t number


cdef int _by_number(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const Item *>a).number, y = (<const Item *>b).number
    return (x > y) - (x < y)


cdef int _grow(Link **links, uint32_t *room, uint32_t needed) except -1:
    cdef uint32_t wanted
    cdef Link *grown
    if needed <= room[0]:
        return 0
    wanted = 2 if room[0] == 0 else room[0] + (room[0] >> 2) + 2
    grown = <Link *>realloc(links[0], wanted * sizeof(Link))
    if grown == NULL:
        raise MemoryError
    links[0] = grown
    room[0] = wanted
    return 0


@cython.final
cdef class Topic:
    """One topic: who subscribed to it, and what was published to it in this turn.

    Specified in `_topics_py.py`.
    """

    cdef readonly str name
    cdef readonly bint conflates
    cdef Link *_members
    cdef readonly uint32_t size
    cdef uint32_t _room
    cdef uint32_t _passed  # places of members that the flush under way has passed
    cdef Item *_items
    cdef uint32_t _used
    cdef uint32_t _items_room
    cdef dict _keys  # numbers of the pending messages of a topic that conflates, by their keys
    cdef bytes _joined
    cdef bint _dirty
    cdef bint _flushing

    def __init__(self, name, conflates=False):
        self.name = name
        self.conflates = conflates

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self._used):
            Py_DECREF(<object>self._items[i].shared)
            Py_DECREF(<object>self._items[i].frame)
        free(self._items)
        # Whoever is left must not refer to it any more.
        while self.size:
            _unlink(<Member>self._members[self.size - 1].other, self._members[self.size - 1].place)
        free(self._members)

    @property
    def members(self):
        """Those who subscribed, as the keys of a new dict."""
        return {<Member>self._members[i].other: None for i in range(self.size)}

    @property
    def pending(self):
        """What was published and is not sent yet, by its number, as a new dict."""
        return {self._items[i].number: <object>self._items[i].shared for i in range(self._used)}

    cdef int _push(self, uint64_t number, object shared, bytes frame) except -1:
        """Note a message; return 1 if it replaced another."""
        cdef uint32_t wanted
        cdef Item *grown
        cdef int replaced = 0
        if self._used == self._items_room:
            wanted = 4 if self._items_room == 0 else 2 * self._items_room
            grown = <Item *>realloc(self._items, wanted * sizeof(Item))
            if grown == NULL:
                raise MemoryError
            self._items = grown
            self._items_room = wanted
        if self.conflates:
            if self._keys is None:
                self._keys = {}
            key = shared.key
            before = self._keys.get(key)
            if before is not None:
                self._remove(self._find(before))
                replaced = 1
            self._keys[key] = number
        Py_INCREF(shared)
        Py_INCREF(frame)
        self._items[self._used].shared = <PyObject *>shared
        self._items[self._used].frame = <PyObject *>frame
        self._items[self._used].number = number
        self._used += 1
        self._joined = None
        return replaced

    cdef uint32_t _find(self, uint64_t number) noexcept:
        """Return the place of the first message whose number is at least `number`."""
        cdef uint32_t low = 0, high = self._used, middle
        while low < high:
            middle = (low + high) >> 1
            if self._items[middle].number < number:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int _remove(self, uint32_t place) except -1:
        cdef PyObject *shared = self._items[place].shared
        cdef PyObject *frame = self._items[place].frame
        self._used -= 1
        memmove(self._items + place, self._items + place + 1, (self._used - place) * sizeof(Item))
        Py_DECREF(<object>shared)
        Py_DECREF(<object>frame)
        return 0

    cdef bytes _join(self):
        if self._joined is None:
            self._joined = _joined(self._items, self._used)
        return self._joined

    cdef int _drop(self, uint64_t bound) except -1:
        """Forget what has a number below `bound`."""
        cdef uint32_t n = self._find(bound), i
        cdef list dropped = []
        for i in range(n):
            dropped.append(<object>self._items[i].shared)
            Py_DECREF(<object>self._items[i].shared)
            Py_DECREF(<object>self._items[i].frame)
        self._used -= n
        memmove(self._items, self._items + n, self._used * sizeof(Item))
        if self._keys is not None:
            self._keys = {(<object>self._items[i].shared).key: self._items[i].number for i in range(self._used)}
        self._joined = None
        if self._items_room > 64 and not self._used:
            free(self._items)
            self._items = NULL
            self._items_room = 0
        return 0


cdef bytes _joined(const Item *items, uint32_t n):
    cdef Py_ssize_t size = 0, m
    cdef uint32_t i
    cdef bytes frames
    cdef char *out
    if n == 1:
        return <bytes>items[0].frame
    for i in range(n):
        size += PyBytes_GET_SIZE(<bytes>items[i].frame)
    frames = PyBytes_FromStringAndSize(NULL, size)
    out = PyBytes_AS_STRING(frames)
    for i in range(n):
        m = PyBytes_GET_SIZE(<bytes>items[i].frame)
        memcpy(out, PyBytes_AS_STRING(<bytes>items[i].frame), m)
        out += m
    return frames


@cython.final
cdef class Member:
    """One connection's subscriptions.

    Specified in `_topics_py.py`.
    """

    cdef readonly Index index
    cdef public object sink
    cdef public object extra
    cdef Link *_links
    cdef readonly uint32_t size
    cdef uint32_t _room
    cdef uint64_t _seen

    def __init__(self, Index index not None, sink):
        self.index = index
        self.sink = sink

    def __dealloc__(self):
        # Nobody but its topics knows of it any more.
        while self.size:
            _unlink(self, self.size - 1)
        free(self._links)

    @property
    def topics(self):
        """The names of its topics, in no order, as a new list."""
        return [(<Topic>self._links[i].other).name for i in range(self.size)]

    cdef int64_t _place(self, object topic) noexcept:
        """Return the place of a topic among its own, or -1."""
        cdef uint32_t i
        for i in range(self.size):
            if self._links[i].other == <PyObject *>topic:
                return i
        return -1

    def has(self, name):
        """Tell whether it subscribed to a topic."""
        topic = self.index.topics.get(name)
        return topic is not None and self._place(topic) >= 0

    def settle(self):
        """Send what is pending for this member before what it sends next."""
        self.index._visit(self, None, True)

    def leave(self):
        """End all subscriptions, because the connection has ended."""
        if self.sink is not None:
            self.sink = None
            self.index._leave(self)


cdef int _unlink(Member member, uint32_t place) except -1:
    """Take away a subscription: the last of each array takes its place."""
    cdef Topic topic = <Topic>member._links[place].other
    cdef uint32_t other = member._links[place].place, last = topic.size - 1
    cdef Link moved
    if other != last:
        moved = topic._members[last]
        topic._members[other] = moved
        (<Member>moved.other)._links[moved.place].place = other
    topic.size = last
    if topic._passed > last:
        topic._passed = last
    last = member.size - 1
    if place != last:
        moved = member._links[last]
        member._links[place] = moved
        (<Topic>moved.other)._members[moved.place].place = place
    member.size = last
    return 0


@cython.final
cdef class Index:
    """Topics and their members on one event loop, and what is pending for the end of its turn.

    Specified in `_topics_py.py`.
    """

    cdef readonly dict topics
    cdef public uint64_t subscriptions
    cdef public uint64_t deliveries
    cdef public uint64_t writes
    cdef public uint64_t conflated
    cdef object _turn
    cdef object _slow
    cdef object _on_empty
    cdef object _on_leave
    cdef list _dirty
    cdef list _current
    cdef Py_ssize_t _at  # of the flush under way: the topic
    cdef uint64_t _sequence
    cdef uint64_t _bound
    cdef uint64_t _size
    cdef bint _scheduled
    cdef Item *_merged
    cdef uint32_t _merged_room

    def __init__(self, turn, slow, on_empty, on_leave):
        self.topics = {}
        self._turn = turn
        self._slow = slow
        self._on_empty = on_empty
        self._on_leave = on_leave
        self._dirty = []
        self._current = []

    def __dealloc__(self):
        free(self._merged)

    def count(self, name):
        """Return how many have subscribed to a topic."""
        cdef Topic topic = self.topics.get(name)
        return 0 if topic is None else topic.size

    def members(self, name):
        """Return who subscribed to a topic, as a new list."""
        cdef Topic topic = self.topics.get(name)
        return [] if topic is None else [<Member>topic._members[i].other for i in range(topic.size)]

    def subscribe(self, Member member not None, str name not None, conflates=False):
        """Subscribe a member to a topic; return False if it was subscribed already."""
        cdef Topic topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name, conflates)
        elif member._place(topic) >= 0:
            return False
        # What is pending for its other topics comes before, and what is pending for this one is not for it.
        self._visit(member, None, True)
        _grow(&member._links, &member._room, member.size + 1)
        _grow(&topic._members, &topic._room, topic.size + 1)
        member._links[member.size].other = <PyObject *>topic
        member._links[member.size].place = topic.size
        topic._members[topic.size].other = <PyObject *>member
        topic._members[topic.size].place = member.size
        member.size += 1
        topic.size += 1
        self.subscriptions += 1
        return True

    def unsubscribe(self, Member member not None, str name not None):
        """End a subscription; tell whether there was one. What was published before is sent."""
        cdef Topic topic = self.topics.get(name)
        if topic is None or member._place(topic) < 0:
            return False
        self._visit(member, None, True)
        self._take_away(member, topic)
        return True

    cdef int _take_away(self, Member member, Topic topic) except -1:
        cdef int64_t place = member._place(topic)
        cdef uint32_t other
        cdef Member last
        if topic._flushing:
            # The last one is moved to where it might be overlooked.
            last = <Member>topic._members[topic.size - 1].other
            other = member._links[place].place
            if last is not member and other < topic._passed:
                self._visit(last, None, True)
                place = member._place(topic)
        _unlink(member, place)
        self.subscriptions -= 1
        if not topic.size:
            if not topic._used:
                self.topics.pop(topic.name, None)
            self._on_empty(topic.name)
        return 0

    cdef int _leave(self, Member member) except -1:
        cdef Topic topic
        try:
            self._on_leave(member)
        finally:
            while member.size:
                topic = <Topic>member._links[member.size - 1].other  # which this may be the last to know
                self._take_away(member, topic)
        return 0

    def publish(self, str name not None, shared, Member but=None):
        """Note a message for all members of a topic; it goes out by the end of the turn."""
        cdef Topic topic = self.topics.get(name)
        cdef bytes frame
        cdef uint64_t before
        cdef uint32_t size
        if topic is None or not topic.size:
            return 0
        if but is not None:
            self._visit(but, None, True)
        frame = shared.frame
        if topic._push(self._sequence, shared, frame):
            self.conflated += topic.size
        self._sequence += 1
        if but is not None:
            but._seen = self._sequence
        if not topic._dirty:
            topic._dirty = True
            if not self._dirty and not self._current:
                self._turn.gathering += 1
            self._dirty.append(topic)
        if not self._scheduled:
            self._scheduled = True
            self._turn.loop.call_soon(self._run)
        before = self._size
        self._size += PyBytes_GET_SIZE(frame)
        size = topic.size
        if before and self._size > PENDING_SIZE:
            self.flush()
        return size

    cpdef flush(self):
        """Send all that is pending now."""
        while self._current or self._dirty:
            self._step(0.0)

    def _run(self):
        """Send what is pending, for 5 ms at most; go on in the next turn."""
        self._scheduled = False
        try:
            self._step(perf_counter() + SLICE)
        finally:
            if (self._current or self._dirty) and not self._scheduled:
                self._scheduled = True
                self._turn.loop.call_soon(self._run)

    cdef int _step(self, double end) except -1:
        cdef Topic topic, only = None
        cdef Member member
        cdef uint32_t visited = 0
        if not self._current:
            if not self._dirty:
                return 0
            self._current, self._dirty = self._dirty, []
            self._at = 0
            self._bound = self._sequence
            self._size = 0
            for topic in self._current:
                topic._dirty = False
                topic._flushing = True
                topic._passed = 0
        while self._at < len(self._current):
            topic = self._current[self._at]
            only = topic if len(self._current) == 1 and not self._dirty else None
            while topic._passed < topic.size:
                # Its own failure must not keep it from the others: it is passed first.
                member = <Member>topic._members[topic._passed].other
                topic._passed += 1
                if member._seen < self._bound:
                    self._visit(member, only, False)
                    visited += 1
                    if end != 0.0 and not visited % SLICE_WRITES and perf_counter() > end:
                        return 0
            self._at += 1
        current = self._current
        self._current = []
        for topic in current:
            topic._flushing = False
            topic._drop(self._bound)
            if not topic.size and not topic._used and self.topics.get(topic.name) is topic:
                del self.topics[topic.name]
        if not self._dirty:
            self._turn.gathering -= 1
        return 0

    cdef int _visit(self, Member member, Topic only, bint cork) except -1:
        """Send a member what is pending for it; `only` is the only topic that has anything, if that is known."""
        cdef uint64_t seen = member._seen
        cdef object sink = member.sink
        cdef Topic topic, first = None
        cdef uint32_t i, j, n, total = 0, topics = 0, place
        cdef Item item
        cdef Item *grown
        cdef bytes frames
        cdef list messages
        cdef bint keyed = False  # some are of a topic that conflates
        if seen >= self._sequence or sink is None:
            return 0
        member._seen = self._sequence
        if only is not None:
            if not only._used:
                return 0
            first = only
            topics = 1
            keyed = only.conflates
            total = only._used - only._find(seen)
        else:
            for i in range(member.size):
                topic = <Topic>member._links[i].other
                if topic._used and topic._items[topic._used - 1].number >= seen:
                    total += topic._used - topic._find(seen)
                    topics += 1
                    keyed |= topic.conflates
                    if first is None:
                        first = topic
        if not total:
            return 0
        if topics == 1 and total == first._used:
            frames = first._join()
        elif topics == 1:
            frames = _joined(first._items + (first._used - total), total)
        else:
            if total > self._merged_room:
                grown = <Item *>realloc(self._merged, 2 * total * sizeof(Item))
                if grown == NULL:
                    raise MemoryError
                self._merged = grown
                self._merged_room = 2 * total
            n = 0
            for i in range(member.size):
                topic = <Topic>member._links[i].other
                if topic._used and topic._items[topic._used - 1].number >= seen:
                    for place in range(topic._find(seen), topic._used):
                        item = topic._items[place]
                        j = n
                        if total <= FEW:
                            while j > 0 and self._merged[j - 1].number > item.number:
                                self._merged[j] = self._merged[j - 1]
                                j -= 1
                        self._merged[j] = item
                        n += 1
            if total > FEW:
                qsort(self._merged, total, sizeof(Item), &_by_number)
            frames = _joined(self._merged, total)
        try:
            if sink.send_gathered(frames, total, cork) or (
                not keyed and member.extra is None and sink.send_behind(frames, total)
            ):
                self.deliveries += total
                self.writes += 1
            else:
                if topics == 1:
                    messages = [<object>first._items[first._used - total + i].shared for i in range(total)]
                else:
                    messages = [<object>self._merged[i].shared for i in range(total)]
                self._slow(member, messages)
        except Exception as exc:
            sink.transport_failed(exc)
        return 0
