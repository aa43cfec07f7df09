"""Decides whether a client connects again after a failure, and how long it waits first."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ..codes import CloseCause
from ..connection import State
from ..exceptions import InvalidMessage, InvalidStatus, ProxyError
from ..options import check_values
from ..telling import tell

__all__ = ["Attempts", "backoff", "describe", "process_exception", "was_lost"]

if TYPE_CHECKING:
    from ..shell import Facts

_STABLE: Final = 5.0
"""Seconds after which a connection that the server ends counts as one that worked."""
# RFC 9110, 15.6: failures of servers and gateways that may soon be over; 501 and 505 will not be.
_TRANSIENT = frozenset({500, 502, 503, 504})


def backoff(
    initial_delay: float = 5.0, min_delay: float = 3.1, max_delay: float = 90.0, factor: float = 1.618
) -> Iterator[float]:
    """Make the delays between attempts to connect: exponential, with jitter, for ever (RFC 6455, 7.2.3).

    The first delay is random, so that the clients of a failed server do not come back all at once; each later delay is
    varied by up to a quarter, so that the clients stay spread out.

    Args:
        initial_delay: seconds that the first delay is at most; default 5.
        min_delay: seconds of the second delay; default 3.1.
        max_delay: seconds that the series grows to; default 90.
        factor: what each delay is multiplied by to get the next; default 1.618.
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
    """Describe an error and its causes in one line for the log.

    Args:
        exc: what `connect` raised. Its cause may say more: if a server refuses the client's certificate, for example,
            the exception says that no answer came, and only its cause names the TLS alert.
    """
    told = f"{type(exc).__name__}: {exc}"
    cause = exc.__cause__
    if cause is None or str(cause) in told:
        return told
    return f"{told} (caused by {describe(cause)})"


def was_lost(ws: Facts) -> bool:
    """Tell whether a connection was lost: ended, but not by this program. Call it before closing."""
    return ws.state is not State.OPEN and ws.close_cause is not CloseCause.LOCAL


class Attempts:
    """The attempts of one loop that connects again and again: what ends it, and how long it waits between two.

    Args:
        process_exception: called with what an attempt raised; returns None to try again, or the exception to raise.
        delays: returns an iterable of the seconds between attempts; the loop ends when they are used up.
        logger: gets a line about each delay.
        one_time: whether the settings allow a single connection only, as with `sock`.
    """

    def __init__(
        self,
        process_exception: Callable[[Exception], Exception | None],
        delays: Callable[[], Iterator[float]],
        logger: logging.Logger | logging.LoggerAdapter[Any],
        *,
        one_time: bool = False,
    ) -> None:
        check_values({"process_exception": process_exception, "reconnect_delays": delays})
        self._process_exception = process_exception
        self._make_delays = delays
        self._logger = logger
        self._one_time = one_time
        self._delays: Iterator[float] | None = None  # the delays since the last connection that worked; None: none yet

    def failed(self, exc: Exception) -> float:
        """Return the seconds to wait for after an attempt that raised.

        Raises:
            Exception: the one that ends the loop, mostly `exc`.
        """
        answer = self._process_exception(exc)
        if answer is not None and answer is not exc and not self._one_time:
            raise answer from exc
        delay = self._next(describe(exc)) if answer is None and not self._one_time else None
        if delay is None:
            raise exc
        return delay

    def ended(self, lost: bool, lasted: float) -> float | None:
        """Return the seconds to wait after a connection has ended; None if the loop ends with it.

        Args:
            lost: what `was_lost` told.
            lasted: the seconds for which it was open.
        """
        if self._one_time:
            return None
        if not lost or lasted >= _STABLE:
            self._delays = None
            return 0.0
        # Otherwise a server that accepts connections and drops them at once would be called again without a pause.
        return self._next(f"the connection ended after {lasted:.1f} s")

    def _next(self, failure: str) -> float | None:
        if self._delays is None:
            self._delays = iter(self._make_delays())
        delay = next(self._delays, None)
        if delay is not None:
            tell(self._logger.info, "connecting again in %.1f s: %s", delay, failure)
        return delay
