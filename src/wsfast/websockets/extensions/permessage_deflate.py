"""permessage-deflate under the names of `websockets`: settings for `wsfast.Deflate`, which does the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from wsfast import deflate

from ..typing import ExtensionName
from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = [
    "ClientPerMessageDeflateFactory",
    "PerMessageDeflate",
    "ServerPerMessageDeflateFactory",
    "enable_client_permessage_deflate",
    "enable_server_permessage_deflate",
]

_NAME = ExtensionName("permessage-deflate")


@dataclasses.dataclass
class PerMessageDeflate(Extension):
    """What was agreed on with the peer."""

    remote_no_context_takeover: bool
    local_no_context_takeover: bool
    remote_max_window_bits: int
    local_max_window_bits: int

    name = _NAME

    @classmethod
    def of(cls, compression: deflate.PerMessageDeflate) -> PerMessageDeflate:
        """Tell what a connection of wsfast agreed on."""
        agreed = compression.parameters
        return cls(not agreed.peer_takeover, not agreed.takeover, agreed.peer_bits, agreed.bits)


def _settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Turn keyword arguments of `zlib.compressobj` into those of `Deflate`."""
    names = {"level": "level", "memLevel": "mem_level"}
    unknown = set(settings or ()) - set(names)
    if unknown:
        raise ValueError(f"compress_settings may have level and memLevel, got {', '.join(sorted(unknown))} too")
    return {names[name]: value for name, value in (settings or {}).items()}


def _check_bits(name: str, bits: int | None) -> None:
    if bits is not None and bits is not True and not 8 <= bits <= 15:
        raise ValueError(f"{name} must be between 8 and 15")


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
        _check_bits("server_max_window_bits", server_max_window_bits)
        _check_bits("client_max_window_bits", client_max_window_bits)
        if compress_settings is not None and "wbits" in compress_settings:
            raise ValueError(f"compress_settings must not include wbits, set {self._own} instead")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings

    def deflate(self) -> deflate.Deflate:
        """Return the settings as `wsfast.Deflate`."""
        # True lets the server ask, as None does for `Deflate`.
        client_bits = None if self.client_max_window_bits is True else self.client_max_window_bits
        return deflate.Deflate(
            server_max_window_bits=self.server_max_window_bits,
            client_max_window_bits=client_bits,
            server_no_context_takeover=self.server_no_context_takeover,
            client_no_context_takeover=self.client_no_context_takeover,
            **_settings(self.compress_settings),
        )


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
    """Return the settings of permessage-deflate among extensions, or None.

    Raises:
        NotImplementedError: there is another one.
    """
    found: deflate.Deflate | None = None
    for factory in extensions or ():
        if not isinstance(factory, ClientPerMessageDeflateFactory | ServerPerMessageDeflateFactory):
            raise NotImplementedError(
                f"wsfast has no other extension than permessage-deflate, got {type(factory).__name__} in extensions"
            )
        found = factory.deflate() if found is None else found
    return found
