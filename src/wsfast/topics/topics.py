"""`Topics`: subscriptions, publishing, histories and presence, as users call them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Self

from ..bus.interface import Bus, Position
from ..events import BytesLike
from ..exceptions import InvalidState
from ..options import check_values, named_options
from .histories import Published
from .hub import Hub
from .numbers import Gap
from .presence import Present
from .rules import History, Rule, check_name

if TYPE_CHECKING:
    from types import TracebackType

    from ..asyncio.websocket import WebSocket

__all__ = ["Published", "Topics", "hub_of"]


class Topics:
    """Messages to all who subscribed to a topic: in this process, and by a bus in others.

    ::

        topics = wsfast.Topics()
        server = wsfast.Server(topics=topics)

        @server.handler(None)
        async def room(ws):
            ws.subscribe("room.1")
            async for message in ws:
                ws.publish("room.1", message)

    A server that is given a `Topics` starts and stops it; several servers may share it. Without a server, ``async with
    topics:`` does. It runs on the event loop on which it was started first, which must run until the end; servers on
    other loops, in other threads, take part. Call its methods in the thread of any of these loops, with connections of
    that loop. `authorize` is called there, too; `on_gap`, `on_presence`, and `encode` for messages from the bus, are
    called in the thread of the first loop.

    Args:
        bus: carries messages to other processes, such as `LocalBus` or `RedisBus`; None, the default, for a single
            process.
        authorize: called as ``authorize(ws, topic)`` before each subscription, by `WebSocket.subscribe` or
            `WebSocket.recover`; returns True to allow it, else False. Needed if clients choose the topics' names.
            Default: every subscription is allowed.
        encode: called as ``encode(topic, message, position)`` once for each message and process; returns the `str` or
            `bytes` that subscribers are sent. `position` is None in topics without a history. Default: the message
            itself.
        key: a secret of 1 to 64 bytes, the same in all processes, with which messages on the bus are signed; those with
            a wrong signature are dropped. None, the default, for no signatures.
        max_topics: how many topics one connection may subscribe to. Default: 1,000.
        max_subscriptions: how many subscriptions there may be in this process; with servers in several threads, each of
            them may exceed it by one. Default: 1,000,000.
        max_size: the most bytes of a message that is taken from the bus, or put on it. Default: 16 MiB.
        on_gap: called with a `Gap` when messages of other processes were lost, or a thread did not get some. Default:
            none.
        on_presence: called as ``on_presence(topic, present, came)`` when somebody came (True) or left (False), in
            topics with presence; `present` is a `Present`. Default: none.
        logger: default: ``logging.getLogger("wsfast.topics")``.

    Attributes:
        on_gap, on_presence: the arguments; they may be set at any time.

    Raises:
        ValueError, TypeError: an option is out of range; the text names it.
    """

    @named_options("Topics()")
    def __init__(
        self,
        bus: Bus | None = None,
        *,
        authorize: Callable[[WebSocket, str], bool] | None = None,
        encode: Callable[[str, str | bytes, Position | None], str | bytes] | None = None,
        key: bytes | None = None,
        max_topics: int = 1000,
        max_subscriptions: int = 1_000_000,
        max_size: int = 16_777_216,
        on_gap: Callable[[Gap], object] | None = None,
        on_presence: Callable[[str, Present, bool], object] | None = None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        if bus is not None and not isinstance(bus, Bus):
            raise TypeError(f"bus must be a Bus or None, got {type(bus).__name__}")
        hooks = {"authorize": authorize, "encode": encode, "on_gap": on_gap, "on_presence": on_presence}
        for name, hook in hooks.items():
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be callable, got {type(hook).__name__}")
            if iscoroutinefunction(hook):
                raise TypeError(f"{name} must be a plain function, which is not awaited, got {hook!r}")
        limits = {"max_topics": max_topics, "max_subscriptions": max_subscriptions, "max_size": max_size}
        for name, value in limits.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be int, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        check_values({"logger": logger})
        self.on_gap = on_gap
        self.on_presence = on_presence
        self._hub = Hub(bus, authorize, encode, key, max_topics, max_subscriptions, max_size, self, logger)

    def configure(
        self, pattern: str, *, history: History | None = None, presence: bool = False, conflate: bool = False
    ) -> None:
        """Set the rule for a topic, or for all topics whose names have a prefix; the longest prefix counts.

        Set the same rules in all processes, before the start.

        Args:
            pattern: a topic's name, or a prefix followed by ``*``.
            history: keep messages, number them, and deliver them in one order everywhere; None, the default, for no
                history.
            presence: let all processes know who has subscribed. Default: False.
            conflate: of the messages with the same key only the newest matters: it takes the place of one that is not
                sent yet. Default: False.

        Raises:
            ValueError, TypeError: the pattern is not one, has a rule already, or `history` comes with `conflate`.
            InvalidState: it was started already.
        """
        if history is not None and not isinstance(history, History):
            raise TypeError(f"history must be a History or None, got {type(history).__name__}")
        for name, value in (("presence", presence), ("conflate", conflate)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be bool, got {type(value).__name__}")
        if history is not None and conflate:
            raise ValueError("a topic with a history delivers every message, which conflate does not")
        if self._hub.loop is not None:
            raise InvalidState("topics are configured before they are started")
        self._hub.rules.add(pattern, Rule(history, presence, conflate))

    async def start(self) -> None:
        """Start on the running event loop; each further call only counts one more user.

        It waits until the bus can reach other processes, but for no more than 3 s: then what is published reaches this
        process, `health` says ``"degraded"``, and the bus goes on trying.

        If it runs on another event loop already, in another thread, this loop takes part.

        Raises:
            InvalidState: it was closed, or was started on another event loop that does not run any more.
        """
        await self._hub.start(asyncio.get_running_loop())

    async def close(self) -> None:
        """Stop, unless somebody else who started it still uses it. Pending messages are sent.

        On an event loop that takes part, only that loop's part ends, unless it is the last.
        """
        await self._hub.close(asyncio.get_running_loop())

    async def __aenter__(self) -> Self:
        """Start, and return itself."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def subscribe(self, ws: WebSocket, topic: str, info: str | None = None) -> Awaitable[None]:
        """Subscribe a connection to a topic; see `WebSocket.subscribe`.

        Raises:
            InvalidState: as there, or the connection has subscribed to topics of another `Topics`.
        """
        return self._hub.here().subscribe(ws, topic, info)

    def unsubscribe(self, ws: WebSocket, topic: str) -> bool:
        """End a subscription; see `WebSocket.unsubscribe`."""
        if not self._hub.running:
            check_name(topic)
            return False
        return self._hub.here().unsubscribe(ws, topic)

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to all who subscribed to a topic, in all processes.

        The call queues the message behind what was sent and published before; it goes out by the end of the loop's
        turn. A connection with too much unsent is treated as its `overflow` says.

        Args:
            topic: the topic's name.
            message: `str` for a text message, bytes-like for a binary one.
            key: in a topic that conflates, messages with the same key replace each other; at most 200 bytes in UTF-8.
                Default: all messages of the topic do.
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
            compress: whether to compress the message for this process' connections, where that was agreed on; None,
                the default, leaves the choice to `compression`.

        Returns:
            An awaitable, which need not be awaited: it is done when the bus has taken the message, and its result is
            the message's `Position` in a topic with a history, else None.

        Raises:
            ValueError, TypeError, UnicodeError: the topic's name, the message or the key is not valid.
            InvalidState: the topics are not started, or closed.
            RuntimeError: this is another thread than those of its event loops.
            BusUnavailable: by the awaitable: other processes may not get it.
        """
        return self._hub.publish(topic, message, key, text, compress, None, self._hub.here())

    def _publish_from(
        self,
        channel: Any,
        topic: str,
        message: str | BytesLike,
        key: str | None,
        text: bool | None,
        compress: bool | None,
    ) -> Awaitable[Position | None]:
        """Send a message to all but the connection whose channel it is; `WebSocket.publish` calls it."""
        return self._hub.publish_from(channel, topic, message, key, text, compress)

    async def history(self, topic: str, since: Position | str | None = None) -> AsyncIterator[Published]:
        """Iterate over the messages that are kept of a topic, oldest first, up to the newest.

        Args:
            topic: a topic with a history.
            since: the position after which to begin, as a `Position` or its `str`; None, the default, for
                the oldest that is kept.

        Raises:
            NotRecovered: some that came after `since` are not kept any more.
            ValueError, TypeError: the topic has no history, or `since` is not a position.
            BusUnavailable: the history cannot be read.
        """
        async for published in self._hub.history(self._hub.here(), topic, since):
            yield published

    async def recover(self, ws: WebSocket, topic: str, since: Position | str | None, info: str | None = None) -> int:
        """Send a connection what it missed, and subscribe it; see `WebSocket.recover`."""
        part = self._hub.here()
        return await part.recover(ws, topic, self._hub.checked_since(topic, since), info)

    def present(self, topic: str) -> list[Present]:
        """Return who is present in a topic, in all processes, as far as this one knows.

        Args:
            topic: a topic with presence.

        Raises:
            ValueError, TypeError: the topic has no presence, or its name is not valid.
        """
        if not self._hub.rules.of(topic).presence:
            raise ValueError(f"{topic!r} has no presence; see Topics.configure")
        return self._hub.presence.present(topic)

    @property
    def health(self) -> str:
        """``"up"``; ``"degraded"`` while the bus cannot reach other processes; ``"closed"`` if it does not run."""
        return self._hub.health

    @property
    def counters(self) -> dict[str, int | float]:
        """Totals since the start, as a new dict.

        ``topics`` and ``subscriptions`` of this process now; ``publishes`` by it, ``deliveries`` to its connections and
        the ``writes`` that they took, ``conflated`` messages that a newer one replaced, and those ``dropped`` because a
        connection had too much unsent; ``gaps`` that were told, ``duplicates`` from the bus, messages ``recovered``
        from histories, and those ``refused`` because they were malformed; ``bus_lag``, the seconds of the last round
        trip over the bus, 0 where it does not return what was sent; its ``reconnects``, and the bytes in its
        ``outbox``.
        """
        return self._hub.counters


def hub_of(topics: Topics) -> Hub:
    """Return what is behind topics, for the parts of wsfast that work with it."""
    return topics._hub
