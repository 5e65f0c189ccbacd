"""Errors: a task's own exception keeps its type and says where it came from; what cannot travel is named."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from nahanni_compute import Client
from nahanni_compute.errors import TaskError, UnpicklableError

PATIENCE_S = 20.0


class SimpleError(Exception):
    """Of a module that workers do not have."""


class RichError(Exception):
    """Wants more than its args, and brings what pickle needs."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(code)
        self.detail = detail

    def __reduce__(self) -> Any:
        return _make_rich, (self.args[0], self.detail)


def _make_rich(code: int, detail: str) -> RichError:
    return RichError(code, detail=detail)


class OneWayError(Exception):
    """Pickles, and does not come back: its __init__ wants more than its args."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")


class Stopped(BaseException):
    """Not an Exception."""


class Mute:
    """Pickles, and cannot be read."""

    def __reduce__(self) -> Any:
        return _refuse, ("cannot be read",)


def _refuse(why: str) -> None:
    raise RuntimeError(why)


def fail(error: BaseException) -> None:
    """The task that raises what it is given."""
    raise error


def fail_deep(n: int) -> int:
    """Raises some calls further down."""
    if n:
        return fail_deep(n - 1)
    return 1 // n


def test_an_exception_keeps_its_type_and_arguments(client: Client) -> None:
    """By result, by exception and by gather."""
    future = client.submit(fail, KeyError("a", 2))
    with pytest.raises(KeyError) as caught:
        future.result(PATIENCE_S)
    assert caught.value.args == ("a", 2)
    error = future.exception(PATIENCE_S)
    assert type(error) is KeyError
    with pytest.raises(KeyError):
        client.gather([future])
    assert future.done()


@pytest.mark.parametrize("call", ["submit", "map"])
def test_an_exception_carries_the_remote_traceback_as_its_cause(client: Client, call: str) -> None:
    """With the lines there, from the task's own function on; and it is in what is printed."""
    future = client.submit(fail_deep, 2) if call == "submit" else client.map(fail_deep, [2])[0]
    with pytest.raises(ZeroDivisionError) as caught:
        future.result(PATIENCE_S)
    remote = str(caught.value.__cause__)
    assert remote.count("in fail_deep") == 3
    assert "ZeroDivisionError" in remote
    assert __file__ in remote
    assert remote in "".join(traceback.format_exception(caught.value))


def test_the_cause_of_the_tasks_own_exception_is_in_the_remote_traceback(client: Client) -> None:
    """A chain is told whole."""

    def chained() -> None:
        try:
            dict[str, int]()["missing"]
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        client.submit(chained).result(PATIENCE_S)
    assert "KeyError: 'missing'" in str(caught.value.__cause__)


def test_an_exception_that_is_raised_again_is_not_longer(client: Client) -> None:
    """Asking twice does not pile up what is printed."""
    future = client.submit(fail_deep, 0)
    lengths = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            future.result(PATIENCE_S)
        lengths.append(len(traceback.format_exception(caught.value)))
    assert len(set(lengths)) == 1


def test_exceptions_of_the_callers_own_module_are_caught_by_their_class(client: Client) -> None:
    """Though workers have no such module."""
    with pytest.raises(SimpleError, match="simple"):
        client.submit(fail, SimpleError("simple")).result(PATIENCE_S)
    with pytest.raises(RichError) as caught:
        client.submit(fail, RichError(3, detail="kept")).result(PATIENCE_S)
    assert (caught.value.args, caught.value.detail) == ((3,), "kept")

    class LocalError(Exception):
        pass

    with pytest.raises(LocalError):
        client.submit(fail, LocalError()).result(PATIENCE_S)


def test_notes_and_groups_come_along(client: Client) -> None:
    """What Python 3.11 added to exceptions."""

    def noted() -> None:
        error = ValueError("noted")
        error.add_note("see the manual")
        raise error

    with pytest.raises(ValueError, match="noted") as caught:
        client.submit(noted).result(PATIENCE_S)
    assert caught.value.__notes__ == ["see the manual"]
    with pytest.raises(ExceptionGroup) as group:
        client.submit(fail, ExceptionGroup("both", [ValueError(1), SimpleError(2)])).result(PATIENCE_S)
    assert [type(error) for error in group.value.exceptions] == [ValueError, SimpleError]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Stopped, StopIteration, StopAsyncIteration, TimeoutError])
def test_whatever_a_task_raises_is_its_outcome_and_its_worker_lives(client: Client, kind: type[BaseException]) -> None:
    """Also what is not an Exception, and what loops and waits use themselves."""
    pids = client.run(os.getpid)
    futures = client.map(fail, [kind("why")] * 4)
    for future in futures:
        error = future.exception(PATIENCE_S)
        assert type(error) is kind
        assert error.args == ("why",)
        with pytest.raises(kind):
            future.result(PATIENCE_S)
    assert client.run(os.getpid) == pids


def test_a_task_that_calls_exit_harms_no_worker(client: Client) -> None:
    """`sys.exit` is SystemExit."""
    pids = client.run(os.getpid)
    with pytest.raises(SystemExit) as caught:
        client.submit(exit, 3).result(PATIENCE_S)
    assert caught.value.code == 3
    assert client.run(os.getpid) == pids


@pytest.mark.parametrize("kind", ["does not pickle", "does not come back"])
def test_an_exception_that_cannot_travel_is_told_of(client: Client, kind: str) -> None:
    """UnpicklableError with its type and its words; the remote traceback is there."""

    def task() -> None:
        if kind == "does not pickle":
            error: Exception = SimpleError("what it says")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            raise error
        raise OneWayError(3, "what it says")

    with pytest.raises(UnpicklableError, match="what it says") as caught:
        client.submit(task).result(PATIENCE_S)
    assert "SimpleError" in str(caught.value) or "OneWayError" in str(caught.value)
    assert "in task" in str(caught.value.__cause__)
    assert isinstance(caught.value, TaskError)


def test_an_argument_that_does_not_pickle_is_refused_at_once(client: Client) -> None:
    """By submit, by name and by map; the error says what it is, and what was submitted before stands."""
    before = client.submit(abs, -1)
    lock = threading.Lock()
    for call in (
        lambda: client.submit(abs, lock),
        lambda: client.submit(abs, x=lock),
        lambda: client.submit(abs, [1, {"deep": lock}]),
        lambda: client.map(abs, [1, 2, lock, 4]),
        lambda: client.map(abs, [1, 2], [3, lock]),
        lambda: client.run(abs, lock),
    ):
        with pytest.raises(UnpicklableError, match="lock"):
            call()
    assert before.result(PATIENCE_S) == 1
    assert client.gather(client.map(abs, [-1, -2])) == [1, 2]


def test_a_function_that_does_not_pickle_is_refused_at_once(client: Client) -> None:
    """The error names what it holds."""
    lock = threading.Lock()
    for call in (lambda: client.submit(lambda: lock), lambda: client.map(lambda _: lock, [1]), lambda: client.run(lambda: lock)):
        with pytest.raises(UnpicklableError, match="lock"):
            call()
    assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_result_that_does_not_pickle_fails_its_task_alone(client: Client) -> None:
    """The error says what it is."""
    futures = client.map(lambda i: threading.Lock() if i == 1 else i, range(3))
    with pytest.raises(UnpicklableError, match="lock"):
        futures[1].result(PATIENCE_S)
    assert client.gather(futures, errors="skip") == [0, 2]
    with pytest.raises(UnpicklableError, match="generator"):
        client.submit(lambda: (i for i in range(3))).result(PATIENCE_S)


def test_an_argument_that_cannot_be_read_fails_its_task_alone(client: Client) -> None:
    """The worker says why, and lives."""
    pids = client.run(os.getpid)
    futures = [client.submit(type, value) for value in (1, Mute(), 2)]
    with pytest.raises(Exception, match="cannot be read"):
        futures[1].result(PATIENCE_S)
    assert client.gather([futures[0], futures[2]]) == [int, int]
    futures = list(client.map(type, [1, Mute(), 2]))
    with pytest.raises(Exception, match="cannot be read"):
        futures[1].result(PATIENCE_S)
    assert client.gather([futures[0], futures[2]]) == [int, int]
    assert client.run(os.getpid) == pids


def test_a_result_that_cannot_be_read_fails_its_reader_alone(client: Client) -> None:
    """The same error each time; other results stay."""
    futures = client.map(lambda i: Mute() if i == 1 else i, range(3))
    for _ in range(2):
        with pytest.raises(Exception, match="cannot be read"):
            futures[1].result(PATIENCE_S)
    assert [futures[0].result(PATIENCE_S), futures[2].result(PATIENCE_S)] == [0, 2]


def test_what_cannot_be_read_is_an_unpicklable_error(client: Client) -> None:
    """On either side: 'or not unpickled at the other end'."""
    for future in (client.submit(type, Mute()), client.submit(Mute)):
        with pytest.raises(UnpicklableError, match="cannot be read"):
            future.result(PATIENCE_S)


class MuteTask(Mute):
    """A callable that pickles, and cannot be read."""

    def __call__(self, _: object) -> None:
        raise AssertionError("it cannot be called")


@pytest.mark.parametrize("call", ["submit", "map", "run"])
def test_a_function_that_cannot_be_read_fails_its_tasks_and_no_worker(client: Client, call: str) -> None:
    """The reason comes back; the workers live."""
    pids = client.run(os.getpid)
    calls: dict[str, Callable[[], Any]] = {
        "submit": lambda: client.submit(MuteTask(), 1).result(PATIENCE_S),
        "map": lambda: client.gather(client.map(MuteTask(), range(10)), timeout=PATIENCE_S),
        "run": lambda: client.run(MuteTask(), 1, timeout=PATIENCE_S),
    }
    with pytest.raises(UnpicklableError, match="cannot be read"):
        calls[call]()
    assert client.run(os.getpid) == pids
    assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_an_error_in_the_callers_own_pickling_code_is_named(client: Client) -> None:
    """A __reduce__ that raises is not mistaken for an error of the cluster's."""

    class Broken:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("in reduce")

    with pytest.raises(UnpicklableError, match="in reduce"):
        client.submit(abs, Broken())


def test_a_function_called_wrongly_fails_as_it_would_here(client: Client) -> None:
    """TypeError from the call, in the task."""
    with pytest.raises(TypeError, match="argument"):
        client.submit(fail_deep).result(PATIENCE_S)
    with pytest.raises(TypeError, match="not callable"):
        client.submit(5).result(PATIENCE_S)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, 5000, 3_000_000])
def test_an_exception_may_have_any_size(client: Client, n: int) -> None:
    """Words and values."""
    error = client.submit(fail, ValueError("x" * n, bytes(n))).exception(PATIENCE_S)
    assert error is not None
    assert error.args == ("x" * n, bytes(n))


def test_exceptions_of_a_map_come_from_their_own_items(client: Client) -> None:
    """Each with the argument that led to it."""
    futures = client.map(lambda i: fail(ValueError(i)) if i % 2 else i, range(100))
    for i, future in enumerate(futures):
        error = future.exception(PATIENCE_S)
        assert (error.args if error else i) == ((i,) if i % 2 else i)
