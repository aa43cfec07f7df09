"""TLS on asyncio: a transport for the protocol above, and itself the protocol of the transport below.

It stands in for the event loops' own TLS. Both use the `ssl` module; this one costs less for each message, keeps no
buffers of its own for an idle connection (`docs/performance.md`), is the same on every loop, and ends a connection in
order: what arrived whole is delivered though the peer resets, and a Close frame is followed by close_notify and the
end of the sending side, not by a reset.
The base class moves the bytes; this class does what happens rarely.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from .._built import IMPLEMENTATION, unusable
from ..session import LINGER
from .loops import PerLoop, may_nest
from .unacknowledged import unacknowledged_by

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._tls_py import ReceiveBuffer, TLSPipe
else:
    try:
        from ._tls import ReceiveBuffer, TLSPipe
    except Exception as exc:
        raise unusable("wsfast.transport._tls", exc) from exc

__all__ = ["TLSTransport", "buffer_of", "connect"]

_RECEIVE_SIZE: Final = (65536 if IMPLEMENTATION == "cython" else 16384) + 1024
"""Bytes that are handled in a few milliseconds; a message of 64 KiB, with what TLS adds, fits into one read."""

# Why the protocol above is told to pause writing, as bits:
_BELOW_FULL: Final = 1  # the transport below has more unsent than it should
_STALLED: Final = 2  # nothing can be encrypted for now

_buffers: PerLoop[ReceiveBuffer] = PerLoop(lambda loop: ReceiveBuffer(_RECEIVE_SIZE))
buffer_of: Callable[[asyncio.AbstractEventLoop], ReceiveBuffer] = _buffers.of
"""Return the memory that the TLS connections of a loop receive into."""


class TLSTransport(TLSPipe, asyncio.BufferedProtocol):
    """One TLS connection.

    To the protocol above it is an `asyncio.Transport`, whose ``connection_made`` comes when the TLS handshake is done.

    Args:
        app: the protocol above.
        buffer: memory to receive into, which the connections of one event loop share.
        context: of this side.
        server_side: whether it is a server's.
        server_hostname: what a client tells the server (RFC 6066, 3) and expects in its certificate.
        accepted: called with this transport when TCP is set up; ``app.connection_lost`` is then called however the
            handshake ends. Without it, that is called only if ``app.connection_made`` was.
        done: a future that is told how the handshake ended.

    Raises:
        ValueError: the context of a client verifies the server's name, and `server_hostname` is None.
    """

    __slots__ = ("_accepted", "_done", "_error", "_full", "_linger", "_loop", "_tell_always", "_told_end")

    nests: bool

    def __init__(
        self,
        app: asyncio.BaseProtocol,
        buffer: ReceiveBuffer,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        accepted: Callable[[TLSTransport], None] | None = None,
        done: asyncio.Future[None] | None = None,
    ) -> None:
        if not server_side and context.check_hostname and not server_hostname:
            # The `ssl` module would take any name.
            raise ValueError("expected a server_hostname, which the context is to verify")
        self.begin(app, buffer, context, server_side, server_hostname)
        self._accepted = accepted
        self._tell_always = accepted is not None
        self._done = done
        self._error: Exception | None = None
        self._full = 0
        self._linger: asyncio.TimerHandle | None = None
        self._told_end = False

    # --- What the transport below calls, beside `get_buffer` and `buffer_updated` ---------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop when TCP is set up."""
        self._loop = asyncio.get_running_loop()
        below = cast(asyncio.Transport, transport)  # uvloop's classes do not derive from it
        self.attach(below)
        self.nests = may_nest(type(self._loop))
        if self._accepted is not None:
            # Drop the callback, so that this transport does not refer back to what made it.
            accepted, self._accepted = self._accepted, None
            accepted(self)
        self.shake_hands()

    def shake_hands(self) -> None:
        """Take the next step of the TLS handshake."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
        except Exception as exc:  # ssl.SSLError, and what a hook of the context raises
            self.failed(exc.with_traceback(None))  # which would refer to this frame, and so to this transport
        else:
            self.flush()
            self.established = True
            if self._done is not None and not self._done.done():
                self._done.set_result(None)
            self.app.connection_made(self)
            if self._full:
                self.app.pause_writing()
            self.pump(False)

    def read_ended(self) -> None:
        """Note the peer's close_notify (RFC 8446, 6.1)."""
        self._tell_end()
        self.close()

    def failed(self, exc: Exception) -> None:
        """End the connection because what came is not TLS, or fails verification; the peer is sent the alert."""
        if self._error is not None:
            return
        self._error = exc
        self.finished: bool = True
        self.flush()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._done is not None and not self.established:
            transport.close()  # somebody waits for this end, and the server says nothing before the client's last word
            return
        # Unread bytes in the socket would reset the connection and destroy the alert.
        self._linger = self._loop.call_later(LINGER, transport.abort)
        self._read_on()
        try:
            transport.write_eof()
        except OSError:  # the peer has gone
            transport.abort()

    def eof_received(self) -> bool:
        """Called by the transport below when the peer has ended its sending side; False closes the transport."""
        if self.established and not self.finished:
            # TCP ended without close_notify. That nothing was cut off is known from the Close frame.
            self.read_ended()
        return False

    def _tell_end(self) -> None:
        if not self._told_end:
            self._told_end = True
            self.app.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport below when it has ended."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        try:
            if self.established and not self.finished:
                self.pump(True)
        finally:
            error = self._error or exc
            self._error = None
            self.finished = True
            self.detach()
            done, self._done = self._done, None
            if done is not None and not done.done():
                done.set_exception(error or ConnectionResetError("the connection ended during the TLS handshake"))
                done.exception()  # who waited for it may have given up
            if self.established or self._tell_always:
                self.app.connection_lost(error)

    def pause_writing(self) -> None:
        """Called by the transport below when much is unsent."""
        self._set_full(self._full | _BELOW_FULL)

    def resume_writing(self) -> None:
        """Called by the transport below when little is unsent."""
        self._set_full(self._full & ~_BELOW_FULL)

    def stalled(self, waits: bool) -> None:
        """Note whether what was written waits until the peer has ended a handshake."""
        self._set_full(self._full | _STALLED if waits else self._full & ~_STALLED)

    def go_on_soon(self) -> None:
        """Have the loop call `go_on`, which does something only if the loop runs within itself."""
        self._loop.call_soon(self.go_on)

    def _set_full(self, full: int) -> None:
        before, self._full = self._full, full
        if not self.established or bool(before) is bool(full):
            return
        if full:
            self.app.pause_writing()
        else:
            self.app.resume_writing()

    # --- What the protocol above calls, beside `write` and `get_write_buffer_size` --------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection: of TLS as with the event loops' transports, or of what is below."""
        if name == "ssl_object":
            return self._object
        if name == "sslcontext":
            return self._object.context
        if name == "peercert":
            return self._object.getpeercert() if self.established else default
        if name == "cipher":
            return self._object.cipher()
        if name == "compression":
            return self._object.compression()
        return default if self.transport is None else self.transport.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        return self.app  # type: ignore[no-any-return]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the numbers of unsent bytes at which the protocol above is told to pause, and to resume."""
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high, low)

    def unacknowledged(self) -> int:
        """Return how many bytes the system holds that the peer's has not acknowledged; 0 if it does not tell."""
        return 0 if self.transport is None else unacknowledged_by(self.transport)

    def is_reading(self) -> bool:
        """Tell whether the protocol above is handed what comes."""
        return not self.read_paused and not self.is_closing()

    def pause_reading(self) -> None:
        """Hand nothing to the protocol above for now."""
        if self.read_paused or self.transport is None:
            return
        self.read_paused = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on: first with what has arrived, in the next turn of the event loop."""
        if self.read_paused:
            self.read_paused: bool = False
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self.read_paused or self.transport is None:
            return
        try:
            self.pump(False)
        except BaseException:
            self.abort()  # as the event loops do where a protocol raises in `buffer_updated`
            raise
        # What was read into memory must be handed on before the transport below can tell of an end.
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def is_closing(self) -> bool:
        """Tell whether the connection has ended, or is going to without any further call."""
        return self.transport is None or self._error is not None or self.transport.is_closing()

    def can_write_eof(self) -> bool:
        """Tell whether `write_eof` can be called."""
        return self.transport is not None and self.transport.can_write_eof()

    def write_eof(self) -> None:
        """End the sending side, of TLS and of TCP; what still comes is dropped until the peer ends its side too."""
        self._end_sending()
        if self.transport is not None:
            self.transport.write_eof()

    def sending_ended(self) -> None:
        """Tell the protocol above that the sending side was ended."""
        sending_ended = getattr(self.app, "sending_ended", None)
        if sending_ended is not None:
            sending_ended()

    def close(self) -> None:
        """End the connection once all is sent."""
        self._end_sending()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.finished = True
        if self.transport is not None:
            self.transport.abort()

    def _end_sending(self) -> None:
        self.let_write()
        if self.finished:
            return
        if self.established:
            with suppress(ssl.SSLError):  # the peer's close_notify has not come, nor need it: RFC 8446, 6.1
                self._object.unwrap()
            self.flush()
        self.finished = True
        self._read_on()

    def _read_on(self) -> None:
        """Read, though only to drop it, what comes until the peer ends its side."""
        if self.read_paused and self.transport is not None and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()


async def connect(
    create: Callable[..., Any],
    app: asyncio.BaseProtocol,
    *args: Any,
    ssl: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    **options: Any,
) -> None:
    """Connect a client's protocol as an event loop's method does, but with TLS by `TLSTransport`.

    Args:
        create: ``loop.create_connection`` or ``loop.create_unix_connection``.
        app: the protocol.
        args, options: for `create`.
        ssl: a client's context; None for no TLS.
        server_hostname: that of `TLSTransport`.
        ssl_handshake_timeout: seconds for the TLS handshake; None for no limit.
        ssl_shutdown_timeout: without effect, since nothing waits for the peer's close_notify.

    Raises:
        OSError: it could not connect, `ssl.SSLError` included.
    """
    if ssl is None:
        await create(lambda: app, *args, **options)
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    tls = TLSTransport(app, buffer_of(loop), ssl, server_side=False, server_hostname=server_hostname or None, done=done)
    await create(lambda: tls, *args, **options)
    await _shaken(tls, done, ssl_handshake_timeout)


async def secure(
    transport: asyncio.Transport,
    app: asyncio.BaseProtocol,
    *,
    ssl: ssl.SSLContext,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> None:
    """Go on with TLS on a client's transport, and hand it to a protocol by ``app.connection_made``.

    Args:
        transport: connected, and still; it is aborted where this raises.
        app, ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout: those of `connect`.

    Raises:
        OSError: the TLS handshake failed.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    tls = TLSTransport(app, buffer_of(loop), ssl, server_side=False, server_hostname=server_hostname or None, done=done)
    transport.set_protocol(tls)
    tls.connection_made(transport)
    await _shaken(tls, done, ssl_handshake_timeout)


async def _shaken(tls: TLSTransport, done: asyncio.Future[None], timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await done
    except BaseException as exc:
        tls.abort()
        if isinstance(exc, TimeoutError) and done.cancelled():
            raise ConnectionAbortedError(f"the TLS handshake took longer than {timeout} seconds") from None
        raise
