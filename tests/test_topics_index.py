"""The index of topics and the gathering of a turn: both twins against a model, and against each other."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from wsfast._built import EXTENSIONS

TWINS = {"cython": "_topics", "python": "_topics_py"} if EXTENSIONS else {"python": "_topics_py"}


@pytest.fixture(params=list(TWINS.values()), ids=list(TWINS))
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """Each twin. A missing extension is an error, never a skip."""
    return importlib.import_module(f"wsfast.topics.{request.param}")


class Turn:
    """The loop's turn, which a test ends."""

    def __init__(self) -> None:
        self.gathering = 0
        self.loop = self
        self.calls: list[Callable[[], object]] = []

    def call_soon(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def end(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Sink:
    """A connection that notes what it is given."""

    def __init__(self, plain: bool = True, behind: bool = False) -> None:
        self.plain = plain
        self.behind = behind
        self.writes: list[tuple[bytes, int, bool]] = []
        self.failed: list[BaseException] = []
        self.raises: BaseException | None = None

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        if self.raises is not None:
            raise self.raises
        if self.plain:
            self.writes.append((frames, count, cork))
        return self.plain

    def send_behind(self, frames: bytes, count: int) -> bool:
        if self.behind:
            self.writes.append((frames, count, True))
        return self.behind

    def transport_failed(self, exc: BaseException) -> None:
        self.failed.append(exc)

    @property
    def got(self) -> bytes:
        return b"".join(frames for frames, _, _ in self.writes)


class Message:
    def __init__(self, frame: bytes, key: object = None) -> None:
        self.frame = frame
        self.key = key


class World:
    """An index and what it calls."""

    def __init__(self, twin: ModuleType) -> None:
        self.twin = twin
        self.turn = Turn()
        self.emptied: list[str] = []
        self.left: list[Any] = []
        self.slow: list[tuple[Any, list[bytes]]] = []
        self.index = twin.Index(self.turn, self.deliver_slowly, self.emptied.append, self.left.append)

    def deliver_slowly(self, member: Any, messages: list[Message]) -> None:
        self.slow.append((member, [message.frame for message in messages]))
        member.sink.writes.append((b"".join(message.frame for message in messages), len(messages), True))

    def member(self, *topics: str, plain: bool = True, behind: bool = False) -> Any:
        member = self.twin.Member(self.index, Sink(plain, behind))
        for topic in topics:
            assert self.index.subscribe(member, topic)
        return member

    def publish(self, topic: str, frame: bytes, but: Any = None, key: object = None) -> int:
        return int(self.index.publish(topic, Message(frame, key), but))


@pytest.fixture
def world(twin: ModuleType) -> World:
    return World(twin)


@pytest.mark.skipif(not EXTENSIONS, reason="wsfast was installed without extensions")
def test_the_twins_have_the_same_names_and_signatures() -> None:
    cython = importlib.import_module("wsfast.topics._topics")
    python = importlib.import_module("wsfast.topics._topics_py")
    assert cython.__all__ == python.__all__
    for name in python.__all__:
        ours, theirs = getattr(cython, name), getattr(python, name)
        public = {one for one in dir(theirs) if not one.startswith("_")}
        assert public == {one for one in dir(ours) if not one.startswith("_")}, name
        for one in public:
            if inspect.isfunction(getattr(theirs, one)):
                wanted = list(inspect.signature(getattr(theirs, one)).parameters)
                assert list(inspect.signature(getattr(ours, one)).parameters) == wanted, (name, one)


def test_a_turn_is_one_write_with_shared_bytes(world: World) -> None:
    members = [world.member("a") for _ in range(5)]
    for number in range(10):
        assert world.publish("a", b"%d;" % number) == 5
    assert not members[0].sink.writes
    assert world.turn.gathering == 1
    world.turn.end()
    assert world.turn.gathering == 0
    frames = {id(member.sink.writes[0][0]) for member in members}
    assert len(frames) == 1
    for member in members:
        assert member.sink.writes == [(b"0;1;2;3;4;5;6;7;8;9;", 10, False)]
    assert (world.index.deliveries, world.index.writes) == (50, 5)
    world.turn.end()
    assert not world.turn.calls


def test_topics_are_merged_in_the_order_of_the_calls(world: World) -> None:
    both, one = world.member("a", "b"), world.member("b")
    for topic, frame in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("b", b"4"), ("b", b"5")):
        world.publish(topic, frame)
    world.turn.end()
    assert both.sink.writes == [(b"12345", 5, False)]
    assert one.sink.writes == [(b"245", 3, False)]


def test_nobody_is_told_what_came_before_or_after_his_time(world: World) -> None:
    stays = world.member("a")
    world.publish("a", b"1")
    late = world.member("a")
    leaves = world.member("a")
    world.publish("a", b"2")
    assert world.index.unsubscribe(leaves, "a")
    world.publish("a", b"3")
    world.turn.end()
    assert stays.sink.got == b"123"
    assert late.sink.got == b"23"
    assert leaves.sink.writes == [(b"2", 1, True)]


def test_a_publisher_does_not_get_its_own(world: World) -> None:
    one, other = world.member("a"), world.member("a")
    world.publish("a", b"1")
    world.publish("a", b"2", one)
    world.publish("a", b"3", other)
    world.publish("a", b"4")
    world.turn.end()
    assert one.sink.got == b"134"
    assert other.sink.got == b"124"


def test_settling_puts_what_is_pending_in_front(world: World) -> None:
    member = world.member("a", "b")
    world.publish("a", b"1")
    world.publish("b", b"2")
    member.settle()
    assert member.sink.writes == [(b"12", 2, True)]
    member.settle()
    world.publish("a", b"3")
    world.turn.end()
    assert member.sink.writes == [(b"12", 2, True), (b"3", 1, False)]


def test_the_newest_of_each_key(world: World) -> None:
    member = world.twin.Member(world.index, Sink())
    world.index.subscribe(member, "price", True)
    for key, frame in (("x", b"x1"), ("y", b"y1"), ("x", b"x2"), (None, b"n1"), ("y", b"y2"), (None, b"n2")):
        world.publish("price", frame, key=key)
    world.turn.end()
    assert member.sink.got == b"x2y2n2"
    assert world.index.conflated == 3
    world.publish("price", b"x3", key="x")
    member.settle()
    world.publish("price", b"x4", key="x")
    world.turn.end()
    assert member.sink.got == b"x2y2n2x3x4"


def test_what_is_not_plain_goes_the_slow_way(world: World) -> None:
    plain, other = world.member("a", "b"), world.member("a", "b", plain=False)
    world.publish("a", b"1")
    world.publish("b", b"2")
    world.turn.end()
    assert plain.sink.got == other.sink.got == b"12"
    assert world.slow == [(other, [b"1", b"2"])]
    assert world.index.deliveries == 2


def test_one_that_is_behind_goes_the_slow_way_where_that_matters(world: World) -> None:
    """Where a message may be left out for a newer one, or something of the connection's own is to be looked at."""
    world.index.subscribe(watching := world.member(plain=False, behind=True), "price", True)
    behind, busy = (world.member("a", plain=False, behind=True) for _ in range(2))
    busy.extra = object()
    for member in (behind, busy):
        world.index.subscribe(member, "price", True)
    world.index.subscribe(watching, "a")
    world.publish("a", b"1")
    world.publish("a", b"2")
    world.turn.end()
    assert behind.sink.writes == watching.sink.writes == [(b"12", 2, True)]
    assert world.slow == [(busy, [b"1", b"2"])]
    assert (world.index.deliveries, world.index.writes) == (4, 2)
    world.slow.clear()
    world.publish("a", b"3")
    world.publish("price", b"4", key="x")
    world.turn.end()
    assert sorted(world.slow, key=lambda one: [watching, behind, busy].index(one[0])) == [
        (member, [b"3", b"4"]) for member in (watching, behind, busy)
    ]


def test_one_that_fails_does_not_keep_it_from_the_others(world: World) -> None:
    members = [world.member("a") for _ in range(3)]
    error = OSError("gone")
    members[1].sink.raises = error
    world.publish("a", b"1")
    world.turn.end()
    assert [member.sink.got for member in members] == [b"1", b"", b"1"]
    assert members[1].sink.failed == [error]


def test_ctrl_c_keeps_it_from_nobody(world: World) -> None:
    members = [world.member("a") for _ in range(3)]
    members[1].sink.raises = KeyboardInterrupt()
    world.publish("a", b"1")
    with pytest.raises(KeyboardInterrupt):
        world.turn.end()
    world.turn.end()
    assert sum(member.sink.got == b"1" for member in members) == 2
    assert world.turn.gathering == 0


def test_leaving(world: World) -> None:
    one, other = world.member("a", "b"), world.member("b")
    world.publish("b", b"1")
    one.leave()
    one.leave()
    assert world.left == [one]
    assert one.topics == []
    assert one.sink is None
    assert world.emptied == ["a"]
    world.turn.end()
    assert other.sink.got == b"1"
    assert world.index.subscriptions == 1
    other.leave()
    assert world.emptied == ["a", "b"]
    assert world.index.topics == {}
    assert world.publish("b", b"2") == 0
    assert world.index.subscriptions == 0


def test_a_member_that_is_forgotten_is_no_trouble(world: World) -> None:
    kept = world.member("a", "b")
    for _ in range(20):
        gone = world.member("b", "a")
        del gone
    world.publish("a", b"1")
    world.turn.end()
    assert kept.sink.got == b"1"


def test_so_much_is_not_held_until_the_end_of_the_turn(world: World) -> None:
    member = world.member("a")
    world.publish("a", bytes(2_000_000))
    assert not member.sink.writes
    world.publish("a", b"1")
    assert [count for _, count, _ in member.sink.writes] == [2]
    world.publish("a", b"2")
    world.turn.end()
    assert member.sink.got[-1:] == b"2"
    assert world.turn.gathering == 0


def test_a_long_flush_gives_others_a_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def perf_counter() -> float:
        now[0] += 0.003
        return now[0]

    monkeypatch.setattr(world.twin, "perf_counter", perf_counter, raising=False)
    members = [world.member("a") for _ in range(100)]
    world.publish("a", b"1")
    turns = 0
    while world.turn.calls:
        world.turn.end()
        turns += 1
        if turns == 1:
            assert 0 < sum(bool(member.sink.writes) for member in members) < 100
            world.publish("a", b"2")  # while a flush is under way
            members[0].settle()
    assert turns > 2
    assert {member.sink.got for member in members} == {b"12"}
    assert world.turn.gathering == 0


@pytest.mark.parametrize("seed", range(40))
def test_as_a_model_says(twin: ModuleType, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random calls, in which turns end in the middle: each connection gets what it should, in order."""
    rng = random.Random(seed)
    ticks = [0.0]

    def perf_counter() -> float:
        ticks[0] += rng.choice([0.0, 0.001, 0.01])
        return ticks[0]

    monkeypatch.setattr(twin, "perf_counter", perf_counter)
    world = World(twin)
    topics = [f"t{i}" for i in range(rng.choice([1, 3, 12]))]
    members = [
        world.member(plain=rng.random() < 0.8, behind=rng.random() < 0.5) for _ in range(rng.choice([3, 40, 200]))
    ]
    expected: dict[int, list[bytes]] = {i: [] for i in range(len(members))}
    subscribed: dict[int, set[str]] = {i: set() for i in range(len(members))}
    number = 0
    for _ in range(rng.choice([100, 1500])):
        i = rng.randrange(len(members))
        topic = rng.choice(topics)
        what = rng.random()
        if what < 0.3:
            assert world.index.subscribe(members[i], topic) == (topic not in subscribed[i])
            subscribed[i].add(topic)
        elif what < 0.4:
            assert world.index.unsubscribe(members[i], topic) == (topic in subscribed[i])
            subscribed[i].discard(topic)
        elif what < 0.8:
            number += 1
            frame = b"%d," % number
            but = i if rng.random() < 0.3 else None
            world.publish(topic, frame, None if but is None else members[but])
            for j, mine in subscribed.items():
                if topic in mine and j != but:
                    expected[j].append(frame)
        elif what < 0.9:
            members[i].settle()
        elif what < 0.97:
            world.turn.end()
        else:
            members[i].leave()
            subscribed[i].clear()
            members[i] = world.member(plain=rng.random() < 0.8, behind=rng.random() < 0.5)
            expected[i] = []
    while world.turn.calls:
        world.turn.end()
    for i, member in enumerate(members):
        assert member.sink.got == b"".join(expected[i]), (seed, i)
        assert set(member.topics) == subscribed[i]
        assert member.size == len(subscribed[i])
    assert world.index.subscriptions == sum(map(len, subscribed.values()))
    assert world.turn.gathering == 0
    assert set(world.index.topics) == set().union(*subscribed.values())
