"""The version of `websockets` whose names and behaviour this package has."""

from __future__ import annotations

__all__ = ["commit", "tag", "version"]

released = True
tag = version = commit = "17.4"
