"""The base classes of extensions. wsfast has one extension, permessage-deflate; see `permessage_deflate`."""

from __future__ import annotations

from typing import Any

from ..typing import ExtensionName

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]


class Extension:
    """An extension that was agreed on."""

    name: ExtensionName


class ClientExtensionFactory:
    """How a client offers an extension."""

    name: ExtensionName


class ServerExtensionFactory:
    """How a server accepts an extension."""

    name: ExtensionName


def only_deflate(extensions: Any) -> Any:
    """Return the settings of permessage-deflate among extensions, or None.

    Raises:
        NotImplementedError: there is another one.
    """
    from .permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory

    found = None
    for factory in extensions or ():
        if not isinstance(factory, ClientPerMessageDeflateFactory | ServerPerMessageDeflateFactory):
            raise NotImplementedError(
                f"wsfast has no other extension than permessage-deflate, got {type(factory).__name__} in extensions"
            )
        found = factory.deflate() if found is None else found
    return found
