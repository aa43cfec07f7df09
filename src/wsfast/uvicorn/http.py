"""`HTTP`: wsfast reads a connection from its first byte, and hands it to uvicorn's protocol if it is no WebSocket."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..asgi.bridge import HEAD_LIMITS
from ..exceptions import HandshakeRefused
from ..handshake import RequestParser, check_request
from .protocol import Protocol, are_responses_due

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["HTTP"]


class HTTP(Protocol):
    """A connection, for uvicorn's option ``--http wsfast.uvicorn:HTTP``.

    It reads the first request. One for a WebSocket it serves itself, with the frames that came behind it; all other
    connections are given to uvicorn's httptools protocol. The options are those of the class that ``--ws`` names, if
    `configure` made it; if ``--ws`` names another implementation, or ``none``, that is obeyed.
    """

    __slots__ = ("_config",)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._config = config
        self.opening: Any = _First(self)

    @classmethod
    def choose(cls, config: Config) -> type[Protocol]:
        """Return the class that has the options: that of ``--ws``, if it is one of these."""
        if not config.loaded:
            config.load()
        return chosen(config) or cls

    def is_wanted(self) -> bool:
        """Tell whether WebSockets are to be served, and by wsfast."""
        return chosen(self._config) is not None

    def give_away(self, data: bytes) -> None:
        """Let uvicorn's own protocol go on with a connection that is not for a WebSocket, or not yet."""
        state, host, transport = self._state, self.bridge.host, self.bridge.transport
        assert transport is not None
        self.bridge.forget()
        http = _HTTPTools(self._config, state, host.state or {}, host.loop)
        kind = chosen(self._config)
        if kind is not None:
            http.ws_protocol_class = cast(Any, kind)
        http.connection_made(transport)
        transport.set_protocol(http)
        # uvloop chooses how to read when it starts to: now it sees that there is no `get_buffer`.
        transport.pause_reading()
        transport.resume_reading()
        http.data_received(data)


class _First:
    """What handles a connection until its first bytes show what it is for."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: HTTP) -> None:
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport, protocol: Any) -> None:
        self._protocol.bridge.connection_made(transport, protocol)

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.opening = protocol.bridge
        # If it is not such a request, or not whole, uvicorn's protocol reads the same bytes again.
        if b"ebsocket" in data and protocol.is_wanted():
            parser = RequestParser(HEAD_LIMITS)
            try:
                request = parser.feed(data)
                if request is not None:
                    protocol.bridge.begin(request, check_request(request), parser.trailing)
                    return
            except HandshakeRefused:
                pass
        protocol.give_away(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.bridge.connection_lost(exc)


class _HTTPTools(HttpToolsProtocol):
    """uvicorn's protocol, which drops the frames that come right behind a request for a WebSocket.

    Nor does it finish the responses to requests before that one, if they came in one go.
    """

    _data: bytes = b""
    _waiting: bytearray | None = None  # what came behind a request for a WebSocket that waits for earlier responses
    _context: contextvars.Context

    def data_received(self, data: bytes) -> None:
        if self._waiting is not None:
            self._waiting += data
            self.flow.pause_reading()  # the end of a response, and an application that receives, resume it
            return
        self._data = data
        super().data_received(data)
        self._data = b""

    def handle_websocket_upgrade(self) -> None:
        upgraded = sys.exception()
        # httptools tells where the request has ended.
        trailing = self._data[upgraded.args[0] :] if isinstance(upgraded, httptools.HttpParserUpgrade) else b""
        if are_responses_due(self):
            # RFC 9112, 9.3.2: a server "MUST send the corresponding responses in the same order that the requests were
            # received."
            self._waiting, self._context = bytearray(trailing), contextvars.copy_context()
            self.flow.pause_reading()
        else:
            self._upgrade(trailing)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:
            # uvicorn reads on after each response, so that a peer that reads nothing is given memory without a bound.
            self.flow.pause_reading()
        if self._waiting is not None and not are_responses_due(self):
            self.loop.call_soon(self._go_on, context=self._context)

    def _go_on(self) -> None:
        trailing, self._waiting = self._waiting, None
        if trailing is not None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.flow.resume_reading()
            self._upgrade(bytes(trailing))

    def _upgrade(self, trailing: bytes) -> None:
        transport = self.transport
        super().handle_websocket_upgrade()
        protocol = transport.get_protocol()
        if trailing and isinstance(protocol, Protocol):
            protocol.data_received(trailing)


def chosen(config: Config) -> type[Protocol] | None:
    """Return the class that is to serve WebSockets; None if uvicorn was told to have others, or nobody, do it."""
    if config.ws == "auto":
        return Protocol
    kind = config.ws_protocol_class
    return kind if isinstance(kind, type) and issubclass(kind, Protocol) else None
