"""Build and test wsfast on every interpreter that is here, or that Debian has: ``python -m tests.interpreters``."""
