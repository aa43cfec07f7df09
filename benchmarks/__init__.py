"""Benchmarks: `pytest benchmarks/` (quick), `python -m benchmarks.compare` (beside the peers), `benchmarks/soak.py`."""
