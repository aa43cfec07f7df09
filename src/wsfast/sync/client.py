"""`connect` without an event loop."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Unpack

from wsfast.connection import Side
from wsfast.dial.reconnect import Attempts, backoff, was_lost
from wsfast.dial.reconnect import process_exception as default_process_exception
from wsfast.dial.settings import BODY_PATIENCE, ClientOptions, ClientSettings, Hops, part_settings
from wsfast.exceptions import InvalidStatus
from wsfast.handshake import URI, ClientHandshake, HeadLimits, Response, ResponseParser
from wsfast.options import check_values, connection_class
from wsfast.session import Limits

from .dial import SyncDialer
from .link import Deadline, Link
from .websocket import WebSocket

__all__ = ["connect", "reconnect", "unix_connect"]


class ConnectOptions(ClientOptions, total=False):
    """The options of `connect`, for type checkers."""

    local_addr: tuple[str, int] | None
    source_address: tuple[str, int] | None
    address: tuple[str, int] | None
    family: int
    create_connection: type[WebSocket] | None


class PathOptions(ConnectOptions, total=False):
    """The same, with what `unix_connect` takes as an argument of its own."""

    path: str | os.PathLike[str] | None


class _Connector(ClientSettings):
    """One server, and how to connect to it, by the settings of the client on asyncio."""

    _dialer: SyncDialer
    _websocket_type: Callable[..., WebSocket] = WebSocket

    def __init__(
        self,
        uri: str,
        limits: Limits,
        head_limits: HeadLimits,
        *,
        create_connection: type[WebSocket] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(uri, limits, head_limits, SyncDialer, **settings)
        self._limits = limits
        if create_connection is not None:
            self._websocket_type = connection_class(create_connection, WebSocket)

    def connect(self) -> WebSocket:
        """Connect, by way of redirects."""
        timeout = self._limits.open_timeout
        deadline = Deadline(timeout, f"timed out during the opening handshake: it took more than {timeout} s")
        hops = Hops(self)
        while True:
            try:
                return self._establish(hops.uri, hops.handshake(), deadline)
            except InvalidStatus as exc:
                if not hops.follow(exc):
                    raise

    def _establish(self, uri: URI, handshake: ClientHandshake, deadline: Deadline) -> WebSocket:
        link = self._dialer.open(uri, deadline)
        try:
            parser = ResponseParser(limits=self._head_limits)
            link.write(handshake.request.raw)
            response = _receive(link, parser, deadline)
            return self._start(handshake, link, response, parser.trailing)
        except BaseException:
            link.close()
            raise

    def _start(self, handshake: ClientHandshake, link: Link, response: Response, trailing: bytes) -> WebSocket:
        agreement, compression = self._judge(handshake, response)
        ws = self._websocket_type(link, self._limits, request=handshake.request, logger=self._logger)
        ws._open(Side.CLIENT, response, agreement.subprotocol, compression, trailing)
        return ws


def _receive(link: Link, parser: ResponseParser, deadline: Deadline) -> Response:
    """Wait for the response to the opening handshake."""
    patience: Deadline | None = None
    while True:
        try:
            data = link.receive(deadline if patience is None else patience)
        except TimeoutError:
            if parser.head_complete:
                return parser.feed_eof()
            raise
        except OSError as exc:
            return parser.feed_eof(exc)
        if not data:
            return parser.feed_eof(EOFError("the server ended the connection"))
        response = parser.feed(data)
        if response is not None:
            return response
        if parser.head_complete and patience is None:
            patience = deadline.sooner(BODY_PATIENCE)


def connect(uri: str, **options: Unpack[PathOptions]) -> WebSocket:
    """Connect to a WebSocket server, and wait until the connection is open.

    ::

        with connect("wss://example.com/chat") as ws:  # closes at the end
            ws.send("hello")
            print(ws.recv(timeout=5))

        ws = connect("wss://example.com/chat")  # then: ws.close()

    Each connection has a thread that answers pings and keeps it alive, whatever the program does.

    Args:
        uri: ws:// or wss://. Its user name and password become Authorization. International host names are fine.
        sock: a connected socket to use; default none.
        ssl: an `ssl.SSLContext`, for example with a client's certificate. Default, also for True: the certificate is
            verified against the system's authorities.
        server_hostname: the name that the certificate must have; default the URI's host.
        origin: the value of Origin; default none.
        extensions: factories of a program's own extensions to offer, each a `ClientExtensionFactory`; default none.
        subprotocols: to offer, in order of preference; default none. `ws.subprotocol` tells the server's choice.
        compression: None, ``"deflate"``, or a `Deflate`. Default: None.
        additional_headers: more headers, as a mapping or pairs, cookies among them; default none.
        user_agent_header: the value of User-Agent; None for none.
        bearer_token: for Authorization; it takes the place of the URI's user name. Default none.
        proxy: True for the one that the environment names (``https_proxy``, ...), None for none, or an
            address: http://, https:// (TLS to the proxy), socks5://, socks5h://, socks4://, socks4a://, with
            ``user:password@`` if need be. SOCKS needs python-socks. Default: True.
        proxy_ssl: for an https:// proxy, as `ssl`.
        proxy_server_hostname: for an https:// proxy, as `server_hostname`.
        max_redirects: how many redirects are followed; 0 to raise `InvalidStatus` for them. Default: 10.
        process_response: called with the `Request` and the `Response` of each opening handshake, also of one that is
            refused or redirected, before the client acts on it. It may look at the headers, and refuses by raising an
            exception, which the caller of `connect` gets. A plain function; default none.
        create_connection: the class of the connections: a subclass of `WebSocket` with methods of the program's own.
            If it has an `__init__`, that takes the arguments of `WebSocket` and passes them on. Default: `WebSocket`.
        open_timeout: seconds for all of it: name lookup, proxy, TLS, redirects and opening handshake. None for no
            limit. Default: 10.
        ping_interval: seconds between keepalive pings, busy or not; None for no keepalive. Default: 20.
        ping_timeout: seconds after a ping in which anything must be received, or the connection is closed with 1011;
            None for no limit. Default: 20.
        close_timeout: seconds for the server to answer a Close frame, and to end the connection; None for no limit.
            Default: 10.
        max_size: the most bytes of a received message, after decompression; None for no limit. Default: 1 MiB.
        max_fragments: the most frames of a received message; None, the default, for no limit.
        read_limit: bytes received and not yet consumed; above that, reading is paused until a quarter of it is left.
            Each message counts as 64 bytes more than its size. Default: 64 KiB.
        write_limit: bytes written and not yet sent; above that, `send` waits until a quarter of it is left.
            Default: 64 KiB.
        logger: default: ``logging.getLogger("wsfast.client")``.
        options: `max_line`, `max_head` and `max_headers`, which limit the response's head as in `wsfast.connect`;
            `local_addr` (or `source_address`) to connect from, `family`, and `host` and `port` (or `address`) to
            connect to another address than the URI's.

    Raises:
        InvalidURI, InvalidProxy: `uri` or `proxy` is not valid.
        ValueError, TypeError: another argument is wrong.
        OSError: the server cannot be reached, `ssl.SSLError` included.
        InvalidHandshake: the server's answer does not open the connection; subclasses say why, and have `response`.
        ProxyError: the proxy could not be reached, or refused.
        TimeoutError: `open_timeout` has passed.
        ImportError: the proxy is a SOCKS proxy, and python-socks is not installed.
    """
    given: dict[str, Any] = dict(options)
    # As `socket.create_connection` names them, whose options websockets takes.
    check_values(given)
    if (address := given.pop("address", None)) is not None:
        given["host"], given["port"] = address
    if (source := given.pop("source_address", None)) is not None:
        given["local_addr"] = source
    made_of = given.pop("create_connection", None)
    limits, head_limits, settings = part_settings(given)
    return _Connector(uri, limits, head_limits, create_connection=made_of, **settings).connect()


def unix_connect(
    path: str | os.PathLike[str] | None = None, uri: str | None = None, **options: Unpack[ConnectOptions]
) -> WebSocket:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket; None, the default, if `sock` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        options: those of `connect`.

    Raises:
        ValueError: neither `path` nor `sock` is given, or both are; else those of `connect`.
    """
    if (path is None) == (options.get("sock") is None):
        raise ValueError("expected either path or sock")
    if uri is None:
        uri = "ws://localhost/" if options.get("ssl") is None else "wss://localhost/"
    if path is None:
        return connect(uri, **options)
    options["unix"] = True
    return connect(uri, path=path, **options)


def reconnect(
    uri: str,
    *,
    process_exception: Callable[[Exception], Exception | None] = default_process_exception,
    reconnect_delays: Callable[[], Iterator[float]] = backoff,
    **options: Unpack[ConnectOptions],
) -> Iterator[WebSocket]:
    """Connect again and again, with growing delays where that fails.

    ::

        for ws in reconnect("wss://example.com/chat"):
            try:
                for message in ws:
                    print(message)
            except ConnectionClosed:
                continue

    Each connection is closed at the end of its round of the loop.

    Args:
        uri: as for `connect`.
        process_exception: called with what an attempt raised; returns None to try again, or the exception to raise.
            Default: `wsfast.reconnect.process_exception`.
        reconnect_delays: returns an iterable of the seconds between attempts. Default: `wsfast.reconnect.backoff`,
            which never ends. A connection that the server ends within 5 s counts as an attempt that failed. When the
            delays are used up, the loop ends: it raises what the last attempt raised, or just ends after such a
            connection.
        options: those of `connect`, except `sock`.

    Raises:
        TypeError: `sock` is given, which can be used only once; else those of `connect`.
    """
    if options.get("sock") is not None:
        raise TypeError("reconnect() takes no sock: it could be used only once")
    logger = options.get("logger")
    if logger is None:
        logger = logging.getLogger("wsfast.client")
    attempts = Attempts(process_exception, reconnect_delays, logger)
    delay: float | None
    while True:
        try:
            ws = connect(uri, **options)
        except Exception as exc:
            delay = attempts.failed(exc)
        else:
            opened = time.monotonic()
            try:
                yield ws
            finally:
                lost = was_lost(ws)
                ws.close()
            delay = attempts.ended(lost, time.monotonic() - opened)
            if delay is None:
                return
        time.sleep(delay)
