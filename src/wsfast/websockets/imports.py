"""Names that a module offers without importing them until they are asked for (PEP 562)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_import", "lend"]

_LENDERS = (
    *("exceptions", "protocol", "frames", "http11", "datastructures", "typing", "headers", "uri", "proxy", "streams"),
    *("extensions.base", "extensions.permessage_deflate"),
)


def lazy_import(
    namespace: dict[str, Any],
    aliases: Mapping[str, str] | None = None,
    deprecated_aliases: Mapping[str, str] | None = None,
) -> None:
    """Give a module a ``__getattr__`` and a ``__dir__`` for names of other modules.

    Args:
        namespace: the module's ``globals()``.
        aliases: names, each with the relative name of the module that has it.
        deprecated_aliases: names whose use is warned of, as `websockets` does.
    """
    package = namespace["__package__"]
    shown = namespace["__name__"].removeprefix("wsfast.")
    eager, lazy, deprecated = set(namespace), dict(aliases or {}), dict(deprecated_aliases or {})

    def __getattr__(name: str) -> Any:  # noqa: N807
        source = lazy.get(name)
        if source is None:
            source = deprecated.get(name)
            if source is None:
                raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
            warnings.warn(f"{shown}.{name} is deprecated", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(source, package), name)

    def __dir__() -> list[str]:  # noqa: N807
        return sorted(eager | set(lazy) | set(deprecated))

    hooks: dict[str, Callable[..., Any]] = {"__getattr__": __getattr__, "__dir__": __dir__}
    namespace.update(hooks)


def lend(namespace: dict[str, Any]) -> None:
    """Give a module the public names of others: programs import them from wherever `websockets` uses them.

    Args:
        namespace: the module's ``globals()``.
    """
    root = __name__.rpartition(".")[0]
    before: Callable[[str], Any] | None = namespace.get("__getattr__")

    def __getattr__(name: str) -> Any:  # noqa: N807
        if not name.startswith("_"):
            for lender in _LENDERS:
                module = importlib.import_module(f"{root}.{lender}")
                if name in module.__all__ or (name.isupper() and name in vars(module)):
                    return getattr(module, name)
        if before is not None:
            return before(name)
        raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")

    namespace["__getattr__"] = __getattr__
