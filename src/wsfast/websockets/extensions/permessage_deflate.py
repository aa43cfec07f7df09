"""permessage-deflate under the names of `websockets`: settings for `wsfast.Deflate`, and the extension sans-IO."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, Literal

from wsfast import deflate
from wsfast.deflate.negotiate import agree

from ..exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from ..frames import CTRL_OPCODES, Frame, Opcode
from ..imports import lend
from ..typing import ExtensionName, ExtensionParameter
from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = [
    "ClientPerMessageDeflateFactory",
    "PerMessageDeflate",
    "ServerPerMessageDeflateFactory",
    "enable_client_permessage_deflate",
    "enable_server_permessage_deflate",
]

_NAME = ExtensionName("permessage-deflate")


_TAIL = b"\x00\x00\xff\xff"
"""The end of what `zlib` makes with a flush, which is not sent (RFC 7692, 7.2.1)."""


class PerMessageDeflate(Extension):
    """What was agreed on with the peer, and what applies it to frames (RFC 7692, 7.2).

    Connections of this package compress by `wsfast.Deflate`, whole messages at a time; there it only tells. Frames pass
    through it where the sans-IO layer, or an extension of a program's own, is used.

    Args:
        remote_no_context_takeover, local_no_context_takeover: whether each message of that side begins anew.
        remote_max_window_bits, local_max_window_bits: the window of that side.
        compress_settings: further arguments of `zlib.compressobj`.
    """

    name = _NAME

    def __init__(
        self,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        compress_settings = {} if compress_settings is None else compress_settings
        assert 8 <= remote_max_window_bits <= 15
        assert 8 <= local_max_window_bits <= 15
        assert "wbits" not in compress_settings
        self.remote_no_context_takeover = remote_no_context_takeover
        self.local_no_context_takeover = local_no_context_takeover
        self.remote_max_window_bits = remote_max_window_bits
        self.local_max_window_bits = local_max_window_bits
        self.compress_settings = compress_settings
        # Made when they are needed: a connection of this package needs neither.
        self._inflater: Any = None
        self._deflater: Any = None
        self._in_compressed = False  # within a compressed message that is received

    def __repr__(self) -> str:
        return (
            f"PerMessageDeflate(remote_no_context_takeover={self.remote_no_context_takeover}, "
            f"local_no_context_takeover={self.local_no_context_takeover}, "
            f"remote_max_window_bits={self.remote_max_window_bits}, "
            f"local_max_window_bits={self.local_max_window_bits})"
        )

    @classmethod
    def of(cls, compression: deflate.PerMessageDeflate) -> PerMessageDeflate:
        """Tell what a connection of wsfast agreed on."""
        agreed = compression.parameters
        return cls(not agreed.peer_takeover, not agreed.takeover, agreed.peer_bits, agreed.bits)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decompress a frame.

        Args:
            frame: the frame; a control frame, or one that is not compressed, comes back as it is.
            max_size: the most bytes that it may have then.

        Raises:
            PayloadTooBig: it would have more.
            ProtocolError: it cannot be decompressed, or has RSV1 where it must not.
        """
        if frame.opcode in CTRL_OPCODES:
            return frame
        if frame.opcode is Opcode.CONT:
            if not self._in_compressed:
                return frame
            # RFC 7692, 6.1: RSV1 is of a message's first frame.
            if frame.rsv1:
                raise ProtocolError("RSV1 bit set in continuation frame")
        elif not frame.rsv1:
            return frame
        elif self.remote_no_context_takeover or self._inflater is None:
            self._inflater = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        self._in_compressed = not frame.fin
        most = 0 if max_size is None else max_size
        try:
            # For zlib 0 means no limit; what is left of the input then tells of more output.
            data = self._inflater.decompress(bytes(frame.data), most + 1 if most else most)
            if frame.fin and not self._inflater.unconsumed_tail:
                data += self._inflater.decompress(_TAIL, most - len(data) + 1 if most else most)
        except zlib.error as exc:
            raise ProtocolError("decompression failed") from exc
        if most and (len(data) > most or self._inflater.unconsumed_tail):
            raise PayloadTooBig(None, max_size)
        return dataclasses.replace(frame, data=data, rsv1=False)

    def encode(self, frame: Frame) -> Frame:
        """Compress a frame; a control frame comes back as it is."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        begins = frame.opcode is not Opcode.CONT
        if self._deflater is None or (begins and self.local_no_context_takeover):
            self._deflater = zlib.compressobj(wbits=-self.local_max_window_bits, **self.compress_settings)
        data = self._deflater.compress(frame.data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return dataclasses.replace(frame, data=data.removesuffix(_TAIL) if frame.fin else data, rsv1=begins)


def _parameters(
    server_takeover: bool, client_takeover: bool, server_bits: int | None, client_bits: int | Literal[True] | None
) -> list[ExtensionParameter]:
    """Build parameters; the first two are whether there is none."""
    params: list[ExtensionParameter] = []
    if server_takeover:
        params.append(("server_no_context_takeover", None))
    if client_takeover:
        params.append(("client_no_context_takeover", None))
    if server_bits:
        params.append(("server_max_window_bits", str(server_bits)))
    if client_bits:
        params.append(("client_max_window_bits", None if client_bits is True else str(client_bits)))
    return params


def _parsed(params: Sequence[ExtensionParameter], is_server: bool) -> dict[str, Any]:
    """Check the parameters that came (RFC 7692, 7.1), and return them by name.

    Raises:
        NegotiationError: one is not known, comes twice, or has a wrong value.
    """
    found: dict[str, Any] = {}
    for name, value in params:
        if name not in _KNOWN:
            raise InvalidParameterName(name)
        if name in found:
            raise DuplicateParameter(name)
        if name.endswith("_takeover"):
            if value is not None:
                raise InvalidParameterValue(name, value)
            found[name] = True
        elif value is None and is_server and name == "client_max_window_bits":
            found[name] = True  # RFC 7692, 7.1.2.2: an offer without a value lets the server choose
        elif value in _BITS:
            found[name] = int(value)
        else:
            raise InvalidParameterValue(name, value)
    return found


_KNOWN = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)
_BITS = {str(bits) for bits in range(8, 16)}


def _check_bits(name: str, bits: int | None, least: int) -> None:
    if bits is not None and bits is not True and not least <= bits <= 15:
        raise ValueError(f"{name} must be between {least} and 15")


class _Factory:
    """The settings that both sides have."""

    name = _NAME
    _own = ""  # whose window bits it is that compress_settings must not have

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = None,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        # zlib makes no stream with a window of 8 bits, but reads one.
        _check_bits("server_max_window_bits", server_max_window_bits, 9 if self._own.startswith("server") else 8)
        _check_bits("client_max_window_bits", client_max_window_bits, 9 if self._own.startswith("client") else 8)
        if compress_settings is not None and "wbits" in compress_settings:
            raise ValueError(f"compress_settings must not include wbits, set {self._own} instead")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings

    def deflate(self) -> deflate.Deflate | None:
        """Return the settings that are not negotiated as `wsfast.Deflate`, or None if it does not know one of them."""
        names = {"level": "level", "memLevel": "mem_level"}
        try:
            return deflate.Deflate(**{names[name]: value for name, value in (self.compress_settings or {}).items()})
        except (KeyError, TypeError, ValueError):
            return None


class ClientPerMessageDeflateFactory(_Factory, ClientExtensionFactory):
    """How a client offers permessage-deflate (RFC 7692, 7.1)."""

    _own = "client_max_window_bits"

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = True,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            compress_settings,
        )

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer it with."""
        return _parameters(
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.server_max_window_bits,
            self.client_max_window_bits,
        )

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> PerMessageDeflate:
        """Judge the parameters that the server answered with.

        Raises:
            NegotiationError: they are not acceptable.
        """
        if any(other.name == self.name for other in accepted_extensions):
            raise NegotiationError(f"received duplicate {self.name}")
        found = _parsed(params, is_server=False)
        if self.server_no_context_takeover and "server_no_context_takeover" not in found:
            raise NegotiationError("expected server_no_context_takeover")
        server_bits: int | None = found.get("server_max_window_bits")
        if self.server_max_window_bits is not None:
            if server_bits is None:
                raise NegotiationError("expected server_max_window_bits")
            if server_bits > self.server_max_window_bits:
                raise NegotiationError("unsupported server_max_window_bits")
        client_bits: int | None = found.get("client_max_window_bits")
        own = self.client_max_window_bits
        if own is None:
            if client_bits is not None:
                raise NegotiationError("unexpected client_max_window_bits")
        elif own is not True:
            if client_bits is None:
                client_bits = own
            elif client_bits > own:
                raise NegotiationError("unsupported client_max_window_bits")
        if client_bits == 8:
            raise NegotiationError("unsupported client_max_window_bits = 8, use 9")
        return PerMessageDeflate(
            "server_no_context_takeover" in found,
            self.client_no_context_takeover or "client_no_context_takeover" in found,
            server_bits or 15,
            client_bits or 15,
            self.compress_settings,
        )


class ServerPerMessageDeflateFactory(_Factory, ServerExtensionFactory):
    """How a server accepts permessage-deflate (RFC 7692, 7.1)."""

    _own = "server_max_window_bits"

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: dict[str, Any] | None = None,
        require_client_max_window_bits: bool = False,
    ) -> None:
        super().__init__(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            compress_settings,
        )
        if require_client_max_window_bits and client_max_window_bits is None:
            raise ValueError("require_client_max_window_bits is enabled, but client_max_window_bits isn't configured")
        self.require_client_max_window_bits = require_client_max_window_bits

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Judge a client's offer, and return the parameters to answer with.

        Raises:
            NegotiationError: it is not acceptable.
        """
        if any(other.name == self.name for other in accepted_extensions):
            raise NegotiationError(f"skipped duplicate {self.name}")
        found = _parsed(params, is_server=True)
        server_anew = self.server_no_context_takeover or "server_no_context_takeover" in found
        client_anew = self.client_no_context_takeover or "client_no_context_takeover" in found
        limits = [bits for bits in (self.server_max_window_bits, found.get("server_max_window_bits")) if bits]
        server_bits = min(limits, default=None)
        if server_bits == 8:
            raise NegotiationError("unsupported server_max_window_bits = 8, use 9")
        client_bits = found.get("client_max_window_bits")
        own = self.client_max_window_bits
        if client_bits is None:
            if own is not None and self.require_client_max_window_bits:
                raise NegotiationError("required client_max_window_bits")
        elif client_bits is True:
            client_bits = own
        elif own is not None:
            client_bits = min(own, client_bits)
        return (
            _parameters(server_anew, client_anew, server_bits, client_bits),
            PerMessageDeflate(client_anew, server_anew, client_bits or 15, server_bits or 15, self.compress_settings),
        )


def enable_client_permessage_deflate(
    extensions: Sequence[ClientExtensionFactory] | None,
) -> Sequence[ClientExtensionFactory]:
    """Add permessage-deflate with the usual settings, unless it is there."""
    present = list(extensions or ())
    if not any(factory.name == _NAME for factory in present):
        present.append(ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5}))
    return present


def enable_server_permessage_deflate(
    extensions: Sequence[ServerExtensionFactory] | None,
) -> Sequence[ServerExtensionFactory]:
    """Add permessage-deflate with the usual settings, unless it is there."""
    present = list(extensions or ())
    if not any(factory.name == _NAME for factory in present):
        present.append(
            ServerPerMessageDeflateFactory(
                server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
            )
        )
    return present


def only_deflate(extensions: Sequence[object] | None) -> deflate.Deflate | None:
    """Return the settings of permessage-deflate if it is the only extension, and wsfast's own can do it; else None."""
    factories: list[Any] = list(extensions or ())
    if len(factories) == 1 and type(factories[0]) in (ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory):
        made: deflate.Deflate | None = factories[0].deflate()
        return made
    return None


def native(settings: deflate.Deflate, agreed: Sequence[Any]) -> deflate.PerMessageDeflate | None:
    """Return what does the work of the `PerMessageDeflate` that was agreed on, if one was, whole messages at a time.

    Args:
        settings: what `only_deflate` returned.
        agreed: the extensions that were agreed on: permessage-deflate, or none.
    """
    for one in agreed:
        return agree(
            settings,
            takeover=not one.local_no_context_takeover,
            bits=one.local_max_window_bits,
            peer_takeover=not one.remote_no_context_takeover,
            peer_bits=one.remote_max_window_bits,
        )
    return None


lend(globals())
