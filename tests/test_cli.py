"""The `nahanni` commands: help, what they say, in which order they may be started."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import time
from importlib.metadata import version as version_of

import pytest

from nahanni_compute import Client, __version__
from nahanni_compute.config import settings

from .commands import Shell, below, ends, members, said_one_line, wait_for
from .living import lives, wait_until

PATIENCE_S = 30.0
COMMANDS = ["server", "scheduler", "worker", "status", "demo", "version"]


# -- what they say


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(shell: Shell, command: str) -> None:
    """--help: what it does in a sentence or more, and each of its options."""
    done = shell.run(command, "--help", shm=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: nahanni {command}")
    paragraphs = done.stdout.split("\n\n")
    assert len(paragraphs[1].split()) >= 5
    options = re.split(r"\n  (?=-)", done.stdout.partition("\noptions:")[2])[1:]
    assert options
    assert [option for option in options if not re.search(r"(\S  +|\n +)\w+ \w+", option)] == []


def test_the_command_itself_names_each_command_and_how_to_begin(shell: Shell) -> None:
    """With --help; without anything it says what is missing."""
    done = shell.run("--help", shm=False)
    assert done.returncode == 0
    for word in [*COMMANDS, "--shm", "NAHANNI_SHM", "--key-file", "Client("]:
        assert word in done.stdout
    nothing = shell.run(shm=False)
    assert nothing.returncode == 2
    assert "COMMAND" in nothing.stderr


def test_version_names_what_decides_who_may_join_whom(shell: Shell) -> None:
    """Ours, Python's and those of the libraries."""
    said = shell.run("version", shm=False).stdout
    for text in (__version__, platform.python_version(), *(version_of(name) for name in ("numpy", "pyarrow", "cloudpickle"))):
        assert text in said


def test_status_says_who_is_there(shell: Shell) -> None:
    """A table for people, JSON for programs."""
    shell.serve()
    worker = shell.start("worker", "--name", "left-hand")
    wait_for(shell, 1)
    done = shell.run("status")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "region: 64 MiB"
    assert lines[1].split() == ["role", "name", "host", "pid", "substrate", "threads"]
    row = next(line.split() for line in lines if "left-hand" in line)
    assert row[0] == "worker"
    assert row[2] == platform.node()
    assert int(row[3]) in below(worker.pid)
    told = json.loads(shell.run("status", "--json").stdout)
    assert told["region_bytes"] == 64 << 20
    assert {member["role"] for member in told["members"]} >= {"scheduler", "worker"}
    (as_json,) = [member for member in told["members"] if member["name"] == "left-hand"]
    assert [str(value) for value in as_json.values()] == row


def test_status_without_a_scheduler_says_so(shell: Shell) -> None:
    """And how to start one; exit status 1."""
    shell.serve("--no-scheduler")
    done = shell.run("status")
    assert done.returncode == 1
    assert "nahanni scheduler" in done.stdout
    assert shell.run("status", "--json").returncode == 1


def test_the_environment_stands_in_for_the_address(shell: Shell) -> None:
    """NAHANNI_SHM."""
    shell.serve()
    wait_for(shell, 0)
    assert shell.run("status", shm=False, NAHANNI_SHM=str(shell.socket)).returncode == 0


# -- errors


@pytest.mark.parametrize("command", ["scheduler", "worker", "status"])
def test_without_an_address_the_error_says_how_to_give_one(shell: Shell, command: str) -> None:
    """One line, with the command in it."""
    said = said_one_line(shell.run(command, shm=False, NAHANNI_SHM=""))
    assert "--shm" in said
    assert command in said


@pytest.mark.parametrize(
    "arguments", [["status"], ["worker", "--timeout", "0.3"], ["scheduler", "--timeout", "0.3"]], ids=lambda given: given[0]
)
def test_where_no_server_is_the_error_says_so(shell: Shell, arguments: list[str]) -> None:
    """After the timeout for those who wait; exit status 1."""
    done = shell.run(*arguments)
    assert done.returncode == 1
    assert "region" in done.stderr
    assert "nahanni server" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_file_that_is_not_there_is_named(shell: Shell) -> None:
    """By every command that needs it."""
    shell.serve()
    for command in (["status"], ["worker", "--timeout", "5"]):
        done = shell.run("--key-file", "nothing.key", *command)
        assert done.returncode == 1
        assert "nothing.key" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "100MiB"], "power of two"),
        (["--size", "1MiB"], "64MiB"),
        (["--size", "much"], "much"),
        (["--group", "no-such-group"], "no-such-group"),
        (["--vectors", "0"], "vectors"),
        (["--socket", "x" * 200], "x" * 20),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_server_that_cannot_start_says_why(shell: Shell, arguments: list[str], words: str) -> None:
    """Exit status 1, no traceback, nothing left."""
    done = shell.run("server", "--socket", shell.socket, "--size", "64MiB", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert shell.left_here() == []


def test_a_second_server_on_a_socket_is_refused(shell: Shell) -> None:
    """The first goes on."""
    shell.serve()
    done = shell.run("server", "--socket", shell.socket, "--size", "64MiB")
    assert done.returncode == 1
    assert "region.sock" in done.stderr
    assert "Traceback" not in done.stderr
    wait_for(shell, 0)


def test_a_second_scheduler_is_refused(shell: Shell) -> None:
    """Exit status 1; the first goes on."""
    shell.serve()
    wait_for(shell, 0)
    done = shell.run("scheduler", "--timeout", "5")
    assert done.returncode == 1
    assert "scheduler" in done.stderr
    assert "Traceback" not in done.stderr
    wait_for(shell, 0)
    assert len(members(shell)["scheduler"]) == 1


@pytest.mark.parametrize("arguments", [["no-such-file.csv"], ["--workers", "0"]], ids=" ".join)
def test_a_demo_that_cannot_run_says_why(shell: Shell, arguments: list[str]) -> None:
    """One line."""
    said_one_line(shell.run("demo", *arguments, shm=False))


# -- in any order


@pytest.mark.parametrize(
    "order", ["server scheduler worker", "worker scheduler server", "scheduler server worker", "worker server scheduler"]
)
def test_they_may_be_started_in_any_order(shell: Shell, order: str) -> None:
    """Whoever is early waits, and a client gets its results."""
    for command in order.split():
        if command == "server":
            shell.serve("--no-scheduler")
        else:
            shell.start(command)
    with Client(shell.socket) as client:
        assert client.gather(client.map(lambda x: x + 1, range(3)), timeout=PATIENCE_S) == [1, 2, 3]


def test_a_client_may_wait_for_a_scheduler(shell: Shell) -> None:
    """And be there before any worker."""
    shell.serve("--no-scheduler")
    shell.start("scheduler")
    with Client(shell.socket) as client:
        future = client.submit(abs, -1)
        shell.start("worker")
        assert future.result(PATIENCE_S) == 1


def test_workers_join_and_leave_while_a_job_runs(shell: Shell) -> None:
    """The newcomer takes part, the leaver finishes its item, and each item runs once."""
    shell.serve()
    first = shell.start("worker", "--name", "first")
    wait_for(shell, 1)
    with Client(shell.socket) as client, open(shell.folder / "noted", "ab+") as noted:

        def task(i: int, path: str = noted.name) -> tuple[int, int]:
            time.sleep(0.002)
            with open(path, "ab") as file:
                file.write(f"{i}\n".encode())
            return i, os.getpid()

        (old,) = client.run(os.getpid).values()
        futures = client.map(task, range(1500))
        assert futures[0].result(PATIENCE_S) == (0, old)
        second = shell.start("worker", "--name", "second")
        wait_until(lambda: len(client.scheduler_info().workers) == 2)
        new = client.run(os.getpid, workers=["second"])["second"]
        wait_until(lambda: any(future.done() and future.result()[1] == new for future in futures[::-1]))
        first.signal(signal.SIGTERM)
        ends(first)
        results = client.gather(futures, timeout=PATIENCE_S)
        assert [i for i, _ in results] == list(range(1500))
        assert {pid for _, pid in results} == {old, new}
        assert sorted(map(int, noted.read().split())) == list(range(1500))
        assert list(client.scheduler_info().workers) == ["second"]
    assert lives(second.pid)


def test_a_worker_without_a_name_has_one(shell: Shell) -> None:
    """The host's, and its process."""
    shell.serve()
    for _ in range(2):
        shell.start("worker")
    wait_for(shell, 2)
    names = members(shell)["worker"]
    assert len(set(names)) == 2
    assert all(name.startswith(platform.node()) for name in names)


# -- what they leave to their owner alone


def test_the_key_of_a_server_is_its_owners_alone(shell: Shell) -> None:
    """And is another one each time."""
    keys = []
    for _ in range(2):
        server = shell.serve("--no-scheduler")
        key = shell.folder / "region.sock.key"
        assert key.stat().st_mode & 0o777 == 0o600
        keys.append(key.read_bytes())
        server.signal(signal.SIGTERM)
        ends(server)
    assert keys[0] != keys[1]


def test_the_default_socket_lies_in_the_run_directory(shell: Shell) -> None:
    """Where `systemd` would have it."""
    assert f"{settings().run_dir}/region.sock" in shell.run("server", "--help", shm=False).stdout
