"""When a client connects again, and how long it waits before it does."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..exceptions import InvalidMessage, InvalidStatus, ProxyError

__all__ = ["backoff", "describe", "process_exception"]

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
