"""Chooses the channel implementation: Cython with the Cython codec, else Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._built import IMPLEMENTATION, unusable

__all__ = ["PAUSED_HELD", "PAUSED_WRITING", "Channel", "Endpoint", "EventEndpoint", "Turn"]

# Why reading is paused, beside what a channel decides by itself.
PAUSED_HELD = 1
PAUSED_WRITING = 4

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._channel_py import Channel, Endpoint, EventEndpoint, Turn
else:
    try:
        from ._channel import Channel, Endpoint, EventEndpoint, Turn
    except Exception as exc:
        raise unusable("wsfast.asyncio._channel", exc) from exc
