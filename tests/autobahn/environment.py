"""The Python 2.7 environment of the Autobahn|Testsuite: finding an interpreter, making the venv."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PINS = Path(__file__).with_name("requirements-py27.txt")
CASES = 517
PYTHON_VARIABLE = "WSFAST_AUTOBAHN_PYTHON"
VENV_VARIABLE = "WSFAST_AUTOBAHN_VENV"

# The last virtualenv that makes environments for Python 2.7.
_VIRTUALENV = "virtualenv==20.21.1"
_PROBE = "import sys, zlib, ssl; sys.exit(sys.version_info[:2] != (2, 7))"
_CHECK = f"""
from autobahntestsuite import wstest
import wsaccel.utf8validator, wsaccel.xormask
from autobahntestsuite.case import Cases
assert len(Cases) == {CASES}, len(Cases)
"""


class NoPython27Error(Exception):
    """There is no CPython 2.7 on this machine, so the suite cannot run."""


class SetupError(Exception):
    """The environment could not be made; the text says which step failed and how."""


def find_python27() -> str:
    """Return the path of a CPython 2.7 with zlib and ssl.

    Looks at $WSFAST_AUTOBAHN_PYTHON, then pyenv's versions, then the PATH.

    Raises:
        NoPython27Error: none works, or the one named by the variable does not.
    """
    if named := os.environ.get(PYTHON_VARIABLE):
        if not _is_python27(named):
            raise NoPython27Error(f"{PYTHON_VARIABLE} is {named!r}, which is not a working CPython 2.7")
        return named
    # pyenv's real interpreters before the PATH, where its shims may refuse to run.
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for candidate in [*sorted(glob.glob(f"{glob.escape(pyenv)}/versions/2.7*/bin/python2.7")), "python2.7", "python2"]:
        path = shutil.which(candidate)
        if path and _is_python27(path):
            return path
    raise NoPython27Error(
        f"no CPython 2.7 found, which the Autobahn|Testsuite needs (looked at ${PYTHON_VARIABLE}, pyenv and the PATH)"
    )


def venv_path() -> Path:
    """Return where the environment is or will be: $WSFAST_AUTOBAHN_VENV, else in the user's cache."""
    if named := os.environ.get(VENV_VARIABLE):
        return Path(named).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "wsfast" / "autobahn-py27"


def prepare(say: Callable[[str], None]) -> Path:
    """Make the environment, unless a good one is there, and return its Python.

    Args:
        say: called with a line about each slow step.

    Raises:
        NoPython27Error: no interpreter to make it with.
        SetupError: a step failed, such as a download or a compilation.
    """
    venv = venv_path()
    python = venv / "bin" / "python"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with _lock(venv.with_name(venv.name + ".lock")):
        if _is_ready(venv):
            return python
        interpreter = find_python27()
        if venv.exists():
            # Never remove a directory of somebody else's because a variable was set wrongly.
            if not (venv / ".wsfast-autobahn").exists():
                raise SetupError(f"{venv} was not made by this command: move it away or set {VENV_VARIABLE}")
            shutil.rmtree(venv)
        venv.mkdir()
        (venv / ".wsfast-autobahn").touch()
        say(f"making the test suite's environment in {venv} with {interpreter} (once; about a minute)")
        with tempfile.TemporaryDirectory(prefix="wsfast-autobahn-") as boot:
            _step([sys.executable, "-m", "venv", boot], "python -m venv")
            _step([f"{boot}/bin/python", "-m", "pip", "install", "-q", _VIRTUALENV], f"pip install {_VIRTUALENV}")
            _step([f"{boot}/bin/virtualenv", "-q", "--no-periodic-update", "-p", interpreter, str(venv)], "virtualenv")
        _step([str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(PINS)], f"pip install -r {PINS.name}")
        _step([str(python), "-c", _CHECK], "loading the test suite")
        # Last, so that an interrupted set-up is made again.
        shutil.copyfile(PINS, venv / ".pins")
    return python


def _is_python27(path: str) -> bool:
    try:
        return subprocess.run([path, "-c", _PROBE], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _is_ready(venv: Path) -> bool:
    try:
        if (venv / ".pins").read_bytes() != PINS.read_bytes():
            return False
    except OSError:
        return False
    return subprocess.run([venv / "bin" / "python", "-c", _CHECK], capture_output=True).returncode == 0


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock, so that of two runs at once the second finds the environment made."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _step(command: list[str], name: str) -> None:
    # PYTHONPATH is for the Python that runs us: Python 2.7 would stumble over what it finds there.
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        words = done.stdout.decode(errors="replace").strip().splitlines()[-15:]
        raise SetupError("\n".join([f"{name} failed with status {done.returncode}:", *words]))
