"""What the user of topics is told: losses, what was refused, who came and left; by hooks and lines of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from ..escape import words
from ..telling import tell
from .numbers import Gap
from .presence import Present

__all__ = ["Hooks", "Reports"]

_QUIET: Final = 1.0
"""Seconds between two lines in the log about the same kind of trouble."""


class Hooks(Protocol):
    """What the user has set, and may set anew at any time."""

    on_gap: Callable[[Gap], object] | None
    on_presence: Callable[[str, Present, bool], object] | None


class Reports:
    """Tells the user.

    Args:
        hooks: whose hooks are called.
        logger: for the lines.

    Attributes:
        gaps, refused: totals.
    """

    def __init__(self, hooks: Hooks, logger: Any) -> None:
        self.gaps: int = 0
        self.refused: int = 0
        self._hooks = hooks
        self._logger = logger
        self._quiet: dict[str, tuple[float, int]] = {}  # when the last line of a kind was, and how many were left out

    def lost(self, gap: Gap) -> None:
        """Tell of a loss."""
        self.gaps += 1
        self.quietly("gap", "messages were lost in %a: %s", gap.topic, gap.missed or "an unknown number")
        self._call("on_gap", self._hooks.on_gap, gap)

    def refuse(self, topic: str, exc: ValueError) -> None:
        """Tell that bytes from the bus were not a message that may be delivered."""
        self.refused += 1
        self.quietly("refused", "a message from the bus in %a was dropped: %s", topic, words(exc))

    def moved(self, topic: str, present: Present, came: bool) -> None:
        """Tell that somebody came (True) or left (False)."""
        self._call("on_presence", self._hooks.on_presence, topic, present, came)

    def _call(self, name: str, hook: Callable[..., object] | None, *args: object) -> None:
        if hook is None:
            return
        try:
            made = hook(*args)
            if isinstance(made, Coroutine):
                made.close()
                raise TypeError(f"{name} must be a plain function: nothing awaits its coroutine")
        except Exception as exc:
            tell(self._logger.error, "%s raised", name, exc_info=exc)

    def quietly(self, kind: str, text: str, *args: object) -> None:
        """Log a line, but not more than one of its kind in a second; the next tells how many were not."""
        now = time.monotonic()
        since, left_out = self._quiet.get(kind, (-_QUIET, 0))
        if now - since < _QUIET:
            self._quiet[kind] = (since, left_out + 1)
            return
        self._quiet[kind] = (now, 0)
        more = f" (and {left_out} more before)" if left_out else ""
        tell(self._logger.warning, text + more, *args)
