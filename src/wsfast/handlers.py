"""Checks of a handler when it is registered, so that a mistake raises then, and not at the first connection."""

from __future__ import annotations

import dis
import functools
import inspect
from types import CodeType, FunctionType
from typing import Any

__all__ = ["check_handler", "check_plain_handler", "handler_name"]


def check_handler(handler: object, *arguments: str) -> None:
    """Check that a handler can be called with the arguments, and that what it returns can be awaited.

    In doubt a handler passes: a function that returns something may return an awaitable, and a callable without a
    signature, as some written in C, may take any arguments.

    Args:
        handler: a function, a method, a `functools.partial`, or another callable.
        arguments: the names of what it will be called with.

    Raises:
        TypeError: the handler cannot serve; the text says why.
    """
    _check_call(handler, arguments)
    function = _function_of(handler)
    expected = f"a handler must be a coroutine function: async def handler({', '.join(arguments)})"
    if isinstance(function, type) and not hasattr(function, "__await__"):
        raise TypeError(f"{expected}; {handler_name(handler)} is a class: see register_listener")
    if isinstance(function, FunctionType) and function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return  # made by `types.coroutine`
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{expected}; {handler_name(handler)} yields")
    if isinstance(function, FunctionType) and not inspect.iscoroutinefunction(function) and _returns_nothing(function):
        raise TypeError(f"{expected}; {handler_name(handler)} is a plain function that returns nothing")


def check_plain_handler(handler: object, *arguments: str) -> None:
    """Check that a handler that runs in a thread can be called with the arguments, and is no coroutine function.

    Args:
        handler, arguments: as for `check_handler`.

    Raises:
        TypeError: the handler cannot serve; the text says why.
    """
    _check_call(handler, arguments)
    if inspect.iscoroutinefunction(_function_of(handler)):
        raise TypeError(f"a handler must be a plain function here, got the coroutine function {handler_name(handler)}")


def handler_name(handler: object) -> str:
    """Return the name of a handler for the text of an error."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return str(getattr(handler, "__qualname__", None) or type(handler).__qualname__)


def _check_call(handler: Any, arguments: tuple[str, ...]) -> None:
    if not callable(handler):
        raise TypeError(f"a handler must be callable, got {type(handler).__name__}")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError as exc:
        wanted = f"{len(arguments)} argument{'s' * (len(arguments) != 1)} ({', '.join(arguments)})"
        text = f"a handler must take {wanted}, got {handler_name(handler)}{signature}: {exc}"
        if arguments == ("ws",) and _takes(signature, "ws", "path"):
            text += "; the path is ws.request.path"
        raise TypeError(text) from None


def _takes(signature: inspect.Signature, *arguments: str) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _function_of(handler: Any) -> Any:
    """Return the function behind methods, partials and callable objects, as far as there is one."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif inspect.ismethod(handler):
            handler = handler.__func__
        elif isinstance(handler, (FunctionType, type)):
            return handler
        else:
            call = getattr(type(handler), "__call__", None)  # noqa: B004 - it is looked at, not asked whether it is there
            return call if isinstance(call, FunctionType) else handler


def _returns_nothing(function: FunctionType) -> bool:
    """Tell whether each way out of a function returns None."""
    if not isinstance(function.__code__, CodeType):
        return False  # PyPy's own functions are of this type, too
    returns = []
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(function):
        if instruction.opname == "RETURN_CONST":
            returns.append(instruction.argval is None)
        elif instruction.opname == "RETURN_VALUE":
            # CPython 3.15 has LOAD_COMMON_CONSTANT.
            names = ("LOAD_CONST", "LOAD_COMMON_CONSTANT")
            returns.append(before is not None and before.opname in names and before.argval is None)
        before = instruction
    return bool(returns) and all(returns)
