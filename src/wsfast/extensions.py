"""Extensions of a program's own (RFC 6455, 9): their interface, their negotiation, and frames passing through. Sans-IO.

An extension changes frames on their way out (`Extension.encode`) and in (`Extension.decode`). A factory for each side
agrees on it with the peer in the opening handshake; `extensions=` of servers and clients takes a list of factories. The
names and signatures are those of `websockets`. permessage-deflate is not among them: `compression=` is there for it.

A connection that agreed on none is not affected. On one that did, each frame passes through Python code: a `Chain`
stands between the codec and the network. The codec still judges what comes out of it, so that the rules of RFC 6455
hold whatever an extension does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .codec import apply_mask, encode_frame
from .codes import Opcode
from .escape import show
from .exceptions import ExtensionError, NegotiationError, PayloadTooBig, PeerError, ProtocolError
from .octets import copied, nbytes
from .telling import tell

if TYPE_CHECKING:
    from .codec import Encoder
    from .deflate.context import PerMessageDeflate
    from .events import BytesLike

__all__ = [
    "Chain",
    "ClientExtensionFactory",
    "Extension",
    "ExtensionParameter",
    "Frame",
    "ServerExtensionFactory",
    "accept",
    "check_factories",
    "confirm",
]

ExtensionParameter: TypeAlias = tuple[str, str | None]
"""A parameter in Sec-WebSocket-Extensions: its name, and its value or None."""

_Header: TypeAlias = tuple[str, Sequence[ExtensionParameter]]

RSV1: Final = 0x40
"""The bit that permessage-deflate uses (RFC 7692, 6), in the first byte of a frame."""
_RSV2: Final = 0x20
_RSV3: Final = 0x10
_ALL: Final = 0x70
_CONTROL: Final = 0x8
_OPCODES: Final[Mapping[int, Opcode]] = {int(opcode): opcode for opcode in Opcode}
_CLOSE: Final = Opcode.CLOSE
_NO_KEY: Final = bytes(4)
_WORK: Final = 256
"""Bytes that a frame counts for beyond its size: a read may hold 10,000 small ones, and others are to have a turn."""


@dataclass(slots=True)
class Frame:
    """A frame (RFC 6455, 5.2), as extensions see it; `dataclasses.replace` makes a changed one.

    Attributes:
        opcode: an `Opcode`.
        data: its payload, unmasked; bytes-like.
        fin: whether it is the last of its message. Default: True.
        rsv1, rsv2, rsv3: the bits that are for extensions. Default: False.
    """

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False


class Extension:
    """An extension that was agreed on, for one connection.

    In threads, `encode` and `decode` may run in two threads at the same time.

    Attributes:
        name: as in Sec-WebSocket-Extensions.
        rsv1, rsv2, rsv3: whether it uses that bit of frames. Two that use the same are never agreed on together, and
            permessage-deflate uses RSV1. A bit that nobody uses is an error when it is sent, and 1002 when it comes.
    """

    name: str
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Undo what the peer's extension did to a frame, and clear this extension's bits.

        Args:
            frame: the frame, control frames among them. A message may come in any number of fragments.
            max_size: the most bytes that a frame of its message may have afterwards; None, the default, for no limit.

        Raises:
            PeerError: the peer broke the extension's rules: `ProtocolError` (1002), `InvalidPayload` (1007), or
                `PayloadTooBig` (1009) for more than `max_size`. Any other exception is logged, and closes with 1011.
        """
        raise NotImplementedError

    def encode(self, frame: Frame) -> Frame:
        """Turn a frame into the one that is sent.

        If it raises for a message, the message is not sent, and the call that sends it raises `ExtensionError` with
        that exception as its cause. If it raises for a control frame, that is logged: a ping or pong is left out, and a
        Close frame goes out without a code.

        Args:
            frame: the frame, control frames among them, which may have at most 125 bytes afterwards too.
        """
        raise NotImplementedError


class ClientExtensionFactory:
    """How a client offers an extension, and judges the answer.

    Attributes:
        name: as in Sec-WebSocket-Extensions.
    """

    name: str

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer it with: pairs of a name, and a value or None."""
        raise NotImplementedError

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        """Judge the parameters that the server answered with, and return the extension.

        Args:
            params: the parameters in the answer: pairs of a name, and a value or None.
            accepted_extensions: those that were agreed on before, in the order in which frames pass through them.

        Raises:
            NegotiationError: they are not acceptable, so that the connection fails.
        """
        raise NotImplementedError


class ServerExtensionFactory:
    """How a server accepts an extension.

    Attributes:
        name: as in Sec-WebSocket-Extensions.
    """

    name: str

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[Sequence[ExtensionParameter], Extension]:
        """Judge a client's offer; return the parameters to answer with, and the extension.

        Args:
            params: the parameters of the offer: pairs of a name, and a value or None.
            accepted_extensions: those that were agreed on before, in the order in which frames pass through them.

        Raises:
            NegotiationError: the offer is not acceptable, so that the connection goes on without the extension.
        """
        raise NotImplementedError


# --- Negotiation ----------------------------------------------------------------------------------------


def check_factories(extensions: Iterable[Any] | None, method: str) -> tuple[Any, ...]:
    """Check the option `extensions`, and return it as a tuple.

    Args:
        extensions: factories, or None for none.
        method: what each must have, by the side.

    Raises:
        TypeError: it is not a list of factories of that side.
        ValueError: a name is not a token, or permessage-deflate.
    """
    if extensions is None:
        return ()
    from .http import is_token  # which loads multidict: a connection without a handshake needs neither

    if isinstance(extensions, (str, bytes)) or not isinstance(extensions, Iterable):
        raise TypeError(f"extensions must be a list of factories or None, got {type(extensions).__name__}")
    factories = tuple(extensions)
    for factory in factories:
        if isinstance(factory, type) or not callable(getattr(factory, method, None)):
            came = factory.__name__ if isinstance(factory, type) else type(factory).__name__
            kind = "the class " if isinstance(factory, type) else ""
            raise TypeError(f"extensions must be factories that have {method}(), got {kind}{came}")
        name = getattr(factory, "name", None)
        if not isinstance(name, str):
            raise TypeError(f"the name of an extension must be str, got {type(name).__name__}")
        # RFC 6455, 9.1: "extension-token = registered-token", which is an HTTP token.
        if not is_token(name):
            raise ValueError(f"the name of an extension must be a token (RFC 9110, 5.6.2), got {name!r}")
        if name == "permessage-deflate":
            raise ValueError("permessage-deflate is not for extensions: use compression='deflate', or a Deflate")
    return factories


def _bits(thing: Any) -> int:
    """Return the bits of a frame, or those that an extension says it uses."""
    return RSV1 * bool(thing.rsv1) | _RSV2 * bool(thing.rsv2) | _RSV3 * bool(thing.rsv3)


def _checked(extension: Any, factory: Any, method: str) -> Any:
    made = all(callable(getattr(extension, name, None)) for name in ("encode", "decode"))
    if not made or not all(hasattr(extension, bit) for bit in ("rsv1", "rsv2", "rsv3")):
        came = type(extension).__name__
        raise TypeError(f"{type(factory).__name__}.{method}() must return a wsfast.extensions.Extension, got {came}")
    return extension


def accept(
    factories: Sequence[Any], offers: Sequence[_Header], reserved: int = 0
) -> tuple[list[_Header], list[Extension]]:
    """Choose, on the server's side, among the extensions that a client offers, in the client's order (RFC 6455, 9.1).

    Args:
        factories: a `ServerExtensionFactory` for each extension that the server has.
        offers: what the client offers, as `Upgrade.extensions` has it; extensions that the server does not have are
            passed over.
        reserved: the bits of a frame's first byte that are taken: 0x40 (RSV1), where permessage-deflate was agreed on.
            Default: 0.

    Returns:
        What to answer, and the extensions that were agreed on, in the order in which frames pass through them.

    Raises:
        TypeError: a factory returned something else than an extension.
    """
    answers: list[_Header] = []
    accepted: list[Extension] = []
    for name, params in offers:
        if any(name == other for other, _ in answers):
            continue  # the client offered it in other ways too
        for factory in factories:
            if factory.name != name:
                continue
            try:
                answer, extension = factory.process_request_params(list(params), list(accepted))
            except NegotiationError:
                continue
            bits = _bits(_checked(extension, factory, "process_request_params"))
            if bits & reserved:
                continue
            reserved |= bits
            answers.append((name, list(answer)))
            accepted.append(extension)
            break
    return answers, accepted


def confirm(factories: Sequence[Any], answers: Sequence[_Header], reserved: int = 0) -> list[Extension]:
    """Check, on the client's side, which extensions the server chose (RFC 6455, 9.1).

    Args:
        factories: a `ClientExtensionFactory` for each offer that was made.
        answers: the extensions in the server's response, as `Agreement.extensions` has them.
        reserved: the bits of a frame's first byte that are taken: 0x40 (RSV1), where permessage-deflate was agreed on.
            Default: 0.

    Returns:
        The extensions that were agreed on, in the order in which frames pass through them.

    Raises:
        NegotiationError: the server chose what was not offered, or what does not go together; the connection must fail.
        TypeError: a factory returned something else than an extension.
    """
    accepted: list[Extension] = []
    names: set[str] = set()
    for name, params in answers:
        if name in names:
            raise NegotiationError(f"server chose the extension {show(name)} twice")
        names.add(name)
        refusal: NegotiationError | None = None
        for factory in factories:
            if factory.name != name:
                continue
            try:
                extension = factory.process_response_params(list(params), list(accepted))
            except NegotiationError as exc:
                refusal = exc  # the same extension may have been offered in other ways too
                continue
            bits = _bits(_checked(extension, factory, "process_response_params"))
            if bits & reserved:
                raise NegotiationError(
                    f"server chose the extension {show(name)}, which uses reserved bits of another one"
                )
            reserved |= bits
            accepted.append(extension)
            break
        else:
            # RFC 6455, 9.1: with what was not offered, "the client MUST _Fail the WebSocket Connection_".
            if refusal is None:
                raise NegotiationError(f"server chose the extension {show(name)}, which was not offered")
            raise NegotiationError(
                f"server chose the extension {show(name)} with wrong parameters: {show(str(refusal))}"
            ) from refusal
    return accepted


# --- Frames ---------------------------------------------------------------------------------------------


class Chain:
    """The extensions of one connection, between its codec and the network.

    RFC 6455, 9.1: "the order of operations on the data should be assumed to be the same as the order in which the
    extensions are listed in the server's response". So frames that are sent pass through permessage-deflate, if that
    was agreed on, then through the extensions in order; those that come, the other way round.

    Args:
        extensions: in the order in which frames that are sent pass through them.
        compression: what permessage-deflate negotiated, or None, the default.
        frame_type: the class of the frames that the extensions are given. Default: `Frame`.
        reserved: the bits of a frame's first byte that the extensions use; None, the default, for what their `rsv1`,
            `rsv2` and `rsv3` say.
        logger: is told of exceptions that extensions must not raise. Default:
            ``logging.getLogger("wsfast.extensions")``.

    Attributes:
        extensions, compression: the arguments.
        failure: the `PeerError` that ends what is received, once there is one.
        pending: whether more may be made of what has come.
    """

    __slots__ = (
        "_encoder",
        "_input",
        "_is_client",
        "_logger",
        "_make",
        "_max_size",
        "_reserved",
        "_size",
        "compression",
        "extensions",
        "failure",
        "pending",
    )

    _encoder: Encoder

    def __init__(
        self,
        extensions: Sequence[Any],
        compression: PerMessageDeflate | None = None,
        *,
        frame_type: type[Any] = Frame,
        reserved: int | None = None,
        logger: Any = None,
    ) -> None:
        self.extensions: tuple[Any, ...] = tuple(extensions)
        self.compression: PerMessageDeflate | None = compression
        self._make = frame_type
        if reserved is None:
            reserved = 0
            for extension in self.extensions:
                reserved |= _bits(extension)
        self._reserved = reserved
        self._logger: Any = logging.getLogger("wsfast.extensions") if logger is None else logger
        self._input = bytearray()
        self._size = 0  # of the message that is received, as far as it has come
        self.failure: PeerError | None = None
        self.pending: bool = False

    def join(self, encoder: Encoder, is_client: bool, max_size: int | None) -> None:
        """Become the chain of a connection; `Connection` calls it.

        Args:
            encoder: where frames to send are put.
            is_client: which end this is.
            max_size: the most bytes of a received message; None for no limit.
        """
        self._encoder = encoder
        self._is_client = is_client
        self._max_size = max_size

    # --- Out: the same calls as those of an `Encoder`

    def frame(self, opcode: int, payload: str | BytesLike = b"", *, fin: bool = True, rsv1: bool = False) -> None:
        """Let the extensions encode a frame, and append it; arguments and errors are those of `encode_frame`.

        Raises:
            ExtensionError: an extension failed on a message; that is its cause.
        """
        data = payload.encode() if isinstance(payload, str) else copied(payload)
        if not opcode & _CONTROL:
            self._encoder.encoded(self._encoded(opcode, data, fin, rsv1))
            return
        encode_frame(opcode, data, fin=fin)  # raises, if it does
        try:
            encoded = self._encoded(opcode, data, fin, rsv1)
        except ExtensionError as exc:
            cause = exc.__cause__
            tell(self._logger.error, "an extension failed on a control frame with opcode 0x%x", opcode, exc_info=cause)
            if opcode != _CLOSE:
                return
            # What it says was for the extensions to hide, it may be; that the connection closes must be said.
            encoded = encode_frame(opcode, mask=self._key())
        self._encoder.encoded(encoded)

    def encoded(self, frames: BytesLike) -> None:
        """Let the extensions encode frames that `encode_frame` made, and append them.

        Args:
            frames: whole frames without a mask, as a broadcast makes them for many connections.

        Raises:
            ExtensionError: as `frame`.
        """
        view = memoryview(copied(frames))
        while view:
            length, at = _length(view)
            end = at + length
            first = view[0]
            self.frame(first & 0x0F, view[at:end], fin=bool(first & 0x80), rsv1=bool(first & RSV1))
            view = view[end:]

    def _key(self) -> bytes | None:
        return os.urandom(4) if self._is_client else None

    def _encoded(self, opcode: int, data: bytes, fin: bool, rsv1: bool) -> bytes:
        frame = self._make(_OPCODES[opcode], data, fin, rsv1)
        try:
            for extension in self.extensions:
                frame = self._returned(extension.encode(frame), extension, "encode")
            bits = _bits(frame)
            wrong = bits & ~(self._reserved | RSV1 * rsv1)
            if wrong:
                raise ValueError(f"encode() set the reserved bits 0x{wrong:02x}, which no extension says it uses")
            encoded = encode_frame(frame.opcode, frame.data, fin=frame.fin, mask=self._key())
        except BaseException as exc:
            if self.compression is not None:
                self.compression.note_shared()  # it has seen a message that the peer will not
            if isinstance(exc, Exception):
                raise ExtensionError("an extension failed to encode a frame") from exc
            raise
        return bytes((encoded[0] | bits,)) + encoded[1:] if bits else encoded

    def _returned(self, frame: Any, extension: Any, method: str) -> Any:
        if not isinstance(frame, self._make):
            name = f"{type(extension).__name__}.{method}()"
            raise TypeError(f"{name} must return a {self._make.__name__}, got {type(frame).__name__}")
        return frame

    # --- In: called by the decoder

    @property
    def held(self) -> int:
        """The bytes of frames that have not come in whole, or are not decoded yet."""
        return len(self._input)

    def receive(self, data: bytes, most: int) -> bytes:
        """Take in received bytes, and return whole frames with the extensions undone, as if the peer had sent those.

        After a failure nothing follows; the decoder reports it once it has taken the frames before it.

        Args:
            data: what came.
            most: bytes from which on no further frame is decoded, of which each frame costs 256 besides its own; 0 for
                none at all.
        """
        if self.failure is not None:
            return b""
        self._input += data
        self.pending = False
        plain = bytearray()
        cost = 0
        try:
            while self._input:
                if cost >= most:
                    self.pending = True
                    break
                frame = self._next()
                if frame is None:
                    break
                plain += frame
                cost += len(frame) + _WORK
        except PeerError as exc:
            self._fail(exc)
        except Exception as exc:
            tell(self._logger.error, "an extension failed on a frame that came", exc_info=exc)
            failure = ExtensionError("an extension failed")
            failure.__cause__ = exc.with_traceback(None)  # whose frames would keep what they hold
            self._fail(failure)
        return bytes(plain)

    def _fail(self, failure: PeerError) -> None:
        self.failure = failure.with_traceback(None)
        self._input.clear()

    def _next(self) -> bytes | None:
        """Decode the next frame, and return it as the decoder takes it; None if it has not come in whole."""
        data = self._input
        if len(data) < 2:
            return None
        first, second = data[0], data[1]
        opcode, masked = first & 0x0F, not self._is_client
        control = bool(opcode & _CONTROL)
        if opcode not in _OPCODES or bool(second & 0x80) != masked:
            return self._rest()
        if control and (not first & 0x80 or second & 0x7F > 125):
            return self._rest()
        length, at = _length(data)
        if at > len(data):
            return None
        if at > 2 and (length < (126 if at == 4 else 65536) or length >> 63):
            return self._rest()
        room = None if self._max_size is None else self._max_size - self._size
        # An extension may add to a frame, so that what comes may be more than what it means: by an eighth and 1 KiB.
        if room is not None and not control and length > room + room // 8 + 1024:
            raise PayloadTooBig(f"message has {self._size + length} bytes or more, the limit is {self._max_size}")
        if len(data) < at + 4 * masked + length:
            return None
        wrong = first & _ALL & ~(self._reserved | RSV1 * (self.compression is not None))
        if wrong:
            raise ProtocolError(f"reserved bits 0x{wrong:02x} set in a frame with opcode 0x{opcode:x}")
        payload = bytes(data[at + 4 * masked : at + 4 * masked + length])
        if masked:
            payload = apply_mask(payload, bytes(data[at : at + 4]))  # type: ignore[assignment]
        del data[: at + 4 * masked + length]
        return self._decoded(first, payload, room)

    def _rest(self) -> bytes:
        """Give all that came to the decoder, which will say what is wrong with it."""
        rest = bytes((self._input[0] & ~_ALL,)) + self._input[1:]
        self._input.clear()
        return rest

    def _decoded(self, first: int, payload: bytes, room: int | None) -> bytes:
        opcode = first & 0x0F
        bits = (bool(first & bit) for bit in (RSV1, _RSV2, _RSV3))
        frame = self._make(_OPCODES[opcode], payload, bool(first & 0x80), *bits)
        for extension in reversed(self.extensions):
            frame = self._returned(extension.decode(frame, max_size=room), extension, "decode")
        left = _bits(frame)
        if left & ~(RSV1 * (self.compression is not None)):
            # RFC 6455, 5.2: reserved bits "MUST be 0 unless an extension is negotiated that defines meanings for
            # non-zero values".
            raise ProtocolError(f"reserved bits 0x{left:02x} set in a frame with opcode 0x{opcode:x}")
        size = nbytes(frame.data)
        if frame.opcode & _CONTROL:
            if size > 125:
                raise ProtocolError(f"control frame with opcode 0x{opcode:x} has more than 125 bytes")
        else:
            self._size = 0 if frame.fin else self._size + size
        mask = None if self._is_client else _NO_KEY
        return encode_frame(frame.opcode, frame.data, fin=frame.fin, rsv1=frame.rsv1, mask=mask)


def _length(head: bytearray | memoryview) -> tuple[int, int]:
    """Return the length of a payload, and where it or its key begins; more than there is where bytes are missing."""
    length = head[1] & 0x7F
    if length < 126:
        return length, 2
    at = 4 if length == 126 else 10
    return int.from_bytes(head[2:at], "big"), at
