"""Helpers for event loops: an object of which each loop has one, and ending a transport in steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["OtherThread", "PerLoop", "end_in_steps", "is_plain_socket", "is_stock_transport", "may_nest", "write_parts"]

_T = TypeVar("_T")


class OtherThread(RuntimeError):
    """A call that acts at once was made in another thread than that of the connection's event loop."""


class PerLoop(Generic[_T]):
    """An object for each event loop, made on first use, and released with the loop, or once the loop is closed.

    Args:
        make: makes it for a loop, in any thread.
    """

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], _T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, _T] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> _T:
        """Return the object of a loop."""
        made = self._made.get(loop)
        if made is None:
            with self._lock:
                # The object mostly refers to its loop, so that a weak key alone would never be released.
                for old in [old for old in self._made if old.is_closed()]:
                    del self._made[old]
                made = self._made.get(loop)
                if made is None:
                    made = self._made[loop] = self._make(loop)
        return made


def may_nest(kind: type[asyncio.AbstractEventLoop]) -> bool:
    """Tell whether a loop of this class may be run within one of its own callbacks, as nest_asyncio allows.

    asyncio's own and uvloop's cannot. Others are not known, so they may.
    """
    step = getattr(kind, "_run_once", None)
    return kind.__module__ != "uvloop" and getattr(step, "__module__", None) != "asyncio.base_events"


_PLAIN: Final = frozenset(
    {
        ("asyncio.selector_events", "_SelectorSocketTransport"),
        ("uvloop.loop", "TCPTransport"),
        ("uvloop.loop", "UnixTransport"),
    }
)
_TLS: Final = frozenset({("asyncio.sslproto", "_SSLProtocolTransport"), ("uvloop.loop", "_SSLProtocolTransport")})
_stock: dict[type, bool] = {}  # whether there is TLS, of those that are asyncio's or uvloop's


def is_stock_transport(kind: type) -> bool:
    """Tell whether a class of transports is asyncio's or uvloop's own for a stream socket, with TLS or without."""
    if kind not in _stock:
        name = kind.__module__, kind.__name__
        if name not in _PLAIN and name not in _TLS:
            return False
        _stock[kind] = name in _TLS
    return True


def is_plain_socket(kind: type) -> bool:
    """Tell whether a class of transports is asyncio's or uvloop's own for a stream socket without TLS."""
    return is_stock_transport(kind) and not _stock[kind]


def _pauses(kind: type) -> bool:
    """Tell whether `writelines` of a class of transports may be used.

    asyncio's own of CPython 3.12.0 to some 3.13 sends without a copy, but forgets to pause the protocol: what the peer
    does not take would pile up without an end.
    """
    method = getattr(kind, "writelines", None)
    module = getattr(method, "__module__", None)
    if module != "asyncio.selector_events":
        return True
    return "_maybe_pause_protocol" in method.__code__.co_names  # type: ignore[union-attr]


_pausing: dict[type, bool] = {}


def write_parts(transport: asyncio.WriteTransport, head: bytes, payload: bytes) -> None:
    """Write two pieces in one go, of which the second is large."""
    kind = type(transport)
    pauses = _pausing.get(kind)
    if pauses is None:
        pauses = _pausing[kind] = _pauses(kind)
    if pauses:
        transport.writelines((head, payload))
    else:
        transport.write(head + payload)


def end_in_steps(transport: asyncio.Transport) -> None:
    """Begin to end a transport so that the peer can read what was sent (RFC 9112, 9.6); the caller sets a limit.

    The sending side ends, and what the peer still sends is read, for whoever handles it to drop: unread bytes in the
    socket would make the end a reset, which destroys what is on its way.
    """
    if transport.is_closing():
        return
    if not transport.is_reading():
        transport.resume_reading()
    if not transport.can_write_eof():
        transport.close()
        return
    try:
        transport.write_eof()
    except OSError:  # the peer has gone
        transport.abort()
