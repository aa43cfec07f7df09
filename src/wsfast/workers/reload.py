"""Watches the Python files of a program, for development."""

from __future__ import annotations

import os

__all__ = ["Watch"]

_SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist", "venv"})


class Watch:
    """The Python files below a directory, hidden ones and those of environments left out.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files = self._look()

    def changed(self) -> list[str]:
        """Return the files that changed, came or went since the last call, by their paths within the directory."""
        before, self._files = self._files, self._look()
        paths = before.keys() | self._files.keys()
        changed = [path for path in paths if before.get(path) != self._files.get(path)]
        return sorted(os.path.relpath(path, self._directory) for path in changed)

    def _look(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for folder, folders, files in os.walk(self._directory):
            folders[:] = [
                name
                for name in folders
                if name not in _SKIPPED
                and not name.startswith(".")
                and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
            ]
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    try:
                        info = os.stat(path)
                    except OSError:
                        continue
                    found[path] = (info.st_mtime_ns, info.st_size)
        return found
