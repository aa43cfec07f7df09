"""`Connection`: a `wsfast.sync.WebSocket` with the names of `websockets`."""

from __future__ import annotations

from typing import Any

from wsfast import connection as native
from wsfast.sync.websocket import WebSocket

from ..described import Described
from ..dialing import HELD
from ..protocol import Machine, Protocol

__all__ = ["Connection"]


class Connection(Described, WebSocket):  # type: ignore[misc]
    """A connection in threads, with the names and the behaviour of `websockets`.

    Args:
        protocol: what it is made with.
        args, kwargs: those of `wsfast.sync.WebSocket`.
    """

    connection_type = Machine

    def __init__(self, protocol: Protocol, *args: Any, **kwargs: Any) -> None:
        self.describe(protocol)
        super().__init__(*args, **kwargs)

    @property
    def _overhead(self) -> int:  # type: ignore[override]
        return HELD if self.protocol.counts else 64

    @property
    def _machine(self) -> native.Connection | None:
        return self._connection
