"""The tests on an interpreter, of a wheel that is built for it and installed."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from .found import CACHE, ROOT, Interpreter, copy_sources, environment, make_environment, run, usual
from .wheels import build

# What has no wheel for an interpreter that is new, or not CPython, may not be had there; tests that need it say so.
FEW = (
    "--prefer-binary",
    "anyio>=4.4",
    "hypothesis>=6.100",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "multidict>=6",
    "h11>=0.14",
    "python-socks[asyncio]>=2.5",
    "trio>=0.27",
    "websockets>=15",
)
CODEC = (
    "tests/test_codec_decode.py",
    "tests/test_codec_encode.py",
    "tests/test_codec_buffer.py",
    "tests/test_codec_mask.py",
    "tests/test_codec_streaming.py",
    "tests/test_codec_limits.py",
    "tests/test_codec_half_made.py",
)
PURE = (
    *(
        "tests/test_codec_decode.py",
        "tests/test_codec_encode.py",
        "tests/test_codec_buffer.py",
        "tests/test_codec_mask.py",
    ),
    *("tests/test_codec_streaming.py", "tests/test_connection.py", "tests/test_session.py", "tests/test_http11.py"),
    *("tests/test_handshake.py", "tests/test_calls.py", "tests/test_client.py", "tests/test_client_tls.py"),
    *("tests/test_cancellation.py", "tests/test_keepalive.py", "tests/test_listener.py", "tests/test_streams.py"),
    *("tests/test_server_closing.py", "tests/test_server_dispatch.py", "tests/test_server_hooks.py"),
    *("tests/test_sync.py", "tests/test_sync_server.py", "tests/test_topics.py", "tests/test_websocket.py"),
    *("tests/test_octets.py", "tests/test_topics_index.py", "tests/test_topics_rules.py"),
)
"""What an interpreter runs that has not all that the tests use, on asyncio: others compare the twins, or need that."""
WITHOUT_CFFI = {"3.13t"}
"""Interpreters that cffi refuses, which cryptography needs, which makes the tests' certificates."""
THREADS = ("tests/test_threads.py", "tests/test_codec_threads.py", "tests/test_server_threads.py")
QUICK = (
    *(name for name in CODEC if name != "tests/test_codec_limits.py"),
    *THREADS,
    *("tests/test_websocket.py", "tests/test_listener.py", "tests/test_tls.py"),
)
FOR_QUICK = ("cryptography>=42", "uvloop>=0.21; sys_platform != 'win32'")


CHECK = """
import wsfast
print(wsfast.__file__, wsfast.IMPLEMENTATION)
"""


def run_tests(
    interpreter: Interpreter,
    arguments: list[str],
    *,
    quick: bool,
    few: bool,
    jobs: int,
    keep: Path | None,
) -> bool:
    """Run pytest with an interpreter and return whether all passed.

    Args:
        interpreter: which.
        arguments: of pytest.
        quick: whether to run the tests of the codec, of threads and of usual connections only, which need few packages,
            on extensions that took the compiler half of the time.
        few: whether to install only what the codec's tests need.
        jobs: how many processes run tests.
        keep: where to leave the environment, which the next run uses again (default: it is made anew).
    """
    with tempfile.TemporaryDirectory(prefix=f"wsfast-{interpreter.name}-") as temporary:
        folder = Path(temporary)
        source = copy_sources(folder / "source")
        pure = interpreter.implementation != "cpython"
        some = pure or interpreter.name in WITHOUT_CFFI
        # Which packages, if not the extra `dev`, and which tests, if not all.
        packages: tuple[str, ...] = ()
        tests: tuple[str, ...] = ()
        if some:
            packages, tests = FEW, (*PURE, *(() if pure else THREADS))
        elif few:
            packages, tests = FEW, CODEC
        elif quick:
            packages, tests = (*FEW, *FOR_QUICK), QUICK
        home = (keep or folder) / f"venv-{interpreter.name}"
        python = make_environment(interpreter, home, *packages)
        (folder / "wheel").mkdir()
        wheel = build(interpreter, source, folder / "wheel", pure=pure, flags="-O1" if quick else "")
        what = str(wheel) if packages else f"wsfast[dev] @ {wheel.as_uri()}"
        run(python, "-m", "pip", "install", "-q", "--prefer-binary", what)
        run(python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", wheel)  # where one was kept
        # The tests run beside the sources, which some of them read, and must see what is installed.
        said = subprocess.run(
            [python, "-c", CHECK], cwd=source, env=environment(), capture_output=True, text=True, check=True
        ).stdout.split()
        if not Path(said[0]).is_relative_to(home) or said[1] != ("python" if pure else "cython"):
            raise SystemExit(f"{interpreter}: expected the wheel in {home}, got {' '.join(said)}")
        # Some of what the tests use does not declare that it can do without a GIL, and would switch it on.
        environ = environment(**({"PYTHON_GIL": "0"} if interpreter.free_threaded else {}))
        if some:  # what makes certificates cannot be had
            other = usual()
            certificates = folder / "certificates"
            certificates.mkdir()
            run(make_environment(other, folder / "tools", "cryptography>=42"), "tests/certificates.py", certificates)
            environ |= {"WSFAST_TEST_CERTIFICATES": str(certificates), "WSFAST_TEST_LOOPS": "asyncio"}
        # Each test is named as it ends, so that a crash tells where it came from.
        command: list[str | Path] = [python, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
        if jobs > 1:
            command += ["-n", str(jobs), "--dist", "loadfile"]
        command += ["-m", "not package and not autobahn and not browser and not node and not programs"]
        log = CACHE / "logs" / f"{interpreter.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{interpreter}: running; see {log}", flush=True)
        with log.open("w") as output:
            status = subprocess.run(
                [*command, *(arguments or tests)], cwd=source, env=environ, stdout=output, stderr=output, check=False
            ).returncode
    text = log.read_text(errors="replace").strip()
    if status:
        print(text[-8000:])
    print(f"{interpreter.name}: {text.splitlines()[-1].strip(' =') if text else f'exit status {status}'}", flush=True)
    return status == 0


if __name__ == "__main__":
    raise SystemExit(f"run `python -m tests.interpreters test`, in {ROOT}")
