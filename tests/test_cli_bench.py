"""``python -m wsfast bench URI``."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import read_terminal
from sync_helpers import running

import wsfast
from wsfast.cli import main
from wsfast.cli.bench import _Bar, _Histogram, _not_met, _requirement


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as served:
        assert main(["bench", "--duration", "0.1", "--size", "50", served.uri]) == 0
    shown = capsys.readouterr()
    assert "binary messages of 50 bytes" in shown.out
    assert "round trip   median " in shown.out
    assert "throughput   " in shown.out
    assert shown.err == ""  # the bar is for terminals


def test_the_run_in_the_docs_has_the_form_of_a_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    def form(text: str) -> list[str]:
        """Return the lines without their figures, in which each run is different."""
        text = re.sub(r"\S*\d\S*(?: (?:us|ms|s)\b)?", "0", re.sub(r"^  <= .*\n", "", text, flags=re.MULTILINE))
        return [" ".join(line.split()) for line in text.splitlines()]

    page = (Path(__file__).parent.parent / "docs" / "reference" / "command-line.md").read_text()
    found = re.search(r"<!-- recorded: tests/test_cli_bench.*\n```text\n((?:.*\n)*?)```", page)
    assert found is not None
    assert max(map(len, found[1].splitlines())) <= 80
    with running() as served:
        assert main(["bench", "--connections", "20", "--rate", "5000", "--duration", "0.3", served.uri]) == 0
    shown = capsys.readouterr().out
    assert form(shown) == form(found[1])
    assert "  <= " in shown


def test_a_server_that_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its answers are another text than the question; what it is asked is given on the command line and in a file."""
    asked = set()

    async def answer(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            asked.add(message)
            await ws.send("answer")

    questions = tmp_path / "questions"
    questions.write_text('{"op": "b"}\n\n{"op": "é"}\n')
    with running(answer) as served:
        given = ["--message", "a", "--message", f"@{questions}", "--duration", "0.1", served.uri]
        assert main(["bench", *given]) == 1
        assert "is no echo server" in capsys.readouterr().err
        for more in ([], ["--rate", "500"]):
            found = results_of(capsys, "--any-answer", "--require", "mean<10s", "--require", "rate>0", *more, *given)
            assert found["throughput"]["messages"]
        assert main(["bench", "--any-answer", "--require", "p99<1us", *given]) == 1
        shown = capsys.readouterr()
        assert "text messages of 8.0 bytes on average" in shown.out
        assert " MB/s received\n" in shown.out
        assert re.fullmatch(r"wsfast: required p99<1us: [\d.]+ [mu]?s\n", shown.err)
    assert asked == {"a", '{"op": "b"}', '{"op": "é"}'}


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"\n\n", "no line to send"), (b"\xff", "not UTF-8")]
)
def test_messages_of_a_file_that_has_none(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "messages"
    if content is not None:
        path.write_bytes(content)
    assert main(["bench", "--message", f"@{path}", "ws://127.0.0.1:1"]) == 1
    told = capsys.readouterr().err
    assert str(path) in told
    assert why in told


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("p99<5ms", True),
        (" p99 <= 4ms ", False),
        ("max<0.1s", True),
        ("max>99ms", True),
        ("min>1us", False),
        ("p50<1001us", True),
        ("rate>10000", False),
        ("rate<10001", True),
    ],
)
def test_what_is_required(text: str, held: bool) -> None:
    latency = {"min_us": 1.0, "p50_us": 1000.0, "p99_us": 4000.0, "max_us": 99_999.0}
    results: dict[str, Any] = {"throughput": {"messages_per_second": 10_000.0}, "latency": latency}
    assert (_not_met([_requirement(text)], results) == []) is held
    del results["latency"]
    if "rate" not in text:
        assert _not_met([_requirement(text)], results) == [f"required {text}: nothing was measured"]


def test_a_bar_is_no_wider_and_no_higher_than_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (5, 30))
    histogram = _Histogram()
    for number in range(1, 1000):
        histogram.add(number / 1000)
    try:
        with open(slave, "w") as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            for name, drawn in {"xterm": True, "dumb": False}.items():
                monkeypatch.setenv("TERM", name)
                bar = _Bar("throughput", 1.0, histogram)
                bar.count = 1
                bar.update(time.perf_counter())
                bar.end()
                print("end", flush=True, file=terminal)
                shown = ""
                while not shown.endswith("end\r\n"):
                    shown += os.read(master, 4096).decode()
                rows = re.sub(r"\x1b\[\d*[AJ]|end", "", shown).strip().split("\r\n")
                assert len(rows) == (4 if drawn else 1)
                assert (len(rows[0]) == 29) is drawn
                assert all(len(row) < 30 for row in rows)
    finally:
        os.close(master)


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


def results_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_rate_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as served:
        found = results_of(capsys, "--duration", "0.5", "--rate", "400", "--connections", "4", served.uri)
    assert 150 <= found["throughput"]["messages"] <= 202
    assert found["throughput"]["rate"] == 400
    latency = found["latency"]
    assert 0 < latency["p50_us"] <= latency["p90_us"] <= latency["p99_us"] <= latency["p99.99_us"] <= latency["max_us"]


def test_a_server_that_stalls_shows_it_in_all_that_should_have_been_sent_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without coordinated omission: of 1 s at 100 a second, 0.5 s are a stall, so that half wait 0.25 s in the mean."""
    connections = 0

    async def stalls(ws: wsfast.WebSocket) -> None:
        nonlocal connections
        connections += 1
        count = 0
        async for message in ws:
            count += 1
            if connections > 1 and count == 20:
                await asyncio.sleep(0.5)
            await ws.send(message)

    with running(stalls) as served:
        found = results_of(capsys, "--duration", "1", "--rate", "100", served.uri)
    assert found["latency"]["max_us"] > 450_000
    assert found["latency"]["p90_us"] > 200_000


def test_a_mix_of_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as served:
        found = results_of(capsys, "--duration", "0.2", "--size", "10:9,1000:1", "--text", served.uri)
    assert found["size"] == 109.0
    rate = found["throughput"]
    assert 10 < rate["mb_per_second"] * 1e6 / rate["messages_per_second"] < 1000


def test_a_server_that_sends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    async def ticks(ws: wsfast.WebSocket) -> None:
        assert await ws.recv() == "go"
        for _ in range(10):
            await ws.send("tick")
        await ws.wait_closed()

    arguments = ("--subscribe", "go", "--connections", "5", "--ramp", "0.1", "--duration", "0.4")
    with running(ticks) as served:
        found = results_of(capsys, *arguments, served.uri)
        assert found["throughput"]["messages"] == 50
        assert "round_trip" not in found
        assert main(["bench", *arguments, served.uri]) == 0
        assert main(["bench", "--subscribe", "", "--duration", "0.1", served.uri]) == 0
    shown = capsys.readouterr().out
    assert "50 messages came" in shown
    assert ": 5 connections that listen, " in shown
    assert ": 1 connection that listens, " in shown


def test_beside_an_earlier_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    with running() as served:
        file.write_text(json.dumps(results_of(capsys, "--duration", "0.1", served.uri)))
        assert main(["bench", "--duration", "0.1", "--compare", str(file), served.uri]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"messages/s +[\d,]+ -> +[\d,]+ +[+-][\d.]+%", shown)
        assert re.search(r"^under load   min .*   p50 ", shown, re.MULTILINE)
        assert "  <= " in shown
        assert "connections" not in shown, "nothing was measured in another way"
        assert (
            main(["bench", "--duration", "0.1", "--connections", "2", "--json", "--compare", str(file), served.uri])
            == 0
        )
        written = capsys.readouterr()
        assert json.loads(written.out)["throughput"]["connections"] == 2, "standard output is JSON and nothing else"
        assert re.search(r"connections +1 -> 2\n", written.err)
        file.write_text("[]")
        for path, why in [(str(file), "has no results"), ("/nonexistent", "No such file")]:
            assert main(["bench", "--compare", path, served.uri]) == 1
            assert why in capsys.readouterr().err


def test_the_histogram() -> None:
    histogram = _Histogram()
    for number in range(1, 10_001):
        histogram.add(number / 1e6)
    found = histogram.percentiles(50, 99, 99.99, 100)
    for value, expected in zip(found, (0.005, 0.0099, 0.01, 0.01), strict=True):
        assert value == pytest.approx(expected, rel=0.02)
    assert histogram.greatest == 0.01
    assert sum(count for _, count in histogram.bars()) == 10_000
    assert _Histogram().bars() == []


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
    assert re.search(r"^failed +2 connections: .*1013.*busy", capsys.readouterr().out, re.MULTILINE)


def test_connections_that_are_refused_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    asked = 0

    def every_other(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
        nonlocal asked
        asked += 1
        return None if asked % 2 else ws.respond(503, "full\n")

    with running(process_request=every_other) as served:
        assert main(["bench", "--duration", "0.1", "--connections", "4", "--json", served.uri]) == 1
    results = json.loads(capsys.readouterr().out)
    assert sum(results["failed"].values()) == 2
    assert "503" in next(iter(results["failed"]))
    assert results["throughput"]["connections"] == 2
    assert results["throughput"]["messages"] > 0
    assert results["opening"]["max_us"] >= results["opening"]["median_us"] > 0


def failing(answers: int, fail: Callable[[wsfast.WebSocket], None]) -> Callable[[wsfast.WebSocket], Awaitable[None]]:
    """Make a handler that echoes on the first connection, whose round trips are taken, and so often only on others."""
    connections = 0

    async def handler(ws: wsfast.WebSocket) -> None:
        nonlocal connections
        connections += 1
        left = answers if connections > 1 else 1 << 30
        async for message in ws:
            if left:
                left -= 1
                await ws.send(message)
            else:
                fail(ws)

    return handler


@pytest.mark.parametrize("how", [[], ["--rate", "1000"]], ids=["window", "rate"])
def test_a_server_that_stops_answering(capsys: pytest.CaptureFixture[str], how: list[str]) -> None:
    with running(failing(10, lambda _: None)) as served:
        options = ["--duration", "0.1", "--timeout", "1", "--json", *how, served.uri]
        assert main(["bench", *options]) == 1
    results = json.loads(capsys.readouterr().out)
    assert results["unanswered"] > 10
    assert results["latency"]["p99_us"] > 900_000, "that it waited in vain is not left out"


def test_a_server_that_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """The throughput is over the time until then, not over all that was to be measured."""
    options = ["--connections", "2", "--window", "4"]
    arguments = ["bench", "--duration", "1000", *options]
    with running(failing(100, wsfast.WebSocket.abort)) as served, pytest.MonkeyPatch.context() as patched:
        patched.setattr("wsfast.cli.bench._round_trips", one_round_trip)
        assert main([*arguments, "--json", served.uri]) == 1
        results = json.loads(capsys.readouterr().out)
        assert main([*arguments, served.uri]) == 1
    assert 0 < results["throughput"]["messages"] <= 200
    assert results["throughput"]["seconds"] < 100
    assert re.search(r"unanswered +\d+ messages, when their connection was lost", capsys.readouterr().out)


async def one_round_trip(*_: Any, **__: Any) -> list[float]:
    return [0.001]


def test_a_server_that_never_answers(capsys: pytest.CaptureFixture[str]) -> None:
    async def silent(ws: wsfast.WebSocket) -> None:
        async for _ in ws:
            pass

    with running(silent) as served:
        assert main(["bench", "--duration", "0.1", "--timeout", "1", served.uri]) == 1
    assert "did not answer a message within 1 s" in capsys.readouterr().err


def test_ctrl_c_ends_it_early() -> None:
    loaded = threading.Event()
    connections = 0

    async def counting(ws: wsfast.WebSocket) -> None:
        nonlocal connections
        connections += 1
        async for message in ws:
            await ws.send(message)
            if connections > 1:  # the first one is for the round trip
                loaded.set()

    with running(counting) as served:
        command = [sys.executable, "-m", "wsfast", "bench", "--duration", "0.1", "--rate", "500"]
        with subprocess.Popen(
            [*command, "--connections", "2", "--ramp", "100", served.uri], stdout=subprocess.PIPE, text=True
        ) as process:
            assert loaded.wait(30)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "throughput" in out


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ws://127.0.0.1:1"]) == 1
    assert "could not connect" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "0"],
        ["--size", "1:0"],
        ["--size", "99999999999"],
        ["--size", "9" * 30],
        ["--message", "\udcff"],
        ["--subscribe", "\udcff"],
        ["--compare", ""],
        ["--size", "1,x"],
        ["--duration", "-1"],
        ["--window", "x"],
        ["--rate", "0"],
        ["--rate", "1", "--subscribe", ""],
        ["--message", "a", "--subscribe", ""],
        ["--any-answer", "--subscribe", ""],
        ["--require", "p99<5ms", "--subscribe", ""],
        ["--message", "a", "--size", "1"],
        ["--message", "a", "--text"],
        ["--require", "p98<5ms"],
        ["--require", "p99<5"],
        ["--require", "p99=5ms"],
        ["--require", "p99<.ms"],
        ["--require", "rate>5ms"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments, "ws://127.0.0.1:1"])
    assert caught.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("python -m wsfast bench: error: ")
    assert told[1:] == ["python -m wsfast bench --help lists what can be given"]


def test_the_progress_bar_is_drawn_in_a_terminal() -> None:
    master, slave = pty.openpty()
    try:
        with running() as served:
            command = [sys.executable, "-m", "wsfast", "bench", "--duration", "0.5", served.uri]
            environment = {**os.environ, "TERM": "xterm"}
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=slave, timeout=30, check=False, env=environment
            )
        os.close(slave)
        slave = -1
        drawn = read_terminal(master).decode()
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)
    assert done.returncode == 0
    assert "round trip   [" in drawn
    assert "#" in drawn
    assert "throughput   [" in drawn
    assert "\r\x1b[J" in drawn
    assert "  <= " in drawn, "the histogram as it is so far"
    assert drawn.endswith("\r\x1b[J")
