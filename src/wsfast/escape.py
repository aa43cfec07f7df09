"""Escaping of what a peer sent, for log lines and the texts of exceptions."""

from __future__ import annotations

__all__ = ["show"]


def show(value: str | bytes, limit: int = 64) -> str:
    """Escape and shorten what a peer sent, for a log or an exception.

    Args:
        value: what came.
        limit: how many characters or bytes to show; default 64.
    """
    return ascii(value) if len(value) <= limit else f"{value[:limit]!a}... ({len(value)} bytes)"
