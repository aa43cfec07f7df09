"""ASGI applications: FastAPI, Starlette, Django Channels, Litestar, Quart and others, on wsfast's connections.

A server that runs ASGI applications on wsfast, such as uvicorn with `wsfast.uvicorn`, gives them all that ASGI has, and
through `of` the `WebSocket` beneath: its latency, counters, pings and `send_nowait`.

`conversation` and `scope` are sans-IO; `bridge` puts them between an open connection and the application.
"""

from __future__ import annotations

from .bridge import Bridge, BridgeProtocol, Host
from .conversation import ClientDisconnected, Conversation, Phase
from .handles import broadcast, of
from .scope import websocket_scope

__all__ = [
    "Bridge",
    "BridgeProtocol",
    "ClientDisconnected",
    "Conversation",
    "Host",
    "Phase",
    "broadcast",
    "of",
    "websocket_scope",
]
