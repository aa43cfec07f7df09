"""The order in which the tasks of one connection send."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import outcome
import trio

from wsfast.connection import State

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["Line"]


class _Place:
    """A place in the line.

    Args:
        act: what is done when its turn comes; None to let its task have the turn, until that leaves it.
        task: who waits; None for a close, for which nobody waits.
    """

    __slots__ = ("act", "task")

    def __init__(self, act: Callable[[], object] | None, task: trio.lowlevel.Task | None = None) -> None:
        self.act: Final = act
        self.task: Final = task


class Line:
    """What is sent on one connection by tasks that may have to wait, in the order in which they called.

    A whole message is not sent by the task that waits, but by whoever lets it go on: so there is no moment in which its
    turn has come and it is not sent, in which a close could overtake it. Until then a task that is cancelled takes its
    message with it; from then on it is not cancelled there.

    Args:
        ws: the connection.
    """

    __slots__ = ("_busy", "_called", "_close", "_waiting", "_ws")

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._waiting: deque[_Place] = deque()
        self._busy = False  # a task has the turn, for a message in fragments
        self._called = False  # it has not run yet
        self._close: _Place | None = None  # the close in the line

    # --- For those who send

    async def send(self, act: Callable[[], object]) -> bool:
        """Send a whole message in its turn, when there is room.

        Args:
            act: sends it, and returns True; what it raises, is raised here.

        Returns:
            Whether it was sent; False if the connection was not open, when its turn came.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._waiting or self._busy or not self._has_room():
            return await self._wait(act)
        try:
            act()
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Keep other tasks from sending while a message takes several steps.

        Yields whether the turn has come; False if the connection is not open.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._waiting or self._busy or not self._has_room():
            mine = await self._wait(None)
        else:
            mine = self._busy = self._called = True
            await trio.lowlevel.cancel_shielded_checkpoint()
        self._called = False
        try:
            yield mine
        finally:
            if mine:
                self._busy = False
                self.go_on()

    def _has_room(self) -> bool:
        ws = self._ws
        return ws._connection.state is State.OPEN and not (ws._full or ws._broken)

    async def _wait(self, act: Callable[[], object] | None) -> bool:
        if self._ws._connection.state is not State.OPEN:
            return False
        place = _Place(act, trio.lowlevel.current_task())
        self._waiting.append(place)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(place)
            return trio.lowlevel.Abort.SUCCEEDED

        sent: bool = await trio.lowlevel.wait_task_rescheduled(abort)
        return sent

    # --- For those who let them go on

    @trio.lowlevel.enable_ki_protection
    def go_on(self) -> None:
        """Send what may be sent now: there is room, or the turn was left, or the connection is not open any more."""
        while self._waiting and not self._busy:
            if self._ws._connection.state is not State.OPEN:
                self.end()
            elif self._close is None and not self._has_room():
                return
            else:
                place = self._waiting.popleft()
                if place.task is None:
                    self._close_now(place)
                elif place.act is None:
                    self._busy = self._called = True
                    trio.lowlevel.reschedule(place.task, outcome.Value(True))
                else:
                    # In the context of who calls: an extension of the program's own may look at it.
                    result = outcome.capture(place.task.context.copy().run, place.act)
                    trio.lowlevel.reschedule(place.task, result)

    @trio.lowlevel.enable_ki_protection
    def end(self) -> None:
        """Let all go on without having sent anything."""
        self._close = self._ws._close_at = None
        while self._waiting:
            place = self._waiting.popleft()
            if place.task is not None:
                trio.lowlevel.reschedule(place.task, outcome.Value(False))

    # --- For those who close

    def put_off(self, close: Callable[[], object], at: float | None) -> bool:
        """Have a close done behind those that wait already; False if there are none: see `Shell._put_off`.

        Whole messages are sent at once, with room or without. A message in fragments is waited for until it has ended,
        if it has not begun: if its turn has not come, or its task has not run since.
        """
        if self._close is None:
            if (self._busy and not self._called) or not (self._busy or self._waiting) or self._ws._broken:
                return False
            self._close = _Place(close)
            self._ws._close_at = at
            self._waiting.append(self._close)
            self.go_on()
        return True

    def close_late(self) -> None:
        """Have the close done that waits: those before it have had their time."""
        if self._close is not None:
            self._waiting.remove(self._close)
            self._close_now(self._close)
            self.go_on()

    def _close_now(self, place: _Place) -> None:
        assert place.act is not None
        self._close = self._ws._close_at = None
        place.act()
