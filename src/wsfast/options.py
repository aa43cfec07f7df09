"""Options of servers and clients: errors for one that is not known or has a wrong value, the class of connections."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

__all__ = ["check_values", "connection_class", "named_options", "refuse_unknown"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ELSEWHERE: Final = {
    "autoping": ("ping_interval",),
    "cookie": ("additional_headers",),
    "enable_multithread": (),
    "extra_headers": ("additional_headers", "response_headers"),
    "header": ("additional_headers",),
    "headers": ("additional_headers", "response_headers"),
    "create_protocol": ("create_connection",),
    "heartbeat": ("ping_interval",),
    "http_proxy_host": ("proxy",),
    "klass": ("create_connection",),
    "loop": (),
    "max_field_size": ("max_line",),
    "max_line_size": ("max_line",),
    "max_message_size": ("max_size",),
    "max_msg_size": ("max_size",),
    "max_queue": ("read_limit",),
    "protocols": ("subprotocols",),
    "source_address": ("local_addr",),
    "ssl_context": ("ssl",),
    "sslopt": ("ssl",),
    "timeout": ("open_timeout", "close_timeout"),
    "user_agent": ("user_agent_header",),
}
"""Options of other libraries, above all `websockets`, and what they are called here."""


def connection_class(given: type[_T] | None, own: type[_T]) -> type[_T]:
    """Return the class that connections are made of.

    Args:
        given: the option `create_connection`: a subclass of `own`, or None for `own` itself.
        own: the class of the server or client: a `WebSocket`.

    Raises:
        TypeError: `given` is something else.
    """
    if given is None:
        return own
    if not isinstance(given, type) or not issubclass(given, own):
        came = given.__qualname__ if isinstance(given, type) else repr(given)
        raise TypeError(f"create_connection must be a subclass of {own.__module__}.{own.__qualname__}, got {came}")
    return given


_TEXTS: Final = (
    "bearer_token",
    "origin",
    "proxy_server_hostname",
    "server_header",
    "server_hostname",
    "user_agent_header",
)
_NUMBERS: Final = "family", "flags", "proto"
_CALLS: Final = "process_exception", "reconnect_delays"


def check_values(given: Mapping[str, Any]) -> None:
    """Check options whose wrong values nobody else refuses by their names: what they meet is deep in the system.

    Args:
        given: the options, among them such that are not looked at.

    Raises:
        TypeError, ValueError: a value is wrong; the text says of which option, what was expected, and what came.
    """
    for name, value in given.items():
        check = _CHECKS.get(name)
        if check is not None:
            check(name, value)


def _refuse(name: str, expected: str, value: object) -> NoReturn:
    raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        _refuse(name, "a str or None", value)


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(name, "an int", value)
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{name} must be an int that the system can hold, got {value}")


def _check_sock(name: str, value: object) -> None:
    if value is not None and not callable(getattr(value, "getsockname", None)):
        _refuse(name, "a socket.socket or None", value)


def _check_path(name: str, value: object) -> None:
    if value is not None and not isinstance(value, (str, bytes, os.PathLike)):
        _refuse(name, "a path or None", value)


def _check_local_addr(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, (tuple, list)) and len(value) == 2):
        _refuse(name, "a pair of a host and a port, or None", value)


def _check_logger(name: str, value: object) -> None:
    if value is not None and not all(callable(getattr(value, level, None)) for level in ("debug", "info", "error")):
        _refuse(name, "a logging.Logger, a LoggerAdapter or None", value)


def _check_call(name: str, value: object) -> None:
    if not callable(value):
        _refuse(name, "callable", value)


_CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    **dict.fromkeys(_TEXTS, _check_text),
    **dict.fromkeys(_NUMBERS, _check_number),
    **dict.fromkeys(_CALLS, _check_call),
    "address": _check_local_addr,
    "source_address": _check_local_addr,
    "local_addr": _check_local_addr,
    "logger": _check_logger,
    "path": _check_path,
    "sock": _check_sock,
}


def named_options(call: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Make a decorator for a function whose options all stand in its signature: `refuse_unknown` refuses others.

    Args:
        call: what the function is to its callers, such as ``"Topics()"``.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        known = inspect.signature(function).parameters.keys() - {"self"}

        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            refuse_unknown(call, kwargs, known)
            return function(*args, **kwargs)

        return checked

    return decorate


def refuse_unknown(call: str, given: Iterable[str], known: Iterable[str], others: Iterable[str] = ()) -> None:
    """Check that options are known.

    Args:
        call: what they were given to, such as ``"connect()"``.
        given: their names.
        known: the names of the options that the call has.
        others: names of its other parameters, one of which may have been meant.

    Raises:
        TypeError: one is not known; the text names the one that was most likely meant.
    """
    there = frozenset(known)
    for name in given:
        if name in there:
            continue
        names = sorted({*there, *others})
        if name in _ELSEWHERE:
            meant = [other for other in _ELSEWHERE[name] if other in names]
        else:
            meant = get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f": did you mean {' or '.join(map(repr, meant))}?" if meant else ""
        raise TypeError(f"{call} got an unexpected keyword argument {name!r}{hint}")
