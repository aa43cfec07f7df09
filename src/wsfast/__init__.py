"""WebSockets for asyncio: as complete as `websockets`, as fast as C++.

A handler serves a subprotocol in one of three forms: messages (`WebSocket`), a byte stream (`Reader`, `Writer`),
or callbacks (`Listener`). `Server` and `serve` dispatch connections to them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from ._version import __version__

# Names are loaded when they are asked for (PEP 562): a program pays for what it uses. This is for type checkers;
# `_NAMES` below says the same to Python, and a test holds that they agree.
if TYPE_CHECKING:
    from .asyncio.broadcast import broadcast
    from .asyncio.listener import Listener
    from .asyncio.streams import Reader, Writer
    from .asyncio.websocket import WebSocket
    from .bus.interface import Position
    from .client.connector import connect, connect_listener, connect_stream, unix_connect
    from .codec import IMPLEMENTATION, Decoder, Encoder, apply_mask, encode_frame
    from .codes import CloseCause, CloseCode, Opcode
    from .connection import Connection, Side, State
    from .deflate import Deflate, DeflateBudget
    from .events import Close, Fragment, Ping, Pong
    from .exceptions import (
        BufferFull,
        BusUnavailable,
        CallerError,
        ConcurrencyError,
        ConnectionClosed,
        ConnectionClosedError,
        ConnectionClosedOK,
        ExtensionError,
        HandshakeRefused,
        InvalidHandshake,
        InvalidHeader,
        InvalidHeaderFormat,
        InvalidMessage,
        InvalidOrigin,
        InvalidPayload,
        InvalidProxy,
        InvalidState,
        InvalidStatus,
        InvalidUpgrade,
        InvalidURI,
        NegotiationError,
        NotAuthorized,
        NotRecovered,
        PayloadTooBig,
        PeerError,
        ProtocolError,
        ProxyError,
        RedirectError,
        TooManySubscriptions,
        WebSocketError,
    )
    from .handshake import Request, Response
    from .server.serve import serve
    from .server.server import Server
    from .topics.numbers import Gap
    from .topics.presence import Present
    from .topics.rules import History
    from .topics.topics import Topics
    from .workers.run import run

__all__ = [
    "IMPLEMENTATION",
    "BufferFull",
    "BusUnavailable",
    "CallerError",
    "Close",
    "CloseCause",
    "CloseCode",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Decoder",
    "Deflate",
    "DeflateBudget",
    "Encoder",
    "ExtensionError",
    "Fragment",
    "Gap",
    "HandshakeRefused",
    "History",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidPayload",
    "InvalidProxy",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "Listener",
    "NegotiationError",
    "NotAuthorized",
    "NotRecovered",
    "Opcode",
    "PayloadTooBig",
    "PeerError",
    "Ping",
    "Pong",
    "Position",
    "Present",
    "ProtocolError",
    "ProxyError",
    "Reader",
    "RedirectError",
    "Request",
    "Response",
    "Server",
    "Side",
    "State",
    "TooManySubscriptions",
    "Topics",
    "WebSocket",
    "WebSocketError",
    "Writer",
    "__version__",
    "apply_mask",
    "broadcast",
    "connect",
    "connect_listener",
    "connect_stream",
    "encode_frame",
    "run",
    "serve",
    "unix_connect",
]


_NAMES: Final = {
    "asyncio.broadcast": ("broadcast",),
    "asyncio.listener": ("Listener",),
    "asyncio.streams": ("Reader", "Writer"),
    "asyncio.websocket": ("WebSocket",),
    "bus.interface": ("Position",),
    "client.connector": ("connect", "connect_listener", "connect_stream", "unix_connect"),
    "codec": ("Decoder", "Encoder", "IMPLEMENTATION", "apply_mask", "encode_frame"),
    "codes": ("CloseCause", "CloseCode", "Opcode"),
    "connection": ("Connection", "Side", "State"),
    "deflate": ("Deflate", "DeflateBudget"),
    "events": ("Close", "Fragment", "Ping", "Pong"),
    "exceptions": (
        "BufferFull",
        "BusUnavailable",
        "CallerError",
        "ConcurrencyError",
        "ConnectionClosed",
        "ConnectionClosedError",
        "ConnectionClosedOK",
        "ExtensionError",
        "HandshakeRefused",
        "InvalidHandshake",
        "InvalidHeader",
        "InvalidHeaderFormat",
        "InvalidMessage",
        "InvalidOrigin",
        "InvalidPayload",
        "InvalidProxy",
        "InvalidState",
        "InvalidStatus",
        "InvalidURI",
        "InvalidUpgrade",
        "NegotiationError",
        "NotAuthorized",
        "NotRecovered",
        "PayloadTooBig",
        "PeerError",
        "ProtocolError",
        "ProxyError",
        "RedirectError",
        "TooManySubscriptions",
        "WebSocketError",
    ),
    "handshake": ("Request", "Response"),
    "server.serve": ("serve",),
    "server.server": ("Server",),
    "topics.numbers": ("Gap",),
    "topics.presence": ("Present",),
    "topics.rules": ("History",),
    "topics.topics": ("Topics",),
    "workers.run": ("run",),
}
"""The modules, and which names of the package each of them has."""

_MODULES: Final = {name: module for module, names in _NAMES.items() for name in names}


if not TYPE_CHECKING:  # pragma: no branch # else every misspelt name would be Any to a type checker

    def __getattr__(name: str) -> object:
        module = _MODULES.get(name)
        if module is not None:
            value = getattr(import_module(f".{module}", __name__), name)
            globals()[name] = value  # so that it is not asked for again
            return value
        if not name.startswith("_"):
            # A module of the package, such as `wsfast.exceptions`, is there without an import of its own.
            try:
                return import_module(f".{name}", __name__)
            except ModuleNotFoundError as exc:
                if exc.name != f"{__name__}.{name}":
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
