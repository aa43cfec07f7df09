"""System calls that fail: nothing is lost, nothing comes twice, nothing hangs, on both twins and loops."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import Certificates

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim is preloaded as Linux has it")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim of the system calls."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("this needs a C compiler")
    library = tmp_path_factory.mktemp("faulty") / "faulty.so"
    command = [*compiler.split(), "-O1", "-shared", "-fPIC", str(HERE / "faulty_calls.c"), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


def run(shim: Path, program: str, *arguments: str, **environment: str) -> None:
    """Run a program whose system calls are the shim's, to a good end."""
    import wsfast

    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)])),
        "PYTHONPATH": str(Path(wsfast.__file__).parent.parent),
        **environment,
    }
    if "benign" in arguments:
        environment["WSFAST_FAULTS"] = "7"
    done = subprocess.run(
        [sys.executable, HERE / program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.mark.parametrize("twin", ["cython", "python"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("how", ["benign", "fatal", "accept"])
def test_calls_that_fail(shim: Path, certs: Certificates, twin: str, loop: str, kind: str, how: str) -> None:
    pure = "1" if twin == "python" else ""
    run(shim, "faulty_echo.py", loop, kind, how, str(certs.authority.parent), WSFAST_PURE_PYTHON=pure)


@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("how", ["benign", "fatal"])
def test_calls_that_fail_in_threads(shim: Path, certs: Certificates, kind: str, how: str) -> None:
    run(shim, "faulty_shells.py", "threads", kind, how, str(certs.authority.parent))


@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("how", ["benign", "fatal"])
def test_calls_that_fail_on_trio(shim: Path, certs: Certificates, kind: str, how: str) -> None:
    # ENOBUFS is the end of a connection to trio itself.
    run(shim, "faulty_shells.py", "trio", kind, how, str(certs.authority.parent), WSFAST_NO_ENOBUFS="1")
