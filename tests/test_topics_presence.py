"""How soon presence is right: after the end of a process on the host, and after the loss of another host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import engines
import pytest
from shared import until

import wsfast
from wsfast.bus import LocalBus, MemoryBus
from wsfast.testing.bus import Process
from wsfast.topics.envelope import BadEnvelope, Sealer
from wsfast.topics.numbers import Outgoing
from wsfast.topics.presence import Presence, Present
from wsfast.topics.topics import hub_of

PROCESS = """
import asyncio, sys
import wsfast
from wsfast.bus import LocalBus
from wsfast.topics.topics import hub_of

async def main():
    topics = wsfast.Topics(LocalBus(sys.argv[1]))
    topics.configure("room", presence=True)
    server = wsfast.Server(topics=topics)

    @server.handler(None)
    async def join(ws):
        ws.subscribe("room", info="Ada")
        await ws.wait_closed()

    await server.start("127.0.0.1", 0)
    async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
        await ws.wait_closed()

asyncio.run(main())
"""


async def _changes(directory: Path) -> tuple[wsfast.Topics, list[tuple[bool, float]]]:
    changes: list[tuple[bool, float]] = []
    topics = wsfast.Topics(LocalBus(directory))
    topics.configure("room", presence=True)
    topics.on_presence = lambda topic, present, came: changes.append((came, asyncio.get_running_loop().time()))
    return topics, changes


async def _seconds_after_a_kill(directory: Path, number: int) -> float:
    topics, changes = await _changes(directory)
    async with topics:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, str(directory))
        try:
            await until(lambda: changes, 60.0)  # a busy machine takes long to start it
            assert [present.info for present in topics.present("room")] == ["Ada"]
            start = asyncio.get_running_loop().time()
            process.kill()
            await until(lambda: not topics.present("room"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        assert [came for came, _ in changes] == [True, False]
        return changes[-1][1] - start


def test_within_50_ms_of_a_kill(tmp_path: Path) -> None:
    """The end of its stream tells; on a busy machine a single one may take longer."""
    seconds = []
    for number in range(5):
        seconds.append(asyncio.run(_seconds_after_a_kill(tmp_path / "bus", number)))
        if seconds[-1] <= 0.05:
            return
    pytest.fail(f"it took {seconds} s")


WORKER = """
import os, sys
import wsfast
sys.path.append(os.environ["TESTS"])
import engines

listeners = set()

def moved(topic, present, came):
    for ws in listeners:
        ws.send_nowait(f"{'came' if came else 'left'} {present.info}")

topics = wsfast.Topics(engines.bus(os.environ["ENGINE"]), on_presence=moved)
topics.configure("room", presence=True)
server = wsfast.Server(topics=topics)

@server.handler(None)
async def join(ws):
    listeners.add(ws)
    ws.subscribe("room", info=str(os.getpid()))
    await ws.wait_closed()
    listeners.discard(ws)
"""


@contextlib.asynccontextmanager
async def _workers(directory: Path, engine: str, *options: str) -> AsyncIterator[str]:
    """Run two workers of a program whose topics have an engine, and give their address."""
    (directory / "app.py").write_text(WORKER)
    command = [sys.executable, "-m", "wsfast", "run", "app:server", "--workers", "2", "--port", "0"]
    environment = {**os.environ, "ENGINE": engine, "TESTS": str(Path(__file__).parent)}
    process = await asyncio.create_subprocess_exec(
        *command, "--directory", str(directory), *options, stderr=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    try:
        log = (await process.stderr.readuntil(b"workers are ready")).decode()
        drained = asyncio.ensure_future(process.stderr.read())
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", log)
        assert found is not None, log
        yield f"ws://{found[1]}/"
        process.terminate()
        await drained
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _seconds_after_the_kill_of_a_worker(url: str) -> float:
    """Return how long it takes until the other worker has told its client."""
    clients: dict[str, wsfast.WebSocket] = {}
    async with contextlib.AsyncExitStack() as stack:
        while len(clients) < 2:
            ws = await stack.enter_async_context(wsfast.connect(url, open_timeout=60))
            clients.setdefault(str(await ws.recv()).split()[1], ws)
        (_, listener), (killed, _) = clients.items()
        while await listener.recv() != f"came {killed}":
            pass
        start = asyncio.get_running_loop().time()
        os.kill(int(killed), signal.SIGKILL)
        while await listener.recv() != f"left {killed}":
            pass
        return asyncio.get_running_loop().time() - start


async def _seconds_after_kills_of_workers(directory: Path, engine: str, *options: str) -> list[float]:
    seconds: list[float] = []
    async with _workers(directory, engine, *options) as url:
        while len(seconds) < 5 and min(seconds, default=1.0) > 0.05:
            seconds.append(await _seconds_after_the_kill_of_a_worker(url))
    return seconds


@pytest.mark.parametrize(
    ("name", "options"), [*((name, []) for name in engines.ENGINES), (engines.ENGINES[0], ["--uvloop"])]
)
def test_within_50_ms_of_the_kill_of_a_worker_with_an_engine(tmp_path: Path, name: str, options: list[str]) -> None:
    """The engine does not tell; the workers of a host watch each other."""
    with engines.engine(name, tmp_path) as engine:
        seconds = asyncio.run(_seconds_after_kills_of_workers(tmp_path, engine.url, *options))
    assert min(seconds) <= 0.05, f"it took {seconds} s"


async def _tell_late() -> list[Present]:
    topics = wsfast.Topics(MemoryBus())
    topics.configure("room", presence=True)
    async with topics:
        hub = hub_of(topics)
        for origin in (7, 8):
            hub.received("!", hub._sealer.seal_control(origin, {"tail": 1, "of": [], "version": 0}), None)
        hub.process_ended(7)
        for origin in (7, 8):
            came = {"presence": 1, "changes": [["room", "id", str(origin)]]}
            hub.received("!", hub._sealer.seal_control(origin, came), None)
        return topics.present("room")


def test_what_comes_of_a_process_that_has_ended_brings_nobody_back() -> None:
    """Its streams end at once, while what it told last is under way in the engine."""
    assert asyncio.run(_tell_late()) == [Present("id", "8")]


async def _start_and_close(topics: wsfast.Topics) -> None:
    async with topics:
        assert topics.health == "up"


def test_a_worker_that_cannot_watch_the_others_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that has become another user."""
    tmp_path.chmod(0o755)
    monkeypatch.setenv("WSFAST_BUS_DIRECTORY", str(tmp_path))
    topics = wsfast.Topics(MemoryBus())
    topics.configure("room", presence=True)
    asyncio.run(_start_and_close(topics))
    assert caplog.messages[0].startswith("other workers of this host cannot be watched: ")
    assert "must belong to this user" in caplog.messages[0]


async def _seconds_after_a_loss(directory: Path) -> float:
    topics, changes = await _changes(directory)
    # One that says who is there, and then nothing more, while its stream stays open: as a host whose cable is cut.
    lost: Any = Process(LocalBus(directory))
    other = wsfast.Topics(lost.bus)
    async with topics:
        await lost.bus.start(lost, lost.origin)
        await until(lambda: lost.up)
        for content in ({"presence": 1, "changes": [["room", "id", "Ada"]]}, {"tail": 1, "of": [], "version": 1}):
            lost.bus.publish("!", hub_of(other)._sealer.seal_control(lost.origin, content))
        await until(lambda: topics.present("room"))
        start = asyncio.get_running_loop().time()
        await until(lambda: not topics.present("room"))
        await lost.bus.close()
        return changes[-1][1] - start


def test_within_4_s_of_the_loss_of_a_host(tmp_path: Path) -> None:
    """It takes as long as it takes: silence is what tells."""
    assert 2.5 < asyncio.run(_seconds_after_a_loss(tmp_path / "bus")) <= 4.1


# --- Reports of many, sans-IO ---------------------------------------------------------------------------------------


def _told(presence: Presence, messages: list[dict[str, Any]]) -> tuple[list[bool], list[tuple[str, Present, bool]]]:
    """Have a process hear what another, 7, tells; return whether something was missing each time, and what happened."""
    missing, happened = [], []
    for message in messages:
        behind, moved = presence.take_in(7, json.loads(json.dumps(message)))
        missing.append(behind)
        happened += moved
    return missing, happened


def test_many_are_told_in_parts_and_nothing_changes_between_them() -> None:
    """Nobody leaves, and comes again, because somebody else asked who is there."""
    there, here = Presence(7), Presence(1)
    for number in range(1200):
        there.come("room", f"id{number}", "x" * (number % 5) or None)
    there.changes()
    parts = there.all()
    assert len(parts) > 2
    for part in parts[:-1]:
        assert _told(here, [part]) == ([False], [])
    missing, happened = _told(here, parts[-1:])
    assert missing == [False]
    assert [came for _, _, came in happened] == [True] * 1200
    assert here.present("room") == there.present("room")
    assert _told(here, parts) == ([False] * len(parts), [])
    assert not here.is_behind(7, there.version)
    # Somebody left, which is found by comparison.
    there.go("room", "id700")
    there.changes()
    _, happened = _told(here, there.all())
    assert [(present.id, came) for _, present, came in happened] == [("id700", False)]


def test_a_part_that_was_lost_is_asked_for() -> None:
    there, here = Presence(7), Presence(1)
    for number in range(1200):
        there.come("room", f"id{number}", None)
    there.changes()
    parts = there.all()
    for lost in range(len(parts) - 1):
        missing, happened = _told(here, parts[:lost] + parts[lost + 1 :])
        assert missing[-1]
        assert here.is_behind(7, there.version)
        assert happened == []
        assert here.present("room") == []
    # The last one, which nothing follows, is missed at the next sign of life.
    assert _told(here, parts[:-1]) == ([False] * (len(parts) - 1), [])
    assert here.is_behind(7, there.version)
    there.come("room", "new", None)
    assert _told(here, there.changes()) == ([True], [])
    assert _told(here, parts[-1:])[0] == [True]
    assert here.forget(7) == []
    for nonsense in ({"part": 1}, {"part": 0, "parts": 0}, {"part": -1, "parts": 1}, {"part": 0.0, "parts": 1}):
        with pytest.raises(ValueError, match="a part of a presence"):
            here.take_in(7, {"presence": 1, "all": [], **nonsense})


def test_reports_are_taken_whatever_the_limit_of_messages_is() -> None:
    """Neither a small `max_size` nor the 1 MiB of an engine keeps processes from telling each other who is there."""
    sealer = Sealer(max_size=1)
    there, here = Presence(7), Presence(1)
    for number in range(600):
        there.come("t" * 200, f"{number:0100}", "\x01" * 1024)  # JSON takes six bytes for each
    there.changes()
    numbers = Outgoing()
    for number in range(2000):
        numbers.next(f"{number:0200}", 0.0)
    for content in (*there.all(), *numbers.tails(1.0)):
        sealed = sealer.seal_control(7, content)
        assert len(sealed) < 524_288
        origin, content = sealer.open_control(sealed)
        if "presence" in content:
            assert here.take_in(origin, content)[0] is False
    assert here.present("t" * 200) == there.present("t" * 200)
    with pytest.raises(BadEnvelope, match="more than the limit of 1048576"):
        sealer.open_control(sealer.seal_control(7, {"x": "y" * 1_048_576}))
    with pytest.raises(BadEnvelope, match=r"more than the limit of 1$"):
        sealer.open("t", sealer.seal("t", 1, 1, bytes(600), text=False, first=True, key=None))
