"""What a server asks of a client, and how it answers an opening handshake, whatever it runs on (RFC 6455, 4.2).

It is for servers what `dial.settings` is for clients. Nothing here waits but for hooks that are asynchronous.
"""

from __future__ import annotations

import re
import ssl as ssl_module
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .codes import CloseCause
from .deflate.negotiate import accept as accept_compression
from .escape import show
from .exceptions import HandshakeRefused, NegotiationError
from .handshake import Origins, Request, Response, accept_response, check_request, refuse
from .handshake import select_subprotocol as first_registered
from .handshake.headers import build_extensions
from .handshake.uri import format_address
from .http import is_token

if TYPE_CHECKING:
    from .connection import Connection
    from .deflate.context import PerMessageDeflate
    from .handshake import HeadLimits
    from .session import Limits

__all__ = [
    "STOPPING",
    "Accepted",
    "Dispatch",
    "Reception",
    "check_response_headers",
    "check_server_options",
    "checked_origins",
    "handlers_of",
    "tell_end",
]

STOPPING: Final = "The server is stopping"
"""What a client is told that comes too late."""

_HANDSHAKE: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
"""Headers that an application may not add to the 101, besides those that begin with Sec-WebSocket."""

_UNTIMELY: Final = frozenset({CloseCause.LOST, CloseCause.KEEPALIVE, CloseCause.TIMEOUT})


class Dispatch:
    """Handlers by subprotocol, and the choice among a client's offers. What a handler is, is a subclass' business."""

    limits: Limits
    select_subprotocol: Callable[[Any, Sequence[str]], str | None] | None
    _registered: Mapping[str | None, Any]

    def is_registered(self, name: str | None) -> bool:
        """Tell whether a subprotocol, or None, has a handler of any form."""
        return name in self._registered

    @staticmethod
    def _check_name(name: str | None) -> None:
        if name is None:
            return
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol's name must be str or None, got {type(name).__name__}")
        if not is_token(name):
            raise ValueError(f"a subprotocol's name must be a token (RFC 9110, 5.6.2), got {name!r}")

    def _choose_subprotocol(self, ws: Any, offers: Sequence[str]) -> str | None:
        """Choose among a client's offers (RFC 6455, 4.2.2, item 5.4).

        Raises:
            HandshakeRefused: 400, nothing fits.
        """
        registered = self._registered
        if self.select_subprotocol is not None:
            try:
                chosen = self.select_subprotocol(ws, offers)
            except NegotiationError as exc:
                raise self._no_subprotocol(offers, show(str(exc), 200)) from exc
            if chosen is not None and (chosen not in offers or chosen not in registered):
                raise RuntimeError(
                    f"select_subprotocol must return a name that is offered and registered, got {chosen!r}"
                )
        else:
            chosen = first_registered(offers, registered) if offers else None
        if chosen is None and (None not in registered or (offers and self.select_subprotocol is None)):
            # A browser drops a connection whose response lacks the subprotocol it asked for: say it here.
            raise self._no_subprotocol(offers, f"no common subprotocol, offered: {list(offers)!r:.200}")
        return chosen

    def _no_subprotocol(self, offers: Sequence[str], why: str) -> HandshakeRefused:
        names = ", ".join(name for name in self._registered if name is not None) or "none"
        what = "None of the subprotocols offered is supported" if offers else "A subprotocol is required"
        return refuse(400, f"{what}; supported: {names}", why)

    def _negotiate(self, offers: Sequence[Any]) -> tuple[str | None, PerMessageDeflate | None]:
        """Choose among the extensions that a client offered: the header to answer, and what does the work."""
        if self.limits.compression is None or not offers:
            return None, None
        agreed = accept_compression(self.limits.compression, offers)
        if agreed is None:
            return None, None
        extension, compression = agreed
        return build_extensions([extension]), compression


class Accepted(NamedTuple):
    """What a connection is opened with."""

    head: bytes
    """The response, to be sent first."""
    subprotocol: str | None
    compression: PerMessageDeflate | None


class Reception(Dispatch):
    """How requests are answered.

    Args:
        limits: of the connections.
        head_limits: of requests.
        registered: what serves each subprotocol.
        process_request, process_response, origins, select_subprotocol, response_headers, server_header: those of
            `wsfast.Server`.
        logger: where refusals and ends are told.

    Attributes:
        closing: whether the server stops, and accepts no request any more.

    Raises:
        ValueError, TypeError: one of them is wrong; the text names it.
    """

    def __init__(
        self,
        limits: Limits,
        head_limits: HeadLimits,
        registered: Mapping[str | None, Any],
        *,
        process_request: Callable[[Any, Request], Any] | None = None,
        process_response: Callable[[Any, Request, Response], Any] | None = None,
        origins: Origins | None = None,
        select_subprotocol: Callable[[Any, Sequence[str]], str | None] | None = None,
        response_headers: Mapping[str, str] | None = None,
        server_header: str | None = "wsfast",
        logger: Any,
    ) -> None:
        for name, hook in (
            ("process_request", process_request),
            ("process_response", process_response),
            ("select_subprotocol", select_subprotocol),
        ):
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be callable, got {type(hook).__name__}")
        for subprotocol, handler in registered.items():
            self._check_name(subprotocol)
            if not callable(handler):
                raise TypeError(f"a handler must be callable, got {type(handler).__name__}")
        self.limits = limits
        self._head_limits = head_limits
        self._registered = registered
        self._process_request = process_request
        self._process_response = process_response
        self._origins = None if origins is None else checked_origins(origins)
        self.select_subprotocol = select_subprotocol
        self._response_headers = None if response_headers is None else dict(response_headers)
        self._server_header = server_header
        check_response_headers(self._response_headers, server_header)
        self.logger = logger
        self.closing = False

    async def respond(self, ws: Any, request: Request) -> Accepted | Response:
        """Answer a request: with what the connection is opened with, or with a response after which it is closed.

        It waits only for hooks that return an awaitable, and raises nothing: if a hook raises, that is logged, and the
        answer is 500.

        Args:
            ws: what the hooks are given, and the handler later.
            request: what came.
        """
        try:
            try:
                answer = await self._judge(ws, request)
            except HandshakeRefused as exc:
                answer = self.refused(exc, ws.remote_address)
            return answer if self._process_response is None else await self._review(ws, request, answer)
        except HandshakeRefused as exc:
            return self.refused(exc, ws.remote_address)
        except Exception as exc:
            self.logger.error("opening handshake failed: a hook raised", exc_info=exc)
            return refuse(500, "The server failed to answer the request").response

    async def _judge(self, ws: Any, request: Request) -> Accepted | Response:
        if self._process_request is not None:
            response = self._process_request(ws, request)
            if isawaitable(response):
                response = await response
            if isinstance(response, Response):
                told = "connection from %s: process_request answered %r with %d"
                self.logger.debug(told, format_address(ws.remote_address), request, response.status_code)
                return response
            if response is not None:
                raise TypeError(f"process_request must return None or a Response, got {type(response).__name__}")
        if self.closing:
            raise refuse(503, STOPPING)
        upgrade = check_request(request, self._origins)
        subprotocol = self._choose_subprotocol(ws, upgrade.subprotocols)
        extension, compression = self._negotiate(upgrade.extensions)
        head = accept_response(upgrade.key, subprotocol, extension, self._response_headers, server=self._server_header)
        return Accepted(head, subprotocol, compression)

    async def _review(self, ws: Any, request: Request, answer: Accepted | Response) -> Accepted | Response:
        """Let `process_response` see a response, and go on with it, or with the one that it returns."""
        assert self._process_response is not None
        response = answer if isinstance(answer, Response) else Response.from_head(answer.head)
        returned = self._process_response(ws, request, response)
        if isawaitable(returned):
            returned = await returned
        final = response if returned is None else returned
        if not isinstance(final, Response):
            raise TypeError(f"process_response must return None or a Response, got {type(final).__name__}")
        if final.status_code != 101:
            return final
        if isinstance(answer, Response):
            raise ValueError("process_response must not turn a response that refuses into a 101")
        return answer._replace(head=final.serialize())

    def refused(self, exc: HandshakeRefused, peer: Any) -> Response:
        """Tell the log of a refusal, and return the response that tells the client."""
        self.logger.info("connection from %s refused: %s", format_address(peer), exc)
        return exc.response

    def serialize(self, response: Response, request: Request | None) -> bytes:
        """Return the bytes of a response that does not open the connection."""
        with_body = request is None or request.method != "HEAD"
        try:
            return response.serialize(with_body=with_body)
        except ValueError as exc:  # a hook added a header that must not be
            self.logger.error("opening handshake failed: a hook made a response that cannot be sent", exc_info=exc)
            return refuse(500, "The server failed to answer the request").response.serialize(with_body=with_body)


def check_response_headers(headers: Mapping[str, str] | None, server_header: str | None) -> None:
    """Check headers that an application adds to responses.

    Raises:
        ValueError: one is part of the handshake, or has a character that it must not have.
    """
    for name in headers or ():
        if name.lower() in _HANDSHAKE or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"response_headers must not have {name}: it is part of the handshake")
    accept_response("", headers=headers, server=server_header)


def check_server_options(max_connections: object, stop_timeout: object, ssl: object) -> None:
    """Check what a server is told besides its limits; ssl is None or a server's context.

    Raises:
        ValueError, TypeError: one of them is wrong; the text names it.
    """
    if max_connections is not None:
        if not isinstance(max_connections, int) or isinstance(max_connections, bool):
            raise TypeError(f"max_connections must be int or None, got {type(max_connections).__name__}")
        if max_connections < 1:
            raise ValueError(f"max_connections must be positive, got {max_connections}")
    if stop_timeout is not None and (not isinstance(stop_timeout, (int, float)) or not 0 < stop_timeout < inf):
        raise ValueError(f"stop_timeout must be a positive number of seconds or None, got {stop_timeout!r}")
    if ssl is not None:
        if not isinstance(ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext, got {type(ssl).__name__}")
        if ssl.protocol is ssl_module.PROTOCOL_TLS_CLIENT:
            raise ValueError("ssl must be a server's context, got one for clients")


def checked_origins(origins: Origins) -> Origins:
    """Return a copy of what a server allows, if it is of the right types; a `str` would be taken letter by letter."""
    if isinstance(origins, str):
        raise TypeError("origins must be a list of str, compiled patterns and None, got str")
    for allowed in origins:
        if allowed is not None and not isinstance(allowed, (str, re.Pattern)):
            raise TypeError(
                f"origins must be a list of str, compiled patterns and None, got {type(allowed).__name__} in it"
            )
    return tuple(origins)


def handlers_of(handler: Any, subprotocols: Sequence[str] | None) -> dict[str | None, Any]:
    """Return what serves each subprotocol, of what `serve` is given.

    Raises:
        TypeError: `subprotocols` together with a mapping, or as one `str`.
        ValueError: the mapping is empty.
    """
    if isinstance(handler, Mapping):
        if subprotocols is not None:
            raise TypeError("subprotocols goes with a single handler; a mapping has names of its own")
        if not handler:
            raise ValueError("expected a handler for at least one subprotocol, got an empty mapping")
        return dict(handler)
    if isinstance(subprotocols, str):
        raise TypeError("expected subprotocols as a list of strings, got str")
    return dict.fromkeys([None, *(subprotocols or ())], handler)


def tell_end(logger: Any, connection: Connection, peer: Any) -> None:
    """Tell the log how a connection ended, if not as it should: one line, for it is not this program's error."""
    cause = connection.cause or CloseCause.LOST
    if connection.failure is not None:
        logger.info("connection from %s failed: %s", format_address(peer), connection.failure)
    elif cause in _UNTIMELY:
        logger.info("connection from %s: %s", format_address(peer), cause.value)
