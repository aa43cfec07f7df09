"""What the operating system holds of what was sent, where it tells: a peer that takes it slowly is alive."""

from __future__ import annotations

import sys
from typing import Any

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["Progress", "unacknowledged", "unacknowledged_by", "unsent_by"]


def unacknowledged(sock: Any) -> int:
    """Return how many bytes of a socket the peer's system has not acknowledged; 0 if that is not known.

    Args:
        sock: what has a `fileno`; None for none.
    """
    if sys.platform != "linux" or sock is None:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # it is no socket, or closed
        return 0


def unacknowledged_by(transport: Any) -> int:
    """Return the same of an asyncio transport: ours tells, and any other has a socket."""
    tell = getattr(transport, "unacknowledged", None)
    if tell is not None:
        return tell()  # type: ignore[no-any-return]
    return unacknowledged(transport.get_extra_info("socket"))


def unsent_by(transport: Any) -> int:
    """Return how many bytes written to an asyncio transport the peer has not taken: those that wait in it, too."""
    return transport.get_write_buffer_size() + unacknowledged_by(transport)  # type: ignore[no-any-return]


class Progress:
    """Tells whether a peer goes on taking what was sent to it: a long response may take it longer than any limit.

    Args:
        untaken: how many bytes it has not taken.
    """

    __slots__ = ("_untaken",)

    def __init__(self, untaken: int) -> None:
        self._untaken = untaken

    def goes_on(self, untaken: int) -> bool:
        """Tell whether it has taken some since the call before, but not all, given how many bytes it has not taken."""
        before, self._untaken = self._untaken, untaken
        return 0 < untaken < before
