"""Run the tests on extensions that were built with GCC's sanitizers: of addresses and undefined behaviour, or threads.

``python -m tests.sanitize`` builds in a temporary folder and leaves the project as it is; what is behind ``--`` goes to
pytest. It needs GCC with libasan and libubsan (Debian: gcc), on Linux. Python's own allocator is switched off, so that
an access one byte behind a `bytes` object is seen. Leaks are not looked for: CPython keeps memory until the end; they
are what ``python -m tests.leaks`` is for.

``python -m tests.sanitize --threads 3.14t`` runs the tests of threads with the thread sanitizer, on an interpreter
without a GIL that was built with it too: ``python -m tests.interpreters debian 3.14t --thread-sanitizer``. Whatever is
reported in the extensions is a failure; CPython's own list says what is known of itself.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if __package__:
    sys.path.insert(0, os.path.dirname(__file__))

from interpreters.debian import SANITIZED, SUPPRESSIONS
from interpreters.found import ROOT, ask, environment, make_c, make_environment
from interpreters.suite import FEW, THREADS

NAMES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in sorted((ROOT / "src").rglob("*.pyx"))
]
CHECK = f"import importlib; print(*(importlib.import_module(name).__file__ for name in {NAMES}))"
# Peers in other languages do not start with a sanitizer preloaded, and do not run our code; a package is built anew,
# without sanitizers.
MARKERS = "not node and not browser and not autobahn and not package"
# The sanitizer keeps what was freed for a while, on purpose: resident memory tells nothing.
IGNORED = [
    "--ignore=tests/test_leaks.py",
    "--deselect=tests/test_deflate_server.py::test_bombs_one_after_the_other_do_not_grow_the_process",
]


def find_library(name: str) -> str:
    """Return the path of a library of the compiler.

    Raises:
        SystemExit: the compiler has none.
    """
    compiler = os.environ.get("CC", "gcc")
    found = subprocess.run(
        [*shlex.split(compiler), f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(found):
        raise SystemExit(f"{compiler} has no {name}")
    return os.path.realpath(found)


def build(folder: Path, python: Path = Path(sys.executable), sanitizers: str = "1") -> Path:
    """Build the extensions in a copy of the sources; return the folder to import from.

    Args:
        folder: where.
        python: for which interpreter; it needs Cython and setuptools, and so does this one.
        sanitizers: what `WSFAST_SANITIZE` is.
    """
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    make_c(Path(sys.executable), folder)  # on an interpreter with a sanitizer, Cython takes ten minutes
    environ = {**os.environ, "WSFAST_SANITIZE": sanitizers, "TSAN_OPTIONS": "report_bugs=0"}
    command = [str(python), "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=environ, check=True)
    for extension in sorted((folder / "src").rglob("*.so")):
        symbols = extension.read_bytes()
        expected = (b"__tsan_init",) if sanitizers == "thread" else (b"__asan_init", b"__ubsan_handle")
        if not all(symbol in symbols for symbol in expected):
            raise SystemExit(f"{extension.name} was built without sanitizers")
    return folder / "src"


def threads(name: str, arguments: list[str]) -> int:
    """Run the tests of threads on an interpreter with the thread sanitizer; return the exit status.

    Raises:
        SystemExit: that interpreter is not here.
    """
    home = SANITIZED / name
    interpreter = ask(home / "bin" / f"python{name}")
    if interpreter is None:
        raise SystemExit(f"no {name} here: python -m tests.interpreters debian {name} --thread-sanitizer")
    with tempfile.TemporaryDirectory(prefix="wsfast-sanitize-") as temporary:
        folder = Path(temporary)
        os.environ["TSAN_OPTIONS"] = "report_bugs=0"
        python = make_environment(interpreter, folder / "venv", "cython>=3.1", "setuptools>=77", *FEW)
        print("building with the thread sanitizer ...", flush=True)
        source = build(folder, python, "thread")
        reports = folder / "reports"
        reports.mkdir()
        options = {
            "suppressions": home / SUPPRESSIONS,
            "log_path": reports / "tsan",
            "exitcode": 0,  # what is reported is looked at below
            "history_size": 7,
            "second_deadlock_stack": 1,
            "handle_segv": 0,
        }
        environ = environment(
            TSAN_OPTIONS=" ".join(f"{option}={value}" for option, value in options.items()),
            PYTHONPATH=str(source),
            PYTHON_GIL="0",
            WSFAST_TEST_LOOPS="asyncio",  # no wheel of uvloop has the sanitizer
            PYTHONDONTWRITEBYTECODE="1",
        )
        command = [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(arguments or THREADS)]
        status = subprocess.run(command, env=environ, cwd=ROOT, check=False).returncode
        said = "".join(path.read_text(errors="replace") for path in sorted(reports.iterdir()))
    found = [part for part in said.split("=" * 18) if "WARNING: ThreadSanitizer" in part]
    ours = [part for part in found if "wsfast" in part]
    print(*ours[:20], sep="\n")
    print(f"thread sanitizer: {len(found)} reports, {len(ours)} of them in wsfast's extensions")
    return status or bool(ours)


def main() -> None:
    """Build, run the tests, and exit with pytest's status."""
    parser = argparse.ArgumentParser(prog="python -m tests.sanitize", description="Run the tests with sanitizers.")
    parser.add_argument("--keep", type=Path, help="build there, and keep it (default: a temporary folder)")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, behind -- (default: tests)")
    parser.add_argument("--threads", metavar="NAME", help="with the thread sanitizer, on such an interpreter: 3.14t")
    args = parser.parse_args()
    if args.threads is not None:
        sys.exit(threads(args.threads, args.pytest))
    # libstdc++ must be there before libasan looks for what C++ extensions, such as uvloop's peers, throw.
    libraries = [find_library(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    with tempfile.TemporaryDirectory(prefix="wsfast-sanitize-") as temporary:
        folder = args.keep or Path(temporary)
        source = folder / "src"
        if not source.exists():
            print("building with sanitizers ...", flush=True)
            source = build(folder)
        environ = {
            **os.environ,
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(source),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        where = subprocess.run(
            [sys.executable, "-c", CHECK], env=environ, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        if not all(Path(path).is_relative_to(source / "wsfast") for path in where):
            raise SystemExit(f"expected the extensions of {source}, got {where}")
        print(f"running the tests on {', '.join(Path(path).name for path in where)}", flush=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:faulthandler",
            "-q",
            "-m",
            MARKERS,
        ]
        ended = subprocess.run([*command, *IGNORED, *(args.pytest or ["tests"])], env=environ, cwd=ROOT, check=False)
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
