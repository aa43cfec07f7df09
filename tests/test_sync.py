"""The client without an event loop, beside servers of wsfast, of websockets, and of none that behave."""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import Certificates, make_certificates
from shared import HeldCompression, echo
from sync_helpers import (
    PATIENCE,
    Peer,
    Running,
    client_threads,
    http_proxy,
    in_thread,
    running,
    scripted,
    socks_proxy,
    until,
)

import wsfast
from wsfast import encode_frame, session
from wsfast.sync import WebSocket, connect, reconnect, unix_connect
from wsfast.sync.client import PathOptions


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test leaves a thread of the client's behind."""
    yield
    until(lambda: not client_threads())


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


# --- Messages


@pytest.mark.parametrize("message", ["hello", "", "héllo ✓", b"\0\xff", b"", b"x" * 300_000, "y" * 70_000])
def test_a_message_there_and_back(server: Running, message: str | bytes) -> None:
    with connect(server.uri) as ws:
        ws.send(message)
        assert ws.recv() == message
    assert ws.state is wsfast.State.CLOSED
    assert (ws.close_code, ws.close_reason, ws.close_cause) == (1000, "", wsfast.CloseCause.LOCAL)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_like_messages(server: Running, kind: Any) -> None:
    with connect(server.uri) as ws:
        ws.send(kind(b"abc"))
        assert ws.recv() == b"abc"


def test_what_is_known_of_a_connection(server: Running) -> None:
    with connect(server.uri, user_agent_header="me") as ws:
        assert ws.request.headers["User-Agent"] == "me"
        assert ws.response is not None
        assert ws.response.status_code == 101
        assert ws.subprotocol is None
        assert ws.remote_address[1] == server.server.sockets[0].getsockname()[1]
        assert ws.local_address[0] == "127.0.0.1"
        assert ws.state is wsfast.State.OPEN
        assert ws.close_code is None
        assert ws.close_reason is None
        assert ws.close_cause is None
        assert "OPEN" in repr(ws)
    assert "CLOSED" in repr(ws)


def test_text_and_decode(server: Running) -> None:
    with connect(server.uri) as ws:
        ws.send(b"bytes as text", text=True)
        assert ws.recv() == "bytes as text"
        ws.send("str as binary", text=False)
        assert ws.recv() == b"str as binary"
        ws.send("x")
        assert ws.recv(decode=False) == b"x"
        ws.send(b"x")
        assert ws.recv(decode=True) == "x"
        ws.send(b"\xff")
        with pytest.raises(UnicodeDecodeError):
            ws.recv(decode=True)
        ws.send("still open")
        assert ws.recv() == "still open"


@pytest.mark.parametrize("message", [5, None, {"a": "b"}, object()])
def test_no_message(server: Running, message: Any) -> None:
    with connect(server.uri) as ws, pytest.raises(TypeError, match="message must be"):
        ws.send(message)


def test_fragments(server: Running) -> None:
    with connect(server.uri) as ws:
        ws.send(["a", "", "bc"])
        assert ws.recv() == "abc"
        ws.send(piece for piece in (b"a", b"b"))
        assert ws.recv() == b"ab"
        ws.send([])  # no message
        with pytest.raises(TypeError, match="all fragments must be str"):
            ws.send(piece for piece in ("a", b"b"))  # "a" was sent already, and cannot be taken back
        with pytest.raises(wsfast.ConnectionClosedError, match="a message was not finished"):
            ws.send("after")


@pytest.mark.parametrize(
    "message", [[None], [1], [["a"]], [{"a": 1}], [object()], iter([None]), ["a", None], ["a", 1], ["a", ["b"]]]
)
def test_what_is_no_fragment(server: Running, message: Any) -> None:
    """Nothing of the message was sent, so that the connection stays open."""
    with connect(server.uri) as ws:
        with pytest.raises(TypeError, match="all fragments must be"):
            ws.send(message)
        ws.send("after")
        assert ws.recv() == "after"


@pytest.mark.parametrize("message", [[], (), set(), iter([]), (piece for piece in "")])
def test_no_fragments_are_no_message(server: Running, message: Any) -> None:
    with connect(server.uri) as ws:
        ws.send(message)
        ws.send("after")
        assert ws.recv() == "after"


def test_other_bytes_like_objects_are_whole(server: Running) -> None:
    with connect(server.uri) as ws:
        numbers: Any = array.array("H", [1, 2])  # a checker takes it for an iterable of messages
        ws.send(numbers)
        assert ws.recv() == numbers.tobytes()


def test_a_generator_that_raises_before_its_first_piece(server: Running) -> None:
    def pieces() -> Iterator[str]:
        raise KeyError("mine")
        yield "never"

    with connect(server.uri) as ws:
        with pytest.raises(KeyError, match="mine"):
            ws.send(pieces())
        ws.send("after")
        assert ws.recv() == "after"


def test_a_message_that_is_not_finished_closes(server: Running) -> None:
    def pieces() -> Iterator[str]:
        yield "a"
        yield "b"
        raise KeyError("mine")

    with connect(server.uri) as ws:
        with pytest.raises(KeyError, match="mine"):
            ws.send(pieces())
        with pytest.raises(wsfast.ConnectionClosedError, match="1011"):
            ws.recv()


def test_an_iterable_must_not_send(server: Running) -> None:
    with connect(server.uri) as ws:

        def pieces() -> Iterator[str]:
            ws.send("b")
            yield "a"

        with pytest.raises(wsfast.ConcurrencyError):
            ws.send(pieces())
        ws.send("c")
        assert ws.recv() == "c"


def test_iteration_ends_with_a_normal_close() -> None:
    async def three(ws: wsfast.WebSocket) -> None:
        for i in range(3):
            await ws.send(str(i))

    with running(three) as served, connect(served.uri) as ws:
        assert list(ws) == ["0", "1", "2"]
        with pytest.raises(wsfast.ConnectionClosedOK):
            ws.recv()
        with pytest.raises(wsfast.ConnectionClosedOK):
            ws.send("x")


def test_iteration_raises_on_another_close() -> None:
    async def leave(ws: wsfast.WebSocket) -> None:
        await ws.send("x")
        await ws.close(4000, "enough")

    with running(leave) as served, connect(served.uri) as ws:
        messages = iter(ws)
        assert next(messages) == "x"
        with pytest.raises(wsfast.ConnectionClosedError, match="enough") as caught:
            next(messages)
    assert caught.value.code == 4000
    assert ws.close_reason == "enough"


def test_compression(server: Running) -> None:
    with running(compression="deflate") as served, connect(served.uri, compression="deflate") as ws:
        assert ws.response is not None
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
        for size in (10, 1000, 100_000):
            ws.send("x" * size)
            ws.send("y" * size, compress=False)
            assert (ws.recv(), ws.recv()) == ("x" * size, "y" * size)
        ws.send(["x" * 1000, "y" * 1000])
        assert ws.recv() == "x" * 1000 + "y" * 1000
    # A server without it declines.
    with connect(server.uri, compression="deflate") as ws:
        ws.send("x")
        assert ws.recv() == "x"


def test_a_message_past_the_limit(server: Running) -> None:
    with connect(server.uri, max_size=100) as ws:
        ws.send("x" * 101)
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            ws.recv()
    assert isinstance(caught.value.__cause__, wsfast.PayloadTooBig)
    assert ws.close_cause is wsfast.CloseCause.TOO_BIG


# --- Time


def test_recv_with_a_timeout(server: Running) -> None:
    with connect(server.uri) as ws:
        for timeout in (0, -1, 0.05):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                ws.recv(timeout=timeout)
            assert time.monotonic() - began < 5
        ws.send("x")
        assert ws.recv(timeout=PATIENCE) == "x"
        ws.send("y")
        ws.ping().wait(PATIENCE)
        time.sleep(0.05)
        assert ws.recv(timeout=0) == "y"


def test_a_timeout_in_the_middle_of_a_message_loses_nothing() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "half ", fin=False))
        go.wait(PATIENCE)
        peer.sock.sendall(encode_frame(0, "whole"))
        peer.until_end()

    go = threading.Event()
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.05)
        go.set()
        assert ws.recv(timeout=PATIENCE) == "half whole"


def test_a_close_that_is_never_answered() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.until_end()

    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", close_timeout=0.2)
        began = time.monotonic()
        ws.close()
        assert 0.2 <= time.monotonic() - began < 5
        assert ws.close_cause is wsfast.CloseCause.TIMEOUT
        assert ws.close_code == 1006
        ws.close()  # without effect


def test_no_time_to_close() -> None:
    """With `close_timeout` 0 the Close frame is sent, and its answer is not waited for."""

    def script(peer: Peer) -> None:
        peer.accept()
        seen.append(peer.until_end())

    seen: list[bytes] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", close_timeout=0)
        began = time.monotonic()
        ws.close()
        assert time.monotonic() - began < 1
        assert ws.close_cause is wsfast.CloseCause.TIMEOUT
    (close,) = wsfast.Decoder(masked=True).feed(seen[0])
    assert close == wsfast.Close(1000)


def test_no_time_for_a_pong() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        seen.append(peer.until_end())

    seen: list[bytes] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", ping_interval=0.01, ping_timeout=0)
        with pytest.raises(wsfast.ConnectionClosedError, match="keepalive"):
            ws.recv(timeout=PATIENCE)
        assert ws.wait_closed(PATIENCE)
    ping, close = wsfast.Decoder(masked=True).feed(seen[0])
    assert isinstance(ping, wsfast.Ping)
    assert close == wsfast.Close(1011, "keepalive ping timeout")


def test_no_interval_between_pings(server: Running) -> None:
    """One ping follows the other, and yet the thread sleeps most of the time."""
    with connect(server.uri, ping_interval=0) as ws:
        began = time.thread_time(), time.process_time()
        until(lambda: ws._session.pings_sent >= 5)
        assert time.process_time() - began[1] < 1
        assert ws.latency > 0
        ws.send("x")
        assert ws.recv() == "x"


# --- Messages under way when one side closes


@pytest.mark.parametrize("seconds", [1e7, 1e10, 1e300, 10**400], ids=lambda seconds: f"{len(str(seconds))}")
def test_times_that_the_system_does_not_take(server: Running, seconds: float) -> None:
    """`poll` takes 2 ** 31 ms, a lock 2 ** 63 ns, and a float no integer of 400 digits."""
    names = ("open_timeout", "ping_interval", "ping_timeout", "close_timeout")
    options: dict[str, Any] = dict.fromkeys(names, seconds)
    with connect(server.uri, **options) as ws:
        ws.send("a")
        assert ws.recv(timeout=seconds) == "a"
        assert ws.ping().wait(seconds)
    assert ws.wait_closed(seconds)
    assert ws.close_code == 1000


def test_answers_that_are_under_way_when_this_side_closes(server: Running) -> None:
    """RFC 6455, 7.1.1: what the peer sent before its own Close frame reaches the program."""
    ws = connect(server.uri)
    for i in range(5):
        ws.send(str(i))
    ws.close()
    assert list(ws) == ["0", "1", "2", "3", "4"]
    assert ws.close_code == 1000


def test_more_under_way_than_there_is_room_for() -> None:
    """What is taken in time is received; the rest is dropped, and the closing handshake ends well."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"".join(encode_frame(1, f"{i:1000}") for i in range(2000)))
        decoder = wsfast.Decoder(masked=True)
        while not any(isinstance(event, wsfast.Close) for event in decoder.feed(peer.sock.recv(65536))):
            pass
        peer.sock.sendall(encode_frame(8, b"\x03\xe8"))

    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", read_limit=5000)
        began = time.monotonic()
        ws.close()
        assert session.GRACE <= time.monotonic() - began < 5
        assert ws.close_code == 1000
        messages = list(ws)
        assert 5 <= len(messages) < 2000
        assert messages == [f"{i:1000}" for i in range(len(messages))]


def test_who_receives_on_gets_all_that_is_under_way() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"".join(encode_frame(1, f"{i:1000}") for i in range(2000)) + encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", read_limit=5000, close_timeout=0.5)
        until(lambda: ws._paused)
        closing = in_thread(ws.close)
        until(lambda: ws.state is wsfast.State.CLOSING)
        assert list(ws) == [f"{i:1000}" for i in range(2000)]
        closing.join(PATIENCE)
        assert not closing.is_alive()


def test_a_close_frame_waits_for_the_answers_to_what_came_before_it() -> None:
    seen: list[Any] = []

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"".join(encode_frame(1, str(i)) for i in range(3)) + encode_frame(8, b"\x03\xe8"))
        seen.extend(wsfast.Decoder(masked=True).feed(peer.until_end()))

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.2) as ws:
        for message in ws:
            ws.send(message)
    assert seen == ["0", "1", "2", wsfast.Close(1000)]


def test_a_close_frame_does_not_wait_for_long() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "x") + encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        assert ws.recv(timeout=PATIENCE) == "x"
        assert ws.state is wsfast.State.OPEN
        assert ws.wait_closed(PATIENCE)
        with pytest.raises(wsfast.ConnectionClosedOK):
            ws.send("y")


def test_a_server_that_never_ends_the_connection() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.recv(100)
        peer.sock.sendall(encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", close_timeout=0.2)
        ws.close()
        assert (ws.close_code, ws.close_cause) == (1000, wsfast.CloseCause.LOCAL)


def test_keepalive_finds_a_server_that_is_gone() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        seen.append(peer.until_end())

    seen: list[bytes] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", ping_interval=0.1, ping_timeout=0.1)
        with pytest.raises(wsfast.ConnectionClosedError, match="keepalive"):
            ws.recv(timeout=PATIENCE)
        assert ws.close_cause is wsfast.CloseCause.KEEPALIVE
        assert ws.wait_closed(PATIENCE)
    assert seen[0][0] == 0x89  # a ping came first


def test_keepalive_while_nobody_receives(server: Running) -> None:
    with connect(server.uri, ping_interval=0.05, ping_timeout=0.5) as ws:
        time.sleep(0.3)
        assert ws.state is wsfast.State.OPEN
        assert ws.latency > 0


def test_pings_are_answered_while_nobody_receives(server: Running) -> None:
    with connect(server.uri) as ws:
        ws.send("x")

        async def ping() -> float:
            (there,) = server.server.connections
            return await (await there.ping())

        assert server.call(ping) > 0
        assert ws.recv() == "x"


# --- Pings


def test_ping(server: Running) -> None:
    with connect(server.uri) as ws:
        waiter = ws.ping()
        assert waiter.wait(PATIENCE)
        assert waiter.is_set()
        assert waiter.latency == ws.latency > 0
        assert ws.ping("data").wait(PATIENCE)
        assert ws.ping(b"data").wait()
        ws.pong()
        ws.pong("sign of life")
        with pytest.raises(ValueError, match="125"):
            ws.ping(b"x" * 126)
    with pytest.raises(wsfast.ConnectionClosedOK):
        ws.ping()
    with pytest.raises(wsfast.ConnectionClosedOK):
        ws.pong()


def test_pings_that_are_not_answered() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)

    go = threading.Event()
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}")
        waiter, other = ws.ping("same"), ws.ping(ack_on_close=True)
        assert not waiter.wait(0.05)
        with pytest.raises(wsfast.ConcurrencyError):
            ws.ping("same")
        for _ in range(62):
            ws.ping()
        with pytest.raises(wsfast.InvalidState, match="64"):
            ws.ping()
        go.set()
        with pytest.raises(wsfast.ConnectionClosedError):
            waiter.wait(PATIENCE)
        assert other.wait(PATIENCE)
        assert other.latency is None
        assert ws.wait_closed(PATIENCE)


def test_a_later_pong_answers_earlier_pings() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)
        peer.sock.sendall(encode_frame(10, b"nobody asked") + encode_frame(10, b"2"))
        peer.until_end()

    go = threading.Event()
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        first, second, third = ws.ping("1"), ws.ping("2"), ws.ping("3")
        go.set()
        assert second.wait(PATIENCE)
        assert first.is_set()
        assert not third.is_set()


# --- The end


def test_close_is_checked(server: Running) -> None:
    with connect(server.uri) as ws:
        for code in (999, 1005, 1006, 1015, 5000):
            if code != 1005:
                with pytest.raises(ValueError, match="code"):
                    ws.close(code)
        with pytest.raises(ValueError, match="123"):
            ws.close(1000, "x" * 124)
        ws.close(4321, "bye")
        ws.close(1000)
    assert ws.close_code == 4321
    assert ws.close_reason == "bye"  # an echo carries both


def test_a_block_that_raises_closes_with_1011() -> None:
    codes: list[int | None] = []

    async def note(ws: wsfast.WebSocket) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)

    def fail(uri: str) -> None:
        with connect(uri):
            raise KeyError

    with running(note) as served:
        with pytest.raises(KeyError):
            fail(served.uri)
        with connect(served.uri):
            pass
    assert codes == [1011, 1000]


@pytest.mark.parametrize("how", ["drop", "reset", "half a frame", "garbage"])
def test_a_server_that_drops(how: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)
        if how == "reset":
            peer.reset()
        elif how == "half a frame":
            peer.sock.sendall(encode_frame(2, b"x" * 1000)[:500])
        elif how == "garbage":
            peer.sock.sendall(b"\xff" * 10)
            peer.until_end()

    go = threading.Event()
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}")
        threading.Timer(0.05, go.set).start()
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            ws.recv(timeout=PATIENCE)
        assert ws.wait_closed(PATIENCE)
        assert ws.close_code == 1006
        expected = wsfast.CloseCause.PROTOCOL_ERROR if how == "garbage" else wsfast.CloseCause.LOST
        assert caught.value.cause is ws.close_cause is expected
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.send("x")


def test_a_protocol_error_is_told_to_the_server() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "masked", mask=b"abcd"))
        seen.append(peer.until_end())

    seen: list[bytes] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}")
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            ws.recv(timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, wsfast.ProtocolError)
        ws.close()
    (event,) = wsfast.Decoder(masked=True).feed(seen[0])
    assert isinstance(event, wsfast.Close)
    assert event.code == 1002


def test_messages_before_the_close_are_delivered() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"".join(encode_frame(1, str(i)) for i in range(100)) + encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        assert ws.wait_closed(PATIENCE)
        assert list(ws) == [str(i) for i in range(100)]


def test_close_wakes_who_receives(server: Running) -> None:
    ws = connect(server.uri)
    caught: list[BaseException] = []

    def receive() -> None:
        try:
            ws.recv()
        except wsfast.ConnectionClosedOK as exc:
            caught.append(exc)

    threads = [in_thread(receive) for _ in range(3)]
    time.sleep(0.05)
    ws.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(caught) == 3


def test_abort(server: Running) -> None:
    ws = connect(server.uri)
    ws.abort()
    assert ws.wait_closed(PATIENCE)
    with pytest.raises(wsfast.ConnectionClosedError):
        ws.recv()
    ws.abort()
    ws.close()


def test_wait_closed(server: Running) -> None:
    ws = connect(server.uri)
    assert not ws.wait_closed(0.02)
    ws.close()
    assert ws.wait_closed()


# --- Streaming


def test_a_message_in_pieces() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for piece in ("one ", "two ", "three"):
            peer.sock.sendall(encode_frame(1 if piece == "one " else 0, piece, fin=piece == "three"))
            assert step.acquire(timeout=PATIENCE)
        peer.sock.sendall(encode_frame(2, b"next"))
        peer.until_end()

    step = threading.Semaphore(0)
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        until(lambda: ws._connection.decoder.held)  # what came before is delivered, too: the peer waits for it
        pieces = []
        for piece in ws.recv_streaming():
            pieces.append(piece)
            step.release()
            with pytest.raises(wsfast.ConcurrencyError):
                ws.recv()
            with pytest.raises(wsfast.ConcurrencyError):
                next(ws.recv_streaming())
        assert "".join(map(str, pieces)) == "one two three"
        assert len(pieces) >= 3
        assert list(ws.recv_streaming(decode=True)) == ["next"]


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="frees the iterator late: see docs/faq.md")
def test_streaming_that_is_left(server: Running) -> None:
    with connect(server.uri) as ws:
        ws.send(b"x" * 500_000)
        ws.send("after")
        for piece in ws.recv_streaming():
            assert piece
            break
        assert ws.recv() == "after"
        ws.send("short")
        for piece in ws.recv_streaming(decode=False):
            assert piece == b"short"
            break
        ws.send("last")
        assert ws.recv() == "last"


def test_streaming_that_ends_early() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "piece", fin=False))

    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}")
        with pytest.raises(wsfast.ConnectionClosedError):
            list(ws.recv_streaming())
        ws.close()


def test_a_stream_is_not_shared(server: Running) -> None:
    """Who receives in another thread waits for the end of the message that is streamed."""
    with connect(server.uri, read_limit=1000) as ws:
        got: list[object] = []
        ws.send(b"x" * 400_000)
        stream = ws.recv_streaming()
        size = len(next(stream))
        thread = in_thread(lambda: got.append(ws.recv()))
        with pytest.raises(TimeoutError):
            in_other_thread(lambda: ws.recv(timeout=0.05))
        ws.send("after")
        size += sum(map(len, stream))
        assert size == 400_000
        thread.join(PATIENCE)
        assert got == ["after"]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_stream_is_handed_to_another_thread_and_given_up_in_a_third(waiting: bool) -> None:
    """As happens to one that the garbage collector finds; the rest of the message is dropped."""

    def script(peer: Peer) -> None:
        peer.accept()
        for piece in ("one ", "two "):
            peer.sock.sendall(encode_frame(1 if piece == "one " else 0, piece, fin=False))
            assert step.acquire(timeout=PATIENCE)
        peer.sock.sendall(encode_frame(0, b"three", fin=True) + encode_frame(2, b"after") + encode_frame(1, b"more"))
        peer.until_end()

    step = threading.Semaphore(0)
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        got: list[object] = []
        stream = ws.recv_streaming()
        assert in_other_thread(lambda: next(stream)) == "one "
        step.release()
        assert next(stream) == "two "
        with pytest.raises(wsfast.ConcurrencyError):
            ws.recv()
        with pytest.raises(TimeoutError):
            in_other_thread(lambda: ws.recv(timeout=0.05))
        threads = [in_thread(lambda: got.append(ws.recv()))] if waiting else []
        in_other_thread(stream.close)  # type: ignore[attr-defined]
        step.release()
        if not waiting:
            got.append(ws.recv(timeout=PATIENCE))
        for thread in threads:
            thread.join(PATIENCE)
        assert got == [b"after"]
        assert list(ws.recv_streaming()) == ["more"]


def in_other_thread(call: Callable[[], Any]) -> Any:
    """Call in a thread, and return or raise what came of it."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((call(), None))
        except BaseException as exc:
            results.append((None, exc))

    thread = in_thread(run)
    thread.join(PATIENCE)
    ((result, exc),) = results
    if exc is not None:
        raise exc
    return result


# --- Threads


@pytest.mark.parametrize("receiving", [True, False])
def test_a_peers_close_is_answered_behind_what_another_thread_compresses(
    receiving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6455, 5.5.1: it "MAY delay sending a Close frame until its current message is sent"."""
    held = HeldCompression(monkeypatch)
    received: list[Any] = []

    async def closes(ws: wsfast.WebSocket) -> None:
        await asyncio.to_thread(held.began.wait)
        ws.close_nowait(1001)
        received.extend([message async for message in ws])

    def receive() -> None:
        with pytest.raises(wsfast.ConnectionClosedOK):
            ws.recv()

    with running(closes, compression="deflate") as served, connect(served.uri, compression="deflate") as ws:
        sender = in_thread(lambda: ws.send("large " * 10_000))
        until(lambda: ws._kept is not None)
        threads = [sender, *([in_thread(receive)] if receiving else [])]
        assert ws.state is wsfast.State.OPEN
        held.go_on.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert ws.wait_closed(PATIENCE)
        assert ws.close_code == 1001
        until(lambda: received)
    assert received == ["large " * 10_000]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_many_threads(compression: Any) -> None:
    """Eight send, three receive, one pings: every message comes back once, whole, and in its sender's order."""
    senders, each = 8, 150
    seed = random.randrange(2**32)
    print("seed", seed)
    with running(compression=compression) as served, connect(served.uri, compression=compression) as ws:
        received: list[list[str]] = [[], [], []]
        left = threading.Semaphore(0)
        stop = threading.Event()

        def send(number: int) -> None:
            dice = random.Random(seed + number)
            for i in range(each):
                body = f"{number}:{i}:" + "x" * dice.choice((0, 10, 300, 5000))
                ws.send([body[:3], body[3:]] if dice.random() < 0.2 else body)

        def receive(into: list[str]) -> None:
            while True:
                try:
                    into.append(str(ws.recv(timeout=0.1)))
                except TimeoutError:
                    if stop.is_set():
                        return
                else:
                    left.release()

        def ping() -> None:
            while not stop.is_set():
                assert ws.ping().wait(PATIENCE)
                time.sleep(0.002)

        receivers = [in_thread(lambda into=into: receive(into)) for into in received]  # type: ignore[misc]
        others = [in_thread(ping), *(in_thread(lambda n=n: send(n)) for n in range(senders))]  # type: ignore[misc]
        for _ in range(senders * each):
            assert left.acquire(timeout=PATIENCE)
        stop.set()
        for thread in receivers + others:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    found = [tuple(map(int, message.split(":")[:2])) for into in received for message in into]
    assert sorted(found) == [(n, i) for n in range(senders) for i in range(each)]
    for into in received:
        for number in range(senders):
            order = [int(m.split(":")[1]) for m in into if m.startswith(f"{number}:")]
            assert order == sorted(order)


def test_fragments_of_several_threads_are_not_mixed(server: Running) -> None:
    with connect(server.uri) as ws:

        def send(letter: str) -> None:
            for _ in range(20):
                ws.send(letter for _ in range(50))

        threads = [in_thread(lambda letter=letter: send(letter)) for letter in "abcd"]  # type: ignore[misc]
        messages = [str(ws.recv(timeout=PATIENCE)) for _ in range(80)]
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(messages) == sorted([letter * 50 for letter in "abcd"] * 20)


def test_closing_while_others_send_and_receive(server: Running) -> None:
    ws = connect(server.uri)
    ended: list[type] = []

    def busy() -> None:
        try:
            while True:
                ws.send("x" * 1000)
                ws.recv()
        except wsfast.ConnectionClosed as exc:
            ended.append(type(exc))

    threads = [in_thread(busy) for _ in range(4)]
    time.sleep(0.1)
    closing = [in_thread(ws.close) for _ in range(3)]
    for thread in threads + closing:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert ended == [wsfast.ConnectionClosedOK] * 4


# --- Backpressure


def test_reading_pauses_while_nobody_receives() -> None:
    """A server that sends without end is held up, loses nothing, and does not fill the memory."""
    sent = 0

    async def flood(ws: wsfast.WebSocket) -> None:
        nonlocal sent
        for i in range(2000):
            await ws.send(f"{i:08}" + "x" * 10_000)
            sent = i + 1

    with running(flood, write_limit=1000) as served, connect(served.uri, read_limit=20_000) as ws:
        before = -1
        while sent != before:
            before = sent
            time.sleep(0.2)
        assert sent < 2000
        assert ws._put_size - ws._taken_size < 20_000 + 65536 + 20_000
        for i, message in enumerate(ws):
            assert str(message).startswith(f"{i:08}x")
        assert i == 1999


@functools.cache
def packed(count: int) -> bytes:
    """Make compressed messages of 1 MiB, each with its number in front, of about 1 KiB each."""
    frames = []
    for i in range(count):
        deflater = zlib.compressobj(9, wbits=-15)
        data = deflater.compress(b"%08d" % i + bytes((1 << 20) - 8)) + deflater.flush(zlib.Z_SYNC_FLUSH)
        frames.append(encode_frame(2, data.removesuffix(b"\0\0\xff\xff"), rsv1=True))
    return b"".join(frames)


def agree(peer: Peer) -> None:
    peer.accept("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover")


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """Measure the memory that Python takes meanwhile."""
    tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size, peak


@pytest.mark.parametrize("end", ["open", "close", "drop"])
def test_many_small_bombs_in_one_read(end: str) -> None:
    """200 messages of 1 MiB, each allowed, in 210 KB: they are inflated as they are taken, whatever comes behind."""

    def script(peer: Peer) -> None:
        agree(peer)
        peer.sock.sendall(data + (encode_frame(8, b"\x0f\xa0enough") if end == "close" else b""))
        if end != "open":
            peer.sock.shutdown(socket.SHUT_WR)
        peer.until_end()

    data = packed(200)
    with (
        at_most(8 << 20),
        scripted(script) as port,
        connect(f"ws://127.0.0.1:{port}", compression="deflate", close_timeout=1) as ws,
    ):
        until(lambda: ws._paused)
        time.sleep(0.1)
        assert ws._queue.qsize() == 1
        assert ws.state is wsfast.State.OPEN
        for i in range(200):
            message = ws.recv(timeout=PATIENCE)
            assert isinstance(message, bytes)
            assert (len(message), int(message[:8])) == (1 << 20, i)
        if end != "open":
            with pytest.raises(wsfast.ConnectionClosedError):
                ws.recv(timeout=PATIENCE)
            assert ws.wait_closed(PATIENCE)
            assert (ws.close_code, ws.close_reason) == ((4000, "enough") if end == "close" else (1006, ""))


def test_many_small_messages_in_one_read() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"".join(encode_frame(1, str(i % 10)) for i in range(20_000)) + encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=1) as ws:
        until(lambda: ws._paused)
        time.sleep(0.1)
        assert ws._queue.qsize() * 65 < 65536 + 256 * 65
        assert list(ws) == [str(i % 10) for i in range(20_000)]
        assert ws.close_code == 1000


def test_what_one_read_brought_has_come() -> None:
    """`recv(timeout=0)` takes all of it, though it is not all decoded at once."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(data)
        peer.until_end()

    # The last is not whole.
    data = b"".join(encode_frame(1, str(i % 10)) for i in range(5000)) + 3000 * encode_frame(9, b"")
    data += encode_frame(1, "a", fin=False) + encode_frame(0, "b", fin=False) * 1000
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        until(lambda: ws._pending)
        assert ws._session.received == len(data)
        assert [ws.recv(timeout=0) for _ in range(5000)] == [str(i % 10) for i in range(5000)]
        for timeout in (0, 0.2):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                ws.recv(timeout=timeout)
            assert timeout <= time.monotonic() - began < timeout + 1

    def bombs(peer: Peer) -> None:
        agree(peer)
        peer.sock.sendall(data)
        peer.until_end()

    data = packed(20)
    with scripted(bombs) as port, connect(f"ws://127.0.0.1:{port}", compression="deflate", close_timeout=0.1) as ws:
        until(lambda: ws._pending)
        assert ws._session.received == len(data)
        assert [int(ws.recv(timeout=0, decode=False)[:8]) for _ in range(20)] == list(range(20))


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_program_ends_what_is_not_all_decoded(how: str) -> None:
    """What was not decoded is dropped, in as little memory; what was can still be received."""

    def script(peer: Peer) -> None:
        agree(peer)
        peer.sock.sendall(data)
        with contextlib.suppress(OSError):
            while peer.sock.recv(1)[0] != 0x88:
                pass
            peer.sock.sendall(encode_frame(8, b"\x03\xe8"))
            peer.sock.shutdown(socket.SHUT_WR)
            peer.until_end()

    data = packed(200)
    with (
        at_most(8 << 20),
        scripted(script) as port,
        connect(f"ws://127.0.0.1:{port}", compression="deflate", close_timeout=PATIENCE) as ws,
    ):
        until(lambda: ws._paused)
        getattr(ws, how)()
        assert ws.wait_closed(PATIENCE)
        assert ws.close_code == (1000 if how == "close" else 1006)
        assert ws.recv(decode=False)[:8] == b"00000000"
        with pytest.raises(wsfast.ConnectionClosed):
            ws.recv()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what came before a reset may be lost")
@pytest.mark.parametrize("then", ["receive", "close", "wait"])
def test_a_reset_behind_what_is_not_all_decoded(then: str) -> None:
    """A sender learns of it at once; what came before can still be received, in no more memory, for a while."""

    def script(peer: Peer) -> None:
        agree(peer)
        peer.sock.sendall(data)
        go.wait(PATIENCE)
        peer.reset()

    data = packed(90)  # in more than one read
    go = threading.Event()
    with (
        at_most(8 << 20),
        scripted(script) as port,
        connect(f"ws://127.0.0.1:{port}", compression="deflate", close_timeout=0.5, ping_interval=None) as ws,
    ):
        until(lambda: ws._paused)
        waiter = ws.ping()
        time.sleep(0.1)  # all is with the system here
        go.set()
        with pytest.raises(wsfast.ConnectionClosedError):
            send_forever(ws)
        with pytest.raises(wsfast.ConnectionClosedError):
            waiter.wait(PATIENCE)
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.ping()
        if then == "receive":
            for i in range(90):
                assert int(ws.recv(timeout=PATIENCE, decode=False)[:8]) == i
        elif then == "close":
            ws.close()
        began = time.monotonic()
        assert ws.wait_closed(PATIENCE)
        assert time.monotonic() - began < 5
        assert (ws.close_code, ws.state) == (1006, wsfast.State.CLOSED)
        if then != "receive":
            assert ws.recv(decode=False)[:8] == b"00000000"
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.recv(timeout=PATIENCE)


def test_keepalive_while_what_one_read_brought_is_taken_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pongs wait behind that: the peer is not lost, though it is time when a message is taken and reading goes on.

    The clock is the test's, since nobody would answer in time on a busy machine.
    """

    def script(peer: Peer) -> None:
        agree(peer)
        peer.sock.sendall(data)
        decoder = wsfast.Decoder(masked=True)
        while came := peer.sock.recv(65536):
            for event in decoder.feed(came):
                if isinstance(event, wsfast.Ping):
                    peer.sock.sendall(encode_frame(10, event.payload))
                elif isinstance(event, wsfast.Close):
                    peer.sock.sendall(encode_frame(8, b"\x03\xe8"))
                    return

    def pinged(times: int) -> bool:
        return ws.counters["pings_sent"] == times

    data = packed(30)
    options: Any = {"compression": "deflate", "ping_interval": 10, "ping_timeout": 10}
    with (
        scripted(script) as port,
        connect(f"ws://127.0.0.1:{port}", close_timeout=1, **options) as ws,
        monkeypatch.context() as patch,
    ):
        now = time.monotonic()
        patch.setattr("wsfast.sync.websocket.time", SimpleNamespace(monotonic=lambda: now))
        until(lambda: ws._paused)
        for i in range(29):
            now += 10  # which the connection's thread learns by the message's being taken
            assert int(ws.recv(timeout=PATIENCE, decode=False)[:8]) == i
            until(functools.partial(pinged, i + 1))
        assert int(ws.recv(timeout=PATIENCE, decode=False)[:8]) == 29
        ws.ping().wait(PATIENCE)


def test_sending_waits_for_the_server() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)
        total = 0
        while total < 200 * 100_014:
            total += len(peer.sock.recv(65536))
        peer.sock.sendall(encode_frame(1, "done"))
        peer.until_end()

    go = threading.Event()
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1, ping_interval=None) as ws:
        count = 0

        def send() -> None:
            nonlocal count
            for _ in range(200):
                ws.send(b"x" * 100_000)
                count += 1

        thread = in_thread(send)
        before = -1
        while count != before:
            before = count
            time.sleep(0.2)
        assert count < 200
        assert ws.buffered_amount > 0
        go.set()
        assert ws.recv(timeout=PATIENCE) == "done"
        thread.join(PATIENCE)
        assert ws.buffered_amount == 0


@pytest.mark.parametrize("end", ["abort", "close", "reset"])
def test_a_sender_that_waits_learns_of_the_end(end: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)
        peer.reset()

    go = threading.Event()
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", close_timeout=0.2, ping_interval=None)
        caught: list[BaseException] = []

        def send() -> None:
            try:
                while True:
                    ws.send(b"x" * 1_000_000)
            except wsfast.ConnectionClosedError as exc:
                caught.append(exc)

        thread = in_thread(send)
        time.sleep(0.2)
        assert thread.is_alive()
        if end == "reset":
            go.set()
        else:
            getattr(ws, end)()
        thread.join(PATIENCE)
        assert len(caught) == 1
        assert ws.wait_closed(PATIENCE)
        go.set()


def test_keepalive_finds_a_server_that_takes_nothing() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)

    go = threading.Event()
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", ping_interval=0.15, ping_timeout=0.15)
        with pytest.raises(wsfast.ConnectionClosedError, match="keepalive"):
            send_forever(ws)
        go.set()
        assert ws.wait_closed(PATIENCE)


def send_forever(ws: WebSocket) -> None:
    while True:
        ws.send(b"x" * 1_000_000)


# --- Ctrl-C


def interrupt_soon(delay: float = 0.1) -> None:
    threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


def interrupt_when(condition: Callable[[], object]) -> None:
    """Interrupt the main thread while it waits for a condition, of which `condition` tells."""
    main = threading.main_thread().ident
    assert main is not None
    before: object = None

    def waits() -> bool:
        # Just before it waits, its lock is free already: an interrupt comes out of `Condition` as RuntimeError then.
        nonlocal before
        frame = sys._current_frames()[main] if condition() else None
        at = None if frame is None else (frame.f_code, frame.f_lasti)
        before, same = at, at is not None and at == before
        return same and frame is not None and frame.f_code is threading.Condition.wait.__code__

    def interrupt() -> None:
        until(waits)
        os.kill(os.getpid(), signal.SIGINT)

    in_thread(interrupt)


def test_ctrl_c_while_receiving(server: Running) -> None:
    ws = connect(server.uri)
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        ws.recv()
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        ws.recv(timeout=PATIENCE)
    ws.send("still there")
    assert ws.recv() == "still there"
    ws.close()
    assert ws.close_code == 1000


def test_ctrl_c_while_sending_or_closing() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(PATIENCE)

    go = threading.Event()
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", ping_interval=None)
        interrupt_when(lambda: ws._writable._waiters)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            send_forever(ws)
        interrupt_when(lambda: ws._finished._waiters)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            ws.close()
        assert ws.wait_closed(PATIENCE)  # it was dropped
        go.set()


def test_ctrl_c_while_opening() -> None:
    with scripted(lambda peer: peer.until_end()) as port:
        interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            connect(f"ws://127.0.0.1:{port}")


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 14), reason="its `with lock` can leave the lock held when a signal handler raises"
)
@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="its `queue` is Python code, which a signal handler can end halfway"
)
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_ctrl_c_at_any_moment(compression: Any) -> None:
    """Whatever is interrupted, nothing hangs, and the connection works on or is closed."""

    class InterruptError(BaseException):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise InterruptError

    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    before = signal.signal(signal.SIGALRM, interrupt)
    survived = 0
    try:
        with running(compression=compression) as served:
            for _ in range(60):
                ws = connect(served.uri, compression=compression, close_timeout=2)
                try:
                    signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0001, 0.004))
                    while True:
                        ws.send("x" * 400)
                        ws.recv(timeout=5)
                        ws.send(["a", "b"])
                        ws.recv()
                        ws.ping()
                except InterruptError:
                    pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                try:
                    ws.send("marker")
                    while ws.recv(timeout=5) != "marker":
                        pass
                    survived += 1
                except wsfast.ConnectionClosed:
                    pass
                ws.close()
                assert ws.close_code in (1000, 1006, 1011)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert survived > 10


# --- The opening handshake


def test_subprotocols() -> None:
    with running({"a": echo, "b": echo}) as served:
        with connect(served.uri, subprotocols=["c", "b", "a"]) as ws:
            assert ws.subprotocol == "b"
        with pytest.raises(wsfast.InvalidStatus, match="400") as caught:
            connect(served.uri, subprotocols=["c"])
    assert b"supported: a, b" in caught.value.response.body


def test_headers_and_credentials() -> None:
    heads: list[Any] = []

    async def note(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        heads.append(ws.request.headers)

    with running(note) as served:
        uri = served.uri.replace("ws://", "ws://me:secret@")
        with connect(uri, origin="http://here", additional_headers=[("Cookie", "a=1"), ("Cookie", "b=2")]):
            pass
        with connect(uri, bearer_token="token", additional_headers={"X-Y": "z"}, user_agent_header=None):
            pass
    assert heads[0]["Authorization"] == "Basic bWU6c2VjcmV0"
    assert heads[0]["Origin"] == "http://here"
    assert heads[0].getall("Cookie") == ["a=1", "b=2"]
    assert "wsfast" in heads[0]["User-Agent"]
    assert heads[1]["Authorization"] == "Bearer token"
    assert "User-Agent" not in heads[1]


def answer(data: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(data)
        peer.until_end()

    return script


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"), wsfast.InvalidStatus),
        (answer(b"SSH-2.0-OpenSSH_9.2\r\n"), wsfast.InvalidMessage),
        (lambda peer: peer.accept(key="AAAAAAAAAAAAAAAAAAAAAA=="), wsfast.InvalidHeader),
        (lambda peer: peer.accept("Sec-WebSocket-Protocol: x"), wsfast.NegotiationError),
        (lambda peer: peer.accept("Sec-WebSocket-Extensions: permessage-deflate"), wsfast.NegotiationError),
        (lambda peer: peer.read_head(), wsfast.InvalidMessage),
        (lambda peer: None, wsfast.InvalidMessage),
        (lambda peer: (peer.read_head(), peer.reset()), wsfast.InvalidMessage),
        (answer(b"HTTP/1.1 101 X\r\n" + b"A: b\r\n" * 10_000), wsfast.InvalidMessage),
    ],
    ids=["200", "ssh", "key", "subprotocol", "extension", "drop", "drop at once", "reset", "endless"],
)
def test_a_wrong_answer(script: Any, error: type[Exception]) -> None:
    with scripted(script) as port, pytest.raises(error):
        connect(f"ws://127.0.0.1:{port}")


def test_a_refusal_whose_body_never_ends() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nbecause"
    with scripted(answer(head)) as port:
        with pytest.raises(wsfast.InvalidStatus, match="403") as caught:
            connect(f"ws://127.0.0.1:{port}", open_timeout=0.3)
        assert caught.value.response.body == b"because"


def test_the_open_timeout_is_absolute() -> None:
    def drip(peer: Peer) -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"y" * 1000:
            peer.sock.sendall(bytes([byte]))
            time.sleep(0.02)

    with scripted(drip) as port:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="opening handshake"):
            connect(f"ws://127.0.0.1:{port}", open_timeout=0.3)
        assert 0.3 <= time.monotonic() - began < 5


def test_a_message_right_behind_the_response() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        response = wsfast.handshake.accept_response(peer.header("Sec-WebSocket-Key") or "")
        peer.sock.sendall(response + encode_frame(1, "first") + encode_frame(8, b"\x03\xe8"))
        peer.until_end()

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        assert list(ws) == ["first"]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError, match=str(port)):
        connect(f"ws://127.0.0.1:{port}")
    with pytest.raises(OSError, match=r"localhost|refused"):
        connect(f"ws://localhost:{port}")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"uri": "http://localhost"}, wsfast.InvalidURI),
        ({"proxy": "ftp://localhost"}, wsfast.InvalidProxy),
        ({"nonsense": 1}, TypeError),
        ({"ssl": ssl.create_default_context()}, ValueError),
        ({"max_size": 0}, ValueError),
        ({"additional_headers": {"X": "a\r\nb"}}, ValueError),
        ({"subprotocols": "chat"}, TypeError),
        ({"path": "/socket"}, ValueError),
        ({"unix": True}, ValueError),
        ({"unix": True, "path": "/socket", "sock": SimpleNamespace(getsockname=tuple)}, ValueError),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        connect(**{"uri": "ws://127.0.0.1:1", **options})


def test_another_address_than_the_uris(server: Running) -> None:
    port = server.server.sockets[0].getsockname()[1]
    for options in ({"host": "127.0.0.1", "port": port}, {"address": ("127.0.0.1", port)}):
        with connect("ws://elsewhere.test/", **options) as ws:
            assert ws.request.headers["Host"] == "elsewhere.test"
    with connect(server.uri, family=socket.AF_INET, source_address=("127.0.0.1", 0)) as ws:
        assert ws.local_address[0] == "127.0.0.1"
    with connect(server.uri, sock=socket.create_connection(("127.0.0.1", port))) as ws:
        ws.send("x")
        assert ws.recv() == "x"


def test_a_pair_of_sockets(server: Running) -> None:
    """Neither address nor port: `Server.new_protocol` takes one end, the client the other."""
    here, there = socket.socketpair()
    server.call(lambda: server.loop.connect_accepted_socket(server.server.new_protocol, there))
    with connect("ws://server.test/", sock=here) as ws:
        ws.send("x")
        assert ws.recv() == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a socket holds")
def test_what_the_kernel_holds_is_known() -> None:
    """It is how a slow peer is told from one that is gone."""
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        assert done.wait(PATIENCE)

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", write_limit=1 << 24) as ws:
        ws.send(bytes(8_000_000))
        with ws._lock:
            ws._tell_time()
            known, ours = ws._session.unsent, ws.buffered_amount
        ws.abort()
        done.set()
    assert known - ours > 10_000


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running(path=str(path)):
        with unix_connect(path) as ws:
            ws.send("x")
            assert ws.recv() == "x"
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        with unix_connect(sock=sock) as ws:
            ws.send("x")
            assert ws.recv() == "x"
    with pytest.raises(OSError, match=r"No such file|refused"):
        unix_connect(path)
    with pytest.raises(ValueError, match="path or sock"):
        unix_connect()


# --- TLS


def test_tls(certificates: Certificates) -> None:
    context = certificates.server_context(client_required=True)
    with running(ssl=context) as served:
        with connect(served.uri, ssl=certificates.client_context(certificate=True)) as ws:
            for message in ("x", b"y" * 900_000):
                ws.send(message)
                assert ws.recv() == message
        with pytest.raises((ssl.SSLError, wsfast.InvalidMessage, OSError)):
            connect(served.uri, ssl=certificates.client_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(served.uri)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname"):
            connect(served.uri, ssl=certificates.client_context(certificate=True), server_hostname="other.test")


def test_tls_and_many_threads(certificates: Certificates) -> None:
    with (
        running(ssl=certificates.server_context()) as served,
        connect(served.uri, ssl=certificates.client_context()) as ws,
    ):

        def send(letter: str) -> None:
            for _ in range(40):
                ws.send(letter * 20_000)

        threads = [in_thread(lambda letter=letter: send(letter)) for letter in "abcd"]  # type: ignore[misc]
        messages = [str(ws.recv(timeout=PATIENCE)) for _ in range(160)]
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(messages) == sorted([letter * 20_000 for letter in "abcd"] * 40)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.server_context()
    context.minimum_version = context.maximum_version = version
    with running(ssl=context) as served, connect(served.uri, ssl=certificates.client_context()) as ws:
        ws.send("x")
        assert ws.recv() == "x"


def test_tls_that_stops_half_way() -> None:
    with scripted(lambda peer: (peer.sock.recv(100), peer.until_end())) as port:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(f"wss://127.0.0.1:{port}", open_timeout=0.3)
        assert time.monotonic() - began < 5
    with scripted(lambda peer: peer.sock.recv(100)) as port, pytest.raises(ConnectionResetError):
        connect(f"wss://127.0.0.1:{port}")
    with scripted(lambda peer: peer.sock.sendall(b"no TLS\r\n" * 10)) as port, pytest.raises(OSError, match=r"(?i)ssl"):
        connect(f"wss://127.0.0.1:{port}")


def test_tls_that_is_dropped(certificates: Certificates) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "x"))

    with scripted(script, certificates.server_context()) as port:
        ws = connect(f"wss://localhost:{port}", ssl=certificates.client_context())
        assert ws.recv(timeout=PATIENCE) == "x"
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.recv(timeout=PATIENCE)
        ws.close()


# --- Proxies


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_an_http_proxy(certificates: Certificates, secure: bool) -> None:
    seen: list[bytes] = []
    tls = certificates.server_context() if secure else None
    trust = certificates.client_context() if secure else None
    with (
        running(ssl=tls) as served,
        scripted(http_proxy(seen)) as port,
        connect(served.uri, proxy=f"http://me:secret@127.0.0.1:{port}", ssl=trust) as ws,
    ):
        ws.send("x" * 200_000)
        assert ws.recv() == "x" * 200_000
    assert seen[0].startswith(b"CONNECT localhost:")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in seen[0]


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_an_https_proxy(certificates: Certificates, secure: bool) -> None:
    seen: list[bytes] = []
    tls = certificates.server_context() if secure else None
    trust = certificates.client_context() if secure else None
    with running(ssl=tls) as served, scripted(http_proxy(seen), certificates.server_context()) as port:
        proxy = f"https://localhost:{port}"
        with connect(served.uri, proxy=proxy, proxy_ssl=certificates.client_context(), ssl=trust) as ws:
            ws.send("x" * 200_000)
            assert ws.recv() == "x" * 200_000
        with pytest.raises(wsfast.ProxyError, match="certificate"):
            connect(served.uri, proxy=proxy, ssl=trust)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407"),
        (b"nonsense\r\n\r\n", "no valid answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "expected nothing"),
    ],
)
def test_a_proxy_that_refuses(data: bytes, text: str) -> None:
    with scripted(http_proxy([], data)) as port, pytest.raises(wsfast.ProxyError, match=text):
        connect("ws://server.test/", proxy=f"http://127.0.0.1:{port}")


def test_a_proxy_that_is_not_there_or_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(wsfast.ProxyError, match=r"could not connect to the proxy http://\S+: .*refused$"):
        connect("ws://server.test/", proxy="http://127.0.0.1:1")
    with scripted(lambda peer: peer.until_end()) as port:
        for scheme in ("http", "socks5"):
            monkeypatch.setenv("ws_proxy", f"{scheme}://127.0.0.1:{port}")
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                connect("ws://127.0.0.2/", open_timeout=0.3)
            assert time.monotonic() - began < 5
    with scripted(lambda peer: peer.read_head()) as port, pytest.raises(wsfast.ProxyError):
        connect("ws://server.test/", proxy=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy(server: Running, scheme: str) -> None:
    seen: list[str] = []
    with scripted(socks_proxy(seen)) as port:
        with connect(server.uri, proxy=f"{scheme}://me:secret@127.0.0.1:{port}") as ws:
            ws.send("x")
            assert ws.recv() == "x"
        with pytest.raises(wsfast.ProxyError):
            connect(server.uri, proxy="socks5://127.0.0.1:1")
    host = "localhost" if scheme == "socks5h" else "127.0.0.1"
    assert seen == ["me:secret", f"{host}:{server.server.sockets[0].getsockname()[1]}"]


# --- Redirects


def redirect(location: str, seen: list[bytes] | None = None) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        head = peer.read_head()
        if seen is not None:
            seen.append(head)
        peer.sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
        peer.until_end()

    return script


def test_redirects() -> None:
    heads: list[Any] = []

    async def note(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        heads.append(ws.request)

    headers = {"Authorization": "secret", "Cookie": "secret", "X-Kept": "yes"}
    with running(note) as served, scripted(redirect(served.uri + "there?x=1")) as port:
        with connect(f"ws://127.0.0.1:{port}/here", additional_headers=headers):
            pass
        with pytest.raises(wsfast.InvalidStatus, match="302"):
            connect(f"ws://127.0.0.1:{port}/here", max_redirects=0)
    assert heads[0].path == "/there?x=1"
    assert "Authorization" not in heads[0].headers
    assert "Cookie" not in heads[0].headers
    assert heads[0].headers["X-Kept"] == "yes"


def test_redirects_that_are_not_followed(certificates: Certificates) -> None:
    with scripted(redirect("/again")) as port, pytest.raises(wsfast.RedirectError, match="at most 3"):
        connect(f"ws://127.0.0.1:{port}/", max_redirects=3)
    downgrade = redirect("ws://127.0.0.1:1/")
    context = certificates.server_context()
    with scripted(downgrade, context) as port, pytest.raises(wsfast.RedirectError):
        connect(f"wss://localhost:{port}/", ssl=certificates.client_context())


# --- Connecting again


def test_reconnect_finds_a_server_that_comes_back() -> None:
    delays: list[float] = []

    def short() -> Iterator[float]:
        while True:
            delays.append(0.05)
            yield 0.05

    with running() as served:
        port = served.server.sockets[0].getsockname()[1]
        rounds = reconnect(f"ws://127.0.0.1:{port}", reconnect_delays=short)
        ws = next(rounds)
        ws.send("x")
        assert ws.recv() == "x"
    with pytest.raises(wsfast.ConnectionClosedOK, match="1001"):
        ws.recv(timeout=PATIENCE)
    came: list[Any] = []
    thread = in_thread(lambda: came.append(next(rounds)))
    while len(delays) < 4:
        time.sleep(0.02)
    with running(port=port):
        thread.join(PATIENCE)
        came[0].send("y")
        assert came[0].recv() == "y"
        rounds.close()  # type: ignore[attr-defined]
        assert came[0].state is wsfast.State.CLOSED


def test_reconnect_ends_with_its_delays() -> None:
    busy = answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    with scripted(busy) as port, pytest.raises(wsfast.InvalidStatus, match="503"):
        next(reconnect(f"ws://127.0.0.1:{port}", reconnect_delays=lambda: iter([0.0])))

    async def leave(ws: wsfast.WebSocket) -> None:
        await ws.close()

    with running(leave) as served:
        rounds = 0
        for ws in reconnect(served.uri, reconnect_delays=lambda: iter([0.0, 0.0])):
            assert ws.wait_closed(PATIENCE)
            rounds += 1
        assert rounds == 3


def test_reconnect_ends_with_an_error_that_stays() -> None:
    gone = answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    with scripted(gone) as port, pytest.raises(wsfast.InvalidStatus, match="404"):
        next(reconnect(f"ws://127.0.0.1:{port}"))
    with pytest.raises(TypeError, match="sock"):
        next(reconnect("ws://127.0.0.1", sock=object()))  # type: ignore[arg-type]


# --- Interoperation


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_server_of_websockets(compression: Any) -> None:
    from websockets.sync.server import ServerConnection, serve

    def handler(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(handler, "127.0.0.1", 0, compression=compression, subprotocols=["chat"]) as there:  # type: ignore[list-item]
        thread = in_thread(there.serve_forever)
        uri = f"ws://127.0.0.1:{there.socket.getsockname()[1]}"
        with connect(uri, compression="deflate", subprotocols=["chat"]) as ws:
            assert ws.subprotocol == "chat"
            for message in ("x", b"y" * 200_000, "z" * 1000, ""):
                ws.send(message)
                assert ws.recv() == message
            ws.send(["a", "b"])
            assert ws.recv() == "ab"
            assert ws.ping().wait(PATIENCE)
        assert ws.close_code == 1000
        there.shutdown()
        thread.join(PATIENCE)


def test_the_parameters_are_those_of_websockets() -> None:
    """Those that differ have their reason in docs/migrating.md."""
    import inspect

    from websockets.sync.client import connect as theirs

    ours = {*inspect.signature(connect).parameters, *PathOptions.__optional_keys__}
    missing = inspect.signature(theirs).parameters.keys() - ours
    assert missing == {"max_queue", "legacy", "kwargs"}


def test_what_is_counted() -> None:
    with running(echo) as served, connect(served.uri) as ws:
        ws.send("four")
        ws.send(["one", "two"])
        assert ws.ping(b"1").wait(PATIENCE)
        assert [ws.recv(timeout=PATIENCE) for _ in range(2)] == ["four", "onetwo"]
        # Frames of 4, 3, 3 and no bytes and a ping of 1, with heads of 2 bytes, and keys of 4 from the client.
        assert ws.counters == {
            "messages_sent": 2,
            "bytes_sent": 4 + 3 + 3 + 0 + 1 + 5 * 6,
            "pings_sent": 1,
            "messages_received": 2,
            "bytes_received": 4 + 6 + 1 + 3 * 2,
            "pings_received": 0,
        }
