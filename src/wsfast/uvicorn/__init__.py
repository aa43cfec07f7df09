"""wsfast behind uvicorn: ``uvicorn --ws wsfast.uvicorn:Protocol myapp:app``.

`Protocol` serves WebSockets in place of uvicorn's own implementations; `configure` makes such a class with options that
uvicorn does not have. `HTTP`, for ``--http wsfast.uvicorn:HTTP``, makes handshakes cheaper still, and keeps frames that
come right behind the request; it and `serve` need httptools too. The extra ``uvicorn`` has all of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .protocol import Protocol, configure

_OPTIONAL = {"HTTP": ".http", "serve": ".serving"}

__all__ = ["HTTP", "Protocol", "configure", "serve"]

if TYPE_CHECKING:
    from .http import HTTP
    from .serving import serve

if not TYPE_CHECKING:  # pragma: no branch # else every misspelt name would be Any to a type checker

    def __getattr__(name: str) -> object:
        # What these need, uvicorn does not.
        if name in _OPTIONAL:
            return getattr(importlib.import_module(_OPTIONAL[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
