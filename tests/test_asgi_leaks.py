"""Nothing is kept of the connections to an ASGI application; `python -m tests.asgi_leaks` opens more."""

from __future__ import annotations

import logging

import pytest
from asgi_helpers import WAYS
from asgi_leaks import look

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("way", list(WAYS))
async def test_leaks(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.error")  # of applications that raise, each traceback is kept by pytest
    assert await look(140, **WAYS[way])
