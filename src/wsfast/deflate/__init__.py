"""permessage-deflate (RFC 7692), sans-IO.

`negotiate` agrees on it with the peer, and `context` compresses and inflates, with one of the libraries in `backends`.
"""

from __future__ import annotations

from .context import CompressorPool, DeflateBudget, Parameters, PerMessageDeflate
from .negotiate import EXTENSION, Deflate, Extension, accept, as_deflate, confirm, offer

__all__ = [
    "EXTENSION",
    "CompressorPool",
    "Deflate",
    "DeflateBudget",
    "Extension",
    "Parameters",
    "PerMessageDeflate",
    "accept",
    "as_deflate",
    "confirm",
    "offer",
]
