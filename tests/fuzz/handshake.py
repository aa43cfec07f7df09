"""Fuzzing of the opening handshake: both parsers, both judges, the grammars of headers, and URIs.

Whatever comes, only the documented exceptions may be raised, and what is logged or echoed must be printable ASCII. The
verdict of a parser must not depend on how the bytes were cut, and a request that ours accepts must mean the same to
llhttp: a difference between two parsers is what requests are smuggled through.
"""

from __future__ import annotations

from typing import Any

import httptools

from wsfast.deflate.negotiate import Deflate, accept, confirm
from wsfast.exceptions import (
    HandshakeRefused,
    InvalidHandshake,
    InvalidHeaderFormat,
    InvalidMessage,
    InvalidURI,
    NegotiationError,
)
from wsfast.handshake import (
    ClientHandshake,
    Request,
    RequestParser,
    Response,
    ResponseParser,
    accept_response,
    check_request,
    select_subprotocol,
)
from wsfast.handshake.body import MAX_BODY
from wsfast.handshake.headers import (
    build_extensions,
    build_subprotocols,
    parse_extensions,
    parse_subprotocols,
    parse_tokens,
    parse_upgrade,
)
from wsfast.handshake.http11 import MAX_HEAD
from wsfast.handshake.uri import URI, parse_uri
from wsfast.http import is_token

from .source import Cuts, Source

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# What often stands in a request, so that a few bytes of the input make a whole one.
LINES = (
    b"GET / HTTP/1.1",
    b"GET /chat?x=1 HTTP/1.1",
    b"GET http://a.example:80/x HTTP/1.1",
    b"Host: a.example",
    b"Host: [::1]:8080",
    b"Upgrade: websocket",
    b"upgrade: WebSocket",
    b"Connection: keep-alive, Upgrade",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Protocol: chat, superchat",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Origin: https://a.example",
    b"Content-Length: 0",
    b"",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 503 Busy",
    b"HTTP/1.1 100 Continue",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    b"Sec-WebSocket-Protocol: chat",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
)


def check_shown(text: str) -> None:
    """Check what goes into a log line."""
    if not (text.isascii() and text.isprintable()):
        raise AssertionError(f"not fit for a log line: {text!r}")


def refusal(exc: HandshakeRefused) -> tuple[Any, ...]:
    """Check a refusal, and return it in a form that can be compared."""
    check_shown(str(exc))
    raw = exc.response.serialize()
    parsed = ResponseParser()
    again = parsed.feed(raw) or parsed.feed_eof()
    if (again.status_code, again.body) != (exc.response.status_code, exc.response.body):
        raise AssertionError(f"the refusal is not read as it was meant: {raw!r}")
    if not raw.isascii():
        raise AssertionError(f"the refusal echoes what came: {raw!r}")
    return "refused", exc.response.status_code, str(exc), raw


def parse_request(pieces: list[bytes]) -> tuple[Request | None, tuple[Any, ...]]:
    """Feed a `RequestParser`; return the request, and the verdict in a form that can be compared."""
    parser = RequestParser()
    rest = b""
    request: Request | None = None
    try:
        for piece in pieces:
            if request is None:
                request = parser.feed(piece)
            else:
                rest += piece
    except HandshakeRefused as exc:
        return None, refusal(exc)
    if request is None:
        return None, ("more",)
    return request, ("request", request.raw, parser.trailing + rest)


class Peer:
    """What llhttp makes of a request."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[str, str]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = True


def compare_with_llhttp(request: Request) -> None:
    """Check that llhttp reads the same in a request that was accepted."""
    peer = Peer()
    parser = httptools.HttpRequestParser(peer)
    try:
        parser.feed_data(request.raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError as exc:
        if request.method == "GET":
            raise AssertionError(f"llhttp says {exc!r}: {request.raw!r}") from exc
        return  # it knows those of its list only; a hook may answer any
    except httptools.HttpParserError as exc:
        if "Transfer-Encoding" in request.headers or "Content-Length" in request.headers:
            return  # llhttp judges how a body is framed, and `check_request` refuses a request that has any
        raise AssertionError(f"accepted, but llhttp says {exc!r}: {request.raw!r}") from exc
    ours = [(name, value) for name, value in request.headers.items()]
    theirs = [(name, value.strip("\t ")) for name, value in peer.headers]
    if not peer.complete or peer.url.decode("latin-1") != request.target or ours != theirs:
        raise AssertionError(f"read as {request.target!r} {ours!r}, by llhttp as {peer.url!r} {theirs!r}")


def run_request(data: bytes, cuts: Cuts) -> None:
    """Check the server's side."""
    request, verdict = parse_request([data])
    _, cut_verdict = parse_request(cuts.split(data))
    if verdict != cut_verdict:
        raise AssertionError(f"whole: {verdict!r}, in pieces: {cut_verdict!r}")
    if request is None:
        if verdict == ("more",) and len(data) > MAX_HEAD:
            raise AssertionError("more than a head was taken in without a verdict")
        return
    compare_with_llhttp(request)
    check_shown(repr(request))
    if not request.path.startswith("/") and (request.method, request.path) != ("OPTIONS", "*"):
        raise AssertionError(f"{request.method!r} {request.path!r}")
    verdicts = []
    for _ in range(2):  # with what the parser found, and without
        try:
            upgrade = check_request(request, None)
        except HandshakeRefused as exc:
            verdicts.append(refusal(exc))
            continue
        verdicts.append(tuple(upgrade))
        if request.method != "GET" or request.http_version == "1.0":
            raise AssertionError(f"accepted: {request!r}")
        chosen = select_subprotocol(upgrade.subprotocols, upgrade.subprotocols)
        agreed = accept(Deflate(), upgrade.extensions)
        extension = None if agreed is None else build_extensions([agreed[0]])
        raw = accept_response(upgrade.key, chosen, extension)
        parser = ResponseParser()
        response = parser.feed(raw + b"\x81\x00")
        if response is None or response.status_code != 101 or parser.trailing != b"\x81\x00":
            raise AssertionError(f"our response is not read: {raw!r}")
        if response.headers.get("Sec-WebSocket-Protocol") != chosen:
            raise AssertionError(f"the subprotocol is not read back: {raw!r}")
    if verdicts[0] != verdicts[1]:
        raise AssertionError(f"judged {verdicts[0]!r}, then {verdicts[1]!r}")


def parse_response(pieces: list[bytes], connect: bool) -> tuple[Response | None, tuple[Any, ...]]:
    """Feed a `ResponseParser`; return the response, and the verdict in a form that can be compared."""
    parser = ResponseParser(connect=connect)
    rest = b""
    response: Response | None = None
    try:
        for piece in pieces:
            if response is None:
                response = parser.feed(piece)
            else:
                rest += piece
        if response is None:
            response = parser.feed_eof()
    except InvalidMessage as exc:
        check_shown(str(exc))
        return None, ("invalid", str(exc))
    if len(response.body) > MAX_BODY:
        raise AssertionError(f"{len(response.body)} bytes of body")
    opened = response.status_code == 101 or (connect and 200 <= response.status_code < 300)
    trailing = parser.trailing + rest if opened else b""
    return response, (
        response.status_code,
        response.reason_phrase,
        list(response.headers.items()),
        response.body,
        trailing,
    )


def run_response(data: bytes, cuts: Cuts, connect: bool) -> None:
    """Check the client's side."""
    response, verdict = parse_response([data], connect)
    _, cut_verdict = parse_response(cuts.split(data), connect)
    if verdict != cut_verdict:
        raise AssertionError(f"whole: {verdict!r}, in pieces: {cut_verdict!r}")
    if response is None:
        return
    response.serialize()
    check_shown(repr(response))
    shake = ClientHandshake(
        parse_uri("ws://a.example/"),
        subprotocols=["chat"],
        extensions=[("permessage-deflate", [("client_max_window_bits", None)])],
        key=KEY,
    )
    try:
        agreement = shake.check_response(response)
        confirm(Deflate(), agreement.extensions)
    except InvalidHandshake as exc:
        check_shown(str(exc))
    else:
        if response.status_code != 101 or agreement.subprotocol not in (None, "chat"):
            raise AssertionError(f"{response.status_code} agrees to {agreement!r}")


def run_grammars(value: str) -> None:
    """Check the parsers of single headers: what they return can be built, and parsed again to the same."""
    try:
        extensions = parse_extensions(value)
    except InvalidHeaderFormat as exc:
        check_shown(str(exc))
    else:
        if parse_extensions(build_extensions(extensions)) != extensions:
            raise AssertionError(f"not parsed again: {extensions!r}")
        agreed = accept(Deflate(), extensions)
        if agreed is not None:
            _read_by_client(agreed[0])
        try:
            confirm(Deflate(), extensions)
        except NegotiationError as exc:
            check_shown(str(exc))
    try:
        subprotocols = parse_subprotocols(value)
    except InvalidHeaderFormat as exc:
        check_shown(str(exc))
    else:
        if parse_subprotocols(build_subprotocols(subprotocols)) != subprotocols:
            raise AssertionError(f"not parsed again: {subprotocols!r}")
    try:
        tokens = parse_tokens("Connection", value)
    except InvalidHeaderFormat as exc:
        check_shown(str(exc))
    else:
        if not tokens or not all(is_token(token) for token in tokens):
            raise AssertionError(f"no tokens: {tokens!r}")
    try:
        parse_upgrade(value)
    except InvalidHeaderFormat as exc:
        check_shown(str(exc))


def _read_by_client(extension: Any) -> None:
    """Check that a client that offered all accepts what our server chose."""
    name, parameters = extension
    if name != "permessage-deflate":
        raise AssertionError(f"chose {name!r}")
    confirm(Deflate(), [(name, parameters)])


def run_uri(text: str) -> None:
    """Check `parse_uri`, and the request that a client makes of what it returns."""
    try:
        uri = parse_uri(text)
    except InvalidURI as exc:
        if not str(exc).isprintable():
            raise AssertionError(f"not fit for a log line: {str(exc)!r}") from exc
        return
    if not isinstance(uri, URI) or not 1 <= uri.port <= 65535 or not uri.host:
        raise AssertionError(f"{uri!r}")
    try:
        handshake = ClientHandshake(uri, key=KEY)
    except ValueError:
        # RFC 7617, 2: some names and passwords that a URI can hold cannot be sent.
        credentials = "".join(uri.user_info or ())
        if ":" not in credentials and credentials.isprintable():
            raise
        return
    request, verdict = parse_request([handshake.request.raw])
    if request is None:
        # A server has limits that a client's URI may pass.
        if len(handshake.request.raw) < 4096:
            raise AssertionError(f"our server does not take our request: {verdict!r} for {text!r}")
        return
    if request.path != uri.resource_name:
        raise AssertionError(f"{request.path!r} is not {uri.resource_name!r}")
    check_request(request)


def build(source: Source) -> bytes:
    """Build a head of lines that the input names or spells."""
    lines = bytearray()
    while source and len(lines) < 20_000:
        number = source.byte()
        if number < 200:
            lines += LINES[number % len(LINES)] + b"\r\n"
        elif number < 240:
            lines += source.take(number - 199)
        else:
            lines += (source.take(8) or b"x") * (4 ** (number & 7)) + b"\r\n"
    return bytes(lines)


def run(data: bytes) -> None:
    """Check one input."""
    source = Source(data)
    kind = source.byte()
    cuts = Cuts(source.byte())
    if kind & 7 == 0:
        run_request(source.rest(), cuts)
    elif kind & 7 == 1:
        run_request(build(source), cuts)
    elif kind & 7 == 2:
        run_response(source.rest(), cuts, bool(kind & 8))
    elif kind & 7 == 3:
        run_response(build(source), cuts, bool(kind & 8))
    elif kind & 7 == 4:
        run_grammars(source.rest().decode("latin-1"))
    elif kind & 7 == 5:
        run_uri(source.rest().decode("utf-8", "surrogateescape"))
    elif kind & 7 == 6:
        run_uri("ws" + "s" * (kind >> 3 & 1) + "://" + source.rest().decode("utf-8", "replace"))
    else:
        run_request(source.take(1 + kind) * 70 + source.rest(), cuts)
