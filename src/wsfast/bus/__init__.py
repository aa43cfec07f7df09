"""What carries messages between the processes of an application."""

from __future__ import annotations

from .interface import Bus, Position, Reading, Receiver, Stored
from .local import LocalBus
from .memory import MemoryBus

__all__ = ["Bus", "LocalBus", "MemoryBus", "Position", "Reading", "Receiver", "Stored"]
