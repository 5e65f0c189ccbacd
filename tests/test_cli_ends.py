"""How the `nahanni` commands end: told to, killed, alone or with the others; nothing is left."""

from __future__ import annotations

import os
import signal

import pytest

from nahanni_compute import Client

from .commands import ENDS_S, Shell, below, ends, members, wait_for
from .living import lives, wait_ended, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_end_of_the_server_ends_everything(shell: Shell, number: int) -> None:
    """Scheduler and workers, wherever they were started; socket and key are gone; whoever waits hears of it."""
    server, worker = shell.serve(), shell.start("worker")
    wait_for(shell, 1)
    pids = below(server.pid) + below(worker.pid)
    assert len(pids) == 3
    server.signal(number)
    ends(server)
    ends(worker)
    wait_ended(pids, ENDS_S)
    assert shell.left_here() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_worker_ends_when_it_is_told(shell: Shell, number: int) -> None:
    """Soon; the others stay."""
    server, worker = shell.serve(), shell.start("worker")
    wait_for(shell, 1)
    pids = below(worker.pid)
    worker.signal(number)
    ends(worker)
    assert not any(lives(pid) for pid in pids)
    assert "worker" not in members(shell)
    assert lives(server.pid)


@pytest.mark.parametrize("command", ["worker", "scheduler"])
@pytest.mark.parametrize("server", [False, True], ids=["before the server", "before the scheduler"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_who_still_waits_ends_when_it_is_told(shell: Shell, command: str, server: bool, number: int) -> None:
    """For a server, or for a scheduler."""
    if server:
        shell.serve("--no-scheduler")
    waiting = shell.start(command)
    wait_until(lambda: below(waiting.pid))
    if server:
        wait_until(lambda: members(shell).get(command))
    waiting.signal(number)
    ends(waiting)


def test_ctrl_c_of_a_terminal_reaches_all_and_ends_all_in_order(shell: Shell) -> None:
    """The whole foreground group gets it; nobody prints a traceback."""
    server, worker = shell.serve(), shell.start("worker")
    wait_for(shell, 1)
    for command in (worker, server):
        for pid in [*below(command.pid), command.pid]:
            os.kill(pid, signal.SIGINT)
        ends(command)
    for path in shell.folder.glob("stderr-*"):
        assert "Traceback" not in path.read_text()


@pytest.mark.parametrize("which", ["server", "worker", "scheduler"])
def test_a_supervisor_that_is_killed_leaves_nothing(shell: Shell, which: str) -> None:
    """SIGKILL: its process ends with it; without its server or scheduler, so does the cluster."""
    commands = {"server": shell.serve("--no-scheduler"), "scheduler": shell.start("scheduler"), "worker": shell.start("worker")}
    wait_for(shell, 1)
    pids = {name: below(command.pid) for name, command in commands.items()}
    commands[which].signal(signal.SIGKILL)
    wait_ended(pids[which], ENDS_S)
    if which == "scheduler":
        wait_ended(pids["worker"], ENDS_S)
    if which == "server":
        wait_until(lambda: shell.left_here() == [])


def test_a_worker_process_that_is_killed_is_started_again(shell: Shell) -> None:
    """Under the same name, by its supervisor."""
    shell.serve()
    worker = shell.start("worker", "--name", "phoenix")
    wait_for(shell, 1)
    with Client(shell.socket) as client:
        (old,) = below(worker.pid)
        os.kill(old, signal.SIGKILL)
        wait_ended([old])
        wait_until(lambda: below(worker.pid) and client.run(os.getpid) == {"phoenix": below(worker.pid)[0]})
        assert below(worker.pid) != [old]


def test_a_server_that_is_killed_with_its_supervisor_can_be_started_again(shell: Shell) -> None:
    """What they left behind is in nobody's way."""
    server = shell.serve()
    wait_for(shell, 0)
    pids = below(server.pid)
    for pid in [server.pid, *pids]:
        os.kill(pid, signal.SIGKILL)
    wait_ended(pids)
    shell.serve()
    wait_for(shell, 0)
