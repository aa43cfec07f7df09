"""Choice of the asyncio transports: the event loop's own, or, on request, aiofastnet's for TLS.

aiofastnet (extra ``speed``) calls OpenSSL from C, without the memory buffers and the Python layer of asyncio's TLS: by
measurement it halves the cost of a message over TLS (`docs/performance.md`). For plain TCP the event loop's own
transports are kept, since frames go to the socket beside them. ``WSFAST_AIOFASTNET=1`` in the environment turns it on.

It is off by default since aiofastnet 1.2.0 loses its way when reading is paused within `buffer_updated` and resumed in
the next turn of the loop, which is what backpressure does: what OpenSSL has decrypted or buffered already is then not
delivered until more comes from the network, and if the peer waits for an answer, that is never (found by
`tests/test_sync.py::test_tls_and_many_threads`, and without wsfast with a bare `BufferedProtocol`).
On uvloop it also never closes the socket of a peer that resets within its TLS handshake (found by `tests/leaks.py`).
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("WSFAST_AIOFASTNET", "0") == "0":
    aiofastnet: Any = None
else:
    try:
        import aiofastnet
    except ImportError:
        aiofastnet = None

__all__ = ["create_connection", "create_server", "create_unix_connection", "create_unix_server"]


def _method(loop: asyncio.AbstractEventLoop, name: str, options: dict[str, Any]) -> Any:
    if aiofastnet is not None and options.get("ssl") is not None:
        fast = getattr(aiofastnet, name)
        return lambda *args, **kwargs: fast(loop, *args, **kwargs)
    return getattr(loop, name)


async def create_server(loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> asyncio.Server:
    """Do what ``loop.create_server(*args, **options)`` does."""
    return await _method(loop, "create_server", options)(*args, **options)  # type: ignore[no-any-return]


async def create_unix_server(loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> asyncio.Server:
    """Do what ``loop.create_unix_server(*args, **options)`` does."""
    return await _method(loop, "create_unix_server", options)(*args, **options)  # type: ignore[no-any-return]


async def create_connection(
    loop: asyncio.AbstractEventLoop, *args: Any, **options: Any
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Do what ``loop.create_connection(*args, **options)`` does."""
    return await _method(loop, "create_connection", options)(*args, **options)  # type: ignore[no-any-return]


async def create_unix_connection(
    loop: asyncio.AbstractEventLoop, *args: Any, **options: Any
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Do what ``loop.create_unix_connection(*args, **options)`` does."""
    return await _method(loop, "create_unix_connection", options)(*args, **options)  # type: ignore[no-any-return]
