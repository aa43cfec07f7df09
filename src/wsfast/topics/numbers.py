"""Numbers the messages between processes, and finds by the numbers what was lost or came twice; sans-IO.

Each process counts its messages of each topic. A subscriber knows the latest number of each process, so that a number
that is not higher is a duplicate, and one that is too high is a gap. If the last messages are lost, no later number
shows it; for that there are tails: each process reports regularly, and when asked, its latest number in each topic.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

__all__ = ["Gap", "Incoming", "Outgoing"]

_IDLE: Final = 600.0
"""Seconds after its last message from which on a topic's counter may be forgotten."""
_SETTLES: Final = 12.0
"""Seconds after which a message that is sent again and again has arrived or was given up."""
_MAX_TOPICS: Final = 200_000
_MAX_ORIGINS: Final = 10_000
"""Processes whose numbers of one topic are remembered."""
_SWEEP: Final = 60.0
"""Seconds between two looks for numbers of processes that have ended."""
_CHUNK: Final = 1000
_SLACK: Final = 0.25
"""Seconds that a subscription may have taken to be in force."""
_PATIENCE: Final = 0.9
"""Seconds for which a message that a tail counts may still be under way."""


class Gap(NamedTuple):
    """Messages that this process, or one of its threads, did not get, and so none of the connections there.

    A loss is reported once for each process that sent the messages, within about two seconds of its next sign of life.
    What a thread did not get because too much waits for it is reported within a second.
    """

    topic: str
    """The topic that the messages were published to."""
    missed: int | None
    """How many were lost; None if that is not known."""
    recovered: bool = False
    """Whether the messages were, or will be, delivered from the topic's history after all."""


class _Mark(NamedTuple):
    """Where a counter stood at a time."""

    number: int
    used: float
    """When the number was given."""
    at: float
    """A time at which it was still the latest."""


class _Counter:
    __slots__ = ("mark", "number", "settles", "told", "used")

    def __init__(self, number: int, settles: bool, now: float) -> None:
        self.number = number
        self.used = now  # when that was given
        self.settles = settles
        self.told = _Mark(number, now, now)  # what the last tail reported
        self.mark = self.told  # where it stood at a time, after which what was sent until then has settled

    def reached(self, now: float) -> _Mark:
        """Return how far messages have arrived by now, or never will."""
        if not self.settles:
            return _Mark(self.number, self.used, now)
        if self.mark.at + _SETTLES <= now:
            settled, self.mark = self.mark, _Mark(self.number, self.used, now)
            return settled
        return self.told


class Outgoing:
    """The numbers of this process' own messages."""

    def __init__(self) -> None:
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._touched: dict[str, None] = {}
        self._floor = 0  # the highest number of a topic that was forgotten
        self._tails = 0

    def next(self, topic: str, now: float, *, settles: bool = False) -> tuple[int, bool]:
        """Return the number of a topic's next message, and whether it is the first that others may know of.

        Args:
            topic: the topic.
            now: the time.
            settles: whether the message is tried again where it does not arrive, so that it may take its time.
        """
        counter = self._counters.get(topic)
        first = counter is None
        if counter is None:
            counter = self._counters[topic] = _Counter(self._floor, settles, now)
            if len(self._counters) > _MAX_TOPICS:
                self._forget(next(iter(self._counters)))
        if counter.number == counter.told.number:
            counter.told = counter.told._replace(at=now)
        counter.number += 1
        counter.used = now
        if topic not in self._touched:
            self._touched[topic] = None
        return counter.number, first

    def tails(self, now: float, *, whole: bool = False) -> list[dict[str, Any]]:
        """Return the tails to send to the other processes, as messages.

        Args:
            now: the time.
            whole: of all topics that are remembered, because somebody asked; else what changed since the last time.
        """
        if not whole:
            self._tails += 1
            while self._counters:
                topic, counter = next(iter(self._counters.items()))
                if counter.used > now - _IDLE or topic in self._touched:
                    break
                self._forget(topic)
        entries = []
        unsettled: dict[str, None] = {}
        for topic in self._counters if whole else self._touched:
            known = self._counters.get(topic)
            if known is None:
                continue
            told = known.told
            if whole:
                reached = told if known.settles else _Mark(known.number, known.used, now)
            else:
                reached = known.reached(now)
                if reached.number < known.number:
                    unsettled[topic] = None
                if known.settles and reached.number == told.number:
                    continue
                known.told = reached
                self._counters.move_to_end(topic)
            entries.append([topic, told.number, reached.number, _ago(now, reached.used), _ago(now, told.at)])
        if not whole:
            self._touched = unsettled
        chunks = [entries[i : i + _CHUNK] for i in range(0, len(entries), _CHUNK)] or [[]]
        return [{"tail": 0 if whole or i else self._tails, "of": chunk} for i, chunk in enumerate(chunks)]

    def _forget(self, topic: str) -> None:
        self._floor = max(self._floor, self._counters.pop(topic).number)


def _ago(now: float, then: float) -> int:
    """Return how many milliseconds have passed."""
    return max(0, round((now - then) * 1000))


class _Origin:
    __slots__ = ("heard", "tail")

    def __init__(self, now: float) -> None:
        self.heard = now
        self.tail = 0  # the number of its last tail


class Incoming:
    """The numbers of the messages that came, in the topics that this process subscribed to.

    Those of other processes, and in topics with a history its own as well.

    Args:
        origin: this process.

    Attributes:
        duplicates: how many messages were dropped because they had come before.
    """

    def __init__(self, origin: int) -> None:
        self.duplicates: int = 0
        self._origin = origin
        self._since: dict[str, float] = {}
        self._kept: set[str] = set()  # topics with a history: what did not come can be read
        self._doubtful: set[str] = set()
        self._latest: dict[str, dict[int, int]] = {}
        self._unsure: dict[tuple[str, int], int] = {}  # the number before the first that came
        self._suspects: list[tuple[float, str, int, int, int | None]] = []  # see `check`
        self._read: set[tuple[str, int, int]] = set()  # suspects whose histories are read
        self._origins: dict[int, _Origin] = {}
        self._strangers: set[int] = set()  # processes that are remembered, and were not alive at the last sweep
        self._swept = 0.0

    def join(self, topic: str, now: float, *, kept: bool = False) -> None:
        """Note that this process has subscribed to a topic; `kept` says that it has a history."""
        self._since[topic] = now
        self._latest[topic] = {}
        if kept:
            self._kept.add(topic)

    def leave(self, topic: str) -> None:
        """Note that this process has unsubscribed from a topic."""
        self._since.pop(topic, None)
        self._kept.discard(topic)
        for origin in self._latest.pop(topic, ()):
            self._unsure.pop((topic, origin), None)

    def heard(self, origin: int, now: float) -> bool:
        """Note a sign of life of another process; tell whether it is the first."""
        known = self._origins.get(origin)
        if known is None:
            self._origins[origin] = _Origin(now)
            return True
        known.heard = now
        return False

    def silent(self, now: float, seconds: float) -> list[int]:
        """Forget the processes that were silent for some seconds, and return them."""
        gone = [origin for origin, known in self._origins.items() if known.heard + seconds <= now]
        for origin in gone:
            self.forget(origin)
        return gone

    def restarted(self, now: float) -> None:
        """Note that this process could hear nothing for a while, so that no other process counts as silent."""
        for known in self._origins.values():
            known.heard = now

    def forget(self, origin: int) -> None:
        """Forget a process that has ended. What it sent last is still checked by `check`, until `sweep` forgets it."""
        self._origins.pop(origin, None)

    def sweep(self, now: float) -> None:
        """Forget the numbers of processes that have not been alive for a minute at least; to be called regularly."""
        if now < self._swept + _SWEEP:
            return
        self._swept = now
        strangers: set[int] = set()
        for topic, latest in self._latest.items():
            for origin in [origin for origin in latest if origin not in self._origins and origin != self._origin]:
                if origin in self._strangers:
                    self._forget_numbers(topic, latest, origin)
                else:
                    strangers.add(origin)
        self._strangers = strangers

    def _forget_numbers(self, topic: str, latest: dict[int, int], origin: int) -> None:
        del latest[origin]
        self._unsure.pop((topic, origin), None)

    def accept(self, topic: str, origin: int, number: int, first: bool, *, ordered: bool = False) -> int | None:
        """Judge a message by its number.

        Args:
            topic, origin, number, first: the message's.
            ordered: whether losses are found by other means, so that only duplicates are looked for.

        Returns:
            None if the message is not to be delivered; else how many are missing before it.
        """
        latest = self._latest.get(topic)
        if latest is None:
            return None
        before = latest.get(origin)
        if before is None:
            latest[origin] = number
            if len(latest) > _MAX_ORIGINS:
                self._forget_numbers(topic, latest, next(iter(latest)))
            if not first and not ordered:
                self._unsure[topic, origin] = number - 1
            return 0
        if number <= before:
            self.duplicates += 1
            return None
        latest[origin] = number
        return 0 if first or ordered else number - before - 1

    def tail(self, origin: int, number: int, entries: list[Any], now: float) -> bool:
        """Take in a tail: what another process reports of its numbers.

        Args:
            origin: the process.
            number: of the tail, 0 for one that was asked for or goes on.
            entries: for each topic its name, the number that the process' tail before has told, the number that is
                told now, and how many milliseconds ago that was given, and the one of before was still the latest.
            now: the time.

        Returns:
            Whether an earlier tail is missing, so that the process should be asked for all its numbers.

        Raises:
            ValueError: the report is malformed.
        """
        known = self._origins.get(origin)
        if known is None:
            known = self._origins[origin] = _Origin(now)
            known.tail = number - 1 if number else 0
        missing = number > known.tail + 1
        if number:
            known.tail = number
        for entry in entries:
            if not isinstance(entry, list) or len(entry) != 5 or not isinstance(entry[0], str):
                raise ValueError("an entry of a tail must be a list of a topic and four numbers")
            topic, *numbers = entry
            if not all(type(value) is int and 0 <= value < 1 << 63 for value in numbers):
                raise ValueError("an entry of a tail must be a list of a topic and four numbers")
            told, reached, age, ago = numbers
            self._compare(topic, origin, told if number else None, reached, now - age / 1000, now - ago / 1000, now)
        return missing

    def _compare(
        self, topic: str, origin: int, told: int | None, reached: int, reached_at: float, told_at: float, now: float
    ) -> None:
        latest = self._latest.get(topic)
        if latest is None:
            return
        since = self._since[topic] + _SLACK
        long_enough = told is not None and since < told_at
        unsure = self._unsure.pop((topic, origin), None)
        if unsure is not None and long_enough and told is not None and unsure > told:
            self._suspects.append((now, topic, origin, -1, unsure - told))
        before = latest.get(origin)
        if before is None:
            if long_enough and told is not None:
                self._suspects.append((now, topic, origin, reached, reached - told))
            elif since < reached_at:
                self._suspects.append((now, topic, origin, reached, None))
        elif before < reached:
            self._suspects.append((now, topic, origin, reached, reached - before))

    def doubtful(self) -> set[str]:
        """Return the topics whose histories are to be read before something counts as lost, once each."""
        topics, self._doubtful = self._doubtful, set()
        return topics

    def check(self, now: float) -> list[Gap]:
        """Return what is known to be lost by now: tails spoke of it, and it has not come since.

        In a topic with a history it is not there either; see `doubtful`.
        """
        gaps = []
        left = []
        asked, self._read = self._read, set()
        for suspect in self._suspects:
            noted, topic, origin, reached, missed = suspect
            if noted + _PATIENCE > now:
                left.append(suspect)
                if (topic, origin, reached) in asked:
                    self._read.add((topic, origin, reached))
                continue
            latest = self._latest.get(topic)
            if latest is None:
                continue
            if reached < 0:
                gaps.append(Gap(topic, missed))
                continue
            before = latest.get(origin)
            if before is not None and before >= reached:
                continue  # it was under way, or was told by the number of a later one
            if topic in self._kept and (topic, origin, reached) not in asked:
                self._read.add((topic, origin, reached))
                self._doubtful.add(topic)
                left.append((now, topic, origin, reached, missed))
                continue
            if before is not None:
                missed = reached - before
            latest[origin] = reached
            gaps.append(Gap(topic, missed))
        self._suspects = left
        return gaps
