"""`ClientProtocol`, the client's side sans-IO, and how connecting again is paced."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Generator, Sequence
from typing import Any

from wsfast.escape import without_query

from .datastructures import Headers
from .exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidStatus,
    NegotiationError,
    StatusLineTooLong,
)
from .extensions.base import ClientExtensionFactory, Extension
from .headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    check_upgrade,
    one_value,
    parse_extension,
    parse_subprotocol,
)
from .http11 import Request, Response
from .imports import lazy_import, lend
from .protocol import CLIENT, CONNECTING, OPEN, Protocol, State, log_headers
from .typing import ExtensionHeader, LoggerLike, Origin, Subprotocol
from .uri import WebSocketURI
from .utils import accept_key, generate_key

__all__ = ["ClientProtocol"]


class ClientProtocol(Protocol):
    """The client's side of `Protocol`, with the opening handshake.

    Args:
        uri: where it connects to.
        origin, extensions, subprotocols, max_size, logger: those of `connect`.
        state: the state to begin in.
    """

    handshake_exc: Exception | None

    _key: str | None = None

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        state: State = CONNECTING,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(CLIENT, state=state, max_size=max_size, logger=logger)
        self.uri = uri
        self.origin = origin
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols

    @property
    def key(self) -> str:
        """The value of Sec-WebSocket-Key."""
        if self._key is None:
            self._key = generate_key()
        return self._key

    @key.setter
    def key(self, key: str) -> None:
        self._key = key

    def connect(self) -> Request:
        """Make the request of the opening handshake, for `send_request`; headers may be added to it."""
        uri = self.uri
        headers = Headers()
        headers["Host"] = build_host(uri.host, uri.port, uri.secure)
        if uri.user_info:
            headers["Authorization"] = build_authorization_basic(*uri.user_info)
        if self.origin is not None:
            headers["Origin"] = self.origin
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Key"] = self.key
        headers["Sec-WebSocket-Version"] = "13"
        if self.available_extensions is not None:
            offers = [(one.name, one.get_request_params()) for one in self.available_extensions]
            headers["Sec-WebSocket-Extensions"] = build_extension(offers)
        if self.available_subprotocols is not None:
            headers["Sec-WebSocket-Protocol"] = build_subprotocol(self.available_subprotocols)
        return Request(uri.resource_name, headers)

    def send_request(self, request: Request) -> None:
        """Send the request."""
        if self.debug:
            self.logger.debug("> GET %s HTTP/1.1", without_query(request.path))
            log_headers(self.logger, ">", request.headers)
        self.writes.append(request.serialize())

    def process_response(self, response: Response) -> None:
        """Judge the response (RFC 6455, 4.1), and note what was agreed on.

        Raises:
            InvalidHandshake: it is not the right one.
        """
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        check_upgrade(headers)
        accept = one_value(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self.key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)
        self.extensions = self.process_extensions(headers)
        self.subprotocol = self.process_subprotocol(headers)

    def process_extensions(self, headers: Headers) -> list[Extension]:
        """Return the extensions that the server has chosen.

        Raises:
            NegotiationError: one was not offered, or not with these parameters.
        """
        values = headers.get_all("Sec-WebSocket-Extensions")
        if values and self.available_extensions is None:
            raise NegotiationError("no extensions supported")
        return self._confirm_extensions([item for value in values for item in parse_extension(value)])

    def _confirm_extensions(self, chosen: Sequence[ExtensionHeader]) -> list[Extension]:
        accepted: list[Extension] = []
        for name, params in chosen:
            for factory in self.available_extensions or ():
                if factory.name == name:
                    try:
                        accepted.append(factory.process_response_params(params, accepted))
                    except NegotiationError:
                        continue  # the same extension may have been offered in other ways too
                    break
            else:
                raise NegotiationError(f"Unsupported extension: name = {name}, params = {params}")
        return accepted

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Return the subprotocol that the server has chosen.

        Raises:
            InvalidHeader: it has chosen several.
            NegotiationError: it was not offered.
        """
        values = headers.get_all("Sec-WebSocket-Protocol")
        if not values:
            return None
        if self.available_subprotocols is None:
            raise NegotiationError("no subprotocols supported")
        names = [name for value in values for name in parse_subprotocol(value)]
        if len(names) > 1:
            raise InvalidHeader("Sec-WebSocket-Protocol", f"multiple values: {', '.join(names)}")
        if names[0] not in self.available_subprotocols:
            raise NegotiationError(f"unsupported subprotocol: {names[0]}")
        return names[0]

    def parse(self) -> Generator[None]:
        """Read the response, then frames."""
        if self.state is CONNECTING:
            try:
                response = yield from Response.parse(
                    self.reader.read_line, self.reader.read_exact, self.reader.read_to_eof
                )
            except Exception as exc:
                self.handshake_exc = exc
                if not isinstance(exc, StatusLineTooLong):
                    self.handshake_exc = InvalidMessage("did not receive a valid HTTP response")
                    self.handshake_exc.__cause__ = exc
                self._end_handshake()
                yield
                return
            if self.debug:
                self.logger.debug("< HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
                log_headers(self.logger, "<", response.headers)
                if response.body:
                    self.logger.debug("< [body] (%d bytes)", len(response.body))
            try:
                self.process_response(response)
            except InvalidHandshake as exc:
                response._exception = self.handshake_exc = exc
                self.events.append(response)
                self._end_handshake()
                yield
                return
            self.state = OPEN
            self.events.append(response)
        yield from super().parse()

    def _end_handshake(self) -> None:
        self.send_eof()
        self._begin_discard()


class ClientConnection(ClientProtocol):
    """Deprecated: `ClientProtocol`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn("ClientConnection was renamed to ClientProtocol", DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


BACKOFF_INITIAL_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_INITIAL_DELAY", "5"))
BACKOFF_MIN_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_MIN_DELAY", "3.1"))
BACKOFF_MAX_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_MAX_DELAY", "90.0"))
BACKOFF_FACTOR = float(os.environ.get("WEBSOCKETS_BACKOFF_FACTOR", "1.618"))


def backoff(
    initial_delay: float = BACKOFF_INITIAL_DELAY,
    min_delay: float = BACKOFF_MIN_DELAY,
    max_delay: float = BACKOFF_MAX_DELAY,
    factor: float = BACKOFF_FACTOR,
) -> Generator[float]:
    """Yield the seconds between attempts to connect: a random one at first, then growing up to `max_delay`."""
    yield random.random() * initial_delay
    delay = min_delay
    while delay < max_delay:
        yield delay
        delay *= factor
    while True:
        yield max_delay


def process_exception(exc: Exception) -> Exception | None:
    """Return None for what `async for` shall connect again after, else the exception to raise.

    Network errors, a server that ends the connection within the opening handshake, and the statuses 500, 502, 503 and
    504 are worth another try.
    """
    if isinstance(exc, OSError | TimeoutError):
        return None
    if isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError):
        return None
    if isinstance(exc, InvalidStatus) and exc.response.status_code in (500, 502, 503, 504):
        return None
    return exc


lazy_import(
    globals(),
    deprecated_aliases={
        "WebSocketClientProtocol": ".legacy.client",
        "connect": ".legacy.client",
        "unix_connect": ".legacy.client",
    },
)

lend(globals())
