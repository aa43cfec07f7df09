"""What the servers of `websockets` do with a request, the same on asyncio, in threads and on trio."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wsfast import handshake
from wsfast.deflate.negotiate import Deflate
from wsfast.escape import show, words
from wsfast.exceptions import HandshakeRefused, NegotiationError

from .dialing import chain, limits
from .extensions.permessage_deflate import enable_server_permessage_deflate, only_deflate
from .headers import validate_subprotocols
from .http11 import Response
from .server import ServerProtocol
from .typing import LoggerLike, Subprotocol

__all__ = ["OneHandler", "Receiving", "Terms"]

_SILENCE = handshake.Response(400)
"""Stands for no answer."""


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
        made_with: what each `ServerProtocol` is made with.
        settings: what each `ServerConnection` is made with besides.
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

    _terms: Terms

    def receive_by(self, terms: Terms) -> dict[str, Any]:
        """Judge requests by what `serve` was told; return the hooks and the logger for wsfast's server."""
        self._terms = terms
        return {
            "origins": terms.origins,
            "process_request": None if terms.process_request is None else self._before,
            "process_response": None if terms.process_response is None else self._after,
            # It is called by `_choose_subprotocol`; here it says that the peer's address is wanted before.
            "select_subprotocol": terms.select_subprotocol,
            "logger": terms.logger,
        }

    def _unreadable(self, exc: HandshakeRefused, peer: Any) -> handshake.Response:
        """Tell the log of a request that cannot be read, and return the answer: none to what is no HTTP at all."""
        if exc.line is None:
            answer: handshake.Response = super()._unreadable(exc, peer)  # type: ignore[misc]
            return answer
        self._tell_no_request(ValueError(f"invalid HTTP request line: {words(exc.line.decode('latin-1'))}"))
        return _SILENCE

    def _serialize(self, response: handshake.Response, request: handshake.Request | None) -> tuple[int, bytes]:
        if response is _SILENCE:
            return 400, b""
        serialized: tuple[int, bytes] = super()._serialize(response, request)  # type: ignore[misc]
        return serialized

    def _tell_early_end(self, peer: Any, request: handshake.Request | None, why: str) -> None:
        super()._tell_early_end(peer, request, why)  # type: ignore[misc]
        self._tell_nothing_came(request)

    def _tell_late(self, peer: Any, request: handshake.Request | None) -> None:
        super()._tell_late(peer, request)  # type: ignore[misc]
        self._tell_nothing_came(request)

    def _tell_nothing_came(self, request: handshake.Request | None) -> None:
        if request is None:
            self._tell_no_request(EOFError("connection closed while reading HTTP request line"))

    def _tell_no_request(self, exc: Exception) -> None:
        self._terms.logger.debug("! no valid HTTP request", exc_info=exc)

    def _tell_failure(self, ws: Any, exc: BaseException) -> None:
        """Tell the log that a handler raised."""
        ws.logger.error("connection handler failed", exc_info=exc)

    def _described(self) -> ServerProtocol:
        return ServerProtocol(**self._terms.made_with)

    def _negotiate(self, ws: Any, offers: Sequence[Any]) -> tuple[str | None, Any]:
        """Choose among the extensions that a client offered."""
        protocol: ServerProtocol = ws.protocol
        if self._terms.compression is not None or not protocol.available_extensions:
            agreed: tuple[str | None, Any] = super()._negotiate(ws, offers)  # type: ignore[misc]
            return agreed
        # There are others than permessage-deflate.
        header, extensions = protocol._choose_extensions(offers)
        if not extensions:
            return None, None
        protocol.extensions = extensions
        return header, chain(extensions, ws.logger)

    def _before(self, ws: Any, request: handshake.Request) -> Any:
        hook = self._terms.process_request
        assert hook is not None
        seen = ws.request.path, list(ws.request.headers.raw_items())

        def then(answer: Response | None) -> handshake.Response | None:
            if answer is not None:
                return answer.native()
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
                ws.response = answer
            made: handshake.Response = ws.response.native()
            return made

        return self._call(ws, "process_response", then, hook, ws.request, ws.response)

    def _call(
        self, ws: Any, name: str, then: Callable[[Any], handshake.Response | None], hook: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a hook, plain or async; what it raises is logged, and answered 500."""

        def failed(exc: Exception) -> handshake.Response:
            ws.protocol.handshake_exc = exc
            ws.logger.error("%s failed", name, exc_info=exc)
            text = "Failed to open a WebSocket connection.\nSee server log for more information.\n"
            return handshake.text_response(500, text)

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
            ws.protocol.handshake_exc = exc
            text = f"Failed to open a WebSocket connection: {exc}.\n"
            raise HandshakeRefused(show(str(exc), 200), handshake.text_response(400, text)) from exc
