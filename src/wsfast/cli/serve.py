"""``python -m wsfast serve``: an echo server, with a page to try it in a browser."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from multidict import CIMultiDict

from .._version import __version__
from ..asyncio.streams import Reader, Writer
from ..asyncio.websocket import WebSocket
from ..codes import CloseCode
from ..escape import without_query
from ..exceptions import ConnectionClosed
from ..handshake import Request, Response
from ..handshake.uri import format_address
from ..server import Server
from ..server.signals import stopping_on_signals
from ..transport.binding import check_unused, explain_binding
from ..workers.settings import load_certificate
from .options import add_listening_arguments, check_listening, complain, escape, whole

if TYPE_CHECKING:
    import ssl
    from argparse import _SubParsersAction

    from ..connection import Connection

__all__ = ["add_parser", "run"]

_HOST = "127.0.0.1"
_PORT = 8765
_MAX_SIZE = 16 * 1048576
_COUNTERS: Final = "wsfast.counters"
"""The subprotocol by which the page is told the server's counters."""

_logger = logging.getLogger("wsfast.serve")


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "serve",
        help="run an echo server, with a page to try it in a browser",
        description="Run a server with the subprotocols echo (messages), stream-echo (a byte stream) and upper (text in"
        " capitals); clients that offer none get echo. Open its address in a browser for a page to try it with.",
    )
    add_listening_arguments(parser, _HOST, _PORT)
    parser.add_argument(
        "--prefix",
        type=_prefix,
        default="",
        metavar="PATH",
        help="where the page is, behind a proxy that leaves the path as it is: /tools for /tools/ (default: /)",
    )
    parser.add_argument(
        "--max-size",
        type=whole("a number of bytes", 0),
        default=_MAX_SIZE,
        metavar="BYTES",
        help=f"the largest message accepted, 0 for no limit (default: {_MAX_SIZE})",
    )
    parser.add_argument("--compression", choices=["none", "deflate"], default="none", help="(default: none)")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, which must be installed")
    parser.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", help="to stderr (default: info)"
    )
    parser.set_defaults(run=run, parser=parser)


def _prefix(text: str) -> str:
    """Parse a path under which the page is: with a slash in front, and none at its end."""
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", path):
        raise argparse.ArgumentTypeError(f"expected a path, such as /tools, got {text!r}")
    return f"/{path}" if path else ""


class _UnusableError(Exception):
    """The server cannot run as it was asked to; the text is for the user."""


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        The exit status: 0 after an orderly stop, 1 if the server could not start.
    """
    check_listening(args)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("wsfast").setLevel(args.log_level.upper())
    try:
        with asyncio.Runner(loop_factory=_loop_factory(args.uvloop)) as runner:
            runner.run(_serve(args))
    except _UnusableError as exc:
        complain(str(exc))
        return 1
    return 0


def _loop_factory(use_uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not use_uvloop:
        return None
    try:
        import uvloop
    except ImportError:
        raise _UnusableError("uvloop is not installed: pip install 'wsfast[speed]'") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


# --- What is served ------------------------------------------------------------------------------------------


async def _echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def _upper(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message.upper() if isinstance(message, str) else message)


async def _stream_echo(reader: Reader, writer: Writer) -> None:
    with _told(writer.ws):
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()


@contextlib.contextmanager
def _told(ws: WebSocket) -> Iterator[None]:
    """Log that a connection is open, and how it was closed."""
    peer, began = format_address(ws.remote_address), time.monotonic()
    path = "?" if ws.request is None else escape(without_query(ws.request.path)[:200])
    agreed = "" if ws.subprotocol is None else f", subprotocol {ws.subprotocol}"
    _logger.info("%s opened %s%s", peer, path, agreed)
    try:
        yield
    finally:
        counted = ws.counters
        _logger.info(
            "%s closed with %s after %.1f s: %d message%s in, %d out%s",
            peer,
            "no code" if ws.close_code is None else _code(ws),
            time.monotonic() - began,
            counted["messages_received"],
            "" if counted["messages_received"] == 1 else "s",
            counted["messages_sent"],
            f"; {ws.close_exc}" if ws.close_code == CloseCode.ABNORMAL_CLOSURE else "",
        )


def _code(ws: WebSocket) -> str:
    reason = f" {escape(ws.close_reason)!r}" if ws.close_reason else ""
    return f"{ws.close_code}{reason}"


def _with_log(handler: Callable[[WebSocket], Awaitable[None]]) -> Callable[[WebSocket], Awaitable[None]]:
    @functools.wraps(handler)
    async def run(ws: WebSocket) -> None:
        with _told(ws):
            await handler(ws)

    return run


class _Counters:
    """Tells the server's counters once a second to those who ask by the subprotocol."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._watching = 0

    async def __call__(self, ws: WebSocket) -> None:
        self._watching += 1
        try:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    counters = self._server.counters
                    causes = {cause.name.lower(): count for cause, count in counters["causes"].items()}
                    told = {"time": time.time(), "watching": self._watching, **counters, "causes": causes}
                    await ws.send(json.dumps(told))
                    await _pause(ws, 1.0)
        finally:
            self._watching -= 1


async def _pause(ws: WebSocket, seconds: float) -> None:
    """Wait, but no longer than the connection lasts; what comes meanwhile is dropped."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await ws.recv()


def _csp_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class _Pages:
    """Answers to ordinary HTTP requests, on the port that WebSocket connections come to."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        text = resources.files(__package__).joinpath("page.html").read_text("utf-8")
        sources = {name: re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL) for name in ("script", "style")}
        # Nothing but what stands in the page itself, by its hash, may run or style it. It loads nothing, and reaches
        # other servers by WebSocket only, since it is made to try any.
        self._policy = "; ".join(
            [
                "default-src 'none'",
                "base-uri 'none'",
                "connect-src 'self' ws: wss:",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "img-src data:",
                *(f"{name}-src {' '.join(map(_csp_source, found))}" for name, found in sources.items()),
            ]
        )
        self._page = text.encode()

    def process_request(self, ws: WebSocket, request: Request) -> Response | None:
        """Answer the page, the health check, or 404; leave to the server what asks for an upgrade."""
        if "websocket" in request.headers.get("Upgrade", "").lower():
            return None
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            return None
        path = request.path.partition("?")[0]
        if request.method == "OPTIONS" and path in (f"{self._prefix}/", "*", f"{self._prefix}/healthz"):
            # RFC 9110, 9.3.7. HAProxy checks by it, unless it is told otherwise.
            return Response(204, None, CIMultiDict({"Allow": "GET, HEAD, OPTIONS"}))
        if path == f"{self._prefix}/healthz":
            return ws.respond(200, "OK\n")
        if path == self._prefix:
            # The page finds its server beside itself: "/tools" and "/tools/" are different places.
            moved = ws.respond(308, "Moved.\n")
            moved.headers["Location"] = f"{self._prefix.rpartition('/')[2]}/"
            return moved
        if path != f"{self._prefix}/":
            return ws.respond(404, "Not found.\n")
        headers: CIMultiDict[str] = CIMultiDict(
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": self._policy,
                "Cache-Control": "no-cache",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
            }
        )
        return Response(200, None, headers, self._page)


# --- Serving it ----------------------------------------------------------------------------------------------


class _Server(Server):
    def _tell_end(self, connection: Connection, ws: WebSocket) -> None:
        """Leave it to `_told`, which says what has come and gone as well."""


async def _serve(args: argparse.Namespace) -> None:
    server = _Server(
        process_request=_Pages(args.prefix).process_request,
        max_size=args.max_size or None,
        compression=None if args.compression == "none" else args.compression,
    )
    for name, handler in {None: _echo, "echo": _echo, "upper": _upper}.items():
        server.register_handler(name, _with_log(handler))
    server.register_stream_handler("stream-echo", _stream_echo)
    server.register_handler(_COUNTERS, _Counters(server))
    context = None if args.certfile is None else _context(args.certfile, args.keyfile)
    secure = "" if context is None else "s"
    stopped = asyncio.Event()
    with stopping_on_signals(stopped.set), contextlib.ExitStack() as cleaning:
        async with server:
            if args.unix is None:
                address = args.host or _HOST, _PORT if args.port is None else args.port
                await _listening(server.start(*address, ssl=context), format_address(address))
                addresses = [format_address(sock.getsockname()) for sock in server.sockets]
                told = [f"ws{secure}://{address}/" for address in addresses]
                told.append(f"open http{secure}://{_reachable(server.sockets[0])}{args.prefix}/ in a browser to try it")
            else:
                try:
                    check_unused(args.unix)
                except OSError as exc:
                    raise _UnusableError(explain_binding(exc, args.unix)) from None
                await _listening(server.start(path=args.unix, ssl=context), args.unix)
                cleaning.callback(_remove_socket, args.unix, os.stat(args.unix).st_ino)
                told = [f"ws{secure} on the Unix socket {args.unix}"]
            print(f"wsfast {__version__} serves", *told, "Ctrl-C stops it", sep="\n  ", flush=True)
            await stopped.wait()


async def _listening(starting: Coroutine[Any, Any, Any], where: str) -> None:
    try:
        await starting
    except OSError as exc:
        raise _UnusableError(explain_binding(exc, where)) from None


def _context(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    try:
        return load_certificate(certfile, keyfile)
    except OSError as exc:
        raise _UnusableError(str(exc)) from None


def _reachable(sock: socket.socket) -> str:
    """Return an address that this machine can open: to listen on all interfaces is no address to connect to."""
    host, port = sock.getsockname()[:2]
    return f"localhost:{port}" if host in ("0.0.0.0", "::") else format_address(sock.getsockname())


def _remove_socket(path: str, inode: int) -> None:
    """Remove the socket's file, which asyncio does since Python 3.13, unless somebody put another in its place."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISSOCK(found.st_mode) and found.st_ino == inode:
            os.unlink(path)
