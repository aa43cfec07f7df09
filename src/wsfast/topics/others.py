"""Reports between this process and the others: signs of life, the latest numbers, and who is present."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from .envelope import CONTROL, BadEnvelope, Sealer
from .numbers import Incoming, Outgoing
from .presence import Presence
from .reports import Reports

if TYPE_CHECKING:
    import asyncio

    from ..bus.interface import Bus

__all__ = ["Others"]

_BEAT: Final = 1.0
"""Seconds between two signs of life of a process."""
_DEAD: Final = 3.0
"""Seconds of silence after which a process is taken to have ended."""
_SOON: Final = 0.05
"""Seconds for which questions and answers are put together."""


class Others:
    """The other processes on a bus, as this one knows them. Without a bus, there are none.

    Args:
        loop: the event loop that the topics run on.
        bus: the bus; None for none.
        sealer: for what is told.
        origin: this process.
        outgoing, incoming: the numbers of its own messages, and of the others'.
        presence: who is present.
        reports: how the user is told.
        missed: called with the topics whose histories are to be read.

    Attributes:
        lag: seconds of the last round trip over the bus; 0 where it does not return what was sent.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bus: Bus | None,
        sealer: Sealer,
        origin: int,
        outgoing: Outgoing,
        incoming: Incoming,
        presence: Presence,
        reports: Reports,
        missed: Callable[[Iterable[str]], None],
    ) -> None:
        self.lag: float = 0.0
        self._loop = loop
        self._bus = bus
        self._sealer = sealer
        self._origin = origin
        self._outgoing = outgoing
        self._incoming = incoming
        self._presence = presence
        self._reports = reports
        self._missed = missed
        self._up = False
        self._running = True
        self._beating: asyncio.TimerHandle | None = None
        self._beaten = 0.0  # when the last was
        self._telling = False  # presence is told at the end of this turn
        self._ended: dict[int, float] = {}  # processes that have surely ended, and when
        self._later: set[str] = set()  # what is asked or answered soon

    def begin(self) -> None:
        """Begin to give signs of life, once the bus is started."""
        if self._bus is not None:
            self._bus.subscribe(CONTROL)
            self._beaten = self._loop.time()
            self._beating = self._loop.call_later(_BEAT, self._beat)

    def end(self) -> None:
        """Tell the others that this process ends."""
        self._running = False
        if self._bus is not None:
            self._tell({"bye": 1})
        if self._beating is not None:
            self._beating.cancel()

    def reached(self, up: bool, again: bool) -> None:
        """Take note that the bus can reach them, or cannot; what was missed meanwhile is asked for.

        Args:
            up: whether it can.
            again: whether it could before.
        """
        self._up = up
        if up:
            self._incoming.restarted(self._loop.time())
            self._ask("presence")
            self._answer("presence")
            if again:
                self._ask("tails")
                self._answer("tails")

    def forget(self, origin: int) -> None:
        """Take note that a process has ended, or is taken to have."""
        self._incoming.forget(origin)
        for topic, present, came in self._presence.forget(origin):
            self._reports.moved(topic, present, came)

    def ended(self, origin: int) -> None:
        """Take note that a process has surely ended; what it told last may come from an engine after that."""
        self._ended[origin] = self._loop.time()
        self.forget(origin)

    def moved(self) -> None:
        """Take note that somebody came or left in this process; the others are told at the end of the turn."""
        if self._bus is None:
            self._presence.changes()
        elif not self._telling and self._running:
            self._telling = True
            self._loop.call_soon(self._tell_presence)

    def heard(self, origin: int, content: dict[str, Any]) -> None:
        """Take what one of them, or this process itself, has told.

        Raises:
            ValueError: it is malformed.
        """
        now = self._loop.time()
        if origin == self._origin:
            at = content.get("at")
            if isinstance(at, float):
                self.lag = max(0.0, now - at)
            return
        if origin in self._ended:
            return
        if "bye" in content:
            self.forget(origin)
            return
        new = self._incoming.heard(origin, now)
        if "tail" in content:
            number, entries, version = content["tail"], content.get("of"), content.get("version")
            if type(number) is not int or not isinstance(entries, list):
                raise BadEnvelope("a tail must have a number and a list")
            if self._incoming.tail(origin, number, entries, now):
                self._ask("tails")
            if type(version) is int and (new or self._presence.is_behind(origin, version)):
                self._ask("presence")
        elif "presence" in content:
            missing, happened = self._presence.take_in(origin, content)
            for topic, present, came in happened:
                self._reports.moved(topic, present, came)
            if missing:
                self._ask("presence")
        elif content.get("ask") in ("tails", "presence"):
            self._answer(content["ask"])

    def _tell(self, content: dict[str, Any]) -> None:
        assert self._bus is not None
        self._bus.publish(CONTROL, self._sealer.seal_control(self._origin, content))

    def _beat(self) -> None:
        now = self._loop.time()
        late, self._beaten = now - self._beaten > 2 * _BEAT, now
        self._beating = self._loop.call_later(_BEAT, self._beat)
        self._ended = {origin: ended for origin, ended in self._ended.items() if ended + _DEAD > now}
        if not self._up:
            return
        contents = self._outgoing.tails(now)
        contents[0]["at"] = now
        self._tell_presence()
        contents[0]["version"] = self._presence.version
        for content in contents:
            self._tell(content)
        if late:
            # This process was held up itself: what others have sent to it may be unread still.
            self._incoming.restarted(now)
            return
        for origin in self._incoming.silent(now, _DEAD):
            self.forget(origin)
        self._incoming.sweep(now)
        for gap in self._incoming.check(now):
            self._reports.lost(gap)
        doubtful = self._incoming.doubtful()
        if doubtful:
            self._missed(doubtful)

    def _tell_presence(self) -> None:
        self._telling = False
        contents = self._presence.changes()
        if self._running and self._up:  # else all is told when the bus is up again
            for content in contents:
                self._tell(content)

    def _ask(self, what: str) -> None:
        """Ask the others for all they have to tell."""
        self._soon("ask " + what, lambda: self._tell({"ask": what}))

    def _answer(self, what: str) -> None:
        self._soon(what, lambda: self._tell_all(what))

    def _soon(self, name: str, call: Callable[[], None]) -> None:
        """Call something soon, unless that is to happen already; what is asked meanwhile is answered by the same."""
        if name in self._later:
            return
        self._later.add(name)

        def run() -> None:
            self._later.discard(name)
            if self._running and self._up:
                call()

        self._loop.call_later(_SOON, run)

    def _tell_all(self, what: str) -> None:
        if what == "tails":
            contents = self._outgoing.tails(self._loop.time(), whole=True)
        else:
            self._tell_presence()
            contents = self._presence.all()
        for content in contents:
            self._tell(content)
