"""How servers on asyncio, in threads and on trio judge and answer an opening handshake (RFC 6455, 4.2).

It is for servers what `dial.settings` is for clients. Nothing here waits: if a hook returns an awaitable, the shell is
asked to await it, or refuses to.
"""

from __future__ import annotations

import logging
import re
import ssl as ssl_module
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar

from .closing import OK_CLOSE_CODES
from .codes import CloseCause
from .deflate.negotiate import accept as accept_compression
from .escape import show, words
from .exceptions import HandshakeRefused, InvalidState, NegotiationError
from .extensions import RSV1, Chain, ServerExtensionFactory
from .extensions import accept as accept_extensions
from .handshake import Origins, Request, Response, accept_response, check_request, refuse
from .handshake import select_subprotocol as first_registered
from .handshake.forwarded import Address, Networks, forwarded_for
from .handshake.headers import build_extensions
from .handshake.uri import format_address
from .http import is_token
from .limits import LimitOptions, take_limits
from .options import check_values
from .session import LONGEST
from .shell import COUNTED
from .telling import tell

if TYPE_CHECKING:
    from .connection import Connection
    from .deflate.context import PerMessageDeflate
    from .handshake import HeadLimits
    from .handshake.forwarded import Proxied
    from .session import Limits
    from .shell import Shell

__all__ = [
    "STOPPING",
    "Accepted",
    "Answering",
    "BaseServer",
    "CountingServer",
    "ServerOptions",
    "accepting_response",
    "check_context",
    "finish_answer",
    "handlers_of",
    "negotiate",
    "tell_end",
]

_B = TypeVar("_B")


STOPPING: Final = "The server is stopping"
"""The body of a refusal while the server is stopping."""

_HANDSHAKE: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
"""Headers that an application may not add to the 101, besides those that begin with Sec-WebSocket."""

_LOST: Final = CloseCause.LOST
_UNTIMELY: Final = frozenset({CloseCause.LOST, CloseCause.KEEPALIVE, CloseCause.TIMEOUT})


class ServerOptions(LimitOptions, total=False):
    """The options of every server except its hooks, for type checkers; `wsfast.Server` documents them."""

    extensions: Sequence[ServerExtensionFactory] | None
    origins: Origins | None
    proxy_protocol: bool | Sequence[str]
    forwarded: Sequence[str] | None
    max_connections: int | None
    stop_timeout: float | None
    response_headers: Mapping[str, str] | None
    server_header: str | None
    logger: logging.Logger | logging.LoggerAdapter[Any] | None


class Accepted(NamedTuple):
    """The result of an accepted opening handshake."""

    head: bytes
    """The response, to be sent first."""
    subprotocol: str | None
    compression: PerMessageDeflate | Chain | None
    """What was negotiated: permessage-deflate, a chain of extensions with or without it, or None."""


# `Accepted(...)` runs code in Python, which takes as long as three calls.
_accepted: Callable[[tuple[bytes, str | None, PerMessageDeflate | Chain | None]], Accepted] = partial(
    tuple.__new__, Accepted
)

Answering: TypeAlias = Generator[Awaitable[Any], Any, Accepted | Response]
"""The steps of an answer: each yields what a hook returned, for the shell to await and to send the result back."""


class BaseServer:
    """The common part of servers on asyncio, in threads and on trio: their options, and how they answer requests.

    Args:
        registered: what serves each subprotocol, None being the key for clients that offer none.
        options: those of `wsfast.Server`; limits are among them.

    Attributes:
        closing: whether the server stops, and accepts no request any more.

    Raises:
        ValueError, TypeError: one of them is wrong; the text names it.
    """

    _tells_closed: ClassVar[bool] = False
    """Whether the log is told of a handler that raises `ConnectionClosed` because its connection has ended."""

    def __init__(
        self,
        registered: Mapping[str | None, Any],
        *,
        process_request: Callable[[Any, Request], Any] | None = None,
        process_response: Callable[[Any, Request, Response], Any] | None = None,
        origins: Origins | None = None,
        select_subprotocol: Callable[[Any, Sequence[str]], str | None] | None = None,
        proxy_protocol: bool | Sequence[str] = False,
        forwarded: Sequence[str] | None = None,
        max_connections: int | None = None,
        stop_timeout: float | None = 10.0,
        response_headers: Mapping[str, str] | None = None,
        server_header: str | None = "wsfast",
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        **limits: Any,
    ) -> None:
        check_values({"server_header": server_header, "logger": logger})
        for name, hook in (
            ("process_request", process_request),
            ("process_response", process_response),
            ("select_subprotocol", select_subprotocol),
        ):
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be callable, got {type(hook).__name__}")
        if max_connections is not None:
            if not isinstance(max_connections, int) or isinstance(max_connections, bool):
                raise TypeError(f"max_connections must be int or None, got {type(max_connections).__name__}")
            if max_connections < 1:
                raise ValueError(f"max_connections must be positive, got {max_connections}")
        if stop_timeout is not None:
            if not isinstance(stop_timeout, (int, float)) or isinstance(stop_timeout, bool):
                raise TypeError(f"stop_timeout must be a number of seconds or None, got {type(stop_timeout).__name__}")
            if not 0 < stop_timeout < inf:
                raise ValueError(f"stop_timeout must be a positive number of seconds or None, got {stop_timeout}")
        if response_headers is not None and not isinstance(response_headers, Mapping):
            raise TypeError(f"response_headers must be a mapping or None, got {type(response_headers).__name__}")
        for subprotocol, handler in registered.items():
            self._check_name(subprotocol)
            if not callable(handler):
                raise TypeError(f"a handler must be callable, got {type(handler).__name__}")
        self.limits: Limits
        self.head_limits: HeadLimits
        self.limits, self.head_limits, unknown = take_limits(limits, sends=True, serves=True)
        if unknown:
            raise TypeError(f"unexpected options: {', '.join(unknown)}")
        self._registered: dict[str | None, Any] = dict(registered)
        self.process_request = process_request
        self.process_response = process_response
        self.origins: Origins | None = None if origins is None else _checked_origins(origins)
        self.select_subprotocol = select_subprotocol
        self.forwarded: Networks | None = None if not forwarded else Networks(forwarded, "forwarded")
        self._proxies: Networks | None = None
        if proxy_protocol is True:
            self._proxies = Networks(["127.0.0.0/8", "::1", "unix"], "proxy_protocol")
        elif proxy_protocol:
            self._proxies = Networks(proxy_protocol, "proxy_protocol")
        self.max_connections = max_connections
        self.stop_timeout: float | None = None if stop_timeout is None else min(stop_timeout, LONGEST)
        self.response_headers: dict[str, str] | None = None if response_headers is None else dict(response_headers)
        self.server_header = server_header
        self._check_response_headers()
        self.logger: Any = logging.getLogger("wsfast.server") if logger is None else logger
        self.closing: bool = False
        self._told_full = False

    def _has_hooks(self) -> bool:
        """Tell whether there are hooks that run before a connection is open."""
        return (self.process_request or self.process_response or self.select_subprotocol) is not None

    def _check_response_headers(self) -> None:
        for name in self.response_headers or ():
            if name.lower() in _HANDSHAKE or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"response_headers must not have {name}: it is part of the handshake")
        accept_response("", headers=self.response_headers, server=self.server_header)

    # --- Dispatch -----------------------------------------------------------------------------------------

    @staticmethod
    def _check_name(name: str | None) -> None:
        if name is None:
            return
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol's name must be str or None, got {type(name).__name__}")
        if not is_token(name):
            raise ValueError(f"a subprotocol's name must be a token (RFC 9110, 5.6.2), got {name!r}")

    def is_registered(self, name: str | None) -> bool:
        """Tell whether a subprotocol, or None, has a handler of any form."""
        return name in self._registered

    def _choose_subprotocol(self, ws: Any, offers: Sequence[str]) -> str | None:
        """Choose among a client's offers (RFC 6455, 4.2.2, item 5.4).

        Raises:
            HandshakeRefused: 400, nothing fits.
        """
        registered = self._registered
        if self.select_subprotocol is not None:
            try:
                chosen = self.select_subprotocol(ws, offers)
            except NegotiationError as exc:
                raise self._no_subprotocol(offers, show(str(exc), 200)) from exc
            if chosen is not None and (chosen not in offers or chosen not in registered):
                lacking = "registered" if chosen in offers else "offered"
                raise RuntimeError(
                    f"select_subprotocol must return a name that is offered and registered, got one not {lacking}"
                )
        else:
            chosen = first_registered(offers, registered) if offers else None
        if chosen is None and (None not in registered or (offers and self.select_subprotocol is None)):
            # A browser drops a connection whose response lacks the subprotocol it asked for: say it here.
            # Not which ones were offered: one may be a token, which browsers can send nowhere else.
            raise self._no_subprotocol(offers, f"no common subprotocol, {len(offers) or 'none'} offered")
        return chosen

    def _no_subprotocol(self, offers: Sequence[str], why: str) -> HandshakeRefused:
        names = ", ".join(name for name in self._registered if name is not None) or "none"
        what = "None of the subprotocols offered is supported" if offers else "A subprotocol is required"
        return refuse(400, f"{what}; supported: {names}", why)

    # --- Proxies in front ---------------------------------------------------------------------------------

    def _sends_header(self, peer: object) -> bool:
        """Tell whether a connection from this peer begins with a header of the PROXY protocol."""
        return self._proxies is not None and peer in self._proxies

    def _forwarded_from(self, request: Request, peer: object) -> Address | None:
        """Return the client's address, if the peer is trusted to tell it in the request's headers, and does."""
        if self.forwarded is None or peer not in self.forwarded:
            return None
        return forwarded_for(request.headers, self.forwarded)

    def _place(self, ws: Shell, request: Request, peer: Any, proxied: Proxied | None) -> Any:
        """Set a connection's address to what the proxies in front of it tell, if they do; return the address."""
        client = self._forwarded_from(request, peer)
        if client is not None or (proxied is not None and proxied.source is not None):
            peer = client or peer
            ws._come_from(peer, None if proxied is None else proxied.destination)
        return peer

    def _tell_no_header(self, exc: ValueError, peer: object) -> None:
        """Log that a trusted proxy did not begin with a valid header of the PROXY protocol."""
        tell(self.logger.info, "connection from %s refused: %s", format_address(peer), exc)

    # --- Room for connections -----------------------------------------------------------------------------

    def _is_full(self, count: int) -> bool:
        """Tell whether `count` connections reach `max_connections`, and log it when that begins."""
        full = self.max_connections is not None and count >= self.max_connections
        if full and not self._told_full:
            told = "connections are refused: there are %d, as many as max_connections allows"
            tell(self.logger.warning, told, self.max_connections)
        self._told_full = full
        return full

    def _no_room(self) -> HandshakeRefused:
        if self.closing:
            return refuse(503, STOPPING)
        return refuse(
            503,
            "The server has as many connections as it may have",
            f"max_connections is {self.max_connections}",
            {"Retry-After": "5"},
        )

    # --- The answer to a request --------------------------------------------------------------------------

    def _answer(
        self, ws: Any, request: Request, peer: Callable[[], Any], refused: HandshakeRefused | None = None
    ) -> Answering:
        """Answer a request: with an `Accepted`, which opens the connection, or with a response that ends it.

        It raises no `Exception`: if a hook does, that is logged, and the answer is 500.

        Args:
            ws: what the hooks are given, and the handler later.
            request: what came.
            peer: returns the client's address, for the log.
            refused: why the request is refused in any case; `process_response` sees that answer too.
        """
        try:
            try:
                if refused is not None:
                    raise refused
                answer = yield from self._judge(ws, request, peer)
            except HandshakeRefused as exc:
                answer = self._refused(exc, peer())
            if self.process_response is not None:
                answer = yield from self._review(ws, request, answer)
            if self.closing and isinstance(answer, Accepted):
                return refuse(503, STOPPING).response
            return answer
        except HandshakeRefused as exc:
            return self._refused(exc, peer())
        except Exception as exc:
            return self._failed(exc)

    def _answer_at_once(self, ws: Any, request: Request, peer: Callable[[], Any]) -> Accepted | Response:
        """Do what `_answer` does, in fewer steps, for a server without hooks (`_has_hooks`)."""
        try:
            answer = self._accept(ws, request)
        except HandshakeRefused as exc:
            return self._refused(exc, peer())
        except Exception as exc:
            return self._failed(exc)
        return refuse(503, STOPPING).response if self.closing else answer

    def _judge(self, ws: Any, request: Request, peer: Callable[[], Any]) -> Answering:
        if self.process_request is not None:
            response = self.process_request(ws, request)
            if isawaitable(response):
                response = yield response
            if isinstance(response, Response):
                told = "connection from %s: process_request answered %r with %d"
                tell(self.logger.debug, told, format_address(peer()), request, response.status_code)
                return response
            if response is not None:
                raise TypeError(f"process_request must return None or a Response, got {type(response).__name__}")
        return self._accept(ws, request)

    def _accept(self, ws: Any, request: Request) -> Accepted:
        """Judge a request by itself, and choose what to accept it with.

        Raises:
            HandshakeRefused: it is not acceptable, or the server is stopping.
        """
        if self.closing:
            raise refuse(503, STOPPING)
        upgrade = check_request(request, self.origins)
        subprotocol = self._choose_subprotocol(ws, upgrade.subprotocols)
        extension, compression = self._negotiate(ws, upgrade.extensions)
        head = accept_response(upgrade.key, subprotocol, extension, self.response_headers, server=self.server_header)
        return _accepted((head, subprotocol, compression))

    def _negotiate(self, ws: Any, offers: Sequence[Any]) -> tuple[str | None, PerMessageDeflate | Chain | None]:
        """Choose among the extensions that a client offered; a face may do it in another way.

        Args:
            ws: the connection; None where its response is built again.
            offers: what was offered.
        """
        return negotiate(self.limits, offers)

    def _review(self, ws: Any, request: Request, answer: Accepted | Response) -> Answering:
        """Let `process_response` see a response, and go on with it, or with the one that it returns."""
        assert self.process_response is not None
        response = answer if isinstance(answer, Response) else Response.from_head(answer.head)
        returned = self.process_response(ws, request, response)
        if isawaitable(returned):
            returned = yield returned
        final = response if returned is None else returned
        if not isinstance(final, Response):
            raise TypeError(f"process_response must return None or a Response, got {type(final).__name__}")
        if final.status_code != 101:
            return final
        if isinstance(answer, Response):
            raise ValueError("process_response must not turn a response that refuses into a 101")
        return answer._replace(head=final.serialize())

    def _refused(self, exc: HandshakeRefused, peer: Any) -> Response:
        """Log a refusal, and return the response that tells the client."""
        tell(self.logger.info, "connection from %s refused: %s", format_address(peer), exc)
        return exc.response

    def _unreadable(self, exc: HandshakeRefused, peer: Any) -> Response:
        """Log a request that cannot be read, and return the answer; a subclass may answer otherwise."""
        return self._refused(exc, peer)

    def _tell_early_end(self, peer: Any, request: Request | None, why: str, set_up: bool) -> None:
        """Log that a client has gone before its opening handshake was finished.

        Args:
            peer: its address.
            request: what it has asked, if that was read.
            why: what is known of the reason; may be empty.
            set_up: whether TCP was set up, and TLS if there is any.
        """
        told = "connection from %s ended before its opening handshake%s"
        tell(self.logger.debug, told, format_address(peer), f": {show(why, 200)}" if why else "")

    def _tell_late(self, peer: Any, request: Request | None, set_up: bool) -> None:
        """Log that an opening handshake took longer than `open_timeout`; for the arguments see `_tell_early_end`."""
        tell(self.logger.info, "connection from %s refused: its opening handshake took too long", format_address(peer))

    def _tell_listening(self, address: Any) -> None:
        """Log an address that the server listens on; a subclass may have other words."""
        tell(self.logger.info, "listening on %s", format_address(address))

    def _tell_end(self, connection: Connection, ws: Any) -> None:
        """Log how a connection ended; a subclass may have other words."""
        tell_end(self.logger, connection, ws)

    def _tell_failure(self, ws: Any, exc: BaseException) -> None:
        """Log that a handler raised; a subclass may log it elsewhere."""
        tell(self.logger.error, "handler for subprotocol %r raised", ws.subprotocol, exc_info=exc)

    def _failed(self, exc: BaseException) -> Response:
        """Log that a hook has failed, and return a response that does not tell the client why."""
        tell(self.logger.error, "opening handshake failed: a hook raised", exc_info=exc)
        return refuse(500, "The server failed to answer the request").response

    def _serialize(self, response: Response, request: Request | None) -> tuple[int, bytes]:
        """Return the status and the bytes of a response that does not open the connection."""
        # RFC 9110, 9.3.2: "the server MUST NOT send content in the response" to HEAD.
        with_body = request is None or request.method != "HEAD"
        try:
            data = response.serialize(with_body=with_body)
        except (ValueError, TypeError) as exc:  # a hook added a header that must not be
            response = self._failed(exc)
            data = response.serialize(with_body=with_body)
        return response.status_code, data

    def _response_anew(self, request: Request, subprotocol: str | None) -> Response:
        """Build the 101 of a connection again; only without `process_response`, which may have changed it."""
        choose = partial(self._negotiate, None)
        return accepting_response(request, subprotocol, choose, self.response_headers, server=self.server_header)


class CountingServer(BaseServer):
    """The common part of servers in threads and on trio: their counters, which any thread may change."""

    topics: Any  # a `Topics`, or None

    def __init__(self, registered: Mapping[str | None, Any], **options: Any) -> None:
        super().__init__(registered, **options)
        self._counting = threading.Lock()
        self._opened = 0
        self._answered: dict[int, int] = {}
        self._causes: dict[CloseCause, int] = {}
        self._closed_totals = dict.fromkeys(COUNTED, 0)
        self._counted: dict[Shell, None] = {}  # those that are open, or whose handler has not returned

    @property
    def counters(self) -> dict[str, Any]:
        """Totals since the start, as a new dict; the same as `wsfast.Server.counters`."""
        with self._counting:
            totals, connections = dict(self._closed_totals), list(self._counted)
            told = {"opened": self._opened, "refused": dict(self._answered), "causes": dict(self._causes)}
        for ws in connections:
            for name, count in ws.counters.items():
                totals[name] += count
        latencies = [ws.latency for ws in connections if ws.latency]
        return {
            "connections": len(connections),
            "handshakes": max(0, self._places() - len(connections)),
            **told,
            **totals,
            "latency": sum(latencies) / len(latencies) if latencies else 0.0,
        }

    def _places(self) -> int:
        """Return how many connections there are, those in their opening handshake among them."""
        raise NotImplementedError  # pragma: no cover

    def _request_answered(self, status_code: int) -> None:
        """Count a request that was answered by HTTP."""
        with self._counting:
            self._answered[status_code] = self._answered.get(status_code, 0) + 1

    def _connection_opened(self, ws: Shell) -> None:
        """Count a connection that has opened."""
        with self._counting:
            self._opened += 1
            self._counted[ws] = None

    def _connection_ended(self, ws: Shell) -> None:
        """Count, and log, a connection that has ended and whose handler has returned."""
        cause = ws._connection.cause or _LOST
        with self._counting:
            self._counted.pop(ws, None)
            for name, count in ws.counters.items():
                self._closed_totals[name] += count
            self._causes[cause] = self._causes.get(cause, 0) + 1
        self._tell_end(ws._connection, ws)


async def finish_answer(steps: Answering, awaited: Awaitable[Any] | None = None) -> Accepted | Response:
    """Go through the steps of an answer to the end, and await what they yield.

    Args:
        steps: what `BaseServer._answer` returned.
        awaited: what to wait for first, where the first step was taken already.
    """
    try:
        if awaited is None:
            awaited = next(steps)
        while True:
            try:
                result = await awaited
            except Exception as exc:
                awaited = steps.throw(exc)
            else:
                awaited = steps.send(result)
    except StopIteration as done:
        answer: Accepted | Response = done.value
        return answer


def negotiate(limits: Limits, offers: Sequence[Any]) -> tuple[str | None, PerMessageDeflate | Chain | None]:
    """Choose among the extensions that a client offers; return the header of the answer, and the extensions."""
    compression, factories = limits.compression, limits.extensions
    if not offers or (compression is None and not factories):
        return None, None
    agreed = accept_compression(compression, offers)
    if factories:
        # RFC 6455, 9.1: frames pass through them in the order of this answer, permessage-deflate first.
        answers, extensions = accept_extensions(factories, offers, 0 if agreed is None else RSV1)
        if extensions:
            context = None if agreed is None else agreed[1]
            return build_extensions([*(() if agreed is None else (agreed[0],)), *answers]), Chain(extensions, context)
    if agreed is None:
        return None, None
    return build_extensions([agreed[0]]), agreed[1]


def accepting_response(
    request: Request,
    subprotocol: str | None,
    choose: Callable[[Sequence[Any]], tuple[str | None, object]],
    headers: Mapping[str, str] | None = None,
    *,
    server: str | None = None,
    lines: bytes = b"",
) -> Response:
    """Build the 101 that accepted a request again.

    `choose` chooses among the offered extensions, as `negotiate` does; `headers`, `server` and `lines` are those of
    `accept_response`.

    With extensions of a program's own it cannot be built again: they would be asked once more, and may answer
    otherwise.
    """
    upgrade = check_request(Request(request.raw))
    extension, _ = choose(upgrade.extensions)
    return Response.from_head(accept_response(upgrade.key, subprotocol, extension, headers, server=server, lines=lines))


def check_context(ssl: object) -> None:
    """Check that `ssl` of a server is None or a server's context.

    Raises:
        ValueError, TypeError: it is not.
    """
    if ssl is None:
        return
    if not isinstance(ssl, ssl_module.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, got {type(ssl).__name__}")
    if ssl.protocol is ssl_module.PROTOCOL_TLS_CLIENT:
        raise ValueError("ssl must be a server's context, got one for clients")


def _checked_origins(origins: Origins) -> Origins:
    """Return a copy of a list of allowed values, types checked: a `str` would be taken letter by letter."""
    if isinstance(origins, str) or not isinstance(origins, Iterable):
        raise TypeError(f"origins must be a list of str, compiled patterns and None, got {type(origins).__name__}")
    for allowed in origins:
        if allowed is not None and not isinstance(allowed, (str, re.Pattern)):
            raise TypeError(
                f"origins must be a list of str, compiled patterns and None, got {type(allowed).__name__} in it"
            )
    return tuple(origins)


def handlers_of(handler: Any, subprotocols: Sequence[str] | None) -> dict[str | None, Any]:
    """Return the handler of each subprotocol, from the arguments of `serve`.

    Raises:
        TypeError: `subprotocols` together with a mapping, or as one `str`.
        ValueError: the mapping is empty.
    """
    if isinstance(handler, Mapping):
        if subprotocols is not None:
            raise TypeError("subprotocols goes with a single handler; a mapping has names of its own")
        if not handler:
            raise ValueError("expected a handler for at least one subprotocol, got an empty mapping")
        return dict(handler)
    if subprotocols is not None and (isinstance(subprotocols, (str, bytes)) or not isinstance(subprotocols, Iterable)):
        raise TypeError(f"expected subprotocols as a list of strings, got {type(subprotocols).__name__}")
    return dict.fromkeys([None, *(subprotocols or ())], handler)


def used_topics(topics: object, bridge: _B | None) -> _B:
    """Return the bridge of a server in threads or on trio to its topics.

    Args:
        topics: its topics, or None.
        bridge: what it uses them through while it serves, or None.

    Raises:
        InvalidState: the server has no topics, or is closed.
    """
    if bridge is None:
        if topics is not None:
            raise InvalidState("the server is closed, and so are its topics")
        raise InvalidState("the server has no topics: give it some, serve(topics=wsfast.Topics())")
    return bridge


def tell_end(logger: Any, connection: Connection, ws: Any, untimely: int = logging.INFO) -> None:
    """Log, in one line, how a connection ended, unless it ended well; that is not an error of this program.

    Args:
        logger: where to.
        connection, ws: the connection.
        untimely: the level of the line about one that was lost, or whose peer did not answer in time, or that it
            closed with a code that says that something is wrong.
    """
    cause = connection.cause or _LOST
    if connection.failure is not None:
        tell(logger.info, "connection from %s failed: %s", format_address(ws.remote_address), connection.failure)
    elif cause in _UNTIMELY:
        tell(logger.log, untimely, "connection from %s: %s", format_address(ws.remote_address), cause.value)
    elif (rcvd := connection.close_rcvd) is not None and rcvd.code not in OK_CLOSE_CODES:
        sent = connection.close_sent
        if connection.rcvd_then_sent or sent is None or sent.code != rcvd.code:  # else it echoes this side's
            told = "connection from %s: %s: the peer sent %s"
            tell(logger.log, untimely, told, format_address(ws.remote_address), cause.value, words(rcvd))
