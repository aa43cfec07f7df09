"""Connections beside those of a test: behind them, transports are polled together (`transport/_poller.pxi`)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
from collections.abc import Iterator

__all__ = ["FEW", "crowd"]

FEW = 4
"""How many connections of a loop it watches itself; test_poller.py holds it equal to that of `_poller.pxi`."""


@contextlib.contextmanager
def crowd(loop: asyncio.AbstractEventLoop, n: int = FEW) -> Iterator[None]:
    """Open as many connections as the loop watches itself."""
    twin = importlib.import_module("wsfast.transport._socket")
    pairs = [socket.socketpair() for _ in range(n)]
    transports = [twin.SocketTransport(loop, ours, asyncio.Protocol()) for ours, _ in pairs]
    for transport in transports:
        transport.begin()
    try:
        yield
    finally:
        for transport, (_, theirs) in zip(transports, pairs, strict=True):
            transport.abort()
            theirs.close()
