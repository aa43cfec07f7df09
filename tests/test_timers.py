"""The coarse timer, on a loop whose clock the test turns."""

from __future__ import annotations

import asyncio
import functools
import random
import tracemalloc
from typing import Any

import pytest

from wsfast.transport import _timers, _timers_py
from wsfast.transport.timers import CoarseTimer


class Clock:
    """What a timer needs of an event loop."""

    def __init__(self, now: float = 1000.3) -> None:
        self.now = now
        self.handles: list[Handle] = []
        self.faults: list[dict[str, Any]] = []
        self.wakeups = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Handle:
        handle = Handle(when, callback)
        self.handles.append(handle)
        return handle

    def call_soon(self, callback: Any, *args: Any) -> None:
        self.handles.append(Handle(self.now, functools.partial(callback, *args)))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.faults.append(context)

    @property
    def armed(self) -> list[Handle]:
        return [handle for handle in self.handles if not handle.cancelled]

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what is due when it is due."""
        end = self.now + seconds
        while self.armed and min(handle.when for handle in self.armed) <= end:
            handle = min(self.armed, key=lambda one: one.when)
            self.handles.remove(handle)
            self.now = max(self.now, handle.when)
            self.wakeups += 1
            handle.callback()
        self.now = end


class Handle:
    def __init__(self, when: float, callback: Any) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Thing:
    def __init__(self, clock: Clock) -> None:
        self.due = 0.0
        self.clock = clock
        self.called: list[float] = []

    def on_deadline(self) -> None:
        self.called.append(self.clock.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer(clock: Clock) -> CoarseTimer:
    return CoarseTimer(clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("delay", [0.001, 0.0156, 0.1, 0.25, 1.0, 1.1, 7.0, 10.0, 16.0, 20.0, 100.0, 3600.0])
@pytest.mark.parametrize("start", [0.0, 0.37, 12345.678])
def test_not_early_and_not_much_late(delay: float, start: float) -> None:
    clock = Clock(start)
    timer = CoarseTimer(clock)  # type: ignore[arg-type]
    thing = Thing(clock)
    timer.set(thing, delay)
    clock.advance(delay * 2 + 2)
    [called] = thing.called
    late = called - start - delay
    assert 0 <= late <= min(max(1 / 64, delay / 8), 1.0)


def test_both_twins_choose_the_same_deadlines() -> None:
    delays = [0, 0.0, 1, *(random.Random(7).uniform(0, 40) for _ in range(500)), *(2.0**n for n in range(-8, 8))]
    seen = []
    for module in (_timers_py, _timers):

        class Kept(module.Deadlines):  # type: ignore[misc, name-defined]
            def new_bucket(self, due: float) -> _timers_py.Bucket:
                bucket = self.buckets[due] = _timers_py.Bucket()
                bucket.due = due
                return bucket

        clock = Clock(12345.678)
        kept = Kept(clock.time)
        things = [Thing(clock) for _ in delays]
        for thing, delay in zip(things, delays, strict=True):
            kept.set(thing, 99)
            kept.set(thing, delay)
            clock.now += 0.013
        for thing in things[::3]:
            kept.clear(thing)
        members = {due: [things.index(one) for one in bucket] for due, bucket in kept.buckets.items()}
        seen.append(([thing.due for thing in things], members))
    assert seen[0] == seen[1]
    assert sum(map(len, seen[0][1].values())) == len(delays) - len(delays[::3])


def test_called_once(clock: Clock, timer: CoarseTimer) -> None:
    thing = Thing(clock)
    timer.set(thing, 1)
    clock.advance(100)
    assert len(thing.called) == 1
    assert thing.due == 0.0
    assert clock.armed == []


def test_cleared_is_not_called(clock: Clock, timer: CoarseTimer) -> None:
    thing = Thing(clock)
    timer.set(thing, 1)
    timer.clear(thing)
    timer.clear(thing)
    clock.advance(100)
    assert thing.called == []
    assert clock.armed == []


def test_a_later_deadline_replaces_an_earlier(clock: Clock, timer: CoarseTimer) -> None:
    thing = Thing(clock)
    timer.set(thing, 1)
    timer.set(thing, 10)
    clock.advance(5)
    assert thing.called == []
    clock.advance(10)
    assert len(thing.called) == 1


def test_an_earlier_deadline_replaces_a_later(clock: Clock, timer: CoarseTimer) -> None:
    thing = Thing(clock)
    timer.set(thing, 10)
    timer.set(thing, 1)
    clock.advance(2)
    assert len(thing.called) == 1
    clock.advance(100)
    assert len(thing.called) == 1


def test_one_timer_of_the_loop_for_many_deadlines(clock: Clock, timer: CoarseTimer) -> None:
    things = [Thing(clock) for _ in range(1000)]
    for thing in things:
        timer.set(thing, 20)
        clock.now += 0.001
    assert len(clock.armed) == 1
    clock.advance(30)
    assert all(len(thing.called) == 1 for thing in things)
    assert clock.wakeups <= 3


def test_deadlines_taken_back_wake_nobody_twice(clock: Clock, timer: CoarseTimer) -> None:
    things = [Thing(clock) for _ in range(100)]
    for number, thing in enumerate(things):
        timer.set(thing, 10 + number)
    for thing in things:
        timer.clear(thing)
    clock.advance(1000)
    assert clock.wakeups <= 1


def test_deadlines_that_were_leave_nothing(clock: Clock, timer: CoarseTimer) -> None:
    """Each delay is another one, as they are where a deadline is known and the time is taken anew."""
    rand = random.Random(7)
    things = [Thing(clock) for _ in range(20)]
    for round_ in range(3):
        if round_ == 1:
            tracemalloc.start()
        for _ in range(100):
            for thing in things:
                timer.set(thing, 20 + rand.random())
            clock.advance(5)
            clock.handles[:] = clock.armed
    try:
        for thing in things:
            timer.clear(thing)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20000


def test_a_deadline_may_be_set_again_when_it_is_due(clock: Clock, timer: CoarseTimer) -> None:
    class Again(Thing):
        def on_deadline(self) -> None:
            super().on_deadline()
            timer.set(self, 1)

    thing = Again(clock)
    timer.set(thing, 1)
    clock.advance(10.5)
    assert 9 <= len(thing.called) <= 10


def test_one_that_is_due_may_clear_or_move_another(clock: Clock, timer: CoarseTimer) -> None:
    things = [Thing(clock) for _ in range(3)]

    class Rude(Thing):
        def on_deadline(self) -> None:
            super().on_deadline()
            timer.clear(things[0])
            timer.set(things[1], 5)

    rude = Rude(clock)
    for thing in (rude, *things):
        timer.set(thing, 1)
    clock.advance(2)
    # The order within a bucket is open: whoever was called before was called rightly.
    assert len(rude.called) == len(things[2].called) == 1
    clock.advance(10)
    assert len(things[0].called) <= 1
    assert 1 <= len(things[1].called) <= 2


def test_a_fault_of_one_is_not_the_others(clock: Clock, timer: CoarseTimer) -> None:
    class Faulty(Thing):
        def on_deadline(self) -> None:
            raise ValueError("boom")

    things = [Thing(clock) for _ in range(10)]
    for thing in (*things[:5], Faulty(clock), *things[5:]):
        timer.set(thing, 1)
    clock.advance(2)
    assert all(len(thing.called) == 1 for thing in things)
    assert [str(fault["exception"]) for fault in clock.faults] == ["boom"]


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_is_not_the_end_of_the_others(
    clock: Clock, timer: CoarseTimer, end: type[BaseException]
) -> None:
    """They are called once the loop runs again, but for one that was taken back or moved meanwhile."""

    class Ending(Thing):
        def on_deadline(self) -> None:
            timer.clear(things[2])
            timer.set(things[3], 5)
            raise end

    things = [Thing(clock), Ending(clock), Thing(clock), Thing(clock), Thing(clock)]
    for thing in things:
        timer.set(thing, 1)
    with pytest.raises(end):
        clock.advance(2)
    assert [len(thing.called) for thing in things] == [1, 0, 0, 0, 0]
    clock.advance(1)
    assert [len(thing.called) for thing in things] == [1, 0, 0, 0, 1]
    clock.advance(10)
    assert [len(thing.called) for thing in things] == [1, 0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_random_use_against_a_plain_model(seed: int) -> None:
    chance = random.Random(seed)
    clock = Clock()
    timer = CoarseTimer(clock)  # type: ignore[arg-type]
    things = [Thing(clock) for _ in range(20)]
    model: dict[int, tuple[float, float]] = {}  # earliest, latest
    for _ in range(2000):
        at = chance.randrange(len(things))
        match chance.randrange(4):
            case 0 | 1:
                delay = chance.uniform(0.001, 40)
                timer.set(things[at], delay)
                model[at] = clock.now + delay, clock.now + delay + max(1 / 64, min(delay / 8, 1))
            case 2:
                timer.clear(things[at])
                model.pop(at, None)
            case 3:
                clock.advance(chance.uniform(0, 5))
                for number, thing in enumerate(things):
                    if thing.called:
                        [called] = thing.called
                        thing.called.clear()
                        earliest, latest = model.pop(number)
                        assert earliest <= called <= latest + 1e-6
                assert all(latest >= clock.now for _, latest in model.values()), seed
        assert len(clock.armed) <= 1


@pytest.mark.anyio
async def test_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    timer = CoarseTimer(loop)
    called = loop.create_future()

    class Real:
        due = 0.0

        def on_deadline(self) -> None:
            called.set_result(loop.time())

    began = loop.time()
    timer.set(Real(), 0.05)
    async with asyncio.timeout(5):
        assert await called >= began + 0.05


class Unused:
    """Something that holds memory until it was not used for a while."""

    def __init__(self, sweeper: Any, idle: float) -> None:
        self.sweeper = sweeper
        self.idle = idle
        self.since: float | None = None
        self.holding = False

    def use(self) -> None:
        self.holding = True
        self.since = None
        self.sweeper.busy.add(self)

    def free_idle(self, now: float) -> bool:
        if self.since is None:
            self.since = now
        elif now - self.since >= self.idle:
            self.holding = False
        return not self.holding


def test_a_sweeper_frees_what_is_unused(clock: Clock, timer: CoarseTimer) -> None:
    sweeper = timer.sweeper(60.0)
    assert timer.sweeper(60.0) is sweeper
    assert timer.sweeper(61.0) is not sweeper
    things = [Unused(sweeper, 60.0) for _ in range(3)]
    for _ in things:
        sweeper.enter()
    assert len(clock.armed) == 1
    for thing in things[:2]:
        thing.use()
    for _ in range(10):
        clock.advance(20)
        things[0].use()
    assert [thing.holding for thing in things] == [True, False, False]
    assert sweeper.busy == {things[0]}
    clock.advance(59)
    assert things[0].holding
    clock.advance(31)
    assert not things[0].holding
    assert not sweeper.busy
    # It looks every 15 s or up to a second later, as long as there are connections.
    clock.wakeups = 0
    clock.advance(160)
    assert clock.wakeups == 10
    for _ in things:
        sweeper.leave()
    assert not clock.armed or not sweeper.due
    clock.wakeups = 0
    clock.advance(100)
    assert clock.wakeups <= 1


def test_a_sweeper_that_is_in_a_hurry_takes_its_time(clock: Clock, timer: CoarseTimer) -> None:
    sweeper = timer.sweeper(0.0)
    sweeper.enter()
    clock.advance(10)
    assert clock.wakeups <= 40
    sweeper.leave()


def test_a_sweeper_without_connections_looks_no_more(clock: Clock, timer: CoarseTimer) -> None:
    """The last may end in the very turn in which the sweeper is due."""
    sweeper = timer.sweeper(60.0)
    thing = Unused(sweeper, 0.0)
    thing.use()
    for _ in range(2):
        sweeper.on_deadline()
        assert not sweeper.due
    assert not thing.holding
    assert not clock.armed
