"""`basic_auth_protocol_factory`: HTTP Basic authentication, as the old implementation has it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from wsfast.server.auth import basic_auth

from ..datastructures import Headers
from ..http11 import Request
from .server import WebSocketServerProtocol

__all__ = ["BasicAuthWebSocketServerProtocol", "basic_auth_protocol_factory"]


class BasicAuthWebSocketServerProtocol(WebSocketServerProtocol):
    """A connection whose client must have a user name and a password."""

    def __init__(self, *args: Any, process: Callable[[Any, Any], Awaitable[Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._process = process

    async def process_request(self, path: str, request_headers: Headers) -> Any:
        """Answer 401, or go on."""
        response = await self._process(self, Request(path, request_headers))
        return None if response is None else (response.status_code, response.headers, bytes(response.body))


def basic_auth_protocol_factory(
    realm: str | None = None,
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool]] | None = None,
    create_protocol: Callable[..., Any] = BasicAuthWebSocketServerProtocol,
) -> Callable[..., Any]:
    """Make what `serve` takes as `create_protocol` to ask for a user name and a password.

    Args:
        realm, credentials, check_credentials: those of `basic_auth`.
        create_protocol: a class that derives from `BasicAuthWebSocketServerProtocol`.
    """
    return functools.partial(create_protocol, process=basic_auth(realm or "", credentials, check_credentials))
