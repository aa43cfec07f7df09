"""TCP on asyncio to the first address of a name that answers: "happy eyeballs" (RFC 8305)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from ..transport.sockets import begin_transport, has_readers, look_up
from .eyeballs import STAGGER, alternate, none_answers

__all__ = ["create_connection", "create_unix_connection"]

_KNOWN: Final = frozenset({"family", "flags", "happy_eyeballs_delay", "local_addr", "proto"})


async def create_connection(
    factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, **options: Any
) -> asyncio.BaseProtocol:
    """Do what ``loop.create_connection`` does, with our own transport; addresses of a name are tried side by side.

    asyncio can do that by itself, but not be cancelled: the socket of an attempt that has just won is left open.

    Args:
        factory, host, port: those of ``loop.create_connection``.
        options: those of ``loop.create_connection`` too, but `happy_eyeballs_delay` is `STAGGER` by default; None tries
            one address after another. With an option that this function does not know, it calls the loop's method.

    Raises:
        OSError: the name cannot be resolved, or no address answers.
    """
    loop = asyncio.get_running_loop()
    sock = options.pop("sock", None)
    if sock is not None:
        return await begin_transport(factory, sock, shared=True)
    if not _KNOWN.issuperset(options) or not (has_readers(loop) or isinstance(loop, asyncio.BaseEventLoop)):
        _, protocol = await loop.create_connection(factory, host, port, **options)
        return protocol
    delay = options.pop("happy_eyeballs_delay", STAGGER)
    lookup = {name: options.pop(name) for name in ("family", "flags", "proto") if name in options}
    found = await look_up(loop, host, port, **lookup)
    sock = await _first_that_answers(loop, host, alternate(found), delay, options.get("local_addr"))
    try:
        return await begin_transport(factory, sock)
    except BaseException:
        sock.close()
        raise


async def create_unix_connection(
    factory: Callable[[], asyncio.BaseProtocol], path: Any = None, **options: Any
) -> asyncio.BaseProtocol:
    """Do what ``loop.create_unix_connection`` does, with our own transport.

    Args:
        factory, path, options: those of ``loop.create_unix_connection``.

    Raises:
        OSError: nobody listens there.
    """
    loop = asyncio.get_running_loop()
    sock = options.pop("sock", None)
    if options or not has_readers(loop):
        _, protocol = await loop.create_unix_connection(factory, path, sock=sock, **options)
        return protocol
    if sock is not None:
        if sock.family != socket.AF_UNIX or sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket of Unix, got {sock!r}")
        return await begin_transport(factory, sock, shared=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, os.fspath(path))
        return await begin_transport(factory, sock)
    except BaseException:
        sock.close()
        raise


async def _first_that_answers(
    loop: asyncio.AbstractEventLoop, host: str, addresses: list[Any], delay: float | None, local: Any
) -> socket.socket:
    attempts: list[asyncio.Task[socket.socket]] = []
    won: asyncio.Task[socket.socket] | None = None
    errors: list[OSError] = []
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while addresses or running:
            if addresses:
                attempts.append(loop.create_task(_attempt(loop, addresses.pop(0), local)))
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


async def _attempt(loop: asyncio.AbstractEventLoop, found: Any, local: Any) -> socket.socket:
    family, kind, proto, _, address = found
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        if local is not None:
            await _bind(loop, sock, local)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _bind(loop: asyncio.AbstractEventLoop, sock: socket.socket, local: Any) -> None:
    for _, _, _, _, address in await look_up(loop, *local, family=sock.family):
        try:
            sock.bind(address)
        except OSError as exc:
            raise OSError(exc.errno, f"cannot connect from {address!r}: {exc.strerror}") from None
        return


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
