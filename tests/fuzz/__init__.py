"""Fuzzing of wsfast; README.md tells how to run it.

Each target is a module with a function `run(data)`, which returns if all that must hold held, and raises otherwise. The
targets need nothing but wsfast, so that the tests replay the seeds without a fuzzer.
"""

from __future__ import annotations

TARGETS = ("decoder", "handshake", "deflate", "connection")
