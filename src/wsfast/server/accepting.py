"""The server's side of a connection until it is open.

It moves bytes between the transport and `handshake`, runs the hooks, and lets the `ConnectionProtocol` go on as an open
connection, or answers with an HTTP response and closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..asyncio.websocket import Known, addresses_of
from ..exceptions import ENDS_PROGRAM, HandshakeRefused
from ..handshake import HeadLimits, Request, RequestParser, Response, refuse
from ..handshake.forwarded import Address, Networks
from ..handshake.http11 import take_request
from ..serving import STOPPING, Accepted, Answering, finish_answer
from ..session import LINGER
from ..telling import tell
from ..transport.loops import end_in_steps
from ..transport.sockets import SocketTransport
from ..transport.unacknowledged import Progress, unsent_by

if TYPE_CHECKING:
    from ..asyncio.protocol import ConnectionProtocol
    from ..asyncio.websocket import WebSocket
    from ..deflate import PerMessageDeflate
    from ..extensions import Chain
    from ..session import Limits
    from ..transport.timers import CoarseTimer

__all__ = ["Acceptor", "ServerOpening"]

_SURPLUS_PATIENCE = 2.0
"""Seconds in which a client that will be refused for lack of room must have sent its request."""


class Acceptor(Protocol):
    """The part of a server that a connection needs until it is open."""

    limits: Limits
    head_limits: HeadLimits
    forwarded: Networks | None
    timer: CoarseTimer
    logger: Any

    def _has_hooks(self) -> bool: ...

    def _no_room(self) -> HandshakeRefused: ...

    def _new_websocket(
        self, request: Request, peer: Known | None, transport: asyncio.Transport | None
    ) -> WebSocket: ...

    def _handshake_began(self, handshake: ServerOpening) -> bool: ...

    def _handshake_ended(self, handshake: ServerOpening) -> None: ...

    def _knows(self, protocol: ConnectionProtocol) -> bool: ...

    def _answer(
        self, ws: WebSocket, request: Request, peer: Callable[[], Any], refused: HandshakeRefused | None = None
    ) -> Answering: ...

    def _forwarded_from(self, request: Request, peer: object) -> Address | None: ...

    def _tell_no_header(self, exc: ValueError, peer: object) -> None: ...

    def _answer_at_once(self, ws: WebSocket, request: Request, peer: Callable[[], Any]) -> Accepted | Response: ...

    def _unreadable(self, exc: HandshakeRefused, peer: Any) -> Response: ...

    def _tell_early_end(self, peer: Any, request: Request | None, why: str, set_up: bool) -> None: ...

    def _tell_late(self, peer: Any, request: Request | None, set_up: bool) -> None: ...

    def _failed(self, exc: BaseException) -> Response: ...

    def _serialize(self, response: Response, request: Request | None) -> tuple[int, bytes]: ...

    def _request_answered(self, status_code: int) -> None: ...

    def _open_connection(
        self,
        protocol: ConnectionProtocol,
        ws: WebSocket,
        transport: asyncio.Transport,
        compression: PerMessageDeflate | Chain | None,
        head: bytes,
        trailing: bytes,
    ) -> None: ...


class ServerOpening:
    """One connection that is not a WebSocket connection yet.

    Args:
        server: the server that accepted it.
    """

    __slots__ = (
        "_answered",
        "_expired",
        "_known",
        "_late",
        "_parser",
        "_progress",
        "_protocol",
        "_request",
        "_task",
        "due",
        "has_place",
        "server",
        "surplus",
        "transport",
        "ws",
    )

    def __init__(self, server: Acceptor) -> None:
        self.server: Acceptor = server
        self.transport: asyncio.Transport | None = None
        self._protocol: ConnectionProtocol | None = None
        self._known: Known | None = None  # addresses from a proxy, or those that the transport will forget
        self.due: float = 0.0
        self._parser: RequestParser | None = None  # of a request that is not in order, or has come in part
        self._task: asyncio.Task[None] | None = None
        self._late = b""  # what came behind the request
        self._answered = False
        self._expired = False
        self._progress: Progress | None = None  # of a response that is sent
        self.surplus: bool = False
        self.has_place: bool = False  # whether it counts for `max_connections`
        self.ws: WebSocket
        self._request: Request | None = None  # `ws` exists only once there is a request
        if server.limits.open_timeout is not None:
            server.timer.set(self, server.limits.open_timeout)

    def accepted(self, transport: asyncio.Transport) -> None:
        """Called when TCP is set up, before TLS."""
        self.transport = transport
        if not isinstance(transport, SocketTransport) and self._known is None:
            self._known = addresses_of(transport)  # other transports may forget them before the end
        if not self.server._handshake_began(self):
            transport.abort()
        elif self._expired:
            self.on_deadline()
        elif self.surplus:
            patience = self.server.limits.open_timeout
            self.server.timer.set(self, _SURPLUS_PATIENCE if patience is None else min(patience, _SURPLUS_PATIENCE))

    @property
    def peer(self) -> Any:
        """The peer's address, if it is known."""
        return self._get_peer()

    def _get_peer(self) -> Any:
        if self._known is None and self.transport is not None:
            return addresses_of(self.transport).remote
        return None if self._known is None else self._known.remote

    def proxied(self, source: Address, destination: Address | None) -> None:
        """Take the client's address, and the one it connected to, from what a proxy said."""
        self._known = Known(source, destination)

    def refuse_prelude(self, exc: ValueError) -> None:
        """Fail because a trusted proxy did not begin with a valid PROXY header."""
        self._answered = True
        self.server._tell_no_header(exc, self.peer)

    def connection_made(self, transport: asyncio.BaseTransport, protocol: ConnectionProtocol) -> None:
        """Called when TCP, and TLS, are set up."""
        self._protocol = protocol
        if self.transport is None:
            self.accepted(cast(asyncio.Transport, transport))  # uvloop's classes do not derive from it

    def data_received(self, data: bytes) -> None:
        """Called by the transport with what the peer sent."""
        if self._answered:
            return  # the connection is being closed; what still comes is dropped
        if self._task is not None:
            self._late += data
            if len(self._late) > self.server.limits.read_limit and self.transport is not None:
                self.transport.pause_reading()
            return
        try:
            if self._parser is None:
                taken = take_request(data, self.server.head_limits)
                if taken is not None:
                    self._handle(*taken)
                    return
                self._parser = RequestParser(self.server.head_limits)
            request = self._parser.feed(data)
            if request is not None:
                self._handle(request, self._parser.trailing)
        except HandshakeRefused as exc:
            self._send(self.server._unreadable(exc, self.peer))
        except ENDS_PROGRAM:
            raise
        except BaseException as exc:
            self._send(self.server._failed(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended before the connection was open."""
        self._known = Known(self.peer, None)
        set_up = self._protocol is not None
        self.transport = self._protocol = None
        self.server.timer.clear(self)
        self.server._handshake_ended(self)
        if self._task is not None:
            self._task.cancel()
        if not self._answered:
            self.server._tell_early_end(self.peer, self._request, "" if exc is None else str(exc), set_up)

    def on_deadline(self) -> None:
        """Called by the timer when the opening handshake, or what follows its refusal, took too long."""
        if self.transport is None:
            self._expired = True  # the loop has not called `connection_made` yet
            return
        if not self._answered:
            self.server._tell_late(self.peer, self._request, self._protocol is not None)
            self._answered = True
            if self._task is not None:
                self._task.cancel()
        elif self._progress is not None and self._progress.goes_on(unsent_by(self.transport)):
            self.server.timer.set(self, LINGER)  # it takes a long response slowly
            return
        self.transport.abort()

    def stop(self) -> None:
        """Refuse the request because the server stops, or drop a connection that has sent none."""
        assert self.transport is not None
        if self._task is not None:
            self._task.cancel()
            self._send(refuse(503, STOPPING).response)
            return
        if not self._answered:
            self.server._tell_early_end(self.peer, None, STOPPING, self._protocol is not None)
            self._answered = True
        self.transport.abort()

    # --- The opening handshake --------------------------------------------------------------------------

    def _handle(self, request: Request, trailing: bytes) -> None:
        """Have the server judge a request, then open the connection or send the response that refuses it."""
        server = self.server
        self._request = request
        self._late = trailing
        assert self.transport is not None
        if server.forwarded is not None:
            self._take_forwarded(request)
        known = self._known
        if not (self.surplus or server._has_hooks()):
            self.ws = server._new_websocket(request, known, self.transport)
            self._conclude(server._answer_at_once(self.ws, request, self._get_peer))
            return
        # Hooks may ask for the peer's address before the WebSocket has a transport to ask: pass it in.
        known = (known or addresses_of(self.transport))._replace(transport=self.transport)
        self.ws = server._new_websocket(request, known, self.transport)
        refused = server._no_room() if self.surplus else None
        steps = server._answer(self.ws, request, self._get_peer, refused)
        try:
            awaited = next(steps)
        except StopIteration as done:
            self._conclude(done.value)
        else:
            self._task = asyncio.ensure_future(self._finish(steps, awaited))
            self._task.add_done_callback(self._finished)

    async def _finish(self, steps: Answering, awaited: Awaitable[Any]) -> None:
        """Finish the answer to a request while a hook is awaited."""
        try:
            answer = await finish_answer(steps, awaited)
        except asyncio.CancelledError as exc:
            if self._answered or self.transport is None:
                raise
            answer = self.server._failed(exc)  # the hook raised it; nobody cancelled this task
        self._conclude(answer)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Answer with 500 if a hook that was awaited raised a `BaseException` that is not an `Exception`."""
        exc = None if task.cancelled() else task.exception()
        if exc is not None and not isinstance(exc, ENDS_PROGRAM):
            self._send(self.server._failed(exc))

    def _conclude(self, answer: Accepted | Response) -> None:
        if isinstance(answer, Response):
            self._send(answer)
        elif not self._answered and self.transport is not None:
            self._open(answer)

    def _take_forwarded(self, request: Request) -> None:
        """Take the client's address from the request's headers, if a proxy that is trusted sent it."""
        assert self.transport is not None
        known = self._known or addresses_of(self.transport)
        peer = self.transport.get_extra_info("peername") if known.remote is None else known.remote
        client = self.server._forwarded_from(request, peer)
        if client is not None:
            self._known = known._replace(remote=client)

    def _open(self, accepted: Accepted) -> None:
        """Let the protocol go on as an open connection."""
        server, transport, protocol = self.server, self.transport, self._protocol
        assert transport is not None
        assert protocol is not None
        server.timer.clear(self)
        self.has_place = False  # from now on the connection counts
        server._handshake_ended(self)
        self.ws.subprotocol = accepted.subprotocol
        self.ws._peer = self._known
        trailing = self._late
        self._answered = True
        self._task = self._protocol = None
        if not transport.is_reading():
            transport.resume_reading()
        try:
            server._open_connection(protocol, self.ws, transport, accepted.compression, accepted.head, trailing)
        except ENDS_PROGRAM:
            raise
        except BaseException as exc:
            # The 101 may be sent already: after any error, the connection must not stay open without an owner.
            tell(server.logger.error, "a connection could not be opened", exc_info=exc)
            if not server._knows(protocol):
                protocol.opening = self  # whose `connection_lost` is called at the end
                self.has_place = True
            transport.abort()

    def _send(self, response: Response) -> None:
        """Send an HTTP response and close."""
        transport = self.transport
        if transport is None or self._answered:
            return
        self._answered = True
        status_code, data = self.server._serialize(response, self._request)
        self.server._request_answered(status_code)
        transport.write(data)
        end_in_steps(transport)
        self._progress = Progress(unsent_by(transport))
        self.server.timer.set(self, LINGER)
