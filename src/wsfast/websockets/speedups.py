"""`apply_mask`, which `websockets` has in C; connections here do not use it."""

from __future__ import annotations

from .utils import apply_mask

__all__ = ["apply_mask"]
