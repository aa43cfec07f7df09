"""WebSockets for asyncio: as complete as `websockets`, as fast as C++.

A handler serves a subprotocol in one of three forms: messages (`WebSocket`), a byte stream (`Reader`, `Writer`),
or callbacks (`Listener`). `Server` and `serve` dispatch connections to them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import __version__
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
from .server.server import Server, serve
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


if not TYPE_CHECKING:  # pragma: no branch # else every misspelt name would be Any to a type checker

    def __getattr__(name: str) -> object:
        # `wsfast.sync` and `wsfast.testing` are there without an import of their own, but cost nothing until then.
        if name in ("sync", "testing", "asgi", "uvicorn"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
