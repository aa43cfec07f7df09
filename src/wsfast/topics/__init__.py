"""Topics: messages to all who subscribed, in one process or in many."""

from __future__ import annotations

from .numbers import Gap
from .presence import Present
from .rules import History
from .topics import Published, Topics

__all__ = ["Gap", "History", "Present", "Published", "Topics"]
