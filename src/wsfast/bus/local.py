"""A bus for the processes of one host: Unix streams from each to each, and no engine.

The processes meet in a directory, in which each has a socket. Each opens a stream to every other, on which it sends; on
those that others opened it receives. It tells them what it subscribed to, so that they send it nothing else. The end of
a stream is the end of a process.

Histories are kept in memory by one of the processes, which holds a lock on a file in the directory: the keeper. All
that is stored goes through it, so that there is one order. When it ends, another takes the lock and begins anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import tempfile
import weakref
from bisect import insort
from collections.abc import Awaitable, Callable
from operator import attrgetter
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from .._built import IMPLEMENTATION, unusable
from ..exceptions import BusUnavailable
from ..options import named_options
from ..transport.sockets import begin_transport
from .interface import Bus, Position, Reading, Receiver, Stored
from .lost import DOWN_BYTES, UP_BYTES
from .memory import Taken
from .outbox import Outbox, given_up
from .store import Store

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._frames_py import HEAD_SIZE, MAX_FRAME, MESSAGE, make, take
else:
    try:
        from ._frames import HEAD_SIZE, MAX_FRAME, MESSAGE, make, take
    except Exception as exc:
        raise unusable("wsfast.bus._frames", exc) from exc

if sys.platform != "win32":  # pragma: no branch - the tests run on Linux
    import fcntl

__all__ = ["BUS_DIRECTORY", "LocalBus"]

BUS_DIRECTORY: Final = "WSFAST_BUS_DIRECTORY"
"""The variable of the environment by which workers of `wsfast.run` learn where they meet."""

_VERSION: Final = 1
_HEAD: Final = Struct("<IBB")  # bytes that follow these six, what it is, bytes of the topic
_HELLO: Final = Struct("<BQ")  # version, origin
_STORE: Final = Struct("<QId")  # id, size, ttl
_PLACE: Final = Struct("<QQ")  # epoch, offset
_READ: Final = Struct("<QBQQI")  # id, whether there is a place, the place, limit
_READING: Final = Struct("<QBQQI")  # id, complete, the place of the newest, how many follow
_ID: Final = Struct("<Q")
_LENGTH: Final = Struct("<I")

# What a frame is, besides `MESSAGE`:
_F_HELLO: Final = 1
_F_KEEPER: Final = 2
_F_SUBSCRIBE: Final = 3
_F_UNSUBSCRIBE: Final = 4
_F_SYNC: Final = 6
_F_SYNCED: Final = 7
_F_STORE: Final = 8
_F_STORED: Final = 9
_F_HISTORY: Final = 10
_F_READ: Final = 11
_F_READING: Final = 12
_F_MISSED: Final = 13

_PAGE: Final = 16_777_216
"""Bytes of messages from which on no more are put into one frame."""
_MAX_MESSAGE: Final = MAX_FRAME - _PAGE - 65_536
"""Bytes of one message: a frame has some more, and one of a history's reading may begin with other messages."""
_MAX_TTL: Final = 1e9
_MAX_UNSENT: Final = 16_777_216
"""Bytes that may wait for a process that does not read; beyond it, that process misses messages and is told so."""
_BACKLOG: Final = 4096
"""Processes that may wait for one that hangs, to be met: more than `wsfast.run` starts."""
_BATCH: Final = 256
_TICK: Final = 0.25
_PATIENCE: Final = 5.0
"""Seconds within which another process must answer a request."""
_PING: Final = 1.0
_SILENCE: Final = 2.4
"""Seconds of silence after which a process hangs; it is looked at each quarter of a second."""
_origin: Final = attrgetter("origin")
_NOBODY_ASKED: Final = 0
"""The id of a question whose answer is a sign of life only."""


def _epoch_text(epoch: int) -> str:
    return f"{epoch:016x}"


def _epoch_number(epoch: str) -> int:
    """Return an epoch's number; 0, which none has, for what is not one of these."""
    try:
        return int(epoch, 16) if len(epoch) == 16 else 0
    except ValueError:
        return 0


class _Stream(asyncio.Protocol):
    """A stream that another process opened, to send on."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus
        self._rest = bytearray()
        self._needed = 0  # bytes of `_rest` from which on there is a whole frame
        self.origin = 0
        self.heard = False  # something came since the last tick
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._bus._streams.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
        self._needed = 0
        bus = self._bus
        received = None
        if self.origin and bus._receiver is not None and not bus._closed:
            received = bus._receiver.received
        try:
            at = take(data, bus._topics, received, self._handle)
            self._rest = bytearray(data[at:])
            if len(self._rest) >= HEAD_SIZE:
                size, kind, _ = _HEAD.unpack_from(self._rest)
                if not self.origin:
                    self._check_greeting(kind, size)
                self._needed = HEAD_SIZE + size
        except Exception as exc:
            self._rest = bytearray()
            bus._complain(exc)
            assert self.transport is not None
            self.transport.abort()

    def _handle(self, kind: int, name: bytes, body: bytes) -> None:
        if not self.origin:
            self._check_greeting(kind, len(name) + len(body))
        self._bus._handle(self, kind, name.decode("ascii"), body)

    @staticmethod
    def _check_greeting(kind: int, size: int) -> None:
        if kind != _F_HELLO or size != _HELLO.size:
            raise ValueError("no greeting")

    def connection_lost(self, exc: Exception | None) -> None:
        self._bus._streams.discard(self)
        self._rest = bytearray()
        self._bus._stream_ended(self)


class _Peer(asyncio.Protocol):
    """Another process, and the stream on which this one sends to it."""

    def __init__(self, bus: LocalBus, origin: int) -> None:
        self._bus = bus
        self.origin = origin
        self.topics: set[str] = set()
        self.out: list[bytes] = []
        self.lost = 0  # messages that it missed
        self.told_lost = 0  # how many of them it knows of
        self.transport: asyncio.Transport | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.stuck = False
        self.later: dict[str | int, bytes] = {}  # what it is told once it is not stuck any more, by what it is about
        self.heard = bus._loop.time()
        self.hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        transport.set_write_buffer_limits(_MAX_UNSENT, 0)  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        later, self.later = self.later, {}
        for frame in later.values():
            self.send(frame)
        if self.lost != self.told_lost:
            self.told_lost = self.lost
            self.send(make(_F_MISSED, "", b""))

    def tell(self, about: str | int, frame: bytes) -> None:
        """Queue a frame; while it is stuck, of what is about the same only what it does not know already."""
        if not self.stuck:
            self.send(frame)
        elif isinstance(about, int) or self.later.pop(about, None) is None:
            self.later[about] = frame  # else it takes back what it was not told yet

    def send(self, frame: bytes, *, may_miss: bool = False) -> None:
        """Queue a frame until the end of the turn; `may_miss` drops it where too much waits already."""
        bus = self._bus
        if bus._gathered:
            bus._share_out()
        if may_miss and self.stuck:
            self.lost += 1
            return
        self.out.append(frame)
        if len(self.out) == 1:
            bus._dirty(self)

    def flush(self) -> None:
        if self.transport is not None and self.out:
            out, self.out = self.out, []
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._bus._peer_ended(self)


_running: Final[weakref.WeakSet[LocalBus]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """Give up, in a child that was forked, what would keep this process alive for the others when it has ended.

    A child has copies of all descriptors: of the streams, of the socket that others connect to, and of the lock. Each
    copy is replaced, not closed, because objects that the child has as well go on to use its number.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for bus in list(_running):
        for fd in bus._descriptors():
            os.dup2(null, fd, inheritable=False)
        bus._closed = True
    _running.clear()
    os.close(null)


if hasattr(os, "register_at_fork"):  # pragma: no branch - the tests run on Linux
    os.register_at_fork(after_in_child=_let_go_in_child)


class LocalBus(Bus):
    """Carries messages between the processes of one host.

    Args:
        directory: where they meet; it is made if it is not there. It must belong to this user and be closed to others.
            Default: what `wsfast.run` chose for its workers; without it a new one, in which a process is alone.
        max_history: the most bytes of memory that all histories take together. Default: 256 MiB.

    Raises:
        NotImplementedError: the platform has no Unix sockets.
    """

    @named_options("LocalBus()")
    def __init__(self, directory: str | os.PathLike[str] | None = None, *, max_history: int = 268_435_456) -> None:
        if sys.platform == "win32":  # pragma: no cover - the tests run on Linux
            raise NotImplementedError("LocalBus needs Unix sockets")
        if directory is not None and not isinstance(directory, (str, os.PathLike)):
            raise TypeError(f"directory must be a path or None, got {type(directory).__name__}")
        given = os.environ.get(BUS_DIRECTORY) if directory is None else os.fspath(directory)
        self._given = given
        self._max_history = max_history
        self._receiver: Receiver | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._topics: dict[bytes, str] = {}  # that are subscribed to, by their names in frames
        self._interested: dict[str, list[_Peer]] = {}  # ordered by origin, so that the same have equal lists
        self._peers: dict[int, _Peer] = {}
        self._streams: set[_Stream] = set()
        self._waiting_dirty: list[_Peer] = []
        self._flushing = False  # at the end of this turn
        self._together: list[_Peer] | None = None  # a list in `_interested`: those whom `_gathered` is for
        self._gathered: list[bytes] = []  # messages published one behind the other, which go to all of `_together`
        self._origin = 0
        self._server: asyncio.AbstractServer | None = None
        self._path: Path | None = None
        self._lock = -1
        self._store: Store | None = None  # of the keeper
        self._keeper: int | None = None  # the origin of the keeper, if it is known
        self._epoch = 0  # of the keeper
        self._last_epoch = 0
        self._outbox = Outbox(max_bytes=DOWN_BYTES)
        self._outbox.why = "no process keeps the histories yet"
        self._pumping = False
        self._ticking: asyncio.TimerHandle | None = None
        self._ticked = self._pinged = 0.0
        self._ids = _NOBODY_ASKED
        self._syncs: dict[int, tuple[asyncio.Future[None], set[int]]] = {}
        self._reads: dict[int, asyncio.Future[Reading]] = {}
        self._reconnects = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    # --- Life -----------------------------------------------------------------------------------------------

    async def start(self, receiver: Receiver, origin: int) -> None:
        """Meet the others."""
        if self._receiver is not None:
            raise RuntimeError("the bus runs already")
        self._loop = asyncio.get_running_loop()
        if self._given is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="wsfast-bus-")
            directory = Path(self._temporary.name)
        else:
            directory = Path(self._given)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.stat()
        if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise PermissionError(f"{directory} must belong to this user and be closed to others (chmod 700)")
        self._receiver = receiver
        self._origin = origin
        self._path = directory / f"{origin:016x}.sock"
        try:
            self._server = await self._loop.create_unix_server(lambda: _Stream(self), self._path, backlog=_BACKLOG)
        except Exception:  # the path is too long, or cannot be written to
            self._receiver = None
            raise
        _running.add(self)
        self._lock = os.open(directory / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._try_keeping()
        for name in os.listdir(directory):
            stem, dot, ending = name.partition(".")
            if dot and ending == "sock" and len(stem) == 16:
                other = int(stem, 16)
                if other != origin:
                    self._meet(other)
        waiting = [peer.connecting for peer in self._peers.values() if peer.connecting is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=_PATIENCE)
        self._outbox.begin(self._loop)
        self._ticked = self._loop.time()
        self._ticking = self._loop.call_later(_TICK, self._tick)

    async def close(self) -> None:
        """Send what was taken, and end."""
        if self._receiver is None or self._closed:
            return
        deadline = self._loop.time() + 1
        while (len(self._outbox) or self._outbox.unconfirmed) and self._loop.time() < deadline:
            self._pump()
            await asyncio.sleep(0.005)
        self._closed = True
        _running.discard(self)
        self._share_out()
        self._topics.clear()
        self._outbox.end("the bus was closed")
        if self._ticking is not None:
            self._ticking.cancel()
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for peer in list(self._peers.values()):
            if peer.connecting is not None:
                peer.connecting.cancel()
            peer.flush()
            if peer.transport is not None:
                peer.transport.close()
        for stream in list(self._streams):
            if stream.transport is not None:
                stream.transport.close()
        error = BusUnavailable("the bus was closed")
        waiters: list[asyncio.Future[Any]] = [future for future, _ in self._syncs.values()]
        for future in (*waiters, *self._reads.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()
        while (self._streams or any(peer.transport for peer in self._peers.values())) and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for peer in list(self._peers.values()):
            if peer.transport is not None:
                peer.transport.abort()
        os.close(self._lock)  # which gives the lock back
        self._store = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def _descriptors(self) -> list[int]:
        """Return those that others take for signs of life."""
        protocols: list[_Stream | _Peer] = [*self._streams, *self._peers.values()]
        sockets = [one.transport.get_extra_info("socket") for one in protocols if one.transport is not None]
        listening = getattr(self._server, "sockets", ())
        return [fd for fd in (self._lock, *(one.fileno() for one in (*sockets, *listening))) if fd >= 0]

    def _complain(self, exc: Exception) -> None:
        assert self._receiver is not None
        self._loop.call_exception_handler({"message": "a process on the local bus talks nonsense", "exception": exc})

    def _tick(self) -> None:
        now = self._loop.time()
        self._ticking = self._loop.call_later(_TICK, self._tick)
        if self._store is not None:
            self._store.sweep(now)
        elif self._keeper is None:
            self._try_keeping()
        self._look_for_life(now)
        self._pump()

    def _look_for_life(self, now: float) -> None:
        """Find out which processes hang, or go on after all."""
        late, self._ticked = now - self._ticked > 4 * _TICK, now
        for stream in self._streams:
            if stream.heard:
                stream.heard = False
                peer = self._peers.get(stream.origin)
                if peer is not None:
                    peer.heard = now
        ping, self._pinged = (True, now) if now - self._pinged >= _PING else (False, self._pinged)
        for peer in self._peers.values():
            if late:
                peer.heard = now  # this process was held up itself: what was sent to it may be unread still
            hangs = now - peer.heard > _SILENCE
            if hangs != peer.hangs:
                peer.hangs = hangs
                if hangs:
                    self._settled_by(peer.origin)
                if peer.origin == self._keeper:
                    assert self._receiver is not None
                    why = f"the process that keeps the histories {'hangs' if hangs else 'answers again'}"
                    self._outbox.why = why if hangs else ""
                    self._receiver.state_changed(not hangs, why)
            if ping and now - peer.heard >= _PING:
                peer.tell(_NOBODY_ASKED, make(_F_SYNC, "", _ID.pack(_NOBODY_ASKED)))

    # --- Others ---------------------------------------------------------------------------------------------

    def _meet(self, origin: int) -> None:
        """Open a stream to another process, unless there is one."""
        if origin in self._peers or origin == self._origin or self._closed:
            return
        peer = self._peers[origin] = _Peer(self, origin)
        peer.send(make(_F_HELLO, "", _HELLO.pack(_VERSION, self._origin)))
        if self._store is not None:
            peer.send(make(_F_KEEPER, "", _ID.pack(self._epoch)))
        for topic in self._topics.values():
            peer.send(make(_F_SUBSCRIBE, topic, b""))
        peer.connecting = self._loop.create_task(self._connect(peer))

    async def _connect(self, peer: _Peer) -> None:
        assert self._path is not None
        path = self._path.with_name(f"{peer.origin:016x}.sock")
        try:
            await self._open_stream(peer, str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # of a process that was killed
            self._peer_ended(peer)
        except OSError:
            self._peer_ended(peer)
        else:
            peer.flush()
        finally:
            peer.connecting = None

    async def _open_stream(self, peer: _Peer, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, path)
            await begin_transport(lambda: peer, sock)  # which writes at once, and with less ado than the loop's own
        except BaseException:
            sock.close()
            raise

    def _dirty(self, peer: _Peer) -> None:
        """Note that a process has something to be sent, which it had not before."""
        self._waiting_dirty.append(peer)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        gathered, together = self._gathered, self._together
        self._together = None
        if gathered and together is not None:
            # As `_share_out` does, but for whom nothing else waits, it is written at once.
            self._gathered = []
            frames = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            for peer in together:
                transport = peer.transport
                if peer.stuck:
                    peer.lost += len(gathered)
                elif peer.out or transport is None:
                    peer.out.append(frames)
                else:
                    transport.write(frames)
        if self._waiting_dirty:
            peers, self._waiting_dirty = self._waiting_dirty, []
            for peer in peers:
                peer.flush()

    def _share_out(self) -> None:
        """Queue what was published for those whom it was gathered for."""
        gathered, peers = self._gathered, self._together
        self._together = None
        if not gathered or peers is None:
            return
        self._gathered = []
        frames = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        for peer in peers:
            if peer.stuck:
                peer.lost += len(gathered)
                continue
            peer.out.append(frames)
            if len(peer.out) == 1:
                self._dirty(peer)

    def _peer_ended(self, peer: _Peer) -> None:
        if self._peers.get(peer.origin) is not peer:
            return
        del self._peers[peer.origin]
        for topic in peer.topics:
            self._lose_interest(peer, topic)
        self._settled_by(peer.origin)
        if self._keeper == peer.origin:
            self._keeper_ended()

    def _settled_by(self, origin: int) -> None:
        """Wait no more for a process that has ended, or hangs."""
        for future, missing in list(self._syncs.values()):
            missing.discard(origin)
            if not missing and not future.done():
                future.set_result(None)

    def _stream_ended(self, stream: _Stream) -> None:
        if not stream.origin or self._closed:
            return
        if any(other.origin == stream.origin for other in self._streams):
            return
        peer = self._peers.get(stream.origin)
        if peer is not None:
            if peer.transport is not None:
                peer.transport.abort()
            self._peer_ended(peer)
        assert self._receiver is not None
        self._receiver.process_ended(stream.origin)

    def _lose_interest(self, peer: _Peer, topic: str) -> None:
        self._share_out()
        peers = self._interested.get(topic)
        if peers is not None and peer in peers:
            peers.remove(peer)
            if not peers:
                del self._interested[topic]

    # --- The keeper -----------------------------------------------------------------------------------------

    def _keeper_peer(self) -> _Peer | None:
        """Return the keeper, if it is known and another process."""
        return None if self._keeper is None else self._peers.get(self._keeper)

    def _try_keeping(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        self._store = Store(self._max_history)
        frame = make(_F_KEEPER, "", _ID.pack(int(self._store.life, 16)))
        for peer in self._peers.values():
            peer.send(frame)
        self._keeper_is(self._origin, int(self._store.life, 16))

    def _keeper_is(self, origin: int, epoch: int) -> None:
        assert self._receiver is not None
        if self._keeper == origin and self._epoch == epoch:
            return
        if self._keeper is not None:
            self._keeper_ended()
        self._keeper = origin
        self._epoch = epoch
        self._outbox.max_bytes = UP_BYTES
        self._outbox.why = ""
        if self._last_epoch not in (0, epoch):
            self._reconnects += 1
            self._outbox.lost_history(self._loop.time())
        self._last_epoch = epoch
        self._receiver.state_changed(True, "histories are kept here" if origin == self._origin else "met the others")
        self._pump()

    def _keeper_ended(self) -> None:
        self._keeper = None
        self._outbox.max_bytes = DOWN_BYTES
        self._outbox.why = why = "the process that keeps the histories has ended"
        self._outbox.interrupted(why)
        error = BusUnavailable(why)
        for future in self._reads.values():
            if not future.done():
                future.set_exception(error)
        self._reads.clear()
        if self._receiver is not None and not self._closed:
            self._receiver.state_changed(False, why)
            self._loop.call_soon(self._tick_keeping)

    def _tick_keeping(self) -> None:
        if self._keeper is None and not self._closed:
            self._try_keeping()

    # --- What others send -----------------------------------------------------------------------------------

    def _handle(self, stream: _Stream, kind: int, topic: str, body: bytes) -> None:
        if self._receiver is None or self._closed:
            return
        if kind in _OF_STREAM:
            _OF_STREAM[kind](self, stream, topic, body)
        elif kind in _OF_PEER:
            peer = self._peers.get(stream.origin)
            if peer is not None:  # else its end is known already
                _OF_PEER[kind](self, peer, topic, body)
        else:
            raise ValueError(f"an unknown frame, {kind}")

    def _take_greeting(self, stream: _Stream, topic: str, body: bytes) -> None:
        version, origin = _HELLO.unpack(body)
        if version != _VERSION:
            raise ValueError(f"version {version} of the local bus, not {_VERSION}")
        if stream.origin or not origin or origin == self._origin:
            raise ValueError("a second greeting, or one of this process itself")
        stream.origin = origin
        self._meet(origin)

    def _take_message(self, stream: _Stream, topic: str, body: bytes) -> None:
        """Take a message that came together with the greeting; `take` delivers the others."""
        assert self._receiver is not None
        if topic.encode() in self._topics:
            self._receiver.received(topic, body, None)

    def _take_history(self, stream: _Stream, topic: str, body: bytes) -> None:
        """Take a message of a topic with history, from its keeper."""
        assert self._receiver is not None
        epoch, offset = _PLACE.unpack_from(body)
        if topic.encode() in self._topics:
            self._receiver.received(topic, body[_PLACE.size :], Position(_epoch_text(epoch), offset))

    def _take_stored(self, stream: _Stream, topic: str, body: bytes) -> None:
        id_, epoch, offset = _ID.unpack_from(body)[0], *_PLACE.unpack_from(body, _ID.size)
        self._confirmed(id_, Position(_epoch_text(epoch), offset))

    def _take_keeper(self, stream: _Stream, topic: str, body: bytes) -> None:
        self._keeper_is(stream.origin, _ID.unpack(body)[0])

    def _take_synced(self, stream: _Stream, topic: str, body: bytes) -> None:
        waiting = self._syncs.get(_ID.unpack(body)[0])
        if waiting is not None:
            waiting[1].discard(stream.origin)
            if not waiting[1] and not waiting[0].done():
                waiting[0].set_result(None)

    def _take_missed(self, stream: _Stream, topic: str, body: bytes) -> None:
        assert self._receiver is not None
        self._receiver.missed(list(self._topics.values()))

    def _take_reading(self, stream: _Stream, topic: str, body: bytes) -> None:
        id_, complete, epoch, newest, count = _READING.unpack_from(body)
        future = self._reads.pop(id_, None)
        if future is None or future.done():
            return
        text = _epoch_text(epoch)
        at = _READING.size
        messages = []
        for _ in range(count):
            (offset,) = _ID.unpack_from(body, at)
            (size,) = _LENGTH.unpack_from(body, at + _ID.size)
            at += _ID.size + _LENGTH.size
            messages.append(Stored(Position(text, offset), body[at : at + size]))
            at += size
        if at != len(body):
            raise ValueError("a history that is cut off")
        future.set_result(Reading(Position(text, newest), messages, bool(complete)))

    def _take_subscribe(self, peer: _Peer, topic: str, body: bytes) -> None:
        if topic not in peer.topics:
            self._share_out()
            peer.topics.add(topic)
            insort(self._interested.setdefault(topic, []), peer, key=_origin)

    def _take_unsubscribe(self, peer: _Peer, topic: str, body: bytes) -> None:
        peer.topics.discard(topic)
        self._lose_interest(peer, topic)

    def _take_sync(self, peer: _Peer, topic: str, body: bytes) -> None:
        peer.send(make(_F_SYNCED, "", body))

    def _take_store(self, peer: _Peer, topic: str, body: bytes) -> None:
        id_, size, ttl = _STORE.unpack_from(body)
        if not (size and 0 < ttl < _MAX_TTL):
            raise ValueError(f"a history of {size} messages for {ttl} s")
        position = self._keep(topic, body[_STORE.size :], size, ttl)
        if position is not None:
            place = _PLACE.pack(_epoch_number(position.epoch), position.offset)
            peer.send(make(_F_STORED, "", _ID.pack(id_) + place))

    def _take_read(self, peer: _Peer, topic: str, body: bytes) -> None:
        """Answer with what the history holds, as much as fits into one frame."""
        id_, placed, epoch, offset, limit = _READ.unpack(body)
        if self._store is None:
            return
        after = Position(_epoch_text(epoch), offset) if placed else None
        reading = self._store.read(topic, after, limit, self._loop.time())
        parts = [b""]
        count = total = 0
        for message in reading.messages:
            parts += (_ID.pack(message.position.offset), _LENGTH.pack(len(message.data)), message.data)
            count += 1
            total += len(message.data)
            if total > _PAGE:
                break
        newest = _epoch_number(reading.position.epoch), reading.position.offset
        parts[0] = _READING.pack(id_, reading.complete, *newest, count)
        peer.send(make(_F_READING, "", b"".join(parts)), may_miss=True)

    # --- Subscribing and publishing -------------------------------------------------------------------------

    def subscribe(self, topic: str) -> None:
        """Ask for the messages of a topic."""
        name = topic.encode()
        if name not in self._topics:
            self._topics[name] = topic
            self._tell_all(topic, _F_SUBSCRIBE)

    def unsubscribe(self, topic: str) -> None:
        """Stop asking for the messages of a topic."""
        if self._topics.pop(topic.encode(), None) is not None:
            self._tell_all(topic, _F_UNSUBSCRIBE)

    def _tell_all(self, topic: str, kind: int) -> None:
        frame = make(kind, topic, b"")
        for peer in self._peers.values():
            peer.tell(topic, frame)

    async def settled(self) -> None:
        """Wait until the others know what was subscribed to; those that hang will, when they go on."""
        keeper = self._keeper_peer()
        if keeper is not None and keeper.hangs:
            raise BusUnavailable("the process that keeps the histories hangs")
        waited_for = {origin for origin, peer in self._peers.items() if not peer.hangs}
        if not waited_for:
            return
        self._ids += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._syncs[self._ids] = (future, waited_for)
        id_ = self._ids
        frame = make(_F_SYNC, "", _ID.pack(id_))
        asked = [self._peers[origin] for origin in waited_for]
        for peer in asked:
            peer.tell(id_, frame)
        try:
            async with asyncio.timeout(_PATIENCE):
                await future
        except TimeoutError:
            raise BusUnavailable("another process on the local bus does not answer") from None
        finally:
            self._syncs.pop(id_, None)
            for peer in asked:
                peer.later.pop(id_, None)

    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        """Send a message to the others that subscribed."""
        if self._closed:
            return given_up("the bus was closed")
        if len(data) > _MAX_MESSAGE:
            return given_up(f"a message has {len(data)} bytes, the limit is {_MAX_MESSAGE}")
        peers = self._interested.get(topic)
        if peers:
            frame = make(MESSAGE, topic, data)
            together = self._together
            if peers is not together and peers != together:
                if together is not None:
                    self._share_out()
                self._together = peers
                if not self._flushing:
                    self._flushing = True
                    self._loop.call_soon(self._flush)
            self._gathered.append(frame)
        return _DONE

    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        """Have the keeper store a message, and send it to all that subscribed."""
        if self._closed:
            return given_up("the bus was closed")
        if len(data) > _MAX_MESSAGE:
            return given_up(f"a message has {len(data)} bytes, the limit is {_MAX_MESSAGE}")
        entry = self._outbox.add(topic, data, size, ttl, self._loop.time())
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)
        return entry  # type: ignore[return-value]

    def _pump(self) -> None:
        self._pumping = False
        if self._store is not None:
            while len(self._outbox):
                for entry in self._outbox.take(_BATCH):
                    position = self._keep(entry.topic, entry.data, entry.size, entry.ttl)
                    self._outbox.confirm(position, self._loop.time())
            return
        peer = self._keeper_peer()
        if peer is None:
            return
        for entry in self._outbox.take(len(self._outbox)):
            head = _STORE.pack(0, entry.size, entry.ttl)
            peer.send(make(_F_STORE, entry.topic, head + entry.data))

    def _confirmed(self, id_: int, position: Position) -> None:
        if self._outbox.unconfirmed:
            self._outbox.confirm(position, self._loop.time())

    def _keep(self, topic: str, data: bytes, size: int, ttl: float) -> Position | None:
        """Store a message, as the keeper, and send it to all that subscribed."""
        if self._store is None:
            return None
        position = self._store.append(topic, data, size, ttl, self._loop.time())
        place = _PLACE.pack(_epoch_number(position.epoch), position.offset)
        peers = self._interested.get(topic)
        if peers:
            frame = make(_F_HISTORY, topic, place + data)
            for peer in peers:
                peer.send(frame, may_miss=True)
        if topic.encode() in self._topics and self._receiver is not None:
            self._receiver.received(topic, data, position)
        return position

    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        """Read a history."""
        if self._closed:
            raise BusUnavailable("the bus was closed")
        if self._store is not None:
            return self._store.read(topic, after, limit, self._loop.time())
        peer = self._keeper_peer()
        if peer is None or peer.hangs:
            raise BusUnavailable(f"{'no process' if peer is None else 'a process that hangs'} keeps the histories now")
        self._ids += 1
        id_ = self._ids
        future: asyncio.Future[Reading] = self._loop.create_future()
        self._reads[id_] = future
        place = (0, 0) if after is None else (_epoch_number(after.epoch), after.offset)
        peer.send(make(_F_READ, topic, _READ.pack(id_, after is not None, *place, limit)))
        try:
            async with asyncio.timeout(_PATIENCE):
                return await future
        except TimeoutError:
            raise BusUnavailable("the process that keeps the histories does not answer") from None
        finally:
            self._reads.pop(id_, None)

    @property
    def counters(self) -> dict[str, int]:
        """Totals: ``reconnects`` to another keeper, bytes in the ``outbox``, and ``missed`` by others that hang."""
        return {
            "reconnects": self._reconnects,
            "outbox": self._outbox.bytes,
            "missed": sum(peer.lost for peer in self._peers.values()),
        }


_OF_STREAM: Final[dict[int, Callable[[LocalBus, _Stream, str, bytes], None]]] = {
    _F_HELLO: LocalBus._take_greeting,
    MESSAGE: LocalBus._take_message,
    _F_HISTORY: LocalBus._take_history,
    _F_STORED: LocalBus._take_stored,
    _F_KEEPER: LocalBus._take_keeper,
    _F_SYNCED: LocalBus._take_synced,
    _F_READING: LocalBus._take_reading,
    _F_MISSED: LocalBus._take_missed,
}
_OF_PEER: Final[dict[int, Callable[[LocalBus, _Peer, str, bytes], None]]] = {
    _F_SUBSCRIBE: LocalBus._take_subscribe,
    _F_UNSUBSCRIBE: LocalBus._take_unsubscribe,
    _F_SYNC: LocalBus._take_sync,
    _F_STORE: LocalBus._take_store,
    _F_READ: LocalBus._take_read,
}
"""What a frame does: by the stream that it came on, or by the process at its other end, to which it may be answered."""

_DONE: Final = Taken()
