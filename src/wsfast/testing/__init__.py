"""Both ends of a connection in memory, for the tests of programs that use wsfast.

No socket, no port, no thread: two asyncio transports that are each other's peer, on any event loop, with the network's
delays, limits and failures at the test's command::

    async with wsfast.testing.pair() as (client, server):
        await client.send("hello")
        assert await server.recv() == "hello"

The opening handshake, the frames and the closing handshake are the real ones.
"""

from __future__ import annotations

from .memory import MemoryTransport, Pipe, Side
from .pair import Pair, pair

__all__ = ["MemoryTransport", "Pair", "Pipe", "Side", "pair"]
