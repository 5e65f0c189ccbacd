"""What the `nahanni` commands and LocalCluster do about a part that failed: it is replaced, or said in one line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nahanni_compute import Client, LocalCluster
from nahanni_compute.cli import main
from nahanni_compute.cli.supervisor import keep, told_to_end, wait_for_end
from nahanni_compute.errors import SchedulerDied
from nahanni_compute.joining import COULD_NOT_JOIN

from .commands import Shell, below, ends, said_one_line, wait_for
from .living import lives, wait_ended, wait_until
from .scripts import Running

PATIENCE_S = 30.0
MANY = 1100  # descriptors, more than select() takes


@contextmanager
def descriptors_limited_to(soft: int) -> Iterator[None]:
    """No descriptor of this process above that may be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """All low ones are taken."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * MANY:
        pytest.skip(f"needs {2 * MANY} descriptors, may have {hard} (ulimit -Hn)")
    with descriptors_limited_to(2 * MANY):
        taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(MANY)]
        try:
            yield
        finally:
            for fd in taken:
                os.close(fd)


def kill_worker(cluster: LocalCluster) -> tuple[str, int]:
    """One of them: its name and what its pid was."""
    name, pid = next(iter(cluster.workers.items()))
    os.kill(pid, signal.SIGKILL)
    return name, pid


def scheduler_of(server: Running) -> int:
    """The scheduler that `nahanni server` started."""
    return next(pid for pid in below(server.pid) if b"nahanni_compute.scheduler" in Path(f"/proc/{pid}/cmdline").read_bytes())


def is_replaced(cluster: LocalCluster, name: str, pid: int) -> bool:
    """Whether another process serves under that name."""
    return cluster.workers[name] != pid and lives(cluster.workers[name])


# -- workers


def test_a_worker_that_a_task_ends_is_started_again(shell: Shell) -> None:
    """With status 1 too, which is what most ways to die of an error have."""
    shell.serve()
    worker = shell.start("worker")
    wait_for(shell, 1)
    (old,) = below(worker.pid)
    with Client(shell.socket) as client:

        def die_once(marker: Path = shell.folder / "died") -> int:
            if not marker.exists():
                marker.touch()
                os._exit(1)
            return os.getpid()

        assert client.submit(die_once).result(PATIENCE_S) not in (old, os.getpid())
    assert lives(worker.pid)


def test_a_worker_that_could_not_join_is_not_started_again(shell: Shell) -> None:
    """It would wait in vain for another while."""
    done = shell.run("worker", "--timeout", "0.2")
    assert done.returncode == 1
    assert f"status {COULD_NOT_JOIN}" in done.stderr
    assert "takes its place" not in done.stderr


def test_a_process_that_always_dies_at_once_is_started_a_few_times() -> None:
    """And no more."""
    started: list[int] = []

    def start() -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "raise SystemExit(1)"])
        started.append(child.pid)
        return child

    assert keep(start, "worker", restart=True) == 1
    assert 2 <= len(started) <= 5


def test_a_supervisor_may_have_many_descriptors(many_descriptors: None) -> None:
    """It waits for a child all the same."""
    with told_to_end() as told, subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as child:
        assert told > MANY
        assert wait_for_end([child], told) is child


def test_a_cluster_in_a_process_with_many_descriptors_replaces_its_workers(many_descriptors: None) -> None:
    """As in any other."""
    with LocalCluster(1, region_size="64MiB") as cluster:
        name, pid = kill_worker(cluster)
        wait_until(lambda: is_replaced(cluster, name, pid))


def test_a_worker_that_cannot_be_replaced_now_is_replaced_later(caplog: pytest.LogCaptureFixture) -> None:
    """While no descriptor is to be had, for example."""
    with LocalCluster(1, region_size="64MiB") as cluster:
        with descriptors_limited_to(4):
            name, pid = kill_worker(cluster)
            wait_until(lambda: "expected to replace workers" in caplog.text)
        wait_until(lambda: is_replaced(cluster, name, pid))


# -- server and scheduler


def test_the_end_of_a_killed_supervisor_reaches_who_waits(shell: Shell) -> None:
    """The server ends the scheduler, which stands still here, and says so before it ends itself."""
    server = shell.serve()
    wait_for(shell, 0)
    with Client(shell.socket) as client:
        future = client.submit(abs, -1)
        pids = below(server.pid)
        os.kill(scheduler_of(server), signal.SIGSTOP)
        server.signal(signal.SIGKILL)
        with pytest.raises(SchedulerDied):
            future.result(PATIENCE_S)
    wait_ended(pids)


def test_a_server_goes_on_when_its_scheduler_dies(shell: Shell) -> None:
    """It says so in one line, reaps it, tells all others, and has exit status 1 in the end."""
    server = shell.serve()
    wait_for(shell, 0)
    with Client(shell.socket) as client:
        future = client.submit(abs, -1)
        os.kill(scheduler_of(server), signal.SIGKILL)
        with pytest.raises(SchedulerDied):
            future.result(PATIENCE_S)
    wait_until(lambda: len(below(server.pid)) == 1)
    said = [line for path in shell.folder.glob("stderr-*") for line in path.read_text().splitlines() if line.startswith("nahanni: ")]
    assert said == ["nahanni: the scheduler ended with status -9, and so did all jobs; restart everything to go on"]
    assert "no scheduler" in shell.run("status").stdout
    server.signal(signal.SIGTERM)
    ends(server, 1)
    assert shell.left_here() == []


# -- one line


def test_a_folder_that_may_not_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As for an ordinary user and the default socket."""
    tmp_path.chmod(0o500)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may make folders everywhere
    try:
        assert main(["server", "--socket", str(tmp_path / "nahanni" / "region.sock"), "--size", "64MiB"]) == 1
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    said = capsys.readouterr().err
    assert said.startswith(f"nahanni: expected to make {tmp_path / 'nahanni'}, saw Permission denied")
    assert said.count("\n") == 1


def test_a_file_in_the_place_of_a_folder_is_named(shell: Shell) -> None:
    """And how to go on."""
    (shell.folder / "file").touch()
    said = said_one_line(shell.run("server", "--socket", "file/region.sock", "--size", "64MiB"))
    assert "file" in said
    assert "--socket" in said


def test_a_setting_that_is_wrong_is_named_by_every_command(shell: Shell) -> None:
    """Whichever it is."""
    for command in ("version", "status", "worker"):
        assert "NAHANNI_VECTORS" in said_one_line(shell.run(command, NAHANNI_VECTORS="x"))
