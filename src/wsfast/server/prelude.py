"""The PROXY protocol on asyncio: a header by which a proxy names the client, before all other bytes, TLS included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..handshake.forwarded import read_proxied

if TYPE_CHECKING:
    from .accepting import ServerOpening

__all__ = ["Prelude"]


class Prelude(asyncio.Protocol):
    """A connection that begins with a proxy's header, if its peer is a trusted proxy.

    Args:
        opening: the opening handshake, which gets the addresses; the header must come within its deadline.
        trusted: tells whether a peer, by its address, is a proxy.
        protocol: the protocol that takes over after the header, and is called as if there had been none.
    """

    def __init__(
        self, opening: ServerOpening, trusted: Callable[[object], bool], protocol: asyncio.BufferedProtocol
    ) -> None:
        self._opening = opening
        self._trusted = trusted
        self._protocol = protocol
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when TCP is set up."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's classes do not derive from it
        if self._trusted(transport.get_extra_info("peername")):
            self._opening.accepted(self._transport)
        else:
            self._hand_over(b"")

    def data_received(self, data: bytes) -> None:
        """Called by the transport with the header, or a part of it, and with what follows it."""
        if self._transport is None or self._transport.is_closing():
            return
        self._held += data
        try:
            proxied = read_proxied(self._held)
        except ValueError as exc:
            self._opening.refuse_prelude(exc)
            self._transport.close()
            return
        if proxied is not None:
            if proxied.source is not None:
                self._opening.proxied(proxied.source, proxied.destination)
            self._hand_over(self._held[proxied.size :])

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended before the header was there."""
        self._transport = None
        self._opening.connection_lost(exc)

    def _hand_over(self, rest: bytes) -> None:
        assert self._transport is not None
        transport, protocol = self._transport, self._protocol
        self._held = b""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        view: Any = memoryview(rest)
        while view and not transport.is_closing():
            buffer = memoryview(protocol.get_buffer(len(view)))
            size = min(len(buffer), len(view))
            buffer[:size] = view[:size]
            protocol.buffer_updated(size)
            view = view[size:]
