"""The client on asyncio, in three forms, and reconnecting."""

from __future__ import annotations

from .connector import connect, connect_listener, connect_stream, unix_connect

__all__ = ["connect", "connect_listener", "connect_stream", "unix_connect"]
