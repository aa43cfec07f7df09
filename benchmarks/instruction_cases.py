"""What `instructions` counts: the cases, and the process that runs them under callgrind.

Each case is a function that prepares it and returns a call and how many operations one call does. The process calls it
`COUNT` times and then twice as often, so that what is not of the operation drops out of the difference. `os.getppid`,
which nothing else calls, tells callgrind where a count begins and ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

__all__ = ["CASES", "COUNT", "MARKER", "MARKS"]

Case: TypeAlias = Callable[[], tuple[Callable[[], object], int]]

COUNT = 5
"""Calls of the first of the two runs of a case."""
MARKER = "getppid"
"""The function of the C library at whose calls callgrind writes down what it counted, and starts anew."""
MARKS = 3
"""Calls of it for each case: before the first run, between the two, and behind the second."""

BATCH = 100
KEY = b"\x12\x34\x56\x78"
BINARY = bytes(range(1, 256))
ASCII = "The quick brown fox jumps over the lazy dog. "
OTHER = "Zwölf Boxkämpfer jagen Viktor, быстро, 素早い茶色の狐. "


def _sized(data: bytes, size: int) -> bytes:
    return (data * (size // len(data) + 1))[:size]


def _decode(message: str | bytes, parts: int = 1) -> Case:
    """Make a case of a server's decoder that is fed with many frames at once; an operation is a frame."""

    def prepare() -> tuple[Callable[[], object], int]:
        from wsfast._codec import Decoder, encode_frame

        opcode = 1 if isinstance(message, str) else 2
        if parts == 1:
            stream, expected = encode_frame(opcode, message, mask=KEY) * BATCH, [message] * BATCH
        else:
            stream = encode_frame(opcode, message, fin=False, mask=KEY)
            stream += encode_frame(0, message, fin=False, mask=KEY) * (parts - 2) + encode_frame(0, message, mask=KEY)
            expected = [message * parts]
        feed = Decoder(masked=True, max_size=None).feed
        assert feed(stream) == expected
        return lambda: feed(stream), BATCH if parts == 1 else parts

    return prepare


def _decode_alone() -> tuple[Callable[[], object], int]:
    from wsfast._codec import Decoder, encode_frame

    frame = encode_frame(2, _sized(BINARY, 64), mask=KEY)
    feed = Decoder(masked=True).feed

    def call() -> None:
        for _ in repeat(None, BATCH):
            feed(frame)

    return call, BATCH


def _receive_in_place() -> tuple[Callable[[], object], int]:
    from wsfast._codec import Decoder, encode_frame

    frame = memoryview(encode_frame(2, _sized(BINARY, 65536), mask=KEY))
    decoder = Decoder(masked=True)
    received: list[Any] = []

    def call() -> None:
        at = 0
        received.clear()
        while at < len(frame):
            lent = decoder.get_buffer()
            count = min(len(lent), 32768, len(frame) - at)
            lent[:count] = frame[at : at + count]
            received.extend(decoder.buffer_updated(count))
            at += count

    call()
    assert received == [_sized(BINARY, 65536)]
    return call, 1


def _encode(message: str | bytes, mask: bool = False) -> Case:
    """Make a case of an encoder that gathers many frames; an operation is a frame."""

    def prepare() -> tuple[Callable[[], object], int]:
        from wsfast._codec import Encoder

        encoder = Encoder(mask=mask)

        def call() -> None:
            for _ in repeat(None, BATCH):
                encoder.message(message)
            encoder.take()

        return call, BATCH

    return prepare


def _mask(size: int) -> Case:
    def prepare() -> tuple[Callable[[], object], int]:
        from wsfast._codec import apply_mask

        data = bytearray(_sized(BINARY, size))

        def call() -> None:
            for _ in repeat(None, BATCH):
                apply_mask(data, KEY, data)

        return call, BATCH

    return prepare


# --- The channel ------------------------------------------------------------------------------------------------------


class _Transport:
    """A transport that takes everything and keeps only the last."""

    last: Any = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        raise AssertionError("nothing here is more than a connection holds")


class _Host:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from wsfast.session import Limits
        from wsfast.transport.timers import CoarseTimer

        self.limits = Limits(ping_interval=None)
        self.logger = logging.getLogger("benchmarks.instructions")
        self.timer = CoarseTimer(loop)

    def _connection_opened(self, protocol: Any) -> None:
        pass

    def _connection_closed(self, protocol: Any) -> None:
        pass


def _open(loop: asyncio.AbstractEventLoop, count: int = 1) -> list[tuple[Any, Any, _Transport]]:
    """Make open connections of a server: protocol, what a handler holds, transport."""
    from wsfast.asyncio.protocol import ConnectionProtocol, turn_of
    from wsfast.asyncio.websocket import WebSocket
    from wsfast.connection import Side

    host = _Host(loop)
    made = []
    for _ in range(count):
        protocol, ws, transport = ConnectionProtocol(turn_of(loop)), WebSocket(), _Transport()
        protocol.open(host, Side.SERVER, ws, transport)  # type: ignore[arg-type]
        made.append((protocol, ws, transport))
    return made


def _echoing(
    loop: asyncio.AbstractEventLoop, use: Callable[[Any, Any], object], at_once: int = 1, drop_in: bool = False
) -> tuple[Callable[[], object], int]:
    """Make the call that lets a connection on a socket receive messages, so many at once, and answer.

    With `drop_in`, its handler holds a connection of `wsfast.websockets`.

    Each operation has the peer's `send` and `recv` in it, which are Python's own and the same each time.
    """
    from wsfast._codec import encode_frame
    from wsfast.asyncio.protocol import ConnectionProtocol, turn_of
    from wsfast.asyncio.websocket import WebSocket
    from wsfast.connection import Side
    from wsfast.transport.sockets import SocketTransport

    peer, sock = socket.socketpair()
    sock.setblocking(False)
    protocol, ws = ConnectionProtocol(turn_of(loop)), WebSocket()
    if drop_in:
        from wsfast.websockets.asyncio.connection import Connection
        from wsfast.websockets.server import ServerProtocol

        ws = Connection(ServerProtocol())
    transport: Any = SocketTransport(loop, sock, protocol)
    protocol.open(_Host(loop), Side.SERVER, ws, transport)
    use(protocol, ws)
    message = _sized(BINARY, 64)
    frames, answers = encode_frame(2, message, mask=KEY) * at_once, encode_frame(2, message) * at_once
    send, receive, ready, size = peer.send, peer.recv, transport._read_ready, len(answers)

    def call() -> None:
        for _ in repeat(None, BATCH // 2 // at_once):  # after 2,048 messages a handler would give the loop a turn
            send(frames)
            ready()
            receive(size)

    send(frames)
    ready()
    assert receive(size + 1) == answers
    return call, BATCH // 2 // at_once * at_once


def _echo_listener(at_once: int = 1) -> tuple[Callable[[], object], int]:
    from wsfast.asyncio.listener import Listener

    class Echo(Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    return _echoing(asyncio.new_event_loop(), lambda protocol, ws: protocol.use_listener(Echo(ws)), at_once)


def _echo_handler(at_once: int = 1, drop_in: bool = False) -> tuple[Callable[[], object], int]:
    loop = asyncio.new_event_loop()

    def use(protocol: Any, ws: Any) -> None:
        protocol.task = loop.create_task(_echo(ws))
        protocol.task._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))  # until it waits; from then on it is resumed by what is received

    return _echoing(loop, use, at_once, drop_in)


_OPENING = (
    b"GET / HTTP/1.1\r\nHost: localhost:8765\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _connection(handler: Callable[[Any], Any] | None) -> Case:
    """Make a case of a connection's whole life at a server: accepted, opened, one echo, closed by the peer.

    Each operation has the peer's calls and the loop's turns in it.
    """

    def prepare() -> tuple[Callable[[], object], int]:
        import wsfast
        from wsfast._codec import encode_frame

        class Echo(wsfast.Listener):
            def on_message(self, message: str | bytes) -> None:
                self.ws.send_nowait(message)

        loop = asyncio.new_event_loop()
        server = wsfast.Server(ping_interval=None)
        if handler is None:
            server.register_listener(None, Echo)
        else:
            server.register_handler(None, handler)
        loop.run_until_complete(server.start("127.0.0.1", 0))
        address = server.sockets[0].getsockname()
        message = _sized(BINARY, 64)
        frame, answer = encode_frame(2, message, mask=KEY), encode_frame(2, message)
        close, closed = encode_frame(8, b"\x03\xe8", mask=KEY), encode_frame(8, b"\x03\xe8")

        def turn() -> None:
            loop.call_soon(loop.stop)
            loop.run_forever()

        def call() -> None:
            for _ in repeat(None, 10):
                peer = socket.socket()
                peer.connect(address)
                peer.send(_OPENING)
                turn()
                turn()
                assert peer.recv(1000).startswith(b"HTTP/1.1 101 ")
                turn()  # until a handler waits
                peer.send(frame)
                turn()
                assert peer.recv(100) == answer
                peer.send(close)
                turn()
                turn()  # the Close goes out with the end of the stream
                assert peer.recv(100) == closed
                peer.close()
                turn()
                turn()

        call()
        assert not server.connections
        return call, 10

    return prepare


async def _echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def _echo_events(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event["bytes"]})


def _serve_asgi() -> tuple[Any, list[Any], Callable[[int], None]]:
    """Serve an ASGI application on a loop; return the address, the protocols that are made, and what runs turns."""
    from wsfast.asgi import BridgeProtocol, Host
    from wsfast.session import Limits

    loop = asyncio.new_event_loop()
    host = Host(_echo_events, Limits(ping_interval=None), loop, logging.getLogger("benchmarks.instructions"))
    protocols: list[Any] = []

    def make() -> Any:
        protocols.append(BridgeProtocol(host))
        return protocols[-1]

    def turns(count: int) -> None:
        for _ in repeat(None, count):
            loop.call_soon(loop.stop)
            loop.run_forever()

    server = loop.run_until_complete(loop.create_server(make, "127.0.0.1", 0))
    return server.sockets[0].getsockname(), protocols, turns


def _open_asgi(address: Any, turns: Callable[[int], None]) -> socket.socket:
    peer = socket.socket()
    peer.connect(address)
    peer.send(_OPENING)
    turns(6)
    assert peer.recv(1000).startswith(b"HTTP/1.1 101 ")
    return peer


def _echo_asgi(at_once: int) -> Case:
    def prepare() -> tuple[Callable[[], object], int]:
        from wsfast._codec import encode_frame

        address, protocols, turns = _serve_asgi()
        peer = _open_asgi(address, turns)
        message = _sized(BINARY, 64)
        frames, answers = encode_frame(2, message, mask=KEY) * at_once, encode_frame(2, message) * at_once
        for _ in range(4):  # with the third read the connection goes on on wsfast's own transport
            peer.send(frames)
            turns(3)
            assert peer.recv(len(answers) + 1) == answers
        send, receive, ready, size = peer.send, peer.recv, protocols[0].transport._read_ready, len(answers)

        def call() -> None:
            for _ in repeat(None, BATCH // 2 // at_once):
                send(frames)
                ready()
                receive(size)

        return call, BATCH // 2

    return prepare


def _connection_asgi() -> tuple[Callable[[], object], int]:
    from wsfast._codec import encode_frame

    address, protocols, turns = _serve_asgi()
    message = _sized(BINARY, 64)
    frame, answer = encode_frame(2, message, mask=KEY), encode_frame(2, message)
    close, closed = encode_frame(8, b"\x03\xe8", mask=KEY), encode_frame(8, b"\x03\xe8")

    def call() -> None:
        for _ in repeat(None, 10):
            peer = _open_asgi(address, turns)
            peer.send(frame)
            turns(3)
            assert peer.recv(100) == answer
            peer.send(close)
            turns(3)
            assert peer.recv(100) == closed
            peer.close()
            protocols.clear()

    return call, 10


def _broadcast() -> tuple[Callable[[], object], int]:
    loop = asyncio.new_event_loop()
    opened = _open(loop, BATCH)
    last = opened[-1][2]
    call = _broadcasting([ws for _, ws, _ in opened], opened[0][0].turn)
    assert last.last[2:] == _sized(BINARY, 64)
    return call, BATCH


def _broadcast_on_sockets() -> tuple[Callable[[], object], int]:
    """Make a broadcast to sockets whose peers read nothing: each has room for all that is sent here."""
    from wsfast.asyncio.protocol import ConnectionProtocol, turn_of
    from wsfast.asyncio.websocket import WebSocket
    from wsfast.connection import Side
    from wsfast.transport.sockets import SocketTransport

    loop = asyncio.new_event_loop()
    host = _Host(loop)
    everyone, protocols = [], []
    for _ in range(BATCH):
        peer, sock = socket.socketpair()
        _peers.append(peer)
        protocol, ws = ConnectionProtocol(turn_of(loop)), WebSocket()
        transport: Any = SocketTransport(loop, sock, protocol)
        protocol.open(host, Side.SERVER, ws, transport)
        everyone.append(ws)
        protocols.append(protocol)
    call = _broadcasting(everyone, protocols[0].turn)
    assert _peers[-1].recv(100)[2:] == _sized(BINARY, 64)
    return call, BATCH


_peers: list[socket.socket] = []


def _broadcasting(everyone: list[Any], turn: Any) -> Callable[[], object]:
    from wsfast.asyncio.broadcast import broadcast

    message = _sized(BINARY, 64)
    everyone_sent = everyone[-1]._channel

    def call() -> None:
        before = everyone_sent.bytes_sent
        broadcast(everyone, message)
        while everyone_sent.bytes_sent == before:  # the end of a turn is cut into slices of time
            turn._run()

    call()
    return call


# --- Topics and buses -------------------------------------------------------------------------------------------------


class _Sink:
    """A connection that takes all that topics send it."""

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        return True


_members: list[Any] = []


def _in_loop(run: Callable[[], object]) -> Callable[[], object]:
    """Make a call that calls a function on the event loop, and gives the loop a turn."""
    loop = asyncio.get_event_loop_policy().get_event_loop()

    async def once() -> None:
        run()
        await asyncio.sleep(0)

    return lambda: loop.run_until_complete(once())


def _started(bus: Any = None) -> Any:
    """Return topics that run on the event loop of `_in_loop`."""
    import wsfast

    asyncio.set_event_loop(asyncio.new_event_loop())
    topics = wsfast.Topics(bus)
    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(topics.start())
    return topics


def _publish(members: int, bus: bool) -> Case:
    """Make a case of a publish, many in a turn, to a number of members and to a bus that takes all."""

    def prepare() -> tuple[Callable[[], object], int]:
        from wsfast.bus import MemoryBus
        from wsfast.topics.index import Member
        from wsfast.topics.topics import hub_of

        topics = _started(MemoryBus() if bus else None)
        index = hub_of(topics).index
        for _ in range(members):
            _members.append(Member(index, _Sink()))  # which the index does not keep
            index.subscribe(_members[-1], "room")
        message = _sized(BINARY, 64)

        def run() -> None:
            publish = topics.publish
            for _ in repeat(None, BATCH):
                publish("room", message)

        call = _in_loop(run)
        call()
        assert topics.counters["deliveries"] == BATCH * members
        return call, BATCH

    return prepare


def _from_the_bus() -> tuple[Callable[[], object], int]:
    """Messages of another process to a topic with one member."""
    from wsfast.bus import MemoryBus
    from wsfast.topics.index import Member
    from wsfast.topics.rules import Rule
    from wsfast.topics.topics import hub_of

    topics = _started(MemoryBus())
    hub = hub_of(topics)
    _members.append(Member(hub.index, _Sink()))
    hub.index.subscribe(_members[-1], "room")
    hub.join("room", Rule())
    message, number, seal, received = _sized(BINARY, 64), 0, hub._sealer.seal, hub.received

    def prepared() -> list[bytes]:
        nonlocal number
        number += BATCH
        return [
            seal("room", 1, one, message, text=False, first=False, key=None)
            for one in range(number - BATCH, number)
            if one
        ]

    waiting = [prepared() for _ in range(5 * COUNT + 2)]

    def run() -> None:
        for data in waiting.pop():
            received("room", data, None)

    waiting.reverse()
    call = _in_loop(run)
    call()
    assert topics.counters["deliveries"] == BATCH - 1
    return call, BATCH


def _local_publish() -> tuple[Callable[[], object], int]:
    from wsfast.bus import LocalBus
    from wsfast.bus.local import _Peer

    bus: Any = LocalBus("unused")
    asyncio.set_event_loop(asyncio.new_event_loop())
    bus._loop = asyncio.get_event_loop_policy().get_event_loop()
    peers = [_Peer(bus, origin) for origin in (1, 2)]
    transport: Any = _Transport()
    for peer in peers:
        peer.transport = transport
    bus._interested["room"] = peers
    message = _sized(BINARY, 64)

    def run() -> None:
        publish = bus.publish
        for _ in repeat(None, 50):
            publish("room", message)

    call = _in_loop(run)
    call()
    assert len(transport.last) == 50 * (6 + 4 + 64)
    return call, 50


class _Received:
    """What a bus calls."""

    count = 0

    def received(self, topic: str, data: bytes, position: Any) -> None:
        self.count += 1


def _local_receive() -> tuple[Callable[[], object], int]:
    from wsfast.bus import LocalBus, _frames_py, local

    bus: Any = LocalBus("unused")
    bus._receiver = receiver = _Received()
    bus._topics[b"room"] = "room"
    stream = local._Stream(bus)
    stream.origin = 1
    data = _frames_py.make(_frames_py.MESSAGE, "room", _sized(BINARY, 64)) * 50
    stream.data_received(data)
    assert receiver.count == 50
    return partial(stream.data_received, data), 50


def _redis_node() -> Any:
    """Return a node of a `RedisBus` that is connected to something that takes all."""
    from wsfast.bus.redis import RedisBus, _Link, _Node

    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = asyncio.get_event_loop_policy().get_event_loop()

    async def make() -> Any:
        bus: Any = RedisBus()
        bus._receiver = _Received()
        bus._loop = loop
        node = bus._nodes[""] = _Node(bus, None)
        node.task.cancel()
        node._command, node._subscriber = _Link(node._replied, node._link_lost), _Link(node._pushed, node._link_lost)
        for link in (node._command, node._subscriber):
            link.transport = _Transport()  # type: ignore[assignment]
            link._time = loop.time
        node.up = True
        return node

    return loop.run_until_complete(make())


def _redis_publish() -> tuple[Callable[[], object], int]:
    node = _redis_node()
    message, answers, bus = _sized(BINARY, 64), b":2\r\n" * 50, node._bus

    def run() -> None:
        publish = bus.publish
        for _ in repeat(None, 50):
            publish("room", message)
        node.pump()
        node._command.data_received(answers)

    call = _in_loop(run)
    call()
    assert node._command.transport.last.count(b"PUBLISH") == 50
    assert (len(node.outbox), node.outbox.unconfirmed, node.outbox.bytes) == (0, 0, 0)
    return call, 50


def _redis_receive() -> tuple[Callable[[], object], int]:
    node = _redis_node()
    bus = node._bus
    bus._names[bus.channel("room")] = "room"
    message = b"m" + _sized(BINARY, 64)
    channel = bus.channel("room")
    one = b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(message), message)
    data, receive = one * 50, node._subscriber.data_received
    receive(data)
    assert bus._receiver.count == 50
    return partial(receive, data), 50


CASES: dict[str, Case] = {
    "decode 64 B binary": _decode(_sized(BINARY, 64)),
    "decode 64 B binary, each by itself": _decode_alone,
    "decode 16 B ASCII": _decode(ASCII[:16]),
    "decode 256 characters, non-ASCII": _decode((OTHER * 8)[:256]),
    "decode 16 KiB binary": _decode(_sized(BINARY, 16384)),
    "decode 1 KiB fragments": _decode(_sized(BINARY, 1024), parts=64),
    "receive 64 KiB in place": _receive_in_place,
    "encode 64 B binary": _encode(_sized(BINARY, 64)),
    "encode 64 B binary, masked": _encode(_sized(BINARY, 64), mask=True),
    "encode 256 characters, non-ASCII": _encode((OTHER * 8)[:256]),
    "apply_mask 64 B": _mask(64),
    "apply_mask 64 KiB": _mask(65536),
    "echo 64 B by a listener, on a socket": _echo_listener,
    "echo 64 B by a handler, on a socket": _echo_handler,
    "echo 64 B by a listener, 50 at once": partial(_echo_listener, at_once=50),
    "echo 64 B by a handler, 50 at once": partial(_echo_handler, at_once=50),
    "echo 64 B by a handler of wsfast.websockets, on a socket": partial(_echo_handler, drop_in=True),
    "connection with one echo by a listener": _connection(None),
    "connection with one echo by a handler": _connection(_echo),
    "echo 64 B by an ASGI application, on a socket": _echo_asgi(1),
    "echo 64 B by an ASGI application, 50 at once": _echo_asgi(50),
    "connection with one echo by an ASGI application": _connection_asgi,
    "broadcast 64 B, each delivery": _broadcast,
    "broadcast 64 B, each delivery, on a socket": _broadcast_on_sockets,
    "publish 64 B, no subscriber, no bus": _publish(0, bus=False),
    "publish 64 B, one subscriber, no bus": _publish(1, bus=False),
    "publish 64 B, no subscriber, sealed for a bus": _publish(0, bus=True),
    "receive 64 B from a bus, one subscriber": _from_the_bus,
    "LocalBus: publish 64 B to two processes, 50 at once": _local_publish,
    "LocalBus: receive 64 B, 50 at once": _local_receive,
    "RedisBus: publish 64 B, 50 at once": _redis_publish,
    "RedisBus: receive 64 B, 50 at once": _redis_receive,
}
"""By name; what an operation is, the name says."""


def run(names: Iterable[str]) -> None:
    """Run cases between marks, and print how many operations each call did."""
    gc.disable()
    mark = os.getppid
    for name in names:
        call, operations = CASES[name]()
        for _ in repeat(None, 2 * COUNT):
            call()  # the interpreter adapts its instructions to what it sees, and memory is got and kept
        mark()
        for _ in repeat(None, COUNT):
            call()
        mark()
        for _ in repeat(None, 2 * COUNT):
            call()
        mark()
        print(operations, name, flush=True)


if __name__ == "__main__":
    run(CASES)
