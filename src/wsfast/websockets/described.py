"""`Described`: the properties of a connection in `websockets`, the same on asyncio, in threads and on trio."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import sys
import types
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from wsfast import connection as native
from wsfast import handshake
from wsfast.codes import CloseCode
from wsfast.exceptions import ConnectionClosedOK
from wsfast.octets import nbytes
from wsfast.shell import Pieces

from .exceptions import ConnectionClosed, ProtocolError
from .frames import Close
from .http11 import Request, Response
from .protocol import Protocol, State

if TYPE_CHECKING:
    from wsfast.events import BytesLike
    from wsfast.session import Limits, Session

__all__ = ["Acknowledgement", "Described", "OnePieces", "check_broadcast", "check_control", "closing"]

MAX_CONTROL = 125
"""The most bytes of a control frame's payload (RFC 6455, 5.5)."""


class OnePieces(Pieces):
    """The iterator of `recv_streaming`: if it is cancelled within a message, nobody can receive any more."""

    __slots__ = ()

    cancelled: ClassVar[type[BaseException]]
    """What cancelling raises."""

    def _finish(self, *, skip: bool) -> None:
        if skip and isinstance(sys.exception(), self.cancelled):
            self._done = True  # and not `_end`, so that who receives is told that another does
        else:
            super()._finish(skip=skip)


def check_control(data: str | BytesLike | None) -> None:
    """Check the payload of a ping or a pong.

    Raises:
        TypeError: it is neither `str` nor bytes-like.
        ProtocolError: it has more than 125 bytes (RFC 6455, 5.5).
    """
    if data is None:
        return
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError("data must be str or bytes-like")
    size = len(data.encode()) if isinstance(data, str) else nbytes(data)
    if size > MAX_CONTROL:
        raise ProtocolError("control frame too long")


def closing(machine: native.Connection, code: int, reason: str) -> tuple[int, str]:
    """Return what a Close frame is to say: in the middle of a message in fragments, that it is unfinished.

    Raises:
        ProtocolError: the code may not be sent (RFC 6455, 7.4), or the reason has more than 123 bytes.
    """
    if machine.in_message:
        return CloseCode.INTERNAL_ERROR, "close during fragmented message"
    # Of other types, what sends it says what it wants.
    if machine.state is native.State.OPEN and isinstance(code, int) and isinstance(reason, str):
        Close(code, reason).check()
        check_control("xx" + reason)  # two bytes are the code's
    return code, reason


class Acknowledgement:
    """What `Connection.ping` returns in threads and on trio; a subclass has `wait`.

    Args:
        waiter: wsfast's.
    """

    __slots__ = ("_waiter",)

    def __init__(self, waiter: Any) -> None:
        self._waiter = waiter

    def is_set(self) -> bool:
        """Tell whether the pong has come, or, with `ack_on_close`, the connection has ended."""
        return self._waiter.is_set()  # type: ignore[no-any-return]


async def _each(ws: Any) -> AsyncIterator[Any]:
    try:
        while True:
            yield await ws.recv()
    except ConnectionClosedOK:
        return


def _each_in_threads(ws: Any) -> Iterator[Any]:
    try:
        while True:
            yield ws.recv()
    except ConnectionClosedOK:
        return


def check_broadcast(message: object) -> None:
    """Check the arguments of `broadcast`.

    Raises:
        TypeError: it is no message.
    """
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        raise TypeError("data must be str or bytes")


_TIMES = ("ping_interval", "ping_timeout", "close_timeout")


def _time(name: str, doc: str) -> Any:
    """Make a property of a time in seconds that may be set while the connection is open."""
    slot = f"_{name}"

    def get(self: Described) -> float | None:
        seconds: float | None = getattr(self, slot)
        return seconds

    def set_(self: Described, seconds: float | None) -> None:
        session = self._known_session()
        if session is not None:
            changed: Any = {name: seconds}
            session.limits = dataclasses.replace(session.limits, **changed)
        setattr(self, slot, seconds)

    return property(get, set_, doc=doc)


_FIXED = frozenset(
    (
        *("close_code", "close_exc", "close_reason", "local_address", "remote_address", "state"),
        *("closed", "host", "open", "port", "secure"),  # of the old implementation
    )
)
"""What cannot be set in websockets either."""


def _is_fixed(fact: object) -> bool:
    """Tell whether something of a class is computed, and cannot be set."""
    return fact.fset is None if isinstance(fact, property) else isinstance(fact, types.GetSetDescriptorType)


class _Fact:
    """What a connection tells, unless a program has set an attribute of that name.

    In websockets it is an ordinary attribute, as `id`, or nothing at all, as `topics`: programs keep things of their
    own there.

    Args:
        fact: the property that computes it.
    """

    def __init__(self, fact: Any) -> None:
        self._get = fact.__get__
        self.__doc__ = fact.__doc__

    def __get__(self, ws: Any, owner: type[Any] | None = None) -> Any:
        return self if ws is None else self._get(ws)


class Described:
    """A connection's names of `websockets`; a class puts it in front of wsfast's own."""

    if TYPE_CHECKING:

        def _known_session(self) -> Session | None: ...

        def _fail(self, code: int, reason: str) -> None: ...

        def _unix_peer(self) -> Any: ...

    else:  # with which it would have no attributes for type checkers
        __slots__ = ()

    protocol: Protocol
    _native_request: handshake.Request | None
    _request: Request | None
    _native_response: handshake.Response | bytes | None
    _known_response: Response | None
    _adapter: logging.LoggerAdapter[Any] | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("wsfast."):
            for name in dir(cls):
                fact = inspect.getattr_static(cls, name)
                if not name.startswith("_") and name not in _FIXED and _is_fixed(fact):
                    setattr(cls, name, _Fact(fact))
        if "recv" not in cls.__dict__ or Described in cls.__bases__:
            return
        # The `recv` is a program's own: iteration calls it, as in websockets.
        for name, each in (("__aiter__", _each), ("__iter__", _each_in_threads)):
            if name not in cls.__dict__ and hasattr(cls, name):
                setattr(cls, name, each)

    @property
    def remote_address(self) -> Any:
        """The peer's address as `socket.getpeername` gives it: of a Unix socket its path, which is mostly empty."""
        address = super().remote_address  # type: ignore[misc]
        return self._unix_peer() if address is None else address

    def describe(self, protocol: Protocol) -> None:
        """Begin; called before the other's constructor."""
        self.protocol = protocol
        protocol._websocket = self
        self._native_request = None
        self._request = None
        self._native_response = None
        self._known_response = None
        self._adapter = None

    ping_interval: float | None = _time("ping_interval", "Seconds from one keepalive ping to the next; None for none.")
    ping_timeout: float | None = _time("ping_timeout", "Seconds for the answer to one; None for no limit.")
    close_timeout: float | None = _time("close_timeout", "Seconds for the closing handshake; None for no limit.")

    def with_own_times(self, limits: Limits) -> Limits:
        """Return limits with the times of this connection, which a class of a program's own may have changed.

        Args:
            limits: those that it would have.
        """
        times: dict[str, Any] = {name: getattr(self, f"_{name}") for name in _TIMES}
        if all(getattr(limits, name) == seconds for name, seconds in times.items()):
            return limits
        return dataclasses.replace(limits, **times)

    @property
    def _machine(self) -> native.Connection | None:
        raise NotImplementedError  # pragma: no cover - each subclass has its own

    def _lose_text(self, exc: UnicodeDecodeError) -> None:
        """Close because a message that is to be text is not UTF-8."""
        connection: Any = self._machine
        connection.lose(exc)
        self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")

    @property
    def id(self) -> uuid.UUID:
        """A random identifier of the connection, for logs."""
        return self.protocol.id

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """An adapter of the logger; records that it makes have the connection as ``websocket``."""
        if self._adapter is None:
            self._adapter = logging.LoggerAdapter(self.protocol.logger, {"websocket": self})
        return self._adapter

    @logger.setter
    def logger(self, logger: Any) -> None:
        """Nothing: it is the protocol's."""

    @property
    def state(self) -> State:
        """A `State`: CONNECTING, OPEN, CLOSING or CLOSED."""
        return self.protocol.state

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1006 without a Close frame; None while the connection is open."""
        return self.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent; None while the connection is open."""
        return self.protocol.close_reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """What `recv` and `send` raise once the connection is closed."""
        return self.protocol.close_exc

    @property
    def request(self) -> Any:
        """The opening handshake's `Request`."""
        if self._request is None and self._native_request is not None:
            self._request = Request.of(self._native_request)
        return self._request

    @request.setter
    def request(self, request: Any) -> None:
        if isinstance(request, handshake.Request):
            self._native_request, self._request = request, None
        else:
            self._request = request

    def _response_anew(self) -> handshake.Response | None:
        """Build the response that opened the connection again, where it is not kept."""
        return None

    @property
    def response(self) -> Any:
        """The opening handshake's `Response`."""
        if self._known_response is None:
            response = self._native_response
            if response is None:
                response = self._response_anew()
            if response is None:
                return None
            if isinstance(response, bytes):
                response = handshake.Response.from_head(response)
            self._known_response = Response.of(response)
        return self._known_response

    @response.setter
    def response(self, response: Any) -> None:
        if response is None or isinstance(response, Response):
            self._native_response = None
            self._known_response = response
        else:
            self._native_response, self._known_response = response, None
