"""Who is present in which topic, over all processes; sans-IO.

Each process reports to the others who came and went in it, each time with the next version. A process that has missed a
version asks for everything, and those present in a process that has ended are taken to have left.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

from .rules import is_name

__all__ = ["MAX_INFO", "Presence", "Present"]

_CHUNK: Final = 500
"""Entries of one report, at most."""
_CHUNK_SIZE: Final = 262_144
"""Bytes of JSON that the entries of one report take, at most: some engines carry no more than 1 MiB."""
_MAX_PARTS: Final = 100_000
_MAX_ID: Final = 100
MAX_INFO: Final = 1024
"""The most bytes of an `info`."""


class Present(NamedTuple):
    """Somebody who is present in a topic: one connection that subscribed to it."""

    id: str
    """The connection's `WebSocket.id`."""
    info: str | None
    """The `info` that was given to `WebSocket.subscribe`."""


class Presence:
    """Who is present. It may be used by several threads.

    Args:
        origin: this process.

    Attributes:
        version: that of the latest report to the others.
    """

    def __init__(self, origin: int) -> None:
        self.version: int = 0
        self._origin = origin
        self._lock = threading.Lock()
        self._topics: dict[str, dict[str, tuple[int, str | None]]] = {}
        self._of: dict[int, dict[tuple[str, str], None]] = {}
        self._versions: dict[int, int] = {}
        self._parts: dict[int, _Parts] = {}  # of reports of all that have not come to their end
        self._changes: list[list[Any]] = []

    def present(self, topic: str) -> list[Present]:
        """Return who is present in a topic, in the order in which this process learnt of them."""
        with self._lock:
            return [Present(id_, info) for id_, (_, info) in self._topics.get(topic, {}).items()]

    # --- This process' own ----------------------------------------------------------------------------------

    def come(self, topic: str, id_: str, info: str | None) -> None:
        """Note that somebody came in this process."""
        with self._lock:
            self._put(self._origin, topic, id_, info)
            self._changes.append([topic, id_, info])

    def go(self, topic: str, id_: str) -> Present | None:
        """Note that somebody left in this process; return who it was, or None if nobody."""
        with self._lock:
            gone = self._take(self._origin, topic, id_)
            if gone is not None:
                self._changes.append([topic, id_])
        return gone

    def changes(self) -> list[dict[str, Any]]:
        """Return what changed in this process since the last call, as messages to the others."""
        messages = []
        with self._lock:
            changes, self._changes = self._changes, []
            for chunk in _chunks(changes):
                self.version += 1
                messages.append({"presence": self.version, "changes": chunk})
        return messages

    def all(self) -> list[dict[str, Any]]:
        """Return everybody present in this process, as messages; changes since the last call of `changes` included."""
        with self._lock:
            version = self.version
            mine = [[topic, id_, self._topics[topic][id_][1]] for topic, id_ in self._of.get(self._origin, ())]
        chunks = _chunks(mine) or [[]]
        return [{"presence": version, "all": chunk, "part": i, "parts": len(chunks)} for i, chunk in enumerate(chunks)]

    # --- Others' --------------------------------------------------------------------------------------------

    def is_behind(self, origin: int, version: int) -> bool:
        """Tell whether changes of another process, which is at a version, are missing here."""
        return self._versions.get(origin, 0) != version

    def take_in(self, origin: int, content: dict[str, Any]) -> tuple[bool, list[tuple[str, Present, bool]]]:
        """Take in a report of another process.

        Returns:
            Whether an earlier report is missing, so that the process should be asked for all; and who came (True) or
            left (False) in which topic.

        Raises:
            ValueError: the report is malformed.
        """
        version = content.get("presence")
        if type(version) is not int or version < 0:
            raise ValueError("a presence's version must be a number")
        with self._lock:
            return self._take_in(origin, content, version)

    def _take_in(
        self, origin: int, content: dict[str, Any], version: int
    ) -> tuple[bool, list[tuple[str, Present, bool]]]:
        happened: list[tuple[str, Present, bool]] = []
        if "all" in content:
            return self._take_part(origin, content, version, happened), happened
        self._parts.pop(origin, None)
        known = self._versions.get(origin, 0)
        if version <= known:
            return False, happened
        if version != known + 1:
            return True, happened
        for entry in self._list(content.get("changes")):
            if isinstance(entry, list) and len(entry) == 2:
                topic, id_ = self._checked(entry, 2)
                self._left(origin, topic, id_, happened)
            else:
                topic, id_, info = self._checked(entry, 3)
                self._came(origin, topic, id_, info, happened)
        self._versions[origin] = version
        return False, happened

    def _take_part(
        self, origin: int, content: dict[str, Any], version: int, happened: list[tuple[str, Present, bool]]
    ) -> bool:
        """Take in a part of a report of all; tell whether one is missing. Nothing changes before the last has come."""
        entries = [self._checked(entry, 3) for entry in self._list(content["all"])]
        part, parts = content.get("part"), content.get("parts")
        if type(part) is not int or type(parts) is not int or not 0 <= part < parts <= _MAX_PARTS:
            raise ValueError("a part of a presence must have a number, below that of all parts")
        gathered = self._parts.pop(origin, None)
        if part == 0:
            gathered = _Parts(version)
        elif gathered is None or gathered.version != version or gathered.next != part:
            return True
        gathered.next += 1
        for topic, id_, info in entries:
            gathered.present[topic, id_] = info
        if gathered.next < parts:
            self._parts[origin] = gathered
            return False
        for topic, id_ in [pair for pair in self._of.get(origin, ()) if pair not in gathered.present]:
            self._left(origin, topic, id_, happened)
        for (topic, id_), info in gathered.present.items():
            self._came(origin, topic, id_, info, happened)
        self._versions[origin] = version
        return False

    def forget(self, origin: int) -> list[tuple[str, Present, bool]]:
        """Remove everybody of a process that has ended; return who left which topic."""
        happened: list[tuple[str, Present, bool]] = []
        with self._lock:
            for topic, id_ in list(self._of.get(origin, ())):
                self._left(origin, topic, id_, happened)
            self._versions.pop(origin, None)
            self._parts.pop(origin, None)
        return happened

    @staticmethod
    def _list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("a presence must be a list")
        return value

    @staticmethod
    def _checked(entry: Any, length: int) -> list[Any]:
        if isinstance(entry, list) and len(entry) == length:
            topic, id_, info = entry if length == 3 else (*entry, None)
            if is_name(topic) and _is_text(id_, _MAX_ID) and (info is None or _is_text(info, MAX_INFO)):
                return entry
        raise ValueError("an entry of a presence must be a topic, an id and an info")

    def _came(
        self, origin: int, topic: str, id_: str, info: str | None, happened: list[tuple[str, Present, bool]]
    ) -> None:
        before = self._topics.get(topic, {}).get(id_)
        if before is not None and before[0] != origin:
            return  # an id belongs to one process
        self._put(origin, topic, id_, info)
        if before is None:
            happened.append((topic, Present(id_, info), True))

    def _left(self, origin: int, topic: str, id_: str, happened: list[tuple[str, Present, bool]]) -> None:
        gone = self._take(origin, topic, id_)
        if gone is not None:
            happened.append((topic, gone, False))

    def _put(self, origin: int, topic: str, id_: str, info: str | None) -> None:
        self._topics.setdefault(topic, {})[id_] = (origin, info)
        self._of.setdefault(origin, {})[topic, id_] = None

    def _take(self, origin: int, topic: str, id_: str) -> Present | None:
        of = self._of.get(origin)
        if of is None or (topic, id_) not in of:
            return None
        del of[topic, id_]
        if not of:
            del self._of[origin]
        _, info = self._topics[topic].pop(id_)
        if not self._topics[topic]:
            del self._topics[topic]
        return Present(id_, info)


class _Parts:
    """What has come of a report of all that another process has present."""

    __slots__ = ("next", "present", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.next = 0  # the part that is expected
        self.present: dict[tuple[str, str], str | None] = {}


def _chunks(entries: list[list[Any]]) -> list[list[list[Any]]]:
    """Cut entries into lists for one report each."""
    chunks: list[list[list[Any]]] = []
    room = 0
    for entry in entries:
        # JSON takes up to six bytes for a character.
        size = 6 * sum(len(text) for text in entry if text is not None) + 32
        if not chunks or size > room or len(chunks[-1]) == _CHUNK:
            chunks.append([])
            room = _CHUNK_SIZE
        chunks[-1].append(entry)
        room -= size
    return chunks


def _is_text(value: Any, most: int) -> bool:
    """Tell whether an object is a `str` that takes at most so many bytes in UTF-8."""
    try:
        return isinstance(value, str) and len(value) <= most and len(value.encode()) <= most
    except UnicodeEncodeError:
        return False
