"""Run uvicorn's own tests of WebSockets on wsfast: ``python -m tests.uvicorn_suite``.

The suite is ``tests/protocols/test_websocket.py`` of uvicorn's sdist, with all three of its HTTP parsers, on asyncio
and on uvloop. The first run makes an environment for it in the user's cache, from PyPI. Every case must pass, but for
those that `wsfast_on_uvicorn.DIFFERENT` names, which must fail.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PINS = HERE / "requirements.txt"


def prepare() -> tuple[Path, Path]:
    """Return the interpreter that has what the suite needs, and the suite's directory; make them if need be."""
    pinned = PINS.read_text()
    found = re.search(r"^uvicorn==(\S+)$", pinned, re.MULTILINE)
    assert found is not None
    version = found.group(1)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsfast"
    place = cache / f"uvicorn-{version}-{sys.version_info[0]}.{sys.version_info[1]}"
    python, suite, done = place / "bin" / "python", place / f"uvicorn-{version}", place / ".pins"
    if not done.exists() or done.read_text() != pinned:
        print(f"making an environment in {place} (once)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "-r", str(PINS)], check=True)
        download = ["download", "-q", "--no-deps", "--no-binary", "uvicorn", "-d", str(place), f"uvicorn=={version}"]
        subprocess.run([*pip, *download], check=True)
        with tarfile.open(place / f"uvicorn-{version}.tar.gz") as archive:
            archive.extractall(place, filter="data")
        done.write_text(pinned)
    return python, suite


def main(argv: list[str] | None = None) -> int:
    """Run the suite and return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.uvicorn_suite", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "both"], default="both", help="default: both")
    parser.add_argument("rest", nargs="*", metavar="-- ARGUMENT", help="for pytest")
    args = parser.parse_args(argv)
    python, suite = prepare()
    worst = 0
    for loop in ("asyncio", "uvloop") if args.loop == "both" else (args.loop,):
        # The suite's own copy of uvicorn must not be found before the one that is installed: they are the same.
        environment = {**os.environ, "WSFAST_SUITE_LOOP": loop, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{HERE}"}
        command = [str(python), "-m", "pytest", "-o", "addopts=", "-p", "wsfast_on_uvicorn", "-q", "-rfEX"]
        print(f"{loop}:", flush=True)
        test = suite / "tests" / "protocols" / "test_websocket.py"
        run = subprocess.run([*command, "-p", "no:cacheprovider", str(test), *args.rest], cwd=suite, env=environment)
        worst = max(worst, run.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
