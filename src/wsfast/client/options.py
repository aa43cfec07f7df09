"""The options of the client's calls, as type checkers are told of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ..deflate import Deflate
from ..dial.route import RouteOptions
from ..session import Overflow

__all__ = ["ConnectOptions"]


class ConnectOptions(RouteOptions, total=False):
    """The options of `connect`, for type checkers."""

    origin: str | None
    subprotocols: Sequence[str] | None
    compression: Literal["deflate"] | Deflate | None
    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
    user_agent_header: str | None
    bearer_token: str | None
    proxy: str | bool | None
    process_exception: Callable[[Exception], Exception | None]
    reconnect_delays: Callable[[], Iterator[float]]
    max_redirects: int
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    max_line: int
    max_head: int
    max_headers: int
    max_size: int | None
    max_fragments: int | None
    read_limit: int
    write_limit: int
    max_buffered: int | None
    overflow: Overflow
    logger: logging.Logger | logging.LoggerAdapter[Any] | None
