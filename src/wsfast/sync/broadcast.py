"""`broadcast` without an event loop: one message to many connections, by the thread that calls it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wsfast.events import BytesLike
from wsfast.exceptions import SKIPPED, ConnectionClosed, Skipped
from wsfast.handshake.uri import format_address
from wsfast.octets import is_bytes_like

from ..telling import tell
from .websocket import WebSocket

__all__ = ["broadcast"]


def broadcast(
    connections: Iterable[WebSocket],
    message: str | BytesLike,
    raise_exceptions: bool = False,
    *,
    text: bool | None = None,
    compress: bool | None = None,
) -> None:
    """Send a message to several connections, without waiting for any of them.

    Connections that are not open are skipped. With a warning in the log, so are connections that are sending a message
    in fragments, and those with more than `write_limit` unsent: a peer that does not read makes nobody wait, and takes
    no more memory than `write_limit` and one message.

    Args:
        connections: those to send to.
        message: `str` for a text message, bytes-like for a binary one.
        raise_exceptions: raise what would be logged, in an `ExceptionGroup`, after all were tried. Default: False.
        text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
        compress: whether to compress the message, where compression was agreed on; None, the default, decides by its
            size.

    Raises:
        TypeError: `message` is neither `str` nor bytes-like.
        UnicodeError: the message is not text.
        ExceptionGroup: of `ConcurrencyError`, `BufferFull` and `ExtensionError`, if `raise_exceptions` is set.
    """
    failures = []
    for ws, exc in broadcast_each(connections, message, text, compress):
        if raise_exceptions:
            failures.append(exc)
        else:
            tell(ws.logger.warning, "broadcast skipped %s: %s", format_address(ws.remote_address), exc)
    if failures:
        raise ExceptionGroup("broadcast skipped connections", failures)


def broadcast_each(
    connections: Iterable[WebSocket], message: str | BytesLike, text: bool | None, compress: bool | None
) -> Iterator[tuple[WebSocket, Skipped]]:
    """Do the work of `broadcast`; yield each connection that was skipped though it is open, and why."""
    if not isinstance(message, (str, bytes)):
        if not is_bytes_like(message):
            raise TypeError(f"a message must be str or bytes-like, got {type(message).__name__}")
        message = bytes(message)  # once, and as it is now
    if text is True and isinstance(message, bytes):
        message.decode()  # raises before anything is sent
    for ws in connections:
        try:
            ws._offer(message, text, compress)
        except ConnectionClosed:
            continue
        except SKIPPED as exc:
            yield ws, exc
