"""What a bus must do: tests for authors of a bus.

::

    from wsfast.testing.bus import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_bus(check):
        await check(lambda: MyBus("..."))

Each check takes a callable that returns a new bus, as a process of one application makes it; buses that it returns
within one check must reach each other, and no other's. A check raises `AssertionError` with what was expected and what
came. They take a few seconds together, run on one event loop, and need nothing but the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from ..bus.interface import Bus, Position
from ..exceptions import BusUnavailable

__all__ = ["CHECKS", "Process", "check_bus", "processes"]

_PATIENCE: Final = 10.0

Make: TypeAlias = Callable[[], Bus]


class Process:
    """A process of an application: a bus, and what it called.

    Attributes:
        bus: the bus.
        origin: the process' number.
        messages: what was received without a position: topic and data.
        stored: what was received with one: topic, data and position.
        up: whether the bus is up.
        states: what the bus said of that, in order.
        missing: the topics of which the bus said that messages may have been missed.
        ended: the processes that the bus said have ended.
        answer: what is called with each message, its topic and data, before it is noted.
        faults: what it called as it must not.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.origin: int = secrets.randbits(62) | 1
        self.messages: list[tuple[str, bytes]] = []
        self.stored: list[tuple[str, bytes, Position]] = []
        self.up: bool = False
        self.states: list[bool] = []
        self.missing: list[str] = []
        self.ended: list[int] = []
        self.answer: Callable[[str, bytes], object] | None = None
        self.faults: list[AssertionError] = []
        self._loop = asyncio.get_running_loop()

    def received(self, topic: str, data: bytes, position: Position | None) -> None:
        """Note a message."""
        self._check_loop("received")
        self._check(type(topic) is str, "received to be given a topic that is str", topic)
        self._check(type(data) is bytes, "received to be given data that is bytes", data)
        self._check(position is None or isinstance(position, Position), "a Position or None", position)
        if self.answer is not None:
            self.answer(topic, data)
        if position is None:
            self.messages.append((topic, data))
        else:
            self.stored.append((topic, data, position))

    def state_changed(self, up: bool, why: str) -> None:
        """Note the state."""
        self._check_loop("state_changed")
        self._check(type(up) is bool, "state_changed to say whether it is up by a bool", up)
        self._check(isinstance(why, str) and why, "state_changed to say why", why)
        self.up = up
        self.states.append(up)

    def missed(self, topics: Iterable[str]) -> None:
        """Take note that messages may have been missed."""
        self._check_loop("missed")
        self.missing.extend(topics)

    def process_ended(self, origin: int) -> None:
        """Note the end of another."""
        self._check_loop("process_ended")
        self.ended.append(origin)

    def _check_loop(self, name: str) -> None:
        running = asyncio._get_running_loop()
        self._check(running is self._loop, f"{name} to be called in the thread of the event loop", running)

    def _check(self, condition: object, expected: str, came: object) -> None:
        """Note a fault of the bus, which may do anything with what is raised here."""
        try:
            _expect(condition, expected, came)
        except AssertionError as exc:
            self.faults.append(exc)

    async def join(self, *topics: str) -> None:
        """Subscribe, and wait until that is in force."""
        for topic in topics:
            self.bus.subscribe(topic)
        await self.bus.settled()


def _expect(condition: object, expected: str, came: object) -> None:
    if not condition:
        raise AssertionError(f"expected {expected}, got {came!r:.500}")


def _need_not_be_awaited(taken: object) -> bool:
    """Tell whether an object is awaitable, and nothing is done by awaiting it, as a coroutine would."""
    if asyncio.iscoroutine(taken):
        taken.close()  # so that nothing is said of it besides
        return False
    return hasattr(taken, "__await__")


async def _until(condition: Callable[[], object], expected: str, came: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE
    while not condition():  # also after the last wait, in which a busy machine may have done all of it
        if loop.time() >= end:
            raise AssertionError(f"expected {expected} within {_PATIENCE} s, got {came()!r:.500}")
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def processes(make: Make, count: int) -> AsyncIterator[list[Process]]:
    """Run some processes, which reach each other, and close them in the end."""
    made: list[Process] = []
    try:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(count):
                process = Process(make())
                stack.push_async_callback(process.bus.close)
                made.append(process)
            for process in made:
                await process.bus.start(process, process.origin)
            for process in made:
                await _until(lambda process=process: process.up, "state_changed(True, ...)", lambda: "nothing")  # type: ignore[misc]
            for process in made:
                await process.join("hello")
            yield made
    finally:
        for process in made:
            if process.faults:
                raise process.faults[0]


async def check_messages(make: Make) -> None:
    """Messages reach those that subscribed, each once, unchanged, in the order of the calls."""
    topics = ["room.1", "a", "x" * 200, "A-Z_a.z:0@9/", "!"]
    payloads = [b"", b"\x00", bytes(range(256)), b"x" * 70_000, b"\r\n", b"y" * 1_000_000]
    async with processes(make, 3) as (one, two, three):
        await two.join(*topics)
        await three.join(topics[0])
        for _ in range(3):
            for topic in topics:
                for payload in payloads:
                    taken = one.bus.publish(topic, payload)
                    _expect(_need_not_be_awaited(taken), "publish to return what need not be awaited", taken)
                    await taken
        expected = [(topic, payload) for _ in range(3) for topic in topics for payload in payloads]
        await _until(lambda: len(two.messages) >= len(expected), "all messages", lambda: len(two.messages))
        for topic in topics:
            wanted = [payload for other, payload in expected if other == topic]
            came = [payload for other, payload in two.messages if other == topic]
            _expect(came == wanted, f"the messages of {topic} in order", [len(payload) for payload in came])
        wanted = [payload for topic, payload in expected if topic == topics[0]]
        await _until(lambda: len(three.messages) >= len(wanted), "its messages", lambda: len(three.messages))
        _expect([payload for _, payload in three.messages] == wanted, "its topic's messages only", len(three.messages))


async def check_subscriptions(make: Make) -> None:
    """A subscription holds from `settled` until `unsubscribe`, and can be made again."""
    async with processes(make, 2) as (one, two):
        for number in range(20):
            topic = f"t.{number % 3}"
            await two.join(topic)
            await one.bus.publish(topic, b"%d" % number)
            await _until(
                lambda number=number: two.messages[-1:] == [(f"t.{number % 3}", b"%d" % number)],  # type: ignore[misc]
                "the message",
                lambda: two.messages[-1:],
            )
            two.bus.unsubscribe(topic)
            await two.bus.settled()
            await one.bus.publish(topic, b"not for two")
        await one.bus.publish("hello", b"end")
        await _until(lambda: ("hello", b"end") in two.messages, "the last message", lambda: two.messages[-1:])
        _expect(
            not [1 for _, data in two.messages if data == b"not for two"], "nothing after unsubscribe", two.messages
        )
        two.bus.unsubscribe("never.subscribed")


async def check_many_topics(make: Make) -> None:
    """Thousands of topics work as few do."""
    async with processes(make, 2) as (one, two):
        topics = [f"many.{number}" for number in range(5000)]
        await two.join(*topics)
        for topic in topics:
            one.bus.publish(topic, topic.encode())
        await _until(lambda: len(two.messages) >= len(topics), "a message of each", lambda: len(two.messages))
        _expect(sorted(topic for topic, _ in two.messages) == sorted(topics), "each once", len(two.messages))


async def check_histories(make: Make) -> None:
    """What is stored is numbered from 1 on, reaches all that subscribed, the sender too, and can be read."""
    async with processes(make, 2) as (one, two):
        await one.join("h")
        await two.join("h")
        payloads = [b"%d" % number for number in range(40)] + [b"", b"\r\n\x00" * 10_000]
        taken = [one.bus.store("h", payload, 1000, 60.0) for payload in payloads]
        _expect(all(map(_need_not_be_awaited, taken)), "store to return what need not be awaited", taken[0])
        positions = [await one for one in taken]
        _expect(all(isinstance(one, Position) for one in positions), "a Position of each", positions[0])
        _expect(
            [position.offset for position in positions] == list(range(1, len(payloads) + 1)),
            "offsets from 1 on",
            positions,
        )
        _expect(len({position.epoch for position in positions}) == 1, "one epoch", positions)
        _expect(Position.parse(str(positions[0])) == positions[0], "positions that can be parsed", positions[0])
        expected = list(zip(["h"] * len(payloads), payloads, positions, strict=True))
        for process in (one, two):
            await _until(
                lambda process=process: len(process.stored) >= len(payloads),  # type: ignore[misc]
                "all of them",
                lambda process=process: len(process.stored),  # type: ignore[misc]
            )
            _expect(process.stored == expected, "each once, in order", [where for _, _, where in process.stored])
        reading = await two.bus.read("h", None)
        _expect(reading.position == positions[-1], "the place of the newest", reading.position)
        _expect(reading.complete, "a complete reading from the oldest", reading.complete)
        _expect([stored.data for stored in reading.messages] == payloads, "all", len(reading.messages))
        _expect([stored.position for stored in reading.messages] == positions, "places", reading.messages[:2])
        reading = await two.bus.read("h", positions[9], 5)
        _expect([stored.data for stored in reading.messages] == payloads[10:15], "five after it", reading.messages)
        _expect(reading.complete, "complete", reading.complete)
        reading = await two.bus.read("h", positions[-1])
        _expect((reading.complete, reading.messages) == (True, []), "nothing after the newest", reading)
        other = Position("0" * 15 + "1", 3)
        reading = await two.bus.read("h", other, 3)
        _expect(not reading.complete, "another epoch's place to be incomplete", True)
        _expect(
            [stored.data for stored in reading.messages] == payloads[:3], "what is there, from the oldest on", reading
        )
        beyond = Position(positions[0].epoch, 10_000)
        reading = await two.bus.read("h", beyond)
        _expect((reading.complete, reading.messages) == (False, []), "a place to come to be incomplete", reading)
        _expect(reading.position == positions[-1], "the place of the newest", reading.position)
        reading = await two.bus.read("nothing.here", None)
        _expect((reading.complete, reading.messages) == (True, []), "an empty reading", reading)
        _expect(isinstance(reading.position, Position), "a Position", reading.position)
        _expect(reading.position.offset == 0, "the place before the first", reading.position)
        _expect(
            Position.parse(str(reading.position)) == reading.position, "a place that can be parsed", reading.position
        )
        reading = await two.bus.read("nothing.here", reading.position)
        _expect(reading.complete, "a reading of an empty history to be complete after its own place", reading)
        reading = await two.bus.read("nothing.here", other)
        _expect(not reading.complete, "a reading of an empty history to be incomplete after any other place", reading)


async def check_history_limits(make: Make) -> None:
    """A history keeps to its size and its time, and says so when messages are gone."""
    async with processes(make, 2) as (one, two):
        positions = [await one.bus.store("small", b"%d" % number, 10, 60.0) for number in range(500)]
        reading = await two.bus.read("small", None)
        _expect(10 <= len(reading.messages) < 400, "10 messages or some more", len(reading.messages))
        _expect(reading.messages[-1].data == b"499", "the newest", reading.messages[-1])
        _expect(not (await two.bus.read("small", positions[5])).complete, "what is gone to be missed", True)
        _expect((await two.bus.read("small", positions[-5])).complete, "what is there to be complete", False)
        place = await one.bus.store("short", b"1", 10, 1.0)
        start = Position(place.epoch, 0)
        _expect((await two.bus.read("short", start)).complete, "it to be there", False)
        await asyncio.sleep(2.2)
        reading = await two.bus.read("short", start)
        _expect(
            (reading.messages, reading.complete) == ([], False), "it to be gone after its ttl, and said so", reading
        )
        beyond = Position(place.epoch, 1000)
        _expect(not (await two.bus.read("short", beyond)).complete, "a place to come to be incomplete still", True)
        again = await one.bus.store("short", b"2", 10, 1.0)
        _expect(again.epoch != place.epoch or again.offset > place.offset, "offsets to go on, or an epoch", again)


async def check_one_order(make: Make) -> None:
    """All get what several store at once in one order, without gaps."""
    async with processes(make, 3) as all_of_them:
        for process in all_of_them:
            await process.join("order")
        waiting: list[Awaitable[Position]] = []
        for number in range(200):
            for i, process in enumerate(all_of_them):
                waiting.append(process.bus.store("order", b"%d %d" % (i, number), 1000, 60.0))
            if number % 20 == 0:
                await asyncio.sleep(0)
        for one in waiting:
            await one
        for process in all_of_them:
            await _until(
                lambda process=process: len(process.stored) >= 600,  # type: ignore[misc]
                "600 messages",
                lambda process=process: len(process.stored),  # type: ignore[misc]
            )
        first = all_of_them[0].stored
        _expect([position.offset for _, _, position in first] == list(range(1, 601)), "1 to 600", first[:3])
        for process in all_of_them[1:]:
            _expect(process.stored == first, "the same order everywhere", process.stored[:3])
        for i in range(3):
            mine = [data for _, data, _ in first if data.startswith(b"%d " % i)]
            _expect(
                mine == [b"%d %d" % (i, number) for number in range(200)], "the order of each one's calls", mine[:5]
            )


async def check_calls_within_calls(make: Make) -> None:
    """What is published and stored while a message is received comes behind it."""
    async with processes(make, 2) as (one, two):
        await one.join("answers", "nested")
        await two.join("questions", "nested")

        def answer(topic: str, data: bytes) -> None:
            if topic == "questions":
                two.bus.publish("answers", b"to " + data)
                two.bus.subscribe("answers." + data.decode())
                two.bus.unsubscribe("answers." + data.decode())
            elif topic == "nested" and len(data) < 5:
                two.bus.store("nested", data + b"+", 100, 60.0)

        two.answer = answer
        for number in range(20):
            await one.bus.publish("questions", b"%d" % number)
        await two.bus.store("nested", b"", 100, 60.0)
        await _until(lambda: len(one.messages) >= 20, "an answer to each question", lambda: one.messages)
        wanted = [("answers", b"to %d" % number) for number in range(20)]
        _expect(one.messages == wanted, "the answers in order", one.messages)
        for process in (one, two):
            await _until(lambda process=process: len(process.stored) >= 6, "6 messages", lambda: two.stored)  # type: ignore[misc]
        for process in (one, two):
            _expect([where.offset for _, _, where in process.stored] == [1, 2, 3, 4, 5, 6], "in order", process.stored)


async def check_end(make: Make) -> None:
    """Nothing is awaited without end, and a bus that was closed says so."""
    await make().close()  # which was never started
    async with processes(make, 1) as (process,):
        try:
            await process.bus.start(process, process.origin)
        except RuntimeError:
            pass
        else:
            raise AssertionError("expected a second start to be a RuntimeError")
        counters = process.bus.counters
        _expect({"reconnects", "outbox"} <= set(counters), "the counters reconnects and outbox", counters)
        await process.bus.close()
        await process.bus.close()
        told: list[str] = []
        handler = process._loop.get_exception_handler()
        process._loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
        try:
            for _ in range(2):
                process.bus.publish("a", b"")
                process.bus.store("a", b"", 1, 1.0)
                gc.collect()
                await asyncio.sleep(0)
        finally:
            process._loop.set_exception_handler(handler)
        _expect(not told, "nothing to be said of what failed and is not awaited", told)
        for name, call in (
            ("publish", lambda: process.bus.publish("a", b"")),
            ("store", lambda: process.bus.store("a", b"", 1, 1.0)),
            ("read", lambda: process.bus.read("a", None)),
        ):
            try:
                async with asyncio.timeout(15):
                    await call()
            except BusUnavailable:
                continue
            except TimeoutError:
                raise AssertionError(f"expected {name} after close to end") from None
            raise AssertionError(f"expected {name} after close to raise BusUnavailable")


CHECKS: Final[list[Callable[[Make], Awaitable[None]]]] = [
    check_messages,
    check_subscriptions,
    check_many_topics,
    check_histories,
    check_history_limits,
    check_one_order,
    check_calls_within_calls,
    check_end,
]
"""All checks, each an async function that takes what makes a bus, as `check_bus` does."""


async def check_bus(make: Make) -> None:
    """Run all checks, one after the other.

    Args:
        make: returns a new bus.

    Raises:
        AssertionError: the bus does not do what it must.
    """
    for check in CHECKS:
        await check(make)
