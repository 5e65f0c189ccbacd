"""Workers that die, leave or are stuck: what ran elsewhere, what stays, and who hears of it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.errors import WorkerDied

from .gates import Gate, stop_at
from .living import lives, wait_ended, wait_until

PATIENCE_S = 30.0
REPLACED_S = 2.0


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def stop_and_tell(gate: str, label: Any) -> tuple[Any, int, bytes]:
    """Stops at the gate; says who ran it, in a result too large for a word."""
    return stop_at(gate, label), os.getpid(), bytes(2000)


def noted(path: str, gate: str, i: int) -> int:
    """Writes down that it ran; item 0 stops at the gate."""
    with open(path, "a") as file:
        file.write(f"{i}\n")
    if i == 0:
        stop_at(gate, i)
    return i * i


def die_by_signal() -> None:
    """Its worker does not come back from this."""
    kill(os.getpid())


def die_by_exit() -> None:
    """Nor from this, though its exit status looks well."""
    os._exit(0)


# -- a worker that is killed


def test_items_of_a_killed_worker_run_elsewhere_and_finished_ones_do_not_run_again(
    cluster: LocalCluster, gate: Gate, tmp_path: Path
) -> None:
    """The one it was in runs twice, all others once."""
    path = tmp_path / "noted"
    with Client(cluster) as client:
        futures = client.map(noted, [str(path)] * 300, [gate.name] * 300, range(300))
        stuck = gate.arrival()
        assert client.gather(futures[1:], timeout=PATIENCE_S) == [i * i for i in range(1, 300)]
        kill(stuck.pid)
        again = gate.arrival()
        assert again.pid != stuck.pid
        again.go()
        assert client.gather(futures, timeout=PATIENCE_S) == [i * i for i in range(300)]
    ran = Counter(path.read_text().split())
    assert ran.pop("0") == 2
    assert set(ran.values()) == {1}
    assert len(ran) == 299


def test_results_of_a_killed_worker_stay(cluster: LocalCluster, gate: Gate) -> None:
    """They lie in the region, and can be read for the first time after its death."""
    with Client(cluster) as client:
        futures = [client.submit(stop_and_tell, gate.name, i) for i in range(2)]
        for arrived in gate.arrivals(2):
            arrived.go()
        wait_until(lambda: all(future.done() for future in futures))
        pids = list(cluster.workers.values())
        for pid in pids:
            kill(pid)
        wait_ended(pids)
        results = client.gather(futures, timeout=PATIENCE_S)
        assert [label for label, _, _ in results] == [0, 1]
        assert {pid for _, pid, _ in results} == set(pids)
        assert {data for _, _, data in results} == {bytes(2000)}


def test_a_killed_worker_is_replaced_under_its_name(cluster: LocalCluster) -> None:
    """Within two seconds, by another process, which works."""
    with Client(cluster) as client:
        name, pid = next(iter(cluster.workers.items()))
        kill(pid)

        def replaced() -> bool:
            found = client.scheduler_info().workers.get(name)
            return found is not None and found.pid != pid and len(client.run(os.getpid, timeout=PATIENCE_S)) == 2

        assert wait_until(replaced) < REPLACED_S
        assert client.run(os.getpid, workers=[name]) == {name: cluster.workers[name]}
        assert set(client.scheduler_info().workers) == set(cluster.workers)


def test_a_map_ends_well_though_all_workers_are_killed(cluster: LocalCluster, gate: Gate) -> None:
    """Those that take their places finish it."""
    with Client(cluster) as client:
        futures = client.map(stop_at, [gate.name] * 4, range(4))
        first = gate.arrivals(2)
        for arrived in first:
            kill(arrived.pid)
        second = gate.arrivals(2)
        assert not {arrived.pid for arrived in first} & {arrived.pid for arrived in second}
        gate.close()
        assert client.gather(futures, timeout=PATIENCE_S) == list(range(4))


def test_work_that_is_submitted_while_no_worker_lives_runs_when_one_does(cluster: LocalCluster) -> None:
    """It waits for the replacement."""
    with Client(cluster) as client:
        pids = list(cluster.workers.values())
        for pid in pids:
            kill(pid)
        wait_ended(pids)
        assert client.gather(client.map(abs, range(-100, 0)), timeout=PATIENCE_S) == list(range(100, 0, -1))
        assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_workers_that_are_killed_again_and_again_lose_nothing(cluster: LocalCluster) -> None:
    """A long map, with a death in each quarter of it."""
    with Client(cluster) as client:
        futures = client.map(lambda i: sum(range(i % 2000)), range(20_000))
        for quarter in range(4):
            futures[quarter * 5000].result(PATIENCE_S)
            kill(sorted(cluster.workers.values())[0])
        assert client.gather(futures, timeout=PATIENCE_S) == [sum(range(i % 2000)) for i in range(20_000)]


@pytest.mark.parametrize("die", [die_by_signal, die_by_exit])
def test_an_item_that_kills_its_workers_fails_alone(cluster: LocalCluster, die: Callable[[], None]) -> None:
    """With WorkerDied, after as many deaths as a task may cause; its neighbours are right."""
    with Client(cluster) as client:
        futures = client.map(lambda i: die() if i == 25 else i, range(50))
        with pytest.raises(WorkerDied) as caught:
            futures[25].result(PATIENCE_S)
        assert "expected" in str(caught.value)
        assert client.gather(futures, errors="skip", timeout=PATIENCE_S) == [i for i in range(50) if i != 25]
        assert client.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_submitted_task_that_kills_its_workers_fails_alone(cluster: LocalCluster) -> None:
    """The tasks submitted before and after it are right."""
    with Client(cluster) as client:
        futures = [client.submit(die_by_signal) if i == 5 else client.submit(abs, -i) for i in range(10)]
        assert type(futures[5].exception(PATIENCE_S)) is WorkerDied
        assert client.gather(futures, errors="skip", timeout=PATIENCE_S) == [i for i in range(10) if i != 5]


def test_a_worker_that_dies_while_run_calls_on_it_appears_as_its_death(cluster: LocalCluster, gate: Gate) -> None:
    """The others have answered."""
    name, pid = next(iter(cluster.workers.items()))
    with Client(cluster) as client:
        answers = client.run(lambda victim=pid: die_by_signal() if os.getpid() == victim else "well", timeout=PATIENCE_S)
        assert type(answers.pop(name)) is WorkerDied
        assert list(answers.values()) == ["well"]


# -- a worker that leaves


def test_a_worker_told_to_end_finishes_its_item_and_leaves_the_rest(cluster: LocalCluster, gate: Gate, tmp_path: Path) -> None:
    """SIGTERM: nothing runs twice."""
    path = tmp_path / "noted"
    with Client(cluster) as client:
        futures = client.map(noted, [str(path)] * 300, [gate.name] * 300, range(300))
        busy = gate.arrival()
        os.kill(busy.pid, signal.SIGTERM)
        assert client.gather(futures[1:], timeout=PATIENCE_S) == [i * i for i in range(1, 300)]
        assert lives(busy.pid)
        busy.go()
        assert client.gather(futures, timeout=PATIENCE_S) == [i * i for i in range(300)]
        wait_ended([busy.pid])
        assert set(Counter(path.read_text().split()).values()) == {1}
        wait_until(lambda: len(client.scheduler_info().workers) == 2)


def test_an_idle_worker_told_to_end_leaves_at_once(cluster: LocalCluster) -> None:
    """However it sleeps."""
    with Client(cluster) as client:
        client.gather(client.map(abs, range(1000)))
        for pid in cluster.workers.values():
            began = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            wait_ended([pid])
            assert time.monotonic() - began < 1


# -- a worker that is stuck


def test_a_long_item_does_not_keep_its_neighbours(cluster: LocalCluster, gate: Gate) -> None:
    """Wherever it is in the map: all others are done while it runs."""
    for at in (0, 57, 499):
        with Client(cluster) as client:
            futures = client.map(lambda i, at=at, name=gate.name: stop_at(name, i) if i == at else i, range(500))
            stuck = gate.arrival()
            others = [future for i, future in enumerate(futures) if i != at]
            assert client.gather(others, timeout=PATIENCE_S) == [i for i in range(500) if i != at]
            assert not futures[at].done()
            stuck.go()
            assert client.gather(futures, timeout=PATIENCE_S) == list(range(500))


def test_a_long_task_does_not_keep_those_submitted_after_it(cluster: LocalCluster, gate: Gate) -> None:
    """The other worker takes them."""
    with Client(cluster) as client:
        first = client.submit(stop_at, gate.name)
        stuck = gate.arrival()
        assert client.gather([client.submit(abs, -i) for i in range(500)], timeout=PATIENCE_S) == list(range(500))
        stuck.go()
        first.result(PATIENCE_S)


def test_items_that_need_each_other_meet(cluster: LocalCluster, tmp_path: Path) -> None:
    """The first waits for what the last leaves behind."""

    def task(i: int, folder: str = str(tmp_path)) -> int:
        own = Path(folder) / f"was-{i}"
        own.touch()
        other = Path(folder) / f"was-{99 - i}"
        while i in (0, 99) and not other.exists():
            time.sleep(0.001)
        return i

    with Client(cluster) as client:
        assert client.gather(client.map(task, range(100)), timeout=PATIENCE_S) == list(range(100))


def test_a_pause_of_the_scheduler_is_no_death(cluster: LocalCluster) -> None:
    """Stopped and let on, it goes on where it was."""
    with Client(cluster) as client:
        client.gather(client.map(abs, range(100)))  # so that it has memory enough for the rest
        os.kill(cluster.pids["scheduler"], signal.SIGSTOP)
        futures = client.map(abs, range(-100, 0))
        submitted = client.submit(abs, -1)
        with pytest.raises(TimeoutError):
            client.gather([futures, submitted], timeout=0.3)
        os.kill(cluster.pids["scheduler"], signal.SIGCONT)
        assert client.gather(futures, timeout=PATIENCE_S) == list(range(100, 0, -1))
        assert submitted.result(PATIENCE_S) == 1


def test_a_pause_of_a_worker_is_no_death(cluster: LocalCluster, gate: Gate) -> None:
    """Stopped within a task and let on, it finishes it, and nobody took its place."""
    with Client(cluster) as client:
        future = client.submit(stop_at, gate.name, "done")
        arrived = gate.arrival()
        os.kill(arrived.pid, signal.SIGSTOP)
        arrived.go()
        with pytest.raises(TimeoutError):
            future.result(0.3)
        os.kill(arrived.pid, signal.SIGCONT)
        assert future.result(PATIENCE_S) == "done"
        assert arrived.pid in cluster.workers.values()
