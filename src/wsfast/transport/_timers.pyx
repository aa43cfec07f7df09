"""Deadlines of many objects, kept in buckets, in Cython: the fast twin of `_timers_py.py`, which explains the rules."""

from libc.math cimport floor

from .._codec cimport _seal

__all__ = ["Deadlines"]


cdef double FINEST = 1 / 64.0
cdef double COARSEST = 1.0
cdef object _NEVER = 0.0


cdef class Deadlines:
    """Deadlines of many objects, each with at most one at a time.

    Specified in `_timers_py.py`.
    """

    cdef readonly dict buckets
    cdef readonly object time

    def __init__(self, time):
        self.buckets = {}
        self.time = time

    def set(self, timed, double delay):
        """Call ``timed.on_deadline()`` once, after `delay` seconds or a little later."""
        cdef double width = COARSEST
        cdef object due
        self._clear(timed)
        while width * 8 >= delay and width > FINEST:
            width /= 2
        due = (floor((<double>self.time() + delay) / width) + 1) * width
        bucket = self.buckets.get(due)
        if bucket is None:
            bucket = self.new_bucket(due)
        timed.due = bucket.due
        (<dict>bucket)[timed] = None

    def clear(self, timed):
        """Take back an object's deadline, if it has one."""
        self._clear(timed)

    cdef int _clear(self, object timed) except -1:
        cdef object due = timed.due
        if <double>due:
            bucket = self.buckets.get(due)
            if bucket is not None:
                (<dict>bucket).pop(timed, None)
            timed.due = _NEVER
        return 0

    def new_bucket(self, due):
        """Make the bucket of a deadline, put it into `buckets`, and see to it that it is looked at in time."""
        raise NotImplementedError


_seal(globals())
