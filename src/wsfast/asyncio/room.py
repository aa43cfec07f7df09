"""Decides when a listener is told that it may send again: when `Listener.on_writable` is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..connection import State
from ..exceptions import ENDS_PROGRAM
from .channel import PAUSED_WRITING

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["Room"]

_READING_TURNS: Final = 2
"""Turns of the loop within which a transport reads after `resume_reading`; TLS needs one to look at its memory."""


class Room:
    """Decides when a listener is told that there is room again for what it sends.

    It is made for a connection when a `send_nowait` was refused, or when the transport had too much unsent.

    Args:
        channel: the connection's protocol.
    """

    __slots__ = ("_channel", "_refused", "_telling")

    def __init__(self, channel: ConnectionProtocol) -> None:
        self._channel = channel
        self._refused = False  # a `send_nowait` was refused, and `on_writable` is owed
        self._telling = False  # `on_writable` will be called within the next turns

    def owe(self) -> None:
        """Have `on_writable` called once a message that was refused may be tried again."""
        if not self._refused:
            self._refused = True
            self._channel.turn.loop.call_soon(self._look)

    def _look(self) -> None:
        channel = self._channel
        transport = channel.transport
        if not self._refused or transport is None or channel.write_paused:
            return  # `returned` will be called
        channel.flush()
        unsent = transport.get_write_buffer_size()
        if unsent and not channel.write_paused:
            # Less than `write_limit`, more than the program's own mark: have the transport tell when a quarter is left.
            transport.set_write_buffer_limits(unsent - 1)
        if not channel.write_paused:
            self._tell()

    def returned(self) -> None:
        """Note that the transport has room again; the listener learns it when the peer has been read.

        A listener may use up the room at once, by which reading is paused again. So the peer, whose pings and Close
        frame would else never be seen, is read first: the loop looks at its socket between turns.
        """
        self._restore_limits()
        if not self._telling:
            self._telling = True
            self._channel.turn.loop.call_soon(self._tell_later, _READING_TURNS)

    def read_on(self) -> None:
        """Read for some turns from a peer that is behind, but reads steadily.

        It may be behind for ever; its pings and its Close frame are not to wait for that.
        """
        if not self._telling:
            self._telling = True
            self._channel.unpause(PAUSED_WRITING)
            self._channel.turn.loop.call_soon(self._tell_later, _READING_TURNS)

    def _tell_later(self, turns: int) -> None:
        if turns:
            self._channel.turn.loop.call_soon(self._tell_later, turns - 1)
            return
        self._telling = False
        channel = self._channel
        if not channel.write_paused:
            self._tell()
        elif channel.listener is not None and channel.connection.state is State.OPEN:
            channel.pause(PAUSED_WRITING)  # `returned` will be called

    def _restore_limits(self) -> None:
        if self._refused:
            self._refused = False
            transport = self._channel.transport
            if transport is not None:
                transport.set_write_buffer_limits(self._channel.host.limits.write_limit)

    def _tell(self) -> None:
        self._restore_limits()
        channel = self._channel
        if channel.listener is not None and channel.connection.state is State.OPEN:
            try:
                channel.listener.on_writable()
            except ENDS_PROGRAM:
                raise
            except BaseException as exc:
                channel.consumer_failed(exc)
