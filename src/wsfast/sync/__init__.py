"""Client and server without an event loop, for scripts and threads.

``with wsfast.sync.connect(uri) as ws:`` connects, ``wsfast.sync.serve(handler, host, port).serve_forever()`` serves.
"""

from __future__ import annotations

from .broadcast import broadcast
from .client import connect, reconnect, unix_connect
from .server import Server, serve, unix_serve
from .websocket import PingWaiter, WebSocket

__all__ = [
    "PingWaiter",
    "Server",
    "WebSocket",
    "broadcast",
    "connect",
    "reconnect",
    "serve",
    "unix_connect",
    "unix_serve",
]
