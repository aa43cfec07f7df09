"""The trio client and server of `websockets`, on wsfast."""

from __future__ import annotations

__all__ = ()
