"""One measurement: start a server, load it, read the figures."""

import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .environment import HERE, ROOT, Environment
from .scenarios import Peer, Scenario

__all__ = ["MeasurementFailedError", "check", "choose_cores", "measure"]

START_TIMEOUT = 20.0  # seconds for a server to listen


class MeasurementFailedError(Exception):
    """A server did not start, or its answers were wrong; the text says which."""


def choose_cores() -> tuple[int, int]:
    """Choose a core for what is measured and another for the load, not two threads of one core if it can be helped."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return cores[0], cores[0]
    server = cores[-1]
    try:
        path = f"/sys/devices/system/cpu/cpu{server}/topology/thread_siblings_list"
        text = Path(path).read_text().strip()
        siblings: set[int] = set()
        for part in text.split(","):
            first, _, last = part.partition("-")
            siblings |= set(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        siblings = {server}
    # Not core 0 if there is a choice: it serves more interrupts than the others.
    others = [core for core in reversed(cores) if core not in siblings] or [cores[0]]
    return server, others[0]


def _pin(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    text = log.read()[-4000:].decode(errors="replace").strip()
    return text.splitlines()[-1] if text else ""


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        if process.poll() is not None:
            raise MeasurementFailedError(f"the server ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise MeasurementFailedError(f"the server did not listen within {START_TIMEOUT:.0f} s")


def _command(peer: Peer, environment: Environment, port: int, size: int = 0) -> list[str]:
    command = peer.command.replace("{uws}", environment.uws or "")
    return [word.format(python=environment.python, here=HERE, port=port, size=size) for word in shlex.split(command)]


def _start(command: list[str], environment: Environment, core: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment.variables,
        cwd=ROOT,
        preexec_fn=_pin(core),
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _load(environment: Environment, arguments: list[str], core: int, timeout: float) -> dict[str, float]:
    try:
        done = subprocess.run(
            [environment.wsload, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            preexec_fn=_pin(core),
        )
    except subprocess.TimeoutExpired:
        raise MeasurementFailedError(f"the load generator did not end within {timeout:.0f} s") from None
    if done.returncode:
        raise MeasurementFailedError(done.stderr.strip()[:400] or f"the load generator ended with {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _with_server(
    peer: Peer,
    environment: Environment,
    server_arguments: list[str],
    arguments: list[str],
    cores: tuple[int, int],
    timeout: float,
) -> dict[str, float]:
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        server = _start([*_command(peer, environment, port), *server_arguments], environment, cores[0], log)
        try:
            _wait_listening(port, server)
            time.sleep(0.1)  # let what starting left behind be done
            figures = _load(environment, ["-p", str(port), "-P", str(server.pid), *arguments], cores[1], timeout)
            if server.poll() is not None:
                raise MeasurementFailedError(f"the server ended with {server.returncode} under load")
            return figures
        except MeasurementFailedError as failed:
            said = _tail(log)
            raise MeasurementFailedError(f"{failed}" + (f" [{said}]" if said else "")) from None
        finally:
            _stop(server)


def _client(
    peer: Peer, environment: Environment, arguments: list[str], cores: tuple[int, int], timeout: float
) -> dict[str, float]:
    port = _free_port()
    size = int(arguments[arguments.index("-s") + 1])
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [environment.wsload, "-p", str(port), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_pin(cores[1]),
        )
        time.sleep(0.05)  # it listens at once; it takes one connection only, so none may be spent on a probe
        client = _start(_command(peer, environment, port, size), environment, cores[0], log)
        try:
            try:
                out, err = server.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                raise MeasurementFailedError(f"no result within {timeout:.0f} s [{_tail(log)}]") from None
            if server.returncode or not out:
                raise MeasurementFailedError(f"{err.strip()[:400]} [{_tail(log)}]")
            figures: dict[str, float] = json.loads(out)
            return figures
        finally:
            _stop(client)
            if server.poll() is None:
                server.kill()
                server.wait()


def measure(
    scenario: Scenario, peer: Peer, environment: Environment, cores: tuple[int, int], seconds: float, warm: float
) -> dict[str, float]:
    """Run one scenario on one peer once.

    Returns:
        What wsload printed, and what follows from it (`per_cpu_s`).

    Raises:
        MeasurementFailedError: it could not be measured, or what came back was wrong.
    """
    arguments = [*shlex.split(scenario.args), "-d", str(seconds), "-w", str(warm)]
    timeout = seconds + warm + 90
    if peer.client:
        return _client(peer, environment, arguments, cores, timeout)
    if peer.raw:
        if "-m" in arguments:
            at = arguments.index("-m") + 1
            arguments[at] = "raw" + arguments[at]
        else:
            arguments += ["-m", "raw"]
    server_arguments = shlex.split(scenario.server_args)
    if scenario.tls:
        server_arguments += ["--tls", str(environment.tls)]
    figures = _with_server(peer, environment, server_arguments, arguments, cores, timeout)
    if figures.get("cpu_us") and "per_s" in figures:
        figures["per_cpu_s"] = 1e6 / figures["cpu_us"]
    return figures


def check(peer: Peer, environment: Environment, tls: bool, cores: tuple[int, int]) -> dict[str, float]:
    """Check that a server echoes what it gets, whatever the size and kind.

    Raises:
        MeasurementFailedError: it does not.
    """
    more, arguments = ([], ["-m", "check"])
    if tls:
        more, arguments = ["--tls", str(environment.tls)], [*arguments, "-T"]
    return _with_server(peer, environment, more, arguments, cores, 90)
