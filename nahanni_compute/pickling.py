"""Code and values that travel: what goes by reference, what by value, and what to say when neither works.

Plain pickle first, cloudpickle only where it is needed: five to eight times cheaper for arguments. A module that is not
installed (not under site-packages, the standard library, or an editable install) travels by value: the other side has no such
file. An exception travels with the text of its traceback, and keeps its own type.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import pickle
import site
import sys
import sysconfig
import threading
import traceback
from collections import ChainMap
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar

import cloudpickle

from nahanni_compute import classes
from nahanni_compute.errors import UnpicklableError

PROTOCOL = 5


class RemoteTraceback(Exception):
    """The cause of an exception that came from a task: the traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n\n" + self.text


@lru_cache(maxsize=1)
def _installed_roots() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    roots = {sysconfig.get_path(name) for name in names} | set(site.getsitepackages()) | {site.getusersitepackages()}
    return tuple(str(Path(root).resolve()) + "/" for root in roots if root)


@lru_cache(maxsize=1)
def _installed_names() -> frozenset[str]:
    return frozenset(importlib.metadata.packages_distributions())  # editable installs lie elsewhere and are listed here


def is_local(module: ModuleType) -> bool:
    """Whether the module is not installed, so that what it defines travels by value."""
    file: str | None = getattr(module, "__file__", None)
    name = module.__name__.partition(".")[0]
    if file is None or name in sys.stdlib_module_names or name == "nahanni_compute":
        return False
    if str(Path(file).resolve()).startswith(_installed_roots()):
        return False
    return name not in _installed_names()


def _code_in_file(file: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=file)


_reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]


def _reduce_code_with_file(code: CodeType) -> tuple[Any, ...]:
    """Some versions of cloudpickle leave out the file's name; a remote traceback without it shows no lines."""
    make, arguments = _reduce_code(code)[:2]
    return _code_in_file, (code.co_filename, make, arguments)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # not typed
    dispatch_table: ClassVar[ChainMap[Any, Any]] = ChainMap({CodeType: _reduce_code_with_file}, cloudpickle.Pickler.dispatch_table)


def _cloudpickled(value: object) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=PROTOCOL).dump(value)
    return buffer.getvalue()


class LocalModules:
    """The modules of this process that travel by value, registered with cloudpickle as they appear.

    The registration is the process's: who tries by reference holds `lock`, and so does everybody who pickles code meanwhile.
    """

    def __init__(self) -> None:
        self.unlock()
        self._seen: set[str] = set()
        self._count = 0
        self.markers: list[bytes] = [b"__main__"]
        self._modules: list[ModuleType] = []

    def unlock(self) -> None:
        """A new lock: a fork has no thread that would ever release the old one."""
        self.lock = threading.RLock()

    def look(self) -> None:
        """Register what was imported since the last look: cheap when nothing was."""
        if len(sys.modules) == self._count:
            return
        modules: list[tuple[str, Any]] = list(sys.modules.items())  # anything may be put there
        for name, module in modules:
            if name in self._seen:
                continue
            self._seen.add(name)
            if name in {"__main__", "__mp_main__"} or not isinstance(module, ModuleType) or not is_local(module):
                continue
            cloudpickle.register_pickle_by_value(module)
            self._modules.append(module)
            self.markers.append(name.encode())
        self._count = len(modules)

    def by_reference(self, value: object) -> bytes:
        """The other try: as if these modules were installed where the task runs."""
        registered = cloudpickle.list_registry_pickle_by_value()
        modules = [module for module in self._modules if module.__name__ in registered]  # none when pickling led here again
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
        try:
            return _cloudpickled(value)
        finally:
            for module in modules:
                cloudpickle.register_pickle_by_value(module)


_local = LocalModules()
os.register_at_fork(after_in_child=_local.unlock)


def dumps_code(value: object) -> bytes:
    """Cloudpickle, local modules by value. Raises UnpicklableError with both tries named."""
    with _local.lock:
        return _dumps_code(value)


def _dumps_code(value: object) -> bytes:
    _local.look()
    try:
        return _cloudpickled(value)
    except Exception as by_value:
        try:
            return _local.by_reference(value)
        except Exception as by_reference:
            raise UnpicklableError(
                f"expected something that pickles, saw {_described(value)}. By value: {_reason(by_value)}. "
                f"By reference: {_reason(by_reference)}. Pass what it is made of instead, and make it inside the task."
            ) from by_value


def dumps(value: object) -> bytes:
    """Pickle, and cloudpickle for what lives in `__main__` or a local module. Raises UnpicklableError."""
    try:
        data = pickle.dumps(value, PROTOCOL)
    except Exception:
        return dumps_code(value)
    _local.look()
    if any(marker in data for marker in _local.markers):
        return dumps_code(value)
    return data


def loads(data: bytes) -> Any:
    """What `dumps` wrote. Raises UnpicklableError: names are missing at this end, or what reads the value fails."""
    try:
        return classes.read(data)
    except Exception as error:
        raise UnpicklableError(
            f"expected a value that can be read at this end, saw {_reason(error)}. "
            "Modules that are not installed travel with what refers to them, installed ones must be installed at both ends."
        ) from error


def dump_exception(error: BaseException) -> bytes:
    """An exception and its traceback as text. One that does not pickle comes as UnpicklableError with its text."""
    text = "".join(traceback.format_exception(error))  # the core called the task: its frame is the outermost
    try:
        data = dumps((error.with_traceback(None), text))
        classes.read(data)  # some exceptions pickle and do not come back: their __init__ wants more than their args
        return data
    except Exception as reason:
        substitute = UnpicklableError(f"the task raised {_described(error)}, which does not travel: {_reason(reason)}")
        return pickle.dumps((substitute, text), PROTOCOL)


def load_exception(data: bytes) -> BaseException:
    """What `dump_exception` wrote, with the remote traceback as its cause."""
    error, text = classes.read(data)
    if not isinstance(error, BaseException):
        return TypeError(f"expected an exception, saw {type(error).__name__}")
    error.__cause__ = RemoteTraceback(text)
    return error


def _described(value: object) -> str:
    text = repr(value)
    return f"{type(value).__qualname__} {text if len(text) < 80 else text[:77] + '...'}"


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
