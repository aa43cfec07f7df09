"""Applications on web frameworks, for `tests/test_frameworks.py`; each module runs where its framework is installed."""
