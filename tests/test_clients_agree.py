"""The clients on asyncio, in threads and on trio do the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
from sync_helpers import PATIENCE, Peer, scripted

import wsfast
import wsfast.sync
import wsfast.trio
from wsfast import encode_frame


def on_asyncio(uri: str, use: str, *args: Any, kept: list[Any] | None = None, **options: Any) -> Any:
    async def main() -> Any:
        async with wsfast.connect(uri, **options) as ws:
            if kept is not None:
                kept.append(ws)
            return await getattr(ws, use)(*args)

    return asyncio.run(main())


def in_threads(uri: str, use: str, *args: Any, kept: list[Any] | None = None, **options: Any) -> Any:
    with wsfast.sync.connect(uri, **options) as ws:
        if kept is not None:
            kept.append(ws)
        return getattr(ws, use)(*args)


def on_trio(uri: str, use: str, *args: Any, kept: list[Any] | None = None, **options: Any) -> Any:
    async def main() -> Any:
        async with wsfast.trio.connect(uri, **options) as ws:
            if kept is not None:
                kept.append(ws)
            return await getattr(ws, use)(*args)

    return trio.run(main)


clients = pytest.mark.parametrize("client", [on_asyncio, in_threads, on_trio])


@clients
def test_a_refusal_whose_body_takes_too_long(client: Callable[..., Any]) -> None:
    """`open_timeout` passes within the body: the refusal is known by then, and is what is told."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nonly a part")
        peer.until_end()

    with scripted(script) as port, pytest.raises(wsfast.InvalidStatus) as caught:
        client(f"ws://127.0.0.1:{port}", "recv", open_timeout=0.3)
    assert caught.value.response.body == b"only a part"


@clients
@pytest.mark.parametrize(
    ("target", "options", "kind"),
    [
        ("/elsewhere", {}, TimeoutError),
        ("/elsewhere", {"max_redirects": 0}, wsfast.InvalidStatus),
        ("https://user@", {}, wsfast.RedirectError),
    ],
)
def test_a_redirect_whose_body_takes_too_long(
    client: Callable[..., Any], target: str, options: dict[str, Any], kind: type[Exception]
) -> None:
    """`open_timeout` passes within its body: no time is left to follow it, but one that is not followed is told."""
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        asked.append(peer.read_head())
        head = f"HTTP/1.1 307 Away\r\nLocation: {target}\r\nContent-Length: 100\r\n\r\nonly a part"
        peer.sock.sendall(head.encode())
        peer.until_end()

    with scripted(script) as port, pytest.raises(kind) as caught:
        client(f"ws://127.0.0.1:{port}", "recv", open_timeout=0.2, **options)
    assert len(asked) == 1
    if kind is TimeoutError:
        assert str(caught.value) == "timed out during the opening handshake: it took more than 0.2 s"


@clients
def test_process_response(client: Callable[..., Any]) -> None:
    """It sees each response, that of a refusal too, before anything is made of it; what it raises is raised."""
    seen: list[tuple[str, int]] = []

    def note(request: wsfast.Request, response: wsfast.Response) -> None:
        seen.append((request.path, response.status_code))
        if "X-Too-Old" in response.headers:
            raise LookupError("the server is too old")

    def script(peer: Peer) -> None:
        head = peer.read_head()
        if b"GET /moved" in head:
            peer.sock.sendall(b"HTTP/1.1 307 Away\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
        elif b"GET /no" in head:
            peer.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nX-Too-Old: 1\r\nContent-Length: 0\r\n\r\n")
        else:
            peer.accept()
            peer.sock.sendall(encode_frame(1, "hello"))
            peer.until_end()

    with scripted(script) as port:
        uri = f"ws://127.0.0.1:{port}"
        assert client(f"{uri}/moved", "recv", process_response=note, close_timeout=0.1) == "hello"
        assert seen == [("/moved", 307), ("/", 101)]
        with pytest.raises(LookupError, match="too old"):
            client(f"{uri}/no", "recv", process_response=note)

        async def later(request: wsfast.Request, response: wsfast.Response) -> None:
            raise AssertionError

        for wrong in (later, "text"):
            with pytest.raises(TypeError, match="process_response must be a plain function"):
                client(uri, "recv", process_response=wrong)


@clients
def test_the_cause_of_a_reset(client: Callable[..., Any]) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.recv(1)
        peer.reset()

    with scripted(script) as port, pytest.raises(wsfast.ConnectionClosedError) as caught:
        client(f"ws://127.0.0.1:{port}", "recv", ping_interval=0.05)
    assert isinstance(caught.value.__cause__, (OSError, trio.BrokenResourceError))
    assert caught.value.cause is wsfast.CloseCause.LOST


@clients
def test_the_cause_of_a_transport_that_the_server_does_not_end(client: Callable[..., Any]) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.recv(1000)
        peer.sock.sendall(encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    kept: list[Any] = []
    with scripted(script) as port:
        client(f"ws://127.0.0.1:{port}", "ping", close_timeout=0.1, kept=kept)
    assert isinstance(kept[0].close_exc, wsfast.ConnectionClosedOK)
    assert isinstance(kept[0].close_exc.__cause__, TimeoutError)


@clients
def test_a_piece_goes_out_at_once(client: Callable[..., Any]) -> None:
    """The next piece may be long in coming: here it waits until the peer has the first."""
    arrived = threading.Event()
    seen: list[Any] = []

    def in_thread() -> Iterator[str]:
        yield "first"
        assert arrived.wait(PATIENCE)
        yield "second"

    async def on_a_loop() -> AsyncIterator[str]:
        yield "first"
        run = asyncio.to_thread if client is on_asyncio else trio.to_thread.run_sync
        assert await run(arrived.wait, PATIENCE)
        yield "second"

    def script(peer: Peer) -> None:
        peer.accept()
        decoder = wsfast.Decoder(masked=True)
        decoder.streaming = True
        while not seen:
            seen.extend(decoder.feed(peer.sock.recv(1000)))
        arrived.set()
        peer.until_end()

    pieces = in_thread() if client is in_threads else on_a_loop()
    with scripted(script) as port:
        client(f"ws://127.0.0.1:{port}", "send", pieces, close_timeout=0.1)
    assert seen[0].data == "first"


@clients
def test_a_class_of_ones_own(client: Callable[..., Any]) -> None:
    package = {on_asyncio: wsfast, in_threads: wsfast.sync, on_trio: wsfast.trio}[client]
    base: Any = package.WebSocket

    class Own(base):  # type: ignore[misc]
        def hello(self) -> Any:
            return self.recv()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "hello"))
        peer.until_end()

    kept: list[Any] = []
    with scripted(script) as port:
        uri = f"ws://127.0.0.1:{port}"
        assert client(uri, "hello", create_connection=Own, close_timeout=0.1, kept=kept) == "hello"
    assert type(kept[0]) is Own
    for wrong in (dict, Own.__init__, "Own"):
        with pytest.raises(TypeError, match=rf"must be a subclass of {base.__module__}.WebSocket, got"):
            client("ws://127.0.0.1:1", "recv", create_connection=wrong)


@pytest.mark.parametrize("package", [wsfast, wsfast.sync, wsfast.trio])
def test_unix_connect_wants_a_path_or_a_socket(package: Any) -> None:
    with pytest.raises(ValueError, match="expected either path or sock"):
        package.unix_connect()
    with pytest.raises(ValueError, match="expected either path or sock"):
        package.unix_connect("path", sock=object())


# --- Messages in fragments -------------------------------------------------------------------------------------------


def closing_between(client: Callable[..., Any], kept: list[Any], then: Callable[[], Any]) -> Any:
    """Make two pieces of a message; between them this side begins to close. Call `then` for the second."""

    def thread_pieces() -> Iterator[str]:
        yield "x"
        closing = threading.Thread(target=kept[0].close)
        closing.start()
        while kept[0].state is wsfast.State.OPEN:
            time.sleep(0.001)
        yield then()
        closing.join()

    async def pieces() -> AsyncIterator[str]:
        yield "x"
        if client is on_trio:
            trio.lowlevel.spawn_system_task(kept[0].close)
        else:
            closing = asyncio.ensure_future(kept[0].close())
        while kept[0].state is wsfast.State.OPEN:
            await (trio if client is on_trio else asyncio).sleep(0.001)
        yield then()
        if client is on_asyncio:
            await closing

    return thread_pieces() if client is in_threads else pieces()


@clients
def test_who_sends_fragments_while_this_side_closes_learns_how_it_ended(client: Callable[..., Any]) -> None:
    """It waits for the end, as who sends a whole message does."""
    second = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        came = b""
        while b"\x88\x82" not in came:
            came += peer.sock.recv(1000)
        second.wait(PATIENCE)
        peer.sock.sendall(encode_frame(8, b"\x03\xe8"))

    def then() -> str:
        second.set()
        return "y"

    kept: list[Any] = []
    with scripted(script) as port, pytest.raises(wsfast.ConnectionClosedOK):
        client(f"ws://127.0.0.1:{port}", "send", closing_between(client, kept, then), kept=kept)
    assert kept[0].state is wsfast.State.CLOSED


@clients
@pytest.mark.parametrize("begun", [False, True])
def test_pieces_that_end_with_another_connection(client: Callable[..., Any], begun: bool) -> None:
    """What the pieces raise is raised, though it is a ConnectionClosed: that of the connection they come from."""
    other = wsfast.ConnectionClosedError(None, None)

    def thread_pieces() -> Iterator[str]:
        if begun:
            yield "x"
        raise other

    async def pieces() -> AsyncIterator[str]:
        for piece in thread_pieces():
            yield piece

    def script(peer: Peer) -> None:
        peer.accept()
        peer.until_end()

    kept: list[Any] = []
    with scripted(script) as port, pytest.raises(wsfast.ConnectionClosedError) as caught:
        made = thread_pieces() if client is in_threads else pieces()
        client(f"ws://127.0.0.1:{port}", "send", made, kept=kept, close_timeout=0.1)
    assert caught.value is other


@clients
def test_no_pieces_on_a_closed_connection(client: Callable[..., Any]) -> None:
    asked: list[str] = []

    def thread_pieces() -> Iterator[str]:
        asked.append("x")
        yield "x"

    async def pieces() -> AsyncIterator[str]:
        asked.append("x")
        yield "x"

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(8, b"\x03\xe8"))
        peer.sock.recv(1000)

    async def late(connection: Any, message: Any) -> None:
        async with connection as ws:
            await ws.wait_closed()
            await ws.send(message)

    with scripted(script) as port:
        uri = f"ws://127.0.0.1:{port}"
        messages: list[Any] = [[], thread_pieces() if client is in_threads else pieces()]
        for message in messages:
            with pytest.raises(wsfast.ConnectionClosedOK):
                if client is on_asyncio:
                    asyncio.run(late(wsfast.connect(uri), message))
                elif client is on_trio:
                    trio.run(late, wsfast.trio.connect(uri), message)
                else:
                    with wsfast.sync.connect(uri) as ws:
                        ws.wait_closed()
                        ws.send(message)
    assert not asked
