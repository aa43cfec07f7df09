"""What a peer did wrong, in the words of `websockets`: they are sent to it, and stand in `ConnectionClosedError`."""

from __future__ import annotations

import re

from wsfast import exceptions as native

from .exceptions import PayloadTooBig, ProtocolError, TooManyFragments

__all__ = ["reworded"]

_WORDS = (
    (r"reserved bits .*", "reserved bits must be 0"),
    (r"reserved opcode .*", "invalid opcode"),
    (r"continuation frame without .*", "unexpected continuation frame"),
    (r"new message before .*", "expected a continuation frame"),
    (r"frame is (not )?masked", "incorrect masking"),
    (r"control frame .* is fragmented", "fragmented control frame"),
    (r"control frame .* has more than 125 bytes", "control frame too long"),
    (r"close frame with a body of 1 byte", "close frame too short"),
    (r"close frame with the code .*", "invalid status code"),
)
_said = re.compile("|".join(f"({pattern})" for pattern, _ in _WORDS).replace("(not )", "(?:not )")).fullmatch
_too_many = re.compile(r"message has more than (\d+) fragments").fullmatch
_too_big = re.compile(r"message has (\d+) bytes or more, the limit is (\d+)").fullmatch
_no_text = re.compile(r".* is not UTF-8 at byte (\d+)").fullmatch


def reworded(failure: native.PeerError) -> native.PeerError:
    """Return a failure that is told as `websockets` tells it; where that raises another exception, it is the cause.

    Args:
        failure: what the decoder found. One that `websockets` has no words for comes back as it is.
    """
    reason = failure.reason
    if isinstance(failure, native.ProtocolError):
        found = _said(reason)
        return failure if found is None or found.lastindex is None else ProtocolError(_WORDS[found.lastindex - 1][1])
    if isinstance(failure, native.PayloadTooBig):
        if (found := _too_many(reason)) is not None:
            failure = native.PayloadTooBig("too many fragments")
            failure.__cause__ = TooManyFragments(int(found[1]))
        elif (found := _too_big(reason)) is not None:
            failure = PayloadTooBig(int(found[1]), int(found[2]))
    elif isinstance(failure, native.InvalidPayload) and (found := _no_text(reason)) is not None:
        at = int(found[1])
        failure = native.InvalidPayload(f"invalid UTF-8 at position {at}")
        # Of the bytes nothing is kept, so that they are not in it.
        failure.__cause__ = UnicodeDecodeError("utf-8", b"", at, at + 1, "invalid UTF-8")
    return failure
