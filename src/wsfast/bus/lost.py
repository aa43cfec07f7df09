"""How a bus reconnects to a lost server: how long it waits before each attempt, and what it logs as the reason."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable
from typing import Final

from ..escape import words

__all__ = ["DOWN_BYTES", "UP_BYTES", "Pauses", "told"]

UP_BYTES: Final = 33_554_432
"""Bytes that may be under way while the server takes them."""
DOWN_BYTES: Final = 1_048_576
"""Bytes that may wait for a server that is lost."""
_FIRST_PAUSE: Final = 0.02
_PAUSE: Final = 0.25
_LAST_PAUSE: Final = 2.0
_SOON: Final = 30.0
"""Seconds after the loss from which on attempts become rarer."""
_ENOUGH: Final = 8
"""Characters by which a secret is known: a server may say back only a part of it."""


class Pauses:
    """How long to wait before each attempt to connect: briefly at first, since most servers are back soon.

    Args:
        time: the clock, in seconds.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._lost_at = time()
        self._pause = 0.0

    def lost(self) -> None:
        """Note that a connection that was in use is lost now."""
        self._lost_at = self._time()

    def restart(self) -> None:
        """Begin with the shortest pause again."""
        self._pause = 0.0

    async def wait(self) -> None:
        """Wait for twice as long as the last time, within limits; a part of it is by chance."""
        most = _PAUSE if self._time() - self._lost_at < _SOON else _LAST_PAUSE
        self._pause = min(most, max(_FIRST_PAUSE, 2 * self._pause))
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))


def told(exc: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return what an exception says, escaped, in at most 200 characters; its class where it says nothing.

    Args:
        secrets: what a server is sent to be let in. One that does not take it may say it back: the text ends before it.
    """
    said = str(exc)
    for secret in secrets:
        for form in (secret, words(secret), json.dumps(secret)[1:-1]):
            before, found, _ = said.partition(form[:_ENOUGH]) if form else (said, "", "")
            said = f"{before}..." if found else before
    return words(said) or type(exc).__name__
