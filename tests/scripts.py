"""Programs in a process of their own, as users write them: without a guard, in a folder that workers do not know."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .serving import environment

PATIENCE_S = 30.0


def run_script(text: str, folder: Path, *arguments: str, name: str = "script.py", check: bool = True) -> str:
    """Run it from a file in `folder`; what it prints. Its errors are printed with a failure."""
    (folder / name).write_text(text)
    return run_python([name, *arguments], folder, check=check)


def run_python(arguments: list[str], folder: Path, given: str | None = None, check: bool = True) -> str:
    """Run Python with these arguments in `folder`, `given` on its standard input; what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment({}),
        input=given,
        stdin=None if given is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + (done.stderr if not check else "")


class Running:
    """A process under way that says lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid

    def line(self) -> str:
        """The next line it prints; empty when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> None:
        """On its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(command: list[str], folder: Path, **variables: str) -> Iterator[Running]:
    """This command in `folder`, killed at the end of `with` if it still runs; what it printed last is shown then."""
    environ = {**environment({}), "PYTHONUNBUFFERED": "1", **variables}
    with (
        open(folder / f"stderr-{os.urandom(4).hex()}", "w+") as errors,
        subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield Running(process)
        finally:
            process.kill()
            process.wait()
            errors.seek(0)
            print(f"{command} said:", errors.read(), process.stdout.read() if process.stdout else "", sep="\n")


@contextmanager
def running_script(text: str, folder: Path, *arguments: str, name: str = "script.py") -> Iterator[Running]:
    """A script in `folder`, under way."""
    (folder / name).write_text(text)
    with running([sys.executable, name, *arguments], folder) as started:
        yield started
