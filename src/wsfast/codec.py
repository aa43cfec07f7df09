"""Choice of the codec: the Cython one, or the Python one where that was asked for.

``WSFAST_PURE_PYTHON=1`` in the environment, or at installation, asks for the Python one; `IMPLEMENTATION` tells which
is used. An extension that is missing or broken is an `ImportError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._built import IMPLEMENTATION, unusable

__all__ = ["IMPLEMENTATION", "Decoder", "Encoder", "apply_mask", "encode_frame"]

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._codec_py import Decoder, Encoder, apply_mask, encode_frame
else:
    try:
        from ._codec import Decoder, Encoder, apply_mask, encode_frame
    except Exception as exc:
        raise unusable("wsfast._codec", exc) from exc
