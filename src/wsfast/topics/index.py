"""Choice of the index of topics: the Cython one beside the Cython codec, else the Python one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codec import IMPLEMENTATION

__all__ = ["Index", "Member", "Topic"]

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._topics_py import Index, Member, Topic
else:
    from ._topics import Index, Member, Topic
