"""The hot path of TLS, in plain Python: the readable specification.

It owns the way of bytes between a transport, which carries TLS records, and a protocol, which sees what is in
them; the `ssl` module does the cryptography, in memory. Handshakes, errors and the end are in `tls.py`, whose class
derives from `TLSPipe`. `_tls.pyx` is its fast reading, with the same names and the same behaviour.

Corking: what the protocol writes while it is handed received data is encrypted at once and sent once, at the end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from .events import BytesLike

__all__ = ["TLSPipe"]

PIECE: Final = 65536
"""Bytes that are encrypted in one go, to four TLS records."""
HELD: Final = 81920
"""Bytes of records that are sent without waiting for the end of the batch; 64 KiB and a frame's head make fewer."""


class TLSPipe:
    """One TLS connection's way between its transport and its protocol.

    A class that derives from it provides what is rare: `shake_hands`, `read_ended`, `failed` and `stalled`.

    Attributes:
        app: the protocol.
        established: whether the TLS handshake is done.
        finished: whether nothing is read or written any more.
        read_paused: whether the protocol is handed nothing for now.
        transport: below: None before TCP is set up, and once it has ended.
    """

    __slots__ = (
        "_app_buffered",
        "_at_end",
        "_backlog",
        "_buffer",
        "_incoming",
        "_object",
        "_outgoing",
        "_pumping",
        "app",
        "established",
        "finished",
        "read_paused",
        "transport",
    )

    if TYPE_CHECKING:

        def shake_hands(self) -> None: ...
        def read_ended(self) -> None: ...
        def failed(self, exc: Exception) -> None: ...
        def stalled(self, waits: bool) -> None: ...

    def begin(
        self,
        app: asyncio.BaseProtocol,
        buffer: memoryview,
        context: ssl.SSLContext,
        server_side: bool,
        name: str | None,
    ) -> None:
        """Set it up; called once, before anything else.

        Args:
            app: the attribute.
            buffer: memory to receive into, which may be used for something else between two calls.
            context: for this side.
            server_side: whether it is a server's.
            name: what a client expects in the server's certificate.
        """
        self._buffer = buffer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        self._backlog: list[bytes] = []
        self._pumping = False
        self._at_end = False
        self.read_paused = False
        self.established = False
        self.finished = False
        self.transport: asyncio.Transport | None = None
        self.set_protocol(app)

    def attach(self, transport: asyncio.Transport, fd: int) -> None:
        """Set the transport; called once, when TCP is set up.

        Args:
            transport: the attribute.
            fd: the descriptor of its socket, if records may be sent on it beside the transport, else -1.
        """
        self.transport = transport

    def detach(self) -> None:
        """Forget the transport, which has ended."""
        self.transport = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what comes from now on."""
        self.app: Any = protocol
        self._app_buffered = isinstance(protocol, asyncio.BufferedProtocol)

    # --- Receiving ----------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the transport memory to receive into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what the transport received."""
        if self.finished:
            return  # until the peer ends its side too
        self._incoming.write(self._buffer[:nbytes])
        if not self.established:
            self.shake_hands()
        else:
            self.pump(False)

    def pump(self, drain: bool) -> None:
        """Decrypt what has arrived and hand it to the protocol, many records at a time.

        Args:
            drain: hand it on although reading is paused: the transport has ended.
        """
        self._pumping = True
        try:
            while (drain or not self.read_paused) and not self.finished and self._hand_on():
                pass
        finally:
            self._pumping = False
        if self._backlog and not self.finished:
            self._catch_up()
        if self._outgoing.pending:
            self.flush()

    def _hand_on(self) -> bool:
        """Fill the protocol's buffer as far as that goes; return whether there may be more."""
        if self._at_end:
            self.read_ended()
            return False
        if not self._incoming.pending and not self._object.pending():
            return False
        view = self.app.get_buffer(-1) if self._app_buffered else memoryview(bytearray(PIECE))
        if not len(view):
            raise RuntimeError("get_buffer() returned an empty buffer")
        used = 0
        error: Exception | None = None
        ended = False
        try:
            while used < len(view) and not ended:
                n: int = self._object.read(len(view) - used, view[used:])  # type: ignore[assignment]
                used += n
                ended = not n
                if not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            if not used:
                return False
        except Exception as exc:  # ssl.SSLError, and what a hook of the context raises
            error = exc.with_traceback(None)  # which refers to this frame, and the frame to the error
            self.finished = True  # what came before is handed on, but nothing can be sent any more
        if used:
            if self._app_buffered:
                self.app.buffer_updated(used)
            else:
                self.app.data_received(bytes(view[:used]))
        if error is not None:
            self.failed(error)
        self._at_end = ended  # which is told when reading is not paused
        return True

    # --- Sending ------------------------------------------------------------------------------------------

    def write(self, data: BytesLike) -> None:
        """Encrypt data and send it; without effect once the sending side has ended."""
        if self.finished:
            return
        if self._backlog:
            self._backlog.append(bytes(memoryview(data)))
        else:
            self._encrypt(data)
        if not self._pumping or self._outgoing.pending >= HELD:
            self.flush()

    def writelines(self, parts: Iterable[BytesLike]) -> None:
        """Do the same with several parts, in one go."""
        pumping, self._pumping = self._pumping, True
        try:
            for part in parts:
                self.write(part)
        finally:
            self._pumping = pumping
            if not pumping:
                self.flush()

    def _encrypt(self, data: BytesLike) -> bool:
        """Put data into the outgoing records; False if some of it has to wait."""
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            try:
                self._object.write(view[at : at + PIECE])
            except ssl.SSLWantReadError:
                # RFC 5246, 7.4.1.1: the peer negotiates anew, and this side can send only when that is done.
                self._backlog.insert(0, bytes(view[at:]))
                self.stalled(True)
                return False
            except ssl.SSLError as exc:
                self.failed(exc.with_traceback(None))
                return False
            if self._outgoing.pending >= HELD:
                self.flush()
        return True

    def _catch_up(self) -> None:
        """Encrypt what had to wait, as far as that goes."""
        while self._backlog:
            if not self._encrypt(self._backlog.pop(0)):
                return
        self.stalled(False)

    def flush(self) -> None:
        """Send the records that are ready."""
        data = self._outgoing.read()
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were not yet taken by the operating system."""
        if self.transport is None:
            return 0
        return self.transport.get_write_buffer_size() + self._outgoing.pending + sum(map(len, self._backlog))
