"""`State`, `Side`, and the view of a connection that `websockets` gives as ``ws.protocol``.

In `websockets`, `Protocol` is the sans-IO state machine. Here it holds what a connection is made with and tells what
becomes of it; who wants to feed bytes and take frames uses `wsfast.Connection`.
"""

from __future__ import annotations

import enum
import logging
import uuid
from typing import TYPE_CHECKING, Any

from wsfast import connection
from wsfast.codes import CloseCause

from .exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from .frames import Close, CloseCode
from .typing import LoggerLike, Origin, Subprotocol

if TYPE_CHECKING:
    from .extensions.permessage_deflate import PerMessageDeflate

__all__ = ["SEND_EOF", "Protocol", "Side", "State"]


class Side(enum.IntEnum):
    """Which end of a connection this is."""

    SERVER, CLIENT = range(2)


class State(enum.IntEnum):
    """The states of a connection."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


SERVER, CLIENT = Side.SERVER, Side.CLIENT
CONNECTING, OPEN, CLOSING, CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED
SEND_EOF = b""

# No more frames come once it is DRAINING: to who asks it is closed, as it is in websockets by the time `recv` raises.
STATES = {
    connection.State.CONNECTING: CONNECTING,
    connection.State.OPEN: OPEN,
    connection.State.CLOSING: CLOSING,
    connection.State.DRAINING: CLOSED,
    connection.State.CLOSED: CLOSED,
}


class Machine(connection.Connection):
    """The state machine, with the exceptions of `websockets`."""

    __slots__ = ()

    def closed_error(self) -> ConnectionClosed:
        """Make the exception that tells how the connection ended."""
        rcvd = None if self.close_rcvd is None else Close(*self.close_rcvd)
        sent = None if self.close_sent is None else Close(*self.close_sent)
        ordered = None if rcvd is None or sent is None else self.rcvd_then_sent
        made = ConnectionClosedOK if self.closed_ok else ConnectionClosedError
        native = super().closed_error()
        error = made(rcvd, sent, ordered, native.cause)
        error.__cause__ = native.__cause__
        if error.__cause__ is None and native.cause is CloseCause.TIMEOUT:
            error.__cause__ = TimeoutError("timed out while closing connection")
        return error


class Protocol:
    """What a connection is made with, and what became of it.

    Args:
        side: which end it is.
        state: the state to tell before it is connected.
        max_size: the most bytes of a message, or that and the most of a fragment; None for no limit.
        logger: default: ``logging.getLogger("websockets.server")``, or ``.client``.
    """

    def __init__(
        self,
        side: Side,
        *,
        state: State = OPEN,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        self.side = side
        self.max_size = max_size
        self.logger: Any = logging.getLogger(f"websockets.{side.name.lower()}") if logger is None else logger
        self.debug: bool = self.logger.isEnabledFor(logging.DEBUG)
        self.origin: Origin | None = None
        self.handshake_exc: Exception | None = None
        self._initial = state
        self._id: uuid.UUID | None = None
        self._websocket: Any = None  # the connection, once there is one

    @property
    def id(self) -> uuid.UUID:
        """A random identifier."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def max_message_size(self) -> int | None:
        """The most bytes of a message."""
        return self.max_size[0] if isinstance(self.max_size, tuple) else self.max_size

    @property
    def max_fragment_size(self) -> int | None:
        """The most bytes of a fragment."""
        return self.max_size[1] if isinstance(self.max_size, tuple) else None

    @property
    def _machine(self) -> connection.Connection | None:
        return None if self._websocket is None else self._websocket._machine

    @property
    def state(self) -> State:
        """The connection's state."""
        machine = self._machine
        return self._initial if machine is None else STATES[machine.state]

    @property
    def subprotocol(self) -> Subprotocol | None:
        """The subprotocol that was agreed on."""
        name: str | None = None if self._websocket is None else self._websocket.subprotocol
        return None if name is None else Subprotocol(name)

    @property
    def extensions(self) -> list[PerMessageDeflate]:
        """The extensions that were agreed on."""
        from .extensions.permessage_deflate import PerMessageDeflate

        machine = self._machine
        compression: Any = None if machine is None else machine.compression
        return [] if compression is None else [PerMessageDeflate.of(compression)]

    @property
    def close_rcvd(self) -> Close | None:
        """What the peer's Close frame said."""
        machine = self._machine
        return None if machine is None or machine.close_rcvd is None else Close(*machine.close_rcvd)

    @property
    def close_sent(self) -> Close | None:
        """What this side's Close frame said."""
        machine = self._machine
        return None if machine is None or machine.close_sent is None else Close(*machine.close_sent)

    @property
    def close_rcvd_then_sent(self) -> bool | None:
        """Which came first; None before there were both."""
        machine = self._machine
        return None if machine is None else machine.rcvd_then_sent

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1006 without a Close frame; None while the connection is open."""
        if self.state is not CLOSED:
            return None
        rcvd = self.close_rcvd
        return CloseCode.ABNORMAL_CLOSURE if rcvd is None else rcvd.code

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent; None while the connection is open."""
        if self.state is not CLOSED:
            return None
        rcvd = self.close_rcvd
        return "" if rcvd is None else rcvd.reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """What `recv` and `send` raise once the connection is closed."""
        assert self.state is CLOSED, "connection isn't closed yet"
        machine = self._machine
        assert machine is not None
        error = machine.closed_error()
        assert isinstance(error, ConnectionClosed)
        return error
