"""Topics over a bus: numbers, gaps, duplicates, histories and presence of several processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from engines import free_port
from shared import until
from test_topics import World, take, world

import wsfast
from wsfast.bus import Bus, LocalBus, NatsBus, Position, Reading, Receiver, RedisBus
from wsfast.bus.memory import Taken
from wsfast.bus.outbox import given_up
from wsfast.bus.store import Store
from wsfast.topics.numbers import Gap, Incoming, Outgoing
from wsfast.topics.topics import hub_of

pytestmark = pytest.mark.anyio


class Net:
    """What the buses of a test share, and what goes wrong on it."""

    def __init__(self) -> None:
        self.buses: list[FaultyBus] = []
        self.store = Store()
        self.lose: Callable[[str, bytes, FaultyBus], bool] = lambda topic, data, to: False
        self.times = 1  # how often a message arrives


class FaultyBus(Bus):
    """A bus in memory that loses and repeats messages as a test says."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.topics: set[str] = set()
        self.up = True
        self.receiver: Receiver

    async def start(self, receiver: Receiver, origin: int) -> None:
        self.receiver = receiver
        self.net.buses.append(self)
        receiver.state_changed(True, "it is a test")

    async def close(self) -> None:
        self.net.buses.remove(self)

    def subscribe(self, topic: str) -> None:
        self.topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        self.topics.discard(topic)

    async def settled(self) -> None:
        if not self.up:
            raise wsfast.BusUnavailable("it is a test")

    def send(self, topic: str, data: bytes, position: Position | None) -> None:
        for bus in self.net.buses:
            if bus.up and topic in bus.topics and not self.net.lose(topic, data, bus):
                for _ in range(self.net.times):
                    bus.receiver.received(topic, data, position)

    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        if not self.up:
            return given_up("it is a test")
        self.send(topic, data, None)
        return Taken()

    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        position = self.net.store.append(topic, data, size, ttl, 0.0)
        self.send(topic, data, position)
        return Taken(position)

    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        if not self.up:
            raise wsfast.BusUnavailable("it is a test")
        await asyncio.sleep(0)
        return self.net.store.read(topic, after, limit, 0.0)

    def set_up(self, up: bool) -> None:
        self.up = up
        self.receiver.state_changed(up, "it is a test")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make processes tell each other sooner."""
    monkeypatch.setattr("wsfast.topics.others._BEAT", 0.05)
    monkeypatch.setattr("wsfast.topics.numbers._PATIENCE", 0.04)
    monkeypatch.setattr("wsfast.topics.numbers._SLACK", 0.02)


@contextlib.asynccontextmanager
async def two_worlds(**options: Any) -> AsyncIterator[tuple[Net, World, World, list[Gap]]]:
    net = Net()
    gaps: list[Gap] = []
    made = []
    for _ in range(2):
        topics = wsfast.Topics(FaultyBus(net), on_gap=gaps.append, **options)
        topics.configure("room.*", history=wsfast.History(size=100))
        topics.configure("live.*", presence=True)
        topics.configure("price.*", conflate=True)
        made.append(topics)
    async with world(made[0]) as one, world(made[1]) as two:
        yield net, one, two, gaps


async def test_to_other_processes() -> None:
    async with two_worlds(key=b"secret") as (_, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("a")
        await ours.subscribe("price.x")
        one.server.publish("a", "text")
        one.server.publish("a", b"\xff")
        for number in range(5):
            one.server.publish("price.x", f"{number}", key="k")
        two.server.publish("a", "its own")
        assert await take(ws, 4) == ["text", b"\xff", "4", "its own"]
        assert gaps == []


async def test_duplicates_are_dropped() -> None:
    async with two_worlds() as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("a")
        await ours.subscribe("room.a")
        net.times = 3
        for number in range(10):
            one.server.publish("a", f"{number}")
            one.server.publish("room.a", f"r{number}")
        assert await take(ws, 20) == [f"{kind}{number}" for number in range(10) for kind in ("", "r")]
        assert two.topics.counters["duplicates"] == 40
        assert gaps == []


async def test_a_loss_is_told_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async with two_worlds() as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("a")
        one.server.publish("a", "1")
        net.lose = lambda topic, data, to: data.endswith(b"lost")
        for _ in range(3):
            one.server.publish("a", "lost")
        one.server.publish("a", "2")
        assert await take(ws, 2) == ["1", "2"]
        assert gaps == [Gap("a", 3)]
        assert two.topics.counters["gaps"] == 1
        assert "messages were lost in 'a': 3" in caplog.text


@pytest.mark.usefixtures("quick")
async def test_a_loss_at_the_end_is_told_by_the_tail() -> None:
    async with two_worlds() as (net, one, two, gaps):
        _, ours = await two.client()
        await ours.subscribe("a")
        await ours.subscribe("never")
        await asyncio.sleep(0.3)
        one.server.publish("a", "1")
        net.lose = lambda topic, data, to: data.endswith(b"lost")
        one.server.publish("a", "lost")
        one.server.publish("never", "lost")
        await until(lambda: len(gaps) == 2)
        assert sorted(gaps) == [Gap("a", 1), Gap("never", 1)]
        await asyncio.sleep(0.3)
        assert len(gaps) == 2


@pytest.mark.usefixtures("quick")
async def test_what_was_lost_while_the_bus_was_down_is_told() -> None:
    async with two_worlds() as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("a")
        await asyncio.sleep(0.2)
        one.server.publish("a", "1")
        bus = net.buses[1]
        bus.set_up(False)
        assert two.topics.health == "degraded"
        for _ in range(5):
            one.server.publish("a", "lost")
        two.server.publish("a", "local goes on")
        with pytest.raises(wsfast.BusUnavailable):
            await two.server.publish("a", "local goes on")
        await asyncio.sleep(0.3)  # some tails are lost as well
        bus.set_up(True)
        assert two.topics.health == "up"
        await until(lambda: gaps)
        assert gaps == [Gap("a", 5)]
        assert await take(ws, 3) == ["1", "local goes on", "local goes on"]


async def test_a_history_recovers_what_was_lost() -> None:
    async with two_worlds() as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("room.a")
        lost: set[bytes] = set()
        net.lose = lambda topic, data, to: topic == "room.a" and data[-1:] in b"357"
        for number in range(10):
            one.server.publish("room.a", f"{number}")
            if number % 4 == 0:
                await asyncio.sleep(0)
        assert await take(ws, 10) == [f"{number}" for number in range(10)]
        assert gaps == []
        assert not lost
        assert two.topics.counters["recovered"] >= 3


async def test_a_history_recovers_what_was_missed_while_the_bus_was_down() -> None:
    async with two_worlds() as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("room.a")
        one.server.publish("room.a", "0")
        bus = net.buses[1]
        bus.set_up(False)
        for number in range(1, 50):
            one.server.publish("room.a", f"{number}")
        bus.set_up(True)
        assert await take(ws, 50) == [f"{number}" for number in range(50)]
        # More than is kept: what is gone is told, what is there is delivered.
        bus.set_up(False)
        for number in range(50, 250):
            one.server.publish("room.a", f"{number}")
        bus.set_up(True)
        assert await take(ws, 100) == [f"{number}" for number in range(150, 250)]
        assert gaps == [Gap("room.a", 100)]


@pytest.mark.usefixtures("quick")
async def test_hooks_may_do_anything(caplog: pytest.LogCaptureFixture) -> None:
    """They publish, subscribe, unsubscribe, raise, and return a coroutine, within what called them."""
    async with two_worlds() as (net, one, two, _):
        client, ours = await two.client()
        told: list[Gap] = []

        def on_gap(gap: Gap) -> None:
            told.append(gap)
            two.topics.publish("said", f"lost {gap.missed} in {gap.topic}")
            for topic in ("plain", "room.1"):
                ours.unsubscribe(topic)
            for topic in ("plain", "room.1", "live.1"):
                ours.subscribe(topic)
            raise LookupError("of the hook's own")

        async def later(*_: object) -> None:
            raise AssertionError("nobody awaits it")

        two.topics.on_gap = on_gap
        two.topics.on_presence = lambda *_: later()
        for topic in ("said", "plain", "room.1"):
            await ours.subscribe(topic)
        one.server.publish("plain", "1")
        net.lose = lambda topic, data, to: data.endswith(b"lost")
        one.server.publish("plain", "lost")
        one.server.publish("plain", "2")
        assert await take(client, 3) == ["1", "lost 1 in plain", "2"]
        # Who subscribes anew while a history is read gets what comes from then on.
        await hub_of(two.topics).settled("room.1")
        for number in range(150):
            await one.server.publish("room.1", f"{number} lost")
        await one.server.publish("room.1", "newest")
        await until(lambda: len(told) == 2)
        await one.server.publish("room.1", "end")
        assert await take(client, 2) == ["lost 51 in room.1", "end"]
        assert told == [Gap("plain", 1), Gap("room.1", 51)]
    messages = [record.getMessage() for record in caplog.records if record.exc_info]
    assert messages.count("on_gap raised") == 2
    assert messages.count("on_presence raised") == len(messages) - 2 >= 1


async def test_a_history_that_begins_anew_is_no_loss() -> None:
    """Whatever histories were forgotten since somebody subscribed, nothing is told that was not."""
    async with two_worlds() as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("room.a")
        for _ in range(5):
            await one.server.publish("room.b", "x")
        net.store._forget("room.b")
        epochs = set()
        for number in range(3):
            for i in range(2):
                place = await one.server.publish("room.a", f"{number} {i}")
                assert place is not None
                assert place.offset == i + 1
                epochs.add(place.epoch)
            assert await take(ws, 2) == [f"{number} 0", f"{number} 1"]
            net.store._forget("room.a")
        assert len(epochs) == 3
        assert gaps == []


async def test_a_publisher_does_not_get_its_own_from_the_history() -> None:
    async with two_worlds() as (_, one, two, _):
        (ws, ours), (other_ws, other) = await one.client(), await two.client()
        for member in (ours, other):
            await member.subscribe("room.a")
        ours.publish("room.a", "1")
        one.server.publish("room.a", "2")
        assert await take(other_ws, 2) == ["1", "2"]
        assert await take(ws, 1) == ["2"]


@pytest.mark.usefixtures("quick")
async def test_presence_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsfast.topics.others._DEAD", 0.3)
    async with two_worlds() as (net, one, two, _):
        happened: list[tuple[str | None, bool]] = []
        two.topics.on_presence = lambda topic, present, came: happened.append((present.info, came))
        (_, a), (_, b) = await one.client(), await two.client()
        a.subscribe("live.1", info="Ada")
        b.subscribe("live.1", info="Bob")

        def seen(by: World) -> list[str]:
            return sorted(present.info or "" for present in by.topics.present("live.1"))

        await until(lambda: seen(one) == seen(two) == ["Ada", "Bob"])
        # A change that is lost is noticed by the next sign of life.
        net.lose = lambda topic, data, to: b"changes" in data
        _, c = await one.client()
        c.subscribe("live.1", info="Cy")
        await asyncio.sleep(0.02)
        net.lose = lambda topic, data, to: False
        await until(lambda: seen(two) == ["Ada", "Bob", "Cy"])
        # A process that comes later learns of all.
        topics = wsfast.Topics(FaultyBus(net))
        topics.configure("live.*", presence=True)
        async with topics:
            await until(lambda: len(topics.present("live.1")) == 3)
        # One that hangs is gone after a while, and comes back.
        net.lose = lambda topic, data, to: to is net.buses[1]
        await until(lambda: seen(two) == ["Bob"])
        net.lose = lambda topic, data, to: False
        await until(lambda: seen(two) == ["Ada", "Bob", "Cy"])
        assert ("Ada", False) in happened
        # The bus says that it has ended.
        net.buses[1].receiver.process_ended(hub_of(one.topics).origin)
        assert seen(two) == ["Bob"]


@pytest.mark.usefixtures("quick")
async def test_a_process_that_was_held_up_takes_nobody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that blocks, or is stopped, has not read what others have sent it meanwhile: nothing is lost."""
    monkeypatch.setattr("wsfast.topics.others._DEAD", 0.3)
    async with two_worlds() as (net, one, two, gaps):
        left: list[str | None] = []
        for world in (one, two):
            world.topics.on_presence = lambda topic, present, came: None if came else left.append(present.info)
        (_, a), (ws, b) = await one.client(), await two.client()
        a.subscribe("live.1", info="Ada")
        b.subscribe("live.1", info="Bob")
        await until(lambda: len(one.topics.present("live.1")) == len(two.topics.present("live.1")) == 2)
        one.server.publish("live.1", "first")
        assert await take(ws, 1) == ["first"]
        # A message is under way while the tail that counts it has come.
        late: list[tuple[str, bytes]] = []

        def hold(topic: str, data: bytes, to: FaultyBus) -> bool:
            if topic == "live.1":
                late.append((topic, data))
            return topic == "live.1"

        net.lose = hold
        one.server.publish("live.1", "late")
        await until(lambda: hub_of(two.topics)._incoming._suspects)
        net.lose = lambda topic, data, to: False
        time.sleep(0.4)  # noqa: ASYNC251 - which is what is tested
        asyncio.get_running_loop().call_soon(lambda: net.buses[1].receiver.received(*late[0], None))
        assert await take(ws, 1) == ["late"]
        assert (gaps, left) == ([], [])


async def test_what_others_must_not_send(caplog: pytest.LogCaptureFixture) -> None:
    """Malformed, unsigned and unknown: dropped, counted, and told in few lines; nothing else happens."""
    async with two_worlds(key=b"secret") as (net, one, two, gaps):
        ws, ours = await two.client()
        await ours.subscribe("a")
        await ours.subscribe("room.a")
        receiver = net.buses[1].receiver
        plain = wsfast.topics.envelope.Sealer()
        mine = hub_of(two.topics)._sealer
        good = mine.seal("a", 7, 1, b"x", text=True, first=True, key=None)
        for topic, data, position in (
            ("a", b"", None),
            ("a", bytes(100), None),
            ("a", plain.seal("a", 7, 1, b"x", text=True, first=True, key=None), None),
            ("room.a", good, None),
            ("room.a", mine.seal("room.a", 7, 1, b"x", text=True, first=True, key=None), None),
            ("!", b"nonsense", None),
            *(
                ("!", mine.seal_control(7, content), None)
                for content in (
                    {"tail": "x"},
                    {"tail": 1, "of": [5]},
                    {"tail": 1, "of": [["a", -1, 2, 3]]},
                    {"tail": 1, "of": [["a", 1.5, 2, 3]]},
                    {"presence": "x"},
                    {"presence": 1, "changes": 5},
                    {"presence": 1, "changes": [["a"]]},
                    {"presence": 1, "all": [["a", "b", 5]], "part": 0, "parts": 1},
                )
            ),
        ):
            receiver.received(topic, data, position)
        for harmless in ({}, {"ask": "nonsense"}, {"unknown": [1]}):
            receiver.received("!", mine.seal_control(7, harmless), None)
        assert two.topics.counters["refused"] == 14
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
        one.server.publish("a", "fine")
        assert await take(ws, 1) == ["fine"]
        assert gaps == []


async def test_over_the_local_bus(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        topics = wsfast.Topics(LocalBus(tmp_path / "bus"))
        topics.configure("room.*", history=wsfast.History(size=100), presence=True)
        made.append(topics)
    async with world(made[0]) as one, world(made[1]) as two:
        (a, at_a), (b, at_b) = await one.client(), await two.client()
        for ours in (at_a, at_b):
            await ours.subscribe("a")
            await ours.subscribe("room.a")
        for number in range(100):
            at_a.publish("a", f"{number}")
            at_b.publish("room.a", f"r{number}")
        assert sorted(await take(b, 100), key=int) == [f"{number}" for number in range(100)]
        assert await take(a, 100) == [f"r{number}" for number in range(100)]
        await until(lambda: len(one.topics.present("room.a")) == len(two.topics.present("room.a")) == 2)


# --- Numbers, without a loop ---------------------------------------------------------------------------------------


def test_numbers_that_were_forgotten_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that starts again must not look like old news."""
    monkeypatch.setattr("wsfast.topics.numbers._MAX_TOPICS", 2)
    outgoing, incoming = Outgoing(), Incoming(9)
    incoming.join("a", 0.0)
    for _ in range(5):
        number, first = outgoing.next("a", 1.0)
        assert incoming.accept("a", 1, number, first) == 0
    for topic in ("b", "c", "d"):
        outgoing.next(topic, 1.0)
    number, first = outgoing.next("a", 2.0)
    assert (number > 5, first) == (True, True)
    assert incoming.accept("a", 1, number, first) == 0


def test_tails_of_what_is_tried_again_wait() -> None:
    outgoing = Outgoing()
    outgoing.next("h", 0.0, settles=True)
    assert outgoing.tails(1.0)[0]["of"] == []
    assert outgoing.tails(13.0)[0]["of"] == []  # what was sent after the mark has not settled
    assert outgoing.tails(26.0)[0]["of"] == [["h", 0, 1, 26000, 26000]]
    assert outgoing.tails(40.0)[0]["of"] == []


@pytest.mark.parametrize("settles", [False, True], ids=["plain", "history"])
def test_what_was_published_before_a_subscription_is_no_loss(settles: bool) -> None:
    """Neither where a process is heard of for the first time, nor where its last messages settle much later."""
    outgoing, incoming = Outgoing(), Incoming(9)

    def published(*times: float) -> None:
        for now in times:
            outgoing.next("t", now, settles=settles)

    def told(until: float) -> list[Gap]:
        gaps = []
        for now in range(int(told_until[0]) + 1, int(until) + 1):
            for content in outgoing.tails(float(now)):
                incoming.tail(1, content["tail"], content["of"], now + 0.01)
            gaps += incoming.check(float(now))
        told_until[0] = until
        return gaps

    told_until = [10.0]
    published(10.1, 10.2)
    incoming.join("t", 10.3)
    assert told(40) == []
    published(40.5)  # and lost: it was there long enough to know how many
    assert told(70) == [Gap("t", 1)]
    incoming.leave("t")
    published(70.1)
    incoming.join("t", 70.2)
    published(70.8)  # and lost: how many were before it, nobody knows
    assert told(100) == [Gap("t", None)]
    published(100.3, 100.4)
    assert told(130) == [Gap("t", 2)]


@pytest.mark.usefixtures("quick")
async def test_what_a_tail_misses_of_a_history_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told to be lost only if it is not there either."""
    monkeypatch.setattr("wsfast.topics.numbers._SETTLES", 0.1)
    async with two_worlds() as (net, one, two, gaps):
        client, ours = await two.client()
        await ours.subscribe("room.1")
        await one.server.publish("room.1", "1")
        assert await take(client, 1) == ["1"]
        net.lose = lambda topic, data, to: data.endswith(b"lost")
        await one.server.publish("room.1", "the last, lost")
        assert await take(client, 1) == ["the last, lost"]
        await asyncio.sleep(0.3)
        assert (gaps, two.topics.counters["recovered"]) == ([], 1)
        store = net.store
        net.store = Store()  # as of an engine that has begun anew without it
        await one.server.publish("room.1", "gone, lost")
        net.store = store
        await until(lambda: gaps)
        assert gaps == [Gap("room.1", 1)]


def test_a_process_whose_first_messages_were_lost_is_told_of() -> None:
    outgoing, incoming = Outgoing(), Incoming(9)
    incoming.join("t", 0.0)
    for now in (10.1, 10.2):
        outgoing.next("t", now)
    incoming.accept("t", 1, *outgoing.next("t", 10.3))
    (content,) = outgoing.tails(11.0)
    incoming.tail(1, content["tail"], content["of"], 11.0)
    assert incoming.check(12.0) == [Gap("t", 2)]


def test_a_message_that_is_late_is_no_loss() -> None:
    incoming = Incoming(9)
    incoming.join("a", 0.0)
    incoming.heard(1, 0.0)
    incoming.accept("a", 1, 1, True)
    assert not incoming.tail(1, 1, [["a", 0, 3, 0, 0]], 10.0)
    assert incoming.accept("a", 1, 2, False) == 0
    assert incoming.accept("a", 1, 3, False) == 0
    assert incoming.check(20.0) == []
    assert incoming.tail(1, 3, [], 21.0)  # tail 2 is missing
    assert not incoming.tail(1, 4, [["a", 3, 5, 0, 0]], 22.0)
    assert incoming.check(22.5) == []
    assert incoming.check(24.0) == [Gap("a", 2)]
    assert incoming.check(25.0) == []


def test_the_numbers_of_processes_that_ended_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are replaced for months, or origins that somebody makes up, do not pile up."""
    from wsfast.topics import numbers

    incoming = Incoming(9)
    incoming.join("t", 0.0)
    incoming.heard(1, 100.0)
    for origin in (1, 2):
        assert incoming.accept("t", origin, 5, first=False) == 0
    incoming.sweep(100.0)
    incoming.sweep(159.0)
    assert incoming.accept("t", 2, 5, first=False) is None  # it may have ended a moment ago
    incoming.sweep(160.0)
    assert set(incoming._latest["t"]) == {1}
    assert set(incoming._unsure) == {("t", 1)}
    assert incoming.accept("t", 1, 5, first=False) is None

    monkeypatch.setattr(numbers, "_MAX_ORIGINS", 10)
    for origin in range(10, 40):
        assert incoming.accept("t", origin, 5, first=False) == 0
    assert set(incoming._latest["t"]) == set(range(30, 40))
    assert len(incoming._unsure) == 10


def test_the_numbers_of_this_process_itself_are_not_forgotten() -> None:
    """It is not among those who give signs of life, and what it stores again in a new epoch has come already."""
    incoming = Incoming(9)
    incoming.join("t", 0.0, kept=True)
    assert incoming.accept("t", 9, 5, first=False, ordered=True) == 0
    for now in (100.0, 160.0, 220.0):
        incoming.sweep(now)
    assert incoming.accept("t", 9, 4, first=False, ordered=True) is None
    assert incoming.accept("t", 9, 6, first=False, ordered=True) == 0


async def test_presence_that_changes_while_the_bus_is_down() -> None:
    """What changes is not kept for the others: they are told all, once it is up again."""
    net = Net()
    topics = wsfast.Topics(FaultyBus(net))
    topics.configure("room", presence=True)
    async with topics:
        await until(lambda: topics.health == "up")
        hub = hub_of(topics)
        assert hub.home is not None
        hub.state_changed(False, "it is a test")
        for number in range(1000):
            hub.presence.come("room", str(number), None)
            hub.moved("room", hub.presence.present("room")[0], True)
            hub.home._go("room", str(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert hub.presence._changes == []
        assert hub.presence.version > 0
        assert hub.presence.present("room") == []


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: RedisBus(f"redis://127.0.0.1:{free_port()}"),
        lambda: RedisBus(f"redis://127.0.0.1:{free_port()}", cluster=True),
        lambda: NatsBus(f"nats://127.0.0.1:{free_port()}"),
    ],
    ids=["redis", "cluster", "nats"],
)
async def test_a_bus_that_does_not_come_up_says_why(make: Callable[[], Bus], caplog: pytest.LogCaptureFixture) -> None:
    """Once, however often it tries."""
    async with wsfast.Topics(make()) as topics:
        assert topics.health == "degraded"
        with pytest.raises(wsfast.BusUnavailable):
            await topics.publish("room", "x")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "wsfast.topics"]
    assert line.startswith("bus is down: ")
    assert "not reached" not in line
    assert "onnect" in line


async def test_a_bus_that_says_nothing_is_down(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        await asyncio.start_server(_silent, "127.0.0.1", 0) as server,
        wsfast.Topics(RedisBus(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")),
    ):
        assert caplog.messages == ["bus is down: others were not reached within 3 s"]
