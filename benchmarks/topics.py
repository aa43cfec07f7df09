"""CPU of topics: ``python -m benchmarks.topics`` for deliveries, ``--bus local`` or ``--bus redis://...`` for buses.

``--bus bare`` is what the same bytes take on Unix streams with no bus: the least that this machine can do.

``--fed redis://...`` has another process publish at a `--rate`, and this one deliver to all connections; printed is how
long messages took from the publisher's call until a client in a third process had read them.

Deliveries go over loopback to a process that counts what arrives; its time does not count. A round publishes `k`
messages in one turn of the loop, to as many topics, and ends when all is written. Printed is the CPU time of this
process for each delivery: the median of the rounds, and the least; and, as the measure of the machine, that of a bare
send(2) of as many bytes to each connection.
"""

# ruff: noqa: ASYNC110, ASYNC220 - one thing happens at a time here

from __future__ import annotations

import argparse
import array
import asyncio
import mmap
import os
import random
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import wsfast
from wsfast.asyncio.protocol import turn_of
from wsfast.bus import Bus, LocalBus, RedisBus
from wsfast.topics.topics import hub_of

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def sink(port: int, count: int, path: str, timed: bool) -> None:
    """Open connections, and count the bytes that arrive, in a file; `timed` takes the time of messages to the first."""
    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 4096)
    poll = select.epoll()
    sockets = {}
    for number in range(count):
        sock = socket.socket()
        sock.bind((f"127.0.0.{1 + number // 20000}", 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(_REQUEST)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        sock.setblocking(False)
        sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
        struct.pack_into("<Q", shared, 0, number + 1)
    total = 0
    buffer = bytearray(262144)
    poll.register(0, select.EPOLLIN)
    first, late, rest = next(iter(sockets)) if timed else -1, array.array("d"), b""
    while True:
        for fd, _ in poll.poll(1.0):
            if fd == 0:
                Path(path + ".times").write_bytes(late.tobytes())
                return
            try:
                size = sockets[fd].recv_into(buffer)
            except BlockingIOError:
                continue
            total += size
            if fd == first:
                rest = _take_times(rest + buffer[:size], late)
        struct.pack_into("<Q", shared, 8, total)


def _take_times(data: bytes, late: array.array[float]) -> bytes:
    """Note how long ago messages of less than 126 bytes were published; return what is left of the last."""
    at, now = 0, time.monotonic()
    while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
        late.append(now - struct.unpack_from("<d", data, at + 2)[0])
        at += 2 + data[at + 1]
    return data[at:]


class Sink:
    """The process that counts."""

    def __init__(self, port: int, count: int, *, timed: bool = False) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._file.write(bytes(4096))
        self._file.flush()
        self._shared = mmap.mmap(self._file.fileno(), 4096)
        command = [sys.executable, "-m", "benchmarks.topics", "--sink", str(port), str(count), self._file.name]
        command.append("timed" if timed else "")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    @property
    def connected(self) -> int:
        return int(struct.unpack_from("<Q", self._shared, 0)[0])

    @property
    def received(self) -> int:
        return int(struct.unpack_from("<Q", self._shared, 8)[0])

    def close(self) -> list[float]:
        """End it; return the times that the messages to one connection took."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        times, path = array.array("d"), Path(self._file.name + ".times")
        times.frombytes(path.read_bytes())
        path.unlink()
        return sorted(times)


_opened: list[wsfast.WebSocket] = []


class _Join(wsfast.Listener):
    def on_open(self) -> None:
        _opened.append(self.ws)


def _bare_send(count: int, data: bytes, peer: Sink) -> float:
    """Return the CPU seconds of a send(2) of some bytes to each connection."""
    sockets = [ws.transport.get_extra_info("socket").fileno() for ws in _opened if ws.transport is not None]
    begun = peer.received
    start = time.process_time()
    for fd in sockets:
        os.write(fd, data)
    used = time.process_time() - start
    while peer.received - begun < len(sockets) * len(data):
        time.sleep(0.002)
    return used / count


async def deliveries(args: argparse.Namespace) -> None:
    """Measure deliveries in one process."""
    topics = wsfast.Topics(max_subscriptions=10_000_000)
    server = wsfast.Server(topics=topics, ping_interval=None, max_buffered=None, write_limit=1 << 24)
    server.register_listener(None, _Join)
    await server.start("127.0.0.1", 0, backlog=4096)
    peer = Sink(server.sockets[0].getsockname()[1], args.connections)
    while peer.connected < args.connections or len(_opened) < args.connections:
        await asyncio.sleep(0.05)
    names = [f"topic.{number}" for number in range(args.topics)]
    rng = random.Random(1)
    slots = [names[number % args.topics] for number in range(args.connections * args.each)]
    rng.shuffle(slots)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before, start = resident(), time.process_time()
    for number, ws in enumerate(_opened):
        for name in slots[number * args.each : (number + 1) * args.each]:
            ws.subscribe(name)
    used, grown = time.process_time() - start, resident() - before
    count = topics.counters["subscriptions"]
    print(f"{count} subscriptions: {grown / count:.0f} B and {1e6 * used / count:.2f} us each", flush=True)
    turn = turn_of(asyncio.get_running_loop())
    payload = os.urandom(args.size)
    frame = args.size + (2 if args.size < 126 else 4)
    place = 0
    for k in args.publishes:
        figures = []
        for number in range(args.rounds + 1):
            turns = max(1, args.target // max(1, k * args.connections * args.each // args.topics))
            begun, expected = peer.received, 0
            start = time.process_time()
            for _ in range(turns):
                for _ in range(k):
                    name = names[place % args.topics]
                    place += 1
                    expected += hub_of(topics).index.count(name)
                    topics.publish(name, payload)
                await asyncio.sleep(0)
                while turn.gathering:
                    await asyncio.sleep(0)
            used = time.process_time() - start
            while peer.received - begun < expected * frame:
                await asyncio.sleep(0.002)
            if number:
                figures.append(1e6 * used / expected)
        bare = _bare_send(args.connections, bytes(max(1, round(frame * k * args.each / args.topics)) or frame), peer)
        bare *= 1e6 / max(1, k * args.each / args.topics)
        median, least = statistics.median(figures), min(figures)
        print(
            f"{k:5} publishes in a turn: {median:7.3f} us a delivery (least {least:.3f}; a bare send {bare:.3f})",
            flush=True,
        )
    peer.close()
    server.stop_timeout = 1
    server.close()
    await server.wait_closed()


async def feed(args: argparse.Namespace) -> None:
    """Publish at a rate, each message with the time."""
    async with wsfast.Topics(RedisBus(args.fed)) as topics:
        total, number, rest = int(args.rate * args.seconds), 0, bytes(max(0, args.size - 8))
        used, start = time.process_time(), time.monotonic()
        while number < total:
            due = min(total, int((time.monotonic() - start) * args.rate) + 1)
            for _ in range(number, due):
                topics.publish("hot", struct.pack("<d", time.monotonic()) + rest)
            number = due
            await asyncio.sleep(0.001)
        took = time.monotonic() - start
        print(
            f"published {number} in {took:.2f} s, {1e6 * (time.process_time() - used) / number:.2f} us of CPU each",
            flush=True,
        )


def _percentiles(seconds: list[float]) -> str:
    seconds.sort()
    half, most = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    return f"p50 {1e3 * half:.1f} ms, p99 {1e3 * most:.1f} ms of {len(seconds)}"


async def fed(args: argparse.Namespace) -> None:
    """Measure one worker that delivers to all its connections what another process publishes by Redis."""
    gaps: list[wsfast.Gap] = []
    topics = wsfast.Topics(RedisBus(args.fed), on_gap=gaps.append)
    server = wsfast.Server(topics=topics, ping_interval=None, max_buffered=1 << 26, write_limit=1 << 22)
    server.register_listener(None, _Join)
    await server.start("127.0.0.1", 0, backlog=4096)
    peer = Sink(server.sockets[0].getsockname()[1], args.connections, timed=True)
    while peer.connected < args.connections or len(_opened) < args.connections:
        await asyncio.sleep(0.05)
    for ws in _opened:
        await ws.subscribe("hot")
    expected = int(args.rate * args.seconds) * args.connections
    used, start = time.process_time(), time.monotonic()
    command = [sys.executable, "-m", "benchmarks.topics", "--feed", "--fed", args.fed, "--loop", args.loop]
    command += ["--rate", str(args.rate), "--seconds", str(args.seconds), "--size", str(args.size)]
    feeder = subprocess.Popen(command)
    while feeder.poll() is None or (peer.received < expected * (args.size + 2) and time.monotonic() - start < 60):
        await asyncio.sleep(0.05)
    used = time.process_time() - used
    counters = topics.counters
    times = peer.close()
    print(
        f"{args.connections} subscribers, {args.rate:.0f} publishes a second:"
        f" {counters['deliveries'] / used / 1e6:.1f} M deliveries a CPU second,"
        f" {counters['deliveries'] / counters['writes']:.0f} in a write,"
        f" {counters['dropped']} dropped, {len(gaps)} gaps;"
        f" published to read: {_percentiles(times)}",
        flush=True,
    )
    server.stop_timeout = 1
    server.close()
    await server.wait_closed()


class _Count:
    """A process on a bus that counts."""

    def __init__(self) -> None:
        self.count = 0
        self.up = False

    def received(self, topic: str, data: bytes, position: Any) -> None:
        self.count += 1

    def state_changed(self, up: bool, why: str) -> None:
        self.up = up

    def process_ended(self, origin: int) -> None:
        pass

    def missed(self, topics: Any) -> None:
        pass


class _Bare(Bus):
    """The measure of the machine: messages with their lengths on Unix streams, counted; no topics, and nothing else."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/bare.sock"
        self._out: list[bytes] = []
        self._streams: list[asyncio.Transport] = []

    async def start(self, receiver: Any, origin: int) -> None:
        bus = self
        self._loop = asyncio.get_running_loop()

        class Stream(asyncio.Protocol):
            rest = b""

            def connection_made(self, transport: Any) -> None:
                bus._streams.append(transport)

            def data_received(self, data: bytes) -> None:
                data, at = self.rest + data, 0
                while len(data) - at >= 4 and len(data) - at >= 4 + (size := int.from_bytes(data[at : at + 4])):
                    receiver.received("t", data[at + 4 : at + 4 + size], None)
                    at += 4 + size
                self.rest = data[at:]

            def connection_lost(self, exc: Exception | None) -> None:
                bus._streams.clear()

        try:
            await self._loop.create_unix_connection(Stream, self._path)
        except FileNotFoundError:
            await self._loop.create_unix_server(Stream, self._path)
        receiver.state_changed(True, "")

    def publish(self, topic: str, data: bytes) -> Any:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(len(data).to_bytes(4) + data)

    def _flush(self) -> None:
        out, self._out = b"".join(self._out), []
        for stream in self._streams:
            stream.write(out)

    async def settled(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def subscribe(self, topic: str) -> None:
        pass

    unsubscribe = subscribe

    def store(self, *args: Any) -> Any:
        raise NotImplementedError

    async def read(self, *args: Any) -> Any:
        raise NotImplementedError


def _bus(text: str, directory: str) -> Bus:
    return _Bare(directory) if text == "bare" else LocalBus(directory) if text == "local" else RedisBus(text)


async def receive(args: argparse.Namespace) -> None:
    """Be one that receives: print the CPU time that it took."""
    count, bus = _Count(), _bus(args.bus, args.directory)
    await bus.start(count, os.getpid())
    while not count.up:
        await asyncio.sleep(0.01)
    bus.subscribe("t")
    bus.subscribe("end")
    await bus.settled()
    print("ready", flush=True)
    while not count.count:
        await asyncio.sleep(0.001)
    start, seen = time.process_time(), count.count
    while count.count < args.messages + 1:
        await asyncio.sleep(0.05)
    print((time.process_time() - start) / (args.messages - seen), flush=True)
    await bus.close()


async def buses(args: argparse.Namespace) -> None:
    """Measure a bus: one process publishes, two receive."""
    with tempfile.TemporaryDirectory() as directory:
        bus = _bus(args.bus, directory)
        count = _Count()
        await bus.start(count, os.getpid())
        while not count.up:
            await asyncio.sleep(0.01)
        for batch in (1, 50):
            start = time.process_time()
            for _ in range(args.messages // batch):
                await asyncio.sleep(0)
                await asyncio.sleep(args.pause)
            turns = (time.process_time() - start) / args.messages
            command = [sys.executable, "-m", "benchmarks.topics", "--bus", args.bus, "--receive", directory]
            command += ["--loop", args.loop, "--messages", str(args.messages)]
            peers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
            for peer in peers:
                assert peer.stdout is not None
                await asyncio.get_running_loop().run_in_executor(None, peer.stdout.readline)
            payload = os.urandom(args.size)
            start = time.process_time()
            for _ in range(args.messages // batch):
                for _ in range(batch):
                    bus.publish("t", payload)
                await asyncio.sleep(0)
                await asyncio.sleep(args.pause)
            published = (time.process_time() - start) / args.messages
            bus.publish("end", b"")
            received = []
            for peer in peers:
                assert peer.stdout is not None
                line = await asyncio.get_running_loop().run_in_executor(None, peer.stdout.readline)
                received.append(float(line))
                peer.wait()
            total = published + sum(received)
            print(
                f"{args.bus}, batches of {batch}: publisher {1e6 * published:.2f} us,"
                f" receivers {', '.join(f'{1e6 * one:.2f}' for one in received)}, all {1e6 * total:.2f} us a publish"
                f" (the publisher's turns of the loop, without a publish: {1e6 * turns:.2f})",
                flush=True,
            )
        await bus.close()


def _engine(port: int) -> subprocess.Popen[bytes]:
    """Start a redis-server, and wait until it answers."""
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"PING\r\n")
                if sock.recv(100) == b"+PONG\r\n":
                    return process
        except OSError:
            time.sleep(0.001)


async def restarts(args: argparse.Namespace) -> None:
    """Measure how long it takes until an engine that was killed, and is up again, serves all topics again."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    process = _engine(port)
    bus, count = RedisBus(f"redis://127.0.0.1:{port}"), _Count()
    await bus.start(count, 1)
    while not count.up:
        await asyncio.sleep(0.01)
    for number in range(args.restart):
        bus.subscribe(f"topic.{number}")
    await bus.settled()
    for _ in range(args.rounds):
        process.kill()
        process.wait()
        while count.up:
            await asyncio.sleep(0.001)
        used = time.process_time()
        process = await asyncio.to_thread(_engine, port)
        start = time.monotonic()
        while not count.up:
            await asyncio.sleep(0.001)
        bus.publish(f"topic.{args.restart - 1}", b"")
        before = count.count
        while count.count == before:
            await asyncio.sleep(0.001)
        took, used = time.monotonic() - start, time.process_time() - used
        print(f"{args.restart} topics served again after {1e3 * took:.0f} ms, {1e3 * used:.0f} ms of CPU", flush=True)
    await bus.close()
    process.kill()
    process.wait()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topics", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--topics", type=int, default=1)
    parser.add_argument("--each", type=int, default=1, help="topics of a connection")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", type=int, default=100_000, help="deliveries in a round")
    parser.add_argument("--publishes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--bus")
    parser.add_argument("--fed")
    parser.add_argument("--restart", type=int, help="measure how soon so many topics are served after a restart")
    parser.add_argument("--rate", type=float, default=20_000, help="publishes a second")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--feed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--pause", type=float, default=0.0005, help="seconds between two batches to a bus")
    parser.add_argument("--receive", dest="directory", help=argparse.SUPPRESS)
    parser.add_argument("--sink", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fed and not 8 <= args.size < 126:
        parser.error("--fed needs a --size of 8 to 125")
    if args.sink:
        sink(int(args.sink[0]), int(args.sink[1]), args.sink[2], bool(args.sink[3]))
        return
    measure = (
        receive if args.directory else buses if args.bus else feed if args.feed else fed if args.fed else deliveries
    )
    work = restarts(args) if args.restart else measure(args)
    if args.loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
