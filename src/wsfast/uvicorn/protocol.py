"""`Protocol`: uvicorn makes one for each WebSocket connection."""

from __future__ import annotations

import asyncio
import copyreg
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypedDict, Unpack, cast

from ..asgi.bridge import STOP_TIMEOUT, BridgeProtocol, Host
from ..deflate import Deflate, as_deflate
from ..extensions import ServerExtensionFactory, check_factories
from ..handshake.headers import header_line
from ..handshake.uri import format_address
from ..options import refuse_unknown
from ..session import LINGER, Limits, Overflow
from ..telling import tell

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from ..topics import Topics

__all__ = ["Options", "Protocol", "UvicornHost", "configure"]


_STOPPING: Final = "wsfast_stopping"
"""The attribute of uvicorn's state which says that the server stops."""


class Options(TypedDict, total=False):
    """The options of `configure`."""

    compression: Literal["deflate"] | Deflate | None
    extensions: Sequence[ServerExtensionFactory] | None
    max_size: int | None
    max_fragments: int | None
    read_limit: int
    write_limit: int
    max_buffered: int | None
    overflow: Overflow
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    topics: Topics | None


_LIMITS: Final = frozenset(field.name for field in fields(Limits)) - {"open_timeout"}
_NAMES: Final = _LIMITS | {"topics"}


class UvicornHost(Host):
    """What the connections of one uvicorn server share.

    Args:
        config, state: uvicorn's.
        app_state: the state of the lifespan.
        options: those of `configure`, which go before uvicorn's.
        loop: the event loop.

    Attributes:
        config: uvicorn's.
        kind: the class that serves WebSockets; None if uvicorn was told to have others, or nobody, do it.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any] | None,
        options: Mapping[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        graceful = config.timeout_graceful_shutdown
        self.config: Config = config
        self.kind: type[Protocol] | None = chosen(config)
        super().__init__(
            config.loaded_app,
            limits_of(config, {name: options[name] for name in options if name in _LIMITS}),
            loop,
            logging.getLogger("uvicorn.error"),
            version=config.asgi_version,
            root_path=config.root_path,
            state=app_state,
            stop_timeout=STOP_TIMEOUT if graceful is None else None,  # else uvicorn cancels them itself
            fresh_context=getattr(config, "reset_contextvars", False),
            topics=options.get("topics"),
        )
        self.tasks: set[asyncio.Task[None]] = state.tasks
        self._limit = config.limit_concurrency
        self._connections: set[Any] = state.connections
        self._state = state
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._lines = b""

    def header_lines(self) -> bytes:
        """Return uvicorn's headers: Date, Server and those of ``--header``."""
        headers = self._state.default_headers
        if headers is not self._headers:  # uvicorn makes a new list each second
            pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
            self._lines = b"".join(header_line(name, value) for name, value in pairs)
            self._headers = headers
        return self._lines

    def is_full(self) -> bool:
        """Tell whether ``limit_concurrency`` is reached, as uvicorn counts it for HTTP."""
        limit = self._limit
        return limit is not None and (len(self._connections) >= limit or len(self.tasks) >= limit)


def limits_of(config: Config, options: Mapping[str, Any]) -> Limits:
    """Return the limits that uvicorn's options and those of `configure` ask for."""
    # uvicorn's 0 means what None means.
    asked: dict[str, Any] = {
        "max_size": config.ws_max_size or None,
        "ping_interval": config.ws_ping_interval or None,
        "ping_timeout": config.ws_ping_timeout or None,
        "compression": Deflate() if config.ws_per_message_deflate else None,
        **options,
    }
    return Limits(**asked)


class Protocol(BridgeProtocol):
    """A WebSocket connection, for uvicorn's option ``--ws wsfast.uvicorn:Protocol`` or ``uvicorn.run(ws=Protocol)``.

    uvicorn makes one for each connection; its arguments are uvicorn's.
    """

    __slots__ = ("_plain", "_state")

    options: ClassVar[Mapping[str, Any]] = {}
    """What `configure` was given."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        hosts: dict[type[Protocol], UvicornHost] | None = server_state.__dict__.get("wsfast_hosts")
        host = None if hosts is None else hosts.get(type(self))
        if host is None or host.state is not app_state:
            host = self._make_host(config, server_state, app_state, _loop)
        super().__init__(host)
        self._state = server_state
        self._plain = False

    @classmethod
    def _make_host(
        cls,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> UvicornHost:
        """Make what the connections of this class share on one server, or find that of the class with the options."""
        if not config.loaded:
            config.load()
        hosts: dict[type[Protocol], UvicornHost] = state.__dict__.setdefault("wsfast_hosts", {})
        kind = cls.choose(config)
        host = hosts.get(kind)
        # A server that runs again has another lifespan, mostly on another loop.
        if host is None or host.state is not app_state:
            state.__dict__.pop(_STOPPING, None)
            host = UvicornHost(config, state, app_state, kind.options, loop or asyncio.get_running_loop())
        hosts[cls] = hosts[kind] = host
        return host

    @classmethod
    def choose(cls, config: Config) -> type[Protocol]:
        """Return the class whose options go."""
        return cls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport, or by uvicorn's HTTP protocol before it hands the transport over."""
        self._state.connections.add(self)  # type: ignore[arg-type]
        get_protocol = getattr(transport, "get_protocol", None)  # stand-ins in tests may not have it
        before: Any = self if get_protocol is None else get_protocol()
        if before is not self and are_responses_due(before):
            self.opening: Any = _Unanswered(self, before)
            tell(
                self.bridge.host.logger.info,
                "connection from %s: a request for a WebSocket came in one go with others, and is not answered; "
                "--http wsfast.uvicorn:HTTP answers it after them",
                format_address(transport.get_extra_info("peername")),
            )
        else:
            super().connection_made(transport)
            if is_stopping(self._state):
                self.bridge.host.loop.call_later(LINGER, self.bridge.stop)

    def data_received(self, data: bytes) -> None:
        """Called by uvicorn's HTTP protocol, and by a transport that began to read for that one."""
        if self.opening is not None:
            self._plain = True
        super().data_received(data)

    def pause_writing(self) -> None:
        """Called by the transport when more than `write_limit` is unsent."""
        super().pause_writing()
        if isinstance(self.opening, _Unanswered):
            self.opening.http.pause_writing()

    def resume_writing(self) -> None:
        """Called by the transport when less than a quarter of `write_limit` is unsent."""
        super().resume_writing()
        if isinstance(self.opening, _Unanswered):
            self.opening.http.resume_writing()

    def opened(self, transport: asyncio.Transport) -> None:
        """Called when the connection is open."""
        if self._plain and type(transport).__module__.startswith("uvloop"):
            # uvloop chooses how to read when it starts to: now it sees `get_buffer`.
            transport.pause_reading()
            transport.resume_reading()

    def finished(self) -> None:
        """Called when the connection and the application have both ended: until then, uvicorn's stop reaches it."""
        self._state.connections.discard(self)

    def shutdown(self) -> None:
        """Called by uvicorn when it stops."""
        note_stop(self._state)
        self.bridge.stop()


class _Unanswered:
    """What handles a connection whose request for a WebSocket came in one go with others, until it ends.

    uvicorn's protocol has given the connection away and would go on to write responses to the others, between the
    WebSocket's frames. It may finish them instead; then it closes the connection, and a client that gets no answer to
    its last request "MUST be prepared" for that (RFC 9112, 9.3.2).
    """

    __slots__ = ("_protocol", "http")

    def __init__(self, protocol: Protocol, http: Any) -> None:
        self._protocol = protocol
        self.http: Any = http
        http.shutdown()

    def connection_made(self, transport: asyncio.BaseTransport, protocol: Any) -> None:
        raise AssertionError("the connection was made before")

    def data_received(self, data: bytes) -> None:
        """Called with the request, and with what comes behind it: nobody reads it."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.http.connection_lost(exc)
        self._protocol.finished()


def note_stop(state: ServerState) -> None:
    """Note that a server stops.

    uvicorn tells the connections that there are, and then waits for all. One that was accepted may be set up later,
    above all by TLS: it is served, and told by itself, after `LINGER` seconds.
    """
    state.__dict__[_STOPPING] = True


def is_stopping(state: ServerState) -> bool:
    """Tell whether a server stops."""
    return _STOPPING in state.__dict__


def are_responses_due(http: Any) -> bool:
    """Tell whether one of uvicorn's HTTP protocols has responses to finish."""
    cycle = getattr(http, "cycle", None)  # of the latest request that is not for a WebSocket
    return bool(getattr(http, "pipeline", None)) or (cycle is not None and not cycle.response_complete)


def chosen(config: Config) -> type[Protocol] | None:
    """Return the class that is to serve WebSockets; None if uvicorn was told to have others, or nobody, do it."""
    if config.ws == "auto":
        return None if config.interface == "wsgi" else Protocol
    kind = config.ws_protocol_class
    return kind if isinstance(kind, type) and issubclass(kind, Protocol) else None


def configure(**options: Unpack[Options]) -> type[Protocol]:
    """Make a `Protocol` with options of its own, for ``--ws myapp:ws``.

    ::

        ws = wsfast.uvicorn.configure(write_limit=262144, ping_interval=60)

    Args:
        compression: ``"deflate"`` or a `Deflate`; None for none. Default: as ``--ws-per-message-deflate`` says.
        extensions: factories of a program's own extensions to accept, each a `ServerExtensionFactory`. Default: none.
        max_size: the most bytes of a received message; None for no limit. Default: that of ``--ws-max-size``.
        max_fragments: the most frames of a received message; None for no limit. Default: None.
        read_limit: bytes received and not yet consumed, above which reading is paused. Default: 65536.
        write_limit: bytes written and not yet sent, above which ``send`` waits. Default: 65536.
        max_buffered: unsent bytes above which `send_nowait` and `broadcast` obey `overflow`; None for no limit.
            Default: 4194304.
        overflow: what they then do: ``"error"``, ``"drop"`` or ``"close"``. Default: ``"error"``.
        ping_interval: seconds between keepalive pings; None for none. Default: that of ``--ws-ping-interval``.
        ping_timeout: seconds after a ping in which anything must be received; None for no limit. Default: that of
            ``--ws-ping-timeout``.
        close_timeout: seconds for the peer to answer a Close frame; None for no limit. Default: 10.
        topics: what connections subscribe and publish to by the methods of the `WebSocket` that `wsfast.asgi.of` gives.
            The application's lifespan starts and closes it: ``async with topics:``. Default: None.

    Raises:
        TypeError: an option is unknown, or of the wrong type.
        ValueError: an option is out of range.
    """
    refuse_unknown("configure()", options, _NAMES)
    checked: dict[str, Any] = dict(options)
    if "compression" in checked:
        checked["compression"] = as_deflate(checked["compression"])
    if "extensions" in checked:
        checked["extensions"] = check_factories(checked["extensions"], "process_request_params")
    from ..topics import Topics

    topics = checked.get("topics")
    if topics is not None and not isinstance(topics, Topics):
        raise TypeError(f"topics must be a Topics or None, got {type(topics).__name__}")
    Limits(**{name: checked[name] for name in checked if name in _LIMITS})  # raises for what is out of range
    namespace = {"__slots__": (), "__doc__": Protocol.__doc__, "options": checked}
    return cast(type[Protocol], _Configured("Protocol", (Protocol,), namespace))


class _Configured(type):
    """The class of the classes that `configure` makes, which a worker process makes again."""


def _reduce(kind: Any) -> tuple[Any, ...]:
    if kind.options.get("topics") is not None:
        raise TypeError(
            "a class with topics cannot be given to other processes: name it instead, such as ws='myapp:ws'"
        )
    return _again, (dict(kind.options),)


def _again(options: Options) -> type[Protocol]:
    return configure(**options)


copyreg.pickle(_Configured, _reduce)
