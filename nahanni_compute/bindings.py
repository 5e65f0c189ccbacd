"""What a task refers to by name, so that a name that was rebound since is noticed.

Followed are functions, methods, partials, objects that can be called and classes, as deep as they go, and modules by the names
that are looked up in them; not what is installed: it does not travel, so a rebound name in it is nobody's here. What objects and
containers hold besides is not looked at: changed in place is not rebound (API.md).
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from nahanni_compute.pickling import is_local

Scope = dict[str, Any] | CellType

_MISSING = object()


class Binding:
    """One name or cell, and what it stood for."""

    __slots__ = ("key", "value", "where")

    def __init__(self, where: Scope, key: str, value: object) -> None:
        self.where, self.key, self.value = where, key, value

    def holds(self) -> bool:
        """Whether it still stands for that."""
        return _look_up(self.where, self.key) is self.value


def _look_up(where: Scope, key: str) -> object:
    if isinstance(where, dict):
        return where.get(key, _MISSING)
    try:
        return where.cell_contents
    except ValueError:
        return _MISSING


def bindings_of(fn: object) -> list[Binding]:
    """Every global and cell that `fn` and what it refers to may look up."""
    found: dict[tuple[int, str], Binding] = {}
    seen: dict[int, object] = {}  # the objects too, so that no id is used again meanwhile
    todo = [fn]
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, FunctionType):
            for where, name in _names_of(value):
                binding = found.setdefault((id(where), name), Binding(where, name, _look_up(where, name)))
                todo.append(binding.value)
        todo.extend(_parts_of(value))
    return list(found.values())


def _names_of(fn: FunctionType) -> Iterator[tuple[Scope, str]]:
    cells = list(zip(fn.__closure__ or (), fn.__code__.co_freevars, strict=True))
    yield from cells
    names = dict.fromkeys(_names_in(fn.__code__))
    values = [_look_up(*cell) for cell in cells]
    if _travels(fn.__globals__.get("__name__")):
        yield from ((fn.__globals__, name) for name in names if name in fn.__globals__ or not hasattr(builtins, name))
        values += [fn.__globals__.get(name) for name in names]
    modules = {id(value): value for value in values if isinstance(value, ModuleType)}
    for module in (todo := list(modules.values())):  # grows: a package, then its modules
        if _travels(module.__name__):
            yield from ((module.__dict__, name) for name in names)
            inner = [value for name in names if isinstance(value := module.__dict__.get(name), ModuleType) and id(value) not in modules]
            modules.update({id(value): value for value in inner})
            todo += inner


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _parts_of(value: object) -> list[object]:
    """What may be called when `value` is."""
    if isinstance(value, FunctionType):
        return [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, ModuleType):
        return []
    if isinstance(value, type):
        return [*value.__bases__, *vars(value).values()] if _travels(value.__module__) else []
    held = getattr(value, "__dict__", None)
    called = [part for part in held.values() if callable(part)] if isinstance(held, dict) else []
    return [type(value), *called]


def _travels(name: object) -> bool:
    """Whether what this module defines travels by value."""
    if name in ("__main__", "__mp_main__"):
        return True
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module is None or is_local(module)
