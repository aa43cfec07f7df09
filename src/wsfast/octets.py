"""Bytes-like objects: told from others, measured and copied.

Each view is released at once: who lent the memory may then resize it, on PyPy too, which frees a view late.
"""

from __future__ import annotations

from .events import BytesLike

__all__ = ["copied", "is_bytes_like", "nbytes"]


def copied(data: BytesLike) -> bytes:
    """Return what an object holds, as it is in memory: itself if it is `bytes`, else a copy.

    Raises:
        TypeError: it is not bytes-like.
    """
    if type(data) is bytes:
        return data
    with memoryview(data) as view:
        return view.tobytes()


def nbytes(data: BytesLike) -> int:
    """Return how many bytes an object holds.

    Raises:
        TypeError: it is not bytes-like.
    """
    if type(data) is bytes:
        return len(data)
    with memoryview(data) as view:
        return view.nbytes


def is_bytes_like(message: object) -> bool:
    """Tell whether an object is bytes-like: whether it has memory that can be read."""
    try:
        memoryview(message).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
