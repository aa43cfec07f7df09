"""The sans-IO layer of `wsfast.websockets` does what that of `websockets` does; both are fed the same bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import websockets.client
import websockets.datastructures
import websockets.extensions.permessage_deflate
import websockets.frames
import websockets.http11
import websockets.protocol
import websockets.server
import websockets.streams
import websockets.uri
import websockets.utils

import wsfast.websockets.client
import wsfast.websockets.datastructures
import wsfast.websockets.extensions.permessage_deflate
import wsfast.websockets.frames
import wsfast.websockets.http11
import wsfast.websockets.protocol
import wsfast.websockets.server
import wsfast.websockets.streams
import wsfast.websockets.uri
import wsfast.websockets.utils

BOTH: tuple[Any, Any] = (websockets, wsfast.websockets)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    b"GET /chat?a=b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Origin: https://example.com\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def told(exc: BaseException | None) -> Any:
    return None if exc is None else (type(exc).__name__, str(exc), told(exc.__cause__))


def plain(event: Any) -> Any:
    if isinstance(event, (websockets.frames.Frame, wsfast.websockets.frames.Frame)):
        return str(event), event.opcode, bytes(event.data), event.fin, event.rsv1, event.rsv2, event.rsv3
    headers = [(name, value) for name, value in event.headers.raw_items() if name != "Date"]
    return type(event).__name__, headers, getattr(event, "path", None), bytes(getattr(event, "body", b""))


def state_of(protocol: Any) -> Any:
    close_exc = told(protocol.close_exc) if protocol.state.name == "CLOSED" else None
    return (
        protocol.state.name,
        protocol.close_expected(),
        protocol.close_code,
        protocol.close_reason,
        protocol.close_rcvd_then_sent,
        told(protocol.handshake_exc),
        close_exc,
        protocol.subprotocol,
        [repr(extension) for extension in protocol.extensions],
    )


def trace(protocol: Any, pieces: list[bytes]) -> list[Any]:
    """Feed pieces, and return what came of each; the end of the stream stands for an empty one."""
    seen = []
    for piece in pieces:
        try:
            protocol.receive_data(piece) if piece else protocol.receive_eof()
        except EOFError as exc:
            seen.append(told(exc))
        events = [plain(event) for event in protocol.events_received()]
        writes = protocol.data_to_send()
        # The masks of a client are random.
        sizes = [len(data) if protocol.side.name == "CLIENT" else bytes(data) for data in writes]
        seen.append((events, sizes, state_of(protocol)))
    return seen


def frames_of(is_client: bool) -> list[bytes]:
    """Return streams that a peer may send: good ones, bad ones."""

    def frame(*args: Any, **options: Any) -> bytes:
        data: bytes = websockets.frames.Frame(*args, **options).serialize(mask=not is_client)
        return data

    names = websockets.frames
    text, binary, cont = names.TEXT, names.BINARY, names.CONT
    close, ping, pong = names.CLOSE, names.PING, names.PONG
    key = b"" if is_client else b"\0\0\0\0"
    bit = 0 if is_client else 128
    return [
        frame(text, b"hi") + frame(ping, b"p") + frame(pong, b"p") + frame(close, b"\x03\xe8bye"),
        frame(text, b"a", fin=False) + frame(ping, b"") + frame(cont, b"b", fin=False) + frame(cont, b""),
        frame(cont, b"lonely"),
        frame(text, b"a", fin=False) + frame(text, b"b"),
        frame(binary, b"x" * 300),
        frame(binary, b"x" * 70_000),
        frame(close, b"") + frame(text, b"late"),
        frame(close, b"\x03"),
        frame(close, b"\x03\xed"),
        frame(close, b"\x03\xe8\xff"),
        frame(text, b"a", fin=False) + frame(close, b"\x03\xe8"),
        bytes([0x83, bit]) + key,
        bytes([0xC1, bit]) + key,
        bytes([0x89, bit | 126, 0, 126]) + key + bytes(126),
        bytes([0x09, bit]) + key,
        bytes([0x81, bit ^ 128 | 1]) + b"x" * 5,
        bytes([0x82, bit | 127]) + (2**40).to_bytes(8, "big") + key,
        frame(text, b"cut")[:-1],
        b"",
    ]


@pytest.mark.parametrize("which", range(len(frames_of(True))))
@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_streams_of_frames(side: str, which: int) -> None:
    stream = frames_of(side == "CLIENT")[which]
    cuts = random.Random(which)
    for piecemeal in (False, True):
        pieces = [stream] if stream else []
        if piecemeal:
            ends = sorted(cuts.randrange(len(stream) + 1) for _ in range(5)) if stream else []
            pieces = [piece for a, b in zip([0, *ends], [*ends, len(stream)], strict=True) if (piece := stream[a:b])]
        traces = []
        for library in BOTH:
            names = library.protocol
            protocol = names.Protocol(getattr(names, side), max_size=(100_000, 80_000))
            traces.append(trace(protocol, [*pieces, b"", b""]))
        assert traces[0] == traces[1]


def deflating(library: Any) -> Any:
    return library.extensions.permessage_deflate.ServerPerMessageDeflateFactory()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.replace(b"GET", b"POST"),
        lambda data: data.replace(b"HTTP/1.1", b"HTTP/1.0"),
        lambda data: data.replace(b"HTTP/1.1", b"HTTP/3"),
        lambda data: data.replace(b"Upgrade: websocket\r\n", b""),
        lambda data: data.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        lambda data: data.replace(b"keep-alive, Upgrade", b"close"),
        lambda data: data.replace(b"Connection: keep-alive, Upgrade\r\n", b""),
        lambda data: data.replace(b"Sec-WebSocket-Key", b"X"),
        lambda data: data.replace(b"==", b"=*"),
        lambda data: data.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"),
        lambda data: data.replace(b"Host:", b"Sec-WebSocket-Key: x\r\nHost:"),
        lambda data: data.replace(b"Version: 13", b"Version: 8"),
        lambda data: data.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
        lambda data: data.replace(b"https://example.com", b"https://other.example"),
        lambda data: data.replace(b"Origin: https://example.com\r\n", b""),
        lambda data: data.replace(b"Host:", b"Origin: x\r\nHost:"),
        lambda data: data.replace(b"a, b", b"x, y"),
        lambda data: data.replace(b"client_max_window_bits", b"client_max_window_bits=99"),
        lambda data: data.replace(b"Host:", b"Content-Length: 5\r\nHost:"),
        lambda data: data.replace(b"Host:", b"Transfer-Encoding: chunked\r\nHost:"),
        lambda data: data.replace(b"/chat", b"/" + b"x" * 9000),
        lambda data: data.replace(b"Host:", b"X: " + b"x" * 9000 + b"\r\nHost:"),
        lambda data: data.replace(b"Host:", b"X: y\r\n" * 200 + b"Host:"),
        lambda data: data.replace(b"Host:", b"bad header\r\nHost:"),
        lambda data: data.replace(b"Host:", b"b\xe4d: x\r\nHost:"),
        lambda data: data.replace(b"localhost", b"a\0b"),
        lambda data: data.replace(b"\r\n", b"\n"),
        lambda data: b"nonsense\r\n\r\n",
        lambda data: data[:40],
    ],
)
def test_requests(change: Callable[[bytes], bytes]) -> None:
    data = change(REQUEST)
    outcomes = []
    for library in BOTH:
        protocol = library.server.ServerProtocol(
            subprotocols=["b", "a"], extensions=[deflating(library)], origins=["https://example.com", None]
        )
        seen = []
        for piece in (data[:50], data[50:], b""):
            try:
                protocol.receive_data(piece) if piece else protocol.receive_eof()
            except EOFError as exc:
                seen.append(told(exc))
            for request in protocol.events_received():
                seen.append(plain(request))
                response = protocol.accept(request)
                seen.append((response.status_code, plain(response)))
                protocol.send_response(response)
            seen.append(state_of(protocol))
            seen.append(sum(map(len, protocol.data_to_send())))
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.replace(b"HTTP/1.1 101", b"HTTP/1.0 101"),
        lambda data: data.replace(b"101 Switching Protocols", b"101"),
        lambda data: data.replace(b" 101 ", b" abc "),
        lambda data: data.replace(b" 101 ", b" 999 "),
        lambda data: data.replace(b" 101 ", b" 403 ") + b"no body's end",
        lambda data: data.replace(b"101", b"404").replace(b"Upgrade:", b"Content-Length: 3\r\nUpgrade:") + b"abc",
        lambda data: data.replace(b"101", b"404").replace(b"Upgrade:", b"Content-Length: x\r\nUpgrade:"),
        lambda data: data.replace(b"101", b"404").replace(b"Upgrade:", b"Content-Length: 99999999\r\nUpgrade:"),
        lambda data: (
            data.replace(b"101", b"404").replace(b"Upgrade:", b"Transfer-Encoding: chunked\r\nUpgrade:")
            + b"3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"
        ),
        lambda data: (
            data.replace(b"101", b"404").replace(b"Upgrade:", b"Transfer-Encoding: chunked\r\nUpgrade:") + b"z\r\n"
        ),
        lambda data: data.replace(b"101", b"404").replace(b"Upgrade:", b"Transfer-Encoding: gzip\r\nUpgrade:"),
        lambda data: data.replace(b"websocket", b"h2c"),
        lambda data: data.replace(b"Connection: Upgrade\r\n", b""),
        lambda data: data.replace(b"s3pP", b"xxxx"),
        lambda data: data.replace(b"Sec-WebSocket-Accept", b"X"),
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a\r\n\r\n"),
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: x\r\n\r\n"),
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"),
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate; x\r\n\r\n"),
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: x-other\r\n\r\n"),
        lambda data: b"HTTP/1.1 101 " + b"x" * 9000 + b"\r\n\r\n",
        lambda data: b"220 smtp.example ESMTP\r\n",
        lambda data: data[:30],
    ],
)
def test_responses(change: Callable[[bytes], bytes]) -> None:
    data = change(RESPONSE)
    outcomes = []
    for library in BOTH:
        factory = library.extensions.permessage_deflate.ClientPerMessageDeflateFactory()
        uri = library.uri.parse_uri("wss://user:secret@example.com:8443/p?q")
        protocol = library.client.ClientProtocol(uri, origin="o", subprotocols=["a", "b"], extensions=[factory])
        protocol.key = KEY
        request = protocol.connect()
        protocol.send_request(request)
        seen = [plain(request), protocol.data_to_send()]
        outcomes.append(seen + trace(protocol, [data[:20], data[20:], b""]))
    assert outcomes[0] == outcomes[1]


def test_what_is_sent_is_the_same() -> None:
    outcomes = []
    for library in BOTH:
        protocol = library.protocol.Protocol(library.protocol.SERVER)
        seen: list[Any] = []
        calls: list[Callable[[], object]] = [
            lambda: protocol.send_continuation(b"x", True),  # noqa: B023
            lambda: protocol.send_text(b"a", fin=False),  # noqa: B023
            lambda: protocol.send_binary(b"x"),  # noqa: B023
            lambda: protocol.send_ping(b"p"),  # noqa: B023
            lambda: protocol.send_continuation(b"b", fin=True),  # noqa: B023
            lambda: protocol.send_binary(bytearray(b"x" * 126)),  # noqa: B023
            lambda: protocol.send_pong(b"x" * 126),  # noqa: B023
            lambda: protocol.send_close(None, "reason"),  # noqa: B023
            lambda: protocol.send_close(1005),  # noqa: B023
            lambda: protocol.send_close(4000, "bye"),  # noqa: B023
            lambda: protocol.send_text(b"late"),  # noqa: B023
            lambda: protocol.send_close(),  # noqa: B023
            lambda: protocol.fail(1011, "anyway"),  # noqa: B023
            lambda: protocol.send_pong(b""),  # noqa: B023
        ]
        for call in calls:
            try:
                call()
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc)))
            seen.append(protocol.data_to_send())
            seen.append(state_of(protocol))
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("most", [None, 5, 6, 100])
def test_permessage_deflate_on_frames(most: int | None, anew: bool) -> None:
    outcomes = []
    for library in BOTH:
        names = library.frames
        made = library.extensions.permessage_deflate.PerMessageDeflate
        there, back = made(anew, anew, 15, 12, {"level": 9}), made(anew, anew, 12, 15, {})
        seen: list[Any] = []
        for frame in (
            names.Frame(names.TEXT, b"a" * 6),
            names.Frame(names.TEXT, b"ab", fin=False),
            names.Frame(names.PING, b"p"),
            names.Frame(names.CONT, b"cd", fin=False),
            names.Frame(names.CONT, b"ef"),
            names.Frame(names.BINARY, b""),
            names.Frame(names.BINARY, bytes(3000)),
        ):
            packed = there.encode(frame)
            seen.append(plain(packed))
            try:
                seen.append(plain(back.decode(packed, max_size=most)))
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc)))
                break
        for bad in (names.Frame(names.TEXT, b"\xff\xff\xff", rsv1=True), names.Frame(names.TEXT, b"plain")):
            try:
                seen.append(plain(made(anew, anew, 12, 12).decode(bad, max_size=most)))
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc)))
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


def test_the_protocol_of_a_connection_moves_no_bytes() -> None:
    protocol = wsfast.websockets.protocol.Protocol(wsfast.websockets.protocol.CLIENT)
    protocol._websocket = object()
    with pytest.raises(RuntimeError, match="belongs to a connection, which moves the bytes by itself"):
        protocol.receive_data(b"")


@pytest.mark.parametrize("data", [b"", b"a", b"abcd", b"abcde" * 100, memoryview(b"abcdef")[::2]])
def test_masks(data: Any) -> None:
    assert wsfast.websockets.utils.apply_mask(data, b"1234") == websockets.utils.apply_mask(data, b"1234")
    assert wsfast.websockets.utils.accept_key(KEY) == websockets.utils.accept_key(KEY)
    with pytest.raises(ValueError, match="mask must contain 4 bytes"):
        wsfast.websockets.utils.apply_mask(data, b"123")
