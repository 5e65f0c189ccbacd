"""Imports run one way, from the bottom up (ARCHITECTURE.md). Read from the syntax trees: what is imported lazily counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from .checkout import PACKAGE, ROOT, module_name

TOP: Final = "nahanni_compute"
# From the bottom up. A module may import what stands in a lower row, and its own package.
LAYERS: Final = (
    "version errors machine classes _native",
    "config",
    "region",
    "server substrate",
    "arrow_ipc pickling",
    "messages core",
    "asking joining",
    "scheduler workers",
    "client cluster bindings functions future information processes refs session sync",
    "kernels dask_backend vm demo",
    "cli",
)
ROW: Final = {name: row for row, names in enumerate(LAYERS) for name in names.split()}
CLIENT: Final = ROW["client"]  # modules of one concept, the client: they may import each other, without a cycle

SOURCES: Final = {module_name(p.relative_to(ROOT)): p for p in sorted(PACKAGE.rglob("*.py"))}
MODULES: Final = {*SOURCES, f"{TOP}._native"}


def statements(tree: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """All nodes below; without `types`, not those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from statements(node, types=types)


def imported(module: str, *, types: bool = True) -> Iterator[str]:
    """The absolute names of the modules that a module imports, of this project as deep as they are modules."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(ast.parse(path.read_text()), types=types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def ours(module: str, *, types: bool = True) -> set[str]:
    return {name for name in imported(module, types=types) if name == TOP or name.startswith(TOP + ".")}


def part_of(module: str) -> str:
    """The name under nahanni_compute that a module stands in. What the facade itself lends out is the client's."""
    return module.split(".")[1] if "." in module else "client"


def may_import(importer: str, target: str) -> bool:
    ours_row, its_row = ROW[part_of(importer)], ROW[part_of(target)]
    return part_of(importer) == part_of(target) or its_row < ours_row or its_row == ours_row == CLIENT


def test_each_part_of_the_package_has_its_place_in_the_order() -> None:
    """A new module or package is put into LAYERS on purpose, not by accident."""
    assert {part_of(m) for m in SOURCES} - ROW.keys() == set()


def test_a_module_imports_only_what_stands_below_it() -> None:
    """Nothing looks up: a lower layer can be read, tested and replaced without the ones above. The facade may name anything."""
    wrong = [
        f"{module} imports {name}" for module in SOURCES if module != TOP for name in sorted(ours(module)) if not may_import(module, name)
    ]
    assert wrong == []


def test_scheduler_and_workers_never_import_each_other() -> None:
    """They meet in the region, by messages, and may run in different VMs and different versions of Python."""
    for one, other in (("scheduler", "workers"), ("workers", "scheduler")):
        assert [m for m in SOURCES if part_of(m) == one and other in map(part_of, ours(m))] == []


def test_the_server_needs_only_the_standard_library() -> None:
    """It must not die: no user code, nothing unpickled, nothing heavy in its process."""
    for module in (m for m in SOURCES if part_of(m) == "server"):
        assert {name for name in imported(module) if name.split(".")[0] not in {TOP, *sys.stdlib_module_names}} == set(), module
        assert {part_of(name) for name in ours(module)} <= {"server", "version", "errors", "config", "region", "_native"}, module


def test_no_import_cycles() -> None:
    """Any module can be imported first. (Names for the type checker alone are not imported.)"""
    graph = {m: {name for name in ours(m, types=False) if name in SOURCES} - {m, TOP} for m in SOURCES if m != TOP}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_importing_the_package_imports_nothing_else() -> None:
    """`nahanni_compute/__init__` runs before every submodule, in the server too: its names are looked up when asked for."""
    code = f"import sys, {TOP}; print([m for m in sys.modules if m.startswith('{TOP}.') or m in ('numpy', 'pyarrow', 'cloudpickle')])"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert seen in ("[]", f"['{TOP}.version']")


def test_a_link_at_the_root_is_not_a_second_module() -> None:
    """In a checkout `import scheduler` would give classes that are not those of nahanni_compute.scheduler: it is refused, by name."""
    for link in sorted(p.name for p in ROOT.iterdir() if p.is_symlink()):
        done = subprocess.run([sys.executable, "-c", f"import {link}"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode != 0, link
        assert "ImportError" in done.stderr, link
        assert f"{TOP}.{link}" in done.stderr, link


def test_the_links_at_the_root_are_relative_and_lead_into_the_package() -> None:
    """They survive a clone to another place."""
    links = {p.name: p.readlink() for p in ROOT.iterdir() if p.is_symlink()}
    assert links == {name: Path(TOP, name) for name in links}
    assert {"scheduler", "workers"} <= links.keys()
