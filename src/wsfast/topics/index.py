"""Chooses the implementation of the index of topics: Cython with the Cython codec, else Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._built import IMPLEMENTATION, unusable

__all__ = ["Index", "Member", "Topic"]

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._topics_py import Index, Member, Topic
else:
    try:
        from ._topics import Index, Member, Topic
    except Exception as exc:
        raise unusable("wsfast.topics._topics", exc) from exc
