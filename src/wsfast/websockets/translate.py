"""What wsfast raises while it connects, as `websockets` raises it."""

from __future__ import annotations

from wsfast import exceptions as native
from wsfast.escape import words

from . import exceptions
from .http11 import Response

__all__ = ["translate"]


def translate(exc: BaseException) -> BaseException:
    """Return the exception that `websockets` would raise in place of one of wsfast's.

    It has what the other had as its response and its cause; where the text says less, the other becomes the cause. One
    that is nothing to translate, or is translated already, comes back as it is.
    """
    if type(exc).__module__ != native.__name__:
        return exc
    made = _translated(exc)
    if made is exc:
        return exc
    if made.__cause__ is None and made is not exc.__cause__:
        made.__cause__ = exc.__cause__
    response = getattr(exc, "response", None)
    if response is not None:
        made.response = Response.of(response)  # type: ignore[attr-defined]
    made.__traceback__ = exc.__traceback__
    return made


def _translated(exc: BaseException) -> BaseException:
    if isinstance(exc, native.InvalidStatus):
        return exceptions.InvalidStatus(Response.of(exc.response))
    if isinstance(exc, native.InvalidURI):
        return exceptions.InvalidURI(exc.uri, exc.message)
    if isinstance(exc, native.InvalidProxy):
        return exceptions.InvalidProxy(exc.proxy, exc.message)
    if isinstance(exc, native.InvalidMessage):
        made: BaseException = exceptions.InvalidMessage("did not receive a valid HTTP response")
        if isinstance(exc.__cause__, EOFError):
            made.__cause__ = EOFError("connection closed while reading HTTP status line")
        else:
            made.__cause__ = exc.__cause__ or ValueError(str(exc) if exc.line is None else _no_status(exc.line))
        return made
    if isinstance(exc, native.InvalidOrigin):
        return exceptions.InvalidOrigin(exc.value)
    if isinstance(exc, native.InvalidUpgrade):
        return exceptions.InvalidUpgrade(exc.name, exc.value)
    if isinstance(exc, native.InvalidHeaderFormat):
        return exceptions.InvalidHeaderFormat(exc.name, exc.message or "malformed", exc.value or "", 0)
    if isinstance(exc, native.InvalidHeader):
        made_header = exceptions.InvalidHeader if exc.value is None else exceptions.InvalidHeaderValue
        return made_header(exc.name, exc.value)
    if isinstance(exc, native.RedirectError):
        return exceptions.SecurityError(str(exc))
    if isinstance(exc, native.ProxyError):
        if isinstance(exc.__cause__, OSError):
            return exc.__cause__
        if exc.response is not None:
            return exceptions.InvalidProxyStatus(Response.of(exc.response))
        if isinstance(exc.__cause__, (native.InvalidMessage, EOFError)):
            return exceptions.InvalidProxyMessage("did not receive a valid HTTP response from proxy")
        if type(exc.__cause__).__module__.startswith("python_socks."):
            return exceptions.ProxyError("failed to connect to SOCKS proxy")
        return exceptions.ProxyError(str(exc))
    return exc


def _no_status(line: bytes) -> str:
    """Say what is wrong with a status line, in websockets' words; what came is escaped."""
    protocol, _, rest = line.partition(b" ")
    came = words(line.decode("latin-1"))
    if not rest.count(b" "):
        return f"invalid HTTP status line: {came}"
    if protocol != b"HTTP/1.1":
        return f"unsupported protocol; expected HTTP/1.1: {came}"
    status = words(rest.partition(b" ")[0].decode("latin-1"))
    if not status.isdecimal():
        return f"invalid status code; expected integer; got {status}"
    return f"invalid status code; expected 100\u2013599; got {status}"
