"""`HTTP`: wsfast reads a connection from its first byte, and hands it to uvicorn's protocol if it is no WebSocket."""

from __future__ import annotations

import contextvars
import sys
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..asgi.bridge import HEAD_LIMITS, Bridge
from ..exceptions import HandshakeRefused
from ..handshake import RequestParser, check_request
from ..handshake.http11 import take_request
from ..session import LINGER
from .protocol import Protocol, UvicornHost, are_responses_due, chosen, is_stopping

try:
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ModuleNotFoundError as _exc:
    _NEEDED = "wsfast.uvicorn's HTTP and serve need uvicorn and httptools: pip install 'wsfast[uvicorn]'"
    raise ModuleNotFoundError(_NEEDED, name=_exc.name) from _exc

if TYPE_CHECKING:
    from uvicorn.config import Config

__all__ = ["HTTP", "awaits_request"]


class _First(Bridge):
    """A bridge that looks at a connection's first bytes, which show what it is for."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent."""
        if self.asked or self.transport is None:
            super().data_received(data)
            return
        # If it is not such a request, or not whole, uvicorn's protocol reads the same bytes again.
        host: UvicornHost = self.host  # type: ignore[assignment]
        if b"ebsocket" in data and host.kind is not None:
            try:
                taken = take_request(data, HEAD_LIMITS)
                if taken is None:
                    parser = RequestParser(HEAD_LIMITS)
                    request = parser.feed(data)
                    taken = None if request is None else (request, parser.trailing)
                if taken is not None:
                    request, trailing = taken
                    self.begin(request, check_request(request), trailing)
                    return
            except HandshakeRefused:
                pass
        cast("HTTP", self.protocol).give_away(data)


class HTTP(Protocol):
    """A connection, for uvicorn's option ``--http wsfast.uvicorn:HTTP``.

    It reads the first request. One for a WebSocket it serves itself, with the frames that came behind it; all other
    connections are given to uvicorn's httptools protocol. The options are those of the class that ``--ws`` names, if
    `configure` made it; if ``--ws`` names another implementation, or ``none``, that is obeyed.
    """

    __slots__ = ()

    bridge_type: ClassVar[type[Bridge]] = _First

    @classmethod
    def choose(cls, config: Config) -> type[Protocol]:
        """Return the class that has the options: that of ``--ws``, if it is one of these."""
        if not config.loaded:
            config.load()
        return chosen(config) or cls

    def give_away(self, data: bytes) -> None:
        """Let uvicorn's own protocol go on with a connection that is not for a WebSocket, or not yet."""
        host, transport = cast(UvicornHost, self.bridge.host), self.bridge.transport
        assert transport is not None
        self.bridge.forget()
        http = _HTTPTools(host.config, self._state, cast("dict[str, Any]", host.state), host.loop)
        if host.kind is not None:
            http.ws_protocol_class = cast(Any, host.kind)
        http.connection_made(transport)
        transport.set_protocol(http)
        # uvloop chooses how to read when it starts to: now it sees that there is no `get_buffer`.
        transport.pause_reading()
        transport.resume_reading()
        http.data_received(data)
        if is_stopping(self._state):
            host.loop.call_later(LINGER, http.shutdown)


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


def awaits_request(connection: Any) -> bool:
    """Tell whether one of a server's connections was accepted, and its first request has not come yet, or not whole."""
    if isinstance(connection, HTTP):
        return not connection.bridge.asked
    return isinstance(connection, _HTTPTools) and cast(Any, connection.cycle) is None
