"""``python -m tests.programs [NAME ...]`` runs programs of others on `wsfast.websockets`.

Each has an environment of its own. They are made by pip, once, in a folder that WSFAST_PROGRAMS in the process'
environment names; without it, in one that is gone afterwards.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import wsfast

HERE = Path(__file__).parent
SOURCE = Path(wsfast.__file__).parent.parent

PROGRAMS = {
    "gql": ["gql[websockets]"],
    "slack": ["slack_sdk", "aiohttp", "websockets"],
    "web3": ["web3"],
    "solana": ["solana"],
    "realtime": ["realtime"],
    "rpc": ["fastapi-websocket-rpc", "fastapi", "uvicorn"],
    "devtools": ["zendriver"],
    "proxy": ["websockets_proxy"],
    "centrifuge": ["centrifuge-python"],
    "substrate": ["async-substrate-interface"],
    "sanic": ["sanic"],
    "uvicorn": ["uvicorn"],
    "deepgram": ["deepgram-sdk"],
    "ocpp": ["ocpp", "websockets"],
    "cdp": ["cdp-use"],
    "genai": ["google-genai"],
    "alpaca": ["alpaca-py"],
    "signalr": ["pysignalr"],
}
"""The programs, each with what pip installs for it."""


def environment(name: str, folder: Path) -> Path:
    """Make the environment of a program, if it is not there; return its Python."""
    place = folder / name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = place / "installed"
    if not done.exists():
        venv.create(place, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "multidict", "h11"]
        subprocess.run([*command, *PROGRAMS[name]], check=True)
        done.touch()
    return python


def run(name: str, folder: Path, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run a program on `wsfast.websockets`."""
    script = HERE / f"{name}_client.py"
    command = [str(environment(name, folder)), "-m", "wsfast.websockets", str(script)]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)


def main() -> int:
    """Run what the command line names; return how many have failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PROGRAMS, []], metavar="NAME", help=", ".join(PROGRAMS))
    names = parser.parse_args().names or list(PROGRAMS)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("WSFAST_PROGRAMS") or temporary)
        for name in names:
            done = run(name, folder)
            failed += done.returncode != 0
            print(f"{name:10} {'passed' if done.returncode == 0 else 'failed'}", flush=True)
            if done.returncode:
                print(done.stdout + done.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
