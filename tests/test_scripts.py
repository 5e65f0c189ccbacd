"""Programs as users write them: from a file, standard input, a console, without a guard, with modules beside them."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

from .living import lives, wait_ended
from .scripts import run_python, run_script, running, running_script

PATIENCE_S = 30.0

SCRIPT = """
from dataclasses import dataclass
from nahanni_compute import Client

BASE = 10

@dataclass
class Point:
    x: int

    def moved(self, by):
        return Point(self.x + by)

def helper(x):
    return x + BASE

def task(x):
    return helper(x) * 2

client = Client(n_workers=2, region_size="64MiB")
print(client.gather(client.map(task, range(3))))
point = client.submit(Point.moved, Point(1), 5).result()
print(point, isinstance(point, Point), client.submit(lambda: Point(3).moved(4)).result())
BASE = 0
print(client.gather(client.map(task, range(3))))
"""
SAID = ["[20, 22, 24]", "Point(x=6) True Point(x=7)", "[0, 2, 4]"]


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """From a file; its functions and classes reach workers that do not have it."""
    assert run_script(SCRIPT, tmp_path).splitlines() == SAID


def test_a_script_may_come_from_standard_input(tmp_path: Path) -> None:
    """`python - < script`."""
    assert run_python(["-"], tmp_path, given=SCRIPT).splitlines() == SAID


def test_a_script_may_be_given_on_the_command_line(tmp_path: Path) -> None:
    """`python -c`."""
    assert run_python(["-c", SCRIPT], tmp_path).splitlines() == SAID


def test_a_script_may_be_run_as_a_module(tmp_path: Path) -> None:
    """`python -m`, also of a package."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(SCRIPT)
    (tmp_path / "module.py").write_text(SCRIPT)
    for name in ("module", "package"):
        assert run_python(["-m", name], tmp_path).splitlines() == SAID


CONSOLE = """
import code, sys
console = code.InteractiveConsole()
for cell in {cells!r}:
    for line in [*cell.splitlines(), ""]:
        console.push(line)
"""
CELLS = [
    "from nahanni_compute import Client",
    "client = Client(n_workers=1, region_size='64MiB')",
    "def task(x):\n    return x + 1",
    "print(client.gather(client.map(task, range(3))))",
    "def task(x):\n    return x + 100",
    "print(client.gather(client.map(task, range(3))), client.submit(lambda: task(1)).result())",
    "client",
    "client.submit(task, None).result()",
    "print(client.submit(task, 1).result())",
]


def test_a_console_may_redefine_functions_and_see_errors(tmp_path: Path) -> None:
    """Cell by cell, as in a notebook; an error ends nothing."""
    (tmp_path / "script.py").write_text(CONSOLE.format(cells=CELLS))
    said = run_python(["script.py"], tmp_path, check=False)
    for expected in ("[1, 2, 3]", "[100, 101, 102] 101", "<Client ", "TypeError: unsupported operand", "\n101\n"):
        assert expected in said


@pytest.mark.skipif(importlib.util.find_spec("IPython") is None, reason="IPython is not installed")
def test_cells_of_ipython_are_like_those_of_a_console(tmp_path: Path) -> None:
    """What a notebook runs its cells with."""
    shell = "from IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()\n"
    (tmp_path / "script.py").write_text(shell + f"for cell in {CELLS[:6]!r}:\n    shell.run_cell(cell)\n")
    said = run_python(["script.py"], tmp_path)
    assert "[1, 2, 3]" in said
    assert "[100, 101, 102] 101" in said


def test_interactive_python_runs_line_by_line(tmp_path: Path) -> None:
    """`python -i` with its lines on standard input."""
    given = "\n".join(cell + "\n" for cell in CELLS)
    said = run_python(["-i", "-q", "-c", ""], tmp_path, given=given, check=False)
    assert "[100, 101, 102] 101" in said


# -- modules beside the script

NEAR = """
from far import shift
from package.deep import Deep, twice
SCALE = 3
def near(x):
    return shift(x) * SCALE
class Holder:
    def __init__(self, x):
        self.x = x
    def value(self):
        return near(self.x)
"""
FAR = """
import json
AMOUNT = 1
def shift(x):
    return json.loads(json.dumps(x)) + AMOUNT
class FarError(Exception):
    pass
"""
DEEP = """
from . import constants
def twice(fn, x):
    return fn(fn(x))
class Deep:
    def run(self, x):
        return x * constants.FACTOR
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder with a module, one that it imports, and a package."""
    (tmp_path / "near.py").write_text(NEAR)
    (tmp_path / "far.py").write_text(FAR)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "constants.py").write_text("FACTOR = 7\n")
    (tmp_path / "package" / "deep.py").write_text(DEEP)
    return tmp_path


BEGIN = "from nahanni_compute import Client\nclient = Client(n_workers=2, region_size='64MiB')\n"


def test_functions_of_modules_beside_the_script_reach_workers(modules: Path) -> None:
    """Two modules deep, and of a package; as tasks, in tasks, and as arguments."""
    script = """
import near
from near import Holder, twice, near as function
from package.deep import Deep
print(client.gather(client.map(near.near, range(3))))
print(client.submit(lambda x: near.near(x) + 1, 1).result())
print(client.submit(twice, function, 1).result())
print(client.submit(Deep().run, 2).result(), client.submit(Holder.value, Holder(2)).result())
back = client.submit(lambda: Holder(5)).result()
print(isinstance(back, Holder), back.value())
"""
    assert run_script(BEGIN + script, modules).splitlines() == ["[3, 6, 9]", "7", "21", "14 9", "True 18"]


def test_workers_do_have_no_such_file(modules: Path) -> None:
    """By-value is what brings them there: importing the module in a task fails."""
    script = """
import far
def task():
    import importlib
    importlib.import_module("far")
print(type(client.submit(task).exception()).__name__)
"""
    assert run_script(BEGIN + script, modules).strip() == "ModuleNotFoundError"


def test_exceptions_of_modules_beside_the_script_are_caught_by_their_class(modules: Path) -> None:
    """One of two modules deep."""
    script = """
from far import FarError
def task():
    raise FarError("from afar")
try:
    client.submit(task).result()
except FarError as error:
    print("caught", error)
"""
    assert run_script(BEGIN + script, modules).strip() == "caught from afar"


def test_a_global_that_is_rebound_in_a_module_beside_the_script_is_seen(modules: Path) -> None:
    """In the function's own module, in one it imports from, and through the module's name."""
    script = """
import far, near
from near import near as function
print(client.submit(function, 1).result(), client.submit(lambda: near.near(1)).result(), client.submit(lambda: near.SCALE).result())
near.SCALE = 10
print(client.submit(function, 1).result(), client.submit(lambda: near.near(1)).result(), client.submit(lambda: near.SCALE).result())
def by_name():
    return near.near(1), near.SCALE
print(client.submit(by_name).result())
far.AMOUNT, near.SCALE = 4, 2
print(client.submit(function, 1).result(), client.submit(by_name).result())
"""
    assert run_script(BEGIN + script, modules).splitlines() == ["6 6 3", "20 20 10", "(20, 10)", "10 (10, 2)"]


def test_a_module_that_is_imported_after_the_first_task_travels_too(modules: Path) -> None:
    """What is local is looked at when it is needed."""
    script = """
print(client.submit(abs, -1).result())
import near
print(client.submit(near.near, 1).result())
from package.deep import Deep
print(client.submit(abs, -1).result(), client.submit(Deep.run, Deep(), 1).result())
"""
    assert run_script(BEGIN + script, modules).splitlines() == ["1", "6", "1 7"]


def test_a_module_on_the_path_elsewhere_travels_too(tmp_path: Path) -> None:
    """sys.path may name any folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "distant.py").write_text("def task(x):\n    return -x\n")
    script = "import sys; sys.path.insert(0, 'elsewhere')\nimport distant\nprint(client.submit(distant.task, 5).result())"
    assert run_script(BEGIN + script, tmp_path).strip() == "-5"


NAMES = [
    "scheduler", "workers", "queue", "selectors", "logging", "numpy", "random", "signal", "json", "client", "config", "region", "server",
    "tests", "errors", "arrow_ipc", "types", "cloudpickle",
]  # fmt: skip


@pytest.mark.parametrize("ours", [True, False], ids=["script", "beside"])
def test_a_file_named_like_a_module_of_anybodys_breaks_no_process_of_ours(tmp_path: Path, ours: bool) -> None:
    """Workers, scheduler and server never look into the folder they were started in."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not the module you look for')\n")
    script = BEGIN + "def task(x):\n    return x + 1\nprint(client.gather(client.map(task, range(3))))\nclient.close()\n"
    if ours:
        for name in ("scheduler", "workers"):
            assert run_python(["-P", "-c", script], tmp_path).strip() == "[1, 2, 3]"
            (tmp_path / f"{name}.py").write_text(script)
            assert run_python(["-P", f"{name}.py"], tmp_path).strip() == "[1, 2, 3]"
    else:
        (tmp_path / "program").mkdir()
        (tmp_path / "program" / "script.py").write_text(script)
        assert run_python(["program/script.py"], tmp_path).strip() == "[1, 2, 3]"


def test_a_script_named_like_a_module_of_ours_works(tmp_path: Path) -> None:
    """Python itself puts its folder first."""
    script = BEGIN + "def task(x):\n    return x + 1\nprint(client.gather(client.map(task, range(3))))\n"
    for name in ("scheduler.py", "workers.py", "client.py", "server.py", "arrow_ipc.py"):
        assert run_script(script, tmp_path, name=name).strip() == "[1, 2, 3]"


def test_output_of_tasks_does_not_harm(tmp_path: Path) -> None:
    """Much of it, too."""
    script = "import sys\ndef task(i):\n    print('x' * 1000)\n    print('y' * 1000, file=sys.stderr)\n    return i\n"
    said = run_script(BEGIN + script + "print('sum', sum(client.gather(client.map(task, range(200)))))", tmp_path)
    assert f"sum {sum(range(200))}" in said


# -- Ctrl-C

INTERRUPTED = """
import os, sys, time
from nahanni_compute import Client
client = Client(n_workers=2, region_size="64MiB")
print(*client.run(os.getpid).values(), flush=True)
def task(i):
    if i == 0:
        open(sys.argv[1] if len(sys.argv) > 1 else os.environ["BUSY"], "w").close()
    time.sleep(1 if i < 2 else 0)
    return i
futures = {call}
try:
    print("waiting", flush=True)
    {wait}
    print("not interrupted", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(client.submit(abs, -3).result(), client.gather(client.map(abs, range(-3, 0))), flush=True)
print(sorted(client.run(os.getpid).values()), flush=True)
"""


@pytest.mark.parametrize("wait", ["client.gather(futures)", "futures[0].result()", "client.gather(list(futures), timeout=60)"])
def test_ctrl_c_ends_the_wait_and_nothing_else(tmp_path: Path, wait: str) -> None:
    """SIGINT to the whole group, as a terminal sends it: the client is usable, workers are the same, and nothing is left."""
    script = INTERRUPTED.format(call="client.map(time.sleep, [0.7, 0.7])", wait=wait)
    (tmp_path / "script.py").write_text(script)
    with running(["setsid", sys.executable, "script.py"], tmp_path) as program:
        pids = sorted(map(int, program.line().split()))
        assert program.line() == "waiting"
        os.killpg(program.pid, signal.SIGINT)
        assert program.line() == "interrupted"
        assert program.line() == "3 [3, 2, 1]"
        assert program.line() == str(pids)
        assert program.end() == 0
    assert not any(lives(pid) for pid in pids)


def test_ctrl_c_that_nobody_catches_ends_the_program_and_leaves_nothing(tmp_path: Path) -> None:
    """With the traceback of KeyboardInterrupt alone."""
    script = """
import os, time
from nahanni_compute import Client
with Client(n_workers=2, region_size="64MiB") as client:
    print(*client.run(os.getpid).values(), flush=True)
    client.gather(client.map(time.sleep, [0.5, 0.5]))
"""
    with running_script(script, tmp_path) as program:
        pids = [int(pid) for pid in program.line().split()]
        program.signal(signal.SIGINT)
        assert program.end() == -signal.SIGINT
        wait_ended(pids, 2)


def test_sigterm_ends_a_program_and_its_cluster(tmp_path: Path) -> None:
    """Python ends at once, without its exit handlers; the cluster notices."""
    script = BEGIN + "import os, time\nprint(*client.run(os.getpid).values(), flush=True)\nclient.gather(client.map(time.sleep, [99]))\n"
    with running_script(script, tmp_path) as program:
        pids = [int(pid) for pid in program.line().split()]
        program.signal(signal.SIGTERM)
        assert program.end() == -signal.SIGTERM
        wait_ended(pids, 3)
