"""The parts of the soak: the server's process, the peers of the load, the watch. Run by `python -m benchmarks.soak`."""
