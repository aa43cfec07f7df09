"""wsfast beside its peers: `python -m benchmarks.compare --help`."""
