"""The body of a response that refuses a handshake; it may tell why (RFC 9112, 6 and 7)."""

from __future__ import annotations

from typing import Final

import h11

from ..http import Response

__all__ = ["MAX_BODY", "Body"]

MAX_BODY: Final = 65536
"""How much of a body is read, in bytes, the sizes of its chunks included."""


class Body:
    """Gathers the body that follows a head: what h11 makes of Content-Length, chunks or the end of the stream.

    It is told of the headers that frame the body only: our own grammar has judged the head.

    Attributes:
        data: what has come of it, without the sizes of chunks.
    """

    __slots__ = ("_http", "_unread", "data")

    def __init__(self, response: Response) -> None:
        self.data = bytearray()
        self._unread = MAX_BODY
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BODY)
        self._http.send(h11.Request(method="GET", target="/", headers=[("Host", "")]))
        self._http.send(h11.EndOfMessage())
        lines = [f"HTTP/1.1 {response.status_code} "]
        for name in ("Content-Length", "Transfer-Encoding"):
            lines += [f"{name}: {value}" for value in response.headers.getall(name, ())]
        self._http.receive_data("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))

    def feed(self, data: bytes) -> bool:
        """Take more bytes, and return whether the body has ended, or no more of it is read."""
        data = data[: self._unread]
        self._unread -= len(data)
        try:
            if data:  # nothing would be the end of the stream
                self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Data):
                    self.data += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return True
        except h11.RemoteProtocolError:
            # The status alone fails the handshake; what came before a bad chunk may still tell why.
            return True
        return not self._unread
