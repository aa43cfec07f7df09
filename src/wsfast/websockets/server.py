"""`ServerProtocol`, the server's side sans-IO."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator, Sequence
from email.utils import formatdate
from typing import Any

from wsfast.escape import without_query

from .datastructures import Headers
from .exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
)
from .extensions.base import Extension, ServerExtensionFactory
from .headers import build_extension, check_key, parse_extension, parse_subprotocol
from .http11 import Request, Response, plain_response
from .imports import lazy_import, lend
from .protocol import CONNECTING, OPEN, SERVER, Protocol, State, log_headers
from .typing import ExtensionHeader, LoggerLike, Origin, StatusLike, Subprotocol
from .utils import accept_key

__all__ = ["ServerProtocol"]


class ServerProtocol(Protocol):
    """The server's side of `Protocol`, with the opening handshake.

    Args:
        origins, extensions, subprotocols, max_size, logger: those of `serve`.
        select_subprotocol: called with this protocol and the client's offers; returns the choice, or None.
        state: the state to begin in.
    """

    handshake_exc: Exception | None
    accept_called: bool = False

    def __init__(
        self,
        *,
        origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        select_subprotocol: Callable[[Any, Sequence[Subprotocol]], Subprotocol | None] | None = None,
        state: State = CONNECTING,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(SERVER, state=state, max_size=max_size, logger=logger)
        self.origins = origins
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self._select = select_subprotocol

    def accept(self, request: Request) -> Response:
        """Judge a request, and make the response for `send_response`, which may be changed before.

        Args:
            request: what `events_received` returned.
        """
        self.accept_called = True
        try:
            headers = self.process_request(request)
        except Exception as exc:
            request._exception = self.handshake_exc = exc
            return self._refused(exc)
        lines = [
            ("Date", formatdate(usegmt=True)),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            *zip(_AGREED, headers, strict=True),
        ]
        return Response(
            101, "Switching Protocols", Headers((name, value) for name, value in lines if value is not None)
        )

    def _refused(self, exc: Exception) -> Response:
        kind, status = _REFUSALS[-1]
        for kind, status in _REFUSALS:  # noqa: B007 - both are used behind the loop
            if isinstance(exc, kind):
                break
        if kind is Exception:
            self.logger.error("opening handshake failed", exc_info=exc)
            text = "Failed to open a WebSocket connection.\nSee server log for more information.\n"
            return self.reject(status, text)
        if self.debug:
            self.logger.debug("! %s", " ".join(re.findall("[A-Z][a-z]+", kind.__name__)).lower(), exc_info=exc)
        told, cause = str(exc), exc.__cause__
        while kind is InvalidHandshake and cause is not None:
            told, cause = f"{told}; {cause}", cause.__cause__
        text = f"Failed to open a WebSocket connection: {told}.\n"
        if kind is InvalidUpgrade:
            text += "\nYou cannot access a WebSocket server directly with a browser. You need a WebSocket client.\n"
        response = self.reject(status, text)
        if kind is InvalidMethod:
            response.headers["Allow"] = "GET"
        elif kind is InvalidUpgrade:
            response.headers["Upgrade"] = "websocket"
        return response

    def process_request(self, request: Request) -> tuple[str, str | None, str | None]:
        """Judge a request (RFC 6455, 4.2.1), and note what is agreed on.

        Returns:
            The values of Sec-WebSocket-Accept, Sec-WebSocket-Extensions and Sec-WebSocket-Protocol.

        Raises:
            InvalidHandshake: it is not acceptable.
        """
        if request.method != "GET":
            raise InvalidMethod(request.method)
        if request.protocol != "HTTP/1.1":
            raise InvalidProtocol(request.protocol)
        headers = request.headers
        key = check_key(headers)
        self.origin = self.process_origin(headers)
        extensions, self.extensions = self.process_extensions(headers)
        subprotocol = self.subprotocol = self.process_subprotocol(headers)
        return accept_key(key), extensions, subprotocol

    def process_origin(self, headers: Headers) -> Origin | None:
        """Return the client's origin.

        Raises:
            InvalidHeader: there are several.
            InvalidOrigin: it is not one of `origins`.
        """
        values = headers.get_all("Origin")
        if len(values) > 1:
            raise InvalidHeader("Origin", "multiple values")
        origin = Origin(values[0]) if values else None
        for allowed in self.origins or ():
            if isinstance(allowed, re.Pattern):
                if origin is not None and allowed.fullmatch(origin) is not None:
                    return origin
            elif allowed == origin:
                return origin
        if self.origins is not None:
            raise InvalidOrigin(origin)
        return origin

    def process_extensions(self, headers: Headers) -> tuple[str | None, list[Extension]]:
        """Choose among the extensions that the client offers.

        Returns:
            The value of Sec-WebSocket-Extensions, and the extensions.
        """
        values = headers.get_all("Sec-WebSocket-Extensions") if self.available_extensions else []
        return self._choose_extensions([item for value in values for item in parse_extension(value)])

    def _choose_extensions(self, offers: Sequence[ExtensionHeader]) -> tuple[str | None, list[Extension]]:
        answers: list[ExtensionHeader] = []
        accepted: list[Extension] = []
        for name, params in offers:
            for factory in self.available_extensions or ():
                if factory.name == name:
                    try:
                        answer, extension = factory.process_request_params(params, accepted)
                    except NegotiationError:
                        continue  # it may be offered, or taken, in other ways too
                    answers.append((name, answer))
                    accepted.append(extension)
                    break
        return build_extension(answers) if answers else None, accepted

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Choose among the subprotocols that the client offers.

        Raises:
            NegotiationError: none is acceptable.
        """
        values = headers.get_all("Sec-WebSocket-Protocol")
        return self.select_subprotocol([name for value in values for name in parse_subprotocol(value)])

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Choose by this side's preference, or as the argument of this name does.

        Args:
            subprotocols: the client's offers.

        Raises:
            NegotiationError: none is acceptable.
        """
        if self._select is not None:
            return self._select(self, subprotocols)
        if not self.available_subprotocols:
            return None
        if not subprotocols:
            raise NegotiationError("missing subprotocol")
        for name in self.available_subprotocols:
            if name in subprotocols:
                return name
        raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(self.available_subprotocols)}")

    def reject(self, status: StatusLike, text: str) -> Response:
        """Make a response of plain text that refuses a request, for `send_response`.

        Args:
            status: the status code.
            text: the body.
        """
        return plain_response(status, text)

    def send_response(self, response: Response) -> None:
        """Send a response; the connection is open with 101, and ends with any other status."""
        if self.debug:
            self.logger.debug("> HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
            log_headers(self.logger, ">", response.headers)
            if response.body:
                self.logger.debug("> [body] (%d bytes)", len(response.body))
        self.writes.append(response.serialize())
        if response.status_code == 101:
            assert self.state is CONNECTING
            self.state = OPEN
            self.logger.info("connection open")
            return
        told = "connection rejected (%d %s)" if self.accept_called else "HTTP response sent (%d %s)"
        self.logger.info(told, response.status_code, response.reason_phrase)
        self.send_eof()
        self._begin_discard()

    def parse(self) -> Generator[None]:
        """Read the request, then frames."""
        if self.state is CONNECTING:
            try:
                request = yield from Request.parse(self.reader.read_line)
            except SecurityError as exc:
                self.handshake_exc = exc
                line = isinstance(exc, RequestLineTooLong)
                if self.debug:
                    self.logger.debug("! %s too long", "request line" if line else "header", exc_info=exc)
                text = f"Failed to open a WebSocket connection: {exc}.\n"
                self.send_response(self.reject(414 if line else 431, text))
                yield
                return
            except Exception as exc:
                self.handshake_exc = InvalidMessage("did not receive a valid HTTP request")
                self.handshake_exc.__cause__ = exc
                if self.debug:
                    self.logger.debug("! no valid HTTP request", exc_info=exc)
                self.send_eof()
                self._begin_discard()
                yield
                return
            if self.debug:
                self.logger.debug("< %s %s %s", request.method, without_query(request.path), request.protocol)
                log_headers(self.logger, "<", request.headers)
            self.events.append(request)
        yield from super().parse()


_AGREED = ("Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol")
_REFUSALS: tuple[tuple[type[Exception], int], ...] = (
    (InvalidOrigin, 403),
    (InvalidMethod, 405),
    (InvalidProtocol, 505),
    (InvalidUpgrade, 426),
    (InvalidHandshake, 400),
    (Exception, 500),
)


class ServerConnection(ServerProtocol):
    """Deprecated: `ServerProtocol`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn("ServerConnection was renamed to ServerProtocol", DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


lazy_import(
    globals(),
    deprecated_aliases={
        "WebSocketServer": ".legacy.server",
        "WebSocketServerProtocol": ".legacy.server",
        "broadcast": ".legacy.server",
        "serve": ".legacy.server",
        "unix_serve": ".legacy.server",
    },
)

lend(globals())
