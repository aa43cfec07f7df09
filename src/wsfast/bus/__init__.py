"""What carries messages between the processes of an application."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .interface import Bus, Position, Reading, Receiver, Stored
from .local import LocalBus
from .memory import MemoryBus

__all__ = ["Bus", "LocalBus", "MemoryBus", "Position", "Reading", "Receiver", "Stored"]

if not TYPE_CHECKING:  # pragma: no branch # else every misspelt name would be Any to a type checker

    def __getattr__(name: str) -> object:
        # What these need is optional.
        if name in ("NatsBus", "RedisBus"):
            return getattr(importlib.import_module(f"{__name__}.{name.removesuffix('Bus').lower()}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
