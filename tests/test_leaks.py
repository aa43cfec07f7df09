"""The short version of ``python -m tests.leaks``."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from leaks import BATCH, STAGES, Leaks, make_contexts


@pytest.mark.anyio
async def test_messages_and_dropped_connections_leave_nothing(
    anyio_backend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    leaks = Leaks(messages=5_000, connections=60, contexts=make_contexts())
    await leaks.run()
    assert leaks.failures == []
    assert capsys.readouterr().out.count("ok\n") == 6 + len(STAGES)


@pytest.mark.anyio
async def test_a_leak_is_found(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    leaks = Leaks(messages=0, connections=0, contexts=make_contexts())
    kept: list[Any] = []

    async def leaky(count: int) -> None:
        kept.extend(bytearray(100) for _ in range(count))

    leaks.server = _Idle()
    tracemalloc.start(1)
    try:
        await leaks.measure("leaky", 10 * BATCH, leaky)
    finally:
        tracemalloc.stop()
    assert len(leaks.failures) == 1
    assert "bytes of Python objects" in leaks.failures[0]


class _Idle:
    counters = {"connections": 0, "handshakes": 0}  # noqa: RUF012
