"""Workers under faults, for minutes: ``python -m tests.worker_faults restarts`` or ``soak``.

``restarts`` replaces the workers of a program again and again, while clients connect all the time: none may be refused.
Then it opens many connections at once, and tells how evenly the workers have got them.

``soak`` kills workers at random while clients publish and listen. In the topic with a history each message that was
taken must reach each listener, in order, over its reconnects. In the one without, what a listener misses while it stays
connected must have been told by `on_gap`; what the killed worker itself had not sent yet is gone with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import wsfast

PROGRAM = """
import os
import wsfast
from wsfast.bus import LocalBus

gaps = [0]

def told(gap):
    gaps[0] += gap.missed or 1_000_000

topics = wsfast.Topics(LocalBus(), encode=lambda topic, message, position: f"{position} {message}", on_gap=told)
topics.configure("kept", history=wsfast.History(100_000, 3600))
server = wsfast.Server(topics=topics, stop_timeout=5)

@server.handler(None)
async def talk(ws):
    async for message in ws:
        match message.split():
            case ["who"]:
                await ws.send(str(os.getpid()))
            case ["gaps"]:
                await ws.send(f"gaps {gaps[0]}")
            case ["join", topic]:
                await ws.subscribe(topic)
                await ws.send("joined")
            case ["recover", topic, since]:
                await ws.recover(topic, None if since == "None" else since)
                await ws.send("joined")
            case ["publish", topic, text]:
                await server.publish(topic, text)
                await ws.send("taken")
"""


class Program:
    """A supervisor and its workers.

    Attributes:
        port: where it listens.
        running: the processes of the workers that were started and have not ended, in order.
        ended: when each of the others has; their numbers may have been given anew.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.running: list[int] = []
        self.ended: list[float] = []
        self.port = 0
        self.ready = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.lines.append(line)
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            elif found := re.search(r"worker \d+ is process (\d+)", line):
                self.running.append(int(found[1]))
            elif found := re.search(r"process (\d+), has ended", line):
                self.running.remove(int(found[1]))
                self.ended.append(time.monotonic())
            elif " ready" in line:
                self.ready.set()


@contextlib.asynccontextmanager
async def program(workers: int) -> AsyncIterator[Program]:
    """Run the program."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "app.py").write_text(PROGRAM)  # noqa: ASYNC240
        command = [sys.executable, "-m", "wsfast", "run", "app:server", "--port", "0", "--directory", directory]
        process = await asyncio.create_subprocess_exec(
            *command, "--workers", str(workers), stderr=asyncio.subprocess.PIPE
        )
        made = Program(process)
        try:
            async with asyncio.timeout(60):
                await made.ready.wait()
            yield made
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await made._reading


async def _until(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {seconds} s: {what}"
        await asyncio.sleep(0.02)


async def restarts(times: int, workers: int = 4, connections: int = 4000) -> dict[str, float]:
    """Replace workers; return how many connections there were, and how evenly they were spread."""
    async with program(workers) as run:
        url = f"ws://127.0.0.1:{run.port}/"
        opened, failures, stop = 0, [], False

        async def connect_again_and_again() -> None:
            nonlocal opened
            while not stop:
                try:
                    ws = await wsfast.connect(url, open_timeout=20)
                except Exception as exc:
                    failures.append(exc)
                    continue
                opened += 1
                with contextlib.suppress(wsfast.ConnectionClosed):
                    async with ws:
                        await ws.send("who")
                        await ws.recv()

        load = [asyncio.ensure_future(connect_again_and_again()) for _ in range(8)]
        for number in range(-(-times // workers)):
            run.process.send_signal(signal.SIGHUP)
            wanted = (number + 1) * workers
            try:
                await _until(lambda wanted=wanted: len(run.ended) >= wanted, 600, "the workers to be replaced")
            except AssertionError:
                print("".join(run.lines[-20:]), file=sys.stderr)
                raise
        stop = True
        await asyncio.gather(*load)
        assert not failures, f"{len(failures)} of {opened} failed: {failures[0]!r}"
        held = []
        count: Counter[str] = Counter()
        for _ in range(connections // 100):
            some = await asyncio.gather(*(wsfast.connect(url, open_timeout=20) for _ in range(100)))
            held += some
            for ws in some:
                await ws.send("who")
                count[str(await ws.recv())] += 1
        await asyncio.gather(*(ws.close() for ws in held))
        assert len(count) == workers
        return {
            "restarts": len(run.ended),
            "connections": opened,
            "failed": len(failures),
            "balance": max(count.values()) / (connections / workers),
        }


class _Listener:
    """A client that listens to both topics, and comes back when its worker is killed."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.position: str | None = None
        self.spans: list[tuple[dict[str, list[int]], int]] = []  # what came while it stayed, and the losses told
        self.plain: dict[str, list[int]] = {}
        self.since = 0.0

    async def run(self, url: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(wsfast.ConnectionClosed, OSError, wsfast.InvalidHandshake, TimeoutError):
                async with wsfast.connect(url, open_timeout=20) as ws:
                    self.plain = {}
                    await ws.send("gaps")
                    before = await self._ask(ws, "gaps")
                    await ws.send("join plain")
                    await self._ask(ws, "joined")
                    await ws.send(f"recover kept {self.position}")
                    await self._ask(ws, "joined")
                    ending = asyncio.ensure_future(stop.wait())
                    try:
                        while not ending.done():
                            receiving = asyncio.ensure_future(ws.recv())
                            await asyncio.wait((receiving, ending), return_when=asyncio.FIRST_COMPLETED)
                            if not receiving.done():
                                receiving.cancel()
                                break
                            self._take(str(receiving.result()))
                    finally:
                        ending.cancel()
                    await asyncio.sleep(3)  # until tails have told of all
                    await ws.send("gaps")
                    after = await self._ask(ws, "gaps")
                    self.spans.append((self.plain, int(after.split()[1]) - int(before.split()[1])))

    async def _ask(self, ws: Any, answer: str) -> str:
        while not (text := str(await ws.recv())).startswith(answer):
            self._take(text)
        return text

    def _take(self, text: str) -> None:
        position, publisher, number = text.split()[0], *text.split()[1].split(":")
        if position == "None":
            self.plain.setdefault(publisher, []).append(int(number))
        else:
            self.position = position
            self.kept.append(int(number))


async def soak(seconds: float, workers: int = 3) -> dict[str, float]:
    """Kill workers at random; return what happened."""
    async with program(workers) as run:
        url = f"ws://127.0.0.1:{run.port}/"
        stop, stop_listening = asyncio.Event(), asyncio.Event()
        taken: list[int] = []
        plain: list[tuple[int, float]] = []

        async def publish() -> None:
            number = 0
            while not stop.is_set():
                with contextlib.suppress(wsfast.ConnectionClosed, OSError, wsfast.InvalidHandshake, TimeoutError):
                    async with wsfast.connect(url, open_timeout=20) as ws:
                        while not stop.is_set():
                            await ws.send(f"publish kept p:{number}")
                            assert await ws.recv() == "taken"
                            taken.append(number)
                            await ws.send(f"publish plain p:{number}")
                            assert await ws.recv() == "taken"
                            plain.append((number, time.monotonic()))
                            number += 1
                            await asyncio.sleep(0.005)
                    continue
                number += 1  # nobody knows whether it was taken

        listeners = [_Listener() for _ in range(4)]
        tasks = [asyncio.ensure_future(one.run(url, stop_listening)) for one in listeners]
        publishing = asyncio.ensure_future(publish())
        end = time.monotonic() + seconds
        kills = 0
        while time.monotonic() < end:
            await asyncio.sleep(random.uniform(1, 4))
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(run.running), signal.SIGKILL)
                kills += 1
            await _until(lambda: len(run.running) >= workers, 40, "another worker")
        stop.set()
        await publishing
        await _until(lambda: all(set(taken) <= set(one.kept) for one in listeners), 30, "all that was taken")
        stop_listening.set()
        await asyncio.gather(*tasks)
        silent = lost = told = 0
        ends = run.ended
        for one in listeners:
            assert one.kept == sorted(set(one.kept)), "not in order, or twice"
            for came, gaps in one.spans:
                got = set(came.get("p", ()))
                if not got:
                    continue
                missing = [
                    number
                    for number, at in plain
                    if min(got) < number < max(got) and number not in got and not any(at <= e < at + 1 for e in ends)
                ]
                lost += len(missing)
                told += gaps
                silent += max(0, len(missing) - gaps)
        assert not silent, f"{silent} losses were not told"
        return {"kills": kills, "taken": len(taken), "lost": 0, "plain": len(plain), "plain lost": lost, "told": told}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.worker_faults", description=__doc__)
    parser.add_argument("what", choices=["restarts", "soak"])
    parser.add_argument("--times", type=int, default=300, help="restarts of a worker (default: 300)")
    parser.add_argument("--seconds", type=float, default=600, help="of the soak (default: 600)")
    args = parser.parse_args()
    start = time.monotonic()
    outcome = asyncio.run(restarts(args.times) if args.what == "restarts" else soak(args.seconds))
    print(f"passed, {time.monotonic() - start:.0f} s: " + ", ".join(f"{v:g} {name}" for name, v in outcome.items()))


if __name__ == "__main__":
    main()
