"""What the servers of `websockets` do with a request, the same on asyncio, in threads and on trio."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from wsfast import handshake
from wsfast.deflate.negotiate import Deflate
from wsfast.escape import show, without_query, words
from wsfast.exceptions import HandshakeRefused, NegotiationError
from wsfast.handshake.uri import format_address
from wsfast.serving import Accepted

from ..telling import tell
from .datastructures import Headers
from .dialing import Shown, chain, limits
from .extensions.permessage_deflate import enable_server_permessage_deflate, native, only_deflate
from .headers import validate_subprotocols
from .http11 import Request, Response, plain_response
from .protocol import log_headers
from .server import ServerProtocol
from .typing import LoggerLike, Subprotocol

__all__ = ["OneHandler", "Receiving", "Terms", "within_block"]

_SILENCE = handshake.Response(400)
"""Stands for no answer."""
_SEE_LOG = "Failed to open a WebSocket connection.\nSee server log for more information.\n"


class OneHandler(dict[str | None, Any]):
    """The handler of every subprotocol: in `websockets` the subprotocol does not choose it.

    Args:
        handler: the one.
    """

    def __init__(self, handler: Any) -> None:
        super().__init__({None: handler})

    def __missing__(self, name: str | None) -> Any:
        return self[None]


class Terms:
    """What `serve` was told of its connections.

    Args:
        origins, extensions, subprotocols, select_subprotocol, compression, process_request, process_response,
            ping_interval, ping_timeout, close_timeout, max_size, logger: those of `serve`.
        sizes: `max_queue`, and `write_limit` where there is one.

    Attributes:
        logger: where the server logs to.
        made_with: the arguments of each `ServerProtocol`.
        settings: further arguments of each `ServerConnection`.
        limits: those of wsfast, with `compression` and `origins`.

    Raises:
        ValueError, TypeError: an argument is wrong.
    """

    def __init__(
        self,
        *,
        origins: Any,
        extensions: Sequence[Any] | None,
        subprotocols: Sequence[Subprotocol] | None,
        select_subprotocol: Callable[..., Any] | None,
        compression: str | None,
        process_request: Callable[..., Any] | None,
        process_response: Callable[..., Any] | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        close_timeout: float | None,
        max_size: int | tuple[int | None, int | None] | None,
        logger: LoggerLike | None,
        **sizes: Any,
    ) -> None:
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        if compression == "deflate":
            extensions = enable_server_permessage_deflate(extensions)
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        times: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
        }
        self.process_request = process_request
        self.process_response = process_response
        self.select_subprotocol = select_subprotocol
        self.subprotocols: Sequence[Subprotocol] = subprotocols or ()
        self.logger: Any = logging.getLogger("websockets.server") if logger is None else logger
        self.made_with: dict[str, Any] = {
            "origins": origins,
            "extensions": extensions,
            "subprotocols": subprotocols,
            "max_size": max_size,
            "logger": self.logger,
        }
        self.settings: dict[str, Any] = {**times, **sizes}
        self.limits: dict[str, Any] = limits(max_size=max_size, **sizes, **times)
        self.origins = origins
        self.compression: Deflate | None = only_deflate(extensions)


class Receiving:
    """How a server of `websockets` judges requests; a class puts it in front of wsfast's own server."""

    _tells_closed = True
    _terms: Terms
    server_header: str | None

    def receive_by(self, terms: Terms) -> dict[str, Any]:
        """Judge requests by the arguments of `serve`; return the hooks and the logger for wsfast's server."""
        self._terms = terms
        self._request_made_with = {name: value for name, value in terms.made_with.items() if name != "subprotocols"}
        return {
            "origins": terms.origins,
            "process_request": None if terms.process_request is None else self._before,
            "process_response": None if terms.process_response is None else self._after,
            # It is called by `_choose_subprotocol`; here it says that the peer's address is wanted before.
            "select_subprotocol": terms.select_subprotocol,
            "logger": terms.logger,
        }

    # --- What the log is told: websockets' lines, and no others at INFO

    def _tell_listening(self, address: Any) -> None:
        tell(self._terms.logger.info, "server listening on %s", format_address(address))

    def _tell_end(self, connection: Any, ws: Any) -> None:
        self._info(ws, "connection closed")

    def _tell_open(self, ws: Any) -> None:
        self._info(ws, "connection open")

    def _info(self, ws: Any, told: str, *args: Any) -> None:
        if self._terms.logger.isEnabledFor(logging.INFO):  # else a connection need not make its logger
            tell(ws.logger.info, told, *args)

    def _tell_early_end(self, peer: Any, request: handshake.Request | None, why: str, set_up: bool) -> None:
        super()._tell_early_end(peer, request, why, set_up)  # type: ignore[misc]
        if set_up:  # else there was no connection yet, for websockets
            self._tell_nothing_came(request)

    def _tell_late(self, peer: Any, request: handshake.Request | None, set_up: bool) -> None:
        if set_up:
            self._tell_nothing_came(request)

    def _tell_nothing_came(self, request: handshake.Request | None) -> None:
        if request is None:
            self._tell_no_request(EOFError("connection closed while reading HTTP request line"))
        else:
            tell(self._terms.logger.info, "connection closed")

    def _tell_no_request(self, exc: Exception) -> None:
        tell(self._terms.logger.debug, "! no valid HTTP request", exc_info=exc)
        tell(self._terms.logger.info, "connection closed")

    def _tell_failure(self, ws: Any, exc: BaseException) -> None:
        tell(ws.logger.error, "connection handler failed", exc_info=exc)

    # --- The answer to a request

    def _answer(self, ws: Any, request: handshake.Request, peer: Any, refused: Any = None) -> Any:
        self._tell_request(ws, request)
        answer = yield from super()._answer(ws, request, peer, refused)  # type: ignore[misc]
        return self._tell_refused(ws, answer)

    def _answer_at_once(self, ws: Any, request: handshake.Request, peer: Any) -> Any:
        self._tell_request(ws, request)
        return self._tell_refused(ws, super()._answer_at_once(ws, request, peer))  # type: ignore[misc]

    def _tell_request(self, ws: Any, request: handshake.Request) -> None:
        if ws.protocol.debug:
            tell(ws.logger.debug, "< %s %s HTTP/1.1", request.method, without_query(request.path))
            log_headers(ws.logger, "<", ws.request.headers)

    def _tell_refused(self, ws: Any, answer: Any) -> Any:
        """Tell the log of an answer that refuses, and return it."""
        if ws.protocol.debug:
            response = answer if isinstance(answer, handshake.Response) else handshake.Response.from_head(answer.head)
            tell(ws.logger.debug, "> HTTP/1.1 %d %s", response.status_code, words(response.reason_phrase))
            log_headers(ws.logger, ">", Headers(response.headers.items()))
            if response.status_code == 101:
                tell(ws.logger.debug, "= connection is OPEN")
        if isinstance(answer, handshake.Response):
            told = "connection rejected (%d %s)" if ws.protocol.accept_called else "HTTP response sent (%d %s)"
            self._info(ws, told, answer.status_code, words(answer.reason_phrase))
            self._info(ws, "connection closed")
        return answer

    def _accept(self, ws: Any, request: handshake.Request) -> Accepted:
        """Judge a request; where it is refused, by websockets' status, headers and text."""
        ws.protocol.accept_called = True
        try:
            accepted: Accepted = super()._accept(ws, request)  # type: ignore[misc]
        except HandshakeRefused as exc:
            if self._terms.logger.isEnabledFor(logging.DEBUG):
                tell(ws.logger.debug, "! %s", exc)
            raise HandshakeRefused(str(exc), self._refusal(ws, request, exc)) from exc
        return accepted._replace(head=_dated(accepted.head))

    def _refusal(self, ws: Any, request: handshake.Request, exc: HandshakeRefused) -> handshake.Response:
        if exc.response.status_code == 503:
            text = "Server is shutting down.\n"
            return self._served_by(ws.protocol.reject(503, text)).native()
        if isinstance(exc.__cause__, NegotiationError):
            cause = exc.__cause__  # by `_choose_subprotocol`, which has asked the program
            ws.protocol.handshake_exc = cause
            return self._served_by(ws.protocol._refused(cause)).native()
        judge = ServerProtocol(**self._request_made_with)
        judge.debug = False
        answer = judge.accept(Request.of(request))
        if answer.status_code == 101:  # wsfast is stricter
            ws.protocol.handshake_exc = exc
            told = exc.response.body.decode("utf-8", "replace").strip().rstrip(".")
            text = f"Failed to open a WebSocket connection: {told}.\n"
            answer = ws.protocol.reject(exc.response.status_code, text)
        else:
            ws.protocol.handshake_exc = judge.handshake_exc
        return self._served_by(answer).native()

    def _served_by(self, response: Response) -> Response:
        if self.server_header is not None:
            response.headers["Server"] = self.server_header
        return response

    def _refused(self, exc: HandshakeRefused, peer: Any) -> handshake.Response:
        """Return the answer to a request that is refused; what the log is told, `_told` tells."""
        return exc.response

    def _unreadable(self, exc: HandshakeRefused, peer: Any) -> handshake.Response:
        """Tell the log of a request that cannot be read, and return the answer: none to what is no HTTP at all."""
        if exc.line is None:
            tell(self._terms.logger.debug, "! %s", exc)
            tell(self._terms.logger.info, "HTTP response sent (%d)", exc.response.status_code)
            tell(self._terms.logger.info, "connection closed")
            return exc.response
        self._tell_no_request(ValueError(f"invalid HTTP request line: {words(exc.line.decode('latin-1'))}"))
        return _SILENCE

    def _failed(self, exc: BaseException) -> handshake.Response:
        tell(self._terms.logger.error, "opening handshake failed", exc_info=exc)
        return self._served_by(plain_response(500, _SEE_LOG)).native()

    def _response_anew(self, request: handshake.Request, subprotocol: str | None) -> handshake.Response:
        made: handshake.Response = super()._response_anew(request, subprotocol)  # type: ignore[misc]
        return handshake.Response.from_head(_dated(made.serialize()))

    def _serialize(self, response: handshake.Response, request: handshake.Request | None) -> tuple[int, bytes]:
        if response is _SILENCE:
            return 400, b""
        serialized: tuple[int, bytes] = super()._serialize(response, request)  # type: ignore[misc]
        return serialized

    def _described(self) -> ServerProtocol:
        return ServerProtocol(**self._terms.made_with)

    def _negotiate(self, ws: Any, offers: Sequence[Any]) -> tuple[str | None, Any]:
        """Choose among the extensions that a client offered; `ws` is None where it is done again, for the response."""
        protocol: ServerProtocol = self._described() if ws is None else ws.protocol
        header, extensions = protocol._choose_extensions(offers)
        if not protocol.debug and self._terms.compression is not None:
            return header, native(self._terms.compression, extensions)
        # There are others than permessage-deflate, or each frame is to be told.
        if not extensions and not protocol.debug:
            return None, None
        protocol.extensions = extensions
        return header, chain(extensions, ws.logger, Shown(protocol, None) if protocol.debug else None)

    def _before(self, ws: Any, request: handshake.Request) -> Any:
        hook = self._terms.process_request
        assert hook is not None
        seen = ws.request.path, list(ws.request.headers.raw_items())

        def then(answer: Response | None) -> handshake.Response | None:
            if answer is not None:
                return self._served_by(_checked(answer, "process_request")).native()
            now = ws.request.path, list(ws.request.headers.raw_items())
            if now != seen:
                request.rewrite(*now)
            return None

        return self._call(ws, "process_request", then, hook, ws.request)

    def _after(self, ws: Any, request: handshake.Request, response: handshake.Response) -> Any:
        hook = self._terms.process_response
        assert hook is not None
        ws.response = Response.of(response)

        def then(answer: Response | None) -> handshake.Response:
            if answer is not None:
                ws.response = _checked(answer, "process_response")
            made: handshake.Response = ws.response.native()
            return made

        return self._call(ws, "process_response", then, hook, ws.request, ws.response)

    def _call(
        self, ws: Any, name: str, then: Callable[[Any], handshake.Response | None], hook: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a hook, plain or async; what it raises is logged, and answered 500."""

        def failed(exc: Exception) -> handshake.Response:
            ws.protocol.handshake_exc = exc
            tell(ws.logger.error, "%s failed", name, exc_info=exc)
            answer = plain_response(500, _SEE_LOG)
            return (self._served_by(answer) if name == "process_request" else answer).native()

        async def later(answer: Awaitable[Any]) -> Any:
            try:
                return then(await answer)
            except Exception as exc:
                return failed(exc)

        try:
            answer = hook(ws, *args)
            if isinstance(answer, Awaitable):
                return later(answer)
            return then(answer)
        except Exception as exc:
            return failed(exc)

    def _choose_subprotocol(self, ws: Any, offers: Sequence[str]) -> str | None:
        """Choose among a client's offers by the server's preference, or by `select_subprotocol`."""
        available = self._terms.subprotocols
        select = self._terms.select_subprotocol
        try:
            if select is not None:
                chosen: str | None = select(ws, [Subprotocol(name) for name in offers])
                return chosen
            if not available:
                return None
            if not offers:
                raise NegotiationError("missing subprotocol")
            for name in available:
                if name in offers:
                    return name
            raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(available)}")
        except NegotiationError as exc:
            raise HandshakeRefused(show(str(exc), 200), handshake.Response(400)) from exc


def within_block(handler: Callable[[Any], Awaitable[object]]) -> Callable[[Any], Awaitable[object]]:
    """Make a handler run in its connection's ``async with`` block, for a class of a program's own that overrides it."""

    async def run(ws: Any) -> None:
        async with ws:
            await handler(ws)

    return run


def _checked(answer: object, hook: str) -> Response:
    if not isinstance(answer, Response):
        raise TypeError(f"{hook} must return a Response or None, got {type(answer).__name__}")
    return answer


def _dated(head: bytes) -> bytes:
    """Put the header Date behind the first line of a response."""
    line, rest = head.split(b"\r\n", 1)
    return b"%s\r\n%s\r\n%s" % (line, _date_line(int(time.monotonic())), rest)


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return b"Date: " + formatdate(usegmt=True).encode()
