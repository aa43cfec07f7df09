"""What carries messages between the processes of an application."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .interface import Bus, Position, Reading, Receiver, Stored
from .local import LocalBus
from .memory import MemoryBus

_OPTIONAL = {"NatsBus": ".nats", "RedisBus": ".redis"}

__all__ = ["Bus", "LocalBus", "MemoryBus", "Position", "Reading", "Receiver", "Stored"]

if TYPE_CHECKING:
    from .nats import NatsBus as NatsBus
    from .redis import RedisBus as RedisBus

if not TYPE_CHECKING:  # pragma: no branch # else every misspelt name would be Any to a type checker

    def __getattr__(name: str) -> object:
        # What these need is optional.
        if name in _OPTIONAL:
            return getattr(importlib.import_module(_OPTIONAL[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
