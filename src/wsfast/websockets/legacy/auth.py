"""`basic_auth_protocol_factory`: HTTP Basic authentication, as the old implementation has it."""

from __future__ import annotations

import functools
import http
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from wsfast.server.auth import checker

from ..datastructures import Headers
from ..exceptions import InvalidHeader
from ..headers import build_www_authenticate_basic, parse_authorization_basic
from .server import HTTPResponse, WebSocketServerProtocol

__all__ = ["BasicAuthWebSocketServerProtocol", "basic_auth_protocol_factory"]


class BasicAuthWebSocketServerProtocol(WebSocketServerProtocol):
    """A connection whose client must have a user name and a password.

    Args:
        args, kwargs: those of `WebSocketServerProtocol`.
        realm: the scope that the client is told.
        check_credentials: what `check_credentials` asks.

    Attributes:
        realm: the scope that the client is told.
        username: the name of the client.
    """

    realm: str = ""
    username: str | None = None

    def __init__(
        self,
        *args: Any,
        realm: str | None = None,
        check_credentials: Callable[[str, str], Awaitable[bool]] | None = None,
        **kwargs: Any,
    ) -> None:
        if realm is not None:
            self.realm = realm
        self._check_credentials = check_credentials
        super().__init__(*args, **kwargs)

    async def check_credentials(self, username: str, password: str) -> bool:
        """Return whether a client is let in; to be overridden."""
        return self._check_credentials is not None and await self._check_credentials(username, password)

    async def process_request(self, path: str, request_headers: Headers) -> HTTPResponse | None:
        """Answer 401, or go on."""
        try:
            username, password = parse_authorization_basic(request_headers["Authorization"])
        except KeyError:
            return self._refuse("Missing")
        except InvalidHeader:
            return self._refuse("Unsupported")
        if not await self.check_credentials(username, password):
            return self._refuse("Invalid")
        self.username = username
        answer: HTTPResponse | None = await super().process_request(path, request_headers)
        return answer

    def _refuse(self, what: str) -> HTTPResponse:
        challenge = [("WWW-Authenticate", build_www_authenticate_basic(self.realm))]
        return http.HTTPStatus.UNAUTHORIZED, challenge, f"{what} credentials\n".encode()


def basic_auth_protocol_factory(
    realm: str | None = None,
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool]] | None = None,
    create_protocol: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Make what `serve` takes as `create_protocol` to ask for a user name and a password.

    Args:
        realm, credentials, check_credentials: those of `basic_auth`.
        create_protocol: a class that derives from `BasicAuthWebSocketServerProtocol`, which is the default.
    """
    try:
        check = checker(credentials, check_credentials)
    except ValueError as exc:
        raise TypeError(str(exc)) from None

    async def check_later(username: str, password: str) -> bool:
        answer = check(username, password)
        return answer if isinstance(answer, bool) else await answer

    make = BasicAuthWebSocketServerProtocol if create_protocol is None else create_protocol
    return functools.partial(make, realm=realm, check_credentials=check_later)
