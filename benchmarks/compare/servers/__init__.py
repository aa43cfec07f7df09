"""The servers that are measured, run as `python -m benchmarks.compare.servers.NAME`, on Node, or compiled (uws.c)."""
