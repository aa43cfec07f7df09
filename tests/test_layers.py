"""Imports go one way, from the shell down to the codes (docs/design.md has the chain)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsfast

PACKAGE = Path(wsfast.__file__).parent

LAYERS = [
    ["_version", "codes"],
    ["events"],
    ["exceptions"],
    ["_codec", "_codec_py"],
    ["codec"],
    ["_zlib", "headers", "uri"],
    ["_request", "_request_py"],
    ["_permessage", "http11"],
    ["deflate", "handshake"],
    ["connection"],
    # What is above this line may use asyncio; what is below it (earlier in the list) may not.
    ["_channel", "_channel_py", "_tls", "_tls_py", "addresses", "timers", "transports"],
    ["channel", "tls"],
    ["listener", "streams", "websocket"],
    ["protocol"],
    ["opening", "proxy", "reconnect", "upgrade"],
    ["dial"],
    ["broadcast", "client", "server"],
]
"""A module imports from earlier rows only. One that stands in no row is optional: it may import all, and none of these
imports it."""

RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
SANS_IO = [name for name in RANK if RANK[name] <= RANK["connection"]]
TOP = len(LAYERS)


def sources() -> dict[str, Path]:
    """Return the modules that are there, by their names in the package."""
    found = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts)] = path
    return found


SOURCES = sources()


class Imports(ast.NodeVisitor):
    """Collect what a module imports when it runs, in functions too; what is for types only does not count."""

    def __init__(self, package: list[str]) -> None:
        self.package = package
        self.names: list[str] = []

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = node.module.split(".") if node.module else []
        if node.level:
            origin = self.package[: len(self.package) - node.level + 1] + origin
        self.names += [".".join([*origin, alias.name]) for alias in node.names]


def imported(name: str) -> Iterator[str]:
    """Yield the absolute names that a module imports."""
    path = SOURCES[name]
    package = ["wsfast", *name.split(".")[:-1]]
    text = path.read_text()
    if path.suffix == ".pyx":
        # Cython is no Python, but its imports are: find them line by line.
        lines = re.findall(r"^\s*(?:from\s+\S+\s+c?import\s+\S.*|c?import\s+\S.*)$", text, re.MULTILINE)
        text = "\n".join(
            re.sub(r"\(\s*$", "something", line.strip()).replace("cimport", "import").split("#")[0].strip(" ,")
            for line in lines
        )
    visitor = Imports(package)
    visitor.visit(ast.parse(text))
    yield from visitor.names


def internal(name: str) -> set[str]:
    """Return the modules of the package that a module imports; for one of a subpackage, the subpackage counts."""
    found = set()
    for target in imported(name):
        parts = target.split(".")
        if parts[0] == "wsfast" and len(parts) > 1:
            found.add(parts[1])
    return found


def test_the_walk_sees_imports() -> None:
    assert internal("codec") == {"_codec", "_codec_py"}
    assert {"codes", "events", "exceptions"} <= internal("_codec_py")
    assert {"events", "exceptions"} <= internal("_codec")
    assert "server" in internal("__init__")
    assert "os" in set(imported("_codec"))


def test_the_codes_import_nothing() -> None:
    assert internal("codes") == set()


@pytest.mark.parametrize("name", [name for name in SOURCES if name in RANK])
def test_imports_go_down(name: str) -> None:
    wrong = {target for target in internal(name) if RANK.get(target, TOP) >= RANK[name]}
    assert not wrong, f"{name} imports {sorted(wrong)}: later in the chain, or without a place in it"


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in RANK])
def test_nothing_goes_round(name: str) -> None:
    """The package itself is imported by nobody in it: its name would make a cycle."""
    if name.split(".")[-1] == "__init__" or "." in name or name == "__main__":
        return
    assert f"wsfast.{name}" not in set(imported(name))


@pytest.mark.parametrize("name", [name for name in SOURCES if name in SANS_IO])
def test_sans_io(name: str) -> None:
    """Everything up to `connection` works without asyncio, sockets, clocks or threads."""
    forbidden = {"asyncio", "concurrent", "multiprocessing", "select", "selectors", "socket", "ssl", "time", "uvloop"}
    assert not forbidden & {target.split(".")[0] for target in imported(name)}


@pytest.mark.parametrize("name", [name for name in ("protocol", "server", "client", "upgrade") if name in SOURCES])
def test_the_shell_knows_no_opcodes(name: str) -> None:
    """It moves bytes; what a frame means is the connection's."""
    names = {node.id for node in ast.walk(ast.parse(SOURCES[name].read_text())) if isinstance(node, ast.Name)}
    assert not names & {"Opcode", "encode_frame", "Decoder"}
