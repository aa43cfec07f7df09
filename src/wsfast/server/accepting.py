"""The server's side of a connection until it is open.

It moves bytes between the transport and `handshake`, runs the hooks, and lets the `ConnectionProtocol` go on as an open
connection, or answers with an HTTP response and closes.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..asyncio.websocket import Known, addresses_of
from ..escape import show
from ..exceptions import HandshakeRefused
from ..handshake import HeadLimits, Origins, Request, RequestParser, Response, accept_response, check_request, refuse
from ..handshake.forwarded import Address, Networks, forwarded_for
from ..handshake.uri import format_address
from ..session import LINGER
from ..transport.sockets import SocketTransport

if TYPE_CHECKING:
    from ..asyncio.protocol import ConnectionProtocol
    from ..asyncio.websocket import WebSocket
    from ..deflate import PerMessageDeflate
    from ..session import Limits
    from ..transport.timers import CoarseTimer

__all__ = ["Acceptor", "ServerOpening"]

_SURPLUS_PATIENCE = 2.0
"""Seconds for the request of a connection that is to be refused because there are too many."""


class Acceptor(Protocol):
    """What a connection that is not open yet needs of its server."""

    limits: Limits
    head_limits: HeadLimits
    forwarded: Networks | None
    origins: Origins | None
    response_headers: dict[str, str] | None
    server_header: str | None
    timer: CoarseTimer
    logger: Any
    closing: bool
    hooked: bool
    max_connections: int | None

    @property
    def process_request(self) -> Callable[[WebSocket, Request], Any] | None: ...

    @property
    def process_response(self) -> Callable[[WebSocket, Request, Response], Any] | None: ...

    def new_websocket(self, request: Request, peer: Known | None, transport: asyncio.Transport | None) -> WebSocket: ...

    def _handshake_began(self, handshake: ServerOpening) -> bool: ...

    def _handshake_ended(self, handshake: ServerOpening) -> None: ...

    def _knows(self, protocol: ConnectionProtocol) -> bool: ...

    def _request_answered(self, status_code: int) -> None: ...

    def _choose_subprotocol(self, ws: WebSocket, offers: Sequence[str]) -> str | None: ...

    def _negotiate(self, offers: Sequence[Any]) -> tuple[str | None, PerMessageDeflate | None]: ...

    def _open_connection(
        self,
        protocol: ConnectionProtocol,
        ws: WebSocket,
        transport: asyncio.Transport,
        compression: PerMessageDeflate | None,
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
        "_protocol",
        "_request",
        "_task",
        "_with_body",
        "due",
        "server",
        "surplus",
        "transport",
        "ws",
    )

    def __init__(self, server: Acceptor) -> None:
        self.server: Acceptor = server
        self.transport: asyncio.Transport | None = None
        self._protocol: ConnectionProtocol | None = None
        self._known: Known | None = None  # what was told of the addresses, or the transport may forget
        self.due: float = 0.0
        self._parser = RequestParser(server.head_limits)
        self._with_body = True  # False where HEAD is answered
        self._task: asyncio.Task[None] | None = None
        self._late = b""  # received while a hook is at work
        self._answered = False
        self._expired = False
        self.surplus = False
        self.ws: WebSocket
        self._request: Request | None = None  # without one there is no `ws`
        if server.limits.open_timeout is not None:
            server.timer.set(self, server.limits.open_timeout)

    def accepted(self, transport: asyncio.Transport) -> None:
        """Called when TCP is set up, and TLS may not be."""
        self.transport = transport
        if not isinstance(transport, SocketTransport) and self._known is None:
            self._known = addresses_of(transport)  # others may forget them before the end
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
        if self._known is None and self.transport is not None:
            return addresses_of(self.transport).remote
        return None if self._known is None else self._known.remote

    def proxied(self, source: Address, destination: Address | None) -> None:
        """Note the client's address, and the one that it connected to, as a proxy told them."""
        self._known = Known(source, destination)

    def refuse_prelude(self, why: str) -> None:
        """Note that a proxy did not begin as it should have."""
        self._answered = True
        self.server.logger.info("connection from %s refused: %s", format_address(self.peer), why)

    def connection_made(self, transport: asyncio.BaseTransport, protocol: ConnectionProtocol) -> None:
        """Called when TCP, and TLS, are set up."""
        self._protocol = protocol
        if self.transport is None:
            self.accepted(cast(asyncio.Transport, transport))  # uvloop's classes do not derive from it

    def data_received(self, data: bytes) -> None:
        """Called by the transport with what the peer sent."""
        if self._answered:
            return  # it is being closed; what still comes is dropped
        if self._task is not None:
            self._late += data
            if len(self._late) > self.server.limits.read_limit and self.transport is not None:
                self.transport.pause_reading()
            return
        try:
            request = self._parser.feed(data)
            if request is not None:
                self._handle(request)
        except HandshakeRefused as exc:
            self._refuse(exc)
        except (Exception, asyncio.CancelledError) as exc:
            self._fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended before the connection was open."""
        self._known = Known(self.peer, None)
        self.transport = self._protocol = None
        self.server.timer.clear(self)
        self.server._handshake_ended(self)
        if self._task is not None:
            self._task.cancel()
        if not self._answered:
            why = "" if exc is None else f": {show(str(exc))}"
            self.server.logger.debug(
                "connection from %s ended before its opening handshake%s", format_address(self.peer), why
            )

    def on_deadline(self) -> None:
        """Called by the timer when the opening handshake, or what follows its refusal, took too long."""
        if self.transport is None:
            self._expired = True  # the event loop has not come to it yet
            return
        if not self._answered:
            self.server.logger.info(
                "connection from %s refused: its opening handshake took too long", format_address(self.peer)
            )
            self._answered = True
            if self._task is not None:
                self._task.cancel()
        self.transport.abort()

    def stop(self) -> None:
        """Refuse the request because the server stops, or drop a connection that has sent none."""
        assert self.transport is not None
        if self._task is not None:
            self._task.cancel()
            self._send(refuse(503, "The server is stopping").response)
            return
        self._answered = True
        self.transport.abort()

    # --- The opening handshake --------------------------------------------------------------------------

    def _handle(self, request: Request) -> None:
        server = self.server
        self._request = request
        self._with_body = not request.raw.startswith(b"HEAD ")
        assert self.transport is not None
        if server.forwarded is not None:
            self._take_forwarded(request, server.forwarded)
        known = self._known
        if server.hooked:
            # Before it is open, a WebSocket has no connection to ask.
            known = (known or addresses_of(self.transport))._replace(transport=self.transport)
        self.ws = server.new_websocket(request, known, self.transport)
        if self.surplus:
            raise refuse(
                503,
                "The server has as many connections as it may have",
                f"max_connections is {server.max_connections}",
                {"Retry-After": "5"},
            )
        if server.process_request is None:
            self._upgrade()
            return
        self._after(server.process_request(self.ws, request), self._take_answer)

    def _take_forwarded(self, request: Request, trusted: Networks) -> None:
        """Take the client's address from the request's headers, if a proxy that is trusted sent it."""
        assert self.transport is not None
        known = self._known or addresses_of(self.transport)
        peer = self.transport.get_extra_info("peername") if known.remote is None else known.remote
        if peer in trusted:
            client = forwarded_for(request.headers, trusted)
            if client is not None:
                self._known = known._replace(remote=client)

    def _take_answer(self, response: Any) -> None:
        """Go on with what `process_request` returned."""
        if response is None:
            self._upgrade()
        elif not isinstance(response, Response):
            raise TypeError(f"process_request must return None or a Response, got {type(response).__name__}")
        else:
            answered = "connection from %a: process_request answered %r with %d"
            self.server.logger.debug(answered, self.peer, self._request, response.status_code)
            self._answer(response)

    def _after(self, answer: Any, then: Callable[[Any], None]) -> None:
        """Call `then` with what a hook returned, or with what that comes to when it is awaited."""
        if inspect.isawaitable(answer):
            self._task = asyncio.ensure_future(self._later(answer, then))
        else:
            then(answer)

    async def _later(self, answer: Awaitable[Any], then: Callable[[Any], None]) -> None:
        try:
            result = await answer
            if not self._answered and self.transport is not None:
                then(result)
        except HandshakeRefused as exc:
            self._refuse(exc)
        except asyncio.CancelledError as exc:
            if self._answered or self.transport is None:
                raise
            self._fail(exc)  # it was cancelled by what it waited for
        except Exception as exc:
            self._fail(exc)

    def _upgrade(self) -> None:
        """Accept the request (RFC 6455, 4.2.2)."""
        server = self.server
        if server.closing:
            raise refuse(503, "The server is stopping")
        assert self._request is not None
        upgrade = check_request(self._request, server.origins)
        subprotocol = server._choose_subprotocol(self.ws, upgrade.subprotocols)
        extension, compression = server._negotiate(upgrade.extensions)
        head = accept_response(
            upgrade.key, subprotocol, extension, server.response_headers, server=server.server_header
        )
        if server.process_response is None:
            self._open(subprotocol, compression, head)
        else:
            self._review(Response.from_head(head), functools.partial(self._open, subprotocol, compression))

    def _review(self, response: Response, accept: Callable[[bytes], None] | None = None) -> None:
        """Let `process_response` see a response, and go on with it, or with the one that it returns.

        Args:
            response: what is to be sent.
            accept: what opens the connection by the bytes of a response, if this one does.
        """
        assert self.server.process_response is not None
        assert self._request is not None

        def conclude(returned: Any) -> None:
            final = response if returned is None else returned
            if not isinstance(final, Response):
                raise TypeError(f"process_response must return None or a Response, got {type(final).__name__}")
            if final.status_code != 101:
                self._send(final)
            elif accept is None:
                raise ValueError("process_response must not turn a response that refuses into a 101")
            elif self.server.closing:
                self._send(refuse(503, "The server is stopping").response)
            else:
                accept(final.serialize())

        self._after(self.server.process_response(self.ws, self._request, response), conclude)

    def _open(self, subprotocol: str | None, compression: PerMessageDeflate | None, head: bytes) -> None:
        """Let the protocol go on as an open connection, beginning with `head`."""
        server, transport, protocol = self.server, self.transport, self._protocol
        assert transport is not None
        assert protocol is not None
        server.timer.clear(self)
        server._handshake_ended(self)
        self.ws.subprotocol = subprotocol
        self.ws._peer = self._known
        trailing = self._parser.trailing + self._late
        self._answered = True
        self._task = self._protocol = None
        if not transport.is_reading():
            transport.resume_reading()
        try:
            server._open_connection(protocol, self.ws, transport, compression, head, trailing)
        except (Exception, asyncio.CancelledError) as exc:
            # The handshake may be answered: whatever it was, the connection must not stay without anybody.
            server.logger.error("a connection could not be opened", exc_info=exc)
            if not server._knows(protocol):
                protocol.opening = self  # which is told of the end
            transport.abort()

    def _refuse(self, refused: HandshakeRefused) -> None:
        self.server.logger.info("connection from %s refused: %s", format_address(self.peer), refused)
        self._answer(refused.response)

    def _fail(self, exc: BaseException) -> None:
        self.server.logger.error("opening handshake failed: a hook raised", exc_info=exc)
        self._send(refuse(500, "The server failed to answer the request").response)

    def _answer(self, response: Response) -> None:
        """Send a response that does not open the connection, if `process_response` agrees."""
        if self.server.process_response is None or self._request is None or self._answered or self.transport is None:
            self._send(response)
            return
        try:
            self._review(response)
        except (Exception, asyncio.CancelledError) as exc:
            self._fail(exc)

    def _send(self, response: Response) -> None:
        """Send an HTTP response and close (RFC 9112, 9.6: in steps, so that the peer can read it)."""
        transport = self.transport
        if transport is None or self._answered:
            return
        try:
            data = response.serialize(with_body=self._with_body)
        except ValueError as exc:  # a hook added a header that must not be
            self._fail(exc)
            return
        self._answered = True
        self.server._request_answered(response.status_code)
        transport.write(data)
        if not transport.is_closing():
            # Unread bytes in the socket would reset the connection and destroy the response.
            if not transport.is_reading():
                transport.resume_reading()
            if transport.can_write_eof():
                try:
                    transport.write_eof()
                except OSError:  # the peer has gone
                    transport.abort()
            else:
                transport.close()
        self.server.timer.set(self, LINGER)
