"""Fixtures that every test may use: the codec twins and the event loops."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import re
import signal
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import hypothesis
import pytest

from wsfast._built import EXTENSIONS

if TYPE_CHECKING:
    from certificates import Certificates


# On a machine that is busy, to make an example or to run it may take any time.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


LONGEST = ("site", "uvicorn", "autobahn", "frameworks", "package", "faulty_calls", "tls", "bus_faults", "topics_bus")
"""Files that take a minute and more, by their names after ``test_``: they run first, so that no worker is left alone
with one in the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Have xdist begin with what comes first: it would put files of few tests last, and these are the slow ones."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files, and skip, and say why in the summary, what is about readers on a loop that has none."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        marker = item.get_closest_marker("readers")
        loop = getattr(item, "callspec", None) and item.callspec.params.get("anyio_backend")  # type: ignore[attr-defined]
        if marker is not None and loop is WITHOUT_READERS:
            item.add_marker(pytest.mark.skip(reason=f"on a loop without add_reader: {marker.args[0]}"))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what pytest holds: 20,000 tests, and many of them ask for a collection."""
    if hasattr(gc, "freeze"):  # PyPy's collector is another
        gc.collect()
        gc.freeze()


def pytest_sessionfinish() -> None:
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()  # plugins look for what refers to their objects


SECTION = re.compile(r"(?<![\d.])\d{1,2}(?:\.\d{1,2}){1,3}(?![\d.]*\d)")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``pytest -k 7.1.7`` find tests by the sections that docstrings, theirs or their class's, name."""
    for documented in (getattr(item, "obj", None), getattr(item, "cls", None)):
        text = getattr(documented, "__doc__", None) or ""
        if "RFC" in text:
            item.extra_keyword_matches.update(SECTION.findall(text))


TWINS = {"cython": "_codec", "python": "_codec_py"} if EXTENSIONS else {"python": "_codec_py"}
"""Of a wheel that was built without extensions, only what it has."""


@pytest.fixture(params=list(TWINS.values()), ids=list(TWINS))
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """Each codec twin. A missing extension is an error, never a skip."""
    return importlib.import_module(f"wsfast.{request.param}")


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """A loop that calls nobody back when a descriptor is ready, as that of Windows, and rloop's."""

    def add_reader(self, *args: Any) -> NoReturn:  # type: ignore[override]
        raise NotImplementedError

    def add_writer(self, *args: Any) -> NoReturn:  # type: ignore[override]
        raise NotImplementedError


WITHOUT_READERS = ("asyncio", {"loop_factory": LoopWithoutReaders})
LOOPS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "without-readers": WITHOUT_READERS,
}
CHOSEN = os.environ.get("WSFAST_TEST_LOOPS", "asyncio,uvloop").split(",")
"""The loops that tests run on: with `WSFAST_TEST_LOOPS=without-readers` all are on the transports of the loop."""


@pytest.fixture(params=[LOOPS[name] for name in CHOSEN], ids=CHOSEN)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop that wsfast supports."""
    return request.param


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an authority, a server and a client, made for this run."""
    from certificates import make_certificates

    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise, in child processes too: a shell without job control has its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxies of the machine, which `connect` would use, out of the tests."""
    for name in ("http", "https", "all", "ws", "wss", "socks", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
