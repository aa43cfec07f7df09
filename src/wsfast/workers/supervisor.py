"""The supervisor: it holds the sockets, starts the workers, and keeps them running; it never loads the program itself.

Each slot has a listening socket of its own for each address (SO_REUSEPORT), which stays open while its worker is
replaced: what the operating system has queued there is for the next worker, and no connection is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import chain
from typing import Any, Final

from ..bus.local import BUS_DIRECTORY, LocalBus
from ..bus.watch import Watcher
from ..handshake.uri import format_address
from ..transport.binding import bind_another, bind_tcp, bind_unix, check_unused, explain_binding
from .reload import Watch
from .settings import Settings, hold_signals, take_signals
from .systemd import activated_sockets, notify, watchdog_interval
from .worker import set_up_logging

__all__ = ["Supervisor", "open_sockets"]

_BACKLOG: Final = 2048
_READY: Final = 60.0
"""Seconds within which a worker must be ready."""
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 30.0
_LASTED: Final = 10.0
"""Seconds after which a worker's end no longer delays the next one."""
_TICK: Final = 0.1
_LOOK: Final = 0.5
_HELD_UP: Final = 1.0
"""Seconds that this process must have been held up for, as by ``docker pause``, so that it matters."""

_logger = logging.getLogger("wsfast.workers")


def open_sockets(settings: Settings) -> list[list[socket.socket]]:
    """Open the listening sockets, and return those of each slot.

    Raises:
        OSError: an address cannot be bound; `strerror` names it, and is for the user.
    """
    given = activated_sockets()
    if given:
        return [given for _ in range(settings.workers)]
    try:
        return _open_sockets(settings)
    except OSError as exc:
        where = settings.unix or format_address((settings.host or "*", settings.port))
        raise OSError(exc.errno, explain_binding(exc, where)) from None


def _open_sockets(settings: Settings) -> list[list[socket.socket]]:
    if settings.unix is not None:
        return [[_unix_socket(settings.unix)]] * settings.workers
    infos = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE, proto=socket.IPPROTO_TCP
    )
    slots: list[list[socket.socket]] = []
    try:
        slots.append(_bind(settings, infos))
        while len(slots) < settings.workers:
            slots.append([])
            for sock in slots[0]:
                slots[-1].append(bind_another(sock))
        # Listen only now, so that nobody connects to a socket that is never served.
        for sock in chain(*slots):
            sock.listen(_BACKLOG)
            sock.setblocking(False)
    except OSError:
        for sock in chain(*slots):
            sock.close()
        raise
    return slots


def _bind(settings: Settings, infos: list[Any]) -> list[socket.socket]:
    """Bind a socket for each address; with port 0, all get the port that the first got."""
    shared = settings.workers > 1
    port = settings.port
    bound: list[socket.socket] = []
    try:
        for *kind, address in dict.fromkeys(infos):
            info = (*kind, (address[0], port, *address[2:]))
            if shared and port:
                # With SO_REUSEPORT alone, it would share the port with another program of this user's, started before.
                bind_tcp(settings.host, [info])[0].close()
            bound += bind_tcp(settings.host, [info], reuse_port=shared)
            port = bound[-1].getsockname()[1]
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _unix_socket(path: str) -> socket.socket:
    check_unused(path)
    sock = bind_unix(path)
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


class _Worker:
    """One process of a slot."""

    def __init__(self, slot: _Slot, process: subprocess.Popen[bytes], life: socket.socket) -> None:
        self.slot = slot
        self.process = process
        self.life = life
        self.started = self.heard = time.monotonic()
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.told_to_end = 0.0  # the time of that
        self.killed = False

    def tell_to_end(self) -> None:
        """Have it stop in order."""
        if not self.told_to_end:
            self.told_to_end = time.monotonic()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # `Popen.send_signal` would collect a process that has just ended, and `_child_ended` never hear of it.
        if not self.ended.is_set():
            os.kill(self.process.pid, number)


class _Slot:
    """A place for one worker, with its sockets."""

    def __init__(self, number: int, sockets: list[socket.socket]) -> None:
        self.number = number
        self.sockets = sockets
        self.worker: _Worker | None = None
        self.pause = 0.0
        self.due = 0.0  # when the next worker may start


class Supervisor:
    """Keeps the workers of a program running.

    Args:
        settings: what `run` was told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots: list[_Slot] = []
        self._workers: list[_Worker] = []
        self._stopping = False
        self._hurried = False
        self._done: asyncio.Event
        self._rolling: asyncio.Task[None] | None = None
        self._again = False
        self._served = False  # all were ready once
        self._status = 0
        self._directory = ""

    def run(self) -> int:
        """Run until told to end; return the exit status."""
        _open_standard_streams()
        set_up_logging(self._settings, "supervisor")
        try:
            slots = open_sockets(self._settings)
        except OSError as exc:
            print(f"wsfast: {exc.strerror}", file=sys.stderr)
            return 1
        self._slots = [_Slot(number, sockets) for number, sockets in enumerate(slots, 1)]
        try:
            asyncio.run(self._supervise())
        finally:
            for slot in self._slots:
                for sock in slot.sockets:
                    sock.close()
            if self._directory != os.environ.get(BUS_DIRECTORY):
                shutil.rmtree(self._directory, ignore_errors=True)
            if self._settings.unix is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._settings.unix)
        return self._status

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        try:
            # `LocalBus` finds the others here; this process keeps the histories, since it lives longest.
            self._directory = os.environ.get(BUS_DIRECTORY) or tempfile.mkdtemp(prefix="wsfast-")
            bus = LocalBus(os.path.join(self._directory, "bus"))
            await bus.start(Watcher(lambda _: None), secrets.randbits(62) | 1)
        except OSError as exc:  # no place for temporary files, or a path that is too long for a socket
            where = self._directory or "a temporary directory"
            print(f"wsfast: workers cannot meet in {where}: {exc.strerror or exc}", file=sys.stderr)
            self._status = 1
            return
        for sock in self._slots[0].sockets:
            _logger.info("listening on %s", format_address(sock.getsockname()))
        tick = loop.create_task(self._tick())
        tasks = [tick]
        if self._settings.reload:
            tasks.append(loop.create_task(self._watch()))
        if watchdog_interval() is not None:
            tasks.append(loop.create_task(self._feed_watchdog()))
        try:
            await self._done.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for worker in self._workers:
                worker.kill()
            await bus.close()

    # --- Workers --------------------------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> _Worker | None:
        """Start a worker; None if the system cannot now, and the slot's next attempt is due later."""
        try:
            return self._try_to_start(slot)
        except OSError as exc:  # no memory, no process, no descriptor
            _logger.error("worker %d cannot be started: %s", slot.number, exc.strerror or exc)
            self._pause(slot)
            return None

    def _try_to_start(self, slot: _Slot) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fds = [theirs.fileno(), *(sock.fileno() for sock in slot.sockets)]
        environment = {**os.environ, BUS_DIRECTORY: os.path.join(self._directory, "bus")}
        hold_signals()  # Ctrl-C reaches the worker too, and maybe before it knows what to do
        with theirs:
            try:
                process = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "wsfast.workers.worker", self._settings.dump()),
                        ",".join(map(str, [slot.number, *fds])),
                    ],
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                )
            except BaseException:
                ours.close()
                raise
            finally:
                take_signals()
        worker = _Worker(slot, process, ours)
        self._workers.append(worker)
        asyncio.get_running_loop().add_reader(ours, self._heard, worker)
        _logger.info("worker %d is process %d", slot.number, process.pid)
        return worker

    def _heard(self, worker: _Worker) -> None:
        try:
            data = worker.life.recv(256)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(worker.life)
            return
        worker.heard = time.monotonic()
        if b"r" in data:
            worker.ready.set()
            self._see_if_all_serve()

    def _see_if_all_serve(self) -> None:
        """Tell it, the first time they do."""
        if not self._served and all(slot.worker is not None and slot.worker.ready.is_set() for slot in self._slots):
            self._served = True
            count = len(self._slots)
            _logger.info("%d worker%s ready", count, " is" if count == 1 else "s are")
            notify(READY=1, STATUS=f"{count} workers", MAINPID=os.getpid())

    def _child_ended(self) -> None:
        ours = {worker.process.pid: worker for worker in self._workers}
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                break
            if info is None:
                break
            worker = ours.get(info.si_pid)
            if worker is None:
                # As the first process of a container, it is the parent of those whose own has ended.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(info.si_pid, 0)
                continue
            worker.process.wait()
            self._worker_ended(worker)

    def _worker_ended(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        asyncio.get_running_loop().remove_reader(worker.life)
        worker.life.close()
        worker.ended.set()
        slot, status = worker.slot, worker.process.returncode
        asked = worker.told_to_end or self._stopping
        _logger.log(
            logging.INFO if asked and not worker.killed else logging.ERROR,
            "worker %d, process %d, has ended: %s",
            slot.number,
            worker.process.pid,
            _how(status),
        )
        if slot.worker is worker:
            slot.worker = None
            if not self._served and not worker.ready.is_set() and not self._stopping:
                # It could not start at first: neither can another.
                self._status = 1
                self._stop()
                return
            lasted = time.monotonic() - worker.started
            if lasted > _LASTED:
                slot.pause = slot.due = 0.0
            else:
                self._pause(slot)
        if self._stopping and not self._workers:
            self._done.set()

    @staticmethod
    def _pause(slot: _Slot) -> None:
        """Have the slot's next worker start later, after a pause that grows."""
        slot.pause = min(_LAST_PAUSE, max(_FIRST_PAUSE, 2 * slot.pause))
        slot.due = time.monotonic() + slot.pause * random.uniform(0.8, 1)

    async def _tick(self) -> None:
        before = time.monotonic()
        while True:
            now = time.monotonic()
            self._forgive(now - before - _TICK)
            before = now
            for slot in self._slots:
                if slot.worker is None and slot.due <= now and not self._stopping:
                    slot.worker = self._start(slot)
            for worker in list(self._workers):
                hang = self._settings.hang_timeout
                if worker.told_to_end and worker.told_to_end + self._settings.stop_timeout <= now and not worker.killed:
                    _logger.error("worker %d does not end, and is killed", worker.slot.number)
                    worker.kill()
                elif worker.ready.is_set() and hang is not None and worker.heard + hang <= now and not worker.killed:
                    _logger.error("worker %d hangs, and is killed", worker.slot.number)
                    worker.kill()
                elif not worker.ready.is_set() and worker.started + _READY <= now and not worker.killed:
                    _logger.error("worker %d was not ready within %d s, and is killed", worker.slot.number, _READY)
                    worker.kill()
            await asyncio.sleep(_TICK)

    def _forgive(self, held_up: float) -> None:
        """Count seconds for which this process did not run against nobody: all were stopped, or signs are unread."""
        if held_up > _HELD_UP:
            for worker in self._workers:
                worker.started += held_up
                worker.heard += held_up
                if worker.told_to_end:
                    worker.told_to_end += held_up

    # --- What it is told --------------------------------------------------------------------------------------

    def _told_to_end(self, number: int) -> None:
        if self._stopping:
            if not self._hurried:
                self._hurried = True
                _logger.warning("told to end again: workers are killed")
                for worker in self._workers:
                    worker.kill()
            return
        _logger.info("told to end by %s", signal.Signals(number).name)
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        notify(STOPPING=1)
        if self._rolling is not None:
            self._rolling.cancel()
        for worker in self._workers:
            worker.tell_to_end()
        if not self._workers:
            self._done.set()

    def _told_to_reload(self) -> None:
        if self._stopping:
            return
        if self._rolling is not None:
            self._again = True  # what changed since then may be with some of the new workers only
            return
        self._rolling = asyncio.get_running_loop().create_task(self._roll())

    async def _roll(self) -> None:
        """Replace the workers, one after the other: the new one serves before the old one stops."""
        if self._served:
            notify(RELOADING=1)
        try:
            while True:
                self._again = False
                for slot in self._slots:
                    if not await self._replace(slot):
                        break
                if not self._again:
                    break
        finally:
            self._rolling = None
            if self._served and not self._stopping:
                notify(READY=1)

    async def _replace(self, slot: _Slot) -> bool:
        new = self._start(slot)
        if new is None:
            return False
        ready = asyncio.ensure_future(new.ready.wait())
        ended = asyncio.ensure_future(new.ended.wait())
        try:
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            new.tell_to_end()
            raise
        finally:
            ready.cancel()
            ended.cancel()
        if not new.ready.is_set() or new.ended.is_set():
            _logger.error("the new worker %d does not start: the old ones go on", slot.number)
            return False
        old = slot.worker
        slot.worker = new
        slot.pause = 0.0
        if old is not None:
            old.tell_to_end()
        self._see_if_all_serve()
        return True

    async def _watch(self) -> None:
        watch = Watch(self._settings.directory)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK)
            changed = await loop.run_in_executor(None, watch.changed)
            if changed:
                more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
                _logger.info("changed: %s%s", ", ".join(changed[:3]), more)
                self._told_to_reload()

    async def _feed_watchdog(self) -> None:
        interval = watchdog_interval()
        assert interval is not None
        while True:
            notify(WATCHDOG=1)
            await asyncio.sleep(interval)


def _open_standard_streams() -> None:
    """See that 0, 1 and 2 are no descriptors of ours, where this process was started without them.

    A worker's standard streams would take the place of a listening socket.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it is the lowest that is free


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
