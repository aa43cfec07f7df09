"""The limits of connections, as options of clients and servers: each has its default in `Limits` or `HeadLimits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict

from .deflate.negotiate import Deflate, as_deflate
from .extensions import check_factories
from .handshake.http11 import HeadLimits
from .session import Limits, Overflow

__all__ = ["LimitOptions", "SendOptions", "take_limits"]


class LimitOptions(TypedDict, total=False):
    """What every client and server may be told, for type checkers; `wsfast.connect` and `wsfast.Server` document it."""

    compression: Literal["deflate"] | Deflate | None
    max_line: int
    max_head: int
    max_headers: int
    max_size: int | None
    max_fragments: int | None
    read_limit: int
    write_limit: int
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None


class SendOptions(TypedDict, total=False):
    """What those with a `send_nowait` may be told besides."""

    max_buffered: int | None
    overflow: Overflow


_OF_HEAD: Final = frozenset(HeadLimits._fields)
# The factories of extensions have other types on each side, which add them to `LimitOptions`.
_OF_CONNECTION: Final = frozenset({*LimitOptions.__annotations__, "extensions"}) - _OF_HEAD
_OF_SENDING: Final = frozenset(SendOptions.__annotations__)


def take_limits(
    options: Mapping[str, Any], *, sends: bool = False, serves: bool = False
) -> tuple[Limits, HeadLimits, dict[str, Any]]:
    """Part options into the limits of connections, those of heads, and the rest.

    Args:
        options: by their names.
        serves: whether they are a server's.
        sends: whether `SendOptions` are among those of connections.

    Raises:
        ValueError, TypeError: a limit is out of range, or of another type; the text names it.
    """
    names = _OF_CONNECTION | _OF_SENDING if sends else _OF_CONNECTION
    of_connection = {name: value for name, value in options.items() if name in names}
    if "compression" in of_connection:
        of_connection["compression"] = as_deflate(of_connection["compression"])
    if "extensions" in of_connection:
        method = "process_request_params" if serves else "process_response_params"
        of_connection["extensions"] = check_factories(of_connection["extensions"], method)
    of_head = {name: value for name, value in options.items() if name in _OF_HEAD}
    rest = {name: value for name, value in options.items() if name not in of_connection and name not in of_head}
    return Limits(**of_connection), HeadLimits.checked(**of_head), rest
