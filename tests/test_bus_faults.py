"""A short form of `tests.bus_faults`, which runs for minutes as ``python -m tests.bus_faults``."""

from __future__ import annotations

from pathlib import Path

import pytest
from bus_faults.scenarios import SCENARIOS
from engines import REDISES, engine

pytestmark = [pytest.mark.anyio, pytest.mark.engines]


@pytest.mark.parametrize("name", list(SCENARIOS))
async def test_faults(name: str, tmp_path: Path) -> None:
    with engine(REDISES[0], tmp_path) as server:
        outcome = await SCENARIOS[name](server, 1 if "hang" in name else 2)
        assert outcome["sent"] > 100


async def test_nats_killed_with_histories(tmp_path: Path) -> None:
    with engine("nats-server", tmp_path) as server:
        outcome = await SCENARIOS["engine killed, history"](server, 1)
        assert outcome["sent"] > 100
