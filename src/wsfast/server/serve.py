"""`serve`: a server of one handler, or of one for each subprotocol, in one call."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

from ..asyncio.listener import Listener
from ..serving import handlers_of
from .options import LISTEN, Handler, ServeOptions, ServerOptions, check_listen
from .server import Server

__all__ = ["serve"]


class serve:  # noqa: N801
    """Start a server: ``async with serve(handler, "127.0.0.1", 8765) as server:`` or ``server = await serve(...)``.

    Args:
        handler: a coroutine function that is called with each `WebSocket`, or a mapping of subprotocols to such
            functions or to `Listener` classes, None being the key for clients that offer none.
        host, port: where to listen; see `Server.start`.
        subprotocols: names that a single `handler` serves as well as clients that offer none. Default: none.
        options: those of `Server`, and those of `Server.start` whose names are not taken by `Server`.

    Raises:
        TypeError: `subprotocols` together with a mapping, or a handler that is not callable.
        ValueError: the mapping is empty, or a name is not a token.
    """

    def __init__(
        self,
        handler: Handler | Mapping[str | None, Handler | type[Listener]],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        subprotocols: Sequence[str] | None = None,
        **options: Unpack[ServeOptions],
    ) -> None:
        known = ServerOptions.__annotations__
        given: Mapping[str, Any] = options
        check_listen("serve()", given, {*known, *LISTEN})
        self._server = Server(**{name: value for name, value in given.items() if name in known})
        self._listen = {name: value for name, value in given.items() if name not in known}
        self._address = host, port
        served = handlers_of(handler, subprotocols)
        for name, one in served.items():
            if isinstance(one, type) and issubclass(one, Listener):
                self._server.register_listener(name, one)
            else:
                self._server.register_handler(name, one)

    async def _start(self) -> Server:
        return await self._server.start(*self._address, **self._listen)

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, exc, traceback)
