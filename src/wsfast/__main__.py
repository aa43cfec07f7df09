"""The command line: ``python -m wsfast``."""

from __future__ import annotations

import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":  # pragma: no branch - what imports it does not run it
    sys.exit(main())
