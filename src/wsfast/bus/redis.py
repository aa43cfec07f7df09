"""A bus over Redis or Valkey: pub/sub for messages, and a stream for each history.

redis-py opens the connections (URLs, TLS, passwords, sentinels); this module sends and reads on them, gathering
commands for each turn of the event loop. Each node of the engine has two connections, one for commands and one for
subscriptions. Each is asked for a sign of life every second, and three seconds of silence end both.

A history is stored, numbered and published by one script, so that nothing comes in between. A number belongs to an
epoch. A new epoch begins when the engine may have lost something: when it was started again, unless it writes each
command to its disk first, and when another engine took over.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import secrets
from binascii import crc_hqx
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from ..escape import words
from ..exceptions import BusUnavailable
from ..handshake.uri import format_address, mask
from ..options import refuse_unknown
from .detours import Detours
from .interface import Bus, Position, Reading, Receiver, Stored
from .lost import DOWN_BYTES, UP_BYTES, Pauses, told
from .outbox import REMEMBER, Entry, Outbox, because, given_up

try:
    import hiredis
    import redis.asyncio.connection as redis_connection
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError as _exc:  # pragma: no cover - the tests have it
    raise ImportError("RedisBus needs redis and hiredis: pip install 'wsfast[redis]'") from _exc

__all__ = ["RedisBus"]

_pack: Callable[[tuple[bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
_Next: TypeAlias = Callable[[], Any]
_new_sentinel: Callable[..., Any] = Sentinel

_BEAT: Final = 0.25
_PING: Final = 1.0
_DEAD: Final = 2.4
"""Seconds of silence after which a connection is given up; it is looked at each quarter of a second."""
_CONNECT: Final = 5.0
_ASKED: Final = 1.0
"""Seconds within which a sentinel must answer."""
_PATIENCE: Final = 5.0
_DEMOTED: Final = 30.0
"""Seconds for which confirmed messages are remembered with sentinels: a primary that hung while they replaced it, goes
on confirming when it wakes, and loses that when they demote it; they ask it every 10 s what it is."""
_FIRST_PAUSE: Final = 0.02
_PAUSE: Final = 0.25
_CHUNK: Final = 1000
_KEEP: Final = 86_400
"""Seconds for which the numbers of a history outlive its messages, at least."""
_SLOTS: Final = 16_384
_NOWHERE: Final = Position("0", 0)
"""The place in a history that was never begun."""
_KNOWN: Final = 200_000
"""Topics whose channels and commands are kept ready."""
_MESSAGES: Final = (b"message", b"smessage")
_PLAIN: Final = ord("m")
"""What a message without a history begins with."""

_NOT_CONNECTED: Final = "the engine is not connected"
_REDIRECTIONS: Final = ("MOVED ", "ASK ", "TRYAGAIN")
_ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"
_GUEST: Final = 60.0
"""Seconds for which a node is kept that messages were sent to, and that has no slots of the map."""

_STORE_SCRIPT: Final = b"""
local offset = redis.call('HINCRBY', KEYS[2], 'o', 1)
local m = redis.call('HMGET', KEYS[2], 'e', 'r')
local epoch = m[1]
if epoch and m[2] and m[2] ~= ARGV[4] and string.find(ARGV[8], m[2], 1, true) then
  redis.call('HSET', KEYS[2], 'r', ARGV[4])
elseif not epoch or m[2] ~= ARGV[4] then
  redis.call('DEL', KEYS[1])
  epoch = ARGV[3]
  offset = 1
  redis.call('HSET', KEYS[2], 'e', epoch, 'r', ARGV[4], 'o', 1)
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], offset .. '-0', 'd', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call(ARGV[7], ARGV[9], 'h' .. epoch .. ':' .. offset .. ':' .. ARGV[1])
return {epoch, offset}
"""
_READ_SCRIPT: Final = b"""
local m = redis.call('HMGET', KEYS[2], 'e', 'o', 'r')
if not m[1] or not m[3] then return {'', 0, 0, {}} end
if m[3] ~= ARGV[1] and not string.find(ARGV[5], m[3], 1, true) then return {'', 0, 0, {}} end
local after = '(' .. ARGV[3] .. '-0'
if ARGV[2] ~= m[1] then after = '-' end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local oldest = m[2] + 1
if first[1] then oldest = string.match(first[1][1], '^%d+') end
return {m[1], m[2], tonumber(oldest), redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', ARGV[4])}
"""


class _RedirectedError(Exception):
    """The slot is moving, or has moved; the text is what the node said."""


class _EngineError(Exception):
    """The engine cannot be used as it is now; the text is for the log."""


def _parse(url: str) -> dict[str, Any]:
    """Take a URL apart.

    Raises:
        ValueError: it is not valid. Neither its text nor its context holds a password, which redis-py's may do.
    """
    with contextlib.suppress(ValueError):
        return dict(redis_connection.parse_url(url))
    raise ValueError(f"url must be like redis://user:password@host:port/0?option=value, got {mask(url)!a:.100}")


def _connection(options: dict[str, Any], timeout: float) -> Any:
    """Make redis-py's connection, which connects later.

    Raises:
        TypeError: an option is unknown to it.
    """
    # What is sent and read here is RESP2, whatever the options, or a URL that other programs share, ask for.
    arguments = {"socket_connect_timeout": timeout, "socket_timeout": timeout, **options, "protocol": 2}
    return arguments.pop("connection_class", redis_connection.Connection)(**arguments)


def _secrets(options: dict[str, Any]) -> list[str]:
    """Return what must not be shown of what the engine says while it is connected to."""
    password = options.get("password") or ""
    # Redis says back what it does not know, such as AUTH where that was renamed, and 128 characters of what follows.
    password = password.decode(errors="replace") if isinstance(password, bytes) else str(password)
    return ["with args beginning with", password]


def _at(options: dict[str, Any], why: str) -> str:
    """Return the reason of a failure, which begins with the server's address unless it has that already."""
    path, host, port = (options.get(name) for name in ("path", "host", "port"))
    where = words(format_address(path or (host or "localhost", port or 6379)))
    return why if where in why else f"{where}: {why}"


class _Link(asyncio.Protocol):
    """A connection to the engine, once it is set up.

    Args:
        handle: called with a function that returns the next of what the engine said, and False if there is none.
        lost: called with this link and the reason, when it is lost.
    """

    def __init__(self, handle: Callable[[_Next], None], lost: Callable[[_Link, str], None]) -> None:
        self._reader = hiredis.Reader()
        self._handle = handle
        self._lost = lost
        self._owner: Any = None
        self.transport: asyncio.Transport | None = None
        self._time: Callable[[], float]
        self.heard = 0.0

    async def open(self, options: dict[str, Any], time: Callable[[], float]) -> None:
        """Have redis-py connect, and take over."""
        connection = _connection(options, _CONNECT)
        await connection.connect()
        self._owner = connection  # which would close the connection when it is freed
        self.transport = connection._writer.transport
        assert self.transport is not None
        self.heard = time()
        self._time = time
        self.transport.set_protocol(self)
        if not self.transport.is_reading():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        self.heard = self._time()
        try:
            self._reader.feed(data)
            self._handle(self._reader.gets)
        except hiredis.ProtocolError as exc:
            self.close(f"it talks nonsense: {words(exc, 100)}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport."""
        self.transport = None
        self._release()
        self._lost(self, words(exc or "it closed the connection"))

    def eof_received(self) -> bool:
        """Called by the transport."""
        return False

    def close(self, why: str = "") -> None:
        """Drop the connection."""
        if self.transport is not None:
            transport, self.transport = self.transport, None
            transport.abort()
            if why:
                self._lost(self, why)

    def _release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._writer = owner._reader = None


class _Node:
    """One server of the engine, and what is sent to it."""

    def __init__(self, bus: RedisBus, options: dict[str, Any] | None, name: str = "") -> None:
        self._bus = bus
        self._name = name
        self._leaving: Counter[bytes] = Counter()  # channels, as often as it is to answer that they were left
        self._loop = asyncio.get_running_loop()
        self.options = options
        self.outbox: Outbox = Outbox(max_bytes=DOWN_BYTES, remember=_DEMOTED if bus._sentinels else REMEMBER)
        self.topics: set[str] = set()
        self.up: bool = False
        self.reconnects: int = 0
        self.closed: bool = False
        self._command: _Link | None = None
        self._subscriber: _Link | None = None
        self._replies: deque[Any] = deque()  # of commands: None for the outbox' next, else a future
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self._out: list[bytes] = []
        self._sub_out: list[bytes] = []
        self._pumping = False
        self._down = asyncio.Event()
        self._why = ""
        self._tried: dict[str, Any] | None = None  # the options of the last attempt to connect, once they are known
        self._run_token = b""
        self._last_token = b""
        self._store_sha = self._read_sha = b""
        self._pinged = 0.0
        self._looked = 0.0
        self._turn_began = 0.0  # when `pump` was scheduled
        self.outbox.begin(self._loop)
        self.task: asyncio.Task[None] = self._loop.create_task(self._live())

    # --- The connections ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Connect, stay connected, and connect again."""
        pauses = Pauses(self._loop.time)
        while not self.closed:
            try:
                async with asyncio.timeout(_CONNECT + 2):
                    await self._connect()
            except Exception as exc:  # what a server that talks nonsense makes redis-py or `_prepare` raise, too
                self._drop()
                why = self._why or self._where(told(exc, self._bus.secrets))
                self.outbox.why = why
                self._bus.failed(why)
                self._bus.node_changed(self, why)
                await pauses.wait()
                continue
            if self.closed:
                break
            pauses.restart()
            await self._stay()
            pauses.lost()
            self._drop()
            self.outbox.max_bytes = DOWN_BYTES
            self.outbox.interrupted(f"the engine was lost: {self._why}")
            self._bus.node_lost(self)
            self._bus.node_changed(self, self._why)

    async def _connect(self) -> None:
        self._down.clear()
        self._why = ""
        self._tried = None
        options = self._tried = await self._bus.address_of(self)
        time = self._loop.time
        self._replies.clear()
        self._pongs.clear()
        self._out.clear()
        self._sub_out.clear()
        self._leaving.clear()
        command = _Link(self._replied, self._link_lost)
        self._command = command
        await command.open(options, time)
        subscriber = _Link(self._pushed, self._link_lost)
        self._subscriber = subscriber
        await subscriber.open(options, time)
        await self._prepare()
        names = [self._bus.channel(topic) for topic in self.topics]
        chunk = self._bus.channels_at_once
        for i in range(0, len(names), chunk):
            self._sub_out.append(_pack((self._bus.subscribe_command, *names[i : i + chunk])))
        await self.settled()
        if self._down.is_set():
            raise _EngineError(self._why)
        if self._last_token and self._run_token != self._last_token:
            self.outbox.lost_history(time())
        if self._last_token:
            self.reconnects += 1
        self._last_token = self._run_token
        self._bus.tokens[self._name] = self._run_token
        self.up = True
        self.outbox.max_bytes = UP_BYTES
        self.outbox.why = ""
        self._bus.node_changed(self, "connected")
        self.pump()

    async def _prepare(self) -> None:
        """Learn what engine it is, and load the scripts."""
        info = _parse_info(await self.call(b"INFO", b"server"))
        version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2] if part.isdigit())
        if version < (6, 2):
            raise _EngineError(f"Redis 6.2 or newer is needed, it is {words(info.get('redis_version', 'unknown'), 30)}")
        token = info.get("run_id", "").encode()
        persistence = _parse_info(await self.call(b"INFO", b"persistence"))
        if persistence.get("aof_enabled") == "1":
            with contextlib.suppress(BusUnavailable):
                answer = await self.call(b"CONFIG", b"GET", b"appendfsync")
                if isinstance(answer, list) and answer[-1:] == [b"always"]:
                    token = b"durable"  # a command that was answered is on the disk
        self._run_token = token
        self._store_sha = await self.call(b"SCRIPT", b"LOAD", _STORE_SCRIPT)
        self._read_sha = await self.call(b"SCRIPT", b"LOAD", _READ_SCRIPT)

    async def _stay(self) -> None:
        """Watch the connections until one is lost."""
        self._looked = self._pinged = self._loop.time()
        while not self._down.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT):
                    await self._down.wait()
            now = self._loop.time()
            late, self._looked = now - self._looked > 4 * _BEAT, now
            if now - self._pinged >= _PING:
                self._pinged = now
                self._replies.append(False)
                self._out.append(_pack((b"PING",)))
                self._pongs.append(None)
                self._sub_out.append(_pack((b"PING",)))
                self._schedule()
            for link in (self._command, self._subscriber):
                # Where this program was held up itself, what was sent to it may be unread still.
                if link is not None and not late and now - link.heard > _DEAD:
                    link.close("it hangs")

    def _link_lost(self, link: _Link, why: str) -> None:
        if link is self._command or link is self._subscriber:
            self.outbox.why = self._why = self._why or self._where(why)
            self._down.set()
            self._drop()  # what the other connection says from here on would be taken for answers to something else

    def _drop(self) -> None:
        self.up = False
        for link in (self._command, self._subscriber):
            if link is not None:
                link.close()
        self._command = self._subscriber = None
        self._fail_calls()

    def _where(self, why: str) -> str:
        return why if self._tried is None else _at(self._tried, why)

    def _fail_calls(self) -> None:
        error = BusUnavailable(because("the engine was lost", self._why))
        for future in (*self._replies, *self._pongs):
            if isinstance(future, asyncio.Future) and not future.done():
                future.set_exception(error)
                future.exception()
        self._replies.clear()
        self._pongs.clear()

    # --- Sending --------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self.pump)
            self._turn_began = self._loop.time()

    def pump(self) -> None:
        """Send what was gathered in this turn."""
        self._pumping = False
        command, subscriber = self._command, self._subscriber
        if self.up and len(self.outbox):
            out, head_of = self._out, self._bus.head_of
            entries = self.outbox.take_all()
            if self._bus.detours:
                for entry in entries:
                    if entry.asking:
                        out.append(_ASKING)
                        self._replies.append(False)
                    self._append(entry)
                entries.clear()
            self._replies.extend([None] * len(entries))
            for entry in entries:
                if not entry.size:
                    # As hiredis would pack it, in a fourth of the time.
                    out.append(b"%b%d\r\nm%b\r\n" % (head_of(entry.topic), len(entry.data) + 1, entry.data))
                else:
                    out.append(_pack(self._store_command(entry)))
        if self._out and command is not None and command.transport is not None:
            out, self._out = self._out, []
            command.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._sub_out and subscriber is not None and subscriber.transport is not None:
            out, self._sub_out = self._sub_out, []
            subscriber.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _append(self, entry: Any) -> None:
        """Send a message, and await the answer."""
        self._replies.append(None)
        if entry.size:
            self._out.append(_pack(self._store_command(entry)))
        else:
            self._out.append(_pack((self._bus.publish_command, self._bus.channel(entry.topic), b"m" + entry.data)))

    def _store_command(self, entry: Any) -> tuple[bytes, ...]:
        bus = self._bus
        # The channel is no key: it would count as one that is missing while a slot moves.
        stream, meta = bus.keys(entry.topic)
        ttl = round(entry.ttl * 1000)
        return (
            *(b"EVALSHA", self._store_sha, b"2", stream, meta),
            *(entry.data, b"%d" % entry.size, secrets.token_hex(8).encode(), self._run_token),
            *(b"%d" % ttl, b"%d" % max(10 * ttl, 1000 * _KEEP), bus.publish_command),
            *(bus.trusted(self._name), bus.channel(entry.topic)),
        )

    def tell(self, topic: str, data: bytes) -> None:
        """Publish something beside the outbox, if that can be done now."""
        if self.up:
            self._out.append(_pack((self._bus.publish_command, self._bus.channel(topic), data)))
            self._replies.append(False)
            self._schedule()

    def add(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Any]:
        """Queue a message."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self.pump)
            self._turn_began = self._loop.time()
        return self.outbox.add(topic, data, size, ttl, self._turn_began)

    def call(self, *words: bytes, asking: bool = False) -> Awaitable[Any]:
        """Send a command; the awaitable's result is the answer.

        Args:
            words: the command.
            asking: whether a slot is meant that the node does not have yet.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._command is None or self._command.transport is None:
            future.set_exception(BusUnavailable(because(_NOT_CONNECTED, self.outbox.why)))
            return future
        if asking:
            self._replies.append(False)
            self._out.append(_ASKING)
        self._replies.append(future)
        self._out.append(_pack(words))
        self._schedule()
        return future

    def listen(self, topics: Iterable[str], *, on: bool) -> None:
        """Subscribe, or unsubscribe."""
        names = []
        for topic in topics:
            names.append(self._bus.channel(topic))
            (self.topics.add if on else self.topics.discard)(topic)
        if names and self._subscriber is not None:
            if not on:
                self._leaving.update(names)
            word = self._bus.subscribe_command if on else self._bus.unsubscribe_command
            self._sub_out.append(_pack((word, *names)))
            self._schedule()

    async def settled(self) -> None:
        """Wait until the engine has done all that was asked for."""
        if self._subscriber is None or self._subscriber.transport is None:
            raise BusUnavailable(because(_NOT_CONNECTED, self.outbox.why))
        future: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(future)
        self._sub_out.append(_pack((b"PING",)))
        self._schedule()
        try:
            async with asyncio.timeout(_PATIENCE):
                await future
        except TimeoutError:
            raise BusUnavailable(self._where("the engine does not answer")) from None

    # --- Receiving ------------------------------------------------------------------------------------------

    def _replied(self, get: _Next) -> None:
        confirm, detours = self.outbox.confirm, self._bus.detours
        while (reply := get()) is not False:
            if not self._replies:
                return  # the answer to a command that was given up
            waiting = self._replies.popleft()
            if waiting is None:
                if type(reply) is int:  # to how many it was published; the time does not matter then
                    entry = confirm(None, 0.0)
                elif isinstance(reply, Exception):
                    self._refused(reply)
                    continue
                elif isinstance(reply, list):
                    entry = confirm(_position(reply), self._loop.time())
                    if entry.asking:
                        self._bus.told_by(self, entry)
                else:
                    entry = confirm(None, 0.0)
                if detours:
                    detours.taken(self, entry)
            elif waiting is not False and not waiting.done():
                if isinstance(reply, Exception):
                    text = words(reply)
                    moved = self._bus.detours is not None and text.startswith(_REDIRECTIONS)
                    error = _RedirectedError(text) if moved else BusUnavailable(f"the engine refused: {text}")
                    waiting.set_exception(error)
                    waiting.exception()
                else:
                    waiting.set_result(reply)

    def _refused(self, error: Exception) -> None:
        text, detours = words(error), self._bus.detours
        if detours is not None and text.startswith(_REDIRECTIONS):
            self._bus.redirected(text)
            detours.refused(self, self.outbox.take_back(), text)
            return
        if text.startswith(("NOSCRIPT", "READONLY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "UNBLOCKED")):
            # It is not the engine that it was: look again, and try again what can be.
            self._bus.moved()
            if self._command is not None:
                self._replies.appendleft(None)
                self._command.close(text)
            return
        entry = self.outbox.refuse(BusUnavailable(f"the engine refused: {text}"))
        if detours:
            detours.taken(self, entry)

    def _pushed(self, get: _Next) -> None:
        self._bus.received(get, self._told)

    def _told(self, reply: Any) -> None:
        """Take in what the engine said on the connection for subscriptions, and is no message."""
        if type(reply) is not list or not reply:
            if isinstance(reply, Exception) and self._subscriber is not None:
                text = words(reply)
                if self._bus.detours is not None and text.startswith("MOVED "):
                    self._bus.not_listening(text)
                    return
                self._bus.moved()
                self._subscriber.close(text)
            elif self._pongs:  # in RESP2, PONG is plain before the first subscription
                self._pong()
            return
        if reply[0] == b"pong" and self._pongs:
            self._pong()
        elif reply[0] == b"sunsubscribe" and len(reply) == 3 and type(reply[1]) is bytes:
            if self._leaving[reply[1]] > 0:
                self._leaving[reply[1]] -= 1
            else:  # it has given the slot away
                self._bus.left_out(reply[1])

    def _pong(self) -> None:
        future = self._pongs.popleft()
        if future is not None and not future.done():
            future.set_result(None)

    async def read(self, topic: str, after: Position | None, limit: int, asking: bool = False) -> Reading:
        """Read a history.

        Raises:
            _RedirectedError: another node has it.
        """
        stream, meta = self._bus.keys(topic)
        epoch, offset = (b"", 0) if after is None else (after.epoch.encode(), after.offset)
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await self.call(
                    *(b"EVALSHA", self._read_sha, b"2", stream, meta),
                    *(self._run_token, epoch, b"%d" % offset, b"%d" % limit, self._bus.trusted(self._name)),
                    asking=asking,
                )
        except TimeoutError:
            raise BusUnavailable(self._where("the engine does not answer")) from None
        try:
            if not found[0]:
                return Reading(_NOWHERE, [], after is None or after == _NOWHERE)
            now, newest, oldest = found[0].decode("ascii"), int(found[1]), int(found[2])
            messages = [Stored(Position(now, int(id_.partition(b"-")[0])), fields[1]) for id_, fields in found[3]]
        except (AttributeError, IndexError, TypeError, ValueError):
            raise BusUnavailable("the engine talks nonsense about the history") from None
        complete = after is None or (after.epoch == now and oldest - 1 <= after.offset <= newest)
        return Reading(Position(now, newest), messages, complete)

    async def close(self) -> None:
        """Send what was taken, for a second at most, and end."""
        end = self._loop.time() + 1
        while self.up and (len(self.outbox) or self.outbox.unconfirmed) and self._loop.time() < end:
            self.pump()
            await asyncio.sleep(0.005)
        self.closed = True
        self.task.cancel()
        await asyncio.wait([self.task])
        self._why = "the bus was closed"
        self._drop()
        self.outbox.end("the bus was closed")


class RedisBus(Bus):
    """Carries messages by Redis 6.2 or newer, or Valkey.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://`` for TLS, ``unix://``, with the options of redis-py.
            Default: ``redis://127.0.0.1:6379``.
        prefix: in front of all keys and channels; the same in all processes of an application, another in others.
            Default: ``wsfast``.
        cluster: whether it is a cluster, which takes Redis 7 or Valkey: messages then go by sharded channels
            (``SPUBLISH``). Default: False.
        sentinels: host and port of each sentinel, none of which wants a password or TLS; `url` is then for the user,
            the password and TLS of the engine only. Default: none.
        service: the name by which sentinels know the engine; needed with `sentinels`. Default: none.
        options: further arguments of redis-py's ``Connection``.

    Raises:
        ImportError: redis-py or hiredis is not installed: ``pip install 'wsfast[redis]'``.
        ValueError, TypeError: an argument is not valid.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379",
        *,
        prefix: str = "wsfast",
        cluster: bool = False,
        sentinels: Sequence[tuple[str, int]] | None = None,
        service: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be str, got {type(prefix).__name__}")
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", prefix):
            raise ValueError(f"prefix must have 1 to 64 of A-Z a-z 0-9 _ . : -, got {prefix[:100]!a}")
        if (sentinels is None) != (service is None):
            raise ValueError("sentinels and service go together")
        if cluster and sentinels is not None:
            raise ValueError("a cluster has no sentinels")
        if not isinstance(url, str):
            raise TypeError(f"url must be str, got {type(url).__name__}")
        self._options = {**_parse(url), **options}
        if cluster and self._options.get("db"):
            raise ValueError("a cluster has no databases")
        try:
            _connection(self._options, _CONNECT)
        except TypeError:
            kinds = self._options.get("connection_class", redis_connection.Connection).__mro__
            known = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
            refuse_unknown("RedisBus()", options, known, ("prefix", "cluster", "sentinels", "service"))
            raise
        self.secrets: list[str] = _secrets(self._options)
        self._prefix = prefix
        self._cluster = cluster
        self._sentinels = list(sentinels or ())
        self._service = service
        self._sentinel: Any = None
        self._asked: deque[tuple[tuple[str, int], Any]] = deque()  # sentinels and their clients, in this order
        # The channels of one SSUBSCRIBE must be of one slot.
        self.channels_at_once = 1 if cluster else _CHUNK
        self.publish_command: bytes = b"SPUBLISH" if cluster else b"PUBLISH"
        self.subscribe_command: bytes = b"SSUBSCRIBE" if cluster else b"SUBSCRIBE"
        self.unsubscribe_command: bytes = b"SUNSUBSCRIBE" if cluster else b"UNSUBSCRIBE"
        self._channels: dict[str, bytes] = {}
        self._heads: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._receiver: Receiver | None = None
        self._nodes: dict[str, _Node] = {}
        self._slots: list[_Node] = []
        self._mapped: set[str] = set()  # the nodes that have slots
        self._guests: dict[str, float] = {}  # other nodes, and until when they are kept
        self._listened: list[_Node] = []  # as `_slots`, when topics were subscribed to by it
        self._unsure: set[int] = set()  # slots whose subscriptions are not in force
        self.detours: Detours | None = None  # of a cluster
        self.tokens: dict[str, bytes] = {}  # which lives of nodes are known
        self._catching: set[asyncio.Task[None]] = set()
        self._reconnects = 0  # of nodes that have left the cluster
        self._topics: set[str] = set()
        self._closed = False
        self._up: bool | None = None  # as it was told; None before that
        self._why = ""  # why a cluster's map is not known
        self._mapping: asyncio.Task[None] | None = None
        self._look: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    async def start(self, receiver: Receiver, origin: int) -> None:
        """Begin to connect, and to stay connected."""
        if self._receiver is not None:
            raise RuntimeError("the bus runs already")
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        if self._sentinels:
            # Where one does not answer, the next is asked, and not the same again.
            patience = {"socket_timeout": _ASKED, "socket_connect_timeout": _ASKED, "retry": Retry(NoBackoff(), 0)}
            self._sentinel = _new_sentinel(self._sentinels, sentinel_kwargs=patience)
            self._asked = deque(zip(self._sentinels, self._sentinel.sentinels, strict=True))
        if self._cluster:
            self._look = asyncio.Event()
            self.detours = Detours(self._loop, self)
            self._mapping = self._loop.create_task(self._map())
        else:
            self._nodes[""] = _Node(self, None)

    async def close(self) -> None:
        """Send what was taken, for a second at most, and end."""
        if self._receiver is None or self._closed:
            return
        self._closed = True
        if self._mapping is not None:
            self._mapping.cancel()
            self._look.set()
            await asyncio.wait([self._mapping])
        for task in self._catching:
            task.cancel()
        if self.detours is not None:
            self.detours.end("the bus was closed")
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        if self._sentinel is not None:
            for client in self._sentinel.sentinels:
                await client.aclose()

    # --- Names ----------------------------------------------------------------------------------------------

    def channel(self, topic: str) -> bytes:
        """Return a topic's channel. Its braces say to a cluster what belongs together."""
        name = self._channels.get(topic)
        if name is None:
            if len(self._channels) > _KNOWN:
                self._channels.clear()
            name = self._channels[topic] = f"{self._prefix}:{{{topic}}}".encode()
        return name

    def head_of(self, topic: str) -> bytes:
        """Return how the command begins that publishes to a topic: all but the size of what is published."""
        head = self._heads.get(topic)
        if head is None:
            if len(self._heads) > _KNOWN:
                self._heads.clear()
            command, channel = self.publish_command, self.channel(topic)
            head = self._heads[topic] = b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$" % (
                *(len(command), command),
                *(len(channel), channel),
            )
        return head

    def keys(self, topic: str) -> tuple[bytes, bytes]:
        """Return the keys of a topic's history: its stream, and its numbers."""
        channel = self.channel(topic)
        return channel + b":s", channel + b":n"

    # --- Nodes ----------------------------------------------------------------------------------------------

    async def address_of(self, node: _Node) -> dict[str, Any]:
        """Return how to connect to a node."""
        if node.options is not None:
            return node.options
        if self._sentinel is None:
            return self._options
        host, port = await self._primary()
        return {**self._options, "host": host, "port": port}

    async def _primary(self) -> tuple[str, int]:
        """Return where the primary is, by the first sentinel that knows."""
        said = []
        for _ in range(len(self._asked)):
            address, client = self._asked[0]
            self._asked.rotate(-1)  # the next attempt begins with another, also if this one takes too long
            try:
                state = (await client.sentinel_masters()).get(self._service)
                if state is None:
                    why = f"it knows no {self._service!a}"
                elif self._sentinel.check_master_state(state, self._service):
                    self._asked.rotate(1)
                    return state["ip"], state["port"]
                else:
                    why = "the primary is down"
            except Exception as exc:  # what one that talks nonsense makes redis-py raise, too
                why = words(told(exc), 60)  # of what is said in all, the log shows 200
            said.append(f"{format_address(address)}: {why}")
        raise _EngineError(f"sentinels know no primary: {', '.join(said)}")

    def node_changed(self, node: _Node, why: str) -> None:
        """Take note that a node came up or went down."""
        if self._closed or self._receiver is None:
            return
        if not node.up:
            self.moved()
        up = bool(self._slots) if self._cluster else bool(self._nodes)
        up = up and all(one.up for name, one in self._nodes.items() if not self._cluster or name in self._mapped)
        if up != bool(self._up):
            self._up = up
            self._receiver.state_changed(up, why)

    def failed(self, why: str) -> None:
        """Tell why the engine cannot be reached at first; later, what is told is that it was lost."""
        self._why = why
        if self._up is None and not self._closed and self._receiver is not None:
            self._up = False
            self._receiver.state_changed(False, why)

    def node_lost(self, node: _Node) -> None:
        """Take note that a node was lost, and its outbox holds what it had not taken."""
        if self.detours:
            self.detours.lost(node)

    def moved(self) -> None:
        """Have the cluster's map looked at again."""
        if self._mapping is not None:
            self._look.set()

    def redirected(self, text: str) -> None:
        """Take note of what a node has refused something with."""
        self.moved()
        match text.split():
            case ["MOVED", slot, name, *_] if slot.isdigit() and int(slot) < len(self._slots) and name in self._nodes:
                self._slots[int(slot)] = self._nodes[name]

    def not_listening(self, text: str) -> None:
        """Take note that a node has refused a subscription because it does not have the slot."""
        self.redirected(text)
        slot = text.split()[1]
        if slot.isdigit():
            self._unsure.add(int(slot))

    def left_out(self, channel: bytes) -> None:
        """Take note that a node has ended a subscription because it has given the slot away."""
        topic = self._names.get(channel)
        if topic is not None:
            self.moved()
            self._unsure.add(_slot_of(topic))

    def trusted(self, name: str) -> bytes:
        """Return the lives of the other nodes: what came from one that lives when its slot moved has lost nothing."""
        return b",".join(token for other, token in self.tokens.items() if other != name)

    def told_by(self, node: _Node, entry: Entry) -> None:
        """Publish where the subscribers are what was stored at a node that the slot is moving to."""
        owner, position = self.owner(entry.topic), entry.position
        if owner is not None and owner is not node and position is not None:
            owner.tell(entry.topic, b"h%b:%d:%b" % (position.epoch.encode(), position.offset, entry.data))

    def owner(self, topic: str) -> _Node | None:
        """Return the node that has a topic's slot, as far as is known; None if that is not known."""
        return self._node_of(topic) if self._slots else None

    def named(self, address: str) -> _Node | None:
        """Return the node at an address; one that is new is connected to, and kept for a while."""
        if self._closed:
            return None
        if address not in self._mapped:
            self._guests[address] = self._loop.time() + _GUEST
        if address not in self._nodes:
            host, _, port = address.rpartition(":")
            if not port.isdigit():
                return None
            self._nodes[address] = _Node(self, self._options_for(host, int(port)), address)
        return self._nodes[address]

    def _options_for(self, host: str, port: int) -> dict[str, Any]:
        return {**self._options, "host": host or str(self._options.get("host", "127.0.0.1")), "port": port}

    async def _map(self) -> None:
        """Keep the map of a cluster: which node has which slots."""
        pause = _FIRST_PAUSE
        while not self._closed:  # redis-py may take a cancellation for a failure of its own
            self._look.clear()
            try:
                async with asyncio.timeout(_CONNECT):
                    slots = await self._ask_for_slots()
                await self._use_slots(slots)
            except Exception as exc:  # what a node that talks nonsense makes redis-py or the map raise, too
                self.failed(told(exc, self.secrets))
                pause = min(_PAUSE, 2 * pause)
                await asyncio.sleep(pause)
                continue
            pause = _FIRST_PAUSE
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._look.wait()

    async def _ask_for_slots(self) -> list[Any]:
        failure: Exception = _EngineError("no node of the cluster answers")
        candidates = [self._options, *(node.options for node in self._nodes.values() if node.options is not None)]
        for options in candidates:
            connection = _connection(options, 1.0)
            try:
                await connection.connect()
                await connection.send_command("CLUSTER", "SLOTS")
                slots: list[Any] = await connection.read_response()
                if sum(last - first + 1 for first, last, *_ in slots) == _SLOTS:
                    return slots
            except Exception as exc:
                failure = _EngineError(_at(options, told(exc, self.secrets)))
            else:
                failure = _EngineError(_at(options, "the cluster does not serve all slots"))
            finally:
                with contextlib.suppress(OSError, RedisError):
                    await connection.disconnect()
        raise failure

    async def _use_slots(self, slots: list[Any]) -> None:
        wanted: dict[str, dict[str, Any]] = {}
        table: list[str] = [""] * _SLOTS
        for first, last, master, *_ in slots:
            host, port = master[0] or b"", master[1]
            host = host.decode() if isinstance(host, bytes) else str(host)
            name = f"{host}:{port}"
            wanted[name] = self._options_for(host, port)
            table[first : last + 1] = [name] * (last - first + 1)
        for name, options in wanted.items():
            if name not in self._nodes:
                self._nodes[name] = _Node(self, options, name)
        self._slots = [self._nodes[name] for name in table]
        self._mapped = set(wanted)
        now = self._loop.time()
        self._guests = {name: until for name, until in self._guests.items() if until > now and name not in wanted}
        gone = {name: node for name, node in self._nodes.items() if name not in wanted and name not in self._guests}
        self._listen_anew()
        self._send_elsewhere(gone)
        for node in gone.values():
            await node.close()
        for node in self._nodes.values():
            self.node_changed(node, "the cluster has changed")
            break

    def _listen_anew(self) -> None:
        """Subscribe where the slots are now."""
        before, self._listened = self._listened, self._slots.copy()
        unsure, self._unsure = self._unsure, set()
        if before == self._slots and not unsure:
            return
        moved = []
        for topic in self._topics:
            slot = _slot_of(topic)
            node = self._slots[slot]
            if before and before[slot] is node and slot not in unsure:
                continue
            for other in self._nodes.values():
                if other is not node and topic in other.topics:
                    other.listen([topic], on=False)
            node.listen([topic], on=True)
            moved.append(topic)
        if before and moved:
            task = self._loop.create_task(self._catch_up(moved))
            self._catching.add(task)
            task.add_done_callback(self._catching.discard)

    async def _catch_up(self, topics: list[str]) -> None:
        """Have histories read whose subscriptions were interrupted."""
        with contextlib.suppress(BusUnavailable):
            await self.settled()
        if self._receiver is not None and not self._closed:
            self._receiver.missed(topics)

    def _send_elsewhere(self, gone: dict[str, _Node]) -> None:
        """Have messages with a history go to the nodes that have their slots now."""
        assert self.detours is not None
        for name, node in gone.items():
            del self._nodes[name]
            self.tokens.pop(name, None)
            self._reconnects += node.reconnects + 1
            for topic, entries in node.outbox.evacuate("the node has left the cluster", self._loop.time()).items():
                self.detours.evacuated(node, topic, entries)
        for node in list(self._nodes.values()):
            for topic in node.outbox.pending():
                if self._node_of(topic) is not node and topic not in self.detours:
                    self.detours.begin(node, topic)

    def _node_of(self, topic: str) -> _Node:
        if not self._cluster:
            return self._nodes[""]
        return self._slots[_slot_of(topic)]

    # --- What `Topics` calls --------------------------------------------------------------------------------

    def received(self, get: _Next, other: Callable[[Any], None]) -> None:
        """Take in what was published; nodes call it.

        Args:
            get: returns the next of what the engine said, and False if there is none.
            other: called with what is no message.
        """
        received = None if self._receiver is None or self._closed else self._receiver.received
        topic_of = self._names.get
        while (reply := get()) is not False:
            if type(reply) is list and len(reply) == 3:
                kind, channel, data = reply
                if kind in _MESSAGES:
                    if type(channel) is not bytes or type(data) is not bytes or not data or received is None:
                        continue
                    topic = topic_of(channel)
                    if topic is None:
                        continue
                    if data[0] == _PLAIN:
                        received(topic, data[1:], None)
                    else:
                        self._received_stored(topic, data, received)
                    continue
            other(reply)

    @staticmethod
    def _received_stored(topic: str, data: bytes, received: Callable[[str, bytes, Position | None], None]) -> None:
        epoch, colon, rest = data[1:].partition(b":")
        offset, colon, payload = rest.partition(b":")
        if (
            data[:1] == b"h"
            and colon
            and len(epoch) <= 64
            and offset.isdigit()
            and len(offset) <= 18
            and epoch.isalnum()
        ):
            received(topic, payload, Position(epoch.decode("ascii"), int(offset)))

    def subscribe(self, topic: str) -> None:
        """Ask for the messages of a topic."""
        self._topics.add(topic)
        self._names[self.channel(topic)] = topic
        if self._nodes and (not self._cluster or self._slots):
            self._node_of(topic).listen([topic], on=True)

    def unsubscribe(self, topic: str) -> None:
        """Stop asking for the messages of a topic."""
        if topic not in self._topics:
            return
        self._topics.discard(topic)
        self._names.pop(self.channel(topic), None)
        if self._nodes and (not self._cluster or self._slots):
            self._node_of(topic).listen([topic], on=False)

    async def settled(self) -> None:
        """Wait until the engine has done what was asked for."""
        if not self._up:
            raise BusUnavailable(self._unreachable(next((one for one in self._nodes.values() if not one.up), None)))
        end = self._loop.time() + _PATIENCE
        while True:
            nodes = [node for name, node in self._nodes.items() if not self._cluster or name in self._mapped]
            await asyncio.gather(*(node.settled() for node in nodes))
            if not self._unsure:
                return
            if self._loop.time() > end:
                raise BusUnavailable("slots of the cluster are moving")
            await asyncio.sleep(_FIRST_PAUSE)  # the map is looked at

    def _unreachable(self, node: _Node | None = None) -> str:
        """Return why nothing can be sent to a node, or to any."""
        if self._closed:
            return "the bus was closed"
        return because(_NOT_CONNECTED, self._why if node is None else node.outbox.why)

    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        """Publish a message."""
        if self._closed or not self._nodes or (self._cluster and not self._slots):
            return given_up(self._unreachable())
        if self.detours and topic in self.detours:
            return self.detours.add(topic, data, 0, 0.0)
        node = self._node_of(topic)
        if not node.up:
            return given_up(self._unreachable(node))
        return node.add(topic, data, 0, 0.0)

    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        """Store a message in a topic's history, and publish it."""
        if self._closed or not self._nodes or (self._cluster and not self._slots):
            return given_up(self._unreachable())
        if self.detours and topic in self.detours:
            return self.detours.add(topic, data, size, ttl)
        return self._node_of(topic).add(topic, data, size, ttl)

    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        """Read a history."""
        end, address = self._loop.time() + _PATIENCE, ""
        while True:
            if self._closed or not self._nodes or (self._cluster and not self._slots):
                raise BusUnavailable(self._unreachable())
            node = self.named(address) if address else self._node_of(topic)
            if node is not None and (node.up or not address):
                if not node.up:
                    raise BusUnavailable(self._unreachable(node))
                try:
                    return await node.read(topic, after, limit, bool(address))
                except _RedirectedError as exc:
                    text = str(exc)
                self.redirected(text)
                word, *rest = text.split()
                again = word == "ASK" and not address and len(rest) > 1
                address = rest[1] if word == "ASK" and len(rest) > 1 else address if word == "TRYAGAIN" else ""
                if again:
                    continue
            if self._loop.time() > end:
                raise BusUnavailable("a slot of the cluster is moving")
            await asyncio.sleep(_FIRST_PAUSE)

    @property
    def counters(self) -> dict[str, int]:
        """Totals: ``reconnects``, and the bytes in the ``outbox``."""
        nodes = self._nodes.values()
        return {
            "reconnects": self._reconnects + sum(node.reconnects for node in nodes),
            "outbox": sum(node.outbox.bytes for node in nodes) + (self.detours.bytes if self.detours else 0),
        }


def _position(answer: list[Any]) -> Position:
    """Return the place that the script has stored a message at.

    Raises:
        hiredis.ProtocolError: it is not what the script answers.
    """
    match answer:
        case [bytes() as epoch, int() as offset] if epoch.isalnum():
            return Position(epoch.decode("ascii"), offset)
    raise hiredis.ProtocolError("a message of a history was answered with something else than its place")


def _parse_info(answer: Any) -> dict[str, str]:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
    return {name: value for name, _, value in (line.strip().partition(":") for line in text.splitlines())}


def _slot_of(topic: str) -> int:
    """Return the slot that a cluster has a topic in (CRC16, XMODEM)."""
    return crc_hqx(topic.encode(), 0) % _SLOTS
