"""The client in threads of `websockets`, on wsfast."""

from __future__ import annotations

__all__ = ()
