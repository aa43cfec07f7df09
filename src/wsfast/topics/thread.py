"""An event loop in a thread of its own, for topics of servers that have none."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from ..exceptions import InvalidState
from .topics import Topics, hub_of

__all__ = ["LoopOf", "check_topics"]


class _Loop:
    """An event loop in a thread, for as many servers as share one `Topics`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="wsfast-topics", daemon=True)
        self.users = 0
        self.thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:  # which cancels what is left in the end
            runner.get_loop().run_forever()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


_loops: dict[int, _Loop] = {}  # by the `id` of their topics, which live as long
_loops_lock: Final = threading.Lock()


def check_topics(topics: object) -> Topics:
    """Return the argument.

    Raises:
        TypeError: it is not a `Topics`.
    """
    if not isinstance(topics, Topics):
        raise TypeError(f"topics must be a Topics, got {type(topics).__name__}")
    return topics


class LoopOf:
    """The event loop that topics run on, if an asyncio server has started them, else one in a thread.

    Args:
        topics: the topics.

    Attributes:
        loop: the event loop.

    Raises:
        InvalidState: the topics were closed.
    """

    def __init__(self, topics: Topics) -> None:
        self._key = id(topics)
        self._own: _Loop | None = None
        hub = hub_of(topics)
        if hub.closed:
            raise InvalidState("the topics are closed")
        with _loops_lock:
            running = hub.loop if hub.running else None
            own = _loops.get(self._key)
            if running is None and own is None:
                own = _loops[self._key] = _Loop()
            if own is not None:
                own.users += 1
                self._own = own
                running = own.loop
        assert running is not None
        self.loop: asyncio.AbstractEventLoop = running

    def leave(self) -> None:
        """Need it no longer: the last who does so ends the thread, and waits for its end."""
        own, self._own = self._own, None
        if own is None:
            return
        with _loops_lock:
            own.users -= 1
            if own.users:
                return
            del _loops[self._key]
        own.stop()
