"""Escaping of what a peer sent, for log lines and the texts of exceptions."""

from __future__ import annotations

__all__ = ["show", "without_query", "words"]


def show(value: str | bytes, limit: int = 64) -> str:
    """Escape and shorten what a peer sent, for a log or an exception.

    Args:
        value: what came.
        limit: how many characters or bytes to show; default 64.
    """
    return ascii(value) if len(value) <= limit else f"{value[:limit]!a}... ({len(value)} bytes)"


def without_query(path: str) -> str:
    """Return a request's path as it may be shown: its query often holds a token."""
    path, mark, _ = path.partition("?")
    return f"{path}?..." if mark else path


def words(text: object, limit: int = 200) -> str:
    """Return what a server said, for a log or the text of an exception: one line of printable ASCII, shortened.

    What it returns, it leaves as it is.

    Args:
        text: what was said; `str` makes it text.
        limit: how many characters of it to return; default 200.
    """
    said = str(text)[:limit]
    if not (said.isascii() and said.isprintable()):
        said = "".join(one if " " <= one <= "~" else one.encode("unicode_escape").decode() for one in said)
    return said[:limit]
