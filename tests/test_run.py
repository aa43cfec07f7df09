"""`wsfast.run` and `python -m wsfast run`: the supervisor and its workers, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import wsfast
from wsfast.cli import main
from wsfast.sync import connect
from wsfast.workers import supervisor as supervisors
from wsfast.workers import systemd
from wsfast.workers.reload import Watch
from wsfast.workers.settings import Settings
from wsfast.workers.supervisor import Supervisor, _Slot, _Worker, open_sockets
from wsfast.workers.target import TargetError, load

PROGRAM = """
import os, sys
import wsfast
from wsfast.bus import LocalBus

VERSION = 1
topics = wsfast.Topics(LocalBus())
topics.configure("room.*", history=wsfast.History(1000, 60), presence=True)
server = wsfast.Server(topics=topics, stop_timeout=5)

@server.handler(None)
async def talk(ws):
    async for message in ws:
        match message.split():
            case ["who"]:
                await ws.send(f"{os.getpid()} {VERSION}")
            case ["join", topic]:
                await ws.subscribe(topic)
                await ws.send("joined")
            case ["present", topic]:
                await ws.send(" ".join(sorted(one.id for one in topics.present(topic))) or "nobody")
            case ["publish", topic, text]:
                position = await ws.publish(topic, text)
                await ws.send(f"published {position}")
            case ["recover", topic, since]:
                await ws.send(f"recovered {await ws.recover(topic, since)}")
            case ["hang"]:
                import time
                time.sleep(60)
            case ["exit"]:
                os._exit(9)

def make():
    return server

async def make_later():
    return server

wrong = 5
"""


class Running:
    """A supervisor, its log and its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < end, self.log
            time.sleep(0.01)
        return result

    def wait_log(self, pattern: str) -> re.Match[str]:
        found: re.Match[str] = self.wait(lambda: re.search(pattern, self.log))
        return found

    @property
    def port(self) -> int:
        return int(self.wait_log(r"listening on 127\.0\.0\.1:(\d+)")[1])

    def connect(self, **options: Any) -> Any:
        return connect(f"ws://127.0.0.1:{self.port}/", **{"open_timeout": 60, **options})

    def ask(self, text: str) -> str:
        with self.connect() as ws:
            ws.send(text)
            return str(ws.recv(10))

    def pids(self) -> list[int]:
        """Return the process of each worker that was started, in order."""
        return [int(pid) for pid in re.findall(r"worker \d+ is process (\d+)", self.log)]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def drop(self) -> None:
        """Kill it if it still runs, and close its log."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(PROGRAM)
    return path


class Manager:
    """What stands for systemd: it listens to what a service tells.

    Attributes:
        environment: by which the service finds it.
        told: what it was told so far.
    """

    def __init__(self, directory: Path) -> None:
        path = str(directory / "notify")
        self.environment = {"NOTIFY_SOCKET": path}
        self.told: list[str] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(path)
        self._sock.settimeout(20)

    def wait_for(self, text: str) -> None:
        while not any(text in one for one in self.told):
            self.told.append(self._sock.recv(1000).decode())

    def take_all(self) -> list[str]:
        """Return all that was told, by a service that has ended."""
        self._sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self._sock.recv(1000).decode())
        return self.told

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@contextlib.contextmanager
def running(
    program: Path, *arguments: str, target: str = "app:server", stdout: Any = None, **environment: str
) -> Iterator[Running]:
    command = [sys.executable, "-m", "wsfast", "run", target, "--directory", str(program.parent)]
    if "--unix" not in arguments:
        command += ["--port", "0"]
    # A program that is changed within a second, to one of the same length, would be taken from its compiled form.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    process = subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, stdout=stdout, text=True, env=environment
    )
    made = Running(process)
    try:
        yield made
    finally:
        made.drop()


@pytest.mark.parametrize("options", [[], ["--uvloop"]], ids=["asyncio", "uvloop"])
def test_workers_share_the_connections(program: Path, options: list[str]) -> None:
    with running(program, "--workers", "2", *options) as run:
        run.wait_log("2 workers are ready")
        who = {run.ask("who").split()[0] for _ in range(40)}
        assert who == {str(pid) for pid in run.pids()}
        assert run.end() == 0
        assert "Traceback" not in run.log
        assert "exit status 0" in run.log


def test_messages_history_and_presence_between_workers(program: Path) -> None:
    with running(program, "--workers", "2") as run:
        run.wait_log("2 workers are ready")
        clients: dict[str, Any] = {}
        while len(clients) < 2:
            ws = run.connect()
            ws.send("who")
            clients[ws.recv(10)] = ws
        one, two = clients.values()
        for ws in (one, two):
            for topic in ("plain", "room.1"):
                ws.send(f"join {topic}")
                assert ws.recv(10) == "joined"
        one.send("publish plain hello")
        assert one.recv(10) == "published None"
        assert two.recv(10) == "hello"
        positions = []
        for number in range(5):
            one.send(f"publish room.1 {number}")
            positions.append(one.recv(10).split()[1])
            assert two.recv(10) == str(number)
        assert [position.split(":")[1] for position in positions] == list("12345")

        def present(ws: Any) -> int:
            ws.send("present room.1")
            return len(ws.recv(10).split())

        assert run.wait(lambda: present(one) == present(two) == 2)
        # A worker is killed: who was there is gone, and the history is not, since the supervisor keeps it.
        killed = int(next(who for who, ws in clients.items() if ws is two).split()[0])
        os.kill(killed, signal.SIGKILL)
        start = time.monotonic()
        assert run.wait(lambda: present(one) == 1)
        assert time.monotonic() - start < 1
        run.wait(lambda: len(run.pids()) == 3)
        with run.connect() as ws:
            ws.send(f"recover room.1 {positions[1]}")
            assert [ws.recv(10) for _ in range(4)] == ["2", "3", "4", "recovered 3"]


def test_a_rolling_restart_refuses_nobody(program: Path) -> None:
    with running(program, "--workers", "2") as run:
        run.wait_log("2 workers are ready")
        port = run.port
        failures: list[BaseException] = []
        served = [0]
        stop = threading.Event()

        def load_it() -> None:
            while not stop.is_set():
                try:
                    with connect(f"ws://127.0.0.1:{port}/", open_timeout=10):
                        served[0] += 1
                except BaseException as exc:
                    failures.append(exc)

        threads = [threading.Thread(target=load_it) for _ in range(4)]
        for thread in threads:
            thread.start()
        program.write_text(PROGRAM.replace("VERSION = 1", "VERSION = 2"))
        for number in range(2):
            before = len(run.pids())
            run.process.send_signal(signal.SIGHUP)
            run.wait(lambda before=before: len(run.pids()) == before + 2, 40)  # type: ignore[misc]
            run.wait(lambda number=number: len(re.findall("has ended", run.log)) == 2 * (number + 1), 40)  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[:3]
        assert served[0] > 20
        assert {run.ask("who").split()[1] for _ in range(10)} == {"2"}
        assert run.end() == 0


def test_what_does_not_start_replaces_nothing(program: Path) -> None:
    with running(program) as run:
        run.wait_log("1 worker is ready")
        program.write_text("import nothing_like_this")
        run.process.send_signal(signal.SIGHUP)
        run.wait_log("the new worker 1 does not start: the old ones go on")
        assert run.ask("who").endswith(" 1")


def test_one_that_ends_is_replaced(program: Path) -> None:
    with running(program) as run:
        run.wait_log("workers? (is|are) ready")
        for number in range(2, 4):
            with contextlib.suppress(wsfast.ConnectionClosed):
                run.ask("exit")
            run.wait(lambda number=number: len(run.pids()) == number)  # type: ignore[misc]
            assert run.ask("who").split()[0] == str(run.pids()[-1])
        assert "exit status 9" in run.log


def test_one_that_hangs_is_replaced(program: Path) -> None:
    with running(program, "--hang-timeout", "2.5") as run:
        run.wait_log("workers? (is|are) ready")
        with contextlib.suppress(wsfast.ConnectionClosed):
            run.ask("hang")
        run.wait_log("worker 1 hangs, and is killed")
        run.wait(lambda: len(run.pids()) == 2)
        assert run.ask("who").endswith(" 1")


def test_workers_end_with_their_supervisor(program: Path) -> None:
    with running(program, "--workers", "2") as run:
        run.wait_log("workers? (is|are) ready")
        pids = run.pids()
        run.process.kill()
        run.process.wait()
        run.wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_reloading(program: Path) -> None:
    with running(program, "--reload") as run:
        run.wait_log("workers? (is|are) ready")
        assert run.ask("who").endswith(" 1")
        program.write_text(PROGRAM.replace("VERSION = 1", "VERSION = 22"))
        run.wait_log(r"changed: app\.py")
        run.wait_log("has ended")
        assert run.ask("who").endswith(" 22")


@pytest.mark.parametrize("target", ["app:make", "app:make_later"])
def test_programs_that_make_a_server(program: Path, target: str) -> None:
    with running(program, target=target) as run:
        assert run.ask("who").endswith(" 1")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("app:wrong", "got int"),
        ("app:nothing", "has no 'nothing'"),
        ("nowhere:server", "there is no module 'nowhere'"),
        ("nowhere.py:server", "there is no module 'nowhere.py': leave .py away"),
        ("json:dumps", r"a callable without arguments that makes one: dumps() fails with missing a required argument"),
    ],
)
def test_programs_that_are_none(program: Path, target: str, why: str) -> None:
    with running(program, target=target) as run:
        assert run.process.wait(20) == 1
        run.wait_log(re.escape(why))
        assert "Traceback" not in run.log


def test_a_service_of_systemd(program: Path, manager: Manager) -> None:
    """Readiness, reload and the end are told; the socket is the one that was passed."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        listening.listen()
        launcher = (
            "import os, sys\n"
            f"os.dup2({listening.fileno()}, 3)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'wsfast', 'run', 'app:server', '--directory',"
            f" {str(program.parent)!r}])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", launcher],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[listening.fileno()],
            env={**os.environ, **manager.environment, "LISTEN_FDS": "1", "WATCHDOG_USEC": "200000"},
        )
        run = Running(process)
        try:
            manager.wait_for("READY=1")
            manager.wait_for("WATCHDOG=1")
            with connect(f"ws://127.0.0.1:{port}/") as ws:
                ws.send("who")
                assert ws.recv(10)
            manager.told.clear()
            process.send_signal(signal.SIGHUP)
            manager.wait_for("RELOADING=1")
            manager.wait_for("READY=1")
            process.send_signal(signal.SIGTERM)
            manager.wait_for("STOPPING=1")
            assert process.wait(20) == 0
        finally:
            run.drop()


def test_started_without_standard_streams(program: Path) -> None:
    """No listening socket gets the number of a standard stream, which workers have others in the place of."""
    command = [sys.executable, "-m", "wsfast", "run", "app:server", "--port", "0", "--directory", str(program.parent)]
    closing = ["sh", "-c", 'exec "$@" 0<&- 1>&-', "sh"]
    process = subprocess.Popen([*closing, *command], stderr=subprocess.PIPE, text=True)
    run = Running(process)
    try:
        assert run.ask("who")
        assert run.end() == 0
    finally:
        run.drop()


def test_a_file_in_the_place_of_a_unix_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match=f"cannot listen on {path}: it is there already, and is not a socket"):
        open_sockets(settings_for(tmp_path, unix=str(path)))
    assert path.read_text() == "x"


@pytest.mark.parametrize("options", [[], ["--uvloop"]], ids=["asyncio", "uvloop"])
def test_signals_that_reach_a_worker_before_it_knows_what_to_do(program: Path, options: list[str]) -> None:
    """As Ctrl-C and the end of a terminal do, which reach all processes: they are the supervisor's to take."""
    with running(program, *options) as run:
        pid = int(run.wait_log(r"worker 1 is process (\d+)")[1])
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
        run.wait_log("1 worker is ready")
        assert run.pids() == [pid]
        assert run.end() == 0
        assert "Traceback" not in run.log


def test_all_processes_are_told_to_end_while_they_start(program: Path) -> None:
    """As systemd tells them: no worker has failed then."""
    with running(program) as run:
        os.kill(int(run.wait_log(r"worker 1 is process (\d+)")[1]), signal.SIGTERM)
        assert run.end() == 0
        assert "exit status 0" in run.log


def test_a_worker_that_has_just_ended_is_told_to_end(tmp_path: Path) -> None:
    """The supervisor learns of its end nevertheless."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        asyncio.run(_tell_one_that_has_ended(Supervisor(settings_for(tmp_path)), process))


async def _tell_one_that_has_ended(supervisor: Supervisor, process: subprocess.Popen[bytes]) -> None:
    supervisor._done = asyncio.Event()
    with socket.socket() as life:
        supervisor._workers.append(_Worker(_Slot(1, []), process, life))
        supervisor._stop()
        supervisor._child_ended()
        assert supervisor._done.is_set()


def test_a_start_that_hangs_is_replaced_on_sighup(program: Path, manager: Manager) -> None:
    """That all are ready is told when they are, and of no reload before."""
    program.write_text(
        PROGRAM + "\nimport asyncio, pathlib\n"
        "async def make_the_second_time():\n"
        "    mark = pathlib.Path(__file__).with_name('started')\n"
        "    if mark.exists():\n"
        "        return server\n"
        "    mark.touch()\n"
        "    await asyncio.sleep(1000)\n"
    )
    with running(program, target="app:make_the_second_time", **manager.environment) as run:
        run.wait(program.with_name("started").exists)
        run.process.send_signal(signal.SIGHUP)
        run.wait_log("1 worker is ready")
        assert run.ask("who").split()[0] == str(run.pids()[-1])
        assert run.end() == 0
    told = manager.take_all()
    assert "READY=1" in told[0]
    assert not any("RELOADING" in one for one in told)


def test_a_service_that_ends_while_it_reloads_is_not_ready_again(program: Path, manager: Manager) -> None:
    with running(program, **manager.environment) as run:
        manager.wait_for("READY=1")
        run.process.send_signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(20) == 0
    assert manager.take_all()[-1] == "STOPPING=1"


@pytest.mark.parametrize(("name", "path"), [("TMPDIR", "x" * 100), ("WSFAST_BUS_DIRECTORY", "/proc/nothing")])
def test_workers_can_meet_nowhere(program: Path, tmp_path: Path, name: str, path: str) -> None:
    """The path is too long for a socket, or cannot be made."""
    place = tmp_path / path
    if name == "TMPDIR":
        place.mkdir()
    with running(program, **{name: str(place)}) as run:
        assert run.process.wait(20) == 1
        run.wait_log("wsfast: workers cannot meet in")
        assert "Traceback" not in run.log


async def _start_workers(supervisor: Any, slot: Any) -> None:
    assert supervisor._start(slot) is None
    assert 0 < slot.due - time.monotonic() <= slot.pause == 0.1
    assert supervisor._start(slot) is None
    assert slot.pause == 0.2
    slot.worker = old = object()
    assert not await supervisor._replace(slot)
    assert slot.worker is old


def test_the_system_cannot_start_a_worker_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The supervisor outlives that, and tries again later."""

    def no_process(*args: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    supervisor = Supervisor(settings_for(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", no_process)
    asyncio.run(_start_workers(supervisor, _Slot(1, [])))
    assert [record.getMessage() for record in caplog.records] == [
        "worker 1 cannot be started: Resource temporarily unavailable"
    ] * 3
    assert supervisor._workers == []


def settings_for(directory: Path, **more: Any) -> Settings:
    """Return settings with the defaults of `run`."""
    usual = {"target": "app:server", "workers": 1, "host": "127.0.0.1", "port": 0, "unix": None, "certfile": None}
    usual |= {"keyfile": None, "uvloop": False, "reload": False, "directory": str(directory), "stop_timeout": 30.0}
    return Settings(**{**usual, "hang_timeout": 30.0, "log_level": "info", **more})


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that does nothing until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


async def _replace_by_one_that_ends_at_once(supervisor: Supervisor, process: subprocess.Popen[bytes]) -> None:
    slot = _Slot(1, [])
    with socket.socket() as life:
        slot.worker = old = _Worker(slot, process, life)

        def start(slot: _Slot) -> _Worker:
            new = _Worker(slot, process, life)
            new.ready.set()
            new.ended.set()  # both are known before anybody is woken up
            return new

        supervisor._start = start  # type: ignore[method-assign]
        assert not await supervisor._replace(slot)
        assert slot.worker is old
        assert not old.told_to_end


def test_a_new_worker_that_ends_at_once_replaces_nothing(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    asyncio.run(_replace_by_one_that_ends_at_once(Supervisor(settings_for(tmp_path)), process))


def test_a_supervisor_that_was_held_up_kills_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: subprocess.Popen[bytes]
) -> None:
    """All processes of a container may be stopped for a while: nobody has given a sign of life meanwhile."""
    clock = [1000.0]
    monkeypatch.setattr(supervisors, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(supervisors, "_TICK", 0.0)
    asyncio.run(_hold_up(Supervisor(settings_for(tmp_path)), process, clock))
    assert process.wait(20) == -signal.SIGKILL


async def _hold_up(supervisor: Supervisor, process: subprocess.Popen[bytes], clock: list[float]) -> None:
    with socket.socket() as life:
        worker = _Worker(_Slot(1, []), process, life)
        worker.ready.set()
        supervisor._workers.append(worker)
        ticking = asyncio.create_task(supervisor._tick())
        for seconds in (0, 3600, 0.9, 3600):
            clock[0] += seconds
            for _ in range(5):
                await asyncio.sleep(0)
            assert not worker.killed
        worker.heard -= 31  # it hangs, while this process runs
        for _ in range(5):
            await asyncio.sleep(0)
        ticking.cancel()


def test_a_port_is_not_shared_with_a_program_that_was_started_before(tmp_path: Path) -> None:
    first = open_sockets(settings_for(tmp_path, workers=2))
    try:
        port = first[0][0].getsockname()[1]
        for workers in (1, 2):
            with pytest.raises(OSError, match="Address already in use"):
                open_sockets(settings_for(tmp_path, workers=workers, port=port))
    finally:
        for sock in [sock for slot in first for sock in slot]:
            sock.close()
    for sock in [sock for slot in open_sockets(settings_for(tmp_path, workers=2, port=port)) for sock in slot]:
        sock.close()


def test_a_program_that_is_told_to_end_while_it_starts(program: Path) -> None:
    program.write_text(
        PROGRAM
        + "\nimport asyncio\nasync def make_never():\n    print('!', flush=True)\n    await asyncio.sleep(1000)\n"
    )
    with running(program, target="app:make_never", stdout=subprocess.PIPE) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "!\n"
        assert run.end() == 0
        run.process.stdout.close()
        assert "exit status 0" in run.log
        assert "Traceback" not in run.log


def test_a_unix_socket(program: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running(program, "--unix", path, "--workers", "2") as run:
        run.wait_log("workers? (is|are) ready")
        from wsfast.sync import unix_connect

        with unix_connect(path) as ws:
            ws.send("who")
            assert ws.recv(10)
        assert run.end() == 0
    assert not os.path.exists(path)


def test_notify_without_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify(READY=1)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not systemd.notify(READY=1)
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert systemd.watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_interval() is None
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert systemd.activated_sockets() == []
    assert "LISTEN_FDS" not in os.environ


def test_what_is_watched(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    watch = Watch(str(tmp_path))
    assert watch.changed() == []
    (tmp_path / "a.py").write_text("22")
    (tmp_path / "b.py").write_text("1")
    (tmp_path / "notes.txt").write_text("1")
    (tmp_path / ".hidden" / "c.py").write_text("1")
    (tmp_path / "env" / "d.py").write_text("1")
    assert watch.changed() == ["a.py", "b.py"]
    (tmp_path / "b.py").unlink()
    assert watch.changed() == ["b.py"]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="module:attribute"):
        wsfast.run("app")
    with pytest.raises(TypeError, match="give its name"):
        wsfast.run(wsfast.Server(), workers=2)
    for options in ({"workers": 0}, {"port": 70_000}, {"stop_timeout": 0}, {"log_level": "loud"}, {"keyfile": "k"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            wsfast.run("app:server", **options)
    with pytest.raises(ValueError, match="directory must name an existing directory, got '/nonexistent'"):
        wsfast.run("app:server", directory="/nonexistent")
    with pytest.raises(TypeError, match="workers must be int"):
        wsfast.run("app:server", workers="2")  # type: ignore[arg-type]
    settings = Settings(target="a:b", unix="/x", workers=3)
    assert Settings.load(settings.dump()) == settings
    for name in ("os", ":a", "os:", "./app.py:server", "a b:c", "..:x", "os:sep\0", "os:path."):
        with pytest.raises(TargetError, match="module:attribute"):
            load(name)
    with pytest.raises(OSError, match=r"cannot listen on 203\.0\.113\.1:8765: [A-Z][a-z ]+$"):
        open_sockets(Settings(host="203.0.113.1"))


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--unix", "/x", "--port", "1"], 2, "--unix goes without --host and --port"),
        (["--unix", "/x", "--host", "a"], 2, "--unix goes without --host and --port"),
        (["--keyfile", "/x"], 2, "--keyfile goes with --certfile"),
        (["--unix", ""], 2, "expected a path, got ''"),
        (["--host", "a:1"], 2, "expected the name of a host or its address, without a port (--port), got 'a:1'"),
        (["--host", "203.0.113.1"], 1, "cannot listen on 203.0.113.1:8765: "),
        (["--stop-timeout", "inf"], 2, "expected a number greater than 0, got 'inf'"),
        (["--directory", "/nonexistent"], 2, "directory must name an existing directory, got '/nonexistent'"),
        (["--certfile", "/nonexistent"], 1, "cannot use the certificate /nonexistent: No such file or directory"),
        (["--certfile", __file__], 1, f"cannot use the certificate {__file__}: "),
    ],
)
def test_wrong_arguments_of_the_command(
    arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["run", "app:server", *arguments])
    except SystemExit as exc:
        found = exc.code  # type: ignore[assignment]
    assert found == status
    assert told in capsys.readouterr().err
