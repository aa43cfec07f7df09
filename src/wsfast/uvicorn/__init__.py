"""wsfast behind uvicorn: ``uvicorn --ws wsfast.uvicorn:Protocol myapp:app``.

`Protocol` serves WebSockets in place of uvicorn's own implementations; `configure` makes such a class with options that
uvicorn does not have. `HTTP`, for ``--http wsfast.uvicorn:HTTP``, makes handshakes cheaper still, and keeps frames that
come right behind the request. Needs the extra ``uvicorn``.
"""

from __future__ import annotations

from .http import HTTP
from .protocol import Protocol, configure
from .serving import serve

__all__ = ["HTTP", "Protocol", "configure", "serve"]
