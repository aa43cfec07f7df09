"""Measure coverage by the tests: ``python -m tests.cover``, branch by branch for Python, line by line for Cython.

Python: the tests run twice, with the extensions and with ``WSFAST_PURE_PYTHON=1``, since some modules are used in one
of the two only; what is excluded, and why, stands in pyproject.toml under ``tool.coverage`` or beside the line. Use
CPython 3.12 or later: up to 3.11, a trace function is not told of a coroutine that is resumed by an exception, and all
that follows an await that was cancelled or timed out counts as missed. Do not use pytest-xdist, whose workers do not
hand over all that they measured.

``--cython`` builds the extensions with line tracing in a temporary folder, runs the tests on them, and reports the .pyx
files. CPython 3.12's other way of tracing is not supported by Cython's plugin: use 3.11.

What is behind ``--`` goes to pytest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Peers in other languages and Autobahn take long and reach nothing that the other tests do not.
MARKERS = "not node and not browser and not autobahn and not package"
DESELECTED = (
    # It interrupts whatever runs, and that may be coverage while it holds a lock, which is then never released.
    "tests/test_sync.py::test_ctrl_c_at_any_moment",
    # It sets a trace function of its own.
    "tests/test_regressions.py::test_streaming_receive_where_awaitables_are_iterated",
)


def run_tests(environ: dict[str, str], config: Path, arguments: list[str], where: Path) -> int:
    """Run pytest under coverage; return its status."""
    command = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        f"--rcfile={config}",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-m", MARKERS, *(f"--deselect={name}" for name in DESELECTED), *arguments]
    return subprocess.run(command, env=environ, cwd=where, check=False).returncode


def report(environ: dict[str, str], config: Path, where: Path, html: Path | None) -> int:
    """Combine what was measured and print it; return the status, which is not 0 if too little was covered."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "-q", f"--rcfile={config}"], env=environ, cwd=where, check=True)
    if html is not None:
        subprocess.run(
            [*coverage, "html", "-q", f"--rcfile={config}", "-d", str(html)], env=environ, cwd=where, check=False
        )
    command = [*coverage, "report", f"--rcfile={config}", "--show-missing", "--skip-covered"]
    return subprocess.run(command, env=environ, cwd=where, check=False).returncode


def cover_python(folder: Path, arguments: list[str], html: Path | None) -> int:
    """Measure the branches of the Python code."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COVERAGE_FILE": str(folder / "coverage")}
    config = ROOT / "pyproject.toml"
    status = 0
    for pure in ("0", "1"):
        print(f"the tests with WSFAST_PURE_PYTHON={pure}:", flush=True)
        status |= run_tests({**environ, "WSFAST_PURE_PYTHON": pure}, config, arguments, ROOT)
    return report(environ, config, ROOT, html) | status


def cover_cython(folder: Path, arguments: list[str], html: Path | None) -> int:
    """Measure the lines of the Cython code."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "corpus")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    for name in ("examples", "docs", "benchmarks"):  # what some tests look at
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*.py"), ROOT / "pyproject.toml", ROOT / "LICENSE"):
        shutil.copy(path, folder)
    environ = {
        **os.environ,
        "WSFAST_COVERAGE": "1",
        "PYTHONPATH": str(folder / "src"),
        "COVERAGE_FILE": str(folder / "coverage"),
    }
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=environ, check=True)
    # The plugin reads from the C files which lines can run, and looks for them beside the extensions.
    for made in (folder / "build").rglob("*.c"):
        shutil.copy(made, folder / "src" / "wsfast")
    config = folder / "cython.coveragerc"
    config.write_text(
        "[run]\nplugins = Cython.Coverage\nparallel = true\nsource = src/wsfast\n[report]\ninclude = *.pyx\n"
        "exclude_also =\n    ^cdef extern\n    raise AssertionError\n"
    )
    status = run_tests(environ, config, arguments, folder)
    return report(environ, config, folder, html) | status


def main() -> None:
    """Measure, report, and exit with 0 if the tests passed and enough was covered."""
    parser = argparse.ArgumentParser(prog="python -m tests.cover", description="Measure coverage by the tests.")
    parser.add_argument("--cython", action="store_true", help="the lines of the extensions, not the Python code")
    parser.add_argument("--html", type=Path, help="write a report there as well")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, behind -- (default: tests)")
    args = parser.parse_args()
    html = None if args.html is None else args.html.resolve()
    with tempfile.TemporaryDirectory(prefix="wsfast-cover-") as folder:
        cover = cover_cython if args.cython else cover_python
        sys.exit(cover(Path(folder), args.pytest or ["tests"], html))


if __name__ == "__main__":
    main()
