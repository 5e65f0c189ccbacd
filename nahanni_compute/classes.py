"""Classes that went out by value and come back stay as they are here.

Cloudpickle knows such a class again by an id, and then sets its attributes to what the other side had: methods with other
globals, a registry or counter of the class as it is there. Right where the class was made by reading, so that the next version of
it is seen; wrong in the process that defined it, where that would change the user's program.
"""

from __future__ import annotations

import io
import pickle
from typing import Any
from weakref import WeakSet

from cloudpickle import cloudpickle

_MODULE = "cloudpickle.cloudpickle"
_MARKER = b"_class_setstate"  # in every pickle of a class by value

_made: WeakSet[type] = WeakSet()  # by reading, in this process


def read(data: bytes) -> Any:
    """Unpickle; classes that this process defined are not changed by it."""
    return _Reader(io.BytesIO(data)).load() if _MARKER in data else pickle.loads(data)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module == _MODULE and name in ("_make_skeleton_class", "_make_skeleton_enum"):
            return lambda *arguments: _make(found, arguments)
        if module == _MODULE and name == "_class_setstate":
            return lambda cls, state: found(cls, state) if cls in _made else cls
        return found


def _make(make: Any, arguments: tuple[Any, ...]) -> type:
    known = any(isinstance(argument, str) and argument in cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID for argument in arguments)
    cls: type = make(*arguments)
    if not known:
        _made.add(cls)
    return cls
