"""Chooses what reads a head that came whole: Cython with the Cython codec, else Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._built import IMPLEMENTATION, unusable

__all__ = ["find_fields", "lower_pairs", "take_head"]

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._head_py import find_fields, lower_pairs, take_head
else:
    try:
        from ._head import find_fields, lower_pairs, take_head
    except Exception as exc:
        raise unusable("wsfast.handshake._head", exc) from exc
