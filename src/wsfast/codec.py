"""Choice of the codec: the Cython one if it was built, else, or on request, the Python one.

``WSFAST_PURE_PYTHON=1`` in the environment forces the Python one. `IMPLEMENTATION` tells which is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

__all__ = ["IMPLEMENTATION", "Decoder", "Encoder", "apply_mask", "encode_frame"]

if TYPE_CHECKING or os.environ.get("WSFAST_PURE_PYTHON", "") not in ("", "0"):
    from ._codec_py import Decoder, Encoder, apply_mask, encode_frame

    IMPLEMENTATION: Final[str] = "python"
    """Which codec is in use: ``"cython"`` or ``"python"``."""
else:
    try:
        from ._codec import Decoder, Encoder, apply_mask, encode_frame

        IMPLEMENTATION = "cython"
    except ModuleNotFoundError:  # pragma: no cover - the tests need the extension and fail without it
        from ._codec_py import Decoder, Encoder, apply_mask, encode_frame

        IMPLEMENTATION = "python"
