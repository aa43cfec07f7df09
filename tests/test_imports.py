"""What an import loads: nothing that is not needed, and the names of the package when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import wsfast


def loaded(program: str) -> set[str]:
    """Return the modules that a program has loaded at its end, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def of(modules: set[str], *roots: str) -> set[str]:
    return {module for module in modules if module.split(".")[0] in roots}


@pytest.mark.parametrize("module", ["wsfast.connection", "wsfast.codec", "wsfast.deflate", "wsfast.handshake"])
def test_the_sans_io_layer_loads_neither_asyncio_nor_ssl(module: str) -> None:
    modules = loaded(f"import {module}")
    assert module in modules
    # `hashlib` takes `_hashlib` of OpenSSL, but not `ssl`.
    assert not of(modules, "asyncio", "ssl", "_ssl", "socket", "selectors", "uvloop", "trio")


def test_the_connection_loads_little() -> None:
    ours = of(loaded("import wsfast.connection"), "wsfast")
    assert not {one for one in ours if one.startswith(("wsfast.handshake", "wsfast.deflate", "wsfast.http"))}
    assert len(ours) < 15


def test_the_client_without_an_event_loop_loads_none() -> None:
    modules = loaded("import wsfast.sync; wsfast.sync.connect")
    assert not of(modules, "asyncio", "uvloop")


def test_the_package_loads_what_is_asked_for() -> None:
    assert of(loaded("import wsfast"), "wsfast") == {"wsfast", "wsfast._version"}
    assert not of(loaded("import wsfast"), "asyncio", "ssl", "multidict", "h11")
    modules = loaded("import wsfast; wsfast.Opcode; wsfast.ConnectionClosed")
    assert not of(modules, "asyncio", "ssl")
    modules = loaded("import wsfast; wsfast.connect")
    assert "wsfast.client.connector" in modules
    assert not {"wsfast.server.server", "wsfast.topics", "urllib.request", "http.client", "h11"} & modules


def test_uvicorn_without_httptools() -> None:
    """It needs it for ``--http`` only, and says how to get it."""
    without = "import sys; sys.modules['httptools'] = None; import wsfast.uvicorn as ours\n"
    loaded(without + "ours.Protocol; from wsfast.uvicorn import configure; assert not hasattr(ours, 'nothing')")
    told = "need uvicorn and httptools: pip install 'wsfast[uvicorn]'"
    for name in ("HTTP", "serve"):
        loaded(without + f"try: ours.{name}\nexcept ImportError as exc: assert {told!r} in str(exc)\nelse: raise 0")


def test_a_name_is_the_same_thing_however_it_is_reached() -> None:
    program = "import wsfast; from wsfast import Server; from wsfast.server.server import Server as S; "
    loaded(program + "assert wsfast.Server is Server is S; assert 'Server' in vars(wsfast)")


def test_modules_are_there_without_an_import_of_their_own() -> None:
    loaded(
        "import wsfast; wsfast.exceptions.InvalidURI; wsfast.sync.connect; wsfast.handshake.uri; wsfast.testing.pair"
    )


def test_names_that_are_not_there() -> None:
    for name in ("nothing_of_that_name", "_nothing", "Connector"):
        with pytest.raises(AttributeError, match=f"module 'wsfast' has no attribute '{name}'"):
            getattr(wsfast, name)
        assert not hasattr(wsfast, name)
    with pytest.raises(ImportError, match="cannot import name 'nothing_of_that_name' from 'wsfast'"):
        exec("from wsfast import nothing_of_that_name")


def test_dir_names_all() -> None:
    assert set(wsfast.__all__) <= set(dir(wsfast))
    loaded("import wsfast; assert set(wsfast.__all__) <= set(dir(wsfast))")


def test_a_star_import_gives_all() -> None:
    loaded("from wsfast import *; import wsfast; assert set(wsfast.__all__) <= set(globals())")


def test_checkers_and_python_are_told_the_same() -> None:
    from test_public_names import reexported

    told = {name: module for name, module in reexported().items() if module != "_version"}
    assert told == wsfast._MODULES
