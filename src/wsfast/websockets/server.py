"""`ServerProtocol`: what a server's connection is made with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from .imports import lazy_import
from .protocol import CONNECTING, SERVER, Protocol, State
from .typing import LoggerLike, Origin, Subprotocol

__all__ = ["ServerProtocol"]


class ServerProtocol(Protocol):
    """What a server's connection is made with; see `Protocol`.

    Args:
        origins, extensions, subprotocols, select_subprotocol, max_size, logger: those of `serve`.
        state: the state to tell before it is connected.
    """

    def __init__(
        self,
        *,
        origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
        extensions: Sequence[Any] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        select_subprotocol: Callable[[Any, Sequence[Subprotocol]], Subprotocol | None] | None = None,
        state: State = CONNECTING,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(SERVER, state=state, max_size=max_size, logger=logger)
        self.origins = origins
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self._select_subprotocol = select_subprotocol


lazy_import(
    globals(),
    deprecated_aliases={
        "WebSocketServer": ".legacy.server",
        "WebSocketServerProtocol": ".legacy.server",
        "broadcast": ".legacy.server",
        "serve": ".legacy.server",
        "unix_serve": ".legacy.server",
    },
)
