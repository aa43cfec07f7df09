"""Finds the program to serve by its name, and tells what kind of program it is."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from ..server import Server

__all__ = ["TargetError", "load", "resolve", "split"]


class TargetError(ValueError):
    """The name does not name a program that can be served; the text is for the user."""


def split(name: str) -> tuple[str, str]:
    """Split ``module:attribute`` in two.

    Raises:
        TargetError: it is not of that form.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise TargetError(
            f"expected the program as module:attribute, such as app:server for what app.py calls server, got {name!a}"
        )
    return module_name, path


def load(name: str) -> Any:
    """Import the object that ``module:attribute`` names.

    Raises:
        TargetError: no such module or attribute exists.
    """
    module_name, path = split(name)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise  # the module exists, and something that it imports is missing
        hint = ": leave .py away" if module_name.endswith(".py") else ""
        raise TargetError(f"there is no module {module_name!r}{hint}") from None
    target: Any = module
    for attribute in path.split("."):
        try:
            target = getattr(target, attribute)
        except AttributeError:
            raise TargetError(f"{name!r}: {module_name!r} has no {path!r}") from None
    return target


async def resolve(target: Any) -> Any:
    """Return the `Server` that a target is, or makes, or the ASGI application that it is.

    Raises:
        TargetError: the target is neither.
    """
    if isinstance(target, Server) or is_asgi(target):
        return target
    if callable(target):
        _check_call(target)
        made = target()
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, Server) or is_asgi(made):
            return made
        raise TargetError(
            f"the program must make a wsfast.Server or an ASGI application, it made {type(made).__name__}"
        )
    raise TargetError(f"the program must be a wsfast.Server or an ASGI application, got {type(target).__name__}")


def _check_call(target: Any) -> None:
    """Check that a callable can be called without arguments.

    Raises:
        TargetError: it cannot.
    """
    try:
        inspect.signature(target).bind()
    except ValueError:
        pass  # of one in C, nobody knows
    except TypeError as exc:
        name = getattr(target, "__name__", type(target).__name__)
        raise TargetError(
            "the program must be a wsfast.Server, an ASGI application, or a callable without arguments that makes one:"
            f" {name}() fails with {exc}"
        ) from None


def is_asgi(target: Any) -> bool:
    """Tell whether something is an ASGI application: what takes a scope and two functions."""
    if isinstance(target, (type, Server)) or not callable(target):
        return False
    call = target if inspect.isroutine(target) else type(target).__call__
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return False
    arguments = [None] * (3 if inspect.isroutine(target) else 4)
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
