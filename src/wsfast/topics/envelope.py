"""The format of messages on a bus: a versioned envelope, of which every byte is checked on receipt."""

from __future__ import annotations

import hashlib
import hmac
import json
from struct import Struct
from typing import Any, Final, NamedTuple

__all__ = ["CONTROL", "BadEnvelope", "Envelope", "Sealer"]

CONTROL: Final = "!"
"""The topic on which processes exchange their numbers and presence; no user's topic can have this name."""

_HEAD: Final = Struct(">BBQQ")  # version, flags, origin, number
_SIZE: Final = _HEAD.size
_VERSION: Final = 1
_TEXT: Final = 0x01
_CONTROL: Final = 0x02
_FIRST: Final = 0x04
_KEYED: Final = 0x08
_SIGNED: Final = 0x10
_UNUSUAL: Final = ~(_TEXT | _FIRST)
_UNKNOWN: Final = ~(_TEXT | _CONTROL | _FIRST | _KEYED | _SIGNED)
_MAC_SIZE: Final = 16
_MAX_CONTROL: Final = 1_048_576
"""The most bytes of a report that is taken from other processes; this process sends at most a quarter of it."""

_pack: Final = _HEAD.pack
_unpack: Final = _HEAD.unpack_from
_new: Final = tuple.__new__


class BadEnvelope(ValueError):
    """Bytes from the bus that no process of this application can have sent."""


class Envelope(NamedTuple):
    """A message between processes."""

    origin: int
    """The process that sent it."""
    number: int
    """Its number among that process' messages of the topic."""
    first: bool
    """Whether the numbers begin here, or go on after a pause."""
    text: bool
    """Whether it is a text message."""
    key: str | None
    """The key by which it is conflated."""
    payload: bytes
    """The message's bytes; text is in UTF-8."""


class Sealer:
    """Makes envelopes, and opens them.

    Args:
        max_size: the most bytes of a message that is taken from the bus.
        key: a secret of 1 to 64 bytes with which each envelope is signed (keyed BLAKE2b, 16 bytes); None for none.

    Raises:
        ValueError, TypeError: the key is not 1 to 64 bytes.
    """

    def __init__(self, max_size: int = 16777216, key: bytes | None = None) -> None:
        if key is not None and not isinstance(key, bytes):
            raise TypeError(f"key must be bytes or None, got {type(key).__name__}")
        if key is not None and not 1 <= len(key) <= 64:
            raise ValueError(f"key must have 1 to 64 bytes, got {len(key)}")
        self._key = key
        self._max_size = max_size
        self._most = max_size + 512

    def seal(
        self, topic: str, origin: int, number: int, payload: bytes, *, text: bool, first: bool, key: str | None
    ) -> bytes:
        """Make the envelope of a message."""
        flags = text | (_FIRST if first else 0)
        if key is None and self._key is None:
            return _pack(_VERSION, flags, origin, number) + payload
        middle = b""
        if key is not None:
            flags |= _KEYED
            encoded = key.encode()
            middle = bytes((len(encoded),)) + encoded
        return self._signed(topic, flags, origin, number, middle + payload)

    def seal_control(self, origin: int, content: Any) -> bytes:
        """Make the envelope of a report to other processes: anything that JSON can express."""
        payload = json.dumps(content, separators=(",", ":")).encode()
        return self._signed(CONTROL, _CONTROL | _TEXT, origin, 0, payload)

    def _signed(self, topic: str, flags: int, origin: int, number: int, body: bytes) -> bytes:
        if self._key is None:
            return _HEAD.pack(_VERSION, flags, origin, number) + body
        data = _HEAD.pack(_VERSION, flags | _SIGNED, origin, number) + body
        return data + self._mac(topic, data)

    def _mac(self, topic: str, data: bytes) -> bytes:
        assert self._key is not None
        digest = hashlib.blake2b(digest_size=_MAC_SIZE, key=self._key, person=b"wsfast.topics")
        name = topic.encode()
        digest.update(len(name).to_bytes(2, "big") + name)
        digest.update(data)
        return digest.digest()

    def open(self, topic: str, data: bytes) -> Envelope:
        """Open the envelope of a message.

        Raises:
            BadEnvelope: the bytes are not an envelope, the signature is missing or wrong, or the message is too large.
        """
        if self._key is None and _SIZE < len(data) <= self._most:
            version, flags, origin, number = _unpack(data)
            if version == _VERSION and not flags & _UNUSUAL and number:
                body = data[_SIZE:]
                if not flags & _TEXT or body.isascii():
                    # As `Envelope(...)`, in half of the time.
                    return _new(Envelope, (origin, number, flags & _FIRST != 0, flags & _TEXT != 0, None, body))
        return self._open_unusual(topic, data)

    def _open_unusual(self, topic: str, data: bytes) -> Envelope:
        """Open an envelope of either kind."""
        flags, origin, number, body = self._open(topic, data, self._most)
        if flags & _CONTROL:
            raise BadEnvelope("a process' word to the others in a topic")
        key = None
        if flags & _KEYED:
            if not body or len(body) < 1 + body[0]:
                raise BadEnvelope("its key is cut off")
            end = 1 + body[0]
            try:
                key = body[1:end].decode()
            except UnicodeDecodeError:
                raise BadEnvelope("its key is not UTF-8") from None
            body = body[end:]
        if flags & _TEXT and not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError:
                raise BadEnvelope("its text is not UTF-8") from None
        if number < 1:
            raise BadEnvelope("its number is 0")
        return Envelope(origin, number, flags & _FIRST != 0, flags & _TEXT != 0, key, body)

    def open_control(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Open the envelope of a report; return the process that sent it, and the report.

        Raises:
            BadEnvelope: as `open`.
        """
        flags, origin, _, body = self._open(CONTROL, data, _MAX_CONTROL)
        if not flags & _CONTROL:
            raise BadEnvelope("a message where processes talk")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise BadEnvelope("its content is not JSON") from None
        if not isinstance(content, dict):
            raise BadEnvelope("its content is not an object")
        return origin, content

    def _open(self, topic: str, data: bytes, most: int) -> tuple[int, int, int, bytes]:
        if not _SIZE <= len(data) <= most:
            if len(data) < _SIZE:
                raise BadEnvelope(f"{len(data)} bytes are no envelope")
            limit = self._max_size if most == self._most else most
            raise BadEnvelope(f"{len(data)} bytes are more than the limit of {limit}")
        version, flags, origin, number = _unpack(data)
        if version != _VERSION:
            raise BadEnvelope(f"version {version}, not {_VERSION}")
        if flags & _UNKNOWN:
            raise BadEnvelope(f"unknown flags {flags:#04x}")
        if self._key is None:
            if flags & _SIGNED:
                raise BadEnvelope("it is signed, and this process has no key")
            return flags, origin, number, data[_SIZE:]
        if not flags & _SIGNED or len(data) < _SIZE + _MAC_SIZE:
            raise BadEnvelope("it is not signed")
        if not hmac.compare_digest(self._mac(topic, data[:-_MAC_SIZE]), data[-_MAC_SIZE:]):
            raise BadEnvelope("its signature is wrong")
        return flags, origin, number, data[_SIZE:-_MAC_SIZE]
