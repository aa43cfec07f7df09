"""The client without an event loop where peers, systems and moments are rare: each test forces one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import queue
import random
import re
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import Certificates
from sync_helpers import PATIENCE, Peer, client_threads, http_proxy, in_thread, running, scripted, until

import wsfast
from wsfast import encode_frame, session
from wsfast.deflate.context import PerMessageDeflate
from wsfast.dial import eyeballs
from wsfast.dial import reconnect as attempts
from wsfast.sync import client, connect, link, reconnect, unix_connect, websocket
from wsfast.sync.link import Deadline, Link, bounded, open_tcp, open_unix

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the system's errors are Linux's")


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test leaves a thread of the client's behind."""
    yield
    until(lambda: not client_threads())


def frames(data: bytes) -> list[Any]:
    """Decode what a client sent."""
    return wsfast.Decoder(masked=True).feed(data)


# --- The link: what the system takes, and what it does not


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    """A link, and the socket at its other end."""
    here, there = socket.socketpair()
    there.settimeout(PATIENCE)
    made = Link(here)
    with there:
        yield made, there
        made.close()


def fill(sock: socket.socket) -> int:
    """Send until the system takes no more; return how much it took."""
    total = 0
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                total += sock.send(bytes(size))
    return total


def test_what_the_system_does_not_take_is_sent_later(pair: tuple[Link, socket.socket]) -> None:
    made, there = pair
    data = random.randbytes(1 << 22)  # more than any system's buffers hold
    made.write(data)
    kept = made.unsent
    assert 0 < kept < len(data)
    made.write(b"behind")
    made.flush()
    assert made.unsent == kept + 6
    came = bytearray()
    sizes = []
    while made.unsent:
        came += there.recv(65536)
        made.flush()
        sizes.append(made.unsent)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2  # it went piece by piece
    while len(came) < len(data) + 6:
        came += there.recv(65536)
    assert came == data + b"behind"


def test_a_system_that_takes_nothing_at_once(pair: tuple[Link, socket.socket]) -> None:
    made, there = pair
    total = fill(made.sock)
    made.write(b"x")
    assert made.unsent == 1
    assert made.broken is None
    while total:
        total -= len(there.recv(min(total, 65536)))
    made.flush()
    assert made.unsent == 0
    assert there.recv(10) == b"x"


def test_the_end_comes_behind_what_is_kept(pair: tuple[Link, socket.socket]) -> None:
    made, there = pair
    data = random.randbytes(1 << 22)
    made.write(data)
    made.end()
    made.end()
    made.write(b"too late")
    came = bytearray()
    while piece := there.recv(65536):
        came += piece
        made.flush()
    assert came == data
    there.sendall(b"still read")
    assert made.receive(Deadline(PATIENCE)) == b"still read"


@pytest.mark.parametrize("kept", [False, True])
def test_a_link_that_breaks(pair: tuple[Link, socket.socket], kept: bool) -> None:
    made, there = pair
    if kept:
        made.write(bytes(1 << 22))
        assert made.unsent
        there.close()
        made.flush()
    else:
        there.close()
        made.write(b"x")
    assert isinstance(made.broken, (BrokenPipeError, ConnectionResetError))
    first = made.broken
    made.write(b"y")
    made.flush()
    made.end()
    assert made.unsent == 0
    assert made.broken is first


def test_a_link_can_be_closed_twice(pair: tuple[Link, socket.socket]) -> None:
    made, there = pair
    made.close()
    made.close()
    assert made.sock.fileno() == -1
    assert there.recv(1) == b""
    made.wake()  # nobody


# --- The link: TLS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
def test_sending_in_the_middle_of_a_renegotiation(certs: Certificates) -> None:
    """TLS 1.2: between the server's HelloRequest and the end of the handshake nothing can be encrypted."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-tls1_2", "-naccept", "1", "-cert", str(certs.server)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as there:
        assert there.stdin is not None
        assert there.stdout is not None
        try:

            def said(pattern: bytes) -> re.Match[bytes]:
                for line in there.stdout or ():
                    if found := re.search(pattern, line):
                        return found
                raise AssertionError(f"the server ended without {pattern!r}")

            def say(line: bytes) -> None:
                assert there.stdin is not None
                there.stdin.write(line)
                there.stdin.flush()

            port = int(said(rb"ACCEPT .*:(\d+)")[1])
            made = Link(socket.create_connection(("127.0.0.1", port)))
            made.start_tls(certs.client_context(), "localhost", Deadline(PATIENCE))
            made.write(b"before\n")
            said(b"^before")
            say(b"r\n")  # s_server's command
            assert made.wait(True, False, PATIENCE)
            assert made.read() is None
            made.write(b"meanwhile\n")
            made.write(b"and more\n")
            assert list(made._layers[0]._unwritten) == [b"meanwhile\n", b"and more\n"]
            assert made.unsent == 19  # so that a program that sends on and on is stopped
            assert not made.blocked
            while made._layers[0]._unwritten:
                assert made.wait(True, False, PATIENCE)
                assert made.read() is None
            said(b"^meanwhile")
            said(b"^and more")
            assert made.unsent == 0
            say(b"back\n")
            assert made.receive(Deadline(PATIENCE)) == b"back\n"
            made.close()
        finally:
            there.kill()


@pytest.mark.parametrize("together", [True, False])
def test_a_record_is_corrupted(pair: tuple[Link, socket.socket], certs: Certificates, together: bool) -> None:
    """What came before it is read, and the peer is told why nothing else is."""
    made, there = pair
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certs.server_context().wrap_bio(incoming, outgoing, server_side=True)

    def shake_hands() -> None:
        while True:
            try:
                return tls.do_handshake()
            except ssl.SSLWantReadError:
                there.sendall(outgoing.read())
                incoming.write(there.recv(65536))
            finally:
                there.sendall(outgoing.read())

    thread = in_thread(shake_hands)
    made.start_tls(certs.client_context(), "localhost", Deadline(PATIENCE))
    thread.join(PATIENCE)
    tls.write(b"good")
    good = outgoing.read()
    tls.write(b"bad")
    bad = bytearray(outgoing.read())
    bad[-1] ^= 1
    there.sendall(good + bad if together else good)
    assert made.receive(Deadline(PATIENCE)) == b"good"
    if not together:
        there.sendall(bad)
    for _ in range(2):  # whoever asks again is told again
        assert made.wait(True, False, PATIENCE)
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac|record.layer.failure"):
            made.read()
    incoming.write(there.recv(65536))
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.bad.record.mac"):
        tls.read(100)


def break_the_protocol(seen: list[Any]) -> Callable[[Peer], None]:
    """Make the script of a TLS server that breaks the protocol, and notes what comes after, up to a proper end."""

    def script(peer: Peer) -> None:
        peer.accept()
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        peer.sock.sendall(encode_frame(1, "masked", mask=b"abcd"))
        came = b""
        while data := peer.sock.recv(65536):
            came += data
        seen.extend([*frames(came), "close_notify"])

    return script


@pytest.mark.parametrize("proxy", [False, True], ids=["TLS", "TLS in TLS"])
def test_who_fails_a_connection_ends_tls(certs: Certificates, proxy: bool, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(scripted(break_the_protocol(seen), certs.server_context()))
        options: dict[str, Any] = {"ssl": certs.client_context()}
        if proxy:
            there = stack.enter_context(scripted(http_proxy([]), certs.server_context()))
            options |= {"proxy": f"https://localhost:{there}", "proxy_ssl": certs.client_context()}
        ws = connect(f"wss://localhost:{port}", **options)
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            ws.recv(timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, wsfast.ProtocolError)
        assert ws.wait_closed(PATIENCE)
        assert ws.close_cause is wsfast.CloseCause.PROTOCOL_ERROR
        until(lambda: seen)
    (close, end) = seen
    assert (close.code, end) == (1002, "close_notify")
    assert not caplog.records


def test_a_tls_record_in_two_pieces(certs: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is something to read, but nothing that could be decrypted."""

    def script(peer: Peer) -> None:
        peer.accept()
        assert go.wait(PATIENCE)
        peer.sock.sendall(frame)
        peer.until_end()

    def cut(peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as there:
            pairs = {peer.sock: there, there: peer.sock}
            while True:
                for sock in select.select(list(pairs), [], [])[0]:
                    data = sock.recv(65536)
                    if not data:
                        return
                    if sock is there and go.is_set() and not reads:
                        peer.sock.sendall(data[:-1])
                        until(lambda: reads)
                        data = data[-1:]
                    pairs[sock].sendall(data)

    def noted(made: Link) -> bytes | None:
        data = read(made)
        reads.append(data)
        return data

    go = threading.Event()
    frame = encode_frame(1, "x" * 1000)
    reads: list[bytes | None] = []
    read = Link.read
    with (
        scripted(script, certs.server_context()) as port,
        scripted(cut) as there,
        connect(f"wss://localhost:{there}", ssl=certs.client_context(), close_timeout=0.1) as ws,
    ):
        monkeypatch.setattr(Link, "read", noted)
        go.set()
        assert ws.recv(timeout=PATIENCE) == "x" * 1000
        assert reads == [None, frame]


def test_a_server_that_ends_within_the_tls_handshake() -> None:
    def script(peer: Peer) -> None:
        peer.sock.shutdown(socket.SHUT_WR)
        peer.until_end()

    with scripted(script) as port, pytest.raises(ConnectionResetError, match="during the TLS handshake"):
        connect(f"wss://127.0.0.1:{port}")


# --- Opening: deadlines


@pytest.mark.parametrize("dispose", [False, True])
def test_what_is_done_too_late(dispose: bool) -> None:
    go, gone = threading.Event(), threading.Event()
    disposed: list[str] = []

    def call() -> str:
        assert go.wait(PATIENCE)
        return "late"

    def note(result: str) -> None:
        disposed.append(result)
        gone.set()

    with pytest.raises(TimeoutError, match="mine"):
        bounded(call, Deadline(0.01, "mine"), note if dispose else None)
    assert disposed == []
    go.set()
    until(lambda: not client_threads())
    assert disposed == (["late"] if dispose else [])


class _Interrupted(Deadline):
    """A deadline during which Ctrl-C comes, after the call has returned and before its caller has noticed."""

    def left(self) -> float | None:
        for thread in client_threads():
            thread.join(PATIENCE)
        raise KeyboardInterrupt


def test_ctrl_c_when_all_is_done() -> None:
    disposed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        bounded(lambda: "done", _Interrupted(None), disposed.append)
    assert disposed == ["done"]
    with pytest.raises(KeyboardInterrupt):
        bounded(lambda: "done", _Interrupted(None))


def test_ctrl_c_while_a_call_is_waited_for() -> None:
    """At each line that Python's own `threading` has for it: it is Ctrl-C that comes out, not an error of a lock."""

    def interrupted(at: int) -> bool:
        """Tell whether there are so many lines."""
        go = threading.Event()
        count = 0

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal count
            if frame.f_code.co_filename != threading.__file__ or frame.f_code.co_name == "start":
                return None
            if event == "line":
                count += 1
                if count == at:
                    go.set()
                    raise KeyboardInterrupt
            return trace

        class Begun(Deadline):
            def left(self) -> float | None:
                sys.settrace(trace)  # the thread has started
                return 0.01

        try:
            bounded(lambda: go.wait(0.05), Begun(None))
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    at = 1
    while interrupted(at):
        at += 1


def test_a_socket_is_closed_if_there_are_no_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with scripted(lambda peer: peer.until_end()) as port:
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
            patch.setattr(socket, "socketpair", none_left)
            Link(sock)
        assert sock.fileno() == -1


def test_opening_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as served, connect(served.uri, open_timeout=None) as ws:
        ws.send("x")
        assert ws.recv() == "x"

    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nbecause")
        peer.until_end()

    # Even so, the body of what refuses is not waited for without end.
    monkeypatch.setattr(client, "BODY_PATIENCE", 0.05)
    with scripted(refuse) as port, pytest.raises(wsfast.InvalidStatus, match="403") as caught:
        connect(f"ws://127.0.0.1:{port}", open_timeout=None)
    assert caught.value.response.body == b"because"


# --- Opening: addresses


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)


def closed_port() -> tuple[str, int]:
    """Return an address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()  # type: ignore[no-any-return]


@contextlib.contextmanager
def silence() -> Iterator[tuple[str, int]]:
    """Yield an address that does not answer: Linux drops the SYN where the queue is full."""
    with socket.socket() as listening, socket.socket() as first:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        first.connect(listening.getsockname())
        yield listening.getsockname()


# Nothing is ever connected to by TCP there: the system says so at once.
MULTICAST = ("224.0.0.1", 80)


@linux_only
def test_the_next_address_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, not only after what an address that does not answer is given."""
    monkeypatch.setattr(link, "STAGGER", PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        resolve(monkeypatch, MULTICAST, closed_port(), listening.getsockname())
        began = time.monotonic()
        with open_tcp("host.test", 80, Deadline(2 * PATIENCE)) as sock:
            assert sock.getpeername() == listening.getsockname()
        assert time.monotonic() - began < PATIENCE / 2


@linux_only
def test_the_next_address_beside_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with silence() as first, socket.create_server(("127.0.0.1", 0)) as second:
        resolve(monkeypatch, first, second.getsockname())
        for deadline in (Deadline(PATIENCE), Deadline(None)):
            began = time.monotonic()
            with open_tcp("host.test", 80, deadline) as sock:
                assert sock.getpeername() == second.getsockname()
            assert eyeballs.STAGGER <= time.monotonic() - began < 5


@linux_only
def test_the_last_address_fails_while_another_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with silence() as first:
        resolve(monkeypatch, first, closed_port())
        with pytest.raises(TimeoutError, match="mine"):
            open_tcp("host.test", 80, Deadline(0.5, "mine"))


@linux_only
def test_all_addresses_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = closed_port(), closed_port()
    resolve(monkeypatch, one, other)
    with pytest.raises(ConnectionRefusedError, match=rf"port {one[1]}: .*; .*port {other[1]}: "):
        open_tcp("host.test", 80, Deadline(PATIENCE))
    resolve(monkeypatch, one, MULTICAST)
    with pytest.raises(OSError, match=r"no address of host\.test answers: .* refused; .*224\.0\.0\.1") as caught:
        open_tcp("host.test", 80, Deadline(PATIENCE))
    assert caught.value.errno is None
    resolve(monkeypatch, MULTICAST)
    with pytest.raises(OSError, match=r"^\[Errno \d+\] connecting to 224\.0\.0\.1 port 80: "):
        open_tcp("host.test", 80, Deadline(PATIENCE))


@linux_only
def test_an_address_to_connect_from_that_is_not_here() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        connect("ws://127.0.0.1:1", local_addr=("203.0.113.1", 0))


@pytest.mark.parametrize(
    ("families", "expected"), [("6444", "6444"), ("4446", "4644"), ("6644", "6464"), ("4", "4"), ("466", "466")]
)
def test_families_take_turns(families: str, expected: str) -> None:
    mixed = eyeballs.alternate([(family, index) for index, family in enumerate(families)])
    assert "".join(family for family, _ in mixed) == expected
    for family in "46":
        order = [index for kind, index in mixed if kind == family]
        assert order == sorted(order)


def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    with pytest.raises(OSError, match="no Unix sockets"):
        open_unix("/socket", Deadline(PATIENCE))


def test_a_host_that_is_no_name() -> None:
    with pytest.raises(wsfast.InvalidURI, match="label"):
        connect("ws://server.test", host="a" * 64)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_the_uri_of_a_unix_socket(tmp_path: Path, certs: Certificates) -> None:
    plain, secure = str(tmp_path / "plain"), str(tmp_path / "secure")
    with running(path=plain), unix_connect(plain, "ws://elsewhere.test/there") as ws:
        assert (ws.request.path, ws.request.headers["Host"]) == ("/there", "elsewhere.test")
        ws.send("x")
        assert ws.recv() == "x"
    with running(path=secure, ssl=certs.server_context()), unix_connect(secure, ssl=certs.client_context()) as ws:
        assert (ws.request.path, ws.request.headers["Host"]) == ("/", "localhost")
        ws.send("x")
        assert ws.recv() == "x"


# --- Opening: answers and proxies


def test_an_answer_with_wrong_parameters() -> None:
    def script(peer: Peer) -> None:
        peer.accept("Sec-WebSocket-Extensions: permessage-deflate; nonsense")

    with scripted(script) as port, pytest.raises(wsfast.NegotiationError, match="nonsense") as caught:
        connect(f"ws://127.0.0.1:{port}", compression="deflate")
    assert caught.value.response is not None
    assert caught.value.response.status_code == 101


def test_a_proxy_whose_tls_stops_half_way() -> None:
    with scripted(lambda peer: peer.until_end()) as port:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="opening handshake"):
            connect("ws://server.test/", proxy=f"https://127.0.0.1:{port}", open_timeout=0.2)
        assert time.monotonic() - began < 5


def test_a_proxy_that_resets() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.reset()

    with scripted(script) as port, pytest.raises(wsfast.ProxyError, match="got the end of the connection") as caught:
        connect("ws://server.test/", proxy=f"http://127.0.0.1:{port}")
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_socks_without_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks.sync", None)
    with pytest.raises(ImportError, match=r"pip install 'wsfast\[proxy\]'"):
        connect("ws://server.test/", proxy="socks5://127.0.0.1:1")


# --- Connecting again


def test_reconnect_raises_another_exception() -> None:
    def process(exc: Exception) -> Exception:
        return LookupError(f"not {type(exc).__name__} again")

    with pytest.raises(LookupError, match="not ConnectionRefusedError again") as caught:
        next(reconnect("ws://{}:{}".format(*closed_port()), process_exception=process))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def no_delays() -> Iterator[float]:
    raise AssertionError("no delay was due")


def test_reconnect_at_once_after_a_close_of_ones_own() -> None:
    with running() as served:
        rounds = reconnect(served.uri, reconnect_delays=no_delays)
        seen = []
        for _ in range(3):
            ws = next(rounds)
            ws.send("x")
            assert ws.recv() == "x"
            ws.close()
            seen.append(ws)
        ws = next(rounds)
        assert ws not in seen
        assert next(rounds) is not ws  # it was open still
        assert (ws.close_code, ws.close_cause) == (1000, wsfast.CloseCause.LOCAL)
        rounds.close()  # type: ignore[attr-defined]


def test_reconnect_at_once_after_a_connection_that_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(ws: wsfast.WebSocket) -> None:
        await ws.close()

    monkeypatch.setattr(attempts, "_STABLE", 0.0)
    with running(leave) as served:
        rounds = reconnect(served.uri, reconnect_delays=no_delays)
        for _ in range(3):
            ws = next(rounds)
            assert ws.wait_closed(PATIENCE)
            assert ws.close_cause is wsfast.CloseCause.PEER
        rounds.close()  # type: ignore[attr-defined]


# --- Messages that begin to arrive in pieces


@pytest.mark.parametrize("then", ["received", "streamed", "left", "left and streamed", "left and interrupted"])
@pytest.mark.parametrize("kind", [str, bytes])
def test_pieces_that_nobody_streams(then: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second message begins to arrive while the first is streamed, and `recv` has taken some of it."""
    opcode = 1 if kind is str else 2

    def piece(text: str, *, first: bool = False, fin: bool = False) -> bytes:
        return encode_frame(opcode if first else 0, made(text), fin=fin)

    def made(text: str) -> Any:
        return text if kind is str else text.encode()

    def script(peer: Peer) -> None:
        peer.accept()
        until(lambda: connected and connected[0]._connection.decoder.streaming)
        for data in (
            piece("a1", first=True),
            piece("a2", fin=True) + piece("b1", first=True),
            piece("b2"),
            piece("b3"),
            piece("b4", fin=True) + piece("c", first=True, fin=True),
            piece("d", first=True, fin=True),
        ):
            peer.sock.sendall(data)
            assert step.acquire(timeout=PATIENCE)
        peer.until_end()

    step = threading.Semaphore(0)
    connected: list[websocket.WebSocket] = []
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as ws:
        connected.append(ws)
        stream = ws.recv_streaming()
        assert next(stream) == made("a1")
        for queued in (2, 3):
            step.release()
            until(lambda queued=queued: ws._queue.qsize() == queued)  # type: ignore[misc]
        assert list(stream) == [made("a2")]
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0)
        assert ws._assembler.holding
        if then.startswith(("streamed", "left")):
            stream = ws.recv_streaming()
            assert next(stream) == made("b1b2")
        if then.startswith("left"):
            stream.close()  # type: ignore[attr-defined]
        if then == "left and interrupted":
            # Ctrl-C while the rest of what was left is waited for.
            with monkeypatch.context() as patch:
                patch.setattr(ws, "_next", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    next(ws.recv_streaming())
        step.release()
        if then == "streamed":
            assert next(stream) == made("b3")
            step.release()
            assert list(stream) == [made("b4")]
        elif then == "left and streamed":
            step.release()
            assert list(ws.recv_streaming()) == [made("c")]
        else:
            until(lambda: ws._queue.qsize() == 1)
            step.release()
        if then == "received":
            assert ws.recv(timeout=PATIENCE) == made("b1b2b3b4")
        if then != "left and streamed":
            assert ws.recv(timeout=PATIENCE) == made("c")
        step.release()
        assert list(ws.recv_streaming()) == [made("d")]
        step.release()


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


# --- Ctrl-C at a chosen moment


def test_ctrl_c_between_taking_a_message_and_counting_it() -> None:
    """What is taken and not counted would leave reading paused for ever."""

    def script(peer: Peer) -> None:
        peer.accept()
        for i in range(2000):
            peer.sock.sendall(encode_frame(1, f"{i:1000}"))
        peer.until_end()

    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1, read_limit=5000) as ws:
        until(lambda: ws._paused)
        lost = 0
        with ws._lock:
            while not ws._queue.empty():
                ws._queue.get_nowait()
                lost += 1
        assert 5 <= lost < 2000
        for i in range(lost, 2000):
            assert ws.recv(timeout=PATIENCE) == f"{i:1000}"
        assert ws._put_size == ws._taken_size


def test_a_message_that_is_about_to_be_queued() -> None:
    """Reading is paused before the message for which it is can be taken: none was lost."""

    class Queue(queue.SimpleQueue):  # type: ignore[type-arg]
        def put(self, item: object, *args: Any) -> None:
            if item == message:
                putting.set()
                assert asked.wait(PATIENCE)
            super().put(item, *args)

    class Lock:
        def __enter__(self) -> None:
            asked.set()
            lock.acquire()

        def __exit__(self, *args: object) -> None:
            lock.release()

    def script(peer: Peer) -> None:
        peer.accept()
        assert go.wait(PATIENCE)
        peer.sock.sendall(encode_frame(1, message))
        peer.until_end()

    message = "x" * 10_000
    go, putting, asked = threading.Event(), threading.Event(), threading.Event()
    with scripted(script) as port, connect(f"ws://127.0.0.1:{port}", close_timeout=0.1, read_limit=5000) as ws:
        ws._queue = Queue()
        go.set()
        assert putting.wait(PATIENCE)
        lock = ws._lock
        assert ws._paused
        ws._lock = Lock()  # type: ignore[assignment]
        assert ws.recv(timeout=PATIENCE) == message
        ws._lock = lock
        assert ws._taken_size == ws._put_size == len(message) + 64


def closing_peer(seen: list[Any], *headers: str) -> Callable[[Peer], None]:
    """Make the script of a server that notes the frames that come and answers a Close frame."""

    def script(peer: Peer) -> None:
        peer.accept(*headers)
        decoder = wsfast.Decoder(masked=True)
        while data := peer.sock.recv(65536):
            for event in decoder.feed(data):
                seen.append(event)
                if isinstance(event, wsfast.Close):
                    peer.sock.sendall(encode_frame(8, event.code.to_bytes(2, "big")))
                    return

    return script


def test_ctrl_c_when_a_frame_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of it was written is not known: the connection is dropped, and no other frame follows."""

    def written(made: Link, data: bytes) -> None:
        write(made, data)
        raise KeyboardInterrupt

    write = Link.write
    seen: list[Any] = []
    with scripted(closing_peer(seen)) as port:
        ws = connect(f"ws://127.0.0.1:{port}")
        with monkeypatch.context() as patch:
            patch.setattr(Link, "write", written)
            with pytest.raises(KeyboardInterrupt):
                ws.send("x")
        assert ws.wait_closed(PATIENCE)
        assert (ws.close_code, ws.close_cause) == (1006, wsfast.CloseCause.LOCAL)
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.send("y")
    assert seen == ["x"]


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_when_a_message_was_compressed(monkeypatch: pytest.MonkeyPatch, twice: bool) -> None:
    """The peer's window is no longer that of this side: the connection is closed, or dropped at another Ctrl-C."""

    def compressed(deflate: PerMessageDeflate, data: bytes) -> bytes:
        compress(deflate, data)
        raise KeyboardInterrupt

    compress = PerMessageDeflate.compress
    seen: list[Any] = []
    with scripted(closing_peer(seen, "Sec-WebSocket-Extensions: permessage-deflate")) as port:
        ws = connect(f"ws://127.0.0.1:{port}", compression="deflate")
        with monkeypatch.context() as patch:
            patch.setattr(PerMessageDeflate, "compress", compressed)
            if twice:
                patch.setattr(Link, "write", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ws.send("x" * 1000)
        assert ws.wait_closed(PATIENCE)
        assert ws.close_cause is wsfast.CloseCause.LOCAL
        assert ws.close_code == (1006 if twice else 1011)
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.send("y")
    assert seen == ([] if twice else [wsfast.Close(1011, "sending was interrupted")])


def test_what_is_no_message_leaves_compression_in_step() -> None:
    with running(compression="deflate") as served, connect(served.uri, compression="deflate") as ws:
        for message in ("x" * 1000, "y" * 1000):
            with pytest.raises(UnicodeDecodeError):
                ws.send(b"\xff" * 1000, text=True)
            ws.send(message)
            assert ws.recv(timeout=PATIENCE) == message


# --- Pings


def draw(monkeypatch: pytest.MonkeyPatch, *payloads: bytes) -> None:
    """Choose what is drawn for pings."""
    left = iter(payloads)
    monkeypatch.setattr(session, "os", SimpleNamespace(urandom=lambda size: next(left)))


def test_a_ping_with_random_data_is_told_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    draw(monkeypatch, b"aaaa", b"aaaa", b"aaaa", b"bbbb")
    with scripted(closing_peer(seen)) as port, connect(f"ws://127.0.0.1:{port}") as ws:
        ws.ping()
        ws.ping()
    assert seen[:2] == [wsfast.Ping(b"aaaa"), wsfast.Ping(b"bbbb")]


def test_keepalive_without_a_timeout() -> None:
    """Pings are sent on and on, and none need be answered."""

    def script(peer: Peer) -> None:
        peer.accept()
        decoder = wsfast.Decoder(masked=True)
        while sum(isinstance(event, wsfast.Ping) for event in seen) < 4:
            seen.extend(decoder.feed(peer.sock.recv(100)))
        peer.sock.sendall(encode_frame(1, "there"))
        peer.until_end()

    seen: list[Any] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", ping_interval=0.03, ping_timeout=None, close_timeout=0.1)
        assert ws.recv(timeout=PATIENCE) == "there"
        assert ws.state is wsfast.State.OPEN
        ws.close()
    assert len({event.payload for event in seen}) == 4


def test_keepalive_while_much_is_unsent() -> None:
    """A ping would come behind all of it: that the server takes none of it tells as much."""

    def send() -> None:
        try:
            ws.send(b"x" * 1_000_000)
        except wsfast.ConnectionClosedError as exc:
            caught.append(exc)

    caught: list[BaseException] = []
    here, there = socket.socketpair()  # whose buffers do not grow
    with there:
        peer = Peer(there)
        accepting = in_thread(peer.accept)
        ws = connect("ws://server.test/", sock=here, ping_interval=None)
        accepting.join(PATIENCE)
        sending = in_thread(send)
        until(lambda: ws._writable._waiters)  # type: ignore[attr-defined]
        unsent = ws.buffered_amount
        assert unsent > 65536
        with ws._lock:
            limits = dataclasses.replace(ws._limits, ping_interval=0.05, ping_timeout=0.05)
            silent = session.Session(wsfast.Side.CLIENT, limits, time.monotonic())
            silent.connection = ws._connection
            silent.congest(time.monotonic())  # as it was
            ws._session = silent
            ws._link.wake()
        sending.join(PATIENCE)
        assert not sending.is_alive()
        assert ws.wait_closed(PATIENCE)
        assert "keepalive" in str(caught[0])
        assert ws.close_cause is wsfast.CloseCause.KEEPALIVE
        # Behind it came the Close frame only: 8 bytes, its code and its reason.
        assert ws.buffered_amount == unsent + 8 + len("keepalive ping timeout")


# --- Ends


def test_who_sends_while_it_closes_learns_how_it_ended() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        assert go.wait(PATIENCE)
        (close,) = frames(peer.sock.recv(65536))
        assert close.code == 1000
        peer.sock.sendall(encode_frame(8, b"\x03\xe8"))

    go = threading.Event()
    caught: list[BaseException] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}", close_timeout=PATIENCE)

        def send() -> None:
            try:
                ws.send("x")
            except wsfast.ConnectionClosed as exc:
                caught.append(exc)

        closing = in_thread(ws.close)
        until(lambda: ws.state is wsfast.State.CLOSING)
        sending = in_thread(send)
        until(lambda: len(ws._finished._waiters) == 2)  # type: ignore[attr-defined]
        go.set()
        for thread in (closing, sending):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    (error,) = caught
    assert isinstance(error, wsfast.ConnectionClosedOK)
    assert error.code == 1000


def test_a_thread_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours must not leave the program waiting."""

    def fail(made: Link) -> bytes:
        raise RuntimeError("a bug")

    def script(peer: Peer) -> None:
        peer.accept()
        assert go.wait(PATIENCE)
        peer.sock.sendall(encode_frame(1, "x"))
        seen.append(peer.until_end())

    go = threading.Event()
    seen: list[bytes] = []
    with scripted(script) as port:
        ws = connect(f"ws://127.0.0.1:{port}")
        waiter = ws.ping()
        monkeypatch.setattr(Link, "read", fail)
        go.set()
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.recv(timeout=PATIENCE)
        with pytest.raises(wsfast.ConnectionClosedError):
            waiter.wait(PATIENCE)
        assert ws.wait_closed(PATIENCE)
        assert ws.close_code == 1006
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a bug"
    assert len(seen) == 1  # the socket was closed


@linux_only
def test_a_reset_behind_what_waits_to_be_read() -> None:
    """Writing has failed and reading is paused: what has come is read on, up to the reset."""

    def serve() -> None:
        peer = Peer(there)
        peer.accept()
        peer.sock.sendall(b"".join(encode_frame(1, f"{i:1000}") for i in range(20)))

    here, there = socket.socketpair()
    serving = in_thread(serve)
    ws = connect("ws://server.test/", sock=here, read_limit=5000, ping_interval=None)
    serving.join(PATIENCE)
    until(lambda: ws._paused)
    ws.pong()  # what nobody reads makes the end a reset
    there.close()
    with pytest.raises(wsfast.ConnectionClosedError):
        ws.send("x")
    assert isinstance(ws._link.broken, BrokenPipeError)
    assert [ws.recv(timeout=PATIENCE) for _ in range(20)] == [f"{i:1000}" for i in range(20)]
    with pytest.raises(wsfast.ConnectionClosedError):
        ws.recv(timeout=PATIENCE)
    assert ws.wait_closed(PATIENCE)
    assert (ws.close_code, ws.close_cause) == (1006, wsfast.CloseCause.LOST)


@linux_only
def test_a_reset_right_behind_the_response() -> None:
    """There is no peer any more whose address could be asked for."""

    class Late(socket.socket):
        """Receives only once the reset has come."""

        def recv(self, *args: Any) -> bytes:
            waiting = select.poll()
            waiting.register(self, 0)  # errors are always told
            assert waiting.poll(PATIENCE * 1000)
            return super().recv(*args)

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "x"))
        peer.reset()

    with scripted(script) as port:
        sock = Late()
        sock.connect(("127.0.0.1", port))
        ws = connect(f"ws://127.0.0.1:{port}", sock=sock)
        assert ws.remote_address is None
        assert ws.local_address[0] == "127.0.0.1"
        assert ws.recv(timeout=PATIENCE) == "x"
        with pytest.raises(wsfast.ConnectionClosedError):
            ws.recv(timeout=PATIENCE)
        assert ws.wait_closed(PATIENCE)
