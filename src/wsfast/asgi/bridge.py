"""The bridge between a connection and an ASGI application, on asyncio.

A `Bridge` handles one connection: it reads the opening handshake, calls the application, and turns messages into events
and events into messages. `conversation` says what an application may do when.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import OrderedDict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

from ..asyncio.channel import EventEndpoint, Turn
from ..asyncio.protocol import ConnectionProtocol, turn_of
from ..asyncio.websocket import WebSocket, addresses_of
from ..codes import CloseCause, CloseCode
from ..connection import Side, State
from ..exceptions import ConnectionClosed, HandshakeRefused
from ..handshake import RequestParser, accept_response, check_request
from ..handshake.http11 import HeadLimits, take_request
from ..handshake.uri import format_address
from ..serving import accepting_response, negotiate, tell_end
from ..session import LINGER, Limits
from ..telling import tell
from ..transport.backlog import Backlog
from ..transport.loops import end_in_steps
from ..transport.sockets import can_take_over, nothing_unread, take_over
from ..transport.timers import CoarseTimer
from ..transport.unacknowledged import Progress, unsent_by
from .conversation import (
    Accept,
    Answer,
    ClientDisconnected,
    Close,
    Conversation,
    Cut,
    Event,
    Message,
    Phase,
    Start,
    refusal,
    status_line,
)
from .scope import Address, Scope, websocket_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..events import BytesLike
    from ..handshake import Request, Response, Upgrade
    from ..topics import Topics

    Application: TypeAlias = Callable[
        [Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[Any]
    ]

__all__ = ["Bridge", "BridgeProtocol", "Host"]

EXTENSION: Final = "wsfast"
"""The key of a scope's extensions under which the `WebSocket` stands."""
HEAD_LIMITS: Final = HeadLimits(max_line=32768, max_head=65536)
"""How large a request may be: cookies and tokens of single sign-on are long, and servers of HTTP let them pass."""
_ENDS: Final = frozenset({"WebSocketDisconnect", "WebSocketDisconnected"})  # of Starlette and Litestar; of Falcon
STOP_TIMEOUT: Final = 2.0
"""Seconds that a peer has for the closing handshake, and its application to end, when the server stops."""
MOVE_READS: Final = 3
"""The read with which a connection that was accepted goes on on wsfast's own transport; see `BridgeProtocol.move`."""
MOVE_DELAY: Final = 0.5
"""Seconds after which the connection goes on there without so many reads."""
_MOVE_SLICE: Final = 0.005
"""Seconds for which connections are moved before others get a turn."""

# As globals: to get a member from its class takes CPython 3.11 some 900 instructions.
_CONNECTING: Final = Phase.CONNECTING
_OPEN: Final = Phase.OPEN
_CLOSED: Final = Phase.CLOSED
_STATE_OPEN: Final = State.OPEN
_SERVER: Final = Side.SERVER
_ABNORMAL_CLOSURE: Final = CloseCode.ABNORMAL_CLOSURE
_KEEPALIVE: Final = CloseCause.KEEPALIVE


class Host:
    """What the connections of one server with one application share.

    Args:
        app: the ASGI application.
        limits: of every connection.
        loop: the event loop.
        logger: for access lines, errors of the application and what peers do.
        version: of ASGI, that the application is written for.
        root_path: where the application is mounted.
        state: of the lifespan.
        stop_timeout: seconds after which an application is cancelled when the server stops; None never does it.
        fresh_context: whether each application runs in a context of its own that begins empty.
        topics: what `WebSocket.subscribe` and its like are about; the application starts it. None for none.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        logger: logging.Logger,
        *,
        version: str = "3.0",
        root_path: str = "",
        state: dict[str, Any] | None = None,
        stop_timeout: float | None = STOP_TIMEOUT,
        fresh_context: bool = False,
        topics: Topics | None = None,
    ) -> None:
        self.app = app
        self.limits = limits
        self.loop = loop
        self.logger = logger
        self.turn: Turn = turn_of(loop)
        self.timer: CoarseTimer = CoarseTimer(loop)
        self.context: contextvars.Context = contextvars.copy_context()
        self.version = version
        self.root_path = root_path
        self.state = state
        self.stop_timeout = stop_timeout
        self.fresh_context = fresh_context
        self.topics: Topics | None = topics
        self.tasks: set[asyncio.Task[None]] = set()
        # Where the last client connected to, which most others do too: one object for all of them.
        self.local: Any = None
        self.server: Address | None = None
        self._moving: OrderedDict[BridgeProtocol, None] = OrderedDict()  # in the order in which they were opened
        self._mover: asyncio.Handle | None = None

    def header_lines(self) -> bytes:
        """Return headers for every response, each line with CR LF in front."""
        return b""

    def _response_anew(self, request: Request, subprotocol: str | None) -> Response:
        """Build the 101 of a connection again: its Date, and what else `header_lines` has, are those of now."""
        choose = partial(negotiate, self.limits)
        return accepting_response(request, subprotocol, choose, lines=self.header_lines())

    def is_full(self) -> bool:
        """Tell whether no more connections are to be taken: they get 503."""
        return False

    def log_access(self, scope: Scope, outcome: str) -> None:
        """Log what the application did with a request."""
        if self.logger.isEnabledFor(logging.INFO):
            # uvicorn shows the query, which often holds a token.
            target = _target(scope) + ("?..." if scope.get("query_string") else "")
            tell(self.logger.info, '%s - "WebSocket %s" %s', _where(scope.get("client")), target, outcome)

    def run(self, bridge: Bridge) -> asyncio.Task[None]:
        """Run the application for one connection."""
        if self.fresh_context:
            task = self.loop.create_task(bridge.run(), context=contextvars.Context())
        else:
            task = self.loop.create_task(bridge.run())
        self.tasks.add(task)
        task.add_done_callback(bridge.task_done, context=self.context)
        return task

    def move_later(self, protocol: BridgeProtocol) -> None:
        """See to it that a connection is moved soon, if it still is there."""
        self._moving[protocol] = None
        if self._mover is None:
            self._mover = self.loop.call_later(MOVE_DELAY, self._move, context=self.context)

    def is_moved(self, protocol: BridgeProtocol) -> None:
        """Note that a connection was moved, or has ended."""
        self._moving.pop(protocol, None)

    def _move(self) -> None:
        end = monotonic() + _MOVE_SLICE
        while self._moving:
            protocol, _ = self._moving.popitem(last=False)
            if protocol.moves:  # else another thread has asked for its transport
                try:
                    protocol.move()
                except Exception as exc:
                    protocol.transport_failed(exc)
            if monotonic() > end:
                break
        self._mover = self.loop.call_soon(self._move, context=self.context) if self._moving else None

    def _connection_opened(self, protocol: ConnectionProtocol) -> None:
        """Called by a connection that is open from now on."""

    def _connection_closed(self, protocol: ConnectionProtocol) -> None:
        """Called by a connection that has ended."""
        tell_end(self.logger, protocol.connection, protocol.ws, untimely=logging.DEBUG)


class Bridge(EventEndpoint):
    """One connection and one call of the application.

    Args:
        host: what it shares with others.

    Attributes:
        transport: the transport, until the connection is open or has ended.
        asked: whether a request has come, or what is none.
        protocol, ws: the connection; `ws` from the request on.
        conversation: what the application has decided.
    """

    __slots__ = (
        "_early",
        "_ended",
        "_opened",
        "_parser",
        "_progress",
        "_stopping",
        "_task",
        "_upgrade",
        "_waiters",
        "asked",
        "conversation",
        "due",
        "host",
        "protocol",
        "scope",
        "transport",
        "ws",
    )

    protocol: BridgeProtocol
    ws: WebSocket
    _upgrade: Upgrade

    def __init__(self, host: Host) -> None:
        self.host: Host = host
        self.conversation: Conversation = Conversation()
        self.scope: Scope | None = None  # until the access line was written
        self.due: float = 0.0
        self.transport: asyncio.Transport | None = None
        self._parser: RequestParser | None = None  # of a request that has come in part
        self.asked: bool = False
        self._early = b""  # received before the application has accepted
        self._opened = False
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._stopping: list[asyncio.TimerHandle] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    # --- Until the connection is open ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport, protocol: ConnectionProtocol) -> None:
        """Called when TCP, and TLS, are set up."""
        # Not by `cast`, which is called each time.
        self.protocol = protocol  # type: ignore[assignment]
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent."""
        transport = self.transport
        if transport is None:
            return
        if self.asked:
            if self.conversation.phase is _CLOSED:
                return  # it was answered, and is being closed
            self._early += data
            if len(self._early) > self.host.limits.read_limit:
                transport.pause_reading()
            return
        try:
            taken = take_request(data, HEAD_LIMITS) if self._parser is None else None
            if taken is not None:
                request, trailing = taken
            else:
                if self._parser is None:
                    self._parser = RequestParser(HEAD_LIMITS)
                fed = self._parser.feed(data)
                if fed is None:
                    return
                request, trailing = fed, self._parser.trailing
            upgrade = check_request(request)
        except HandshakeRefused as exc:
            self.asked, self._parser = True, None
            self.conversation.phase = _CLOSED
            tell(
                self.host.logger.info,
                "connection from %s refused: %s",
                format_address(transport.get_extra_info("peername")),
                exc,
            )
            self._write(exc.response.serialize(), last=True)
            return
        self.begin(request, upgrade, trailing)

    def begin(self, request: Request, upgrade: Upgrade, trailing: bytes) -> None:
        """Call the application for a request; `trailing` is what came behind it."""
        host, transport = self.host, self.transport
        assert transport is not None
        self.asked, self._parser = True, None
        if host.is_full():
            tell(host.logger.warning, "Exceeded concurrency limit.")
            self.conversation.phase = _CLOSED
            self._respond(refusal(503))
            return
        self._upgrade, self._early = upgrade, trailing
        known = addresses_of(transport, host.local)
        if known.local is not host.local:
            host.local, host.server = known.local, _address(known.local)
        self.ws = WebSocket(request, None, known)
        self.conversation.offers = upgrade.subprotocols
        self.scope = websocket_scope(
            request,
            upgrade.subprotocols,
            scheme="wss" if transport.get_extra_info("sslcontext") else "ws",
            client=_address(known.remote),
            server=host.server,
            root_path=host.root_path,
            version=host.version,
            state=host.state,
        )
        self.scope["extensions"][EXTENSION] = {"websocket": self.ws}
        task = host.run(self)
        if not task.done():  # as one of an eager task factory may be
            self._task = task

    def _open(self, accepted: Accept) -> None:
        host, transport, upgrade = self.host, self.transport, self._upgrade
        assert transport is not None
        extension = compression = None
        try:
            if upgrade.extensions:
                extension, compression = negotiate(host.limits, upgrade.extensions)
            head = accept_response(
                upgrade.key, accepted.subprotocol, extension, accepted.headers or None, lines=host.header_lines()
            )
        except BaseException:
            self.conversation.phase = _CONNECTING  # an extension of the program's own has failed
            raise
        self._log("[accepted]")
        self.ws.subprotocol = accepted.subprotocol
        early, self._early = self._early, b""
        if not transport.is_reading():
            transport.resume_reading()
        self.transport = None
        self._opened = True
        del self._upgrade
        if accepted.headers or host.limits.extensions:
            self.ws.response = head  # the application's headers and extensions cannot be made again
        moves = can_take_over(host.loop, transport)
        used = self.protocol.with_backlog(transport) if moves else transport
        self.protocol.open(host, _SERVER, self.ws, used, compression, head)
        self.join(self.protocol)
        if moves:
            self.protocol.moves = MOVE_READS
            host.move_later(self.protocol)
        else:
            self.protocol.opened(transport)
        self._wake()
        if early:
            self.protocol.feed(early)

    def _log(self, outcome: object) -> None:
        """Log what the application did with the request, once."""
        scope, self.scope = self.scope, None
        if scope is not None and self.host.logger.isEnabledFor(logging.INFO):
            self.host.log_access(scope, str(outcome))

    def _respond(self, answer: Answer) -> None:
        head = b""
        if answer.status:
            self._log(answer.status)
            head = status_line(answer.status) + self.host.header_lines() + b"\r\n" + answer.headers + b"\r\n"
        self._write(head + answer.body, last=answer.last)

    def _write(self, data: bytes, *, last: bool) -> None:
        """Write of an HTTP response; after the last of it, close in steps, so that the peer can read it."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if not last:
            return
        self._early = b""
        self._wake()
        if transport.is_closing():
            return
        end_in_steps(transport)
        self._progress = Progress(unsent_by(transport))
        self.host.timer.set(self, LINGER if self._stopping is None else LINGER / 4)

    def on_deadline(self) -> None:
        """Called by the timer when a peer that was refused does not go."""
        transport = self.transport
        if transport is None:
            return
        if self._stopping is None and self._progress.goes_on(unsent_by(transport)):
            self.host.timer.set(self, LINGER)  # it takes a long response slowly
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the transport has ended, before the connection was open or after."""
        self.host.timer.clear(self)
        self.transport = None
        self._ended = True
        self.conversation.gone = True
        if self.conversation.phase < _OPEN:
            self.conversation.disconnect(_ABNORMAL_CLOSURE)
        self._wake()
        if self._task is None:
            self.forget()

    def forget(self) -> None:
        """Break the reference cycles, as the connection and the application have both ended."""
        self.protocol.finished()
        self.join(None)
        if self._opened:
            del self.protocol.ws
        if self._stopping is not None:
            for handle in self._stopping:
                handle.cancel()
            self._stopping = None
        self.transport = self.scope = None
        self.protocol = self.ws = self._upgrade = None  # type: ignore[assignment]

    # --- The application -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Call the application, and do what is left to do when it ends."""
        logger, conversation = self.host.logger, self.conversation
        failed = True
        try:
            assert self.scope is not None
            result = await self.host.app(self.scope, self.receive, self.send)
            self._note_loss()
            if result is not None:
                tell(logger.error, "ASGI callable should return None, but returned '%s'.", result)
            elif conversation.phase is _CONNECTING and not conversation.gone:
                tell(logger.error, "ASGI callable returned without completing handshake.")
            else:
                failed = False
        except BaseException as exc:
            self._note_loss()
            if self._stopping is not None and isinstance(exc, asyncio.CancelledError):
                pass
            elif self._has_peer_gone() and _is_end(exc):
                tell(logger.debug, "ASGI application ended with its connection: %r", exc)
            else:
                tell(logger.error, "Exception in ASGI application\n", exc_info=exc)
            # SystemExit ends one connection, not the server, as with uvicorn's own classes.
            if isinstance(exc, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)):
                raise
        finally:
            self._task = None
            self._leave(failed)

    def task_done(self, task: asyncio.Task[None]) -> None:
        """Called when the task has ended that calls the application."""
        self.host.tasks.discard(task)
        if self._task is task:  # it was cancelled before it began
            self._task = None
            self._leave(True)

    def _note_loss(self) -> None:
        """Note that the peer has left before it was accepted; loops call `connection_lost` in a later turn."""
        if self.conversation.phase < _OPEN and (self.transport is None or self.transport.is_closing()):
            self.conversation.disconnect(_ABNORMAL_CLOSURE)

    def _has_peer_gone(self) -> bool:
        return self.conversation.gone or (self._opened and self.protocol.connection.state is not _STATE_OPEN)

    def _leave(self, failed: bool) -> None:
        action = self.conversation.leave(failed=failed)
        if action is None:
            pass
        elif isinstance(action, Answer):
            try:
                self._respond(action)
            except ValueError as exc:  # of the server's own headers
                tell(self.host.logger.error, "a WebSocket is not answered: %s", exc)
                if self.transport is not None:
                    self.transport.abort()
        elif isinstance(action, Close):
            cause = CloseCause.HANDLER_ERROR if failed else CloseCause.LOCAL
            self.protocol.start_close(action.code, action.reason, cause)
        elif isinstance(action, Cut) and self.transport is not None:
            self.transport.abort()
        self._wake()
        if self._opened:
            self.protocol.end_receiving()
        if self._ended:
            self.forget()

    async def receive_rare(self) -> Event:
        """Receive the first event, or any while the connection is not open; see `EventEndpoint.receive`."""
        conversation = self.conversation
        if not self.greeted:
            self.greeted = True
            return {"type": "websocket.connect"}
        while conversation.phase is not _OPEN:
            if conversation.end is not None:
                return conversation.end.copy()
            await self._change()
        return await self.receive()

    def last_event(self) -> Event:
        """Return why there are no more messages, again and again."""
        if self.conversation.end is None:
            self._note_end()
        assert self.conversation.end is not None
        return self.conversation.end.copy()

    def _note_end(self) -> None:
        """Say why there are no more messages: by what this side found wrong, or what the peer said."""
        connection = self.protocol.connection
        if connection.failure is not None:
            self.conversation.disconnect(connection.failure.code, connection.failure.reason)
        elif connection.cause is _KEEPALIVE and connection.close_sent is not None:
            self.conversation.disconnect(*connection.close_sent)
        elif connection.close_rcvd is not None:
            self.conversation.disconnect(*connection.close_rcvd)
        else:
            self.conversation.disconnect(_ABNORMAL_CLOSURE)

    async def send_rare(self, event: Event) -> None:
        """Send an event that is no message, or not in the plain case; see `EventEndpoint.send`."""
        conversation = self.conversation
        if conversation.phase is _OPEN and not conversation.gone:
            if type(event) is dict and event.get("type") == "websocket.close":
                self.protocol.settle()  # the peer's Close frame may have been kept back
            if self.protocol.connection.state is not _STATE_OPEN:
                raise ClientDisconnected("the connection has ended")
        self._note_loss()
        action = conversation.take(event)
        if isinstance(action, Close):
            self.protocol.start_close(action.code, action.reason, CloseCause.LOCAL)
            self.protocol.end_receiving()
        elif isinstance(action, Accept):
            self._open(action)
        elif isinstance(action, Start):
            self._log(action.status)
        elif isinstance(action, Answer):
            self._respond(action)
            while not action.last and not self._ended and self.protocol.write_paused:
                await self._change()
        elif isinstance(action, Message):
            await self._send(*action)
        else:
            raise AssertionError(f"no event of an application leads to {action!r}")

    async def _send(self, data: str | BytesLike, compress: bool | None) -> None:
        protocol = self.protocol
        try:
            if protocol.write_paused:
                await protocol.outbox.drain()
            await self.ws.send(data, compress=compress)
        except ConnectionClosed as exc:
            raise ClientDisconnected("the connection has ended") from exc

    async def drained(self) -> None:
        """Wait while the peer does not take what is sent."""
        try:
            await self.protocol.outbox.drain()
        except ConnectionClosed as exc:
            raise ClientDisconnected("the connection has ended") from exc

    async def _change(self) -> None:
        """Wait until something has changed: the application's decision, the end, or room for what is written."""
        waiter = self.host.loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters = self._waiters
        if waiters is None:
            return
        self._waiters = None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def resume(self) -> None:
        """Note that there is room for what is written."""
        self._wake()

    def stop(self) -> None:
        """Begin to end, because the server stops: the application is told at once, and in the end is cancelled."""
        if self._stopping is not None:
            return
        self._stopping = []
        call_later, conversation = self.host.loop.call_later, self.conversation
        if self._ended:
            pass
        elif self._opened:
            conversation.disconnect(CloseCode.SERVICE_RESTART)
            self.protocol.start_close(CloseCode.SERVICE_RESTART, "", CloseCause.STOP)
            self.protocol.end_receiving()
            self._stopping.append(call_later(STOP_TIMEOUT, self.protocol.abort, CloseCause.STOP))
        elif self._task is None:
            if self.transport is not None and conversation.phase is not _CLOSED:
                self.transport.close()  # no request has come
        elif conversation.phase is _CONNECTING:
            self._respond(refusal(503))
            conversation.disconnect(_ABNORMAL_CLOSURE)
        if self._task is not None and self.host.stop_timeout is not None:
            self._stopping.append(call_later(self.host.stop_timeout, self._task.cancel))


class BridgeProtocol(ConnectionProtocol):
    """The asyncio protocol of a connection that an ASGI application serves.

    Args:
        host: what it shares with others.
    """

    __slots__ = ("bridge",)

    bridge_type: ClassVar[type[Bridge]] = Bridge
    """What handles the connection until it is open, and its application."""

    def __init__(self, host: Host) -> None:
        self.bridge: Bridge = self.bridge_type(host)
        super().__init__(host.turn, self.bridge)

    def data_received(self, data: bytes) -> None:
        """Called where the transport does not know of `get_buffer`, or by what read the request before."""
        if self.opening is not None:
            self.opening.data_received(data)
        else:
            self.count_read()
            self.feed(data)

    def opened(self, transport: asyncio.Transport) -> None:
        """Called when the connection is open, and stays on its transport."""

    def flush_last(self) -> bool:
        """Write what the encoder holds, after which nothing follows; tell whether the transport may be closed now."""
        if not self.moves or self.transport is None:
            return super().flush_last()
        # It is still the loop's transport, above a plain socket, and is asked what that of wsfast knows by itself.
        may_close = nothing_unread(self.transport)
        self.flush()
        return may_close

    def move(self) -> None:
        """Go on on wsfast's own transport, which reads and writes sooner than the loop's.

        That costs half of what a handshake does, so a connection that is over after a message or two never does it:
        it happens with the third read, or after half a second.
        """
        self.moves: int = 0
        host, transport = self.bridge.host, self.transport
        host.is_moved(self)
        if transport is None or transport.is_closing() or self.connection.state is not _STATE_OPEN:
            return
        if transport.get_write_buffer_size():
            self.moves = 1  # unsent bytes would be overtaken: try again with the next read
            return
        if isinstance(transport, Backlog):
            transport = transport.inner
        # Not in the context of the application's task: what is received is the server's business.
        taken = host.context.copy().run(take_over, host.loop, transport, self)
        if taken is not None:
            taken.set_write_buffer_limits(host.limits.write_limit)
            self.use_transport(cast(asyncio.Transport, taken))

    def finished(self) -> None:
        """Called when the connection and the application have both ended."""

    def with_backlog(self, transport: asyncio.Transport) -> Backlog:
        """Return what the connection uses until it is moved: it may be slow only for a peer that reads slowly."""
        return Backlog(transport, super().pause_writing, self._resume_writing)

    def pause_writing(self) -> None:
        """Called by the transport when more than `write_limit` is unsent, or anything where there is a `Backlog`."""
        if isinstance(self.transport, Backlog):
            self.transport.pause_writing()
        else:
            super().pause_writing()

    def resume_writing(self) -> None:
        """Called by the transport when less than a quarter of `write_limit` is unsent, or nothing."""
        if isinstance(self.transport, Backlog):
            self.transport.resume_writing()
        else:
            self._resume_writing()

    def _resume_writing(self) -> None:
        super().resume_writing()
        self.bridge.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended."""
        opened = self.opening is None
        if self.moves:
            self.moves = 0
            self.bridge.host.is_moved(self)
        super().connection_lost(exc)
        if opened:
            self.bridge.connection_lost(exc)

    def derive(self) -> None:
        """Derive what the hot path looks at; an application that is to be told of the end receives no more."""
        ConnectionProtocol.derive(self)  # `super()` takes as long as what it finds
        if self.bridge.conversation.end is not None:
            self.ended: bool = True

    def end_receiving(self) -> None:
        """Hand out no more messages, drop those that come, and let who waits for one learn it."""
        self.discard()
        self.ended = True
        self.wake_receiver()


def _is_end(exc: BaseException) -> bool:
    """Tell whether an exception, or each one of a group, only says that the peer has gone."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_end(one) for one in exc.exceptions)
    # What frameworks raise in an endpoint that receives or sends then; many endpoints do not catch it.
    return isinstance(exc, ClientDisconnected) or any(kind.__name__ in _ENDS for kind in type(exc).__mro__)


def _where(client: Any) -> str:
    """Tell where a client is, as uvicorn does; middleware may have put something else there."""
    if isinstance(client, (tuple, list)):
        return ":".join(str(part) for part in client if part is not None)
    return "" if client is None else format_address(client)


def _target(scope: Scope) -> str:
    """Return the path as it was asked for; middleware may have dropped it, or have left another one only."""
    raw_path = scope.get("raw_path")
    return raw_path.decode("latin-1") if isinstance(raw_path, bytes) else ascii(scope.get("path", ""))[1:-1]


def _address(address: Any) -> Address | None:
    if type(address) is tuple and len(address) == 2:
        host, port = address
        if type(host) is str and type(port) is int:
            return address
    if isinstance(address, str) and address:
        return address, None  # of a Unix socket
    if isinstance(address, (tuple, list)) and len(address) >= 2:
        return str(address[0]), int(address[1])
    return None
