"""Transports of connections on asyncio: sockets, TLS, deadlines, and the peculiarities of event loops."""

from __future__ import annotations

__all__ = ()
