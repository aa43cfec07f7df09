"""Which address of a name comes next: "happy eyeballs" (RFC 8305), as far as it needs no event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

__all__ = ["STAGGER", "alternate", "none_answers"]

STAGGER: Final = 0.25
"""Seconds without an answer after which the next address is tried beside the others, as RFC 8305, 5 recommends."""


def alternate(found: Sequence[Any]) -> list[Any]:
    """Sort addresses so that IPv6 and IPv4 take turns, beginning with the one that the system prefers (RFC 8305, 4)."""
    first = [item for item in found if item[0] == found[0][0]]
    others = [item for item in found if item[0] != found[0][0]]
    mixed = []
    while first or others:
        if first:
            mixed.append(first.pop(0))
        if others:
            mixed.append(others.pop(0))
    return mixed


def none_answers(host: str, errors: Sequence[OSError]) -> OSError:
    """Return one error for all addresses of a host that failed; of their type, if all errors have the same number."""
    if len(errors) == 1:
        return errors[0]
    texts = "; ".join(str(error) for error in errors)
    if len({error.errno for error in errors}) == 1:
        return type(errors[0])(errors[0].errno, texts)
    return OSError(f"no address of {host} answers: {texts}")
