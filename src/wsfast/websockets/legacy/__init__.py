"""The names of the old implementation of `websockets`, with the deprecation that it gives."""

from __future__ import annotations

import warnings

__all__ = ()

warnings.warn(
    "websockets.legacy is deprecated; "
    "see https://websockets.readthedocs.io/en/stable/howto/upgrade.html "
    "for upgrade instructions",
    DeprecationWarning,
    stacklevel=2,
)
