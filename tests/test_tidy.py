"""Style that a machine can judge, held by tests; ruff and mypy (`make check`) hold the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from .checkout import ROOT, project_files

LINE_MAX = 140
MODULE_LINES_MAX = 400
TEST_LINES_MAX = 600
BLOB_BYTES_MAX = 300_000

FILES = project_files()
SCRIPTS = [f for f in FILES if (ROOT / f).read_bytes()[:2] == b"#!"]
SOURCES = [f for f in FILES if f.suffix in {".py", ".pyi", ".c", ".h", ".sh"} or f in SCRIPTS]
TEXTS = [f for f in FILES if f.suffix in {".md", ".toml", ".in"} or f.name == "Makefile" or f in SOURCES]
# The kernel module follows the kernel's style; the models are as their author checked them.
OURS = [f for f in SOURCES if "driver" not in f.parts and "models" not in f.parts]


def text_of(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def found(paths: Iterable[Path], look: Callable[[str], object]) -> dict[str, object]:
    """What `look` sees in each of these files, where it sees anything."""
    return {str(path): seen for path in paths if (seen := look(text_of(path)))}


def numbers(text: str, is_wrong: Callable[[str], bool]) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if is_wrong(line)]


def test_a_module_is_short_and_holds_one_concept() -> None:
    """What outgrows this many lines usually holds two concepts; tests, one file a module, may say more of it."""
    long = {str(f): n for f in OURS if (n := text_of(f).count("\n")) > (TEST_LINES_MAX if f.parts[0] == "tests" else MODULE_LINES_MAX)}
    assert long == {}


def test_lines_fit_the_page() -> None:
    """The same width in Python, C and shell."""
    assert found(OURS, lambda text: numbers(text, lambda line: len(line) > LINE_MAX)) == {}


def test_no_white_space_ends_a_line() -> None:
    """Diffs show what changed and nothing else."""
    assert found(TEXTS, lambda text: numbers(text, lambda line: line != line.rstrip())) == {}


def test_a_file_ends_with_one_newline() -> None:
    """So that one file after the other is still lines."""
    assert found(TEXTS, lambda text: text and (not text.endswith("\n") or text.endswith("\n\n"))) == {}


def test_a_module_is_named_after_its_concept() -> None:
    """No drawer for everything else."""
    assert [str(f) for f in FILES if f.stem in {"utils", "util", "helpers", "misc", "common"}] == []


def test_nothing_is_left_for_later() -> None:
    """What is not due yet is absent: neither a stub nor a note to write it."""
    assert found(TEXTS, lambda text: re.findall(r"\b(?:TO[D]O|FIX[M]E|XX[X])\b", text)) == {}


def test_no_path_of_somebodys_own_machine() -> None:
    """The project lies wherever it was cloned."""
    assert found(TEXTS, lambda text: re.findall(r"(?<![\w.])/(?:wor[k]|hom[e])/[\w.]+", text)) == {}


def test_what_names_its_interpreter_may_be_run() -> None:
    """And nothing else may: a file's first line and its mode agree."""
    assert [str(f) for f in FILES if (f in SCRIPTS) != os.access(ROOT / f, os.X_OK)] == []


def test_python_modules_begin_with_a_sentence() -> None:
    """A module says what it is before it does anything; only an empty __init__ has nothing to say."""
    assert found((f for f in FILES if f.suffix == ".py"), lambda text: text and not text.startswith('"""')) == {}


def test_the_changelog_begins_with_what_is_not_released_yet() -> None:
    """Each change says there, in a sentence, what it is to a user."""
    headings = re.findall(r"^## (.*)", text_of(Path("CHANGELOG.md")), flags=re.MULTILINE)
    assert "unreleased" in headings[0].lower()


def test_no_large_file_is_kept() -> None:
    """Data is installed from where it lives, not carried along in the history."""
    assert [str(f) for f in FILES if (ROOT / f).stat().st_size > BLOB_BYTES_MAX] == []


def test_a_document_that_names_another_is_right_about_it() -> None:
    """Relative links lead to files of the checkout."""
    for path in (f for f in FILES if f.suffix == ".md"):
        targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text_of(path))
        assert [target for target in targets if not (ROOT / path.parent / target).exists()] == [], path
