"""Peers of other languages for tests of interoperation: Node.js with the packages of `tests/node/package.json`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

_NODE = Path(__file__).parent / "node"


@functools.cache
def node_modules() -> str | None:
    """Return the directory of the packages for NODE_PATH, installing them if need be; None without node or npm.

    WSFAST_NODE_MODULES names one that is there already. Else they are installed once, into the user's cache.
    """
    given = os.environ.get("WSFAST_NODE_MODULES")
    if given:
        return given
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsfast-tests"
    cache.mkdir(parents=True, exist_ok=True)
    # Of two runs at once, the second finds them installed.
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _install(cache)


def _install(cache: Path) -> str | None:
    manifest = (_NODE / "package.json").read_text()
    installed = cache / "package.json"
    if not (cache / "node_modules").is_dir() or installed.read_text() != manifest:
        installed.write_text(manifest)
        try:
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=cache, check=True, timeout=300
            )
        except (OSError, subprocess.SubprocessError):
            installed.unlink(missing_ok=True)
            return None
    return str(cache / "node_modules")


def _missing() -> bool:
    return shutil.which("node") is None or shutil.which("npm") is None


node_peer = pytest.mark.skipif(_missing(), reason="needs node and npm")
"""Marks what needs `node_process`."""


@contextlib.asynccontextmanager
async def node_process(script: str, *arguments: str) -> AsyncIterator[str]:
    """Run a script in Node.js until the block ends; the value is the first line that it prints."""
    modules = await asyncio.to_thread(node_modules)
    if modules is None:
        pytest.skip("the packages of tests/node/package.json could not be installed")
    process = await asyncio.create_subprocess_exec(
        "node", "-e", script, *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, "NODE_PATH": modules}
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield line.decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
