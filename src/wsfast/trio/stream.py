"""Streams that end as a WebSocket connection has to end."""

from __future__ import annotations

import socket
import ssl as ssl_module
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import trio

__all__ = ["CHUNK", "Transport", "as_os_error", "close_now", "secure", "tls_of"]

_T = TypeVar("_T")

CHUNK: Final = 65536
"""Bytes that are received, and sent, at a time."""


class Transport(trio.abc.Stream):
    """A connection without its TLS, whose end is in steps: nothing that was sent is destroyed by a reset.

    Args:
        inner: what moves the bytes.

    Attributes:
        linger: whether `aclose` ends the sending side first, and reads on until the peer ends its own. Whoever calls it
            sets a limit. False ends the connection at once.
        early: what was received too far, to be received first.
    """

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.linger: bool = False
        self.early: bytes = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what has come, or nothing at the end."""
        if self.early:
            await trio.lowlevel.checkpoint()
            size = len(self.early) if max_bytes is None else max_bytes
            data, self.early = self.early[:size], self.early[size:]
            return data
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        """End the connection."""
        try:
            if self.linger and isinstance(self._inner, trio.abc.HalfCloseableStream):
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._inner.send_eof()
                    while await self._inner.receive_some(CHUNK):
                        pass
        finally:
            await self._inner.aclose()

    @property
    def sock(self) -> Any:
        """The socket, or None where something else moves the bytes."""
        return getattr(self._inner, "socket", None)

    def address(self, name: str) -> Any:
        """Return what `socket.getpeername` or `socket.getsockname` says; None if it is no socket, or has ended."""
        sock = self.sock
        if sock is None:
            return None
        try:
            return getattr(sock, name)()
        except OSError:
            return None

    @staticmethod
    def of_socket(sock: socket.socket) -> Transport:
        """Make one of a connected socket.

        Raises:
            ValueError: it is of another kind.
        """
        if sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket, got {sock!r}")
        return Transport(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


class _Object:
    """The TLS of one `trio.SSLStream`, which by itself sends nothing any more once TLS has failed.

    A failure is raised at the second try: at the first one TLS asks for more to read, and before `trio.SSLStream` looks
    for that, it sends what TLS has to say. That is the alert which tells the peer why.

    Args:
        tls: what is asked.
        outgoing: what it has to say.

    Attributes:
        failure: by what TLS has failed, if the peer is to be told.
    """

    def __init__(self, tls: ssl_module.SSLObject, outgoing: ssl_module.MemoryBIO) -> None:
        self.tls: Final = tls
        self._outgoing: Final = outgoing
        self.failure: ssl_module.SSLError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tls, name)

    def do_handshake(self) -> None:
        """Do what the method of `ssl.SSLObject` does."""
        self._try(self.tls.do_handshake)

    def read(self, size: int) -> bytes:
        """Do what the method of `ssl.SSLObject` does."""
        return self._try(self.tls.read, size)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Do what the method of `ssl.SSLObject` does."""
        return self._try(self.tls.write, data)

    def _try(self, call: Callable[..., _T], *arguments: Any) -> _T:
        if self.failure is not None:
            raise self.failure
        try:
            return call(*arguments)
        except (ssl_module.SSLWantReadError, ssl_module.SSLWantWriteError):
            raise
        except ssl_module.SSLError as exc:
            if not self._outgoing.pending:
                raise
            self.failure = exc
            raise ssl_module.SSLWantReadError from exc


class _Context:
    """A context for one `trio.SSLStream`.

    Args:
        context: what makes the connection's TLS.

    Attributes:
        made: that TLS.
    """

    made: _Object

    def __init__(self, context: ssl_module.SSLContext) -> None:
        self._context = context

    def wrap_bio(self, incoming: ssl_module.MemoryBIO, outgoing: ssl_module.MemoryBIO, **options: Any) -> _Object:
        """Do what the method of `ssl.SSLContext` does."""
        self.made = _Object(self._context.wrap_bio(incoming, outgoing, **options), outgoing)
        return self.made


async def secure(
    stream: trio.abc.Stream,
    context: ssl_module.SSLContext,
    server_hostname: str | None = None,
    *,
    server_side: bool = False,
) -> trio.SSLStream[trio.abc.Stream]:
    """Put TLS on a stream; if that fails the stream is left to the caller.

    Raises:
        OSError: the handshake failed, `ssl.SSLError` included.
    """
    making = _Context(context)
    given = cast("ssl_module.SSLContext", making)
    secured = trio.SSLStream(stream, given, server_hostname=server_hostname, server_side=server_side)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as exc:
        # A peer that was not there any more to be told is not the cause.
        cause = making.made.failure or as_os_error(exc, "the peer ended the connection during the TLS handshake")
    else:
        return secured
    raise cause


def tls_of(stream: trio.abc.Stream) -> ssl_module.SSLObject | None:
    """Return the TLS of a stream, of `secure` or another `trio.SSLStream`; None without TLS."""
    found: Any = getattr(stream, "_ssl_object", None)  # `trio.SSLStream` shows its methods only
    tls: ssl_module.SSLObject | None = found.tls if isinstance(found, _Object) else found
    return tls


def as_os_error(exc: BaseException, other: str) -> OSError:
    """Return the error that trio has wrapped, or, if there is none, one that says `other`."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__
    return ConnectionResetError(other)


async def close_now(stream: trio.abc.AsyncResource) -> None:
    """Close without waiting, whatever is cancelled, and raise nothing."""
    with trio.CancelScope(shield=True), suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(stream)
