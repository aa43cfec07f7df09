"""The tests in Pyodide, which is CPython in WebAssembly: of the pure wheel, and of what needs no socket."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .found import CACHE, ROOT, Interpreter, copy_sources, environment, make_environment, run, usual
from .wheels import build

PACKAGES = ("anyio>=4.4", "h11", "hypothesis>=6.100", "multidict", "pytest>=8.3", "websockets")
"""What the tests need; each has a version whose wheel is for any machine."""
SANS_IO = (
    *("tests/test_assembly.py", "tests/test_codec_buffer.py", "tests/test_codec_decode.py"),
    *("tests/test_codec_encode.py", "tests/test_codec_limits.py", "tests/test_codec_mask.py"),
    *("tests/test_codec_streaming.py", "tests/test_codes.py", "tests/test_events.py", "tests/test_exceptions.py"),
    *("tests/test_handshake.py", "tests/test_headers.py", "tests/test_http11.py", "tests/test_session.py"),
    *("tests/test_topics_index.py", "tests/test_topics_rules.py", "tests/test_uri.py"),
)


def fetch_pyodide() -> Path:
    """Install Pyodide from npm in the cache; return its folder."""
    folder = CACHE / "pyodide"
    package = folder / "node_modules" / "pyodide"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, "pyodide@314")
        (folder / "complete").touch()
    return package


def download_pure(interpreter: Interpreter, target: Path, version: str, packages: Sequence[str]) -> None:
    """Download the wheels of packages, and of what they need, that are for any machine.

    Args:
        interpreter: whose pip does it.
        target: the folder.
        version: of the Python that they are for.
        packages: their names, with what is asked of their versions.
    """
    options = ["--only-binary", ":all:", "--platform", "any", "--implementation", "py", "--abi", "none"]
    with tempfile.TemporaryDirectory(prefix="wsfast-pip-") as temporary:
        python = make_environment(interpreter, Path(temporary))
        run(python, "-m", "pip", "download", "-q", *options, "--python-version", version, "-d", target, *packages)


def test_pyodide(arguments: list[str]) -> bool:
    """Run the tests of the codec and the sans-IO layers there; return whether they passed."""
    pyodide = fetch_pyodide()
    interpreter = usual()
    with tempfile.TemporaryDirectory(prefix="wsfast-pyodide-") as temporary:
        folder = Path(temporary)
        source = copy_sources(folder / "source")
        wheels = folder / "wheels"
        wheels.mkdir()
        build(interpreter, source, wheels, pure=True)
        download_pure(interpreter, wheels, "3.14", PACKAGES)
        command: list[str | Path] = ["node", ROOT / "tests" / "interpreters" / "pyodide.mjs", pyodide, wheels, source]
        command += ["-q", "-p", "no:cacheprovider", *(arguments or SANS_IO)]
        return subprocess.run(command, cwd=source, env=environment(), check=False).returncode == 0
