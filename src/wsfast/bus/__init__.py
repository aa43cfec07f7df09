"""What carries messages between the processes of an application."""

from __future__ import annotations

from .interface import Bus, Position, Reading, Receiver, Stored
from .memory import MemoryBus

__all__ = ["Bus", "MemoryBus", "Position", "Reading", "Receiver", "Stored"]
