"""Runs the fuzzer against a server or a client, its cases split over several pairs of processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .processes import Children, free_port, wait_listening
from .suite import COMPRESSION_GROUPS, FUZZER, Outcome, Result, group_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Target:
    """What is checked: one side of wsfast with one codec on one loop, or a given command."""

    side: str
    codec: str = ""
    loop: str = ""
    listener: bool = False
    command: str = ""
    tls: bool = False

    @property
    def label(self) -> str:
        if self.command:
            return f"{self.side} by command" + ", TLS" * self.tls
        return ", ".join([self.side, self.codec, self.loop] + ["listener"] * self.listener + ["TLS"] * self.tls)

    def url(self, port: int) -> str:
        """Return the URL of what listens, the server or the fuzzer."""
        # The certificate names this address; the suite's client checks none.
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{port}"

    def argv(self, port: int, deflate: bool, certificates: Path) -> list[str]:
        """Return the command of what is checked.

        Args:
            port: on which it, or the fuzzer, listens.
            deflate: whether to agree to compression.
            certificates: the folder of the server's and the authority's, for TLS.
        """
        url = self.url(port)
        if self.command:
            return [word.replace("{port}", str(port)).replace("{url}", url) for word in shlex.split(self.command)]
        argv = [sys.executable, str(HERE / f"echo_{self.side}.py"), str(port) if self.side == "server" else url]
        argv += ["--loop", self.loop, "--codec", self.codec, "--compression", "deflate" if deflate else "none"]
        if self.tls:
            argv += ["--tls", str(certificates / ("server.pem" if self.side == "server" else "authority.pem"))]
        return argv + ["--listener"] * self.listener

    def environ(self) -> dict[str, str]:
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if not self.command:
            env.pop("WSFAST_PURE_PYTHON", None)
            if self.codec == "python":
                env["WSFAST_PURE_PYTHON"] = "1"
        return env


@dataclass(frozen=True)
class _Pair:
    """A fuzzer and what it checks."""

    target: Target
    cases: Sequence[str]
    port: int
    argv: list[str]
    fuzzer: list[str]
    log: IO[bytes]
    fuzzer_log: IO[bytes]


@dataclass
class Runner:
    """Runs targets.

    Args:
        python27: the Python of the suite's environment.
        out: directory for the logs, and for the suite's own pages when `pages`.
        jobs: pairs of fuzzer and target that run at once.
        stall: seconds without any result, or without listening, after which a pair is given up.
        on_result: called with each result as it comes.
    """

    python27: Path
    children: Children
    out: Path
    pages: bool
    jobs: int
    stall: float
    on_result: Callable[[Target, Result], None]

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.jobs)

    async def run(self, target: Target, cases: Sequence[str]) -> Outcome:
        """Run the cases and return what came of each; one that has no result is MISSING."""
        outcome = Outcome(target.label)
        begun = time.monotonic()
        # Dealt out one by one, so that the slow cases, which stand together, are spread.
        shards = [cases[n :: self.jobs] for n in range(min(self.jobs, len(cases)))]
        async with asyncio.TaskGroup() as group:
            for number, shard in enumerate(shards):
                group.create_task(self._shard(target, outcome, shard, number, _compresses(cases)))
        outcome.seconds = time.monotonic() - begun
        for case in cases:
            outcome.results.setdefault(case, Result.missing(case))
        return outcome

    async def _shard(self, target: Target, outcome: Outcome, cases: Sequence[str], number: int, deflate: bool) -> None:
        async with self._slots:
            name = target.label.replace(", ", "-").replace(" ", "-")
            directory = self.out / f"{name}-{number}"
            directory.mkdir(parents=True)
            port = free_port()
            url = target.url(port)
            certificates = self.out / "certificates"
            if target.tls and not certificates.exists():
                sys.path.insert(0, str(HERE.parent))
                from certificates import make_certificates  # needs `cryptography`

                certificates.mkdir()
                make_certificates(certificates)
            spec: dict[str, object] = {"outdir": str(directory / "pages"), "reports": self.pages, "cases": cases}
            if target.side == "server":
                mode, spec["servers"] = "fuzzingclient", [{"agent": "wsfast", "url": url}]
            else:
                mode, spec["url"] = "fuzzingserver", url
                if target.tls:
                    spec["key"] = spec["cert"] = str(certificates / "server.pem")
            (directory / "spec.json").write_text(json.dumps(spec))
            fuzzer = [str(self.python27), "-u", str(FUZZER), mode, str(directory / "spec.json")]
            known = len(outcome.problems)
            with (directory / "target.log").open("wb") as log, (directory / "fuzzer.log").open("wb") as fuzzer_log:
                pair = _Pair(target, cases, port, target.argv(port, deflate, certificates), fuzzer, log, fuzzer_log)
                status = await (self._server if target.side == "server" else self._client)(pair, outcome)
            said = (directory / "target.log").read_text("utf-8", "replace")
            if status:
                outcome.problems.append(f"the {target.side} ended with status {status}\n{_tail(said)}".rstrip())
            elif not target.command and "Traceback" in said:
                # Nothing that the suite does is an error of the program under test.
                outcome.problems.append(f"the {target.side} logged a traceback:\n{_tail(said)}")
            said = (directory / "fuzzer.log").read_text("utf-8", "replace")
            if said and len(outcome.problems) == known and any(case not in outcome.results for case in cases):
                # Nothing else explains the missing results.
                outcome.problems.append(f"the fuzzer's last words:\n{_tail(said)}")

    async def _server(self, pair: _Pair, outcome: Outcome) -> int:
        """Run the server and the fuzzing client against it; return the server's exit status."""
        target = pair.target
        async with self.children.run(pair.argv, log=pair.log, env=target.environ()) as server:
            if not await wait_listening(pair.port, server, self.stall):
                if server.returncode is None:
                    outcome.problems.append(f"the server did not listen within {self.stall:g} s")
                return server.returncode or 0
            async with self.children.run(pair.fuzzer, log=pair.fuzzer_log, pipe=True) as fuzzer:
                await self._read(pair, outcome, fuzzer)
            died = server.returncode
            if died is not None:
                outcome.problems.append("the server ended before the fuzzer did")
        # One by command may die of the signal that stops it; ours ends in order.
        return (died if target.command else server.returncode) or 0

    async def _client(self, pair: _Pair, outcome: Outcome) -> int:
        """Run the fuzzing server and the client against it; return the client's exit status."""
        async with (
            self.children.run(pair.fuzzer, log=pair.fuzzer_log, pipe=True) as fuzzer,
            asyncio.TaskGroup() as group,
        ):
            reading = group.create_task(self._read(pair, outcome, fuzzer))
            status = 0
            if await wait_listening(pair.port, fuzzer, self.stall):
                async with self.children.run(pair.argv, log=pair.log, env=pair.target.environ()) as client:
                    ended = group.create_task(client.wait())
                    # Reading ends after the last result, while the client has still to ask for the reports; or for
                    # want of results.
                    await asyncio.wait([ended, reading], return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.wait([ended], timeout=5)
                    if ended.done():
                        status = ended.result()
                        # The fuzzer may tell its last result only after the client has gone.
                        await asyncio.wait([reading], timeout=3)
                    else:
                        outcome.problems.append("the client did not end")
            else:
                outcome.problems.append("the fuzzing server did not listen")
            reading.cancel()
            if self.pages and fuzzer.returncode is None:
                # By this signal it ends, after it has written its pages.
                fuzzer.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(fuzzer.wait(), 60)
            return status

    async def _read(self, pair: _Pair, outcome: Outcome, fuzzer: asyncio.subprocess.Process) -> None:
        """Take the results that the fuzzer tells, until it ends, a fuzzing server has told all, or time is up."""
        assert fuzzer.stdout is not None
        awaited = set(pair.cases)
        deadline = time.monotonic() + self.stall
        while awaited or pair.target.side == "server":
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    line = await fuzzer.stdout.readline()
            except TimeoutError:
                outcome.problems.append(f"given up after {self.stall:g} s without a result")
                return
            if not line:
                return
            if line.startswith(b"@"):
                told = json.loads(line[1:])
                if "case" in told:
                    deadline = time.monotonic() + self.stall
                    result = Result.told(told)
                    outcome.results[result.case] = result
                    awaited.discard(result.case)
                    self.on_result(pair.target, result)


def _compresses(cases: Sequence[str]) -> bool:
    return any(group_of(case) in COMPRESSION_GROUPS for case in cases)


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
