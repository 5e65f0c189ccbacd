"""Functions as the region knows them: one block a function, found again while nothing it refers to was rebound.

A rebound global or closure cell is seen by the next call, an object changed in place is not (API.md). So a cached function
remembers what its names stood for, and those of what it refers to; most have none, and cost one dictionary look-up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType
from typing import Any

from nahanni_compute.bindings import Binding, bindings_of
from nahanni_compute.pickling import dumps_code

CACHED_MAX = 512  # functions that a process keeps pickled though no bundle uses them
CACHED_BYTES_MAX = 4 << 20

Fn = Callable[..., Any]


class Function:
    """A function's block. Bundles that may run it hold it; `on_drop` is told when nobody does any more."""

    __slots__ = ("block", "id", "names", "on_drop")

    def __init__(self, id: int, block: tuple[int, int], names: list[Binding], on_drop: Callable[[tuple[int, int]], None]) -> None:
        self.id, self.block, self.names, self.on_drop = id, block, names, on_drop

    def is_current(self) -> bool:
        """Whether all its names stand for what they stood for."""
        return all(binding.holds() for binding in self.names)

    def __del__(self) -> None:
        self.on_drop(self.block)  # finalizers run anywhere: it only appends (M5)


class FunctionTable:
    """What this process has put into the region. `publish(blob) -> (id, block)`, `free(block)` when nobody uses it."""

    def __init__(self, publish: Callable[[bytes], tuple[int, tuple[int, int]]], free: Callable[[tuple[int, int]], None]) -> None:
        self._publish, self._free = publish, free
        self._cached: OrderedDict[Fn, Function] = OrderedDict()
        self._cached_bytes = 0
        self.plain: dict[Fn, Function] = {}  # those without names: no check needed, so `submit` looks here first

    def of(self, fn: Fn) -> Function:
        """The block of `fn`, pickled anew when it or what it refers to has changed. Raises UnpicklableError."""
        try:
            known = self._cached.get(fn)
        except TypeError:  # not hashable, so not found again either
            return self._made(fn)
        if known is not None and known.is_current():
            return known
        self._forget(fn)
        made = self._cached[fn] = self._made(fn)
        self._cached_bytes += made.block[1]
        if not made.names and isinstance(fn, FunctionType):
            self.plain[fn] = made
        while len(self._cached) > CACHED_MAX or self._cached_bytes > CACHED_BYTES_MAX:
            self._forget(next(iter(self._cached)))
        return made

    def _forget(self, fn: Fn) -> None:
        known = self._cached.pop(fn, None)
        if known is not None:
            self._cached_bytes -= known.block[1]
            self.plain.pop(fn, None)

    def _made(self, fn: Fn) -> Function:
        names = bindings_of(fn)
        id, block = self._publish(dumps_code(fn))
        return Function(id, block, names, self._free)

    def clear(self) -> None:
        """Forget all."""
        self._cached.clear()
        self.plain.clear()
