"""The opening handshakes and redirects of clients on asyncio, in threads and on trio."""

from __future__ import annotations

import logging
import ssl as ssl_module
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Protocol

from .._version import __version__
from ..deflate.context import PerMessageDeflate
from ..deflate.negotiate import EXTENSION, Deflate, confirm, offer
from ..exceptions import InvalidHandshake, InvalidStatus, NegotiationError, RedirectError
from ..extensions import RSV1, Chain, ClientExtensionFactory
from ..extensions import confirm as confirm_extensions
from ..handshake import URI, Agreement, ClientHandshake, HeadLimits, Request, Response, parse_uri
from ..limits import LimitOptions, take_limits
from ..options import check_values
from .redirect import REDIRECTS, hop, origin_of, resolve, shown
from .route import Route

if TYPE_CHECKING:
    from socket import socket

    from ..session import Limits as SessionLimits

__all__ = [
    "BODY_PATIENCE",
    "USER_AGENT",
    "ClientOptions",
    "ClientSettings",
    "HandshakeOptions",
    "Hops",
    "Limits",
    "part_settings",
]

USER_AGENT: Final = f"Python/{sys.version_info[0]}.{sys.version_info[1]} wsfast/{__version__}"
"""The default value of User-Agent."""
BODY_PATIENCE: Final = 2.0
"""Seconds to wait for the body of a refusal; after that, the error shows the part that came."""


class HandshakeOptions(LimitOptions, total=False):
    """The options of every client for the opening handshake, for type checkers; `wsfast.connect` documents them."""

    origin: str | None
    extensions: Sequence[ClientExtensionFactory] | None
    subprotocols: Sequence[str] | None
    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
    user_agent_header: str | None
    bearer_token: str | None
    proxy: str | bool | None
    max_redirects: int
    process_response: Callable[[Request, Response], object] | None
    logger: logging.Logger | logging.LoggerAdapter[Any] | None


class ClientOptions(HandshakeOptions, total=False):
    """Further options of the clients in threads and on trio, for type checkers."""

    sock: socket | None
    ssl: ssl_module.SSLContext | bool | None
    server_hostname: str | None
    proxy_ssl: ssl_module.SSLContext | bool | None
    proxy_server_hostname: str | None
    host: str | None
    port: int | None
    unix: bool


class Limits(Protocol):
    """The limits of a connection that matter before it is open."""

    @property
    def open_timeout(self) -> float | None: ...

    @property
    def close_timeout(self) -> float | None: ...

    @property
    def compression(self) -> Deflate | None: ...

    @property
    def extensions(self) -> tuple[Any, ...] | None: ...


class ClientSettings:
    """The settings that clients on asyncio and without an event loop share, checked before they connect.

    Args:
        uri, origin, subprotocols, additional_headers, user_agent_header, bearer_token, proxy, max_redirects,
        process_response, logger, options: those of `wsfast.connect`.
        limits: of the connections.
        head_limits: of the response.
        route: called to make the `Route` from the proxy, the user agent, the limits and the options.

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError: one of them is wrong.
    """

    def __init__(
        self,
        uri: str,
        limits: Limits,
        head_limits: HeadLimits,
        route: type[Route],
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        user_agent_header: str | None = USER_AGENT,
        bearer_token: str | None = None,
        proxy: str | bool | None = True,
        max_redirects: int = 10,
        process_response: Callable[[Request, Response], object] | None = None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        options: Mapping[str, Any],
    ) -> None:
        self.uri = uri
        texts = {"origin": origin, "user_agent_header": user_agent_header, "bearer_token": bearer_token}
        check_values({**texts, "logger": logger, **options})
        if not isinstance(max_redirects, int) or max_redirects < 0:
            raise ValueError(f"max_redirects must be an int of at least 0, got {max_redirects!r}")
        if process_response is not None and (not callable(process_response) or iscoroutinefunction(process_response)):
            raise TypeError(f"process_response must be a plain function, got {process_response!r}")
        self._max_redirects = max_redirects
        self._process_response = process_response
        self._head_limits = head_limits
        self._compression = limits.compression
        self._extensions = limits.extensions or ()
        self._parsed = parse_uri(uri)
        self._headers = None if additional_headers is None else _pairs(additional_headers)
        self._bearer_token = bearer_token
        self._origin = origin
        # A `str` is kept for the handshake to refuse; no subprotocols are the same as none.
        if subprotocols is not None and not isinstance(subprotocols, Iterable):
            raise TypeError(f"expected subprotocols as a list of strings, got {type(subprotocols).__name__}")
        self._subprotocols = subprotocols if isinstance(subprotocols, str) else tuple(subprotocols or ()) or None
        self._user_agent = user_agent_header
        self._logger: Any = logging.getLogger("wsfast.client") if logger is None else logger
        self._dialer = route(
            proxy, user_agent_header, limits.open_timeout, limits.close_timeout, dict(options), head_limits=head_limits
        )
        self._dialer.check(self._parsed)
        # Wrong headers, subprotocols or credentials are the caller's mistake: raise here. This handshake serves for the
        # first attempt to connect; each further one draws a key of its own (RFC 6455, 4.1, item 7).
        self._prepared: ClientHandshake | None = None
        self._prepared = self._handshake(self._parsed, self._headers, self._bearer_token)

    def _handshake(self, uri: URI, headers: list[tuple[str, str]] | None, bearer_token: str | None) -> ClientHandshake:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and (uri, headers, bearer_token) == (self._parsed, self._headers, self._bearer_token):
            return prepared
        return ClientHandshake(
            uri,
            origin=self._origin,
            subprotocols=self._subprotocols,
            extensions=self._offer(),
            user_agent_header=self._user_agent,
            additional_headers=headers,
            bearer_token=bearer_token,
        )

    def _offer(self) -> Any:
        """Return the extensions to offer; a subclass may offer others."""
        own = [(factory.name, list(factory.get_request_params())) for factory in self._extensions]
        return [*offer(self._compression), *own]

    def _confirm(self, chosen: Sequence[Any]) -> PerMessageDeflate | Chain | None:
        """Judge the extensions that the server chose."""
        if not self._extensions:
            return confirm(self._compression, chosen)
        packed = [item for item in chosen if item[0] == EXTENSION]
        compression = confirm(self._compression, packed)
        own = [item for item in chosen if item[0] != EXTENSION]
        if not own:
            return compression
        if packed and chosen[0] is not packed[0]:
            # RFC 6455, 9.1: it says in which order the extensions work, and this one compresses whole messages.
            raise NegotiationError(f"server chose {EXTENSION} behind another extension, expected it first")
        return Chain(confirm_extensions(self._extensions, own, RSV1 if packed else 0), compression)

    def _judge(
        self, handshake: ClientHandshake, response: Response
    ) -> tuple[Agreement, PerMessageDeflate | Chain | None]:
        """Judge a response (RFC 6455, 4.1); each exception has it as its `response`.

        Raises:
            InvalidHandshake: the response does not open the connection.
            Exception: what `process_response` raises.
        """
        if self._process_response is not None:
            self._process_response(handshake.request, response)
        agreement = handshake.check_response(response)
        try:
            return agreement, self._confirm(agreement.extensions)
        except InvalidHandshake as exc:
            exc.response = response
            raise

    def _redirected(self, uri: URI, exc: InvalidStatus, followed: int) -> URI | None:
        """Return where a response sends to, None if it does not redirect.

        Raises:
            RedirectError: it redirects to where the client must not go.
        """
        response = exc.response
        locations = response.headers.getall("Location", [])
        if response.status_code not in REDIRECTS or not locations or not self._max_redirects:
            return None
        try:
            if len(locations) > 1:
                raise RedirectError(f"expected one Location header, got {len(locations)}")
            target = resolve(uri, locations[0])
            where = shown(target)
            if followed == self._max_redirects:
                raise RedirectError(f"expected at most {self._max_redirects} redirects, got another to {where}")
            if uri.secure and not target.secure:
                raise RedirectError(f"a redirect from wss to ws is not followed, to {where}")
            fixed = self._dialer.fixed
            if self._dialer.one_time or (fixed is not None and origin_of(target) != origin_of(uri)):
                raise RedirectError(f"a redirect cannot be followed where {fixed} is given, to {where}")
        except RedirectError as error:
            error.response = response
            raise error from exc
        return target


class Hops:
    """The opening handshakes of one attempt to connect: with the server that was asked for, then where it redirects to.

    Args:
        settings: of the client.

    Attributes:
        uri: where to connect to now.
    """

    __slots__ = ("_bearer_token", "_followed", "_headers", "_settings", "uri")

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._headers = settings._headers
        self._bearer_token = settings._bearer_token
        self._followed = 0
        self.uri: URI = settings._parsed

    def handshake(self) -> ClientHandshake:
        """Make the opening handshake with `uri`; only once for each."""
        return self._settings._handshake(self.uri, self._headers, self._bearer_token)

    def follow(self, exc: InvalidStatus) -> bool:
        """Go on to where a response redirects to; False if it does not.

        Args:
            exc: the error that the response was judged to be.

        Raises:
            RedirectError: it redirects to where the client must not go.
        """
        target = self._settings._redirected(self.uri, exc, self._followed)
        if target is None:
            return False
        self.uri, self._headers, self._bearer_token = hop(self.uri, target, self._headers, self._bearer_token)
        self._followed += 1
        return True


_SETTINGS: Final = frozenset(ClientSettings.__init__.__kwdefaults__ or ())


def part_settings(given: Mapping[str, Any]) -> tuple[SessionLimits, HeadLimits, dict[str, Any]]:
    """Split the options of a client into limits of connections, limits of heads, and arguments of `ClientSettings`.

    Raises:
        ValueError, TypeError: a limit is out of range, or of another type; the text names it.
    """
    limits, head_limits, rest = take_limits(given)
    settings = {name: value for name, value in rest.items() if name in _SETTINGS}
    way = {name: value for name, value in rest.items() if name not in settings}
    return limits, head_limits, {**settings, "options": way}


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    if not isinstance(headers, Iterable):
        raise TypeError("additional_headers must be a mapping, or pairs of a name and a value")
    # `items` of a multidict has a repeated header once for each value.
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise TypeError("additional_headers must be a mapping, or pairs of a name and a value")
    return [(name, value) for name, value in pairs]
