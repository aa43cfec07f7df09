"""`Headers` with the meaning that they have in `websockets`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias

from wsfast import http as native

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]

_is_valid_value = re.compile(r"[\t -~\x80-\xff]*").fullmatch


class MultipleValuesError(LookupError):
    """A header that was asked for as if it came once came several times."""

    def __str__(self) -> str:
        # As `KeyError` does it, so that an empty name shows.
        return repr(self.args[0]) if len(self.args) == 1 else super().__str__()


class Headers(MutableMapping[str, str]):
    """HTTP headers: names without case, repeated ones kept.

    ``headers[name] = value`` adds a value to those that are there; ``del headers[name]`` drops them all;
    ``headers[name]`` raises `MultipleValuesError` where there are several. As a mapping it has each name once, in lower
    case; `raw_items` has the headers as they came.

    Args:
        args, kwargs: as `update` takes them.
    """

    __slots__ = ("_items",)

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._items = native.Headers()
        self.update(*args, **kwargs)

    def __str__(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self._items.items()) + "\r\n"

    def __repr__(self) -> str:
        # websockets shows all of them; one may be a credential.
        return f"{type(self).__name__}({native.shown(self._items.items())!r})"

    def copy(self) -> Headers:
        """Return a copy."""
        copy = type(self)()
        copy._items = native.Headers(self._items)
        return copy

    def serialize(self) -> bytes:
        """Return the headers as they are sent, in Latin-1, with the empty line that ends them."""
        return str(self).encode("latin-1")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name in self._items))

    def __len__(self) -> int:
        return len({name.lower() for name in self._items})

    def __getitem__(self, name: str) -> str:
        values = self._items.get_all(name)
        if not values:
            raise KeyError(name.lower())
        if len(values) > 1:
            raise MultipleValuesError(name)
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        if not _is_valid_value(str(value)):
            raise InvalidHeaderValue(name, "...")  # the value may be a token
        self._items.add(name, value)

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return {name: self.get_all(name) for name in self} == {name: other.get_all(name) for name in other}

    __hash__ = None  # type: ignore[assignment]

    def clear(self) -> None:
        """Remove all headers."""
        self._items.clear()

    def update(self, *args: HeadersLike, **kwargs: str) -> None:
        """Add headers from `Headers`, a mapping or pairs, and from keyword arguments."""
        sources: Any = [arg.raw_items() if isinstance(arg, Headers) else arg for arg in args]
        super().update(*sources, **kwargs)

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header, which may be none."""
        return self._items.get_all(name)

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over the headers as they came, each repeated one by itself."""
        return self._items.raw_items()

    def set_insecure(self, name: str, value: str) -> None:
        """Add a value that is known to be safe."""
        self._items.add(name, value)


class SupportsKeysAndGetItem(Protocol):
    """What `dict` takes as a mapping."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, key: str) -> str: ...


HeadersLike: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str, str]] | SupportsKeysAndGetItem
"""What is taken where headers are expected."""

# At the end: the exceptions name `Response`, which has headers.
from .exceptions import InvalidHeaderValue  # noqa: E402
