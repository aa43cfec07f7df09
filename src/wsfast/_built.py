"""How this installation was built, and what to do where its extensions are missing or broken."""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["EXTENSIONS", "IMPLEMENTATION", "unusable"]

# setup.py turns it to False in a wheel that is built with WSFAST_PURE_PYTHON=1.
EXTENSIONS: Final[bool] = True

IMPLEMENTATION: Final[str] = (
    "cython" if EXTENSIONS and os.environ.get("WSFAST_PURE_PYTHON", "") in ("", "0") else "python"
)
"""Which code of the hot path is in use: ``"cython"``, or ``"python"`` where the environment had
``WSFAST_PURE_PYTHON=1`` when wsfast was imported, or where wsfast was installed without extensions."""


def unusable(name: str, error: Exception) -> ImportError:
    """Return the error to raise where an extension cannot be imported: the slower code is never used unasked."""
    return ImportError(
        f"the extension {name} cannot be imported by {sys.implementation.name} {sys.version.split()[0]}: {error}\n"
        "Install wsfast again (in a clone: python -m pip install -e .),\n"
        "or set WSFAST_PURE_PYTHON=1 in the environment to run the slower Python code.",
        name=name,
        path=os.path.dirname(__file__),
    )
