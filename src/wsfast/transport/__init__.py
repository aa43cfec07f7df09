"""What moves the bytes of connections on asyncio: TLS, deadlines, and what is known of the loops' own transports."""

from __future__ import annotations

__all__ = ()
