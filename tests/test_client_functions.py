"""Functions that travel: of every kind, with what they refer to, as it is at the moment of the call."""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nahanni_compute import Client

PATIENCE_S = 20.0

factor = 2
offsets = {"a": 1}


def scaled(x: int) -> int:
    """Refers to a global."""
    return x * factor


def scaled_twice(x: int) -> int:
    """Refers to a function that refers to a global."""
    return scaled(scaled(x))


def scaled_within(xs: list[int]) -> list[int]:
    """Refers to a global in a function of its own."""
    return list(map(lambda x: x * factor, xs))  # noqa: C417 (a function within is what is meant)


def factorial(n: int) -> int:
    """Refers to itself."""
    return 1 if n < 2 else n * factorial(n - 1)


def is_even(n: int) -> bool:
    """Refers to one that refers to it."""
    return n == 0 or is_odd(n - 1)


def is_odd(n: int) -> bool:
    """The other half."""
    return n != 0 and is_even(n - 1)


def twice(fn: Callable[..., int]) -> Callable[..., int]:
    """A decorator."""

    @functools.wraps(fn)
    def wrapped(*args: Any) -> int:
        return 2 * fn(*args)

    return wrapped


@twice
def decorated(a: int, b: int = 5) -> int:
    """Goes by the name of what it wraps."""
    return a + b


class Adder:
    """Callable, and with methods of each kind."""

    step = 1

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return self.n + x

    def method(self, x: int) -> int:
        """Bound to an object."""
        return self.n * x

    @classmethod
    def of_class(cls, x: int) -> int:
        """Bound to the class."""
        return cls.step + x

    @staticmethod
    def static(x: int) -> int:
        """Bound to nothing."""
        return -x

    @property
    def scaled(self) -> int:
        """Refers to a global."""
        return self.n * factor


class Scaler(Adder):
    """Refers to a global where it is called, and where it is made."""

    def __init__(self, n: int) -> None:
        super().__init__(n * factor)

    def __call__(self, x: int) -> int:
        return x * factor

    def scale(self, x: int) -> int:
        """Bound to an object."""
        return x * factor

    @classmethod
    def scale_of_class(cls, x: int) -> int:
        """Bound to the class."""
        return x * factor


class Subscaler(Scaler):
    """What refers to the global is inherited."""


@pytest.mark.parametrize(
    ("fn", "result"),
    [
        (abs, 7),
        (math.floor, -7),
        (str, "-7"),
        (lambda x: x + 1, -6),
        (functools.partial(operator.add, 1), -6),
        (operator.neg, 7),
        (np.negative, 7),
        (Adder(1), -6),
        (Adder(2).method, -14),
        (Adder.of_class, -6),
        (Adder.static, 7),
        (decorated, -4),
        ([1, 2].__contains__, False),
    ],
    ids=lambda value: getattr(value, "__qualname__", None) or type(value).__name__,
)
def test_whatever_can_be_called_can_be_a_task(client: Client, fn: Callable[..., Any], result: Any) -> None:
    """By submit and by map, as here."""
    assert client.submit(fn, -7).result(PATIENCE_S) == result
    assert client.gather(client.map(fn, [-7, -7])) == [result, result]


def test_a_closure_carries_what_it_closed_over(client: Client) -> None:
    """Each its own, though they share their code."""
    adders = [lambda x, n=n, m=[n]: x + n + m[0] for n in range(5)]
    assert client.gather([client.submit(adder, 100) for adder in adders]) == [100 + 2 * n for n in range(5)]

    def make(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    assert client.gather([client.submit(make(n), 100) for n in range(5)]) == [100 + n for n in range(5)]


def test_functions_that_call_themselves_or_each_other_travel(client: Client) -> None:
    """Of the module, and local ones."""
    assert client.submit(factorial, 10).result(PATIENCE_S) == math.factorial(10)
    assert client.gather(client.map(is_even, [10, 11])) == [True, False]

    def local(n: int) -> int:
        return 0 if n == 0 else 1 + local(n - 1)

    assert client.submit(local, 20).result(PATIENCE_S) == 20


def test_functions_may_be_arguments_and_results(client: Client) -> None:
    """Lambdas and closures, too."""
    assert client.submit(lambda fn, x: fn(x), lambda x: x + 1, 1).result(PATIENCE_S) == 2
    assert client.submit(lambda n: lambda x: x + n, 5).result(PATIENCE_S)(1) == 6


def test_a_rebound_global_is_seen_by_the_next_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directly, through another function, and in a function within."""
    for value in (2, 3, 2):
        monkeypatch.setitem(globals(), "factor", value)
        assert client.submit(scaled, 10).result(PATIENCE_S) == 10 * value
        assert client.gather(client.map(scaled, [1, 2])) == [value, 2 * value]
        assert client.submit(scaled_twice, 10).result(PATIENCE_S) == 10 * value * value
        assert client.submit(scaled_within, [1]).result(PATIENCE_S) == [value]
        assert set(client.run(scaled, 1).values()) == {value}


def has_default(x: int, fn: Callable[[int], int] = scaled) -> int:
    """Refers to a function that refers to a global, by a default."""
    return fn(x)


SCALERS: dict[str, Callable[[int], Any]] = {
    "method": Scaler(1).scale,
    "inherited method": Subscaler(1).scale,
    "class method": Scaler.scale_of_class,
    "callable object": Scaler(1),
    "partial": functools.partial(scaled),
    "partial of a method": functools.partial(Scaler(1).scale),
    "partial with a function": functools.partial(lambda fn, x: fn(x), scaled),
    "decorated": twice(scaled),
    "uses a class": lambda x: Scaler.scale_of_class(x + 1),
    "makes an object": lambda x: Scaler(x).n,
    "makes an inherited object": lambda x: Subscaler(x).n,
    "reads a property": lambda x: Adder(x).scaled,
    "has a default": has_default,
}
a_scaler = Scaler(1)


@pytest.mark.parametrize("kind", SCALERS)
def test_a_rebound_global_is_seen_whatever_the_task_is(client: Client, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Methods, objects that can be called, partials, classes that it uses."""
    for value in (2, 3, 5):
        monkeypatch.setitem(globals(), "factor", value)
        assert client.submit(SCALERS[kind], 10).result(PATIENCE_S) == SCALERS[kind](10)
        assert client.gather(client.map(SCALERS[kind], [10])) == [SCALERS[kind](10)]


def test_a_rebound_global_is_seen_through_an_object_and_a_class(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that the task names, and a class that is the task."""

    def task(x: int) -> int:
        return a_scaler.scale(x)

    for value in (2, 3, 5):
        monkeypatch.setitem(globals(), "factor", value)
        assert client.submit(task, 10).result(PATIENCE_S) == 10 * value
        assert client.submit(Scaler, 10).result(PATIENCE_S).n == 10 * value


def test_a_global_of_the_same_value_in_another_type_is_seen(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal is not the same."""
    for value in (1, 1.0, True):
        monkeypatch.setitem(globals(), "factor", value)
        assert type(client.submit(lambda: factor).result(PATIENCE_S)) is type(value)


def test_a_global_that_appears_later_is_seen(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the task fails as it would here."""

    def late() -> int:
        return appears_later  # type: ignore[name-defined,no-any-return] # noqa: F821

    with pytest.raises(NameError, match="appears_later"):
        client.submit(late).result(PATIENCE_S)
    monkeypatch.setitem(globals(), "appears_later", 5)
    assert client.submit(late).result(PATIENCE_S) == 5
    monkeypatch.delitem(globals(), "appears_later")
    with pytest.raises(NameError, match="appears_later"):
        client.submit(late).result(PATIENCE_S)


def test_a_rebound_closure_cell_is_seen_by_the_next_call(client: Client) -> None:
    """By submit and by map."""
    n = 1

    def local() -> int:
        return n

    assert client.submit(local).result(PATIENCE_S) == 1
    n = 2
    assert client.submit(local).result(PATIENCE_S) == 2
    n = 3
    assert client.gather(client.map(lambda _: n, [0])) == [3]


def test_a_redefined_function_is_seen_by_the_next_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, where a cell is run again."""
    monkeypatch.setitem(globals(), "scaled", lambda x: -x)
    assert client.submit(scaled_twice, 10).result(PATIENCE_S) == 10
    assert client.submit(scaled, 10).result(PATIENCE_S) == -10


def test_tasks_that_were_submitted_keep_the_function_they_had(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is rebound while they wait changes nothing for them."""
    futures = []
    for value in range(50):
        monkeypatch.setitem(globals(), "factor", value)
        futures.append(client.submit(scaled, 1))
    assert client.gather(futures) == list(range(50))


def test_what_a_task_does_to_a_global_stays_with_its_worker(client: Client) -> None:
    """Nothing comes back but its result."""

    def change() -> int:
        offsets["a"] += 1
        return offsets["a"]

    assert client.submit(change).result(PATIENCE_S) >= 2
    assert offsets == {"a": 1}


def test_a_function_of_two_clients_is_that_of_each(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambdas of the same code on the same workers are not mistaken for each other, nor those of clients that came before."""
    for i in range(30):
        assert client.submit(lambda i=i: i).result(PATIENCE_S) == i


def test_thousands_of_functions_may_be_used(client: Client) -> None:
    """More than anybody keeps, each with its result."""
    futures = [client.submit(eval(f"lambda: {i}")) for i in range(2000)]
    assert client.gather(futures) == list(range(2000))


def test_a_task_sees_the_environment_of_its_worker(client: Client) -> None:
    """Which is not that of the caller."""
    assert client.submit(os.getpid).result(PATIENCE_S) != os.getpid()
