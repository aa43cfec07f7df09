"""The interpreters of this machine, and environments of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsfast-interpreters"
OLDEST = (3, 11)

ASK = """
import json, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "include": sysconfig.get_path("include"),
    "platinclude": sysconfig.get_path("platinclude"),
}))
"""


@dataclass(frozen=True, order=True)
class Interpreter:
    """A Python that can be run here.

    Attributes:
        version: as in `sys.version_info`, three numbers.
        free_threaded: whether it was built with ``--disable-gil``.
        implementation: ``"cpython"`` or ``"pypy"``.
        path: the executable.
        include: where its ``Python.h`` is.
    """

    version: tuple[int, int, int]
    free_threaded: bool
    implementation: str
    path: Path
    include: Path

    @property
    def name(self) -> str:
        """What it is chosen by: ``3.13``, ``3.13t``, ``pypy3.11``."""
        prefix = "" if self.implementation == "cpython" else self.implementation
        return f"{prefix}{self.version[0]}.{self.version[1]}{'t' if self.free_threaded else ''}"

    def __str__(self) -> str:
        return f"{self.name} ({'.'.join(map(str, self.version))}, {self.path})"


def ask(path: Path) -> Interpreter | None:
    """Run a Python to learn what it is; None if it does not run, or is too old."""
    try:
        done = subprocess.run([path, "-I", "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
        said = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    version = tuple(said["version"])
    if version < OLDEST:
        return None
    return Interpreter(version, said["free_threaded"], said["implementation"], path, Path(said["include"]))


def find(*, fetched: bool = True) -> list[Interpreter]:
    """Return one interpreter of each name: those of pyenv, of the cache of `debian`, and of PATH.

    Args:
        fetched: False for those only that are installed, not the cache's.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    folders = sorted(pyenv.glob("*/bin"))
    if fetched:
        folders += [*sorted(CACHE.glob("*/usr/bin")), *sorted(CACHE.glob("*/bin"))]
    folders += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found: dict[str, Interpreter] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.*")) + sorted(folder.glob("pypy3*")):
            if not re.fullmatch(r"(python3\.\d+t?|pypy3(\.\d+)?)", path.name):
                continue
            if (path.parent.parent / "pyvenv.cfg").exists():
                continue  # an environment, not an installation
            interpreter = ask(path)
            if interpreter is not None:
                found.setdefault(interpreter.name, interpreter)
    return sorted(found.values())


def usual() -> Interpreter:
    """Return the oldest CPython with a GIL that is here: what tools run on."""
    return next(each for each in find() if each.implementation == "cpython" and not each.free_threaded)


def others() -> list[Interpreter]:
    """Return the CPythons that are installed here, but this one's version."""
    this = ask(Path(sys.executable))
    return [
        each
        for each in find(fetched=False)
        if each.implementation == "cpython" and (this is None or each.name != this.name)
    ]


def choose(names: list[str]) -> list[Interpreter]:
    """Return the interpreters of these names, or all that are here.

    Raises:
        SystemExit: one is not here.
    """
    here = {interpreter.name: interpreter for interpreter in find()}
    missing = [name for name in names if name not in here]
    if missing:
        raise SystemExit(f"not here: {', '.join(missing)}; here: {', '.join(here)}. Debian may have it: see `debian`")
    return [here[name] for name in names] if names else list(here.values())


def environment(**more: str) -> dict[str, str]:
    """Return this process' environment without what would reach into another Python."""
    strange = ("PYTHON", "VIRTUAL_ENV", "WSFAST", "CC")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)} | more


def run(*command: str | Path, cwd: Path = ROOT, **more: str) -> None:
    """Run a program, and show its output only if it fails.

    Raises:
        SystemExit: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stdout.write(done.stdout[-8000:])
        raise SystemExit(f"failed: {' '.join(words)}")


def make_environment(interpreter: Interpreter, folder: Path, *packages: str | Path) -> Path:
    """Make a virtual environment with packages, and return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        run(interpreter.path, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "-q", "--upgrade", "pip")
    if packages:
        run(python, "-m", "pip", "install", "-q", *packages)
    return python


def copy_sources(target: Path) -> Path:
    """Copy the tree without what was built in it, so that builds do not meet."""
    skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "node_modules", "__pycache__", "*.so")
    shutil.copytree(ROOT, target, ignore=skipped)
    return target


def make_c(python: Path, source: Path) -> None:
    """Have Cython make the C files of a copy of the sources, in its folder `build`; nothing is compiled.

    Args:
        python: of an environment that has Cython and setuptools.
        source: the copy.
    """
    build = ("build_ext", "-b", source / "build" / "lib")
    run(python, "setup.py", "-q", *build, cwd=source, CC="true", LDSHARED="true")  # `true` stands for the compiler
