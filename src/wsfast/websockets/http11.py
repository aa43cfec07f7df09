"""`Request` and `Response` with the meaning that they have in `websockets`: dataclasses that may be changed."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from http import HTTPStatus

from multidict import CIMultiDict, MultiMapping

from wsfast import handshake
from wsfast._version import __version__

from .datastructures import Headers

__all__ = ["SERVER", "USER_AGENT", "Request", "Response"]

PYTHON_VERSION = "{}.{}".format(*sys.version_info)
USER_AGENT = os.environ.get("WEBSOCKETS_USER_AGENT", f"Python/{PYTHON_VERSION} wsfast/{__version__}")
"""The value of User-Agent."""
SERVER = os.environ.get("WEBSOCKETS_SERVER", f"Python/{PYTHON_VERSION} wsfast/{__version__}")
"""The value of Server."""


@dataclasses.dataclass
class Request:
    """The request of an opening handshake.

    Attributes:
        path: the path with the query, percent-encoded.
        headers: its headers.
        method: GET.
        protocol: HTTP/1.1.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"
    _exception: Exception | None = None

    @property
    def exception(self) -> Exception | None:
        """Deprecated: None."""
        warnings.warn(
            "Request.exception is deprecated; use ServerProtocol.handshake_exc instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._exception

    def serialize(self) -> bytes:
        """Return the bytes to send."""
        return f"{self.method} {self.path} {self.protocol}\r\n".encode("ascii") + self.headers.serialize()

    @classmethod
    def of(cls, request: handshake.Request) -> Request:
        """Make one of wsfast's."""
        return cls(request.path, _headers(request.headers), request.method)


@dataclasses.dataclass
class Response:
    """The response of an opening handshake.

    Attributes:
        status_code: 101 if it accepts.
        reason_phrase: of the status line.
        headers: its headers.
        body: its body, which a client cuts at 64 KiB.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes | bytearray = b""
    _exception: Exception | None = None

    @property
    def exception(self) -> Exception | None:
        """Deprecated: None."""
        warnings.warn(
            "Response.exception is deprecated; use ClientProtocol.handshake_exc instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._exception

    def serialize(self) -> bytes:
        """Return the bytes to send."""
        status = f"HTTP/1.1 {self.status_code} {self.reason_phrase}\r\n".encode("latin-1")
        return status + self.headers.serialize() + bytes(self.body)

    @classmethod
    def of(cls, response: handshake.Response) -> Response:
        """Make one of wsfast's."""
        return cls(response.status_code, response.reason_phrase, _headers(response.headers), response.body)

    def native(self) -> handshake.Response:
        """Make wsfast's of it.

        Raises:
            ValueError: a header has a character that it must not have.
        """
        headers: CIMultiDict[str] = CIMultiDict(self.headers.raw_items())
        return handshake.Response(self.status_code, self.reason_phrase, headers, bytes(self.body))


def plain_response(status: HTTPStatus | int, text: str) -> Response:
    """Make a response of plain text that ends the connection."""
    return Response.of(handshake.text_response(int(HTTPStatus(status)), text))


def _headers(items: MultiMapping[str]) -> Headers:
    headers = Headers()
    headers._items.extend(items.items())
    return headers
