"""A bus over NATS: subjects for messages, and a stream of JetStream for each history.

nats-py opens the connection (URLs, TLS, credentials) and speaks the protocol. A subject is subscribed to for each
topic; what is published there reaches the others at once. What is stored goes to a subject of a stream, which numbers
it and publishes it again on the topic's subject, with its number: nothing comes in between.

A stream's name ends with the epoch of its history, so that each number tells which life of the history it belongs to.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import inspect
import json
import random
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ..escape import words
from ..exceptions import BusUnavailable
from ..handshake.uri import mask, unquoted
from ..options import refuse_unknown
from .interface import Bus, Position, Reading, Receiver, Stored
from .lost import DOWN_BYTES, UP_BYTES, Pauses, told
from .order import InOrder
from .outbox import Entry, Outbox, because, given_up

try:
    from nats.aio.client import Client
    from nats.errors import Error as NatsError
except ImportError as _exc:  # pragma: no cover - the tests have it
    raise ImportError("NatsBus needs nats-py: pip install 'wsfast[nats]'") from _exc

__all__ = ["NatsBus"]

_BEAT: Final = 0.25
_PING: Final = 0.75
_SILENCE: Final = 1.75
"""Seconds without an answer, and without anything else, after which a connection is given up."""
_CONNECT: Final = 5.0
_PATIENCE: Final = 5.0
_KNOWN: Final = 200_000
_AT_ONCE: Final = 32
"""Messages of a history that are asked for at once; each may have as many bytes as the server allows."""
_BATCH: Final = 1000
_KEEP: Final = 86_400.0
"""Seconds for which a stream outlives its last message, at least."""
_SWEEP: Final = 3600.0
_NOWHERE: Final = Position("0", 0)
"""The place in a history that was never begun."""
_OURS: Final = frozenset({"servers", "allow_reconnect", "closed_cb", "error_cb", "disconnected_cb", "reconnected_cb"})

_STREAM: Final = re.compile(rb"\r\nNats-Stream: ([^\r\n]{1,255})\r\n")
_SEQUENCE: Final = re.compile(rb"\r\nNats-Sequence: ([0-9]{1,18})\r\n")

_SUBJECT_IN_USE: Final = 10065
_NO_STREAM: Final = 10059
_TOO_LARGE: Final = 10054
_CLOSED: Final = 1
"""The ``max_msg_size`` of a stream that is about to be deleted: no message is as small as that, and none is taken."""

Answer = tuple[bytes, bytes]
"""The headers and the body of an answer."""


def _secrets(servers: list[str], options: dict[str, Any]) -> list[str]:
    """Return what must not be shown of what a server says while it is connected to."""
    found = ["CONNECT {", *(options.get(name) for name in ("password", "token"))]
    for server in servers:
        # A user name without a password is a token.
        user, _, password = server.partition("://")[2].rpartition("@")[0].partition(":")
        found += [password or user, unquoted(password or user)]
    return [one for one in found if isinstance(one, str)]


class _Refused(Exception):
    """The server's JetStream refused something.

    Attributes:
        code: which error it is, as NATS numbers them.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code: int = code


class _Client(Client):
    """nats-py's client, which hands on what comes at once: no queue and no task for each subject."""

    def __init__(self, took: Callable[[bytes, bytes, bytes], None]) -> None:
        super().__init__()
        self._took = took

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        self._took(bytes(subject), data, headers or b"")


class _Sent:
    """What became of an entry of the outbox that was sent; they are confirmed in their order."""

    __slots__ = ("at", "done", "entry", "error", "position")

    def __init__(self, entry: Entry, at: float) -> None:
        self.entry = entry
        self.at = at
        self.done = False
        self.position: Position | None = None
        self.error: str | None = None


class NatsBus(Bus):
    """Carries messages by NATS. Histories need JetStream, with its files on a disk.

    Each topic with a history is a stream, which suits thousands of them, and one that was empty for a day is deleted. A
    message may have as many bytes as the server's ``max_payload`` says, 1 MiB by default.

    Args:
        servers: ``nats://user:password@host:port``, or ``tls://``, or several such of one cluster. Default:
            ``nats://127.0.0.1:4222``.
        prefix: the first word of all subjects, and of the streams' names; the same in all processes of an application,
            another in others. Default: ``wsfast``.
        replicas: how many servers of a cluster keep each history: 1 to 5. Default: 1.
        domain: the domain of JetStream, if it has one. Default: none.
        options: further arguments of nats-py's ``connect``, such as ``user_credentials`` and ``tls``.

    Raises:
        ImportError: nats-py is not installed: ``pip install 'wsfast[nats]'``.
        ValueError, TypeError: an argument is not valid.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        prefix: str = "wsfast",
        replicas: int = 1,
        domain: str | None = None,
        **options: Any,
    ) -> None:
        for name, value in (("prefix", prefix), *((("domain", domain),) if domain is not None else ())):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be str, got {type(value).__name__}")
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
                raise ValueError(f"{name} must have 1 to 64 of A-Z a-z 0-9 _ -, got {value[:100]!a}")
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise TypeError(f"replicas must be int, got {type(replicas).__name__}")
        if not 1 <= replicas <= 5:
            raise ValueError(f"replicas must be from 1 to 5, got {replicas}")
        if not isinstance(servers, Iterable):
            raise TypeError(f"servers must be str or a sequence of them, got {type(servers).__name__}")
        given = [servers] if isinstance(servers, str) else list(servers)
        for server in given:
            if not isinstance(server, str) or not re.match(r"(nats|tls|ws|wss)://[^/]", server):
                raise ValueError(f"servers must be like nats://host:port, got {mask(str(server))!a:.100}")
        if not given:
            raise ValueError("servers must name at least one")
        own = ("prefix", "replicas", "domain")
        refuse_unknown("NatsBus()", options, inspect.signature(Client.connect).parameters.keys() - {"self"}, own)
        for name in _OURS & options.keys():
            raise ValueError(f"{name} is not for the caller to choose")
        self._servers = given
        self._secrets = _secrets(given, options)
        self._prefix = prefix
        self._replicas = replicas
        self._api = "$JS.API." if domain is None else f"$JS.{domain}.API."
        self._options = options
        self._receiver: Receiver | None = None
        self._closed = False
        self._up: bool | None = None  # as it was told; None before that
        self._reconnects = -1
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._client: _Client | None = None
        self._why = ""
        self._down: asyncio.Event
        self._wake: asyncio.Event
        self._outbox = Outbox(max_bytes=DOWN_BYTES)
        self._sent: deque[_Sent] = deque()
        self._unflushed: list[_Sent] = []  # messages that the next answer to a ping confirms
        self._settling: list[asyncio.Future[None]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._topics: set[str] = set()
        self._changed: dict[str, None] = {}
        self._subscriptions: dict[str, Any] = {}
        self._names: dict[bytes, str] = {}
        self._orders: dict[str, InOrder] = {}
        self._inbox = b""
        self._ids = 0
        self._waiting: dict[int, Callable[[Answer], None]] = {}
        self._asked: set[asyncio.Future[Answer]] = set()
        self._streams: dict[str, str] = {}  # of topics with a history: the stream's name, as it was seen last
        self._fresh: set[str] = set()  # those that were seen on this connection
        self._most_known = _KNOWN
        self._unknown: dict[str, tuple[int, float]] = {}  # those to be looked for before anything is stored
        self._why_not: dict[str, str] = {}  # of those that have none

    # --- Life -----------------------------------------------------------------------------------------------

    async def start(self, receiver: Receiver, origin: int) -> None:
        """Begin to connect, and to stay connected."""
        if self._receiver is not None:
            raise RuntimeError("the bus runs already")
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._down, self._wake = asyncio.Event(), asyncio.Event()
        self._outbox.begin(self._loop)
        self._task = self._loop.create_task(self._live())

    async def close(self) -> None:
        """Send what was taken, for a second at most, and end."""
        if self._receiver is None or self._closed:
            return
        end = self._loop.time() + 1
        while self._up and (len(self._outbox) or self._outbox.unconfirmed) and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self._closed = True
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self._outbox.end("the bus was closed")

    async def _live(self) -> None:
        """Connect, stay connected, and connect again."""
        pauses = Pauses(self._loop.time)
        while True:
            began = self._loop.time()
            work: asyncio.Task[None] | None = None
            client = self._client = _Client(self._took)
            self._down.clear()
            self._why = ""
            try:
                async with asyncio.timeout(_CONNECT):
                    await self._connect(client)
                self._unknown = self._outbox.histories()
                work = self._loop.create_task(self._work(client))
                async with asyncio.timeout(_PATIENCE):
                    await self._flushed()
                if not self._down.is_set():
                    self._reconnects += 1
                    self._outbox.max_bytes = UP_BYTES
                    self._outbox.why = ""
                    self._state(True, "connected")
                    self._wake.set()
                    await self._stay(client, work)
            except Exception as exc:  # what a server that talks nonsense makes nats-py or `sweep` raise, too
                self._why = self._why or self._told(exc)
            finally:
                await self._drop(client, work)
            if self._up:
                pauses.lost()
            self._state(False, self._outbox.why)
            if self._loop.time() - began > 1:
                pauses.restart()
            await pauses.wait()

    async def _connect(self, client: _Client) -> None:
        options: dict[str, Any] = {"connect_timeout": 2, "no_echo": True, **self._options}
        # When it is tried again is decided here.
        options |= {"reconnect_time_wait": 0.05, "max_reconnect_attempts": 1}
        options |= {"allow_reconnect": False, "ping_interval": 60, "closed_cb": self._ended, "error_cb": self._failed}
        await client.connect(servers=list(self._servers), **options)
        inbox = client.new_inbox()
        self._inbox = inbox.encode() + b"."
        await client.subscribe(f"{inbox}.*")
        self._subscriptions = {}
        self._changed = dict.fromkeys(self._topics)
        await self._resubscribe(client)

    def _told(self, exc: BaseException) -> str:
        return told(exc, self._secrets)

    async def _ended(self) -> None:
        self._down.set()

    async def _failed(self, exc: Exception) -> None:
        self._why = self._why or self._told(exc)
        if "permissions violation" in str(exc):
            self._down.set()  # it would go on without what it needs

    async def _stay(self, client: _Client, work: asyncio.Task[None]) -> None:
        """Watch the connection until it is lost."""
        pinged = swept = looked = self._loop.time()
        sweep = _SWEEP * random.uniform(0.1, 1)
        asked: asyncio.Task[None] | None = None
        heard, seen = pinged, -1
        try:
            while not self._down.is_set() and not work.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_BEAT):
                        await self._down.wait()
                now = self._loop.time()
                if now - looked > 4 * _BEAT:
                    heard = now  # this program was held up itself: what was sent to it may be unread still
                looked = now
                if client.stats["in_msgs"] != seen:
                    seen, heard = client.stats["in_msgs"], now
                if asked is not None and asked.done():
                    if not asked.cancelled() and asked.exception() is None:
                        heard = now
                    asked = None
                if asked is None and now - pinged >= _PING:
                    pinged = now
                    asked = self._loop.create_task(client.flush(10))
                if now - heard > _PING + _SILENCE:
                    raise BusUnavailable("it hangs")
                if self._sent and not self._sent[0].done and self._sent[0].at + _PATIENCE <= now:
                    raise BusUnavailable("it confirms nothing")
                if now - swept > sweep:
                    swept, sweep = now, _SWEEP
                    with contextlib.suppress(BusUnavailable, _Refused):
                        await self.sweep()
        finally:
            if asked is not None:
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)

    async def _drop(self, client: _Client, work: asyncio.Task[None] | None) -> None:
        """End a connection, and what waited for it."""
        self._client = None
        tasks = [task for task in (work, self._flushing) if task is not None]
        self._flushing = None
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                self._why = self._why or self._told(outcome)
        closing = self._loop.create_task(client.close())
        await asyncio.wait((closing,), timeout=0.5)  # where the server hangs, it may not end
        if not closing.done():
            closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        shown = ", ".join(words(mask(server), 100) for server in self._servers[:3])
        self._outbox.why = f"{shown}: {self._why or 'the connection was lost'}"
        why = f"the server was lost: {self._outbox.why}"
        error = BusUnavailable(why)
        waiting: list[asyncio.Future[Any]] = [*self._settling, *self._asked]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._settling.clear()
        self._asked.clear()
        self._waiting.clear()
        self._fresh.clear()
        self._unknown.clear()
        self._why_not.clear()
        for topic in list(self._orders):
            self._forget_order(topic)
        self._unflushed.clear()
        self._sent.clear()
        self._outbox.max_bytes = DOWN_BYTES
        self._outbox.interrupted(why)

    def _state(self, up: bool, why: str) -> None:
        if up != self._up and not self._closed and self._receiver is not None:
            self._up = up
            self._receiver.state_changed(up, why)

    # --- Names ----------------------------------------------------------------------------------------------

    def _subject(self, kind: str, topic: str) -> str:
        # A topic is one word of a subject; "=" is in no topic's name, and a dot ends a word.
        return f"{self._prefix}.{kind}.{topic.replace('.', '=')}"

    def _stem(self, topic: str) -> str:
        """Return the name of a topic's stream but for the epoch."""
        digest = hashlib.blake2b(topic.encode(), digest_size=16, key=self._prefix.encode())
        return f"{self._prefix}_{digest.hexdigest()}_"

    # --- Sending --------------------------------------------------------------------------------------------

    async def _work(self, client: _Client) -> None:
        """Send what there is to send."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._resubscribe(client)
            if self._settling:
                self._flush(client)
            while self._up and len(self._outbox):
                while self._unknown:
                    await self._find_all()
                now = self._loop.time()
                for entry in self._outbox.take(_BATCH):
                    sent = _Sent(entry, now)
                    self._sent.append(sent)
                    if len(entry.data) > client.max_payload:
                        most = client.max_payload
                        sent.error = (
                            f"a message of {len(entry.data)} bytes is more than the server's {most} (max_payload)"
                        )
                        sent.done = True
                    elif not entry.size:
                        self._unflushed.append(sent)
                        await client.publish(self._subject("t", entry.topic), entry.data)
                    elif sent.entry.topic in self._fresh:
                        reply = self._reply(lambda answer, sent=sent: self._stored(sent, answer))  # type: ignore[misc]
                        await client.publish(self._subject("h", entry.topic), entry.data, reply=reply)
                    else:
                        sent.error, sent.done = self._why_not.get(entry.topic, "the history cannot be stored"), True
                self._confirm()
                if self._unflushed:
                    self._flush(client)

    def _flush(self, client: _Client) -> None:
        if self._flushing is None:
            self._flushing = self._loop.create_task(self._flush_all(client))

    async def _flush_all(self, client: _Client) -> None:
        """Have the server answer that it got what was sent."""
        try:
            while self._unflushed or self._settling:
                sent, self._unflushed = self._unflushed, []
                settling, self._settling = self._settling, []
                try:
                    await client.flush(60)
                except BaseException:
                    self._settling += settling
                    raise
                for one in sent:
                    one.done = True
                for future in settling:
                    if not future.done():
                        future.set_result(None)
                self._confirm()
        except NatsError as exc:
            self._why = self._why or self._told(exc)
            self._down.set()
        finally:
            if self._flushing is asyncio.current_task():
                self._flushing = None

    def _confirm(self) -> None:
        """Confirm what can be, in order."""
        now = self._loop.time()
        while self._sent and self._sent[0].done:
            sent = self._sent.popleft()
            if sent.error is not None:
                self._outbox.refuse(BusUnavailable(sent.error))
            else:
                self._outbox.confirm(sent.position, now)

    def _stored(self, sent: _Sent, answer: Answer) -> None:
        """Take in what became of a message of a history."""
        topic = sent.entry.topic
        try:
            found = self._answer(answer)
            name, number = found.get("stream"), found.get("seq")
            if not isinstance(name, str) or type(number) is not int or not name.startswith(self._stem(topic)):
                raise _Refused(0, f"a stream that is not wsfast's took it, {name!a:.100}")
        except _Refused as exc:
            if exc.code in (503, _NO_STREAM, _TOO_LARGE):
                # Its stream is gone, or going: it is made again, and what was not confirmed is sent again, in order.
                self._why = self._why or f"the history of {topic!a} is gone: {exc}"
                self._down.set()
                return
            sent.error = f"the server refused: {exc}"
        else:
            self._seen(topic, name)
            sent.position = Position(name[len(self._stem(topic)) :], number)
        sent.done = True
        self._confirm()

    def _reply(self, took: Callable[[Answer], None]) -> str:
        self._ids += 1
        self._waiting[self._ids] = took
        return f"{self._inbox.decode()}{self._ids}"

    async def _ask(self, subject: str, content: Any = None) -> Answer:
        """Send a request, and return the answer.

        Raises:
            BusUnavailable: there is none.
        """
        client = self._client
        if client is None or not client.is_connected:
            raise BusUnavailable(self._unreachable())
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked.add(future)

        def took(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        reply = self._reply(took)
        number = self._ids
        try:
            async with asyncio.timeout(_PATIENCE):
                try:
                    await client.publish(subject, b"" if content is None else json.dumps(content).encode(), reply=reply)
                except NatsError as exc:
                    raise BusUnavailable(f"the server was lost: {self._told(exc)}") from None
                return await future
        except TimeoutError:
            raise BusUnavailable("the server does not answer") from None
        finally:
            self._asked.discard(future)
            self._waiting.pop(number, None)

    @staticmethod
    def _answer(answer: Answer) -> dict[str, Any]:
        """Return what JetStream answered.

        Raises:
            _Refused: it refused.
        """
        headers, body = answer
        if headers.startswith(b"NATS/1.0 503"):
            raise _Refused(503, "the server has no JetStream for this account, which histories need")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise _Refused(0, f"it talks nonsense: {body[:50]!a}")
        error = found.get("error")
        if error is not None:
            code = error.get("err_code", error.get("code", 0)) if isinstance(error, dict) else 0
            why = error.get("description", "") if isinstance(error, dict) else error
            raise _Refused(code if type(code) is int else 0, words(why))
        return found

    async def _call(self, name: str, content: Any = None) -> dict[str, Any]:
        return self._answer(await self._ask(self._api + name, content))

    # --- Histories ------------------------------------------------------------------------------------------

    async def _find_all(self) -> None:
        """See that the histories that are stored to have their streams."""
        wanted = list(self._unknown.items())[:_AT_ONCE]
        await asyncio.gather(*(self._have(topic, size, ttl) for topic, (size, ttl) in wanted))
        for topic, _ in wanted:
            self._unknown.pop(topic, None)

    async def _have(self, topic: str, size: int, ttl: float) -> None:
        """See that a history has its stream, and that this keeps as much as is wanted."""
        limits = {"max_msgs": size, "max_age": round(ttl * 1e9)}
        try:
            for _ in range(5):
                found = await self._look(topic)
                if found is not None:
                    config = found["config"]
                    if config["max_msg_size"] == _CLOSED and not found["state"]["messages"]:
                        self._fresh.discard(topic)
                        await self._delete_empty(config)
                        continue
                    more = {name: max(value, config[name]) for name, value in limits.items()}
                    more["max_msg_size"] = -1
                    if any(config[name] != value for name, value in more.items()):
                        await self._call(f"STREAM.UPDATE.{config['name']}", {**config, **more})
                    break
                name = self._stem(topic) + secrets.token_hex(8)
                try:
                    await self._call(f"STREAM.CREATE.{name}", self._config(topic, name, limits))
                except _Refused as exc:
                    if exc.code != _SUBJECT_IN_USE:
                        raise
                    continue  # another process was faster
                self._seen(topic, name)
                break
        except _Refused as exc:
            self._cannot_have(topic, f"the server refused: {exc}")
        except (KeyError, TypeError):
            self._cannot_have(topic, "the server talks nonsense about the history's stream")

    def _cannot_have(self, topic: str, why: str) -> None:
        if len(self._why_not) >= _BATCH:
            self._why_not.clear()
        self._why_not[topic] = why

    def _config(self, topic: str, name: str, limits: dict[str, int]) -> dict[str, Any]:
        source = self._subject("h", topic)
        return {
            "name": name,
            "description": f"wsfast: the history of {topic}",
            "subjects": [source],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "num_replicas": self._replicas,
            "max_consumers": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "allow_direct": True,
            "republish": {"src": source, "dest": self._subject("t", topic)},
            **limits,
        }

    def _seen(self, topic: str, name: str) -> None:
        """Note which stream a history has now."""
        before = self._streams.get(topic)
        if before == name and topic in self._fresh:
            return
        if len(self._streams) >= self._most_known:
            # Those that something is sent to must be known until it is confirmed; others are looked for again.
            needed = self._outbox.histories()
            self._streams = {one: stream for one, stream in self._streams.items() if one in needed}
            self._fresh &= self._streams.keys()
            self._most_known = max(_KNOWN, 2 * len(self._streams))
        self._streams[topic] = name
        self._fresh.add(topic)
        self._why_not.pop(topic, None)
        if before is not None and before != name:
            self._outbox.lost_history(self._loop.time(), {topic})
            self._wake.set()

    async def _look(self, topic: str) -> dict[str, Any] | None:
        """Return what the server knows of a topic's stream: its name and configuration, and its state."""
        for _ in range(3):
            name = self._streams.get(topic) if topic in self._fresh else None
            if name is None:
                found = await self._call("STREAM.NAMES", {"subject": self._subject("h", topic)})
                names = [one for one in found.get("streams") or () if str(one).startswith(self._stem(topic))]
                if not names:
                    return None
                name = names[0]
            try:
                info = await self._call(f"STREAM.INFO.{name}")
            except _Refused as exc:
                if exc.code != _NO_STREAM:
                    raise
                self._fresh.discard(topic)
                continue
            self._seen(topic, name)
            return info
        return None

    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        """Read a history."""
        if self._closed:
            raise BusUnavailable("the bus was closed")
        try:
            return await self._read(topic, after, limit)
        except _Refused as exc:
            raise BusUnavailable(f"the server refused: {exc}") from None
        except (KeyError, TypeError, ValueError):
            raise BusUnavailable("the server talks nonsense about the history's stream") from None

    async def _read(self, topic: str, after: Position | None, limit: int) -> Reading:
        info = await self._look(topic)
        if info is None:
            return Reading(_NOWHERE, [], after is None or after == _NOWHERE)
        name = info["config"]["name"]
        epoch = name[len(self._stem(topic)) :]
        messages: list[Stored] = []
        while True:
            state = info["state"]
            newest = int(state["last_seq"])
            oldest = int(state["first_seq"]) if state["messages"] else newest + 1
            same = after is not None and after.epoch == epoch
            complete = after is None or (same and after is not None and oldest - 1 <= after.offset <= newest)
            number = max(oldest, after.offset + 1) if same and after is not None else oldest
            last = min(newest, number + limit - 1)
            while number <= last:
                some = range(number, min(last, number + _AT_ONCE - 1) + 1)
                found = await asyncio.gather(*(self._get(name, one) for one in some))
                for one, data in zip(some, found, strict=True):
                    if data is None:
                        break
                    messages.append(Stored(Position(epoch, one), data))
                    number = one + 1
                if number <= some[-1]:
                    break
            if messages or number > last:
                return Reading(Position(epoch, newest), messages, complete)
            # What was the oldest has expired meanwhile.
            info = await self._call(f"STREAM.INFO.{name}")
            if int(info["state"]["first_seq"]) <= number:
                raise BusUnavailable("the server has not come to the newest message yet")

    async def _get(self, name: str, number: int) -> bytes | None:
        headers, body = await self._ask(f"{self._api}DIRECT.GET.{name}", {"seq": number})
        if headers.startswith(b"NATS/1.0 404"):
            return None
        found = _SEQUENCE.search(headers)
        if found is None or int(found[1]) != number:
            raise BusUnavailable(f"the history cannot be read: {headers[:60]!a}")
        return body

    async def sweep(self, keep: float = _KEEP) -> int:
        """Delete the streams of histories that are empty, and have been for long; return how many.

        Args:
            keep: seconds since the last message, at least; ten times what messages are kept for counts if it is more.
        """
        deleted = place = 0
        while True:
            found = await self._call("STREAM.LIST", {"subject": f"{self._prefix}.h.*", "offset": place})
            streams = found.get("streams") or []
            for info in streams:
                config, state = info["config"], info["state"]
                if not config["name"].startswith(f"{self._prefix}_"):
                    continue  # somebody else's, which has such a subject
                used = max(_time(info.get("created")), _time(state.get("last_ts")))
                # By the server's clock, as those times are; only before NATS 2.10 it does not tell what it shows now.
                idle = (_time(info.get("ts")) or datetime.now(UTC).timestamp()) - used
                if not state["messages"] and idle > max(keep, 10 * min(keep, config["max_age"] / 1e9)):
                    deleted += await self._delete_empty(config)
            place += len(streams)
            if not streams or place >= int(found.get("total", 0)):
                return deleted

    async def _delete_empty(self, config: dict[str, Any]) -> bool:
        """Delete an empty stream; tell whether nothing was stored to it meanwhile.

        NATS deletes whatever is in it. So it is closed first: what is stored to it now is refused, and `_have` makes a
        new one, or opens it again if it is not empty.
        """
        name = config["name"]
        try:
            await self._call(f"STREAM.UPDATE.{name}", {**config, "max_msg_size": _CLOSED})
            info = await self._call(f"STREAM.INFO.{name}")
            if info["state"]["messages"]:
                await self._call(f"STREAM.UPDATE.{name}", config)
                return False
            await self._call(f"STREAM.DELETE.{name}")
        except _Refused as exc:
            if exc.code != _NO_STREAM:  # else another process did it
                raise
        return True

    # --- Receiving ------------------------------------------------------------------------------------------

    def _took(self, subject: bytes, data: bytes, headers: bytes) -> None:
        """Take in what came."""
        try:
            topic = self._names.get(subject)
            if topic is not None:
                self._message(topic, data, headers)
            elif subject.startswith(self._inbox):
                number = subject[len(self._inbox) :]
                took = self._waiting.pop(int(number), None) if number.isdigit() and len(number) < 19 else None
                if took is not None:
                    took((headers, data))
        except Exception as exc:  # nats-py would stop to read
            self._loop.call_exception_handler(
                {"message": "a message of the bus could not be taken in", "exception": exc}
            )

    def _message(self, topic: str, data: bytes, headers: bytes) -> None:
        receiver = self._receiver
        if receiver is None or self._closed:
            return
        if not headers:
            receiver.received(topic, data, None)
            return
        stream, sequence = _STREAM.search(headers), _SEQUENCE.search(headers)
        stem = self._stem(topic).encode()
        if stream is None or sequence is None or not stream[1].startswith(stem):
            return
        epoch = stream[1][len(stem) :]
        if epoch.isalnum() and len(epoch) <= 64:
            self._in_order(topic, epoch.decode("ascii"), int(sequence[1]), data)

    def _in_order(self, topic: str, epoch: str, offset: int, data: bytes) -> None:
        """Hand on a message of a history in its turn."""
        order = self._orders.get(topic)
        if order is None or order.epoch != epoch:
            self._forget_order(topic)
            order = self._orders[topic] = InOrder(self._loop, epoch, functools.partial(self._hand_on, topic))
        order.take(offset, data)

    def _hand_on(self, topic: str, data: bytes, position: Position) -> None:
        if self._receiver is not None:
            self._receiver.received(topic, data, position)

    def _forget_order(self, topic: str) -> None:
        order = self._orders.pop(topic, None)
        if order is not None:
            order.end()

    # --- What `Topics` calls --------------------------------------------------------------------------------

    async def _resubscribe(self, client: _Client) -> None:
        """Subscribe and unsubscribe, as it is wanted now."""
        while self._changed:
            topic = next(iter(self._changed))
            del self._changed[topic]
            there = self._subscriptions.get(topic)
            if topic in self._topics and there is None:
                self._subscriptions[topic] = await client.subscribe(self._subject("t", topic))
            elif topic not in self._topics and there is not None:
                del self._subscriptions[topic]
                await there.unsubscribe()

    def subscribe(self, topic: str) -> None:
        """Ask for the messages of a topic."""
        self._topics.add(topic)
        self._names[self._subject("t", topic).encode()] = topic
        self._change(topic)

    def unsubscribe(self, topic: str) -> None:
        """Stop asking for the messages of a topic."""
        if topic in self._topics:
            self._topics.discard(topic)
            self._names.pop(self._subject("t", topic).encode(), None)
            self._forget_order(topic)
            self._change(topic)

    def _change(self, topic: str) -> None:
        self._changed[topic] = None
        if self._receiver is not None:
            self._wake.set()

    async def _flushed(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._settling.append(future)
        self._wake.set()
        await future

    def _unreachable(self) -> str:
        """Return why nothing can be sent now."""
        return "the bus was closed" if self._closed else because("the server is not connected", self._outbox.why)

    async def settled(self) -> None:
        """Wait until the server has done what was asked for."""
        if self._closed or not self._up:
            raise BusUnavailable(self._unreachable())
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._flushed()
        except TimeoutError:
            raise BusUnavailable("the server does not answer") from None

    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        """Publish a message."""
        if self._closed or not self._up:
            return given_up(self._unreachable())
        self._wake.set()
        return self._outbox.add(topic, data, 0, 0.0, self._loop.time())  # type: ignore[return-value]

    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        """Store a message in a topic's history, which publishes it."""
        if self._closed or self._receiver is None:
            return given_up("the bus was closed" if self._closed else "the bus was not started")
        entry = self._outbox.add(topic, data, size, ttl, self._loop.time())
        if topic not in self._fresh and not entry.done and self._client is not None:
            self._unknown[topic] = (size, ttl)
        self._wake.set()
        return entry  # type: ignore[return-value]

    @property
    def counters(self) -> dict[str, int]:
        """Totals: ``reconnects``, and the bytes in the ``outbox``."""
        return {"reconnects": max(0, self._reconnects), "outbox": self._outbox.bytes}


def _time(text: Any) -> float:
    """Return the seconds since 1970 of a time that the server told; 0 for none."""
    found = (
        re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
        if isinstance(text, str)
        else None
    )
    if found is None or found[1] < "1971":
        return 0.0
    return datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00")).timestamp()
