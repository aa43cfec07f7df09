"""TCP on asyncio to the first address of a name that answers: "happy eyeballs" (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from .eyeballs import STAGGER, alternate, none_answers

__all__ = ["create_connection"]

_KNOWN: Final = frozenset(
    {
        "family",
        "flags",
        "happy_eyeballs_delay",
        "proto",
        "server_hostname",
        "ssl",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
    }
)


async def create_connection(
    factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, **options: Any
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Do what ``loop.create_connection`` does, and on asyncio try the addresses of a name side by side.

    asyncio can do so by itself, but not be cancelled: the socket of an attempt that has just won is left open.

    Args:
        factory, host, port: those of ``loop.create_connection``.
        options: as well; `happy_eyeballs_delay` is `STAGGER` by default, and None is to wait for each address.

    Raises:
        OSError: the name is not known, or no address answers.
    """
    loop = asyncio.get_running_loop()
    is_name = ":" not in host and not host.replace(".", "").isdecimal()
    if not is_name or not isinstance(loop, asyncio.BaseEventLoop) or not _KNOWN.issuperset(options):
        return await loop.create_connection(factory, host, port, **options)
    delay = options.pop("happy_eyeballs_delay", STAGGER)
    lookup = {name: options.pop(name) for name in ("family", "flags", "proto") if name in options}
    if options.get("ssl"):
        options.setdefault("server_hostname", host)
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, **lookup)
    sock = await _first_that_answers(loop, host, alternate(found), delay)
    try:
        return await loop.create_connection(factory, sock=sock, **options)
    except BaseException:
        sock.close()
        raise


async def _first_that_answers(
    loop: asyncio.AbstractEventLoop, host: str, addresses: list[Any], delay: float | None
) -> socket.socket:
    attempts: list[asyncio.Task[socket.socket]] = []
    won: asyncio.Task[socket.socket] | None = None
    errors: list[OSError] = []
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while addresses or running:
            if addresses:
                attempts.append(loop.create_task(_attempt(loop, addresses.pop(0))))
                running.add(attempts[-1])
            done, running = await asyncio.wait(
                running, timeout=delay if addresses else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                try:
                    sock = attempt.result()
                except OSError as exc:
                    errors.append(exc)
                else:
                    won = attempt
                    return sock
        raise none_answers(host, errors)
    finally:
        for attempt in attempts:
            if attempt is not won:
                attempt.cancel()
                attempt.add_done_callback(_discard)


async def _attempt(loop: asyncio.AbstractEventLoop, found: Any) -> socket.socket:
    family, kind, proto, _, address = found
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
