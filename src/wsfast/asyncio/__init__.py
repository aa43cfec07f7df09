"""wsfast on asyncio: the shell around `session` and the codec, and the three views of a connection that users hold."""

from __future__ import annotations

__all__ = ()
