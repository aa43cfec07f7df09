"""What is public: `__all__` of each public module, and of the package."""

from __future__ import annotations

import ast
import importlib
import inspect
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import wsfast
import wsfast.asyncio.protocol
import wsfast.server.accepting

PACKAGE = Path(wsfast.__file__).parent


def public_modules() -> list[str]:
    """Return the modules whose names say that they are public, packages by their own names."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return sorted(found)


MODULES = public_modules()
"""The public modules. `__init__` is one too, and is tested like them."""

WHOLE = [
    "client.connector",
    "codec",
    "codes",
    "exceptions",
    "asyncio.listener",
    "asyncio.websocket",
]
"""Modules of which every public name is one of the package's too."""


def load(name: str) -> ModuleType:
    with warnings.catch_warnings():
        # Some modules of `wsfast.websockets` are there for their deprecation.
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"wsfast.{name}")


def reexported() -> dict[str, str]:
    """Return the names that `__init__` imports, each with the module that it names."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                assert alias.asname in (None, alias.name)
                names[alias.name] = node.module
    return names


@pytest.mark.parametrize("name", [*MODULES, "__init__"])
def test_every_public_module_says_what_is_public(name: str) -> None:
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    if not path.exists():
        path = PACKAGE / name.replace(".", "/") / "__init__.py"
    tree = ast.parse(path.read_text())
    literals = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    assert len(literals) == 1, "one literal __all__"
    (names,) = literals
    assert len(set(names)) == len(names)
    assert not [public for public in names if public.startswith("_") and public != "__version__"]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name: str) -> None:
    try:
        module = load(name)
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] == "wsfast":
            raise
        pytest.skip(f"{name} needs the optional {exc.name}")
    assert module.__doc__
    for public in module.__all__:
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert inspect.getdoc(thing), public


def test_all_of_the_package_is_what_it_imports() -> None:
    assert set(wsfast.__all__) == {*reexported(), "__version__"}
    assert len(set(wsfast.__all__)) == len(wsfast.__all__)
    for name in wsfast.__all__:
        assert hasattr(wsfast, name), name
        assert not isinstance(getattr(wsfast, name), ModuleType), f"{name} is a module"


def test_the_package_exports_public_names_only() -> None:
    for name, module in reexported().items():
        assert name in load(module).__all__, f"{name} of {module}"
        assert getattr(wsfast, name) is getattr(load(module), name)


@pytest.mark.parametrize("name", [name for name in WHOLE if name in MODULES])
def test_the_package_exports_all_of(name: str) -> None:
    assert set(load(name).__all__) <= set(wsfast.__all__)


def test_a_star_import_gives_them() -> None:
    names: dict[str, object] = {}
    exec("from wsfast import *", names)
    assert set(wsfast.__all__) <= set(names)


@pytest.mark.parametrize("interface", [wsfast.asyncio.protocol.Host, wsfast.server.accepting.Acceptor])
def test_what_connections_call_of_their_server_is_not_public(interface: type) -> None:
    """`help(Server)` shows what a user may call."""
    called = [name for name, member in vars(interface).items() if inspect.isfunction(member)]
    assert called
    assert [name for name in called if not name.startswith("_")] == []
