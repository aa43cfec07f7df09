"""`install`: ``import websockets`` gives this package, for programs that cannot be changed."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["install"]

_HERE = __name__.rpartition(".")[0]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``websockets`` and its modules here, each the very same module as under its own name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "websockets" and not name.startswith("websockets."):
            return None
        try:
            if importlib.util.find_spec(_HERE + name.removeprefix("websockets")) is None:
                return None
        except ModuleNotFoundError:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(_HERE + spec.name.removeprefix("websockets"))
        self._kept = module.__spec__, module.__loader__, module.__package__, getattr(module, "__path__", None)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It is executed already; the import system has put its own marks on it.
        module.__spec__, module.__loader__, module.__package__, path = self._kept
        if path is None:
            module.__dict__.pop("__path__", None)
        else:
            module.__path__ = path


def install() -> None:
    """Let ``import websockets`` give this package, in this process and from now on.

    Raises:
        RuntimeError: `websockets` itself was imported before.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if "websockets" in sys.modules:
        raise RuntimeError("install() must be called before websockets is imported")
    sys.meta_path.insert(0, _Finder())
