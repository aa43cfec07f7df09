"""The TLS transport by itself, on both twins: a protocol above, a transport below, and a peer, all in memory.

What it does on a server and a client is in `test_tls_sockets.py`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import os
import random
import re
import ssl
from collections.abc import Callable, Iterator
from time import perf_counter
from types import ModuleType
from typing import Any

import pytest
from certificates import Certificates
from shared import until
from tls_helpers import (
    TWINS,
    VERSIONS,
    App,
    Below,
    BufferedApp,
    Peer,
    PlainApp,
    StubContext,
    StubObject,
    cuts,
    load_tls,
)

from wsfast.transport import _tls, _tls_py

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The loop only calls what is told to be called soon: one is enough."""
    return "asyncio"


@pytest.fixture(params=TWINS)
def tls(request: pytest.FixtureRequest) -> ModuleType:
    """`wsfast.transport.tls` on each twin."""
    return load_tls(request.param)


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    """Each version of TLS."""
    return VERSIONS[request.param]


@pytest.fixture(autouse=True, scope="module")
def nothing_left() -> None:
    """Collect what other files left: without a GIL, the collector may end a stream of asyncio with a report."""
    gc.collect()


@pytest.fixture(autouse=True)
def loop_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What goes to the event loop's exception handler, which has to be nothing unless a test empties it."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_exception_handler", lambda _, context: told.append(context))
    yield told
    gc.collect()
    assert not told


class Pair:
    """A transport whose handshake is to be made, or is done: `open` makes one."""

    def __init__(
        self,
        module: ModuleType,
        certs: Certificates,
        app: App,
        *,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        server_side: bool = True,
        memory: Any = 65536,
        **options: Any,
    ) -> None:
        here, there = certs.server_context(), certs.client_context()
        if not server_side:
            here, there = there, here
            options.setdefault("server_hostname", "localhost")
        here.maximum_version = here.minimum_version = version
        if isinstance(memory, int):
            memory = module.ReceiveBuffer(memory)
        self.app = app
        self.tls = module.TLSTransport(app, memory, here, server_side=server_side, **options)
        self.below = Below(self.tls)
        self.peer = Peer(there, server_side=not server_side)

    def open(self, *, piece: int = 1 << 30) -> Pair:
        """Make the handshake."""
        self.tls.connection_made(self.below)
        to_us = self.peer.begin()
        while True:
            self.below.arrive(to_us, piece=piece)
            writes = self.below.written()
            if not writes and not to_us:
                break
            self.peer.receive(b"".join(writes))
            to_us = self.peer.take()
        assert self.app.events[0] == "made"
        return self

    def received(self) -> bytes:
        """Let the peer receive what was written, and return it decrypted."""
        return self.peer.receive(b"".join(self.below.written()))


def stub_pair(module: ModuleType, app: App) -> tuple[Any, Below, StubObject]:
    """Make a transport of no encryption."""
    tls = module.TLSTransport(app, module.ReceiveBuffer(65536), StubContext(), server_side=True)
    below = Below(tls)
    tls.connection_made(below)
    assert app.told == ["made"]
    return tls, below, tls.get_extra_info("ssl_object")


async def turn() -> None:
    """Let the event loop come to what was to be called soon, and to what that wants to be called soon."""
    for _ in range(4):
        await asyncio.sleep(0)


APPS: dict[str, Callable[..., App]] = {
    "1 byte": lambda **on: BufferedApp(1, **on),
    "100 bytes": lambda **on: BufferedApp(100, **on),
    "64 KiB": BufferedApp,
    "1 MiB": lambda **on: BufferedApp(1 << 20, **on),
    "data_received": PlainApp,
}
apps = pytest.mark.parametrize("make", APPS.values(), ids=APPS.keys())


def echo(app: App) -> None:
    """Let a protocol send back what it is handed."""
    app.on["data"] = lambda transport: transport.write(app.told[-1])


# --- The twins ----------------------------------------------------------------------------------------


def members(cls: type) -> list[str]:
    return sorted(name for name in vars(cls) if not name.startswith("_"))


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; C has no annotations."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_names_and_signatures() -> None:
    assert _tls.__all__ == _tls_py.__all__ == ["ReceiveBuffer", "TLSPipe"]
    ours, theirs = _tls_py.TLSPipe, _tls.TLSPipe
    assert members(theirs) == members(ours)
    compared = 0
    for name in members(ours):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert callable(a) == callable(b), name
        if callable(a):
            assert parameters(b) == parameters(a), name
            assert a.__doc__.splitlines()[0] == b.__doc__.splitlines()[0], name
            compared += 1
    assert compared >= 11


STREAM = [b"a", b"bc" * 20, b"", b"d" * 33]


def trace(twin: str, certs: Certificates, pieces: Iterator[int], messages: list[bytes], app: App) -> Any:
    """Cut what the peer sends; return what the protocol was told, and what was in each write of its answers."""
    pair = Pair(load_tls(twin), certs, app).open()
    echo(app)
    for piece in cuts(pair.peer.send(*[message for message in messages if message]), pieces):
        pair.below.arrive(piece)
    answers = [pair.peer.receive(write) for write in pair.below.written()]
    assert app.data == b"".join(answers) == b"".join(messages)
    return app.told, answers


async def test_a_stream_cut_anywhere_gives_the_same(certs: Certificates) -> None:
    size = sum(map(len, STREAM)) + 3 * 22  # RFC 8446, 5.2: header, content type and tag
    for at in range(1, size + 1):
        told, answers = trace("python", certs, itertools.chain([at], itertools.repeat(size)), STREAM, BufferedApp())
        assert (told, answers) == trace(
            "cython", certs, itertools.chain([at], itertools.repeat(size)), STREAM, BufferedApp()
        )
        # Each read is one batch: it is handed on, and answered, at once, if a record was completed at all.
        assert len(answers) == len(told) - 1 == (2 if 23 <= at < size else 1), at


@apps
async def test_a_stream_cut_at_random_gives_the_same(certs: Certificates, make: Callable[..., App]) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    messages = [
        rng.randbytes(rng.choice([1, 2, 100, 1000, *([5000, 40_000] if make is not APPS["1 byte"] else [10])]))
        for _ in "x" * 30
    ]
    sizes = [rng.choice([1, 4, 5, 6, 100, 3000, 30_000]) for _ in range(100)]
    traces = [trace(twin, certs, itertools.cycle(sizes), messages, make()) for twin in TWINS]
    assert traces[0] == traces[1]


@apps
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 30])
async def test_handshake_in_pieces(
    tls: ModuleType,
    certs: Certificates,
    version: ssl.TLSVersion,
    make: Callable[..., App],
    server_side: bool,
    piece: int,
) -> None:
    app = make()
    echo(app)
    pair = Pair(tls, certs, app, version=version, server_side=server_side).open(piece=piece)
    assert pair.tls.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
    pair.below.arrive(pair.peer.send(b"ping" * 100), piece=piece)
    assert app.data == b"ping" * 100
    assert pair.received() == b"ping" * 100


class Asked(ssl.SSLObject):
    """It counts how often it was asked to read and had to raise an exception."""

    vain = 0

    def read(self, *args: Any) -> Any:
        try:
            return super().read(*args)
        except ssl.SSLWantReadError:
            self.vain += 1
            raise


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
async def test_only_what_is_whole_is_asked_for(
    tls: ModuleType, certs: Certificates, version: ssl.TLSVersion, server_side: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl.SSLContext, "sslobject_class", Asked)
    app = BufferedApp(1000)
    pair = Pair(tls, certs, app, version=version, server_side=server_side).open(piece=100)
    pair.below.arrive(pair.peer.send(b"x"))
    asked = pair.tls.get_extra_info("ssl_object")
    before = asked.vain
    assert before <= 2, "for the session tickets, which come in records too"
    messages = [b"y" * size for size in (1, 999, 1000, 1001, 16384, 16385, 65546)]
    for piece in (7, 1021, 65536):
        pair.below.arrive(pair.peer.send(*messages), piece=piece)
    assert app.data == b"x" + b"".join(messages) * 3
    assert asked.vain == before


async def test_a_large_message_is_handed_on_in_portions(tls: ModuleType, certs: Certificates) -> None:
    """The protocol learns of it early, and little memory is taken for what is not yet decrypted."""
    app = BufferedApp()
    pair = Pair(tls, certs, app, memory=1 << 20).open()
    pair.below.arrive(pair.peer.send(b"x" * 65546))
    assert [len(what) for what in app.told[1:]] == [32768, 32768, 10]
    app.told.clear()
    pair.below.arrive(pair.peer.send(*MESSAGES))
    assert [len(what) for what in app.told] == [1171 * 6, 829 * 6]


@pytest.mark.parametrize("nbytes", [-1, 11])
async def test_more_than_was_lent(tls: ModuleType, certs: Certificates, nbytes: int) -> None:
    pair = Pair(tls, certs, PlainApp(), memory=10).open()
    pair.tls.get_buffer(-1)
    with pytest.raises(ValueError, match=f"from 0 to the 10 bytes lent, got {nbytes}"):
        pair.tls.buffer_updated(nbytes)


async def test_memory_that_is_smaller_than_a_record(tls: ModuleType, certs: Certificates) -> None:
    app = PlainApp()
    pair = Pair(tls, certs, app, memory=10).open()
    pair.below.arrive(pair.peer.send(b"x" * 50_000))
    assert app.data == b"x" * 50_000


@pytest.mark.parametrize("make", [BufferedApp, PlainApp])
async def test_a_nested_loop(tls: ModuleType, certs: Certificates, make: Callable[..., App]) -> None:
    """While a connection is in the middle of what it received, others receive, and it does itself."""
    shared = tls.ReceiveBuffer(65536)
    first, second, third = (Pair(tls, certs, make(), memory=shared).open() for _ in range(3))
    sent = {pair: os.urandom(400_000) for pair in (first, second, third)}

    def nest(pair: Pair, other: Pair) -> Callable[[Any], None]:
        rest = [sent[pair][100_000 * k : 100_000 * (k + 1)] for k in range(1, 4)]
        deep = 0

        def received(_: Any) -> None:
            nonlocal deep
            deep += 1
            if deep == 1:
                other.below.arrive(other.peer.send(sent[other][:100_000]))
            if rest and deep < 4:
                pair.below.arrive(pair.peer.send(rest.pop(0)))
            deep -= 1
            if not deep:
                while rest:
                    pair.below.arrive(pair.peer.send(rest.pop(0)))

        return received

    first.app.on["data"] = nest(first, second)
    second.app.on["data"] = nest(second, third)
    first.below.arrive(first.peer.send(sent[first][:100_000]))
    assert first.app.data == sent[first]
    assert second.app.data[:100_000] == sent[second][:100_000]
    assert third.app.data[:100_000] == sent[third][:100_000]
    for pair in (first, second, third):
        assert not pair.below.calls, pair.below.calls


async def test_a_peer_that_makes_tls_say_more_than_it_takes(tls: ModuleType) -> None:
    """As by KeyUpdates (RFC 8446, 4.6.3), each of which is answered."""
    app = PlainApp()
    transport, below, stub = stub_pair(tls, app)

    def read(n: int, buffer: Any) -> int:
        stub._incoming.read(n)
        stub._outgoing.write(b"u" * 30)
        raise ssl.SSLWantReadError

    stub.read = read  # type: ignore[method-assign]
    record = b"\x17\x03\x03\x00\x05hello"
    for _ in range(10_000):
        below.arrive(record)
    assert len(b"".join(below.written())) == 300_000  # while the peer takes what it is sent, that is all right
    below.unsent = 1
    for _ in range(10_000):
        below.arrive(record)
    assert 65536 <= len(b"".join(below.written())) <= 65536 + 60
    assert transport.is_closing()
    below.arrive(then="eof")
    await turn()
    assert isinstance(app.error, ConnectionAbortedError)
    assert "more than it takes" in str(app.error)


# --- Sending ------------------------------------------------------------------------------------------


@apps
async def test_answers_to_one_read_go_out_in_one_write(
    tls: ModuleType, certs: Certificates, make: Callable[..., App]
) -> None:
    app = make()
    pair = Pair(tls, certs, app).open()
    echo(app)
    messages = [b"%03d" % number for number in range(64)]
    pair.below.arrive(pair.peer.send(*messages))
    assert len(pair.below.writes) == 1
    assert pair.received() == b"".join(messages)


async def test_answers_are_not_held_for_ever(tls: ModuleType, certs: Certificates) -> None:
    app = BufferedApp()
    pair = Pair(tls, certs, app).open()
    app.on["data"] = lambda transport: [transport.write(b"x" * 10_000) for _ in range(100)]
    pair.below.arrive(pair.peer.send(b"go"))
    assert 10 <= len(pair.below.writes) <= 20
    assert max(map(len, pair.below.writes)) < 100_000
    assert pair.received() == b"x" * 1_000_000


@pytest.mark.parametrize(("size", "writes"), [(0, 0), (1, 1), (16384, 1), (65536, 1), (65546, 1), (1 << 20, 8)])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_a_message_is_one_write(
    tls: ModuleType, certs: Certificates, size: int, writes: int, kind: Callable[[bytes], Any]
) -> None:
    pair = Pair(tls, certs, PlainApp()).open()
    data = random.Random(size).randbytes(size)
    pair.tls.write(kind(data))
    assert len(pair.below.writes) == writes
    assert pair.received() == data


async def test_writelines_is_one_write(tls: ModuleType, certs: Certificates) -> None:
    pair = Pair(tls, certs, PlainApp()).open()
    pair.tls.writelines(part for part in (b"a", bytearray(b"bc"), memoryview(b"d"), b""))
    assert len(pair.below.writes) == 1
    assert pair.received() == b"abcd"
    pair.tls.writelines([])
    assert pair.below.writes == []


async def test_what_cannot_be_written_changes_nothing(tls: ModuleType, certs: Certificates) -> None:
    pair = Pair(tls, certs, PlainApp()).open()
    for wrong in ("text", 5, None, [1, 2]):
        with pytest.raises(TypeError):
            pair.tls.write(wrong)
        with pytest.raises(TypeError):
            pair.tls.writelines([b"before ", wrong, b"never"])
        assert len(pair.below.writes) == 1
        assert pair.received() == b"before "
        pair.tls.write(b"after")
        assert pair.received() == b"after"


@pytest.mark.parametrize("end", ["close", "write_eof", "abort"])
async def test_nothing_is_written_after_the_end(tls: ModuleType, certs: Certificates, end: str) -> None:
    pair = Pair(tls, certs, PlainApp()).open()
    pair.tls.write(b"last")
    getattr(pair.tls, end)()
    pair.tls.write(b"never")
    pair.tls.writelines([b"never"])
    assert pair.received() == b"last"
    assert pair.peer.ended is (end != "abort")
    await turn()
    pair.tls.write(b"never")
    assert pair.below.writes == []


async def test_close_notify_is_sent_once(tls: ModuleType, certs: Certificates) -> None:
    pair = Pair(tls, certs, PlainApp()).open()
    pair.tls.write_eof()
    assert not pair.tls.is_closing()
    pair.tls.write_eof()
    pair.tls.close()
    pair.tls.close()
    assert pair.tls.is_closing()
    assert len(pair.below.writes) == 1
    pair.received()
    assert pair.peer.ended
    assert not pair.peer.alert


async def test_close_notify_is_the_last_word_though_something_is_unread(
    tls: ModuleType, certs: Certificates, version: ssl.TLSVersion
) -> None:
    """OpenSSL looks at what came when it is told to end, and must not find it wrong."""
    app = BufferedApp(10)
    pair = Pair(tls, certs, app, version=version).open()
    app.on["data"] = lambda transport: transport.pause_reading()
    pair.below.arrive(pair.peer.send(b"x" * 100, b"y" * 100))
    pair.tls.write_eof()
    pair.below.arrive(pair.peer.send(b"z" * 100))
    pair.received()
    assert pair.peer.ended
    assert not pair.peer.alert
    assert app.data == b"x" * 10


async def test_what_waits_is_counted(tls: ModuleType, certs: Certificates) -> None:
    app = BufferedApp()
    pair = Pair(tls, certs, app).open()
    sizes = []

    def answer(transport: Any) -> None:
        transport.write(b"x" * 1000)
        sizes.append(transport.get_write_buffer_size())

    app.on["data"] = answer
    pair.below.unsent = 10_000
    pair.below.arrive(pair.peer.send(b"go"))
    assert sizes == [11_022]
    assert pair.tls.get_write_buffer_size() == 10_000
    pair.tls.set_write_buffer_limits(7, 3)
    assert pair.below.calls == ["limits 7 3"]
    pair.tls.abort()
    await turn()
    assert pair.tls.get_write_buffer_size() == 0
    pair.tls.set_write_buffer_limits(7)


# --- Writing that has to wait for the peer: RFC 5246, 7.4.1.1 -----------------------------------------


async def test_writing_waits_for_the_peer(tls: ModuleType) -> None:
    app = PlainApp()
    transport, below, stub = stub_pair(tls, app)
    stub.waits = 1
    changing = bytearray(b"2")
    transport.write(b"x" * 65536 + b"1")  # the first piece goes out
    transport.write(changing)
    changing[:] = b"?"
    transport.writelines([b"3", memoryview(b"4")])
    for wrong in ("text", 5):
        with pytest.raises(TypeError):
            transport.write(wrong)
    assert b"".join(below.written()) == b"x" * 65536
    assert transport.get_write_buffer_size() == 4
    assert app.told == ["made", "pause"]
    below.arrive(b"not yet")
    assert below.written() == []
    stub.waits = 2
    below.arrive(b"nor all")
    assert below.written() == [b"12"]
    assert app.told == ["made", "pause", b"not yet", b"nor all"]
    stub.waits = -1
    below.arrive(b"now")
    assert below.written() == [b"34"]
    assert app.told[-2:] == [b"now", "resume"]
    assert transport.get_write_buffer_size() == 0
    transport.write(b"5")
    assert below.written() == [b"5"]


async def test_what_waits_for_the_peer_costs_the_same_however_much_it_is(tls: ModuleType) -> None:
    """A server may begin to negotiate anew and never end that, while the program goes on to send."""
    transport, below, stub = stub_pair(tls, PlainApp())
    stub.waits = 0

    def send(count: int) -> float:
        began = perf_counter()
        for _ in range(count):
            transport.write(b"0123456789")
            transport.get_write_buffer_size()
        return perf_counter() - began

    first = min(send(100) for _ in range(5))
    send(30_000)
    assert transport.get_write_buffer_size() == 305_000
    assert min(send(100) for _ in range(5)) < 20 * first
    stub.waits = -1
    below.arrive(b".")
    assert b"".join(below.written()) == b"0123456789" * 31_000
    assert transport.get_write_buffer_size() == 0


async def test_answers_wait_behind_what_waits(tls: ModuleType) -> None:
    app = PlainApp()
    transport, below, stub = stub_pair(tls, app)
    app.on["resume"] = lambda transport: transport.write(b"last")
    echo(app)
    stub.waits = 0
    transport.write(b"first ")
    stub.waits = -1
    below.arrive(b"second ")
    assert b"".join(below.written()) == b"first second last"


@pytest.mark.parametrize("first", ["below", "stall"])
async def test_two_reasons_to_pause_are_told_once(tls: ModuleType, first: str) -> None:
    app = PlainApp()
    transport, below, stub = stub_pair(tls, app)
    stub.waits = 0
    transport.write(b"x")
    transport.pause_writing()
    stub.waits = -1
    if first == "below":
        transport.resume_writing()
        assert app.told == ["made", "pause"]
        below.arrive(b".")
        assert app.told == ["made", "pause", b".", "resume"]
    else:
        below.arrive(b".")
        assert app.told == ["made", "pause", b"."]
        transport.resume_writing()
        assert app.told == ["made", "pause", b".", "resume"]


async def test_end_while_writing_waits(tls: ModuleType) -> None:
    app = PlainApp()
    transport, below, stub = stub_pair(tls, app)
    stub.waits = 0
    transport.write(b"x")
    transport.abort()
    stub.waits = -1
    below.arrive(b".")
    await turn()
    assert below.writes == []
    assert app.told == ["made", "pause", "lost"]


async def test_writing_that_fails_ends_the_connection(tls: ModuleType) -> None:
    app = PlainApp()
    transport, below, stub = stub_pair(tls, app)
    stub.error = ssl.SSLError("cannot")
    transport.write(b"x")
    assert transport.is_closing()
    transport.write(b"y")
    below.arrive(then="eof")
    await turn()
    assert app.told == ["made", "lost"]
    assert app.error is stub.error


async def test_below_is_full_before_the_handshake_is_done(tls: ModuleType, certs: Certificates) -> None:
    for resumed, told in ((False, ["made", "pause"]), (True, ["made"])):
        app = PlainApp()
        pair = Pair(tls, certs, app)
        pair.tls.pause_writing()
        if resumed:
            pair.tls.resume_writing()
        assert app.told == []
        pair.open()
        assert app.told == told
        pair.tls.resume_writing()
        assert app.told == (told if resumed else [*told, "resume"])


# --- Receiving: pauses --------------------------------------------------------------------------------


def pausing(app: App, times: int = 1) -> App:
    """Let a protocol pause reading when it is handed something, so many times."""
    left = itertools.repeat(None, times)

    def pause(transport: Any) -> None:
        for _ in left:
            transport.pause_reading()
            assert not transport.is_reading()
            break

    app.on["data"] = pause
    return app


ENDS = ["nothing", "close_notify", "eof", "close_notify and eof", "reset", "lost meanwhile"]
MESSAGES = [b"%05d " % number for number in range(2000)]
"""More than the smaller memories hold, in many records."""


@pytest.mark.parametrize("end", ENDS)
@apps
async def test_what_is_left_by_a_pause_comes_without_the_peer(
    tls: ModuleType, certs: Certificates, version: ssl.TLSVersion, make: Callable[..., App], end: str
) -> None:
    messages = MESSAGES if make is not APPS["1 byte"] else MESSAGES[:10]
    app = make()
    pair = Pair(tls, certs, app, version=version).open()
    pausing(app)
    sent = pair.peer.send(*messages)
    if "close_notify" in end:
        sent += pair.peer.close_notify()
    pair.below.arrive(sent, then="eof" if "eof" in end else "reset" if end == "reset" else "")
    handed = len(app.told)
    assert handed == 2
    assert not pair.below.is_reading()
    await turn()
    if end == "lost meanwhile":
        # What came is handed on though reading is paused: there is no later.
        pair.below.fail(ConnectionResetError())
    else:
        assert len(app.told) == handed
        pair.tls.resume_reading()
        assert pair.tls.is_reading()
        assert len(app.told) == handed, "not in the call itself, which a protocol may make anywhere"
    await turn()
    whole = b"".join(messages)
    # Only what is below is lost, with the connection.
    assert app.data == (whole if end != "lost meanwhile" else whole[: len(app.data)])
    assert len(app.data) > len(whole) // 10
    if end == "nothing":
        assert app.events == ["made"]
        assert pair.below.is_reading()
        pair.below.arrive(pair.peer.send(b"more"))
        assert app.data == whole + b"more"
    else:
        assert app.events == ["made", *(["eof"] if "notify" in end or "eof" in end else []), "lost"]
        assert app.told[-1] == "lost"
        assert (type(app.error) is ConnectionResetError) is (end in ("reset", "lost meanwhile"))


@apps
async def test_a_pause_at_every_step(tls: ModuleType, certs: Certificates, make: Callable[..., App]) -> None:
    messages = MESSAGES if make is not APPS["1 byte"] else MESSAGES[:10]
    app = make()
    pair = Pair(tls, certs, app).open()
    pausing(app, 1 << 30)
    pair.below.arrive(pair.peer.send(*messages) + pair.peer.close_notify(), piece=1000, then="eof")
    while "lost" not in app.told:
        before = len(app.told)
        pair.tls.resume_reading()
        await turn()
        assert before < len(app.told) <= before + 3
    assert app.data == b"".join(messages)
    assert app.events == ["made", "eof", "lost"]


async def test_paused_and_resumed_in_one_go(tls: ModuleType, certs: Certificates) -> None:
    app = BufferedApp(6)
    pair = Pair(tls, certs, app).open()

    def change(transport: Any) -> None:
        transport.pause_reading()
        transport.pause_reading()
        transport.resume_reading()
        transport.resume_reading()

    app.on["data"] = change
    pair.below.arrive(pair.peer.send(*MESSAGES[:100]), then="eof")
    assert app.data == b"".join(MESSAGES[:100])
    assert app.events == ["made"]
    await turn()
    assert app.told[-2:] == ["eof", "lost"]


async def test_resumed_and_paused_in_one_go(tls: ModuleType, certs: Certificates) -> None:
    app = pausing(BufferedApp(6))
    pair = Pair(tls, certs, app).open()
    pair.below.arrive(pair.peer.send(*MESSAGES[:100]))
    pair.tls.resume_reading()
    pair.tls.pause_reading()
    await turn()
    assert app.told == ["made", MESSAGES[0]]
    assert not pair.tls.is_reading()
    assert not pair.below.is_reading()


async def test_paused_when_the_handshake_is_done(tls: ModuleType, certs: Certificates) -> None:
    app = PlainApp(made=lambda transport: transport.pause_reading())
    pair = Pair(tls, certs, app)
    pair.tls.connection_made(pair.below)
    pair.below.arrive(pair.peer.begin())
    pair.peer.receive(b"".join(pair.below.written()))
    # A client sends its first message together with the end of the handshake.
    pair.below.arrive(pair.peer.send(b"early"))
    assert app.told == ["made"]
    pair.tls.resume_reading()
    await turn()
    assert app.told == ["made", b"early"]


# --- The protocol above does as it likes --------------------------------------------------------------


@apps
@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
@pytest.mark.parametrize("paused", [True, False], ids=["paused", "reading"])
async def test_end_within_what_is_handed_on(
    tls: ModuleType, certs: Certificates, make: Callable[..., App], end: str, paused: bool
) -> None:
    app = make()
    pair = Pair(tls, certs, app).open()

    def stop(transport: Any) -> None:
        if paused:
            transport.pause_reading()
        transport.write(b"bye")
        getattr(transport, end)()

    app.on["data"] = stop
    pair.below.arrive(pair.peer.send(*MESSAGES))
    assert len(app.told) == 2
    if end != "abort":
        assert pair.received() == b"bye"
        assert pair.peer.ended
    else:
        assert pair.received() == b""
    if end == "write_eof":
        assert app.events == ["made"]
        pair.below.arrive(pair.peer.send(b"dropped") + pair.peer.close_notify(), then="eof")
    await turn()
    assert len(app.told) == 3
    assert app.told[-1] == "lost"
    assert app.error is None


@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
@pytest.mark.parametrize("when", ["made", "eof"])
async def test_end_within_other_callbacks(tls: ModuleType, certs: Certificates, end: str, when: str) -> None:
    app = PlainApp(**{when: lambda transport: getattr(transport, end)()})
    pair = Pair(tls, certs, app)
    pair.tls.connection_made(pair.below)
    pair.below.arrive(pair.peer.begin())
    pair.peer.receive(b"".join(pair.below.written()))
    pair.below.arrive(pair.peer.send(b"early"))
    pair.below.arrive(pair.peer.close_notify(), then="eof")
    await turn()
    assert app.told == (["made", "lost"] if when == "made" else ["made", b"early", "eof", "lost"])
    pair.received()
    assert pair.peer.ended is not (end == "abort")
    assert not pair.peer.alert


@pytest.mark.parametrize("kinds", list(itertools.product(["100 bytes", "data_received"], repeat=2)), ids=" then ".join)
async def test_another_protocol_takes_over(tls: ModuleType, certs: Certificates, kinds: tuple[str, str]) -> None:
    first, second = (APPS[kind]() for kind in kinds)
    pair = Pair(tls, certs, first).open()
    assert pair.tls.get_protocol() is first
    first.on["data"] = lambda transport: transport.set_protocol(second)
    pair.below.arrive(pair.peer.send(b"x" * 100, *MESSAGES[:50]), piece=122)
    assert first.told == ["made", b"x" * 100]
    assert pair.tls.get_protocol() is second
    pair.below.arrive(pair.peer.close_notify())
    await turn()
    assert second.data == b"".join(MESSAGES[:50])
    assert second.events == ["eof", "lost"]


class Broken(Exception):
    """What the protocol above raises."""


def breaking(app: App, when: str, *, times: int = 1) -> App:
    left = itertools.repeat(None, times)

    def fail(transport: Any) -> None:
        for _ in left:
            raise Broken

    app.on[when] = fail
    return app


@apps
async def test_the_protocol_raises_at_what_it_is_handed(
    tls: ModuleType, certs: Certificates, make: Callable[..., App]
) -> None:
    app = make()
    pair = Pair(tls, certs, app).open()
    breaking(app, "data")
    pair.below.arrive(pair.peer.send(*MESSAGES))
    assert pair.below.calls == ["raised Broken()"]
    await turn()
    assert app.told[-1] == "lost"
    assert app.events == ["made", "lost"]
    assert type(app.error) is Broken


async def test_the_protocol_raises_and_somebody_caught_it(tls: ModuleType, certs: Certificates) -> None:
    app = BufferedApp(6)
    pair = Pair(tls, certs, app).open()
    breaking(app, "data")
    records = pair.peer.send(*MESSAGES[:3])
    pair.tls.get_buffer(-1)[: len(records)] = records
    with pytest.raises(Broken):
        pair.tls.buffer_updated(len(records))
    pair.tls.write(b"written at once, as outside a batch")
    assert len(pair.below.writes) == 1
    pair.below.arrive(pair.peer.send(MESSAGES[3]))
    assert app.data == b"".join(MESSAGES[:4])


async def test_the_protocol_raises_after_a_pause(
    tls: ModuleType, certs: Certificates, loop_told: list[dict[str, Any]]
) -> None:
    app = BufferedApp(6)
    pair = Pair(tls, certs, app).open()
    pausing(app)
    pair.below.arrive(pair.peer.send(*MESSAGES))
    breaking(app, "data")
    pair.tls.resume_reading()
    await turn()
    assert app.events == ["made", "lost"]
    [told] = loop_told
    assert type(told["exception"]) is Broken
    loop_told.clear()
    gc.collect()


async def test_the_protocol_raises_at_the_end(
    tls: ModuleType, certs: Certificates, loop_told: list[dict[str, Any]]
) -> None:
    """What it is handed when all is lost already: it is told of that none the less."""
    app = BufferedApp(6)
    pair = Pair(tls, certs, app).open()
    pausing(app)
    pair.below.arrive(pair.peer.send(*MESSAGES))
    breaking(app, "data")
    pair.below.fail(ConnectionResetError())
    await turn()
    assert app.events == ["made", "lost"]
    assert type(app.error) is ConnectionResetError
    assert pair.tls.is_closing()
    [told] = loop_told
    assert type(told["exception"]) is Broken
    loop_told.clear()


async def test_no_memory_to_receive_into(tls: ModuleType, certs: Certificates) -> None:
    """Without an error it would ask for ever."""
    app = BufferedApp(0)
    pair = Pair(tls, certs, app).open()
    pair.below.arrive(pair.peer.send(b"x"))
    app.memory = bytearray(10)
    assert pair.below.calls == ["raised RuntimeError('get_buffer() returned an empty buffer')"]
    await turn()
    assert app.told == ["made", b"x", "lost"]


# --- The peer ends, or breaks -------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close_notify", "eof", "both"])
async def test_the_peer_ends(tls: ModuleType, certs: Certificates, version: ssl.TLSVersion, end: str) -> None:
    app = PlainApp(eof=lambda transport: transport.write(b"last"))
    pair = Pair(tls, certs, app, version=version).open()
    pair.below.arrive(
        pair.peer.send(b"x") + (b"" if end == "eof" else pair.peer.close_notify()),
        then="" if end == "close_notify" else "eof",
    )
    await turn()
    assert app.told == ["made", b"x", "eof", "lost"]
    assert app.error is None
    assert pair.below.calls == ["close"]
    if end == "eof":
        assert pair.received() == b"last"
        assert pair.peer.ended, "RFC 8446, 6.1: each party must send close_notify"


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
@pytest.mark.parametrize("end", ["eof", "reset", "abort", "close"])
@pytest.mark.parametrize("at", [0, 1, 100, 500])
async def test_end_during_the_handshake(
    tls: ModuleType, certs: Certificates, accepted: bool, end: str, at: int
) -> None:
    app = PlainApp()
    seen: list[Any] = []
    done = asyncio.get_running_loop().create_future()
    pair = Pair(tls, certs, app, done=done, accepted=seen.append if accepted else None)
    pair.tls.connection_made(pair.below)
    assert seen == [pair.tls] * accepted
    hello = pair.peer.begin()[:at]
    if end in ("eof", "reset"):
        pair.below.arrive(hello, then=end)
    else:
        pair.below.arrive(hello)
        getattr(pair.tls, end)()
    await turn()
    assert pair.tls.is_closing()
    assert not pair.tls.is_reading()
    assert app.told == ["lost"] * accepted
    with pytest.raises(ConnectionResetError, match="during the TLS handshake" if end != "reset" else None):
        await done


async def test_nobody_waits_for_the_handshake_any_more(tls: ModuleType, certs: Certificates) -> None:
    for end in ("eof", "cancel"):
        done = asyncio.get_running_loop().create_future()
        pair = Pair(tls, certs, PlainApp(), done=done)
        pair.tls.connection_made(pair.below)
        if end == "cancel":
            done.cancel()
        pair.below.arrive(pair.peer.begin()[:10], then="eof")
        await turn()
        del done, pair
        gc.collect()  # would tell the loop of an exception that was never retrieved


@pytest.mark.parametrize(
    ("sent", "alert"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "http request"),
        (b"\x00" * 100, "wrong version number"),
        (b"\x16\x03\x01\x00\x05hello", "unexpected message"),
    ],
    ids=["HTTP", "zeros", "no ClientHello"],
)
async def test_what_comes_is_no_tls(tls: ModuleType, certs: Certificates, sent: bytes, alert: str) -> None:
    app = PlainApp()
    pair = Pair(tls, certs, app, accepted=lambda transport: None)
    pair.tls.connection_made(pair.below)
    pair.below.arrive(sent)
    # The alert, which OpenSSL leaves out where it is no use, and the end of this side. Then the peer ends its own.
    assert all(write[0] == 21 for write in pair.below.writes)
    assert pair.below.calls == ["write_eof"]
    assert pair.tls.is_closing()
    pair.below.arrive(b"more of it")
    assert app.told == []
    pair.below.arrive(then="eof")
    await turn()
    assert pair.below.calls == ["write_eof", "close"]
    assert app.told == ["lost"]
    assert isinstance(app.error, ssl.SSLError)
    assert alert in str(app.error).lower().replace("_", " ")


async def test_the_client_is_told_why_the_handshake_failed(
    tls: ModuleType, certs: Certificates, version: ssl.TLSVersion
) -> None:
    app = PlainApp()
    done = asyncio.get_running_loop().create_future()
    pair = Pair(tls, certs, app, version=version, server_side=False, server_hostname="elsewhere", done=done)
    pair.tls.connection_made(pair.below)
    while not pair.below.is_closing():
        pair.received()
        pair.below.arrive(pair.peer.take())
    pair.received()
    assert "ALERT" in pair.peer.alert
    assert pair.below.calls == ["close"], "whoever waits for the connection is told at once"
    await turn()
    assert app.told == []
    with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
        await done


@pytest.mark.parametrize(
    "head",
    [b"G", b"\x80", b"\x17\x02", b"\x17\x03\x03\x48\x01", b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\x00\x00"],
    ids=["text", "SSL 2.0", "version", "too long", "longest", "empty"],
)
async def test_what_comes_is_no_record(
    tls: ModuleType, certs: Certificates, version: ssl.TLSVersion, head: bytes
) -> None:
    """That is found as soon as OpenSSL can tell it, not when as much has come as a head seemed to promise."""
    app = BufferedApp()
    pair = Pair(tls, certs, app, version=version).open()
    pair.below.arrive(pair.peer.send(b"good") + head.ljust(5, b"?") + b"?" * 22, piece=1)
    assert app.told == ["made", b"good"]
    assert pair.tls.is_closing()
    pair.below.arrive(then="eof")
    await turn()
    assert app.told == ["made", b"good", "lost"]
    assert isinstance(app.error, ssl.SSLError)


@apps
@pytest.mark.parametrize("paused", [True, False], ids=["paused", "reading"])
async def test_a_record_is_corrupted(
    tls: ModuleType, certs: Certificates, version: ssl.TLSVersion, make: Callable[..., App], paused: bool
) -> None:
    """What came before it is handed on; to answer that is no use and no error."""
    app = make()
    pair = Pair(tls, certs, app, version=version).open()
    app.on["data"] = lambda transport: [transport.write(b"answer"), transport.pause_reading() if paused else None]
    good, bad = pair.peer.send(b"good"), bytearray(pair.peer.send(b"bad"))
    bad[-1] ^= 1
    pair.below.arrive(good + bad + b"more")
    if paused:
        for _ in range(4):
            pair.tls.resume_reading()
            await turn()
    assert app.data == b"good"
    assert app.events == ["made"]
    assert pair.tls.is_closing()
    assert pair.received() in (b"", b"answer" * (len(app.told) - 1))
    assert pair.peer.alert.endswith("BAD_RECORD_MAC")
    assert pair.below.calls == ["write_eof"]
    pair.tls.write(b"never")
    pair.below.arrive(b"dropped", then="eof")
    await turn()
    assert app.events == ["made", "lost"]
    assert isinstance(app.error, ssl.SSLError)
    # By the name that OpenSSL 3.0 or 3.6 gives it; not that of an answer which could not be sent any more.
    assert re.search("BAD_RECORD_MAC|RECORD_LAYER_FAILURE", str(app.error))


async def test_after_an_alert_the_peer_is_not_waited_for_without_end(
    tls: ModuleType, certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LINGER", 0.01)
    app = PlainApp()
    pair = Pair(tls, certs, app).open()
    pair.below.arrive(b"\x17\x03\x03\x00\x10" + b"x" * 16)
    assert pair.below.calls == ["write_eof"]
    await until(lambda: "lost" in app.told)
    assert pair.below.calls == ["write_eof", "abort"]


async def test_the_peer_is_gone_when_the_alert_is_sent(tls: ModuleType, certs: Certificates) -> None:
    app = PlainApp()
    pair = Pair(tls, certs, app).open()

    def gone() -> None:
        raise OSError(107, "not connected")

    pair.below.write_eof = gone  # type: ignore[method-assign]
    pair.below.arrive(b"\x17\x03\x03\x00\x10" + b"x" * 16)
    await turn()
    assert pair.below.calls == ["abort"]
    assert app.told == ["made", "lost"]
    assert isinstance(app.error, ssl.SSLError)


async def test_what_comes_after_the_end_does_nothing(tls: ModuleType, certs: Certificates) -> None:
    app = PlainApp()
    pair = Pair(tls, certs, app).open()
    pair.tls.abort()
    await turn()
    assert app.told == ["made", "lost"]
    for late in (pair.tls.close, pair.tls.write_eof, pair.tls.pause_reading, pair.tls.resume_reading, pair.tls.abort):
        late()
    pair.tls.failed(ssl.SSLError("late"))
    await turn()
    assert app.told == ["made", "lost"]
    assert pair.tls.is_closing()
    assert not pair.tls.can_write_eof()


async def test_paused_and_failed_while_it_closes(tls: ModuleType, certs: Certificates) -> None:
    """The transport below takes no more orders, and the first end is the one told."""
    app = PlainApp()
    pair = Pair(tls, certs, app).open()
    pair.tls.read_ended()
    pair.tls.read_ended()
    calls = list(pair.below.calls)
    pair.tls.pause_reading()
    first = ssl.SSLError("first")
    pair.tls.failed(first)
    pair.tls.failed(ssl.SSLError("second"))
    assert pair.below.calls == calls
    pair.below.abort()
    await turn()
    assert app.told == ["made", "eof", "lost"]
    assert app.error is first


# --- What is known of the connection ------------------------------------------------------------------


async def test_extra_info(tls: ModuleType, certs: Certificates, version: ssl.TLSVersion) -> None:
    pair = Pair(tls, certs, PlainApp(), version=version, server_side=False)
    assert pair.tls.get_extra_info("peername", "none yet") == "none yet"
    assert pair.tls.get_extra_info("peercert", "none yet") == "none yet"
    pair.open()
    info = pair.tls.get_extra_info
    assert isinstance(info("ssl_object"), ssl.SSLObject)
    assert isinstance(info("sslcontext"), ssl.SSLContext)
    assert info("peercert")["subject"] == ((("commonName", "localhost"),),)
    name, protocol, bits = info("cipher")
    assert isinstance(name, str)
    assert (protocol, bits >= 128) == ("TLSv1.3" if version is ssl.TLSVersion.TLSv1_3 else "TLSv1.2", True)
    assert info("compression", "none") is None
    assert info("peername") == ("peer", 1)
    assert info("sockname") == ("here", 2)
    assert info("unknown") is None
    assert info("unknown", 5) == 5
    assert pair.tls.can_write_eof()


async def test_a_client_needs_a_name(tls: ModuleType, certs: Certificates) -> None:
    for name in (None, ""):
        with pytest.raises(ValueError, match="server_hostname"):
            tls.TLSTransport(
                PlainApp(), memoryview(b""), certs.client_context(), server_side=False, server_hostname=name
            )


# --- What is left -------------------------------------------------------------------------------------


def scenario_closed(pair: Pair) -> None:
    pair.open()
    pair.below.arrive(pair.peer.send(b"x"))
    pair.tls.close()


def scenario_peer_closed(pair: Pair) -> None:
    pair.open()
    pair.below.arrive(pair.peer.close_notify(), then="eof")


def scenario_corrupted(pair: Pair) -> None:
    pair.open()
    pair.below.arrive(pair.peer.send(b"x") + b"\x17\x03\x03\x00\x10" + b"x" * 16, then="eof")


def scenario_garbage(pair: Pair) -> None:
    pair.tls.connection_made(pair.below)
    pair.below.arrive(b"GET / HTTP/1.1\r\n", then="eof")


def scenario_reset(pair: Pair) -> None:
    pair.open()
    pair.below.arrive(pair.peer.send(b"x"), then="reset")


@pytest.mark.parametrize(
    "scenario", [scenario_closed, scenario_peer_closed, scenario_corrupted, scenario_garbage, scenario_reset]
)
async def test_no_cycle_is_left(tls: ModuleType, certs: Certificates, scenario: Callable[[Pair], None]) -> None:
    """What has ended is freed at once: the collector may come much later, and costs time."""

    class Owner:
        def accepted(self, transport: Any) -> None:
            self.transport = transport  # as `ServerOpening` keeps it

    owner = Owner()
    app = PlainApp()
    pair = Pair(tls, certs, app, accepted=owner.accepted, done=asyncio.get_running_loop().create_future())
    scenario(pair)
    await turn()
    assert app.told[-1] == "lost"
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        app.on.clear()
        app.transport = app.error = pair.below.protocol = None
        del owner, pair, app
        gc.collect()
        left = [type(thing).__name__ for thing in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()
    assert not {"TLSTransport", "Owner", "SSLObject"} & set(left), left


async def test_what_is_held_does_not_grow(tls: ModuleType, certs: Certificates) -> None:
    """Records are forgotten once they are decrypted, or sent: nothing gathers over the life of a connection."""
    app = BufferedApp()
    pair = Pair(tls, certs, app).open()
    pair.tls.set_protocol(echoing := BufferedApp())
    echo(echoing)
    echoing.transport = pair.tls
    for _ in range(50):
        pair.below.arrive(pair.peer.send(b"x" * 60_000), piece=7000)
        assert pair.received() == b"x" * 60_000
        assert pair.tls.get_write_buffer_size() == 0
        echoing.told.clear()
