"""The hot path of TLS, in plain Python: the readable specification.

It moves bytes between a transport, which carries TLS records, and a protocol, which sees their contents; the `ssl`
module does the cryptography, in memory. Handshakes, errors and the end are in `tls.py`, whose class
derives from `TLSPipe`. `_tls.pyx` is its fast twin, with the same names and the same behaviour.

Reading: `ssl` is asked only for records that have come whole, since it tells of others by an exception, which costs as
much as decrypting a small message. It is given a portion at a time, which takes less memory, and lets the protocol
learn of a large message before all of it is decrypted.

Corking: what the protocol writes while it is handed received data is encrypted at once and sent once, at the end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ..events import BytesLike
from ..octets import copied

__all__ = ["ReceiveBuffer", "TLSPipe"]

HEAD: Final = 5
"""Bytes of a record's head (RFC 8446, 5.1)."""
LONGEST: Final = 18432
"""Bytes that follow it at most (RFC 5246, 6.2.3)."""
PORTION: Final = 32768
"""Bytes of records after which no further one is taken in before they are handed on: two full ones, or many small."""
PIECE: Final = 65536
"""Bytes that are encrypted in one go, to four TLS records."""
HELD: Final = 81920
"""Bytes of records that are sent without waiting for the end of the batch; 64 KiB and a frame's head make fewer."""
OVERHEAD: Final = 32
"""Bytes of a record, about, that are not the protocol's."""

SPARE: Final = 18432
"""Bytes of memory for a connection while another one is at work on the shared memory."""
OWN: Final = 65536
"""The most bytes of TLS's own answers (to KeyUpdates, for example) that may pile up while the peer does not read."""

NONE: Final = -1
"""In place of a length: this is not a record; `ssl` finds what is wrong."""
ANY: Final = 1 << 30
"""In place of a number of records that cannot be known."""


def following(head: bytes) -> int:
    """Return how many bytes follow a record's head; 0 if it is not whole, NONE if it is none."""
    if not 20 <= head[0] <= 24 or head[1:2] not in (b"", b"\3"):
        return NONE
    if len(head) < HEAD:
        return 0
    length = int.from_bytes(head[3:])
    return length if 0 < length <= LONGEST else NONE


class ReceiveBuffer:
    """The memory that the TLS connections of a loop receive into, and whether one of them is at work on it.

    A handler that runs a nested loop lets other connections receive in the middle of that: they get other memory.

    Args:
        size: bytes.

    Raises:
        ValueError: `size` is not positive.
    """

    __slots__ = ("_busy", "_memory")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        self._memory = memoryview(bytearray(size))
        self._busy = False


class TLSPipe:
    """The bytes of one TLS connection, between its transport and its protocol.

    A subclass must implement these hooks, which run only on uncommon events: `shake_hands`, `read_ended`, `failed`,
    `stalled`, and `go_on_soon`, which makes the loop call `go_on`.

    Attributes:
        app: the protocol.
        established: whether the TLS handshake is done.
        finished: whether nothing is read or written any more.
        nests: whether the loop may be run within one of its own callbacks.
        read_paused: whether the protocol is handed nothing for now.
        transport: below: None before TCP is set up, and once it has ended.
    """

    __slots__ = (
        "_app_buffered",
        "_at_end",
        "_backlog",
        "_buffer",
        "_head",
        "_held",
        "_incoming",
        "_lent",
        "_missing",
        "_object",
        "_outgoing",
        "_own",
        "_pumping",
        "_rest",
        "_waiting",
        "_whole",
        "app",
        "established",
        "finished",
        "nests",
        "read_paused",
        "transport",
    )

    if TYPE_CHECKING:

        def shake_hands(self) -> None: ...
        def read_ended(self) -> None: ...
        def failed(self, exc: Exception) -> None: ...
        def stalled(self, waits: bool) -> None: ...
        def go_on_soon(self) -> None: ...

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def begin(
        self,
        app: asyncio.BaseProtocol,
        buffer: ReceiveBuffer,
        context: ssl.SSLContext,
        server_side: bool,
        name: str | None,
    ) -> None:
        """Set it up; called once, before anything else.

        Args:
            app: the attribute.
            buffer: memory to receive into, which other connections may use between two calls, but not the protocol
                for what it receives.
            context: for this side.
            server_side: whether it is a server's.
            name: what a client expects in the server's certificate.
        """
        self._buffer = buffer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        self._backlog: deque[bytes] | None = None  # what waits until the peer has ended a handshake
        self._waiting = 0  # bytes of that
        self._lent = memoryview(b"")
        self._rest = memoryview(b"")  # received, and not taken in
        self._own = 0  # bytes that TLS said by itself while the peer did not take what was sent to it
        self._held = 0  # bytes that were encrypted and not sent
        self._whole = 0  # records that were taken in and not decrypted, at most
        self._missing = 0  # bytes of the record after them
        self._head = b""  # of that record, if it is not whole
        self._pumping = False
        self._at_end = False
        self.read_paused: bool = False
        self.established: bool = False
        self.nests: bool = False
        self.finished: bool = False
        self.transport: asyncio.Transport | None = None
        self.set_protocol(app)

    def attach(self, transport: asyncio.Transport) -> None:
        """Set the transport; called once, when TCP is set up.

        Args:
            transport: the attribute.
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
        # In a nested loop, what another connection received stands in the shared memory, and is not taken in.
        self._lent = memoryview(bytearray(SPARE)) if self._buffer._busy else self._buffer._memory
        return self._lent

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what the transport received."""
        lent, self._lent = self._lent, memoryview(b"")
        if not 0 <= nbytes <= len(lent):
            raise ValueError(f"nbytes must be from 0 to the {len(lent)} bytes lent, got {nbytes}")
        if self.finished:
            return  # until the peer ends its side too
        if not self.established:
            self._take_in(lent[:nbytes], nbytes)
            self.shake_hands()
            return
        outer, shared = self._pumping, lent is self._buffer._memory
        if shared:
            self._buffer._busy = True
        self._pumping = True
        try:
            self._take_rest()
            self._rest = lent[:nbytes]
            while self._rest and not self.finished:
                self._rest = self._rest[self._take_in(self._rest, PORTION) :]
                self._hand_all_on(False)
        finally:
            try:
                self._take_rest()
            finally:
                self._pumping = outer
                if shared:
                    self._buffer._busy = False
        self._answer()

    def go_on(self) -> None:
        """Go on delivering a batch while the protocol runs the loop within itself; what comes later waits."""
        if self._pumping and not self.finished:
            self._take_rest()
            self._hand_all_on(False)

    def _take_rest(self) -> None:
        """Take in what is left: because of an exception, or because a nested loop reads on before it is handled."""
        rest, self._rest = self._rest, memoryview(b"")
        if rest and not self.finished:
            self._take_in(rest, len(rest))

    def _take_in(self, data: memoryview, limit: int) -> int:
        """Give data to `ssl` up to the end of the record that reaches the limit; return where that is."""
        n = self._follow(data, limit)
        self._incoming.write(data[:n])
        return n

    def _follow(self, data: memoryview, limit: int) -> int:
        """Count the records that end in data up to the limit; return where the last of them ends, or data does."""
        at = 0
        while at < len(data) and self._missing != NONE:
            if not self._missing:
                more = data[at : at + HEAD - len(self._head)]
                self._head += more
                at += len(more)
                self._missing = following(self._head)
                if self._missing:
                    self._head = b""
                continue
            step = min(self._missing, len(data) - at)
            at += step
            self._missing -= step
            if not self._missing:
                self._whole += 1
                if at >= limit:
                    return at
        if self._missing == NONE:
            self._whole = ANY
        return len(data)

    def pump(self, drain: bool) -> None:
        """Decrypt what was taken in and hand it to the protocol, many records at a time.

        Args:
            drain: hand it on although reading is paused: the transport has ended.
        """
        if not self._incoming.pending and not self._object.pending():
            self._whole = 0  # those counted were the handshake's
        outer, self._pumping = self._pumping, True
        try:
            self._hand_all_on(drain)
        finally:
            self._pumping = outer
        self._answer()

    def _answer(self) -> None:
        """Send what the protocol wrote, and what `ssl` has to say itself."""
        if self._backlog and not self.finished:
            self._catch_up()
        if self._held or self._outgoing.pending:
            self.flush()

    def _hand_all_on(self, drain: bool) -> None:
        while (drain or not self.read_paused) and not self.finished and self._hand_on():
            pass

    def _hand_on(self) -> bool:
        """Fill the protocol's buffer as far as that goes; return whether there may be more."""
        if self._at_end:
            self.read_ended()
            return False
        if not self._whole:
            return False
        behind = self.transport is not None and self.transport.get_write_buffer_size() > 0
        before = self._outgoing.pending
        if not behind:
            self._own = 0
        view = self.app.get_buffer(-1) if self._app_buffered else memoryview(bytearray(PIECE))
        used = 0
        error: Exception | None = None
        ended = nothing = False
        try:
            while used < len(view) and self._whole and not ended:
                n: int = self._object.read(len(view) - used, view[used:])  # type: ignore[assignment]
                used += n
                ended = not n
                if used < len(view) or not self._object.pending():
                    self._whole -= 1
        except ssl.SSLWantReadError:
            self._whole = 0  # what was counted held nothing for the protocol
            nothing = not used
        except Exception as exc:  # ssl.SSLError, and what a hook of the context raises
            error = exc.with_traceback(None)  # which refers to this frame, and the frame to the error
            self.finished = True  # what came before is handed on, but nothing can be sent any more
        if behind:
            self._own += self._outgoing.pending - before
            if self._own > OWN and error is None:
                error = ConnectionAbortedError("the peer makes TLS say more than it takes")
                self.finished = True
        if nothing and error is None:
            return False
        if used:
            if self.nests:
                self.go_on_soon()
            if self._app_buffered:
                self.app.buffer_updated(used)
            else:
                self.app.data_received(bytes(view[:used]))
        elif error is None and not ended:
            raise RuntimeError("get_buffer() returned an empty buffer")
        if error is not None:
            self.failed(error)
        if ended:
            self._at_end = True  # which is told when reading is not paused
        return True

    # --- Sending ------------------------------------------------------------------------------------------

    def let_write(self) -> None:
        """Let the protocol write what it has gathered, before somebody else writes or ends the sending side."""
        write_gathered = getattr(self.app, "write_gathered", None)
        if write_gathered is not None:
            write_gathered()

    def write(self, data: BytesLike) -> None:
        """Encrypt data and send it; without effect once the sending side has ended."""
        self.let_write()
        if self.finished:
            return
        if self._backlog:
            waiting = copied(data)
            self._backlog.append(waiting)
            self._waiting += len(waiting)
        else:
            self._encrypt(data)
        if not self._pumping or self.nests or self._held >= HELD:
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
        view = memoryview(copied(data))
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            try:
                self._object.write(piece)
            except ssl.SSLWantReadError:
                # RFC 5246, 7.4.1.1: the peer negotiates anew, and this side can send only when that is done.
                if self._backlog is None:
                    self._backlog = deque()
                self._backlog.appendleft(bytes(view[at:]))
                self._waiting += len(view) - at
                self.stalled(True)
                return False
            except ssl.SSLError as exc:
                self.failed(exc.with_traceback(None))
                return False
            self._held += len(piece) + OVERHEAD
            if self._held >= HELD:
                self.flush()
        return True

    def _catch_up(self) -> None:
        """Encrypt what had to wait, as far as that goes."""
        while self._backlog:
            data = self._backlog.popleft()
            self._waiting -= len(data)
            if not self._encrypt(data):
                return
        self.stalled(False)

    def flush(self) -> None:
        """Send the records that are ready."""
        data = self._outgoing.read()
        self._held = 0
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were not yet taken by the operating system."""
        if self.transport is None:
            return 0
        return self.transport.get_write_buffer_size() + self._outgoing.pending + self._waiting
