"""`serve` of `websockets`: `wsfast.Server` with its parameters, defaults and meaning."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from wsfast import handshake
from wsfast.asyncio.protocol import ConnectionProtocol
from wsfast.codes import CloseCause, CloseCode
from wsfast.escape import show
from wsfast.exceptions import HandshakeRefused, NegotiationError
from wsfast.server import auth
from wsfast.server import server as native

from ..dialing import MaxQueue, WriteLimit, limits
from ..extensions.base import ServerExtensionFactory
from ..extensions.permessage_deflate import enable_server_permessage_deflate, only_deflate
from ..headers import validate_subprotocols
from ..http11 import SERVER, Request, Response, plain_response
from ..protocol import OPEN
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, PathLike, StatusLike, Subprotocol
from .connection import Connection, broadcast

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

Handler = Callable[["ServerConnection"], Awaitable[None]]
Answer = Response | Awaitable[Response | None] | None
ProcessRequest = Callable[["ServerConnection", Request], Answer]
ProcessResponse = Callable[["ServerConnection", Request, Response], Answer]
SelectSubprotocol = Callable[["ServerConnection", Sequence[Subprotocol]], Subprotocol | None]


class ServerConnection(Connection):
    """A connection from the server's side; see `Connection`.

    Args:
        protocol: what it is made with.
        server: the server that it belongs to.
        ping_interval, ping_timeout, close_timeout, max_queue, write_limit: those of `serve`.

    Attributes:
        server: the server that it belongs to.
        username: who the client is, by `basic_auth`.
        handler, handler_kwargs: what `route` chose.
    """

    __slots__ = ("server",)

    protocol: ServerProtocol
    handler: Callable[..., Awaitable[None]]
    handler_kwargs: Mapping[str, Any]

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = 2**15,
    ) -> None:
        super().__init__(
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
        )
        self.server = server

    def respond(self, status: StatusLike, text: str) -> Response:  # type: ignore[override]
        """Make a plain text response for `process_request` or `process_response` to return."""
        return plain_response(status, text)


class Server(native.Server):
    """The server that `serve` makes.

    ``await`` it, or enter it with ``async with``, to start it.

    Args:
        handler: called with each `ServerConnection`.
        listen: where to listen: what `serve` was given.
        hooks: `process_request`, `process_response` and `select_subprotocol`.
        create_connection: makes a `ServerConnection`.
        made_with: what each `ServerProtocol` is made with.
        settings: what each `ServerConnection` is made with besides.
        logger: default: ``logging.getLogger("websockets.server")``.
        options: those of `wsfast.Server`.
    """

    def __init__(
        self,
        handler: Handler,
        listen: dict[str, Any],
        hooks: tuple[ProcessRequest | None, ProcessResponse | None, SelectSubprotocol | None],
        create_connection: Callable[..., ServerConnection],
        made_with: dict[str, Any],
        settings: dict[str, Any],
        logger: LoggerLike | None,
        **options: Any,
    ) -> None:
        process_request, process_response, select_subprotocol = hooks
        super().__init__(
            process_request=None if process_request is None else self._before,  # type: ignore[arg-type]
            process_response=None if process_response is None else self._after,  # type: ignore[arg-type]
            # It is called by `choose_subprotocol`; here it says that the peer's address is wanted before.
            select_subprotocol=select_subprotocol,  # type: ignore[arg-type]
            stop_timeout=None,
            logger=logging.getLogger("websockets.server") if logger is None else logger,
            **options,
        )
        self._served = handler
        self._listen = listen
        self._hooks = hooks
        self._create_connection = create_connection
        self._made_with = made_with
        self._settings = settings
        self._started = False
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()

    # --- The opening handshake ----------------------------------------------------------------------------

    def _new_websocket(
        self, request: handshake.Request, peer: Any, transport: asyncio.Transport | None
    ) -> ServerConnection:
        """Make what the hooks and the handler hold."""
        ws = self._create_connection(ServerProtocol(logger=self.logger, **self._made_with), self, **self._settings)
        ws.request = request
        ws._peer = peer
        ws._transport = transport
        return ws

    def _note_response(self, ws: Any, head: bytes) -> None:
        ws.response = head

    def _before(self, ws: ServerConnection, request: handshake.Request) -> Any:
        hook = self._hooks[0]
        assert hook is not None
        assert ws.request is not None
        seen = ws.request.path, list(ws.request.headers.raw_items())

        def then(answer: Response | None) -> handshake.Response | None:
            if answer is not None:
                return answer.native()
            assert ws.request is not None
            now = ws.request.path, list(ws.request.headers.raw_items())
            if now != seen:
                request.rewrite(*now)
            return None

        return self._call(ws, "process_request", then, hook, ws.request)

    def _after(self, ws: ServerConnection, request: handshake.Request, response: handshake.Response) -> Any:
        hook = self._hooks[1]
        assert hook is not None
        ws.response = Response.of(response)

        def then(answer: Response | None) -> handshake.Response:
            if answer is not None:
                ws.response = answer
            made: handshake.Response = ws.response.native()
            return made

        return self._call(ws, "process_response", then, hook, ws.request, ws.response)

    def _call(
        self, ws: ServerConnection, name: str, then: Callable[[Any], Any], hook: Callable[..., Any], *args: Any
    ) -> Any:
        """Call a hook, plain or async; what it raises is logged, and answered 500."""

        def failed(exc: Exception) -> handshake.Response:
            ws.protocol.handshake_exc = exc
            ws.logger.error("%s failed", name, exc_info=exc)
            text = "Failed to open a WebSocket connection.\nSee server log for more information.\n"
            return handshake.text_response(500, text)

        async def later(answer: Awaitable[Any]) -> Any:
            try:
                return then(await answer)
            except Exception as exc:
                return failed(exc)

        try:
            answer = hook(ws, *args)
            if isinstance(answer, Awaitable):
                return later(answer)
            return then(answer)
        except Exception as exc:
            return failed(exc)

    def _choose_subprotocol(self, ws: Any, offers: Sequence[str]) -> str | None:
        """Choose among a client's offers by the server's preference, or by `select_subprotocol`."""
        available: Sequence[str] = self._made_with["subprotocols"] or ()
        select = self._hooks[2]
        try:
            if select is not None:
                return select(ws, [Subprotocol(name) for name in offers])
            if not available:
                return None
            if not offers:
                raise NegotiationError("missing subprotocol")
            for name in available:
                if name in offers:
                    return name
            raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(available)}")
        except NegotiationError as exc:
            ws.protocol.handshake_exc = exc
            text = f"Failed to open a WebSocket connection: {exc}.\n"
            raise HandshakeRefused(show(str(exc), 200), handshake.text_response(400, text)) from exc

    def _registration(self, name: str | None) -> native._Registration:
        return native._Registration(handler=self._served)  # type: ignore[arg-type]

    def _handler_failed(self, protocol: ConnectionProtocol, exc: BaseException) -> None:
        """Close a connection with 1011 because its handler raised; log it."""
        protocol.ws.logger.error("connection handler failed", exc_info=exc)
        protocol.start_close(CloseCode.INTERNAL_ERROR, "", CloseCause.HANDLER_ERROR)
        protocol.discard()

    # --- What users call ----------------------------------------------------------------------------------

    @property
    def connections(self) -> set[ServerConnection]:  # type: ignore[override]
        """The connections that are open, as a new set."""
        return {ws for ws in cast(set[ServerConnection], super().connections) if ws.state is OPEN}

    def close(  # type: ignore[override]
        self, close_connections: bool = True, code: CloseCode | int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Begin to stop; `wait_closed` waits for the end.

        Args:
            close_connections: close connections too, else wait for them to end by themselves.
            code: the close code to send.
            reason: the close reason to send.
        """
        if not self.closing:
            self.logger.info("server closing")
        super().close(code, reason, close_connections=close_connections)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that it runs on."""
        return self.loop

    async def serve_forever(self, *args: Any, **kwargs: Any) -> None:
        """Serve until it is cancelled, or `close` is called; then stop in order."""
        await self
        try:
            if not self.is_serving() and not self.closing:
                await self.start_serving()
            await self.wait_closed()
        finally:
            self.close()
            await self.wait_closed()

    async def _begin(self) -> Self:
        if not self._started:
            self._started = True
            await self.start(**self._listen)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begin().__await__()

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()


def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
    origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
    extensions: Sequence[ServerExtensionFactory] | None = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: str | None = "deflate",
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: MaxQueue = 16,
    write_limit: WriteLimit = 2**15,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    **kwargs: Any,
) -> Server:
    """Make a WebSocket server: ``async with serve(handler, host, port):``, or ``server = await serve(...)``.

    Args:
        handler: called with each `ServerConnection`.
        host, port: where to listen.
        origins: the Origin headers that are accepted, None for a client that sends none. Default: any.
        extensions: settings of permessage-deflate; wsfast has no other extension.
        subprotocols: those that the server has, in its order of preference. A client must then offer one of them.
        select_subprotocol: called with the connection and the client's offers; returns the choice, or None.
        compression: ``"deflate"`` or None.
        process_request: called with the connection and the request; may return a response. Plain or async.
        process_response: called with the connection, the request and the response; may return another one.
        server_header: the value of Server; None for none.
        open_timeout, ping_interval, ping_timeout, close_timeout: those of `wsfast.Server`.
        max_size, max_queue, write_limit: those of `connect`.
        logger: default: ``logging.getLogger("websockets.server")``.
        create_connection: makes the `ServerConnection`.
        kwargs: what `wsfast.Server.start` takes besides: `ssl`, `sock`, `start_serving`, ...

    Raises:
        ValueError, TypeError: an argument is wrong.
    """
    if subprotocols is not None:
        validate_subprotocols(subprotocols)
    if compression == "deflate":
        extensions = enable_server_permessage_deflate(extensions)
    elif compression is not None:
        raise ValueError(f"unsupported compression: {compression}")
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        kwargs.pop(name, None)  # `open_timeout` and `close_timeout` are for TLS too
    listen = _address(host, port, kwargs)
    times: dict[str, Any] = {
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "close_timeout": close_timeout,
    }
    sizes: dict[str, Any] = {"max_queue": max_queue, "write_limit": write_limit}
    return Server(
        handler,
        listen,
        (process_request, process_response, select_subprotocol),
        ServerConnection if create_connection is None else create_connection,
        {"origins": origins, "extensions": extensions, "subprotocols": subprotocols, "max_size": max_size},
        {**times, **sizes},
        logger,
        origins=origins,
        compression=only_deflate(extensions),
        server_header=server_header,
        open_timeout=open_timeout,
        **limits(max_size=max_size, **sizes, **times),
    )


def _address(host: str | None, port: int | None, options: dict[str, Any]) -> dict[str, Any]:
    sock = options.get("sock")
    if options.pop("unix", False):
        path = options.get("path")
        if path is None and sock is None:
            raise ValueError("path was not specified, and no sock specified")
        if path is not None and sock is not None:
            raise ValueError("path and sock can not be specified at the same time")
        return options
    if sock is not None and (host is not None or port is not None):
        raise ValueError("host/port and sock can not be specified at the same time")
    return {"host": host, "port": port, **options}


def unix_serve(handler: Handler, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Make a WebSocket server that listens on a Unix socket.

    Args:
        handler: called with each `ServerConnection`.
        path: of the socket; None if `sock` is given.
        kwargs: those of `serve`.
    """
    return serve(handler, unix=True, path=path, **kwargs)


def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool] | bool] | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """Make a `process_request` that lets only those in who have a user name and a password.

    See `wsfast.server.basic_auth`, which it is.
    """
    return auth.basic_auth(realm, credentials, check_credentials)
