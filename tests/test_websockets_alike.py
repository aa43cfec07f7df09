"""What users of websockets can see is the same on `wsfast.websockets`: both do it here, and are compared."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from certificates import Certificates
from raw import request
from sync_helpers import Peer, in_thread, scripted
from vectors import BINARY, CLOSE, CONT, PING, TEXT, frame

from wsfast.handshake import accept_response

BOTH = "websockets", "wsfast.websockets"


@pytest.fixture
def anyio_backend() -> str:
    """What is compared here does not depend on the event loop."""
    return "asyncio"


def part(base: str, name: str) -> Any:
    return importlib.import_module(f"{base}.{name}")


@contextmanager
def told(level: int = logging.INFO) -> Iterator[list[str]]:
    """Gather what the loggers of websockets are told, without what differs from run to run."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", record.getMessage())
            exc = record.exc_info[1] if record.exc_info else None
            lines.append(f"{record.name} {record.levelname} {text}" + ("" if exc is None else f" {exc!r}"))

    logger, handler = logging.getLogger("websockets"), Handler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def plain(answer: bytes) -> bytes:
    """Return an answer without the time, and the name of the library."""
    return re.sub(rb"(?<=Date: )[^\r]*|(?<=Server: )[^\r]*", b"", answer)


def asked(port: int, data: bytes) -> bytes:
    """Send a server a request, and return all that it answers, of an open connection up to its Close frame."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(data)
        while chunk := sock.recv(65536):
            answer += chunk
            if answer.startswith(b"HTTP/1.1 101") and len(answer.partition(b"\r\n\r\n")[2]) >= 4:
                break
    return plain(answer)


GOOD = request()
REQUESTS = {
    "good": GOOD,
    "subprotocols": request("a, b"),
    "compression": request(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}),
    "no websocket": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "another upgrade": GOOD.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "no upgrade": GOOD.replace(b"Connection: Upgrade", b"Connection: close"),
    "method": GOOD.replace(b"GET", b"POST"),
    "protocol": b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
    "no key": re.sub(rb"Sec-WebSocket-Key:.*\r\n", b"", GOOD),
    "short key": GOOD.replace(b"dGhl", b""),
    "version": GOOD.replace(b"Version: 13", b"Version: 12"),
    "origin": request(headers={"Origin": "http://evil.invalid"}),
    "allowed origin": request(headers={"Origin": "http://good.invalid"}),
}


def asyncio_port(base: str, ask: Callable[[int], bytes], handler: Any, options: dict[str, Any]) -> bytes:
    async def main() -> bytes:
        async with part(base, "asyncio.server").serve(handler, "127.0.0.1", 0, **options) as server:
            return await asyncio.to_thread(ask, server.sockets[0].getsockname()[1])

    return asyncio.run(main())


def sync_port(base: str, ask: Callable[[int], bytes], handler: Any, options: dict[str, Any]) -> bytes:
    def run(ws: Any) -> None:
        handler(ws).send(None) if inspect.iscoroutinefunction(handler) else handler(ws)

    with part(base, "sync.server").serve(run, "127.0.0.1", 0, **options) as server:
        thread = in_thread(server.serve_forever)
        answer = ask(server.socket.getsockname()[1])
        server.shutdown()
        thread.join()
    return answer


def trio_port(base: str, ask: Callable[[int], bytes], handler: Any, options: dict[str, Any]) -> bytes:
    async def main() -> bytes:
        async with trio.open_nursery() as nursery:
            serve = partial(part(base, "trio.server").serve, handler, 0, host="127.0.0.1", **options)
            server = await nursery.start(serve)
            answer: bytes = await trio.to_thread.run_sync(ask, server.listeners[0].socket.getsockname()[1])
            await server.aclose()
            return answer

    return trio.run(main)


SHELLS = {"asyncio": asyncio_port, "threads": sync_port, "trio": trio_port}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", REQUESTS)
def test_answers_and_what_the_log_is_told(name: str, shell: str) -> None:
    seen = []
    for base in BOTH:
        done: list[Any] = []

        async def handler(ws: Any, done: list[Any] = done) -> None:
            done.append(ws.request.path)
            done.append(ws.response.headers.get("Sec-WebSocket-Extensions"))

        with told() as lines:
            answer = SHELLS[shell](
                base, partial(asked, data=REQUESTS[name]), handler, {"origins": [None, "http://good.invalid"]}
            )
        # When the end of a connection is told, and when that of its server, is a matter of chance.
        seen.append((answer, done, sorted(line for line in lines if "server clos" not in line)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("data", [b"", GOOD], ids=["nothing", "no TLS"])
def test_what_the_log_is_told_of_tls_that_fails(data: bytes, shell: str, certs: Certificates) -> None:
    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
        return b""

    async def handler(ws: Any) -> None: ...

    seen = []
    for base in BOTH:
        with told() as lines:
            SHELLS[shell](base, ask, handler, {"ssl": certs.server_context()})
        seen.append(sorted(line for line in lines if "server " not in line))
    assert seen == [[], []]


def _raise(*args: Any) -> Any:
    raise ZeroDivisionError


def _refuse(base: str) -> Any:
    def select(ws: Any, names: Any) -> Any:
        raise part(base, "exceptions").NegotiationError("none of these")

    return select


def _response(base: str) -> Any:
    http11, headers = part(base, "http11"), part(base, "datastructures").Headers
    return lambda ws, request, response: http11.Response(418, "Short", headers({"Content-Length": "1"}), b"x")


def _teapot(ws: Any, request: Any) -> Any:
    return ws.respond(418, "short\n")


HOOKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "process_request responds": lambda base: {"process_request": _teapot},
    "process_request raises": lambda base: {"process_request": _raise},
    "process_response raises": lambda base: {"process_response": _raise},
    "select_subprotocol raises": lambda base: {"select_subprotocol": _raise},
    "select_subprotocol refuses": lambda base: {"select_subprotocol": _refuse(base)},
    "select_subprotocol chooses": lambda base: {"select_subprotocol": lambda ws, names: names[-1]},
    "no such subprotocol": lambda base: {"subprotocols": ["q"]},
    "no header": lambda base: {"server_header": None, "process_request": _teapot},
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name: str) -> None:
    async def handler(ws: Any) -> None:
        """Return at once."""

    seen = []
    for base in BOTH:
        with told() as lines:
            answer = asyncio_port(base, partial(asked, data=request("a, b")), handler, HOOKS[name](base))
        seen.append((answer, sorted(line for line in lines if "server clos" not in line)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("hook", ["process_request", "process_response"])
def test_a_hook_that_returns_something_else_is_told_what_it_may(hook: str) -> None:
    async def handler(ws: Any) -> None:
        """Return at once."""

    with told() as lines:
        answer = asyncio_port(BOTH[1], partial(asked, data=GOOD), handler, {hook: lambda *args: "no"})
    assert answer.startswith(b"HTTP/1.1 500 ")
    wanted = f"TypeError('{hook} must return a Response or None, got str')"
    assert [line for line in lines if "ERROR" in line] == [f"websockets.server ERROR {hook} failed {wanted}"]


# --- What a peer does wrong ---------------------------------------------------------------------------------

FRAMES = {
    "reserved bits": frame(TEXT, b"x", rsv=4),
    "opcode": frame(3, b"x"),
    "continuation": frame(CONT, b"x"),
    "masked": frame(TEXT, b"x", key=b"mask"),
    "long ping": frame(PING, b"x" * 126),
    "ping in fragments": frame(PING, b"x", fin=False),
    "close of one byte": frame(CLOSE, b"x"),
    "close with 1005": frame(CLOSE, b"\x03\xed"),
    "message in message": frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"),
    "close in message": frame(TEXT, b"x", fin=False) + frame(CLOSE, b"\x03\xe8"),
    "too big": frame(TEXT, b"x" * 300),
    "too many fragments": frame(TEXT, b"x", fin=False) + frame(CONT, b"", fin=False) * 4096,
    "code of its own": frame(CLOSE, b"\x0f\xa0why"),
    "nothing": frame(CLOSE),
    "end": b"",
}


@asynccontextmanager
async def answering(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]],
) -> AsyncIterator[str]:
    """Accept the opening handshakes of clients, and do what a script says."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert found
        writer.write(accept_response(found[1].decode()))
        await script(reader, writer)
        writer.close()

    async with await asyncio.start_server(run, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def read_close(reader: asyncio.StreamReader) -> bytes:
    """Read frames that a client sends, up to its Close frame; return what that says."""
    while True:
        first, second = await reader.readexactly(2)
        key = await reader.readexactly(4)
        payload = await reader.readexactly(second & 127)
        if first & 15 == CLOSE:
            return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@pytest.mark.anyio
@pytest.mark.parametrize("name", FRAMES)
async def test_what_a_peer_does_wrong(name: str) -> None:
    seen = []
    for base in BOTH:
        sent = asyncio.get_running_loop().create_future()

        async def script(reader: Any, writer: Any, sent: asyncio.Future[bytes] = sent) -> None:
            writer.write(FRAMES[name])
            if name == "end":
                sent.set_result(b"")
            else:
                sent.set_result(await read_close(reader))

        connect = part(base, "asyncio.client").connect
        async with asyncio.timeout(20), answering(script) as uri:
            async with connect(uri, max_size=128, compression=None) as ws:
                with pytest.raises(part(base, "exceptions").ConnectionClosed) as caught:
                    await ws.recv()
            exc, cause = caught.value, caught.value.__cause__
            told = type(exc).__name__, str(exc), exc.rcvd_then_sent, type(cause).__name__, str(cause), ws.close_code
            seen.append((await sent, told))
    assert seen[0] == seen[1]


@pytest.mark.anyio
@pytest.mark.parametrize("payload", [TEXT, BINARY])
async def test_what_is_no_text(payload: int) -> None:
    """Text that is not UTF-8, and binary messages that are to be text, are the peer's fault."""
    for base in BOTH:

        async def script(reader: Any, writer: Any) -> None:
            writer.write(frame(payload, b"a\xff"))
            assert (await read_close(reader))[:2] == b"\x03\xef"

        connect = part(base, "asyncio.client").connect
        async with asyncio.timeout(20), answering(script) as uri, connect(uri) as ws:
            with pytest.raises(part(base, "exceptions").ConnectionClosedError) as caught:
                await ws.recv(decode=True)
            assert isinstance(caught.value.__cause__, UnicodeDecodeError)
            assert caught.value.__cause__.start == 1
            assert caught.value.sent is not None
            assert caught.value.sent.code == 1007


# --- How a connection is left -------------------------------------------------------------------------------


async def _break(connect: Any) -> None:
    async for _ in connect:
        break


async def _return(connect: Any) -> None:
    async for _ in connect:
        return


async def _raise_in_loop(connect: Any) -> None:
    async for _ in connect:
        raise KeyError


async def _continue(connect: Any) -> None:
    n = 0
    async for ws in connect:
        n += 1
        if n == 2:
            await ws.close(4000)
            break


async def _raise_in_block(connect: Any) -> None:
    async with connect:
        raise KeyError


async def _cancel(connect: Any) -> None:
    async with connect as ws:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await ws.recv()


@pytest.mark.anyio
@pytest.mark.parametrize("leave", [_break, _return, _raise_in_loop, _continue, _raise_in_block, _cancel])
async def test_what_a_connection_that_is_left_is_closed_with(leave: Any) -> None:
    seen = []
    for base in BOTH:
        codes: asyncio.Queue[int] = asyncio.Queue()

        async def script(reader: Any, writer: Any, codes: asyncio.Queue[int] = codes) -> None:
            said = await read_close(reader)
            writer.write(frame(CLOSE, said))
            codes.put_nowait(int.from_bytes(said[:2], "big"))

        async with asyncio.timeout(20), answering(script) as uri:
            task = asyncio.create_task(leave(part(base, "asyncio.client").connect(uri)))
            await asyncio.gather(task, return_exceptions=True)
            del task
            seen.append([await codes.get() for _ in range(2 if leave is _continue else 1)])
    assert seen[0] == seen[1]


async def _returns(ws: Any) -> None:
    """Return at once."""


async def _raises(ws: Any) -> None:
    raise KeyError


async def _is_cancelled(ws: Any) -> None:
    asyncio.current_task().cancel()  # type: ignore[union-attr]
    await ws.recv()


async def _closes(ws: Any) -> None:
    await ws.close(4000, "why")
    await ws.recv()


async def _closes_on_trio(ws: Any) -> None:
    await ws.aclose(4000, "why")
    await ws.recv()


@pytest.mark.anyio
@pytest.mark.parametrize("handler", [_returns, _raises, _is_cancelled, _closes])
async def test_how_a_handler_ends(handler: Any) -> None:
    seen = []
    for base in BOTH:
        with told() as lines:
            serve, connect = part(base, "asyncio.server").serve, part(base, "asyncio.client").connect
            async with asyncio.timeout(20), serve(handler, "127.0.0.1", 0) as server:
                ws = await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
                await ws.wait_closed()
        seen.append((ws.close_code, ws.close_reason, sorted(lines)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("how", ["returns", "raises", "learns of the end"])
def test_how_a_handler_ends_in_threads(how: str) -> None:
    def handler(ws: Any) -> None:
        if how == "raises":
            raise KeyError
        if how == "learns of the end":
            ws.close(4000, "why")
            ws.recv()

    seen = []
    for base in BOTH:
        with told() as lines, part(base, "sync.server").serve(handler, "127.0.0.1", 0) as server:
            thread = in_thread(server.serve_forever)
            uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
            ended = part(base, "exceptions").ConnectionClosed
            with part(base, "sync.client").connect(uri) as ws, pytest.raises(ended) as caught:
                ws.recv()
            server.shutdown()
            thread.join()
        seen.append((str(caught.value), sorted(lines)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("handler", [_returns, _raises, _closes_on_trio])
def test_how_a_handler_ends_on_trio(handler: Any) -> None:
    seen = []
    for base in BOTH:

        async def main(base: str = base) -> str:
            async with trio.open_nursery() as nursery:
                serve = partial(part(base, "trio.server").serve, handler, 0, host="127.0.0.1")
                server = await nursery.start(serve)
                uri = f"ws://127.0.0.1:{server.listeners[0].socket.getsockname()[1]}/"
                async with part(base, "trio.client").connect(uri) as ws:
                    with pytest.raises(part(base, "exceptions").ConnectionClosed) as caught:
                        await ws.recv()
                await server.aclose()
                return str(caught.value)

        with told() as lines:
            text = trio.run(main)
        seen.append((text, sorted(lines)))
    assert seen[0] == seen[1]


@pytest.mark.anyio
async def test_only_the_first_close_of_a_server_counts() -> None:
    seen = []
    for base in BOTH:
        serve, connect = part(base, "asyncio.server").serve, part(base, "asyncio.client").connect

        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async with asyncio.timeout(20), serve(handler, "127.0.0.1", 0) as server:
            ws = await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            server.close(close_connections=False)
            server.close()
            await ws.send("on")
            seen.append([await ws.recv(), len(server.connections)])
            await ws.close()
    assert seen[0] == seen[1] == ["on", 1]


# --- Classes of a program's own -----------------------------------------------------------------------------


def _own(base: type[Any], seen: list[str], side: str) -> type[Any]:
    class Own(base):  # type: ignore[misc]
        async def __aenter__(self) -> Any:
            seen.append(f"{side} enters")
            return await super().__aenter__()

        async def __aexit__(self, *args: object) -> None:
            seen.append(f"{side} exits by {getattr(args[0], '__name__', None)}")
            await super().__aexit__(*args)

        async def recv(self, *args: Any) -> Any:
            seen.append(f"{side} receives")
            return await super().recv(*args)

    return Own


@pytest.mark.anyio
async def test_methods_of_a_class_of_ones_own_are_called() -> None:
    seen = []
    for base in BOTH:
        called: list[str] = []
        server_class = _own(part(base, "asyncio.server").ServerConnection, called, "server")
        client_class = _own(part(base, "asyncio.client").ClientConnection, called, "client")

        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        serve, connect = part(base, "asyncio.server").serve, part(base, "asyncio.client").connect
        async with asyncio.timeout(20), serve(handler, "127.0.0.1", 0, create_connection=server_class) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with connect(uri, create_connection=client_class) as ws:
                await ws.send("x")
                assert await anext(aiter(ws)) == "x"
            async for ws in connect(uri, create_connection=client_class):
                await ws.close()
                break
        seen.append(sorted(called))
    assert seen[0] == seen[1]


def test_methods_of_a_class_of_ones_own_are_called_in_threads() -> None:
    seen = []
    for base in BOTH:
        called: list[str] = []

        def made(kind: type[Any], side: str, called: list[str] = called) -> type[Any]:
            class Own(kind):  # type: ignore[misc]
                def __enter__(self) -> Any:
                    called.append(f"{side} enters")
                    return super().__enter__()

                def __exit__(self, *args: object) -> None:
                    called.append(f"{side} exits by {getattr(args[0], '__name__', None)}")
                    super().__exit__(*args)

                def recv(self, *args: Any, **kwargs: Any) -> Any:
                    called.append(f"{side} receives")
                    return super().recv(*args, **kwargs)

            return Own

        def handler(ws: Any) -> None:
            for message in ws:
                ws.send(message)

        server_class = made(part(base, "sync.server").ServerConnection, "server")
        with part(base, "sync.server").serve(handler, "127.0.0.1", 0, create_connection=server_class) as server:
            thread = in_thread(server.serve_forever)
            uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
            client = part(base, "sync.client")
            own = made(client.ClientConnection, "client")
            with client.reconnect(uri, create_connection=own) as ws:
                ws.send("x")
                assert next(iter(ws)) == "x"
            server.shutdown()
            thread.join()
        seen.append(sorted(called))
    assert seen[0] == seen[1]


# --- The log at DEBUG ---------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_each_frame_is_told(compression: str | None) -> None:
    seen = []
    for base in BOTH:

        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        with told(logging.DEBUG) as lines:
            serve, connect = part(base, "asyncio.server").serve, part(base, "asyncio.client").connect
            async with asyncio.timeout(20), serve(handler, "127.0.0.1", 0, compression=compression) as server:
                uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
                async with connect(uri, compression=compression) as ws:
                    await ws.send("hello")
                    await ws.recv()
                    await ws.send([b"\xff", b"x" * 100])
                    await ws.recv()
                    await (await ws.ping("ping"))
        wanted = re.compile(
            r"(websockets\.\w+) DEBUG [<>=] "
            r"(TEXT|BINARY|CONT|PING|PONG|CLOSE|GET|HTTP/1.1|Connection:|Sec-WebSocket-[VEP]|connection is (?!CLOSED))"
        )
        sides: dict[str, list[str]] = {"websockets.client": [], "websockets.server": []}
        for line in lines:
            if (found := wanted.match(line)) is not None:
                sides[found[1]].append(line)
        seen.append(sides)
    assert seen[0] == seen[1]
    assert len(seen[0]["websockets.client"]) > 12


# --- A sending side that the program ends


@pytest.mark.anyio
@pytest.mark.parametrize(
    "call",
    [
        lambda ws: ws.send("x"),
        lambda ws: ws.send("x" * 100_000),
        lambda ws: ws.send(["a", "b"]),
        lambda ws: ws.ping(),
        lambda ws: ws.pong(),
        lambda ws: ws.recv(),
        lambda ws: ws.close(),
    ],
    ids=["send", "large", "fragments", "ping", "pong", "recv", "close"],
)
async def test_a_sending_side_that_was_ended(call: Any) -> None:
    """The call that would send raises, not the one after it."""
    outcomes = []
    for base in BOTH:
        outcome: list[str] = []
        outcomes.append(outcome)

        async def handler(ws: Any) -> None:
            outcome.extend([message async for message in ws])  # noqa: B023

        async with part(base, "asyncio.server").serve(handler, "127.0.0.1", 0) as server:
            ws = await part(base, "asyncio.client").connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            ws.transport.write_eof()
            for _ in range(2):
                try:
                    await call(ws)
                except part(base, "exceptions").ConnectionClosedError as exc:
                    outcome.append(f"{exc} {exc.__cause__!r} {ws.state.name} {ws.close_code}")
            await ws.close()
            outcome.append(f"{ws.close_code} {ws.state.name}")
    assert outcomes[1] == outcomes[0]


# --- What is agreed on of permessage-deflate

OFFERS = [
    "",
    "server_max_window_bits=8",
    'server_max_window_bits="8"',
    "server_max_window_bits=9",
    "server_max_window_bits=15",
    "server_max_window_bits",
    "server_max_window_bits=08",
    "client_max_window_bits",
    "client_max_window_bits=8",
    "client_max_window_bits=15",
    "client_max_window_bits=8; server_max_window_bits=8",
    "server_max_window_bits=8, permessage-deflate",
    "server_no_context_takeover; client_no_context_takeover",
    "client_max_window_bits; client_max_window_bits",
    "unknown=1",
    "unknown, permessage-deflate; client_max_window_bits=10",
]
OF_SERVERS: list[dict[str, Any] | None] = [
    None,
    {},
    {"server_max_window_bits": 10},
    {"client_max_window_bits": 8},
    {"server_max_window_bits": 9, "client_max_window_bits": 9, "require_client_max_window_bits": True},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    {"compress_settings": {"strategy": 2, "level": 9}},
]
OF_CLIENTS: list[dict[str, Any] | None] = [
    None,
    {},
    {"server_max_window_bits": 8},
    {"server_max_window_bits": 15},
    {"client_max_window_bits": 10},
    {"client_max_window_bits": None},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
]


def _with_deflate(base: str, name: str, settings: dict[str, Any] | None) -> dict[str, Any]:
    if settings is None:
        return {}
    factory = getattr(part(base, "extensions.permessage_deflate"), name)
    return {"extensions": [factory(**settings)], "compression": None}


@pytest.mark.parametrize("settings", OF_SERVERS, ids=repr)
def test_what_a_server_answers_to_offers_of_compression(settings: dict[str, Any] | None) -> None:
    async def leave(ws: Any) -> None:
        pass

    def ask_all(port: int) -> bytes:
        extension = "Sec-WebSocket-Extensions"
        requests = [request(headers={extension: f"permessage-deflate; {offer}".rstrip("; ")}) for offer in OFFERS]
        return b"".join(asked(port, each) for each in requests)

    answers = [
        asyncio_port(base, ask_all, leave, _with_deflate(base, "ServerPerMessageDeflateFactory", settings))
        for base in BOTH
    ]
    assert answers[0].count(b"HTTP/1.1 101") == len(OFFERS)
    assert answers[1] == answers[0]


@pytest.mark.parametrize("settings", OF_CLIENTS, ids=repr)
def test_what_a_client_offers_of_compression_and_takes(settings: dict[str, Any] | None) -> None:
    """Sent and read by hand: the response to each of the offers, as if it were one."""

    def judge(base: str) -> list[str]:
        seen = []
        with scripted(answer) as port:
            for chosen in [None, *OFFERS]:
                answers.append(chosen)
                connect = part(base, "sync.client").connect
                options = _with_deflate(base, "ClientPerMessageDeflateFactory", settings)
                try:
                    with connect(f"ws://127.0.0.1:{port}/", **options) as ws:
                        seen.append(f"{ws.request.headers['Sec-WebSocket-Extensions']} -> {ws.protocol.extensions}")
                except part(base, "exceptions").InvalidHandshake as exc:
                    seen.append(f"{type(exc).__name__}: {exc}")
        return seen

    answers: list[str | None] = []

    def answer(peer: Peer) -> None:
        chosen = answers[-1]
        header = [] if chosen is None else [f"Sec-WebSocket-Extensions: permessage-deflate; {chosen}".rstrip("; ")]
        peer.accept(*header)
        peer.sock.sendall(frame(CLOSE, b"\x03\xe8"))
        peer.sock.shutdown(socket.SHUT_WR)
        peer.until_end()

    theirs, ours = map(judge, BOTH)
    assert ours == theirs


# --- What cannot be connected to


def connected(base: str, shell: str, uri: str, **options: Any) -> list[str]:
    """Connect on one of the shells; return what was raised, its causes and its text, or the connection's addresses."""

    async def on_asyncio() -> list[str]:
        async with part(base, "asyncio.client").connect(uri, **options) as ws:
            return tell(ws)

    async def on_trio() -> list[str]:
        async with part(base, "trio.client").connect(uri, **options) as ws:
            return tell(ws)

    def tell(ws: Any) -> list[str]:
        return [repr(ws.remote_address), repr(ws.local_address)]

    try:
        if shell == "asyncio":
            return asyncio.run(on_asyncio())
        if shell == "trio":
            return trio.run(on_trio)
        with part(base, "sync.client").connect(uri, **options) as ws:
            return tell(ws)
    except Exception as exc:
        raised: BaseException | None = exc
    while isinstance(raised, ExceptionGroup):
        raised = raised.exceptions[0]
    causes: list[BaseException] = []
    while raised is not None:
        assert raised not in causes, "an exception is its own cause"
        causes.append(raised)
        raised = raised.__cause__
    names = [type(cause).__name__ for cause in causes]
    # trio's own is none
    return [*("OSError" if name == "ConnectionRefusedError" else name for name in names), str(causes[0])]


EVERY_SHELL = "asyncio", "sync", "trio"


@pytest.mark.parametrize("shell", EVERY_SHELL)
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nnope", b"nonsense\r\n\r\n", b"", None],
    ids=["refuses", "nonsense", "ends", "nobody listens"],
)
def test_proxies_that_do_not_work(answer: bytes | None, shell: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(answer or b"")

    with scripted(script) as port:
        proxy = f"http://127.0.0.1:{1 if answer is None else port}"
        theirs, ours = (connected(base, shell, "ws://example.invalid/", proxy=proxy) for base in BOTH)
    assert ours[0] == theirs[0]


@pytest.mark.parametrize("shell", EVERY_SHELL)
@pytest.mark.parametrize(
    "answers",
    [[b"\x05\xff"], [b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], [b"nonsense"], [b""]],
    ids=["wants a password", "refuses", "nonsense", "ends"],
)
def test_socks_proxies_that_do_not_work(answers: list[bytes], shell: str) -> None:
    def script(peer: Peer) -> None:
        for answer in answers:
            peer.sock.recv(1000)
            peer.sock.sendall(answer)

    with scripted(script) as port:
        proxy = f"socks5h://127.0.0.1:{port}"
        theirs, ours = (connected(base, shell, "ws://example.invalid/", proxy=proxy) for base in BOTH)
    assert ours == theirs


@pytest.mark.parametrize("shell", EVERY_SHELL)
@pytest.mark.parametrize(
    "options",
    [{"server_hostname": "localhost"}, {"ssl": None}, {"ssl": True}],
    ids=repr,
)
def test_options_of_tls_that_do_not_fit(options: dict[str, Any], shell: str) -> None:
    uri = "wss://127.0.0.1:1/" if "ssl" in options and options["ssl"] is None else "ws://127.0.0.1:1/"
    theirs, ours = (connected(base, shell, uri, **options) for base in BOTH)
    assert ours[0] == theirs[0]


def _stream(sock: socket.socket) -> Any:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


@pytest.mark.parametrize("shell", EVERY_SHELL)
def test_addresses_of_unix_sockets(shell: str, tmp_path: Path) -> None:
    """Of a side that has a name, and of one that has none."""

    def serve(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock:
            peer = Peer(sock)
            peer.accept()
            sock.recv(100)  # the Close frame
            sock.sendall(frame(CLOSE, b"\x03\xe8"))

    seen = []
    for base in BOTH:
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            thread = in_thread(partial(serve, listening))
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            if shell == "trio":
                seen.append(connected(base, shell, "ws://localhost/", stream=_stream(sock)))
            else:
                seen.append(connected(base, shell, "ws://localhost/", sock=sock))
            thread.join()
        Path(path).unlink()
    assert seen[1] == seen[0] == [repr(path), "''"]


@pytest.mark.parametrize("message", [["x"], None, 1], ids=repr)
def test_what_is_no_message_for_many(message: Any) -> None:
    async def on_asyncio(base: str) -> None:
        part(base, "asyncio.server").broadcast([], message)

    async def on_trio(base: str) -> None:
        await part(base, "trio.server").broadcast([], message)

    for base in BOTH:
        with pytest.raises(TypeError, match="data must be str or bytes"):
            asyncio.run(on_asyncio(base))
        with pytest.raises(TypeError, match="data must be str or bytes"):
            part(base, "sync.server").broadcast([], message)
        with pytest.raises(TypeError, match="data must be str or bytes"):
            trio.run(on_trio, base)


def test_a_cancelled_nursery_ends_a_connection_that_was_made_by_hand() -> None:
    async def main(base: str) -> float:
        near, _ = trio.testing.memory_stream_pair()
        protocol = part(base, "protocol")
        async with trio.open_nursery() as nursery:
            part(base, "trio.connection").Connection(
                nursery, near, protocol.Protocol(protocol.CLIENT), ping_interval=None, close_timeout=3
            )
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return trio.current_time()

    for base in BOTH:
        clock = trio.testing.MockClock(autojump_threshold=0)
        started = clock.current_time()
        assert trio.run(main, base, clock=clock) - started <= 3.5
