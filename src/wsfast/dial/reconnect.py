"""When a client connects again, and how long it waits before it does."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ..codes import CloseCause
from ..connection import State
from ..exceptions import InvalidMessage, InvalidStatus, ProxyError

__all__ = ["Attempts", "backoff", "describe", "process_exception", "was_lost"]

if TYPE_CHECKING:
    from ..shell import Facts

_STABLE: Final = 5.0
"""Seconds after which a connection that the server ends counts as one that worked."""
# RFC 9110, 15.6: answers of servers and gateways that may be other ones soon. 501 and 505 stay.
_TRANSIENT = frozenset({500, 502, 503, 504})


def backoff(
    initial_delay: float = 5.0, min_delay: float = 3.1, max_delay: float = 90.0, factor: float = 1.618
) -> Iterator[float]:
    """Make the delays between attempts to connect: exponential, with jitter, for ever (RFC 6455, 7.2.3).

    The first is random, so that the clients of a server that failed do not come back all at once; the others
    are up to a quarter longer or shorter than the series says, so that they do not meet later on either.

    Args:
        initial_delay: seconds that the first delay is at most; default 5.
        min_delay: seconds of the second delay; default 3.1.
        max_delay: seconds that the series grows to; default 90.
        factor: by which each delay is longer than the one before; default 1.618.
    """
    yield random.random() * initial_delay
    delay = min_delay
    while True:
        yield min(delay, max_delay) * random.uniform(0.75, 1.25)
        if delay < max_delay:
            delay *= factor


def process_exception(exc: Exception) -> Exception | None:
    """Tell whether connecting again may help: None if it may, else the exception to raise.

    It may after errors of the network (`OSError`, `TimeoutError`, a connection that ended during the opening
    handshake), after 500, 502, 503 and 504 from the server or the proxy, and if a proxy could not be reached.

    Args:
        exc: what `connect` raised.
    """
    if isinstance(exc, OSError):
        return None
    if isinstance(exc, (InvalidMessage, ProxyError)) and isinstance(exc.__cause__, (OSError, EOFError)):
        return None
    if isinstance(exc, (InvalidStatus, ProxyError)) and exc.response is not None:
        return None if exc.response.status_code in _TRANSIENT else exc
    return exc


def describe(exc: BaseException) -> str:
    """Return what failed and what that was due to, for a line of the log.

    Args:
        exc: what `connect` raised. That a server refuses a client's certificate, for example, is known from the alert
            only, which is the cause of the exception about the answer that did not come.
    """
    told = f"{type(exc).__name__}: {exc}"
    cause = exc.__cause__
    if cause is None or str(cause) in told:
        return told
    return f"{told} (caused by {describe(cause)})"


def was_lost(ws: Facts) -> bool:
    """Tell, before a connection is closed at the end of its round, whether it has ended by another's doing."""
    return ws.state is not State.OPEN and ws.close_cause is not CloseCause.LOCAL


class Attempts:
    """The attempts of one loop that connects again and again: what ends it, and how long it waits between two.

    Args:
        process_exception: called with what an attempt raised; returns None to try again, or the exception to raise.
        delays: called to make the seconds between attempts; where they end, so does the loop.
        logger: is told of each delay.
        one_time: whether the settings can serve once only.
    """

    def __init__(
        self,
        process_exception: Callable[[Exception], Exception | None],
        delays: Callable[[], Iterator[float]],
        logger: logging.Logger | logging.LoggerAdapter[Any],
        *,
        one_time: bool = False,
    ) -> None:
        self._process_exception = process_exception
        self._make_delays = delays
        self._logger = logger
        self._one_time = one_time
        self._delays: Iterator[float] | None = None  # since the last connection that worked

    def failed(self, exc: Exception) -> float:
        """Return the seconds to wait for after an attempt that raised.

        Raises:
            Exception: what ends the loop, `exc` mostly.
        """
        answer = self._process_exception(exc)
        if answer is not None and answer is not exc and not self._one_time:
            raise answer from exc
        delay = self._next(describe(exc)) if answer is None and not self._one_time else None
        if delay is None:
            raise exc
        return delay

    def ended(self, lost: bool, lasted: float) -> float | None:
        """Return the seconds to wait for after a connection has ended; None if the loop does.

        Args:
            lost: what `was_lost` told.
            lasted: the seconds for which it was open.
        """
        if self._one_time:
            return None
        if not lost or lasted >= _STABLE:
            self._delays = None
            return 0.0
        # A server that accepts and drops would be asked again without a pause otherwise.
        return self._next(f"the connection ended after {lasted:.1f} s")

    def _next(self, failure: str) -> float | None:
        if self._delays is None:
            self._delays = iter(self._make_delays())
        delay = next(self._delays, None)
        if delay is not None:
            self._logger.info("connecting again in %.1f s: %s", delay, failure)
        return delay
