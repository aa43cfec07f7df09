"""Imports go one way, from the shell down to the codes (docs/design.md has the chain)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src/wsfast"  # an installation has no .pyx

FLOORS = {
    "words": ["_built", "_version", "codes", "escape", "events", "exceptions", "http", "octets", "options", "telling"],
    "frames": ["_codec", "_codec_py", "codec", "assembly", "closing", "connection", "extensions", "session"],
    "opening": ["handshake", "deflate"],
    # What is above this line (later in the list) may use asyncio and sockets; what is below it may not.
    "transport": ["handlers", "limits", "shell", "transport", "dial", "serving"],
    "asyncio": ["asyncio"],
    "many": ["bus", "topics"],
    "users": ["server", "client"],
}
"""The floors of the house. A room, which is a package or a module of the top level, imports from its own floor and from
those before it, and rooms never import each other in a circle. A room that stands nowhere is optional: it may import
all, and none of these imports it."""

RANK = {name: floor for floor, names in enumerate(FLOORS.values()) for name in names}
SANS_IO = {name for floor in ("words", "frames", "opening") for name in FLOORS[floor]}
TOP = len(FLOORS)


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


def room(name: str) -> str:
    """Return the room that a module stands in."""
    return name.split(".")[0]


def internal(name: str) -> set[str]:
    """Return the modules of the package that a module imports, as far as they are there."""
    found = set()
    for target in imported(name):
        parts = target.split(".")
        if parts[0] == "wsfast":
            # `from .package import name` imports the package's `__init__`, or a module of it.
            for known in (".".join(parts[1:]), ".".join(parts[1:-1]), ".".join([*parts[1:], "__init__"])):
                if known in SOURCES:
                    found.add(known)
                    break
            else:
                package = ".".join([*parts[1:-1], "__init__"])
                found.add(package if package in SOURCES else ".".join(parts[1:]))
    return found


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the names along a circle, or nothing."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(edges.get(name, ())):
            found = visit(target)
            if found:
                return found
        path.pop()
        done.add(name)
        return []

    for name in edges:
        found = visit(name)
        if found:
            return found
    return []


def test_the_walk_sees_imports() -> None:
    assert internal("codec") == {"_built", "_codec", "_codec_py"}
    assert {"codes", "events", "exceptions"} <= internal("_codec_py")
    assert {"events", "exceptions"} <= internal("_codec")
    assert {"_codec", "events", "exceptions"} <= internal("asyncio._channel")
    assert {"handshake.accept", "handshake.offer"} <= internal("handshake.__init__")
    assert {"os", "asyncio"} & set(imported("_codec")) == {"os"}


def test_the_check_finds_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_the_codes_import_nothing() -> None:
    assert internal("codes") == set()


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name) in RANK])
def test_imports_go_down(name: str) -> None:
    mine = RANK[room(name)]
    wrong = {target for target in internal(name) if RANK.get(room(target), TOP) > mine}
    assert not wrong, f"{name} imports {sorted(wrong)}: of a higher floor, or of none"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circle({name: internal(name) - {name} for name in SOURCES})


def test_no_rooms_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for name in SOURCES:
        if name not in ("__init__", "__main__"):
            edges.setdefault(room(name), set()).update(room(target) for target in internal(name))
    assert not circle({name: targets - {name} for name, targets in edges.items()})


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("__init__", "__main__")])
def test_nobody_imports_the_package_itself(name: str) -> None:
    """Its names are for users; in the package they would make a circle."""
    wrong = {target for target in imported(name) if target.split(".")[0] == "wsfast"}
    assert "__init__" not in internal(name), sorted(wrong)


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name) in SANS_IO])
def test_sans_io(name: str) -> None:
    """The sans-IO floors work without asyncio, sockets, clocks or threads."""
    forbidden = {
        "asyncio",
        "concurrent",
        "multiprocessing",
        "select",
        "selectors",
        "socket",
        "ssl",
        "threading",
        "time",
    }
    allowed = {"deflate.context": {"threading", "time"}, "deflate.negotiate": {"time"}}.get(name, set())
    assert not (forbidden - allowed) & {target.split(".")[0] for target in imported(name)}


@pytest.mark.parametrize("name", [name for name in SOURCES if room(name) in ("asyncio", "server", "client")])
def test_the_shell_knows_no_opcodes(name: str) -> None:
    """It moves bytes; what a frame means is the connection's. The exceptions encode for many, or on the hot path."""
    if name in ("asyncio._channel_py", "asyncio._channel", "asyncio.broadcast"):
        return
    names = {node.id for node in ast.walk(ast.parse(SOURCES[name].read_text())) if isinstance(node, ast.Name)}
    assert not names & {"Opcode", "encode_frame", "Decoder"}


WALL_CLOCK = {"cli.client", "cli.serve", "bus.nats"}
"""Where the time of day is shown, or compared with that of a server which tells no other."""


def test_nothing_is_timed_by_a_clock_that_is_set() -> None:
    """The time of day may be set while the program runs, and is another on each host."""
    calls = re.compile(r"\btime\.time(_ns)?\(|\bfrom time import [^\n]*\btime\b|\bdatetime\.(now|utcnow|today)\(")
    found = {name for name, path in SOURCES.items() if calls.search(path.read_text())}
    assert found == WALL_CLOCK


DIRECT = re.compile(r"logger\.(?:debug|info|warning|error|exception|critical|log)\(")
"""A call of a logger, whose handlers, filters and adapters are the program's and may raise."""


def test_the_log_is_told_by_tell() -> None:
    """Else a log that fails ends what told it half-way; drop-in classes log where `websockets` does, as it does."""
    apart = ("cli", "websockets", "workers")
    texts = {name: path.read_text() for name, path in SOURCES.items() if name.split(".")[0] not in apart}
    assert not {name: found for name, text in texts.items() if (found := DIRECT.findall(text))}
