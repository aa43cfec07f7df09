"""`serve` without an event loop: handlers are plain functions, and each connection has a thread of its own."""

from __future__ import annotations

import os
import selectors
import socket
import ssl as ssl_module
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, Unpack

from wsfast.closing import encode_close
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Side, State
from wsfast.exceptions import ENDS_PROGRAM, ConnectionClosed, HandshakeRefused
from wsfast.handlers import check_plain_handler
from wsfast.handshake import Request, RequestParser, Response, refuse
from wsfast.handshake.forwarded import Proxied, read_proxied
from wsfast.handshake.uri import format_address
from wsfast.options import connection_class, refuse_unknown
from wsfast.serving import (
    STOPPING,
    Accepted,
    CountingServer,
    ServerOptions,
    check_context,
    finish_answer,
    handlers_of,
    used_topics,
)
from wsfast.session import LINGER
from wsfast.transport.binding import (
    BACKLOG,
    EXHAUSTED,
    PAUSE,
    BindOptions,
    GivenSocket,
    Refusals,
    SocketFile,
    bind,
    check_backlog,
    part_listen,
)
from wsfast.transport.unacknowledged import Progress, unacknowledged

from ..telling import tell
from .link import Deadline, Link
from .websocket import WebSocket

if TYPE_CHECKING:
    from wsfast.bus import Position
    from wsfast.events import BytesLike
    from wsfast.topics import Present, Published, Topics

    from .topics import Bridge

__all__ = ["Handler", "Server", "serve", "unix_serve"]

Handler: TypeAlias = Callable[[WebSocket], object]
ProcessRequest: TypeAlias = Callable[[WebSocket, Request], "Response | None"]
ProcessResponse: TypeAlias = Callable[[WebSocket, Request, Response], "Response | None"]
_Socket: TypeAlias = socket.socket  # a property of `Server` has the module's name
SelectSubprotocol: TypeAlias = Callable[[WebSocket, Sequence[str]], "str | None"]

_BATCH: Final = 64
"""Connections that are accepted between two checks whether the server is to stop."""
_MOST_SURPLUS: Final = 64
"""With `max_connections` reached, so many clients at a time are answered 503; others are dropped."""


class ServeOptions(ServerOptions, BindOptions, total=False):
    """The options of `serve`, for type checkers."""

    process_request: ProcessRequest | None
    process_response: ProcessResponse | None
    select_subprotocol: SelectSubprotocol | None
    topics: Topics | None


class _Stopping(Exception):
    """The server stops, and the opening handshake is not finished."""


class _OpeningDeadline(Deadline):
    """The deadline of an opening handshake, which ends too when the server stops."""

    __slots__ = ("_server",)

    def __init__(self, server: Server, timeout: float | None) -> None:
        super().__init__(timeout)
        self._server = server

    def left(self) -> float | None:
        if self._server.closing:
            raise _Stopping
        return super().left()


class _Served:
    """One connection, from when it is accepted until its handler has returned: what its thread does.

    Args:
        server: that accepted it.
        link: the connection.
        peer: its address.
    """

    __slots__ = ("_link", "_peer", "_server", "thread", "ws")

    def __init__(self, server: Server, link: Link, peer: Any) -> None:
        self._server = server
        self._link = link
        self._peer = peer
        self.ws: WebSocket | None = None  # from when it is open
        self.thread = threading.Thread(target=self._run, name="wsfast-serve", daemon=True)

    def _run(self) -> None:
        try:
            self._open()
            if self.ws is not None:
                self._handle(self.ws)
        except Exception as exc:
            tell(self._server.logger.error, "a connection's thread failed", exc_info=exc)
        finally:
            if self.ws is None:
                self._link.close()
            self._server._forget(self)

    # --- The opening handshake

    def _open(self) -> None:
        server, link, peer = self._server, self._link, self._peer
        deadline = _OpeningDeadline(server, server.limits.open_timeout)
        request: Request | None = None
        proxied: Proxied | None = None
        set_up = False
        try:
            if server._sends_header(peer):
                proxied = self._take_proxied(deadline)
                if proxied is None:
                    return
                peer = proxied.source or peer
            if server._ssl is not None:
                link.start_tls(server._ssl, None, deadline, server_side=True)
            set_up = True
            parser = RequestParser(server.head_limits)
            while request is None:
                data = link.receive(deadline)
                if not data:
                    raise ConnectionResetError("the client ended it")
                request = parser.feed(data)
            try:
                ws = server._create_connection(link, server.limits, request=request, logger=server.logger)
                ws._bridge = server._bridge
                peer = server._place(ws, request, peer, proxied)
            except Exception as exc:  # of the program's class
                self._answer(server._failed(exc), request)
                return
            answer: Accepted | Response = run_to_end(finish_answer(server._answer(ws, request, lambda: peer)))
            deadline.left()
        except HandshakeRefused as exc:
            self._answer(server._unreadable(exc, peer), None)
        except TimeoutError:
            server._tell_late(peer, request, set_up)
        except _Stopping:
            if request is not None:
                self._answer(refuse(503, STOPPING).response, request)
        except OSError as exc:
            server._tell_early_end(peer, request, str(exc), set_up)
        except (Exception, *ENDS_PROGRAM):
            raise
        except BaseException as exc:
            self._answer(server._failed(exc), request)
        else:
            if isinstance(answer, Response):
                self._answer(answer, request)
                return
            with server._lock:
                # From here on it is `stop` that tells the connection of the server's end.
                if not server.closing:
                    link.write(answer.head)
                    ws._open(
                        Side.SERVER,
                        Response.from_head(answer.head),
                        answer.subprotocol,
                        answer.compression,
                        parser.trailing,
                    )
                    self.ws = ws
                    server._connection_opened(ws)
                    return
            self._answer(refuse(503, STOPPING).response, request)

    def _take_proxied(self, deadline: Deadline) -> Proxied | None:
        """Receive the header of the PROXY protocol; None if it is not valid, which the log is told."""
        held = b""
        while True:
            data = self._link.receive(deadline)
            if not data:
                raise ConnectionResetError("the proxy ended it")
            held += data
            try:
                proxied = read_proxied(held)
            except ValueError as exc:
                self._server._tell_no_header(exc, self._peer)
                return None
            if proxied is not None:
                self._link.give_back(held[proxied.size :])
                return proxied

    def _answer(self, response: Response, request: Request | None) -> None:
        """Send a response, and end (RFC 9112, 9.6: in steps, so that the peer can read it)."""
        link = self._link
        status_code, data = self._server._serialize(response, request)
        self._server._request_answered(status_code)
        link.write(data)
        link.end()
        progress = Progress(self._untaken())
        with suppress(OSError):
            while True:
                deadline = Deadline(LINGER)
                try:
                    while link.receive(deadline):
                        pass
                    return
                except TimeoutError:
                    if self._server.closing or not progress.goes_on(self._untaken()):
                        return

    def _untaken(self) -> int:
        """Return how many bytes of what was sent the peer has not taken."""
        return self._link.unsent + unacknowledged(self._link.sock)

    # --- The open connection

    def _handle(self, ws: WebSocket) -> None:
        server = self._server
        code, cause = CloseCode.INTERNAL_ERROR, CloseCause.HANDLER_ERROR
        try:
            server._registered[ws.subprotocol](ws)
            code, cause = CloseCode.NORMAL_CLOSURE, CloseCause.LOCAL
        except ENDS_PROGRAM:
            raise
        except BaseException as exc:
            # That the connection has ended, or its writing has failed, is no fault of the handler's.
            is_open = ws._connection.state is State.OPEN and ws._link.broken is None
            tells = is_open or (server._tells_closed and ws._link.broken is None)
            if tells or not isinstance(exc, ConnectionClosed):
                server._tell_failure(ws, exc)
        finally:
            ws._leave(code, cause)
            server._connection_ended(ws)

    # --- The end of the server

    def stop(self, code: int, reason: str) -> None:
        """Begin to close the connection, or to refuse the request."""
        ws = self.ws
        if ws is None:
            self._link.wake()
        else:
            ws._begin_close(code, reason, CloseCause.STOP)

    def drop(self) -> None:
        """End the connection at once; its handler learns of that when it next uses the connection."""
        if self.ws is not None:
            self.ws._drop(CloseCause.STOP)


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for; there is no event loop that could wait."""
    try:
        coroutine.send(None)
        coroutine.throw(TypeError("a hook of wsfast.sync.serve must not wait: expected a plain function"))
    except StopIteration as done:
        return done.value
    raise RuntimeError("a coroutine goes on waiting")


class Server(CountingServer):
    """A server that `serve` made: it listens, and `serve_forever` accepts connections.

    The methods have the names and meanings of `socketserver.BaseServer`. It is a context manager: leaving the ``with``
    block calls `shutdown`.

    Attributes:
        topics: the argument of `serve`.
    """

    def __init__(
        self,
        handlers: Mapping[str | None, Handler],
        *,
        ssl: ssl_module.SSLContext | None,
        create_connection: Callable[..., WebSocket],
        topics: Topics | None = None,
        **options: Any,
    ) -> None:
        check_context(ssl)
        super().__init__(handlers, **options)
        self.topics = topics
        self._bridge: Bridge | None = None
        self._ssl = ssl
        self._create_connection = create_connection
        self._sockets: list[socket.socket] = []
        self._left: SocketFile | GivenSocket | None = None
        self._served: set[_Served] = set()
        # Reentrant, for a signal's handler may call `shutdown` in the middle of `serve_forever`.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # a connection has ended, or `serve_forever` has
        self._accepting: set[threading.Thread] = set()  # those that are in `serve_forever`

    def _listen(self, sockets: list[_Socket], left: SocketFile | GivenSocket | None, backlog: int) -> None:
        try:
            for one in sockets:
                one.setblocking(False)
                one.listen(backlog)
            self._wake_in, self._wake_out = socket.socketpair()
        except BaseException:
            for one in sockets:
                one.close()
            if left is not None:
                left.remove()
            raise
        self._sockets, self._left = sockets, left

    def __repr__(self) -> str:
        return f"<wsfast.sync.Server {'closing' if self.closing else 'open'}, {len(self._served)} connections>"

    # --- What it is

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, one for each address of `host`; empty once the server is closed."""
        return tuple(self._sockets)

    @property
    def socket(self) -> socket.socket:
        """The first of `sockets`.

        Raises:
            ValueError: the server is closed.
        """
        if not self._sockets:
            raise ValueError("the server is closed: it listens no more")
        return self._sockets[0]

    def fileno(self) -> int:
        """Return the descriptor of `socket`, or -1 once the server is closed."""
        return self._sockets[0].fileno() if self._sockets else -1

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open, as a new set."""
        with self._lock:
            return {one.ws for one in self._served if one.ws is not None and one.ws._connection.state is State.OPEN}

    # --- What it does

    def serve_forever(self) -> None:
        """Accept connections until `shutdown` is called, in another thread, a handler or a signal's handler."""
        with self._lock:
            if self.closing:
                return
            self._accepting.add(threading.current_thread())
        try:
            for sock in self._sockets:
                self._tell_listening(sock.getsockname())
            _Acceptor(self).run()
        finally:
            with self._lock:
                self._accepting.discard(threading.current_thread())
                self._release()
                self._changed.notify_all()

    def shutdown(self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop: accept no more, close each connection with 1001, and wait until all handlers have returned.

        An opening handshake under way is answered 503, if the request has come. When most of `stop_timeout` has
        passed, the connections that are left are dropped; at its end this returns, and logs how many handlers still
        run: a thread cannot be cancelled, but such threads do not keep the process from ending. A handler that calls
        this is not waited for.

        Args:
            close_connections: False waits for connections that are open to end by themselves, however long that takes.
                Default: True.
            code: the close code to send. Default: 1001.
            reason: the close reason to send. Default: none.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        encode_close(code, reason)
        end = None if self.stop_timeout is None else time.monotonic() + self.stop_timeout
        with self._lock:
            self.closing = True
            for sock in self._sockets:
                with suppress(OSError):  # where a listening socket cannot be shut down, it is closed a moment later
                    sock.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                self._wake_out.send(b"\0")  # never read: each call of `serve_forever` sees it
            served = list(self._served)
        for one in served:
            if close_connections or one.ws is None:
                one.stop(code, reason)
        if not close_connections:
            end = None
        self._wait(lambda: self._accepting <= {threading.current_thread()}, end, 0.0)
        self._release()
        if not self._wait(self._is_idle, end, 0.0 if self.stop_timeout is None else 0.2 * self.stop_timeout):
            for one in self._others():
                one.drop()
            if not self._wait(self._is_idle, end, 0.0):
                told = "%d handlers are still running %s s after the server was told to stop"
                tell(self.logger.error, told, len(self._others()), self.stop_timeout)

        with self._lock:
            bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()

    # --- Topics

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
        wait: bool = True,
    ) -> Position | None:
        """Send a message to all who subscribed to a topic, in all processes; any thread may call it.

        Args:
            topic, message, key, text, compress: those of `Topics.publish`.
            wait: whether to wait until the bus has taken the message. Default: True.

        Returns:
            The message's `Position` in a topic with a history, if `wait` is set; else None.

        Raises:
            ValueError, TypeError, UnicodeError: the topic's name, the message or the key is not valid.
            InvalidState: the server has no topics, or is closed.
            BusUnavailable: if `wait` is set: other processes may not get it.
        """
        return self._topics_bridge().publish(topic, message, key, text, compress, None, wait)

    def present(self, topic: str) -> list[Present]:
        """Return who is present in a topic; see `Topics.present`."""
        bridge = self._topics_bridge()
        assert self.topics is not None
        topics = self.topics
        return bridge.call(lambda: topics.present(topic))

    def history(self, topic: str, since: Position | str | None = None) -> list[Published]:
        """Return the messages that are kept of a topic, oldest first; see `Topics.history`."""
        return self._topics_bridge().history(topic, since)

    def _topics_bridge(self) -> Bridge:
        return used_topics(self.topics, self._bridge)

    # --- The end of what it listens on

    def _release(self) -> None:
        """Close the listening sockets, once nobody accepts any more."""
        with self._lock:
            if not self.closing or not self._accepting <= {threading.current_thread()}:
                return
            sockets, self._sockets = self._sockets, []
            for sock in sockets:
                sock.close()
            if self._left is not None:
                self._left.remove()
            if not self._accepting:
                self._wake_in.close()
                self._wake_out.close()

    def _others(self) -> list[_Served]:
        with self._lock:
            return [one for one in self._served if one.thread is not threading.current_thread()]

    def _is_idle(self) -> bool:
        return not self._others()

    def _wait(self, condition: Callable[[], bool], end: float | None, reserve: float) -> bool:
        """Wait for a condition until `reserve` seconds before `end`."""
        with self._lock:
            return self._changed.wait_for(condition, None if end is None else end - reserve - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    # --- What its connections call

    def _begin(self, sock: _Socket, peer: Any) -> bool:
        """Serve a connection in a thread; False if there are too many.

        Raises:
            OSError: the system has no room for it; the socket is closed.
        """
        with self._lock:
            if self._is_full(len(self._served)) or self.closing:
                return False
            try:
                served = _Served(self, Link(sock), peer)
            except BaseException:
                sock.close()
                raise
            self._served.add(served)
            try:
                served.thread.start()
            except RuntimeError as exc:
                self._served.discard(served)
                served._link.close()
                raise OSError(f"no thread for a connection: {exc}") from exc
            return True

    def _places(self) -> int:
        return len(self._served)

    def _forget(self, served: _Served) -> None:
        with self._lock:
            self._served.discard(served)
            self._changed.notify_all()


class _Acceptor:
    """What one call of `serve_forever` does.

    Args:
        server: whose sockets it accepts on.
    """

    __slots__ = ("_again_at", "_refusals", "_selector", "_server", "_surplus")

    def __init__(self, server: Server) -> None:
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._surplus: dict[socket.socket, float] = {}  # connections that were refused, and until when they are read
        self._refusals = Refusals(server.logger)
        self._again_at: float | None = None  # when to accept again

    def run(self) -> None:
        server = self._server
        try:
            self._selector.register(server._wake_in, selectors.EVENT_READ)
            self._watch(server._sockets)
            while True:
                ready = self._selector.select(self._timeout())
                if server.closing:
                    return
                now = time.monotonic()
                if self._again_at is not None and now >= self._again_at:
                    self._again_at = None
                    self._watch(server._sockets)
                    for listening in server._sockets:
                        if self._again_at is None:
                            self._accept(listening)  # at once, for the log: where no connection waits, none is ready
                for key, _ in ready:
                    sock: Any = key.fileobj
                    if sock in self._surplus:
                        self._read_surplus(sock)
                    elif self._again_at is None:
                        self._accept(sock)
                for sock in [sock for sock, until in self._surplus.items() if now >= until]:
                    self._end_surplus(sock)
        finally:
            for sock in list(self._surplus):
                self._end_surplus(sock)
            self._selector.close()

    def _timeout(self) -> float | None:
        moments = [*self._surplus.values(), *(() if self._again_at is None else (self._again_at,))]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _watch(self, sockets: Iterable[socket.socket]) -> None:
        for sock in sockets:
            self._selector.register(sock, selectors.EVENT_READ)

    def _accept(self, listening: socket.socket) -> None:
        server = self._server
        for _ in range(_BATCH):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as exc:
                if server.closing:
                    return
                if exc.errno in EXHAUSTED:
                    self._pause(exc)
                elif listening.fileno() == -1 or not _listens(listening):
                    tell(server.logger.error, "no connections are accepted any more on %r: %s", listening, exc)
                    self._selector.unregister(listening)
                # Else it is the connection that has failed, which Linux tells here.
                return
            try:
                if not server._begin(sock, peer):
                    self._refuse(sock)
            except OSError as exc:
                if exc.errno is None or exc.errno in EXHAUSTED:
                    self._pause(exc)
                    return
                tell(server.logger.debug, "connection from %s ended at once: %s", format_address(peer), exc)
        self._refusals.accepted(time.monotonic())

    def _pause(self, exc: OSError) -> None:
        now = time.monotonic()
        self._refusals.refused(exc, now)
        for sock in self._server._sockets:
            with suppress(KeyError):
                self._selector.unregister(sock)
        self._again_at = now + PAUSE

    # --- Connections beyond the limit

    def _refuse(self, sock: socket.socket) -> None:
        """Answer 503 without a thread; unread bytes would make the end a reset, which destroys the answer."""
        if self._server._ssl is not None or len(self._surplus) >= _MOST_SURPLUS:
            sock.close()
            return
        try:
            sock.setblocking(False)
            sock.send(self._server._no_room().response.serialize())
            self._server._request_answered(503)
            sock.shutdown(socket.SHUT_WR)
            self._selector.register(sock, selectors.EVENT_READ)
        except OSError:
            sock.close()
            return
        self._surplus[sock] = time.monotonic() + LINGER

    def _read_surplus(self, sock: socket.socket) -> None:
        try:
            if sock.recv(65536):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._end_surplus(sock)

    def _end_surplus(self, sock: socket.socket) -> None:
        if self._surplus.pop(sock, None) is not None:
            self._selector.unregister(sock)
            sock.close()


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def serve(
    handler: Handler | Mapping[str | None, Handler],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
    path: str | os.PathLike[str] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    subprotocols: Sequence[str] | None = None,
    create_connection: type[WebSocket] | None = None,
    **options: Unpack[ServeOptions],
) -> Server:
    """Listen for WebSocket connections; `Server.serve_forever` accepts them.

    ::

        def echo(ws):
            for message in ws:
                ws.send(message)

        with wsfast.sync.serve(echo, "127.0.0.1", 8765) as server:
            server.serve_forever()

    Each connection has two threads: one runs the opening handshake and the handler, the other moves its bytes. For more
    than some hundred connections `wsfast.serve` is the better choice.

    Returning from a handler closes the connection with 1000; an exception closes it with 1011 and is logged.

    Args:
        handler: a function that is called with each `WebSocket`, or a mapping of subprotocols to such functions, None
            being the key for clients that offer none.
        host: a name or an address, several of them, or None for all interfaces. Default: None.
        port: 0 for any free one; ``server.socket.getsockname()[1]`` tells which. Default: none.
        sock: a bound socket, instead of host and port. It is the server's from then on, and is closed with it. Default:
            none.
        path: of a Unix socket, instead of host and port. Default: none.
        ssl: for wss://, a server's context. Default: none.
        subprotocols: names that a single `handler` serves as well as clients that offer none. Default: none.
        process_request, process_response, select_subprotocol: hooks as of `wsfast.Server`, but plain functions, which
            run in the connection's thread, within `open_timeout`.
        origins, proxy_protocol, forwarded, compression, response_headers, server_header: those of `wsfast.Server`.
        max_line, max_head, max_headers, max_size, max_fragments, read_limit, write_limit: those of `wsfast.Server`.
        open_timeout, ping_interval, ping_timeout, close_timeout: those of `wsfast.Server`.
        max_connections: the most connections at a time, those in their opening handshake and those whose handler has
            not returned among them; further clients are answered 503. None for no limit. Default: 1000.
        stop_timeout: seconds within which `Server.shutdown` ends; None waits for handlers however long they take.
            Default: 10.
        topics: a `wsfast.Topics`, to which connections can subscribe. It runs in a thread of its own, in which its
            hooks are called; servers may share it. If a `wsfast.Server` has started it, it goes on running there.
        logger: default: ``logging.getLogger("wsfast.server")``.
        create_connection: the class of the connections: a subclass of `WebSocket` with methods of the program's own.
            If it has an `__init__`, that takes the arguments of `WebSocket` and passes them on. Default: `WebSocket`.
        options: those above without a default in the signature, and `backlog`, the connections that the system may hold
            before they are accepted (default 1024); with host and port, `family`, `flags`, `reuse_address`,
            `reuse_port` and `keep_alive` as `asyncio` takes them.

    Raises:
        OSError: the address cannot be bound.
        ValueError, TypeError: an argument is wrong; the text names it.
    """
    refuse_unknown("serve()", options, ServeOptions.__annotations__, serve.__kwdefaults__ or ())
    listen, rest = part_listen(options)
    handlers = handlers_of(handler, subprotocols)
    for each in handlers.values():
        check_plain_handler(each, "ws")
    server = Server(
        handlers,
        ssl=ssl,
        create_connection=connection_class(create_connection, WebSocket),
        **{"max_connections": 1000, **rest},
    )
    backlog = check_backlog(listen.pop("backlog", BACKLOG))
    server._listen(*bind(host, port, sock, path, listen), backlog)
    if server.topics is not None:
        from .topics import Bridge  # with asyncio, which is not needed without

        try:
            server._bridge = Bridge(server.topics)
        except BaseException:
            server.shutdown()
            raise
    return server


def unix_serve(
    handler: Handler | Mapping[str | None, Handler], path: str | os.PathLike[str] | None = None, **options: Any
) -> Server:
    """Listen on a Unix socket.

    Args:
        handler, options: those of `serve`.
        path: of the socket; None if `sock` is given. Its file is removed by `Server.shutdown`. Default: none.

    Raises:
        ValueError: neither `path` nor `sock` is given, or both are; else those of `serve`.
    """
    if (path is None) == (options.get("sock") is None):
        raise ValueError("expected either path or sock")
    return serve(handler, path=path, **options)
