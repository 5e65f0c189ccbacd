"""Code by value and by reference, from many threads at once."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from nahanni_compute import pickling
from nahanni_compute.errors import UnpicklableError

BY_VALUE_BYTES = 200  # a name by reference takes a few dozen


def pair(a: int, b: int) -> tuple[int, int]:
    """Of a module that is not installed: it travels by value."""
    return a, b


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_one_threads_try_by_reference_is_no_other_threads() -> None:
    """What cannot travel is tried both ways; meanwhile, and ever after, functions of local modules go by value."""
    unpicklable = threading.Lock()

    def work(_thread: int) -> None:
        for _ in range(100):
            with pytest.raises(UnpicklableError, match=r"By value: TypeError.*By reference: TypeError"):
                pickling.dumps_code((pair, unpicklable))
            assert __name__.encode() in pickling.dumps_code(pair)
            assert len(pickling.dumps_code(pair)) > BY_VALUE_BYTES

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


class Nested:
    """Pickling it pickles another value that does not travel."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        with pytest.raises(UnpicklableError):
            pickling.dumps_code(threading.Lock())
        raise TypeError("not this one either")


def test_pickling_may_lead_to_pickling() -> None:
    """Also while the outer one is tried by reference; afterwards all is as before."""
    with pytest.raises(UnpicklableError, match="not this one either"):
        pickling.dumps_code(Nested())
    assert pickle.loads(pickling.dumps_code(pair))(1, 2) == (1, 2)
    assert len(pickling.dumps_code(pair)) > BY_VALUE_BYTES
