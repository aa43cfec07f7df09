"""Many processes from one program: a supervisor, and the workers that serve."""

from __future__ import annotations

from .run import run

__all__ = ["run"]
