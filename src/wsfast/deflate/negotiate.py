"""permessage-deflate (RFC 7692): its configuration and its negotiation, for both sides, sans-IO.

An extension is ``(name, [(parameter, value or None), ...])``, as `handshake` parses it from the header. The server
answers a request's offers by `accept`; the client makes them by `offer` and checks the answer by `confirm`. Both get a
`PerMessageDeflate`, which does the work on that connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from ..exceptions import NegotiationError
from .backends import choose
from .context import DeflateBudget, Parameters, PerMessageDeflate

__all__ = ["EXTENSION", "Deflate", "Extension", "accept", "agree", "as_deflate", "confirm", "offer"]

EXTENSION = "permessage-deflate"
"""The name of the extension (RFC 7692, 7)."""

Extension: TypeAlias = tuple[str, Sequence[tuple[str, str | None]]]
"""One element of Sec-WebSocket-Extensions: its name and its parameters in order, quotes taken off the values."""

# What websockets uses too. zlib's contexts take 37 and 11 KiB with it; with 15 bits and zlib's own memory level 8 they
# take 207 and 38, for messages that get 1 to 2 % smaller (1 KiB JSON).
_DEFAULT_BITS = 12
_WIDEST = 15

_NARROWEST_ASKED = 9
# RFC 7692, 7.1.2: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
_BITS = {str(bits): bits for bits in range(8, _WIDEST + 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """How to use permessage-deflate: for ``compression=`` of servers and clients.

    Args:
        server_max_window_bits: the server's window is at most 2 ** this, 8 to 15. Default: a server uses 12, a client
            asks for nothing. 8 becomes 9 on the wire unless the peer asks for 8, which many peers refuse.
        client_max_window_bits: the client's window is at most 2 ** this, 8 to 15. Default: a server asks for 12 where
            the client lets it ask (and for 9 instead of 8, which many clients cannot do), a client uses 12 and lets
            the server ask for less.
        server_no_context_takeover: the server forgets each message before the next. Default: False.
        client_no_context_takeover: the client forgets each message before the next. Default: False.
        level: zlib's, 1 (fast) to 9 (small). Default: 3, which with 12 bits costs no more than 1.
        mem_level: zlib's, 1 to 9: a compressor has a table of 2 ** (`mem_level` + 9) bytes. Default: 5. Below
            that, isal is not used with context takeover, because its compressors always take 61 KiB.
        threshold: messages below so many bytes are sent as they are, and others too while messages turn out not to
            shrink. With 0 each message is compressed, for peers that cannot read others. Default: 256, where without
            context takeover a byte saved costs 0.08 us, the time that it would take on a line of 100 Mbit/s.
        idle: seconds after which an unused compressor is freed; None never does it. Default: 60. The next message is
            compressed without what went before.
        executor_threshold: messages of at least so many bytes are compressed in a thread; None never does it.
            Default: 256 KiB, which take about 0.5 ms with isal and 2.5 ms with zlib.
        budget: a `DeflateBudget` for all connections that are made with this. Default: none, no limit.
        backend: `"zlib"`, `"isal"` or `"zlib_ng"`. Default: the best of those installed for each of the jobs, or what
            the environment's WSFAST_ZLIB says.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of its range.
    """

    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    level: int = 3
    mem_level: int = 5
    threshold: int = 256
    idle: float | None = 60.0
    executor_threshold: int | None = 256 * 1024
    budget: DeflateBudget | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        _check_int("server_max_window_bits", self.server_max_window_bits, 8, _WIDEST, optional=True)
        _check_int("client_max_window_bits", self.client_max_window_bits, 8, _WIDEST, optional=True)
        for name in ("server_no_context_takeover", "client_no_context_takeover"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, got {value!r}")
        _check_int("level", self.level, 1, 9)
        _check_int("mem_level", self.mem_level, 1, 9)
        _check_int("threshold", self.threshold, 0)
        _check_int("executor_threshold", self.executor_threshold, 0, optional=True)
        if self.idle is not None and (not isinstance(self.idle, (int, float)) or isinstance(self.idle, bool)):
            raise TypeError(f"idle must be a number of seconds or None, got {type(self.idle).__name__}")
        if self.idle is not None and not self.idle >= 0:
            raise ValueError(f"idle must be at least 0 seconds, or None, got {self.idle}")
        if self.budget is not None and not isinstance(self.budget, DeflateBudget):
            raise TypeError(f"budget must be a DeflateBudget or None, got {self.budget!r}")
        if self.backend is not None and not isinstance(self.backend, str):
            raise TypeError(f"backend must be a str or None, got {self.backend!r}")
        choose(self.level, _WIDEST, self.mem_level, takeover=True, peer_takeover=True, name=self.backend)


def _check_int(name: str, value: int | None, low: int, high: int | None = None, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    span = f"at least {low}" if high is None else f"from {low} to {high}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int {span}{', or None' if optional else ''}, got {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be {span}{', or None' if optional else ''}, got {value}")


_DEFAULT = Deflate()


def as_deflate(compression: Deflate | Literal["deflate"] | None) -> Deflate | None:
    """Turn the ``compression=`` option into a configuration, or None.

    Raises:
        TypeError: it is neither None, a string, nor a `Deflate`.
        ValueError: it is another string than ``"deflate"``.
    """
    if compression is None or isinstance(compression, Deflate):
        return compression
    if not isinstance(compression, str):
        raise TypeError(f"compression must be None, 'deflate' or a Deflate, got {compression!r}")
    if compression != "deflate":
        raise ValueError(f"compression must be None, 'deflate' or a Deflate, got {compression!r}")
    return _DEFAULT


@dataclass(frozen=True, slots=True)
class _Terms:
    """The parameters of one offer or answer (RFC 7692, 7.1)."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None
    """15 if the parameter has no value."""
    client_window_valued: bool = False


def _read_terms(parameters: Sequence[tuple[str, str | None]], *, answer: bool) -> _Terms:
    """Check parameters by RFC 7692, 7.1.

    Raises:
        ValueError: one is unknown, doubled, lacks its value, or has a wrong one.
    """
    terms: dict[str, int] = {}
    for name, value in parameters:
        if name in terms:
            raise ValueError(f"{name} stands twice")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{name} takes no value, got {value!r}")
            terms[name] = True
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None and name == "client_max_window_bits" and not answer:
                # RFC 7692, 7.1.2.2: only an offer may leave the value out.
                terms[name] = _WIDEST
            elif value in _BITS:
                terms[name] = _BITS[value]
                if name == "client_max_window_bits":
                    terms["client_window_valued"] = True
            else:
                raise ValueError(f"{name} must be from 8 to 15, got {value!r}")
        else:
            raise ValueError(f"unknown parameter {name!r}")
    return _Terms(**terms)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _parameters(deflate: Deflate, takeover: bool, bits: int, peer_takeover: bool, peer_bits: int) -> Parameters:
    compress, inflate = choose(
        deflate.level, bits, deflate.mem_level, takeover=takeover, peer_takeover=peer_takeover, name=deflate.backend
    )
    return Parameters(
        takeover=takeover,
        bits=bits,
        peer_takeover=peer_takeover,
        peer_bits=peer_bits,
        level=deflate.level,
        mem_level=deflate.mem_level,
        threshold=deflate.threshold,
        idle=deflate.idle,
        compress=compress,
        inflate=inflate,
    )


def agree(deflate: Deflate, *, takeover: bool, bits: int, peer_takeover: bool, peer_bits: int) -> PerMessageDeflate:
    """Make what does the work of parameters that were negotiated elsewhere.

    Args:
        deflate: the configuration.
        takeover, bits: context takeover and window bits of this side's compressor.
        peer_takeover, peer_bits: those of the peer's.
    """
    return PerMessageDeflate(_parameters(deflate, takeover, bits, peer_takeover, peer_bits), None)


def accept(deflate: Deflate | None, offers: Sequence[Extension]) -> tuple[Extension, PerMessageDeflate] | None:
    """Choose, on the server's side, the first acceptable offer.

    An offer with any parameter that is unknown, doubled or malformed is declined as a whole (RFC 7692, 7). Without an
    acceptable one the connection goes on uncompressed.

    Args:
        deflate: the server's configuration, or None.
        offers: all extensions that the client offers, others among them, in its order.

    Returns:
        The extension for the response and the connection's `PerMessageDeflate`, or None.
    """
    if deflate is None:
        return None
    for name, parameters in offers:
        if name != EXTENSION:
            continue
        try:
            terms = _read_terms(parameters, answer=False)
        except ValueError:
            continue
        return _accept(deflate, terms)
    return None


def _accept(deflate: Deflate, offered: _Terms) -> tuple[Extension, PerMessageDeflate]:
    # RFC 7692, 7.1.2.1: the same or less than offered; it may stand in the answer unasked.
    # 8 is told to nobody who did not ask for it: clients refuse it (wsproto and autobahn do).
    server_bits = max(deflate.server_max_window_bits or _DEFAULT_BITS, _NARROWEST_ASKED)
    if offered.server_max_window_bits is not None:
        server_bits = min(server_bits, offered.server_max_window_bits)
    # RFC 7692, 7.1.2.2: it must not stand in the answer to an offer without it.
    if offered.client_max_window_bits is None:
        client_bits = _WIDEST
    else:
        # 8 is asked of nobody who did not offer it: clients whose zlib refuses it would fail the handshake (websockets
        # does), and the inflater takes 9 anyway.
        wanted = max(deflate.client_max_window_bits or _DEFAULT_BITS, _NARROWEST_ASKED)
        client_bits = min(wanted, offered.client_max_window_bits)
    # RFC 7692, 7.1.1: the server may ask for, and promise, both unasked.
    server_takeover = not (deflate.server_no_context_takeover or offered.server_no_context_takeover)
    client_takeover = not (deflate.client_no_context_takeover or offered.client_no_context_takeover)

    agreed = _parameters(deflate, server_takeover, server_bits, client_takeover, client_bits)
    budget = deflate.budget
    if budget is not None and not budget.reserve(agreed.memory):
        server_takeover = client_takeover = False
        agreed, budget = _parameters(deflate, False, server_bits, False, client_bits), None

    answer: list[tuple[str, str | None]] = []
    if not server_takeover:
        answer.append(("server_no_context_takeover", None))
    if not client_takeover:
        answer.append(("client_no_context_takeover", None))
    if server_bits < _WIDEST or offered.server_max_window_bits is not None:
        answer.append(("server_max_window_bits", str(server_bits)))
    if client_bits < _WIDEST or offered.client_window_valued:
        answer.append(("client_max_window_bits", str(client_bits)))
    return (EXTENSION, answer), PerMessageDeflate(agreed, budget)


def _asked(bits: int | None) -> int | None:
    """Return the window to ask a peer for: 9 instead of 8, which wsproto and autobahn refuse."""
    return None if bits is None else max(bits, _NARROWEST_ASKED)


def offer(deflate: Deflate | None) -> list[Extension]:
    """Make, on the client's side, the extensions to offer.

    Args:
        deflate: the client's configuration, or None.
    """
    if deflate is None:
        return []
    parameters: list[tuple[str, str | None]] = []
    if deflate.server_no_context_takeover:
        parameters.append(("server_no_context_takeover", None))
    if deflate.client_no_context_takeover:
        parameters.append(("client_no_context_takeover", None))
    # 15 asks for nothing, and aiohttp's server leaves it out of its answer, where RFC 7692, 7.1.2.1 wants it.
    if deflate.server_max_window_bits not in (None, _WIDEST):
        parameters.append(("server_max_window_bits", str(_asked(deflate.server_max_window_bits))))
    bits = deflate.client_max_window_bits
    parameters.append(("client_max_window_bits", None if bits is None else str(_asked(bits))))
    return [(EXTENSION, parameters)]


def confirm(deflate: Deflate | None, answer: Sequence[Extension]) -> PerMessageDeflate | None:
    """Check, on the client's side, the extensions that the server chose.

    Args:
        deflate: the client's configuration, as it was given to `offer`.
        answer: all extensions in the server's response.

    Returns:
        The connection's `PerMessageDeflate`, or None if the server declined.

    Raises:
        NegotiationError: the server chose what was not offered, or with wrong parameters; the connection must fail
            (RFC 6455, 9.1, and RFC 7692, 7).
    """
    for name, _ in answer:
        if deflate is None or name != EXTENSION:
            raise NegotiationError(f"server chose the extension {name!r}, which was not offered")
    if deflate is None or not answer:
        return None
    if len(answer) > 1:
        raise NegotiationError(f"server chose {EXTENSION} {len(answer)} times, expected once")
    try:
        terms = _read_terms(answer[0][1], answer=True)
    except ValueError as exc:
        raise NegotiationError(f"server chose {EXTENSION} with wrong parameters: {exc}") from exc

    # RFC 7692, 7.1.1.1: asked for, it must be granted. Unasked, it may be.
    if deflate.server_no_context_takeover and not terms.server_no_context_takeover:
        raise NegotiationError("server did not grant server_no_context_takeover")
    # RFC 7692, 7.1.2.1: asked for, the same or less must be granted. Unasked, any may be.
    server_bits = terms.server_max_window_bits
    wanted = _asked(deflate.server_max_window_bits) or _WIDEST
    if (server_bits or _WIDEST) > wanted:
        raise NegotiationError(f"server did not grant server_max_window_bits={wanted}, but {server_bits}")
    # RFC 7692, 7.1.2.2: more than offered is no error; the client then keeps to its own.
    client_bits = min(terms.client_max_window_bits or _WIDEST, deflate.client_max_window_bits or _DEFAULT_BITS)
    server_takeover = not terms.server_no_context_takeover
    client_takeover = not (terms.client_no_context_takeover or deflate.client_no_context_takeover)

    agreed = _parameters(deflate, client_takeover, client_bits, server_takeover, server_bits or _WIDEST)
    budget = deflate.budget
    if budget is not None and not budget.reserve(agreed.memory):
        # Too late to ask the server to forget, but this side's compressor always may.
        agreed = _parameters(deflate, False, client_bits, server_takeover, server_bits or _WIDEST)
        budget = budget if budget.reserve(agreed.memory) else None
    return PerMessageDeflate(agreed, budget)
