"""The client without an event loop, for scripts and threads: ``with wsfast.sync.connect(uri) as ws:``."""

from __future__ import annotations

from .client import connect, reconnect, unix_connect
from .websocket import PingWaiter, WebSocket

__all__ = ["PingWaiter", "WebSocket", "connect", "reconnect", "unix_connect"]
