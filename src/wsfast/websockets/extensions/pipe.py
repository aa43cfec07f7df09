"""Extensions of a program's own on the connections of this package.

wsfast's codec knows permessage-deflate and no other extension. Where a program has one, the bytes between the codec and
the network pass through a `Pipe`, which takes the frames apart, has the extensions change them, and puts them together
again. The codec sees ordinary frames. A connection without such extensions has no pipe, and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..exceptions import PayloadTooBig, ProtocolError
from ..frames import CONT, CTRL_OPCODES, Frame
from ..streams import StreamReader

if TYPE_CHECKING:
    from wsfast.events import BytesLike

    from .base import Extension

__all__ = ["FilterProtocol", "FilterTransport", "Pipe"]


class Pipe:
    """Applies extensions to the frames of a connection, both ways.

    Args:
        is_client: which end this is.
        max_size: the most bytes of a message that is received, or that and the most of a fragment.
        logger: told of an extension that raises what it must not.
        extensions: in the order in which frames that are sent pass through them.
        skip: bytes that are sent first and are no frames: the response of the opening handshake.
    """

    def __init__(
        self,
        is_client: bool,
        max_size: int | tuple[int | None, int | None] | None,
        logger: Any,
        extensions: Sequence[Extension] = (),
        skip: int = 0,
    ) -> None:
        self.extensions = extensions
        self.skip: int = skip
        self._is_client = is_client
        self._most, self._most_of_fragment = max_size if isinstance(max_size, tuple) else (max_size, None)
        self._logger: logging.Logger = logger
        self._in, self._out = StreamReader(), StreamReader()
        self._coming: Generator[None, None, Frame] | None = None
        self._going: Generator[None, None, Frame] | None = None
        self._size: int | None = None  # of the message under way
        self._failed = False

    def received(self, data: BytesLike) -> bytes:
        """Turn what came from the network into what the codec is given."""
        if self._failed:
            return b""
        self._in.feed_data(bytes(data))
        plain: list[bytes] = []
        try:
            while self._coming is not None or self._in.buffer:
                if self._coming is None:
                    self._coming = Frame.parse(
                        self._in.read_exact, mask=not self._is_client, max_size=self._room(), extensions=self.extensions
                    )
                frame = _step(self._coming)
                if frame is None:
                    break
                self._coming = None
                if frame.opcode not in CTRL_OPCODES:
                    self._size = None if frame.fin else (self._size or 0) + len(frame.data)
                plain.append(frame.serialize(mask=not self._is_client))
        except Exception as exc:
            self._failed = True
            self._in.discard()
            if not isinstance(exc, (PayloadTooBig, ProtocolError)):
                self._logger.error("an extension failed", exc_info=exc)
            plain.append(self._failing(isinstance(exc, PayloadTooBig)))
        return b"".join(plain)

    def _room(self) -> int | None:
        left = None if self._most is None else self._most - (self._size or 0)
        fragment = self._most_of_fragment
        return fragment if left is None else left if fragment is None else min(left, fragment)

    def _failing(self, too_big: bool) -> bytes:
        """Return the head of a frame that the codec refuses: by 1009 for its size, or by 1002 for its opcode."""
        key = b"" if self._is_client else bytes(4)
        bit = 0 if self._is_client else 0x80
        if not too_big or self._most is None:
            return bytes([0x83, bit]) + key
        opcode = 0x82 if self._size is None else 0x80 | CONT
        return bytes([opcode, bit | 127]) + (self._most + 1).to_bytes(8, "big") + key

    def sending(self, data: BytesLike) -> bytes:
        """Turn what the codec sends into what goes to the network."""
        data = bytes(data)
        done, data = data[: self.skip], data[self.skip :]
        self.skip -= len(done)
        self._out.feed_data(data)
        frames = [done]
        while self._going is not None or self._out.buffer:
            if self._going is None:
                self._going = Frame.parse(self._out.read_exact, mask=self._is_client)
            frame = _step(self._going)
            if frame is None:
                break
            self._going = None
            frames.append(frame.serialize(mask=self._is_client, extensions=self.extensions))
        return b"".join(frames)


def _step(parser: Generator[None, None, Frame]) -> Frame | None:
    """Go on with a frame; None where bytes are missing."""
    try:
        next(parser)
    except StopIteration as done:
        frame: Frame = done.value
        return frame
    return None


class FilterTransport:
    """A transport of asyncio with a pipe in front.

    Args:
        transport: the transport.
        pipe: the pipe.
    """

    def __init__(self, transport: Any, pipe: Pipe) -> None:
        self._transport = transport
        self.pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def set_protocol(self, protocol: Any) -> None:
        """Have a protocol receive what comes through the pipe."""
        self._transport.set_protocol(FilterProtocol(protocol, self.pipe))

    def write(self, data: BytesLike) -> None:
        """Write frames."""
        data = self.pipe.sending(data)
        if data:
            self._transport.write(data)

    def writelines(self, pieces: Iterable[BytesLike]) -> None:
        """Write frames in pieces."""
        self.write(b"".join(pieces))


class FilterProtocol(asyncio.BufferedProtocol):
    """A connection's protocol with a pipe in front.

    Args:
        protocol: the `ConnectionProtocol`.
        pipe: the pipe.
    """

    def __init__(self, protocol: Any, pipe: Pipe) -> None:
        self._protocol = protocol
        self._pipe = pipe
        self._buffer = bytearray(65536)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Lend memory to receive into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was received."""
        self.take(memoryview(self._buffer)[:nbytes])

    def take(self, data: BytesLike) -> None:
        """Take in bytes that were received in any way."""
        plain = self._pipe.received(data)
        if plain:
            self._protocol.feed(plain)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        answer: bool | None = self._protocol.eof_received()
        return answer

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()
