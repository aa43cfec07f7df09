"""Options that the commands which connect to a server share, and what every command needs of a terminal."""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import ssl
import sys
import textwrap
from collections.abc import Callable
from typing import Any, Final, TypeVar

from wsfast.client.connector import connect
from wsfast.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketError
from wsfast.handshake.uri import parse_host, parse_uri
from wsfast.http import check_header
from wsfast.transport.refusal import why_refused

__all__ = [
    "add_connection_arguments",
    "add_listening_arguments",
    "check_listening",
    "complain",
    "connection_options",
    "discard_output",
    "dumb_terminal",
    "escape",
    "explain",
    "failure",
    "file_path",
    "fill",
    "looks_like_address",
    "message_text",
    "natural",
    "positive",
    "whole",
]

_T = TypeVar("_T")

# C0, DEL, C1 and what reorders or breaks lines: none of it must reach a terminal as it is.
_UNSAFE = [*range(32), *range(127, 160), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _UNSAFE}


def escape(text: str) -> str:
    r"""Make untrusted text safe for a terminal: control characters become ``\x1b`` and the like, one line stays one."""
    return text.translate(_ESCAPES)


def complain(text: str) -> None:
    """Tell the user, on stderr, why something does not work; what a peer said in it is made safe."""
    print(f"wsfast: {escape(text)}", file=sys.stderr, flush=True)


def dumb_terminal() -> bool:
    """Tell whether the terminal understands no control sequences; one that has no name is taken for such a one."""
    return os.environ.get("TERM", "dumb" if os.name == "posix" else "") == "dumb"


def discard_output() -> None:
    """Discard further output to standard output: the interpreter would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""What OpenSSL calls the answer of a server that does not speak TLS; which, depends on its version."""


def failure(args: argparse.Namespace, exc: Exception) -> str:
    """Say where it could not be connected to, and why."""
    host = re.split("[/?]", args.uri.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    return f"could not connect to {args.unix or host}: {explain(exc)}"


def explain(exc: Exception) -> str:
    """Say in one line why connecting failed, with what the server answered."""
    text = why_refused(exc)
    if isinstance(exc, ssl.SSLError) and exc.reason in _NO_TLS:
        text = f"expected TLS, got something else ({exc.reason}): is the port one for ws://?"
    if not isinstance(exc, (WebSocketError, OSError, ValueError)):
        text = f"{type(exc).__name__}: {text}"
    if isinstance(exc, InvalidStatus):
        # Its text has the first line of the body, which explains nothing where that is a page.
        return text.partition(": ")[0] if exc.response.body.lstrip().startswith(b"<") else text
    response = exc.response if isinstance(exc, InvalidHandshake) else None
    if response is not None and response.body:
        first = response.body.decode(errors="replace").strip().partition("\n")[0]
        if first and not first.startswith("<"):
            text += f": {first[:200]}"
    return text


def fill(text: str) -> str:
    """Wrap a description for a help whose examples are not to be wrapped, as `argparse` wraps others."""
    return textwrap.fill(text, max(11, shutil.get_terminal_size().columns - 2))


def positive(text: str) -> float:
    """Parse a number of seconds, or of anything else, that is greater than 0."""
    number = _number(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, got {text!r}")
    return number


def natural(text: str) -> float:
    """Parse a number of seconds that may be 0."""
    number = _number(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def whole(what: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers.

    Args:
        what: they are, for the error's text.
        least, most: that they may be; None for no limit.
    """

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            limits = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"expected {what} {limits}, got {text!r}")
        return number

    return parse


def file_path(text: str) -> str:
    """Parse the path of a file."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a path, got {text!a}")
    return text


def message_text(text: str) -> str:
    """Parse a text that is sent as a message."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"expected a text in UTF-8, got {text!a}") from None
    return text


def _host(text: str) -> str:
    """Parse a host to listen on: a name or an address, without a port; an IPv6 address may stand in brackets."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        parse_host("", host)
    except InvalidURI:
        raise argparse.ArgumentTypeError(
            f"expected the name of a host or its address, without a port (--port), got {text!a}"
        ) from None
    return host


def add_listening_arguments(parser: argparse.ArgumentParser, host: str, port: int) -> None:
    """Add where to listen, and the certificate.

    Args:
        parser: of the command.
        host, port: the defaults, for the help.
    """
    parser.add_argument(
        "--host", type=_host, metavar="NAME", help=f"where to listen (default: {host}, which only this machine reaches)"
    )
    parser.add_argument(
        "--port", type=whole("a port", 0, 65535), metavar="N", help=f"0 for any free one (default: {port})"
    )
    parser.add_argument("--unix", type=file_path, metavar="PATH", help="listen on a Unix socket instead")
    parser.add_argument(
        "--certfile", type=file_path, metavar="PATH", help="certificate chain in PEM, for https:// and wss://"
    )
    parser.add_argument(
        "--keyfile", type=file_path, metavar="PATH", help="the certificate's key in PEM (default: it is in --certfile)"
    )


def check_listening(args: argparse.Namespace) -> None:
    """Check that the arguments of `add_listening_arguments` go together.

    Raises:
        SystemExit: with 2, they do not.
    """
    if args.unix is not None and (args.host is not None or args.port is not None):
        args.parser.error("--unix goes without --host and --port")
    if args.keyfile is not None and args.certfile is None:
        args.parser.error("--keyfile goes with --certfile")


def looks_like_address(text: str) -> bool:
    """Tell whether an argument is the address of a server without a scheme, and not a command."""
    host = re.split(r"[/?]", text, maxsplit=1)[0]
    return not text.startswith("-") and (host == "localhost" or bool(re.fullmatch(r"[^:]+\.[^:]+|.*:\d+|\d+", host)))


def _uri(text: str) -> str:
    if text.startswith(("http://", "https://")):
        text = text.replace("http", "ws", 1)  # copied from a browser, which takes them for the same
    elif not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) and looks_like_address(text):
        # This machine mostly has no certificate, and others should have one.
        text = re.sub(r"^:?(?=\d+(?:[/?]|$))", "localhost:", text)  # a port alone
        host = text.partition("/")[0].rpartition(":")[0] or text.partition("/")[0]
        local = host in ("localhost", "[::1]") or host.startswith("127.")
        text = f"{'ws' if local else 'wss'}://{text}"
    try:
        parse_uri(text)
    except InvalidURI as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        # What came may be a token.
        raise argparse.ArgumentTypeError("expected 'Name: value', got a text without a colon")
    try:
        check_header(name.strip(), value.strip())
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return name.strip(), value.strip()


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the URI, and how to connect to it."""
    parser.add_argument(
        "uri",
        metavar="URI",
        type=_uri,
        help="ws:// or wss://, with user:password@ if need be; without a scheme, ws:// for this machine, else wss://",
    )
    group = parser.add_argument_group("connecting")
    group.add_argument(
        "--subprotocol",
        metavar="NAME",
        action="append",
        help="offer a subprotocol; can be repeated, in order of preference",
    )
    group.add_argument(
        *("-H", "--header"),
        metavar="'NAME: VALUE'",
        type=_header,
        action="append",
        help="send a header; can be repeated",
    )
    group.add_argument("--origin", metavar="ORIGIN", help="send this Origin")
    group.add_argument("--compression", choices=["none", "deflate"], default="none", help="(default: none)")
    group.add_argument(
        "--proxy", metavar="URL", default="auto", help="a proxy, or none (default: what the environment names)"
    )
    group.add_argument(
        "--unix", type=file_path, metavar="PATH", help="connect to a Unix socket; the URI is for the request only"
    )
    group.add_argument(
        "--cacert", type=file_path, metavar="PATH", help="trust the authorities in this file (PEM), not the system's"
    )
    group.add_argument("--cert", type=file_path, metavar="PATH", help="the client's certificate and key (PEM)")
    group.add_argument("-k", "--insecure", action="store_true", help="do not verify the server's certificate")
    group.add_argument(
        "--timeout", type=positive, default=10.0, metavar="SECONDS", help="to connect within (default: 10)"
    )
    group.add_argument(
        "--max-size",
        type=whole("a number of bytes", 0),
        default=16 * 1048576,
        metavar="BYTES",
        help="the largest message accepted, 0 for no limit (default: 16 MiB)",
    )


def connection_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `wsfast.connect` for the arguments.

    Raises:
        SystemExit: with 2, an argument is wrong.
        OSError: a certificate cannot be used; the text names it.
    """
    options: dict[str, Any] = {
        "open_timeout": args.timeout,
        "max_size": args.max_size or None,
        "compression": None if args.compression == "none" else args.compression,
        "subprotocols": args.subprotocol,
        "additional_headers": args.header,
        "origin": args.origin,
        "proxy": {"auto": True, "none": None}.get(args.proxy, args.proxy),
    }
    if parse_uri(args.uri).secure:
        context = _using(args.cacert, lambda: ssl.create_default_context(cafile=args.cacert))
        if args.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if args.cert is not None:
            _using(args.cert, lambda: context.load_cert_chain(args.cert))
        options["ssl"] = context
    if args.unix is not None:
        options |= {"unix": True, "path": args.unix}
    try:
        connect(args.uri, **options)
    except ValueError as exc:
        args.parser.error(str(exc))
    return options


def _using(path: str, use: Callable[[], _T]) -> _T:
    try:
        return use()
    except OSError as exc:  # ssl.SSLError is one
        raise OSError(f"cannot use the certificate {path}: {exc.strerror or exc}") from None
