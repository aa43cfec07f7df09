"""A bus that was written by the public documentation alone passes the tests of buses; one that is wrong is told how."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from shared import until

import wsfast
from wsfast.bus import Bus, Position, Reading, Receiver, Stored
from wsfast.exceptions import BusUnavailable
from wsfast.testing import bus as conformance
from wsfast.testing.bus import CHECKS, check_end, check_histories, check_messages, check_subscriptions

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # what is tested here are the tests


class FileBus(Bus):
    """Carries messages by a file of SQLite, at which each process looks every few milliseconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._topics: set[str] = set()
        self._receiver: Receiver | None = None
        self._db: sqlite3.Connection | None = None
        self._looking: asyncio.Task[None] | None = None
        self._seen = 0

    @property
    def is_open(self) -> bool:
        return self._db is not None

    async def start(self, receiver: Receiver, origin: int) -> None:
        if self._receiver is not None:
            raise RuntimeError("it runs already")
        self._receiver = receiver
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = OFF;
            CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, topic, data, epoch, offset);
            CREATE TABLE IF NOT EXISTS histories (topic PRIMARY KEY, epoch, offset, expires);
            CREATE INDEX IF NOT EXISTS places ON messages (topic, offset);
            """
        )
        self._seen = self._db.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()[0]
        self._looking = asyncio.create_task(self._look_again_and_again())
        receiver.state_changed(True, "opened")

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._db is not None:
            self._db.close()
        self._db = None

    def subscribe(self, topic: str) -> None:
        self._topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        self._topics.discard(topic)

    async def settled(self) -> None:
        pass

    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        if self._db is None:
            return failed("it is closed")
        self._db.execute("INSERT INTO messages (topic, data) VALUES (?, ?)", (topic, data))
        return done(None)

    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        if self._db is None:
            return failed("it is closed")
        self._db.execute("BEGIN IMMEDIATE")
        found = self._db.execute("SELECT epoch, offset FROM histories WHERE topic = ?", (topic,)).fetchone()
        epoch, offset = found or (secrets.token_hex(8), 0)
        place = Position(epoch, offset + 1)
        self._db.execute("INSERT OR REPLACE INTO histories VALUES (?, ?, ?, ?)", (topic, *place, time.time() + ttl))
        self._db.execute("INSERT INTO messages (topic, data, epoch, offset) VALUES (?, ?, ?, ?)", (topic, data, *place))
        self._db.execute("DELETE FROM messages WHERE topic = ? AND offset <= ?", (topic, place.offset - size))
        self._db.execute("COMMIT")
        return done(place)

    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        if self._db is None:
            raise BusUnavailable("it is closed")
        found = self._db.execute("SELECT epoch, offset, expires FROM histories WHERE topic = ?", (topic,)).fetchone()
        epoch, newest, expires = found or ("0", 0, 0.0)
        same = after is not None and after.epoch == epoch
        start = after.offset if same and after is not None else 0
        rows = self._db.execute(
            "SELECT offset, data FROM messages WHERE topic = ? AND offset > ? ORDER BY offset LIMIT ?",
            (topic, start, limit if expires > time.time() else 0),
        ).fetchall()
        oldest = rows[0][0] if rows else newest + 1
        complete = after is None or (same and oldest - 1 <= start <= newest)
        messages = [Stored(Position(epoch, offset), data) for offset, data in rows]
        return Reading(Position(epoch, newest), messages, complete)

    async def _look_again_and_again(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.002)

    def look(self) -> None:
        assert self._db is not None
        assert self._receiver is not None
        query = "SELECT id, topic, data, epoch, offset FROM messages WHERE id > ? ORDER BY id"
        for number, topic, data, epoch, offset in self._db.execute(query, (self._seen,)).fetchall():
            self._seen = number
            if topic in self._topics:
                self.hand_on(topic, data, None if epoch is None else Position(epoch, offset))

    def hand_on(self, topic: str, data: bytes, position: Position | None) -> None:
        assert self._receiver is not None
        self._receiver.received(topic, data, position)


def done(result: Any) -> Awaitable[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def failed(why: str) -> Awaitable[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(BusUnavailable(why))
    future.exception()  # so that nothing is said where nobody awaits it
    return future


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_one_that_is_right(check: Any, tmp_path: Path) -> None:
    await check(lambda: FileBus(tmp_path / "bus"))


async def test_topics_over_it(tmp_path: Path) -> None:
    def topics() -> wsfast.Topics:
        made = wsfast.Topics(FileBus(tmp_path / "bus"))
        made.configure("room.*", history=wsfast.History(), presence=True)
        return made

    server = wsfast.Server(topics=topics())

    @server.handler(None)
    async def room(ws: wsfast.WebSocket) -> None:
        await ws.subscribe("room.1")
        await ws.subscribe("plain")
        await ws.send("ready")
        async for _ in ws:
            pass

    await server.start("127.0.0.1", 0)
    async with topics() as other, server:
        async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as ws:
            assert await ws.recv() == "ready"
            await until(lambda: other.present("room.1"))
            other.publish("plain", "1")
            place = await other.publish("room.1", b"2")
            assert [await ws.recv(), await ws.recv()] == ["1", b"2"]
            assert [one.position async for one in other.history("room.1")] == [place]
        await until(lambda: not other.present("room.1"))


# --- What is wrong is told ------------------------------------------------------------------------------------------


class Coroutines(FileBus):
    async def publish(self, topic: str, data: bytes) -> None:
        await super().publish(topic, data)


class Tuples(FileBus):
    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Any:
        place: Any = super().store(topic, data, size, ttl)
        return place if place.exception() is not None else done(tuple(place.result()))


class Views(FileBus):
    def hand_on(self, topic: str, data: Any, position: Position | None) -> None:
        data = memoryview(data)
        super().hand_on(topic, data, position)


class Threads(FileBus):
    def hand_on(self, topic: str, data: bytes, position: Position | None) -> None:
        thread = threading.Thread(target=super().hand_on, args=(topic, data, position))
        thread.start()
        thread.join()


class Twice(FileBus):
    def hand_on(self, topic: str, data: bytes, position: Position | None) -> None:
        super().hand_on(topic, data, position)
        super().hand_on(topic, data, position)


class Loud(FileBus):
    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        if self._db is not None:
            return super().publish(topic, data)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(BusUnavailable("it is closed"))
        return future


class Complete(FileBus):
    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        return (await super().read(topic, after, limit))._replace(complete=True)


class FromTheNewest(FileBus):
    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        reading = await super().read(topic, after, limit)
        return reading if reading.complete else reading._replace(messages=reading.messages[-1:])


class Epochless(FileBus):
    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        reading = await super().read(topic, after, limit)
        return reading._replace(position=Position("an epoch", reading.position.offset))


class Deaf(FileBus):
    def unsubscribe(self, topic: str) -> None:
        pass


class Silent(FileBus):
    async def start(self, receiver: Receiver, origin: int) -> None:
        class Quiet:
            received = receiver.received
            process_ended = receiver.process_ended
            missed = receiver.missed

            @staticmethod
            def state_changed(up: bool, why: str) -> None:
                pass

        await super().start(Quiet(), origin)


WRONG = {
    Coroutines: (check_messages, "publish to return what need not be awaited"),
    Tuples: (check_histories, "a Position of each"),
    Views: (check_messages, "data that is bytes, got <memory"),
    Threads: (check_messages, "received to be called in the thread of the event loop, got None"),
    Twice: (check_messages, "the messages of room.1 in order"),
    Loud: (check_end, r"nothing to be said of what failed and is not awaited, got \['Future exception was never"),
    Complete: (check_histories, "another epoch's place to be incomplete"),
    FromTheNewest: (check_histories, "what is there, from the oldest on"),
    Epochless: (check_histories, "the place of the newest"),
    Deaf: (check_subscriptions, "nothing after unsubscribe"),
    Silent: (check_end, r"state_changed\(True, ...\) within"),
}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
async def test_one_that_is_wrong(kind: type[FileBus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "_PATIENCE", 0.2)
    check, told = WRONG[kind]
    made: list[FileBus] = []

    def make() -> FileBus:
        made.append(kind(tmp_path / "bus"))
        return made[-1]

    with pytest.raises(AssertionError, match=f"expected .*{told}"):
        await check(make)
    assert not [bus for bus in made if bus.is_open]


async def test_one_that_cannot_be_closed_does_not_keep_the_others_open(tmp_path: Path) -> None:
    class Unwilling(FileBus):
        async def close(self) -> None:
            await super().close()
            raise OSError("it cannot be closed")

    made: list[FileBus] = []

    def make() -> FileBus:
        made.append(Unwilling(tmp_path / "bus"))
        return made[-1]

    with pytest.raises(OSError, match="it cannot be closed"):
        async with conformance.processes(make, 3):
            pass
    assert len(made) == 3
    assert not [bus for bus in made if bus.is_open]
