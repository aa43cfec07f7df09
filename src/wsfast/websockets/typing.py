"""The types that `websockets` names."""

from __future__ import annotations

import http
import logging
import os
from collections.abc import Sequence
from typing import Any, NewType

from wsfast.events import BytesLike

__all__ = [
    "Data",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "StatusLike",
    "Subprotocol",
]

Data = str | bytes
"""A message: `str` for text, `bytes` for binary."""
DataLike = str | BytesLike
"""What is taken as a message."""
LoggerLike = logging.Logger | logging.LoggerAdapter[Any]
StatusLike = http.HTTPStatus | int
PathLike = str | os.PathLike[str]
Origin = NewType("Origin", str)
"""A value of Origin."""
Subprotocol = NewType("Subprotocol", str)
"""A name in Sec-WebSocket-Protocol."""
ExtensionName = NewType("ExtensionName", str)
"""A name in Sec-WebSocket-Extensions."""
ExtensionParameter = tuple[str, str | None]
ExtensionHeader = tuple[ExtensionName, Sequence[ExtensionParameter]]
ConnectionOption = NewType("ConnectionOption", str)
UpgradeProtocol = NewType("UpgradeProtocol", str)
