"""The clients that are measured, run as `python -m benchmarks.compare.clients.NAME` against `wsload -m serve`.

Each sends one message, waits for its echo and sends it again, until the server closes. The server counts,
keeps the time and reads the client's CPU by the pid in the request's query, so the clients do nothing but echo.
"""
