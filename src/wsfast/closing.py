"""What Close frames say (RFC 6455, 5.5.1, 7.1 and 7.4): legal codes, bodies, and what the end of a connection means.

Sans-IO, and without any state: `connection` says when a Close frame is sent, `session` how long the peer's is awaited.
"""

from __future__ import annotations

from typing import Final

from .codes import CloseCause, CloseCode, check_code
from .events import Close
from .exceptions import ExtensionError, PayloadTooBig, PeerError

__all__ = [
    "CLOSE_CODE_EXPLANATIONS",
    "OK_CLOSE_CODES",
    "cause_of_close",
    "cause_of_failure",
    "encode_close",
    "ended_well",
    "shorten_reason",
]

CLOSE_CODE_EXPLANATIONS: Final[dict[int, str]] = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}
"""What the close codes mean, in words; codes from 3000 on are registered, or an application's own."""

OK_CLOSE_CODES: Final = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD})
"""The close codes of a connection that ended well."""

# RFC 6455, 7.4.1: what a peer says when it blames this side.
_BLAME: Final = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_DATA,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.MANDATORY_EXTENSION,
    }
)


# As a global: to get it from its class takes CPython 3.11 some 900 instructions.
_PEER: Final = CloseCause.PEER


def encode_close(code: int | None, reason: str = "") -> bytes:
    """Encode the body of a Close frame (RFC 6455, 5.5.1).

    Args:
        code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; None or 1005 for a Close frame without a body.
        reason: at most 123 bytes of UTF-8.

    Raises:
        ValueError: another code, a reason without a code, or one that is too long.
        TypeError: `code` is not an `int`, or `reason` is not a `str`.
    """
    if not isinstance(reason, str):
        raise TypeError(f"reason must be str, got {type(reason).__name__}")
    # RFC 6455, 7.4.1: 1005 "MUST NOT be set as a status code in a Close control frame by an endpoint".
    if code is None or code == 1005:
        if reason:
            raise ValueError("a close reason needs a close code")
        return b""
    if not isinstance(code, int):
        raise TypeError(f"code must be int, got {type(code).__name__}")
    check_code(code)
    body = code.to_bytes(2, "big") + reason.encode()
    # RFC 6455, 5.5: "All control frames MUST have a payload length of 125 bytes or less".
    if len(body) > 125:
        raise ValueError(f"reason must have at most 123 bytes in UTF-8, got {len(body) - 2}")
    return body


def shorten_reason(reason: str) -> str:
    """Cut a reason to the 123 bytes of UTF-8 that fit into a Close frame."""
    return reason.encode()[:123].decode(errors="ignore")


def cause_of_close(rcvd: Close) -> CloseCause:
    """Tell what the peer means by a Close frame that came first: that it is done, or that it blames this side."""
    return CloseCause.REJECTED if rcvd.code in _BLAME else _PEER


def cause_of_failure(failure: PeerError) -> CloseCause:
    """Tell why this side fails the connection: the peer broke a rule, or passed a limit that this program has set."""
    if isinstance(failure, ExtensionError):
        return CloseCause.HANDLER_ERROR
    return CloseCause.TOO_BIG if isinstance(failure, PayloadTooBig) else CloseCause.PROTOCOL_ERROR


def ended_well(rcvd: Close | None, sent: Close | None) -> bool:
    """Tell whether a connection ended well: Close frames with 1000, 1001 or no code, both ways."""
    return rcvd is not None and sent is not None and rcvd.code in OK_CLOSE_CODES and sent.code in OK_CLOSE_CODES
