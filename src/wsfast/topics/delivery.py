"""Delivery to a connection that compresses, is behind, or is busy with another message."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..connection import State
from ..exceptions import BufferFull, ConcurrencyError, ConnectionClosed, ExtensionError
from ..telling import tell

if TYPE_CHECKING:
    from ..asyncio.broadcast import Prepared
    from .index import Index, Member

__all__ = ["Delivery", "Extra", "Jobs"]

_OPEN: Final = State.OPEN  # in Python 3.11, to get a member from its class takes a call
_BUSY: Final = 0.02
"""Seconds between two looks at a connection on which a `Writer` has begun a message: nothing signals that it ended."""


class Job(Protocol):
    """What runs beside others."""

    def cancel(self) -> object:
        """Cancel it."""


class Jobs(Protocol):
    """What runs coroutine functions beside others: an event loop, mostly."""

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> Job:
        """Run one, which raises nothing."""

    async def sleep(self, seconds: float) -> None:
        """Sleep."""


class Extra:
    """State that only some connections need, beside their subscriptions.

    Attributes:
        id: the id under which topics with presence show the connection.
        present: the topics with presence that it subscribed to.
        held: messages that wait for the end of another message, which takes several steps.
        held_size: the bytes of `held`.
        newest: messages of topics that conflate, by their keys; they wait until the connection is no longer behind.
        newest_size: the bytes of `newest`.
        warned: whether it was logged that the connection is behind.
    """

    __slots__ = ("held", "held_size", "id", "newest", "newest_size", "present", "warned")

    def __init__(self) -> None:
        self.id: str = ""
        self.present: dict[str, None] = {}
        self.held: list[Prepared] | None = None
        self.held_size: int = 0
        self.newest: dict[Any, Prepared] | None = None
        self.newest_size: int = 0
        self.warned: bool = False


class Delivery:
    """Delivers what the index cannot deliver as shared frames.

    Args:
        logger: for warnings about connections that are behind.
        jobs: what runs those deliveries that wait for something.

    Attributes:
        index: set once there is one.
        deliveries, conflated, dropped: totals.
    """

    def __init__(self, logger: Any, jobs: Jobs) -> None:
        self.index: Index | None = None
        self.deliveries: int = 0
        self.conflated: int = 0
        self.dropped: int = 0
        self._logger = logger
        self._jobs = jobs
        self._running: dict[object, Job] = {}

    @staticmethod
    def extra(member: Member) -> Extra:
        """Return a member's extra; make one if it has none."""
        if member.extra is None:
            member.extra = Extra()
        extra: Extra = member.extra
        return extra

    def close(self) -> None:
        """Drop the messages that wait."""
        for job in list(self._running.values()):
            job.cancel()

    def left(self, extra: Extra) -> None:
        """Drop the messages that wait for a connection that has ended."""
        if extra.held:
            self.dropped += len(extra.held)
        extra.held = extra.newest = None
        extra.newest_size = 0

    def slow(self, member: Member, messages: list[Prepared]) -> None:
        """Send messages, or hold them, or drop them as the connection's policy says."""
        channel: Any = member.sink
        extra: Extra | None = member.extra
        for i, message in enumerate(messages):
            if channel.connection.state is not _OPEN:
                return
            if (extra is not None and extra.held is not None) or channel.is_sending:
                self._hold(member, channel, messages[i:])
                return
            if message.key is not None and (channel.write_paused or (extra is not None and extra.newest is not None)):
                self._keep_newest(member, channel, message)
                continue
            self._send(member, channel, message)

    def _send(self, member: Member, channel: Any, message: Prepared) -> None:
        try:
            if message.send(channel):
                self.deliveries += 1
                if member.extra is not None:
                    member.extra.warned = False
            elif channel.connection.state is _OPEN:
                self.dropped += 1
        except (BufferFull, ExtensionError) as exc:
            self._skipped(self.extra(member), channel, exc)
        except ConcurrencyError:
            self._hold(member, channel, [message])

    def _skipped(self, extra: Extra, channel: Any, exc: Exception) -> None:
        self.dropped += 1
        if not extra.warned:
            extra.warned = True
            tell(channel.host.logger.warning, "a publish skipped %a: %s", channel.ws.remote_address, exc)

    # --- A message in several steps is under way --------------------------------------------------------------

    def _hold(self, member: Member, channel: Any, messages: list[Prepared]) -> None:
        extra = self.extra(member)
        started = extra.held is not None
        held = extra.held if extra.held is not None else []
        for message in messages:
            try:
                if not channel.may_buffer(message.payload, extra.held_size):
                    self.dropped += 1
                    continue
            except BufferFull as exc:
                self._skipped(extra, channel, exc)
                continue
            except ConnectionClosed:  # closed by the policy "close"
                break
            held.append(message)
            extra.held_size += len(message.payload)
        extra.held = held
        if not started:
            self._spawn(self._send_held, member, channel, extra)

    async def _send_held(self, member: Member, channel: Any, extra: Extra) -> None:
        try:
            async with channel.outbox.turn():
                while channel.connection.in_message and channel.connection.state is _OPEN:
                    await self._jobs.sleep(_BUSY)
                while extra.held and channel.connection.state is _OPEN:
                    held, extra.held = extra.held, []
                    extra.held_size = 0
                    for i, message in enumerate(held):
                        try:
                            message.put(channel)
                        except ConcurrencyError:  # another thread has begun a message
                            extra.held = held[i:]
                            extra.held_size = sum(len(message.payload) for message in extra.held)
                            await self._jobs.sleep(_BUSY)
                            break
                        self.deliveries += 1
                    else:
                        await channel.outbox.drain()
        except ConnectionClosed:
            pass
        finally:
            self.dropped += len(extra.held or ())
            extra.held = None
            extra.held_size = 0

    # --- It is behind, and only the newest matters ------------------------------------------------------------

    def _keep_newest(self, member: Member, channel: Any, message: Prepared) -> None:
        extra = self.extra(member)
        if extra.newest is not None:
            before = extra.newest.pop(message.key, None)
            if before is not None:
                extra.newest_size -= len(before.payload)
                self.conflated += 1
        try:
            # What is held is unsent as well: without a limit, keys without end would be memory without end.
            if not channel.may_buffer(message.payload, extra.newest_size):
                self.dropped += 1
                return
        except BufferFull as exc:
            self._skipped(extra, channel, exc)
            return
        except ConnectionClosed:  # closed by the policy "close"
            extra.newest, extra.newest_size = None, 0
            return
        if extra.newest is None:
            extra.newest = {}
            self._spawn(self._send_newest, member, channel, extra)
        extra.newest[message.key] = message
        extra.newest_size += len(message.payload)

    async def _send_newest(self, member: Member, channel: Any, extra: Extra) -> None:
        try:
            while extra.newest:
                await channel.outbox.drain()
                while extra.newest and not channel.write_paused and not channel.is_sending:
                    message = extra.newest.pop(next(iter(extra.newest)))
                    extra.newest_size -= len(message.payload)
                    self._send(member, channel, message)
                if extra.newest and channel.is_sending:
                    async with channel.outbox.turn():
                        pass
                    await self._jobs.sleep(0)
        except ConnectionClosed:
            pass
        finally:
            extra.newest = None
            extra.newest_size = 0

    def _spawn(self, send: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        key = object()
        ended = False

        async def run() -> None:
            nonlocal ended
            try:
                await send(*args)
            except Exception as exc:
                tell(self._logger.error, "a delivery failed", exc_info=exc)
            finally:
                ended = True
                self._running.pop(key, None)

        job = self._jobs.spawn(run)
        if not ended:  # as an eager task may have
            self._running[key] = job
