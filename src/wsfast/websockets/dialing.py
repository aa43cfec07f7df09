"""What the clients of `websockets` do before they connect, the same on asyncio and in threads."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin

from wsfast import exceptions as native
from wsfast import handshake
from wsfast.escape import without_query, words
from wsfast.extensions import Chain
from wsfast.session import Marks

from .client import ClientProtocol
from .datastructures import Headers, HeadersLike
from .exceptions import InvalidHandshake, InvalidStatus, SecurityError
from .extensions import permessage_deflate
from .extensions.permessage_deflate import enable_client_permessage_deflate, only_deflate
from .frames import Frame, Opcode
from .headers import check_upgrade, validate_subprotocols
from .http11 import Response
from .protocol import Protocol, log_headers
from .proxy import parse_proxy
from .translate import translate
from .typing import LoggerLike
from .uri import WebSocketURI, parse_uri

__all__ = ["MAX_REDIRECTS", "Dialing", "MaxQueue", "Retries", "WriteLimit", "chain", "limits", "marks"]

MAX_REDIRECTS = int(os.environ.get("WEBSOCKETS_MAX_REDIRECTS", "10"))
MAX_FRAGMENTS = int(os.environ.get("WEBSOCKETS_MAX_FRAGMENTS", "4096"))

MaxQueue = int | tuple[int | None, int | None] | None
WriteLimit = int | tuple[int, int | None]

_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
# What the handshake says anyway; some programs say it once more.
_SAID = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
_SILENT = logging.Logger("websockets.client", logging.CRITICAL + 1)
_NO_LIMIT = 2**62
_COUNTED = 16
_ROOM = 4096


@lru_cache
def marks(max_queue: MaxQueue) -> Marks:
    """Return when reading is paused, and goes on, by a `max_queue` of websockets: a number of messages, or two.

    A few are counted as websockets does it. From its default on, which is there to bound the memory, each counts for
    its bytes, up to 4 KiB: so reading is never paused with fewer than websockets would hold, and there may be more
    small ones, since to pause and resume the transport for each sixteen of them would cost a fifth more.

    Raises:
        ValueError: the numbers are not in order.
    """
    high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
    if high is None:
        if low is None:
            return Marks(_NO_LIMIT, _NO_LIMIT)
        high = low * 4
    elif low is None:
        low = high // 4
    if low < 0:
        raise ValueError("low must be positive or equal to zero")
    if high < low:
        raise ValueError("high must be greater than or equal to low")
    return Marks(high, low, 0, 1) if high < _COUNTED else Marks(_ROOM * high, _ROOM * low, most=_ROOM)


def limits(
    *,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: MaxQueue = 16,
    write_limit: WriteLimit = 2**15,
    **others: Any,
) -> dict[str, Any]:
    """Turn limits of `websockets` into those of wsfast, of which each is one number."""
    marks(max_queue)  # raises, if it does
    write_high = write_limit[0] if isinstance(write_limit, tuple) else write_limit
    return {
        "max_size": max_size[0] if isinstance(max_size, tuple) else max_size,
        "read_limit": 65536,  # of what comes within the opening handshake: for messages, `marks` are used
        "write_limit": max(write_high, 1),
        "max_fragments": MAX_FRAGMENTS,
        "max_buffered": None,
        **others,
    }


class Shown:
    """Stands among the extensions of a connection whose log wants DEBUG, and tells it of each frame.

    Args:
        protocol: that of the connection; None as long as there is no connection.
        logger: used as long as there is no connection.
    """

    def __init__(self, protocol: Protocol | None, logger: Any) -> None:
        self.protocol = protocol
        self._logger = logger

    def _tell(self, text: str, *args: object) -> None:
        ws = None if self.protocol is None else self.protocol._websocket
        (self._logger if ws is None else ws.logger).debug(text, *args)

    def encode(self, frame: Frame) -> Frame:
        """Tell of a frame that is sent."""
        self._tell("> %s", frame)
        if frame.opcode is Opcode.CLOSE:
            self._tell("= connection is CLOSING")
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Tell of a frame that came."""
        self._tell("< %s", frame)
        return frame


def chain(extensions: Sequence[Any], logger: Any, shown: Shown | None = None) -> Chain:
    """Make what applies extensions to the frames of a connection, permessage-deflate among them, in their order.

    Which bits of frames they use, those of `websockets` do not say: they may use any.

    Args:
        extensions: in the order in which frames that are sent pass through them.
        logger: gets exceptions that they raise and must not.
        shown: sees the frames as the program does.
    """
    seen = extensions if shown is None else [shown, *extensions]
    return Chain(seen, frame_type=Frame, reserved=0x70 if extensions else 0, logger=logger)


class Dialing:
    """One server, and how to connect to it; a class puts it in front of wsfast's own."""

    uri: str
    ws_uri: WebSocketURI
    additional_headers: HeadersLike | None
    _parsed: handshake.URI
    _prepared: Any
    _known_headers: list[tuple[str, str]] | None = None
    _compression: Any
    _agreed: list[Any] | None = None  # extensions of the connection that is being made
    _shown: Shown | None = None  # what tells of its frames, if there is any

    def prepare(
        self,
        uri: str,
        *,
        origin: Any,
        extensions: Sequence[Any] | None,
        subprotocols: Sequence[Any] | None,
        compression: str | None,
        additional_headers: HeadersLike | None,
        user_agent_header: str | None,
        proxy: Any,
        open_timeout: float | None,
        times: dict[str, Any],
        max_size: Any,
        sizes: dict[str, Any],
        logger: Any,
        max_redirects: int,
        kwargs: dict[str, Any],
    ) -> dict[str, Any]:
        """Check the arguments of `connect`, and return the options of wsfast's.

        Raises:
            InvalidURI, ValueError, TypeError: an argument is wrong.
        """
        self.ws_uri = parse_uri(uri)
        _check_tls(self.ws_uri.secure, proxy, kwargs)
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        if compression == "deflate":
            extensions = enable_client_permessage_deflate(extensions)
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        self.additional_headers = additional_headers
        self.create_connection_kwargs = kwargs
        self._made_with: dict[str, Any] = {
            "origin": origin,
            "extensions": extensions,
            "subprotocols": subprotocols,
            "max_size": max_size,
            "logger": logger,
        }
        self.logger: Any = logging.getLogger("websockets.client") if logger is None else logger
        self._times = times
        self._sizes = sizes
        self._most_redirects = max_redirects
        if isinstance(proxy, str):
            parse_proxy(proxy)  # raises, if it does
        return {
            "origin": origin,
            "subprotocols": subprotocols,
            "compression": only_deflate(extensions),
            "additional_headers": _pairs(additional_headers),
            "user_agent_header": user_agent_header,
            "proxy": proxy,
            "max_redirects": max_redirects,
            "open_timeout": open_timeout,
            "logger": self.logger,
            **limits(max_size=max_size, **times, **sizes),
            **kwargs,
        }

    def _protocol(self) -> ClientProtocol:
        # Which would tell the log of its state; `_judge` does that, and once.
        protocol = ClientProtocol(self.ws_uri, **(self._made_with | {"logger": _SILENT}))
        protocol.logger = self.logger
        protocol.debug = self.logger.isEnabledFor(logging.DEBUG)
        if self._shown is not None:
            self._shown.protocol, self._shown = protocol, None
        if self._agreed is not None:
            protocol.extensions, self._agreed = self._agreed, None
        return protocol

    @property
    def _headers(self) -> list[tuple[str, str]] | None:
        """The additional headers as they are now: a program may change them between two connections."""
        headers = _pairs(self.additional_headers)
        if headers != self._known_headers:
            self._known_headers = headers
            self._prepared = None  # it has those from before
        return headers

    @_headers.setter
    def _headers(self, headers: list[tuple[str, str]] | None) -> None:
        self._known_headers = headers

    def _offer(self) -> Any:
        """Return the extensions to offer."""
        return [(factory.name, factory.get_request_params()) for factory in self._made_with["extensions"] or ()]

    def _confirm(self, chosen: Any) -> Any:
        """Judge the extensions that the server chose, and return the object that applies them."""
        debug = self.logger.isEnabledFor(logging.DEBUG)
        self._agreed = None
        extensions = self._protocol()._confirm_extensions(chosen)
        if not debug and self._compression is not None:
            return permessage_deflate.native(self._compression, extensions)
        if not extensions and not debug:
            return None
        self._agreed = extensions
        self._shown = Shown(None, self.logger) if debug else None
        return chain(extensions, self.logger, self._shown)

    def _judge(self, opening: Any, response: handshake.Response) -> Any:
        """Judge a response, and tell a log that wants DEBUG of it."""
        debug = self.logger.isEnabledFor(logging.DEBUG)
        if debug:
            request = opening.request
            self.logger.debug("= connection is CONNECTING")
            self.logger.debug("> GET %s HTTP/1.1", without_query(request.path))
            log_headers(self.logger, ">", Headers(request.headers.items()))
            self.logger.debug("< HTTP/1.1 %d %s", response.status_code, words(response.reason_phrase))
            log_headers(self.logger, "<", Headers(response.headers.items()))
        judged = super()._judge(opening, response)  # type: ignore[misc]
        if debug:
            self.logger.debug("= connection is OPEN")
        return judged

    def _told_as(self, exc: BaseException) -> BaseException:
        """Return the exception that websockets raises in place of one of wsfast's; see `translate`.

        A response that was judged by wsfast is judged again: which header is looked at first differs.
        """
        made = translate(exc)
        response = getattr(exc, "response", None)
        if response is None or response.status_code != 101 or not isinstance(exc, native.InvalidHandshake):
            return made
        answer = Response.of(response)
        try:
            check_upgrade(answer.headers)
            if isinstance(exc, native.NegotiationError):
                self._protocol().process_extensions(answer.headers)
        except InvalidHandshake as judged:
            judged.response = answer  # type: ignore[assignment]
            return judged.with_traceback(exc.__traceback__)
        return made

    def _redirected(self, uri: handshake.URI, exc: native.InvalidStatus, followed: int) -> handshake.URI | None:
        status = translate(exc)
        assert isinstance(status, InvalidStatus)
        answer = self.process_redirect(status)
        if isinstance(answer, Exception):
            if answer is status:
                raise status from exc.__cause__
            raise answer from status
        if followed + 1 >= self._most_redirects:
            raise SecurityError(f"more than {self._most_redirects} redirects") from status
        self.uri = answer
        self.ws_uri = parse_uri(answer)
        self._parsed = handshake.parse_uri(answer)
        return self._parsed

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the URI to go on with after an attempt to connect has failed, or the exception to raise.

        It may be overridden, to follow other redirects, or none.

        Args:
            exc: what the attempt raised; an `InvalidStatus` if it may be a redirect.
        """
        if (
            not isinstance(exc, InvalidStatus)
            or exc.response.status_code not in (300, 301, 302, 303, 307, 308)
            or "Location" not in exc.response.headers
        ):
            return exc
        old = self.ws_uri
        new_uri = urljoin(self.uri, exc.response.headers["Location"])
        new = parse_uri(new_uri)
        options = self.create_connection_kwargs
        for name, what in (("sock", "socket"), ("stream", "stream")):
            if options.get(name) is not None:
                return ValueError(f"cannot follow redirect to {new_uri} with a preexisting {what}")
        if old.secure and not new.secure:
            return SecurityError(f"cannot follow redirect to non-secure URI {new_uri}")
        if (old.secure, old.host, old.port) != (new.secure, new.host, new.port):
            if options.get("unix", False):
                return ValueError(f"cannot follow cross-origin redirect to {new_uri} with a Unix socket")
            if options.get("host") is not None or options.get("port") is not None:
                return ValueError(f"cannot follow cross-origin redirect to {new_uri} with an explicit host or port")
            if self.additional_headers is not None:
                kept = Headers(self.additional_headers).raw_items()
                self.additional_headers = Headers((name, value) for name, value in kept if name.lower() not in _SECRETS)
        return new_uri


def _check_tls(secure: bool, proxy: str | bool | None, options: dict[str, Any]) -> None:
    if not secure and options.get("ssl") is not None:
        raise ValueError("ssl argument is incompatible with a ws:// URI")
    if secure and options.get("ssl", True) is None:
        raise ValueError("ssl=None is incompatible with a wss:// URI")
    if isinstance(proxy, str):
        if proxy.startswith("http://") and options.get("proxy_ssl") is not None:
            raise ValueError("proxy_ssl argument is incompatible with an http:// proxy")
        if proxy.startswith("https://") and options.get("proxy_ssl", True) is None:
            raise ValueError("proxy_ssl=None is incompatible with an https:// proxy")


def _pairs(headers: HeadersLike | None) -> list[tuple[str, str]] | None:
    if headers is None:
        return None
    pairs = Headers(headers).raw_items()
    return [(name, value) for name, value in pairs if _SAID.get(name.lower()) != value.lower()]


class Retries:
    """What ``for ... in connect(...)`` does after a failure, one for each loop.

    Args:
        process_exception: tells by None, for an exception, that the loop shall connect again.
        reconnect_delays: makes the pauses, in seconds, of a row of failures.
        logger: gets a line for each pause.
    """

    def __init__(
        self,
        process_exception: Callable[[Exception], Exception | None],
        reconnect_delays: Callable[[], Iterator[float]],
        logger: LoggerLike,
    ) -> None:
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._logger = logger
        self._delays: Iterator[float] | None = None

    def worked(self) -> None:
        """Note that the loop's body was left in order: the next pause is the shortest again."""
        self._delays = None

    def failed(self, exc: Exception) -> float:
        """Return how long to wait after an exception, or raise what ends the loop: it, or what was made of it."""
        try:
            answer = self._process_exception(exc)
        except Exception as raised:  # it may raise what it should return
            answer = raised
        if answer is exc:
            raise exc
        if answer is not None:
            raise answer from exc
        if self._delays is None:
            self._delays = iter(self._reconnect_delays())
        delay = next(self._delays)
        failure = traceback.format_exception_only(exc)[0].strip()
        self._logger.info("connect failed; reconnecting in %.1f seconds: %s", delay, failure)
        return delay
