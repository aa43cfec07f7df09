"""Fixtures that every test may use: the codec twins and the event loops."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(params=["_codec", "_codec_py"], ids=["cython", "python"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """Each codec twin. A missing extension is an error, never a skip."""
    return importlib.import_module(f"wsfast.{request.param}")


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop that wsfast supports."""
    return request.param
