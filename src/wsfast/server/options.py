"""The options of `Server`, `serve` and `Server.start`: their types, and checks that `Server` and `serve` share."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from ..asyncio.listener import Listener
from ..asyncio.streams import Reader, Writer
from ..asyncio.websocket import WebSocket
from ..handshake import Request, Response
from ..limits import SendOptions
from ..options import refuse_unknown
from ..serving import ServerOptions as SharedOptions
from .threads import MOST

if TYPE_CHECKING:
    from socket import socket

    from ..topics.topics import Topics

__all__ = [
    "LISTEN",
    "Handler",
    "ListenOptions",
    "ListenerFactory",
    "NoOptions",
    "ProcessRequest",
    "ProcessResponse",
    "SelectSubprotocol",
    "ServeOptions",
    "ServerOptions",
    "StartOptions",
    "StreamHandler",
    "check_drain",
    "check_listen",
    "check_threads",
]

Handler: TypeAlias = Callable[[WebSocket], Awaitable[Any]]
StreamHandler: TypeAlias = Callable[[Reader, Writer], Awaitable[Any]]
ListenerFactory: TypeAlias = Callable[[WebSocket], Listener]
ProcessRequest: TypeAlias = Callable[[WebSocket, Request], "Response | Awaitable[Response | None] | None"]
ProcessResponse: TypeAlias = Callable[[WebSocket, Request, Response], "Response | Awaitable[Response | None] | None"]
SelectSubprotocol: TypeAlias = Callable[[WebSocket, Sequence[str]], "str | None"]


class ServerOptions(SharedOptions, SendOptions, total=False):
    """The options of `Server`, for type checkers."""

    process_request: ProcessRequest | None
    process_response: ProcessResponse | None
    select_subprotocol: SelectSubprotocol | None
    create_connection: type[WebSocket] | None
    topics: Topics | None


class StartOptions(TypedDict, total=False):
    """Options for listening that `bind` does not know, for type checkers."""

    family: int
    flags: int
    reuse_address: bool | None
    reuse_port: bool | None
    keep_alive: bool | None
    start_serving: bool
    cleanup_socket: bool


class ListenOptions(StartOptions, total=False):
    """The arguments of `Server.start` besides host and port, for type checkers: those of `loop.create_server`."""

    path: str | os.PathLike[str] | None
    sock: socket | None
    ssl: ssl_module.SSLContext | None
    backlog: int
    threads: int


class ServeOptions(ServerOptions, ListenOptions, total=False):
    """The options of `serve`, for type checkers."""


class NoOptions(TypedDict):
    """Lets type checkers refuse unknown options; at run time, the error names the option that was meant."""


LISTEN: Final = frozenset(ListenOptions.__annotations__)
"""The names of the arguments of `Server.start` besides host and port."""


def check_listen(call: str, listen: Iterable[str], known: Iterable[str]) -> None:
    """Raise a TypeError unless all names of options are known to a call, whose name is in the text."""
    for name in listen:
        if name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            raise TypeError(f"{name} is no option: open_timeout and close_timeout are for TLS too")
    refuse_unknown(call, listen, known)


def check_threads(threads: int) -> None:
    """Raise a TypeError or ValueError unless it is a number of threads that a server can have."""
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise TypeError(f"threads must be int, got {type(threads).__name__}")
    if not 1 <= threads <= MOST:
        raise ValueError(f"threads must be from 1 to {MOST}, got {threads}")


def check_drain(drain: float) -> None:
    """Raise a TypeError or ValueError unless it is a finite number of seconds, 0 or more."""
    if not isinstance(drain, (int, float)) or isinstance(drain, bool):
        raise TypeError(f"drain must be a number of seconds, got {type(drain).__name__}")
    if not 0 <= drain < inf:
        raise ValueError(f"drain must be a number of seconds from 0 on, got {drain}")
