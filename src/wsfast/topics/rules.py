"""Topic names, and the rules of topics, which are set by prefix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["History", "Rule", "Rules", "check_name", "is_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.:@/-]{1,200}\Z")
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:@/-]{0,200}\*?\Z")
_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class History:
    """How many messages of a topic are kept, and for how long.

    Args:
        size: how many of the latest messages are kept. Default: 100.
        ttl: seconds for which they are kept after the latest. Default: 300.

    Raises:
        ValueError, TypeError: a value is out of range; the text names it.
    """

    size: int = 100
    ttl: float = 300.0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool):
            raise TypeError(f"size must be int, got {type(self.size).__name__}")
        if not 1 <= self.size <= 100_000:
            raise ValueError(f"size must be from 1 to 100000, got {self.size}")
        if not isinstance(self.ttl, (int, float)) or isinstance(self.ttl, bool):
            raise TypeError(f"ttl must be a number of seconds, got {type(self.ttl).__name__}")
        if not 1 <= self.ttl <= 31_536_000:
            raise ValueError(f"ttl must be from 1 to 31536000 seconds, got {self.ttl}")


@dataclass(frozen=True, slots=True)
class Rule:
    """The rules of one topic."""

    history: History | None = None
    presence: bool = False
    conflate: bool = False


def is_name(name: object) -> bool:
    """Tell whether an object is a valid topic name."""
    return isinstance(name, str) and _NAME.match(name) is not None


def check_name(name: object) -> str:
    """Return a topic's name, checked; one of a class that derives from `str`, such as `StrEnum`, as `str`.

    Raises:
        ValueError, TypeError: it is not a valid name.
    """
    if not isinstance(name, str):
        raise TypeError(f"a topic's name must be str, got {type(name).__name__}")
    if not _NAME.match(name):
        raise ValueError(f"a topic's name must have 1 to 200 of A-Z a-z 0-9 _ . : @ / -, got {name[:250]!a}")
    return name if type(name) is str else str.__str__(name)


class _Known(dict[str, Rule]):
    """The rules of names that were asked for lately; a missing name's rules are looked up, and kept."""

    def __init__(self, find: Callable[[str], Rule]) -> None:
        self._find = find

    def __missing__(self, name: str) -> Rule:
        rule = self._find(name)
        if len(self) >= _CACHED:
            self.clear()
        self[name] = rule
        return rule


class Rules:
    """The rules of topics: an exact name goes before prefixes, and a longer prefix before a shorter one.

    Attributes:
        known: the rules of each topic, by its name: ``rules.known[name]`` is `of` without a call of Python for a name
            that was asked for lately.
    """

    def __init__(self) -> None:
        self._exact: dict[str, Rule] = {}
        self._prefixes: list[tuple[str, Rule]] = []  # the longest first
        self.known: dict[str, Rule] = _Known(self._find)
        self._default = Rule()

    @property
    def presence(self) -> bool:
        """Whether any topic has presence."""
        return any(rule.presence for rule in (*self._exact.values(), *(rule for _, rule in self._prefixes)))

    def add(self, pattern: str, rule: Rule) -> None:
        """Add a rule for a name, or for a prefix with ``*`` behind it.

        Raises:
            ValueError, TypeError: the pattern is not valid, or has a rule already.
        """
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern must be str, got {type(pattern).__name__}")
        if not pattern or not _PATTERN.match(pattern):
            raise ValueError(f"a pattern must be a topic's name, or a prefix with * behind it, got {pattern[:250]!a}")
        if pattern.endswith("*"):
            prefix = pattern[:-1]
            if any(prefix == other for other, _ in self._prefixes):
                raise ValueError(f"{pattern!r} has a rule already")
            self._prefixes.append((prefix, rule))
            self._prefixes.sort(key=lambda one: len(one[0]), reverse=True)
        elif pattern in self._exact:
            raise ValueError(f"{pattern!r} has a rule already")
        else:
            self._exact[pattern] = rule
        self.known.clear()

    def of(self, name: str) -> Rule:
        """Return the rules of a topic.

        Raises:
            ValueError, TypeError: the name is not valid.
        """
        return self.known[name]

    def _find(self, name: str) -> Rule:
        check_name(name)
        return self._exact.get(name) or next(
            (rule for prefix, rule in self._prefixes if name.startswith(prefix)), self._default
        )
