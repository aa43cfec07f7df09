"""The work of permessage-deflate on one connection (RFC 7692, 7.2), and the memory that it takes.

What makes it affordable:

- a compressor may start afresh whenever it likes, because what a fresh one writes refers to nothing earlier: any
  inflater can follow it, whatever it holds. So an idle compressor is dropped, and a message that was compressed once
  for everybody fits every connection, if the connection's own compressor starts afresh after it;
- a full flush makes a compressor forget what it saw, so one of them, from a `CompressorPool`, serves any number of
  connections without context takeover;
- an inflater cannot start afresh unless the peer's compressor does, and is never shared: a peer could refer back to
  what another one sent.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..exceptions import InvalidPayload, PayloadTooBig
from .backends import FULL_FLUSH, SYNC_FLUSH, Backend, Compressor, Decompressor

__all__ = ["CompressorPool", "DeflateBudget", "Parameters", "PerMessageDeflate", "pool"]

# RFC 7692, 7.2.1: every flush ends with these four bytes; they are not sent, and the receiver adds them again (7.2.2).
_TAIL = b"\x00\x00\xff\xff"
# The tail and an empty final block: an inflater reads to the end of it only if the message ended at a block's end.
_TAIL_AND_END = _TAIL + b"\x01\x00\x00\xff\xff"
# RFC 7692, 7.2.3.6: an empty message is one empty block. Every flush ends at a byte's border, so it fits anywhere.
_EMPTY = b"\x00"

# Each new DEFLATE stream within a message needs a new inflater, up to 7 us, and costs the peer as little as 2 bytes.
_MAX_STREAMS = 1024
# At the end of each stream, `unused_data` is a copy of the rest of the input: pieces keep the work linear.
_PIECE = 4096

# How many unused compressors a pool keeps. A burst of fragmented messages to thousands of connections may borrow
# thousands of them, 61 KiB each, and they must not all stay allocated afterwards.
_MOST_FREE = 8

# A message counts as incompressible if less than a sixteenth of it is saved.
_POOR_SHIFT = 4
# After so many incompressible messages in a row, the next ones are sent uncompressed. One image between JSON messages
# must not stop compression.
_POOR_STREAK = 4
_FIRST_PAUSE = 8
_LONGEST_PAUSE = 256


class CompressorPool:
    """Compressors that any connection without context takeover may borrow for one message.

    There are as many as are in use at one time: one, unless messages are compressed in threads or in fragments. A few
    of those that are not needed any more are kept.

    Args:
        backend: the DEFLATE library.
        level, bits, mem_level: as in `Backend.compressor`.
    """

    __slots__ = ("_backend", "_free", "_parameters")

    def __init__(self, backend: Backend, level: int, bits: int, mem_level: int) -> None:
        self._backend = backend
        self._parameters = level, bits, mem_level
        self._free: list[Compressor] = []

    def take(self) -> Compressor:
        """Borrow a compressor that refers to nothing earlier."""
        try:
            return self._free.pop()
        except IndexError:
            return self._backend.compressor(*self._parameters)

    def give(self, compressor: Compressor) -> None:
        """Return a compressor whose last output ended in a full flush."""
        if len(self._free) < _MOST_FREE:
            self._free.append(compressor)

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compress a whole message so that an inflater in any state can read it.

        Args:
            data: the message. Any thread may call this at any time.
        """
        if not data:
            return _EMPTY
        # Popping and appending are atomic, so threads never share one. After an error it is dropped.
        compressor = self.take()
        out = compressor.compress(data) + compressor.flush(FULL_FLUSH)
        self.give(compressor)
        return out[:-4]


@cache
def pool(backend: Backend, level: int, bits: int, mem_level: int) -> CompressorPool:
    """Return the process's one pool for these parameters; they have at most 648 values for each backend."""
    return CompressorPool(backend, level, bits, mem_level)


class DeflateBudget:
    """Bytes that the contexts of all connections may take together.

    Each connection with context takeover reserves the most that it can need, from its handshake to its end. When the
    rest does not suffice, a new one gets no context takeover, and holds nothing between messages.

    Args:
        nbytes: the budget, at least 0.

    Raises:
        ValueError, TypeError: it is negative, or no int.
    """

    __slots__ = ("_lock", "nbytes", "used")

    def __init__(self, nbytes: int) -> None:
        if not isinstance(nbytes, int) or isinstance(nbytes, bool):
            raise TypeError(f"nbytes must be int, got {type(nbytes).__name__}")
        if nbytes < 0:
            raise ValueError(f"nbytes must be at least 0, got {nbytes}")
        # Reentrant: a garbage collection while it is held may run finalizers, which release bytes too.
        self._lock = threading.RLock()
        self.nbytes: int = nbytes
        """The budget in bytes. It may be changed at any time, for the connections to come."""
        self.used: int = 0
        """Bytes that open connections have reserved."""

    def __repr__(self) -> str:
        return f"<DeflateBudget {self.used} of {self.nbytes} bytes used>"

    def reserve(self, nbytes: int) -> bool:
        """Reserve bytes if they are left; return whether they were. Any thread may call it."""
        with self._lock:
            if nbytes > self.nbytes - self.used:
                return False
            self.used += nbytes
            return True

    def release(self, nbytes: int) -> None:
        """Give reserved bytes back."""
        with self._lock:
            self.used -= nbytes


@dataclass(frozen=True, slots=True)
class Parameters:
    """The negotiated parameters of one side of a connection, shared by all connections that agreed on the same ones.

    Attributes:
        takeover: this side's compressor keeps its context between messages.
        bits: of this side's window, 8 to 15.
        peer_takeover: the peer's compressor keeps its context between messages.
        peer_bits: of the peer's window, 8 to 15.
        level, mem_level: zlib's, 1 to 9, for this side's compressor.
        threshold: bytes below which `should_compress` says no.
        idle: seconds without a compressed message after which `free_idle` frees, or None.
        compress: the library that compresses.
        inflate: the library that inflates.
    """

    takeover: bool
    bits: int
    peer_takeover: bool
    peer_bits: int
    level: int
    mem_level: int
    threshold: int
    idle: float | None
    compress: Backend
    inflate: Backend

    @property
    def memory(self) -> int:
        """The most bytes that the contexts of a connection hold between messages."""
        memory = 0
        if self.takeover:
            memory += self.compress.compress_memory(self.bits, self.mem_level)
        if self.peer_takeover:
            memory += self.inflate.decompress_memory(self.peer_bits)
        return memory


class PerMessageDeflate:
    """The compressor and the inflater of one connection (RFC 7692, 7.2).

    Neither exists before its first compressed message. Without context takeover neither exists between messages.

    Args:
        parameters: what was negotiated.
        budget: where `parameters.memory` is reserved already; `close` gives it back.

    Attributes:
        shared_key: the class of connections for which a message needs to be compressed only once: the pool that does
            it, by ``key.compress(data)``. Each connection is told what came of it by `judge`, and by `note_shared` if
            it is sent the result. This holds with context takeover as well as without.
        watched: None, or a set to which it adds itself whenever there is a compressor that `free_idle` may free.
    """

    __slots__ = (
        "_budget",
        "_compressor",
        "_decompressor",
        "_idle_since",
        "_inside",
        "_pause",
        "_streak",
        "_streams",
        "parameters",
        "shared_key",
        "watched",
    )

    def __init__(self, parameters: Parameters, budget: DeflateBudget | None = None) -> None:
        self.parameters: Parameters = parameters
        self._budget = budget
        self._compressor: Compressor | None = None
        self._decompressor: Decompressor | None = None
        self.shared_key: CompressorPool = pool(
            parameters.compress, parameters.level, parameters.bits, parameters.mem_level
        )
        self._idle_since: float | None = None
        self.watched: set[Any] | None = None
        self._inside = False  # a message of the peer's has begun, and is not empty so far
        self._streams = 0  # DEFLATE streams that began within the peer's message
        self._streak = 0  # incompressible messages in a row
        self._pause = 0  # messages still to be sent plain

    def __repr__(self) -> str:
        return f"<PerMessageDeflate {self.parameters}, {self.memory} bytes held>"

    def __del__(self) -> None:
        self.close()

    # Sending

    def should_compress(self, nbytes: int) -> bool:
        """Tell whether the next message is worth compressing; ask once for each message.

        Args:
            nbytes: the message's size. A message below the threshold is not worth it, nor, for a while, one after
                several that did not shrink: every answer counts that pause down. With a threshold of 0 all are.
        """
        threshold = self.parameters.threshold
        if nbytes < threshold:
            return False
        if self._pause and threshold:
            self._pause -= 1
            return False
        return True

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compress a whole message.

        Any thread may do it, but messages must be compressed one after the other, and sent in the same order.

        Args:
            data: the message. No message in fragments may be under way.

        Returns:
            The payload of a frame with RSV1, or of several, cut anywhere.
        """
        if not data:
            return _EMPTY
        if self.parameters.takeover:
            compressor = self._compressor
            if compressor is None:
                compressor = self._keep(self._new_compressor())
            self._idle_since = None
            try:
                out = (compressor.compress(data) + compressor.flush(SYNC_FLUSH))[:-4]
            except BaseException:
                self._compressor = None  # it may hold a part of what is not sent now
                raise
        else:
            out = self.shared_key.compress(data)
        self.judge(len(data), len(out))
        return out

    def compress_fragment(self, data: bytes | bytearray | memoryview, fin: bool) -> bytes:
        """Compress the next fragment of a message so that the peer can read all of it at once.

        Args:
            data: the fragment. It may be empty.
            fin: it is the message's last.

        Returns:
            The frame's payload. RSV1 is set on the message's first frame only, even if its payload is empty.
        """
        takeover = self.parameters.takeover
        compressor = self._compressor
        if not data:
            out = _EMPTY if fin else b""
            if fin and compressor is not None and not takeover:
                self._compressor = None
                compressor.flush(FULL_FLUSH)
                self.shared_key.give(compressor)
            return out
        if compressor is None:
            compressor = self._keep(self._new_compressor() if takeover else self.shared_key.take())
        self._idle_since = None
        try:
            out = compressor.compress(data) + compressor.flush(SYNC_FLUSH if takeover or not fin else FULL_FLUSH)
        except BaseException:
            self._compressor = None  # as in `compress`
            raise
        if len(data) >= self.parameters.threshold:
            self.judge(len(data), len(out))
        if not fin:
            return out
        if not takeover:
            self._compressor = None
            self.shared_key.give(compressor)
        return out[:-4]

    def _keep(self, compressor: Compressor) -> Compressor:
        self._compressor = compressor
        watched = self.watched
        if watched is not None:
            watched.add(self)
            if self.watched is None:
                # This is a thread, and the connection has ended: `close` may have been too early to see either.
                self._compressor = None
                watched.discard(self)
        return compressor

    def _new_compressor(self) -> Compressor:
        p = self.parameters
        return p.compress.compressor(p.level, p.bits, p.mem_level)

    def judge(self, size: int, left: int) -> None:
        """Note how much a message shrank, or a fragment that is as long as a message worth compressing.

        `compress` and `compress_fragment` call it themselves. Call it for each message that `shared_key` compressed,
        whether or not the result is sent.

        Args:
            size: bytes of the message.
            left: bytes that it was compressed to.
        """
        if left <= size - (size >> _POOR_SHIFT):
            self._streak = 0
            return
        self._streak += 1
        if self._streak >= _POOR_STREAK:
            self._pause = min(_FIRST_PAUSE << (self._streak - _POOR_STREAK), _LONGEST_PAUSE)

    # Broadcasting

    def note_shared(self) -> None:
        """Note that this connection sends a message that `shared_key` compressed.

        The peer's window now holds a message that this side's own compressor has not seen, so that its distances would
        be wrong: it starts afresh. Call it when the message is sent: after the last of this connection's own was
        compressed, before the next one is.
        """
        self._compressor = None

    # Receiving

    def decompress(self, data: bytes, fin: bool, limit: int) -> bytes:
        """Inflate the next piece of a message.

        Args:
            data: the piece: a frame's payload or a part of it.
            fin: it is the message's last piece. It may be empty.
            limit: bytes that the message may still grow by, or -1. At most one byte more is inflated, to tell whether
                the message is too big.

        Raises:
            PayloadTooBig: there is more than `limit`.
            InvalidPayload: it is not DEFLATE data.
        """
        parameters = self.parameters
        decompressor = self._decompressor
        if not data:
            if not fin:
                return b""
            if decompressor is None or not self._inside:
                # The message ended with a final block, or it has no byte at all. For that, RFC 7692, 7.2.3.6 asks for
                # one byte, but none can only mean the same. The tail alone would be no block.
                self._inside = False
                self._streams = 0
                return b""
        if fin:
            tail = _TAIL if parameters.peer_takeover else _TAIL_AND_END
            source = data + tail
        else:
            self._inside = True
            tail = b""
            source = data
        if decompressor is None:
            decompressor = self._decompressor = self._new_decompressor()
        try:
            out = decompressor.decompress(source, _one_more(limit))
            if len(out) > limit >= 0:
                raise PayloadTooBig("the message is too big once it is decompressed")
            # Less came than was asked for, so nothing is pending: all input is consumed, or a final block was read.
            if decompressor.eof:
                out = self._decompress_on(out, decompressor.unused_data, len(tail), limit)
            elif len(tail) > len(_TAIL):
                raise InvalidPayload("compressed data ends in the middle of a block")
        except parameters.inflate.error as exc:
            # RFC 7692 names no code. 1007, "data not consistent with the type of the message", says it better than
            # 1002: the frames are right, what is in them is not. Node's ws answers 1007, websockets 1002.
            raise InvalidPayload(f"compressed data is invalid: {exc}") from exc
        if fin:
            self._inside = False
            self._streams = 0
            if not parameters.peer_takeover:
                self._decompressor = None
        return out

    def _new_decompressor(self) -> Decompressor:
        self._streams += 1
        if self._streams > _MAX_STREAMS:
            raise InvalidPayload(f"compressed data has more than {_MAX_STREAMS} final blocks in one message")
        return self.parameters.inflate.decompressor(self.parameters.peer_bits)

    def _decompress_on(self, out: bytes, rest: bytes, tail: int, limit: int) -> bytes:
        """Inflate what follows a final block.

        RFC 7692, 7.2.1 lets a sender end its DEFLATE stream within a message (7.2.3.4). The next block begins a new
        stream, with nothing to refer back to, as Node's ws has it too.

        Args:
            out: what the message's piece gave so far.
            rest: the bytes behind the final block, this module's own tail with them.
            tail: the length of that tail, 0 if the message goes on.
            limit: bytes that the piece may inflate to, or -1.
        """
        view = memoryview(rest)
        parts = [out]
        size = len(out)
        at = 0
        decompressor: Decompressor | None = None
        while at < len(view):
            left = len(view) - at
            if decompressor is None:
                # The message ends with the final block, without the empty one that should follow: clear enough.
                if left == tail:
                    break
                if left < tail:
                    raise InvalidPayload("compressed data ends in the middle of a block")
                decompressor = self._new_decompressor()
            piece = view[at : at + _PIECE]
            part = decompressor.decompress(piece, _one_more(limit - size) if limit >= 0 else 0)
            size += len(part)
            if size > limit >= 0:
                raise PayloadTooBig("the message is too big once it is decompressed")
            parts.append(part)
            at += len(piece)
            if decompressor.eof:
                at -= len(decompressor.unused_data)
                decompressor = None
        if decompressor is not None and tail > len(_TAIL):
            raise InvalidPayload("compressed data ends in the middle of a block")
        self._decompressor = decompressor
        return b"".join(parts)

    # Memory

    @property
    def memory(self) -> int:
        """The most bytes that the contexts held now can take."""
        p = self.parameters
        memory = 0
        if self._compressor is not None:
            memory += p.compress.compress_memory(p.bits, p.mem_level)
        if self._decompressor is not None:
            memory += p.inflate.decompress_memory(p.peer_bits)
        return memory

    @property
    def holding(self) -> bool:
        """Whether there is a compressor that `free_idle` may free."""
        return self._compressor is not None

    def free_idle(self, now: float) -> bool:
        """Free the compressor if it has not been used for `idle` seconds, and tell whether it was freed now.

        The inflater stays: it could be dropped only if the peer sends without context takeover, and in that case no
        inflater is kept between messages anyway.

        Args:
            now: seconds on any clock that never runs back. The time is counted from the first call after a use, so it
                is as exact as the calls are frequent.
        """
        idle = self.parameters.idle
        if self._compressor is None or idle is None:
            return False
        if self._idle_since is None:
            self._idle_since = now
            return False
        if now - self._idle_since < idle:
            return False
        # Even within a message in fragments: each ends with a flush, behind which a fresh compressor may go on.
        self._compressor = None
        self._idle_since = None
        return True

    def close(self) -> None:
        """Free all contexts and give the budget back. Calling it again does nothing."""
        watched, self.watched = self.watched, None  # first, so that `_keep` in another thread can tell
        if watched is not None:
            watched.discard(self)
        self._compressor = None
        self._decompressor = None
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.release(self.parameters.memory)


def _one_more(limit: int) -> int:
    """Return how much zlib is to inflate at most; 0 stands for no limit, as -1 does for `PerMessageDeflate`."""
    return limit + 1 if limit < sys.maxsize else 0
