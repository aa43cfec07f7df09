"""`Connection`: a `wsfast.sync.WebSocket` with the names of `websockets`."""

from __future__ import annotations

import contextlib
import socket as socket_module
import ssl
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from wsfast import connection as native
from wsfast import handshake
from wsfast.codes import CloseCause
from wsfast.exceptions import ConcurrencyError, ConnectionClosed
from wsfast.session import Limits
from wsfast.sync.broadcast import broadcast_each
from wsfast.sync.link import Link
from wsfast.sync.websocket import PingWaiter, WebSocket

from ..described import Acknowledgement, Described, check_broadcast, check_control, closing
from ..dialing import MaxQueue, limits, marks
from ..imports import lend
from ..protocol import OPEN, SERVER, Machine, Protocol

if TYPE_CHECKING:
    from wsfast.events import BytesLike

__all__ = ["Connection"]


class Opening(NamedTuple):
    """What a connection whose opening handshake is under way is made with, in the place of its socket."""

    link: Link
    limits: Limits
    request: handshake.Request


_NO_REQUEST: Any = None  # of a connection without an opening handshake
_NO_RESPONSE: Any = None


class Connection(Described, WebSocket):  # type: ignore[misc]
    """A connection in threads, with the names and the behaviour of `websockets`.

    Args:
        socket: a connected socket, for a connection that is open at once, without an opening handshake; `connect` and
            `serve` pass something of their own.
        protocol: the sans-IO protocol of the connection.
        ping_interval, ping_timeout, close_timeout, max_queue: those of `connect` and `serve`.
    """

    connection_type: ClassVar[type[native.Connection]] = Machine

    def __init__(
        self,
        socket: socket_module.socket | Link | Opening,
        protocol: Protocol,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
    ) -> None:
        self.describe(protocol)
        self._receiver: int | None = None  # the thread that receives
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._close_timeout = close_timeout
        self.max_queue = max_queue
        if isinstance(socket, Opening):
            own = self.with_own_times(socket.limits)
            super().__init__(socket.link, own, request=socket.request, logger=protocol.logger)
            self._marks = marks(max_queue)
            return
        made = limits(
            max_size=protocol.max_size,
            max_queue=max_queue,
            ping_interval=None,
            ping_timeout=None,
            close_timeout=close_timeout,
        )
        link = socket if isinstance(socket, Link) else Link(socket)
        super().__init__(link, Limits(**made), request=_NO_REQUEST, logger=protocol.logger)
        self._marks = marks(max_queue)
        if protocol.state is OPEN:
            side = native.Side.SERVER if protocol.side is SERVER else native.Side.CLIENT
            self._open(side, _NO_RESPONSE, None, None, b"")

    @property
    def socket(self) -> Any:
        """The connection's socket, to look at; with TLS it has the methods of an `ssl.SSLSocket` that tell of that."""
        tls = self._link.tls
        return self._link.sock if tls is None else _TlsSocket(self._link.sock, tls)

    def _unix_peer(self) -> Any:
        try:
            return self._link.sock.getpeername()
        except OSError:
            return None

    def _fail(self, code: int, reason: str) -> None:
        self._begin_close(code, reason, CloseCause.LOCAL)

    def close_socket(self) -> None:
        """End the connection at once, without a closing handshake, also within the opening one."""
        if self._opened:
            self.abort()
        with contextlib.suppress(OSError):
            self._link.sock.shutdown(socket_module.SHUT_RDWR)

    @property
    def _machine(self) -> native.Connection | None:
        return self._connection if self._opened else None

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Any:
        """Receive the next message; see `wsfast.sync.WebSocket.recv`.

        Args:
            timeout: seconds to wait; None for no limit.
            decode: True for `str`, False for `bytes` always.

        Raises:
            ConcurrencyError: another thread receives.
            ConnectionClosed: as there; with ``decode=True`` a binary message that is not UTF-8 closes the connection
                with 1007, as in websockets.
            TimeoutError: as there.
        """
        self._enter_receiver("recv")
        try:
            return super().recv(timeout, decode)
        except TimeoutError:
            raise TimeoutError(f"timed out in {timeout:.1f}s") from None
        except UnicodeDecodeError as exc:
            self._lose_text(exc)
            self.wait_closed()
            raise self._connection.closed_error() from exc
        finally:
            self._receiver = None

    def recv_streaming(self, decode: bool | None = None) -> Iterator[Any]:
        """Receive one message in pieces; see `wsfast.sync.WebSocket.recv_streaming`.

        Args:
            decode: True for `str`, False for `bytes` always.

        Raises:
            ConcurrencyError: another thread receives.
            ConnectionClosed, UnicodeDecodeError: as there.
        """
        self._enter_receiver("recv_streaming")
        try:
            yield from super().recv_streaming(decode)
        finally:
            self._receiver = None

    def _enter_receiver(self, name: str) -> None:
        if self._receiver is not None:
            raise ConcurrencyError(f"cannot call {name} while another thread is already running recv or recv_streaming")
        self._receiver = threading.get_ident()

    def send(
        self,
        message: str | BytesLike | Iterable[str | BytesLike],
        text: bool | None = None,
        *,
        compress: bool | None = None,
    ) -> None:
        """Send a message; see `wsfast.sync.WebSocket.send`.

        Args:
            message, text, compress: as there.

        Raises:
            ConcurrencyError: another thread is sending a message in fragments.
            ConnectionClosed, TypeError, UnicodeError: as there.
        """
        if self._sender is not None:
            raise ConcurrencyError("cannot call send while another thread is already running send")
        super().send(message, text, compress=compress)

    def ping(self, data: str | BytesLike | None = None, *, ack_on_close: bool = False) -> Any:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None for random ones.
            ack_on_close: let the waiter's `wait` tell True, too, when the connection ends first.

        Returns:
            A waiter with the `wait` and `is_set` of a `threading.Event`.

        Raises:
            ConnectionClosed, ConcurrencyError, InvalidState, TypeError: as `wsfast.sync.WebSocket.ping`.
            ProtocolError: `data` has more than 125 bytes.
        """
        check_control(data)
        return _Acknowledgement(super().ping(data, ack_on_close=ack_on_close))

    def pong(self, data: str | BytesLike = b"") -> None:
        """Send a Pong frame that nobody asked for.

        Args:
            data: at most 125 bytes.

        Raises:
            ConnectionClosed: the connection is closed.
            ProtocolError: `data` has more than 125 bytes.
            TypeError: it is neither `str` nor bytes-like.
        """
        check_control(data)
        super().pong(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection with the closing handshake and wait for its end, for at most `close_timeout`.

        In the middle of a message that is sent in fragments, the code is 1011.

        Args:
            code: the close code.
            reason: the close reason.

        Raises:
            ProtocolError: the code may not be sent, or the reason has more than 123 bytes.
        """
        if self._opened:
            super().close(*closing(self._connection, code, reason))


class _Acknowledgement(Acknowledgement):
    __slots__ = ()

    _waiter: PingWaiter

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the pong.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            Whether it has come, or, with `ack_on_close`, the connection has ended; False also if it never will come.

        Raises:
            ConnectionClosed: the connection ended first, and there is no `timeout`, by which it could be learnt.
        """
        try:
            return self._waiter.wait(timeout)
        except ConnectionClosed:
            if timeout is None:
                raise
            return False


class _TlsSocket:
    """A socket together with the TLS on it, to look at.

    Args:
        sock: the socket.
        tls: what encrypts.
    """

    __slots__ = ("_sock", "_tls")

    def __init__(self, sock: socket_module.socket, tls: ssl.SSLObject) -> None:
        self._sock = sock
        self._tls = tls

    def __getattr__(self, name: str) -> Any:
        if name in _OF_TLS:
            return getattr(self._tls, name)
        return getattr(self._sock, name)


_OF_TLS = frozenset(
    {
        "cipher",
        "compression",
        "context",
        "get_channel_binding",
        "getpeercert",
        "selected_alpn_protocol",
        "selected_npn_protocol",
        "server_hostname",
        "server_side",
        "session",
        "session_reused",
        "shared_ciphers",
        "version",
    }
)


def broadcast(
    connections: Iterable[Connection],
    message: str | BytesLike,
    *,
    raise_exceptions: bool = False,
    text: bool | None = None,
    **kwargs: Any,
) -> None:
    """Send a message to several connections; see `wsfast.sync.broadcast`.

    Args:
        connections: those to send to; those that are not open are skipped.
        message: `str` for a text message, bytes-like for a binary one.
        raise_exceptions: raise an `ExceptionGroup` of the exceptions that would be logged otherwise.
        text: True sends bytes-like as text, False sends `str` as binary.
        kwargs: what `concurrent.futures.ThreadPoolExecutor` takes; of no effect, since no thread waits.
    """
    check_broadcast(message)
    failures = []
    for ws, exc in broadcast_each(connections, message, text, None):
        if raise_exceptions:
            failures.append(exc)
        else:
            ws.logger.warning("skipped broadcast: %s", exc)
    if failures:
        raise ExceptionGroup("skipped broadcast", failures)


broadcast.__module__ = "wsfast.websockets.sync.server"

lend(globals())
