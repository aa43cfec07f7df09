"""The base classes of extensions: what each frame passes through on its way out and in (RFC 6455, 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..imports import lend
from ..typing import ExtensionName, ExtensionParameter

if TYPE_CHECKING:
    from ..frames import Frame

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]


class Extension:
    """An extension that was agreed on.

    Attributes:
        name: as in Sec-WebSocket-Extensions.
    """

    name: ExtensionName

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Turn a frame that came into what it means.

        Args:
            frame: the frame, control frames among them.
            max_size: the most bytes that it may have then.

        Raises:
            PayloadTooBig: it would have more.
            ProtocolError: the frame breaks the extension's rules.
        """
        raise NotImplementedError

    def encode(self, frame: Frame) -> Frame:
        """Turn a frame into what is sent."""
        raise NotImplementedError


class ClientExtensionFactory:
    """How a client offers an extension.

    Attributes:
        name: as in Sec-WebSocket-Extensions.
    """

    name: ExtensionName

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to offer it with."""
        raise NotImplementedError

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        """Judge the parameters that the server answered with, and return the extension.

        Args:
            params: the parameters.
            accepted_extensions: those that were agreed on before.

        Raises:
            NegotiationError: they are not acceptable.
        """
        raise NotImplementedError


class ServerExtensionFactory:
    """How a server accepts an extension.

    Attributes:
        name: as in Sec-WebSocket-Extensions.
    """

    name: ExtensionName

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        """Judge a client's offer; return the parameters to answer with, and the extension.

        Args:
            params: the parameters of the offer.
            accepted_extensions: those that were agreed on before.

        Raises:
            NegotiationError: the offer is not acceptable.
        """
        raise NotImplementedError


lend(globals())
