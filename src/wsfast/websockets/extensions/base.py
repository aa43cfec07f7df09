"""The base classes of extensions. wsfast has one extension, permessage-deflate; see `permessage_deflate`."""

from __future__ import annotations

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
