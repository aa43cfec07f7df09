"""``python -m wsfast bench URI``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from sync_helpers import running

import wsfast
from wsfast.cli import main


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as served:
        assert main(["bench", "--duration", "0.1", "--size", "50", served.uri]) == 0
    shown = capsys.readouterr()
    assert "binary messages of 50 bytes" in shown.out
    assert "round trip   median " in shown.out
    assert "throughput   " in shown.out
    assert shown.err == ""  # the bar is for terminals


@pytest.mark.parametrize(
    "options", [[], ["--text"], ["--connections", "3", "--window", "1"], ["--size", "200000"]], ids=" ".join
)
def test_json(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    with running() as served:
        uri = served.uri.replace("ws://", "ws://user:secret@")
        assert main(["bench", "--json", "--duration", "0.1", *options, uri]) == 0
    results = json.loads(capsys.readouterr().out)
    assert "secret" not in results["uri"]
    trip = results["round_trip"]
    assert 0 < trip["min_us"] <= trip["median_us"] <= trip["p99_us"] <= trip["max_us"]
    rate = results["throughput"]
    assert rate["messages"] >= rate["connections"] * rate["window"]
    assert rate["messages_per_second"] == pytest.approx(rate["messages"] / rate["seconds"])
    assert rate["mb_per_second"] == pytest.approx(rate["messages_per_second"] * results["size"] / 1e6)


def test_a_server_that_does_not_echo(capsys: pytest.CaptureFixture[str]) -> None:
    async def other(ws: wsfast.WebSocket) -> None:
        async for _ in ws:
            await ws.send("something else")

    with running(other) as served:
        assert main(["bench", "--duration", "0.1", served.uri]) == 1
    assert "no echo server" in capsys.readouterr().err


def test_a_server_that_closes(capsys: pytest.CaptureFixture[str]) -> None:
    async def leave(ws: wsfast.WebSocket) -> None:
        await ws.close(1013, "busy")

    with running(leave) as served:
        assert main(["bench", "--duration", "0.1", served.uri]) == 1
    assert "busy" in capsys.readouterr().err


def test_a_server_that_closes_later(capsys: pytest.CaptureFixture[str]) -> None:
    connections = 0

    async def second_leaves(ws: wsfast.WebSocket) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await ws.close(1013, "busy")
        async for message in ws:
            await ws.send(message)

    with running(second_leaves) as served:
        assert main(["bench", "--duration", "0.1", "--connections", "2", served.uri]) == 1
    assert "busy" in capsys.readouterr().err


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ws://127.0.0.1:1"]) == 1
    assert "could not connect" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--size", "0"], ["--duration", "-1"], ["--window", "x"]], ids=" ".join)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments, "ws://127.0.0.1:1"])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_progress_bar_is_drawn_in_a_terminal() -> None:
    master, slave = pty.openpty()
    try:
        with running() as served:
            command = [sys.executable, "-m", "wsfast", "bench", "--duration", "0.5", served.uri]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, timeout=30, check=False)
        os.close(slave)
        slave = -1
        drawn = os.read(master, 65536).decode()
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)
    assert done.returncode == 0
    assert "round trip   [" in drawn
    assert "#" in drawn
    assert "throughput   [" in drawn
    assert drawn.endswith("\r\x1b[K")
