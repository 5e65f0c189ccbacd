"""Values of every kind and size, as arguments and as results."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import UnpicklableError

PATIENCE_S = 30.0
MIB = 1 << 20


@dataclasses.dataclass
class Point:
    """Of a module that workers do not have."""

    x: int
    y: list[int]


class Colour(enum.Enum):
    """An enumeration of a module that workers do not have."""

    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    """A number that is more than a number."""

    HIGH = 3


Pair = collections.namedtuple("Pair", "left right")


class Name(str):
    """Text that is more than text."""

    __slots__ = ()


PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64 + 1,
    -(10**100),
    0.0,
    1e308,
    math.inf,
    "",
    "text",
    "wörter 🚀",
    "nul\0inside",
    "\ud800",
    b"",
    b"\0\xff",
    (),
    (1,),
    [],
    {},
    [None, True, (1, 2.5, "x", b"y"), {"a": [1], 2: (), None: None, (1, 2): "key"}],
    [[[[[[[[[[1]]]]]]]]]],
    list(range(1000)),
]
RICH: list[Any] = [
    1 + 2j,
    {1, 2},
    frozenset({"a"}),
    bytearray(b"ab"),
    range(3, 9, 2),
    slice(1, None, 2),
    ...,
    int,
    Point,
    len,
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    pathlib.PurePosixPath("a/b"),
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    collections.deque([1, 2], 5),
    Point(1, [2]),
    [Point(1, [2]), {"p": Point(3, [])}],
    Colour.RED,
    Level.HIGH,
    Pair(1, "b"),
    Name("n"),
    np.float32(1.5),
    np.int64(7),
    np.datetime64("2024-02-29"),
]


def same(value: Any) -> Any:
    """The task that returns what it is given."""
    return value


@pytest.mark.parametrize("value", PLAIN + RICH, ids=lambda value: ascii(value)[:40])
def test_a_value_comes_back_as_it_went_with_its_type(client: Client, value: Any) -> None:
    """By submit, by name, and as an item of a map."""
    futures = [client.submit(same, value), client.submit(same, value=value), client.map(same, [value])[0]]
    for result in client.gather(futures):
        assert type(result) is type(value)
        assert result == value


@pytest.mark.parametrize("value", [math.nan, -0.0, -math.inf])
def test_floats_keep_their_sign_and_nan(client: Client, value: float) -> None:
    """Also where equality does not tell."""
    result = client.submit(same, value).result(PATIENCE_S)
    assert math.copysign(1, result) == math.copysign(1, value)
    assert math.isnan(result) == math.isnan(value)


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.empty((0, 4)),
        np.arange(24).reshape(2, 3, 4)[:, ::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", None, [1]], dtype=object),
        np.array([(1, 2.5)], dtype=[("n", "i4"), ("x", "f8")]),
        np.arange(5, dtype=">i2"),
        np.array(["2024-02-29"], dtype="M8[D]"),
        np.random.default_rng(0).random(200_000),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_an_array_comes_back_as_it_went(client: Client, array: np.ndarray[Any, Any]) -> None:
    """Any shape, order and type of element; and the result may be written to, since it is private."""
    result = client.submit(same, array).result(PATIENCE_S)
    assert (result.dtype, result.shape) == (array.dtype, array.shape)
    assert np.array_equal(result, array)
    assert result.flags.writeable


def test_an_arrow_table_comes_back_as_it_went(client: Client) -> None:
    """With its schema."""
    table = pa.table({"n": [1, None, 3], "s": ["a", "b", None], "l": [[1], [], None]})
    assert client.submit(same, table).result(PATIENCE_S).equals(table)


def test_a_value_that_contains_itself_comes_back_so(client: Client) -> None:
    """Lists and dicts."""
    loop: list[Any] = [1]
    loop.append(loop)
    result = client.submit(same, loop).result(PATIENCE_S)
    assert result[0] == 1
    assert result[1] is result
    knot: dict[str, Any] = {}
    knot["me"] = [knot]
    result = client.map(same, [knot])[0].result(PATIENCE_S)
    assert result["me"][0] is result


def test_an_object_that_is_named_twice_is_still_one_if_it_is_rich(client: Client) -> None:
    """As pickle has it."""
    point = Point(1, [])
    one, two = client.submit(same, [point, point]).result(PATIENCE_S)
    assert one is two


def test_a_result_does_not_change_the_class_that_the_caller_defined(client: Client) -> None:
    """It is of that class, whose methods and attributes stay what they are here, whatever the worker's copy became."""

    class Counted(Point):
        seen: list[int] = [1]  # noqa: RUF012 (what users write)

        def note(self) -> int:
            self.seen.append(self.x)
            return len(self.seen)

    def task(x: int) -> Counted:
        counted = Counted(x, [])
        counted.note()
        Counted.late = 1  # type: ignore[attr-defined]
        return counted

    before, point = dict(vars(Counted)), dict(vars(Point))
    results = client.gather([*client.map(task, range(20)), client.submit(Point, 1, [])])
    assert {type(result) for result in results} == {Counted, Point}
    for name, value in before.items():
        assert vars(Counted)[name] is value
    assert vars(Point) == point
    assert not hasattr(Counted, "late")
    assert results[0].note() == 2


def test_a_class_that_a_task_made_is_usable_here(client: Client) -> None:
    """By value, one class for all its objects; the next version is another."""

    def task(n: int) -> Any:
        class Made:
            def __init__(self, x: int) -> None:
                self.x = x

            def get(self) -> int:
                return self.x * n

        return [Made(1), Made(2)]

    one, two = client.submit(task, 5).result(PATIENCE_S)
    assert type(one) is type(two)
    assert (one.get(), two.get()) == (5, 10)
    assert client.submit(lambda made: made.get(), two).result(PATIENCE_S) == 10


def test_very_deep_nesting_travels(client: Client) -> None:
    """Deeper than the codec goes by itself."""
    deep: Any = 0
    for _ in range(200):
        deep = [deep]
    assert client.submit(same, deep).result(PATIENCE_S) == deep


def test_rows_of_an_array_and_pieces_of_a_table_may_be_mapped_over(client: Client) -> None:
    """Arrays have a length and iterate."""
    rows = np.arange(12.0).reshape(4, 3)
    assert client.gather(client.map(np.sum, rows)) == [3.0, 12.0, 21.0, 30.0]
    assert client.gather(client.map(pa.Table.num_rows.__get__, [pa.table({"a": [1, 2]})])) == [2]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 63, 64, 4095, 4096, 65_536, MIB - 1, MIB, MIB + 1, 16 * MIB])
def test_an_argument_and_a_result_may_have_any_size(client: Client, n: int) -> None:
    """As bytes, as text and as an array."""
    data = bytes(range(256)) * (n // 256) + b"z" * (n % 256)
    assert client.submit(same, data).result(PATIENCE_S) == data
    text = "é" * (n // 2)
    assert client.submit(same, text).result(PATIENCE_S) == text
    array = np.frombuffer(data, dtype="u1")
    assert np.array_equal(client.submit(same, array).result(PATIENCE_S), array)


@pytest.fixture(scope="module")
def wide_cluster() -> Iterator[LocalCluster]:
    """With room for large values."""
    with LocalCluster(n_workers=1, region_size="512MiB") as cluster:
        yield cluster


def test_64_mib_go_and_come_as_one_value(wide_cluster: LocalCluster) -> None:
    """As an argument and as a result, by submit and by map."""
    data = np.random.default_rng(0).bytes(64 * MIB)
    with Client(wide_cluster) as client:
        assert client.submit(same, data).result(PATIENCE_S) == data
        assert client.map(same, [data])[0].result(PATIENCE_S) == data


def test_large_and_small_values_travel_in_one_map(client: Client) -> None:
    """Each in its own place."""
    sizes = [0, 3 * MIB, 1, 100, 2 * MIB, 0, 70_000]
    assert [len(value) for value in client.gather(client.map(bytes, sizes))] == sizes
    values = [b"x" * size for size in sizes]
    assert client.gather(client.map(len, values)) == sizes


def test_many_arguments_of_one_call_travel(client: Client) -> None:
    """A hundred by position, a hundred by name."""
    named = {f"n{i}": i for i in range(100)}
    args, kwargs = client.submit(lambda *a, **k: (a, k), *range(100), **named).result(PATIENCE_S)
    assert args == tuple(range(100))
    assert kwargs == named


def test_a_future_among_the_arguments_is_refused_by_name(client: Client) -> None:
    """It means something in this process only."""
    with pytest.raises(UnpicklableError, match="Future"):
        client.submit(same, client.submit(same, 5))
