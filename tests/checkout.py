"""Where the checkout lies, and which of its files belong to the project: for the tests that read the source instead of running it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "nahanni_compute"
LINKS: Final = ("scheduler", "workers", "arrow_ipc")
NEVER: Final = {".git", ".venv", "build", "dist", "__pycache__"}


def project_files() -> list[Path]:
    """Files of the project, relative to ROOT: what git tracks or would track; without git, all but what is made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        names = [Path(name) for name in listed.split("\0") if name]
    except (FileNotFoundError, subprocess.CalledProcessError):
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
    return sorted(name for name in names if (ROOT / name).is_file() and not NEVER & set(name.parts))


def module_name(path: Path) -> str:
    """The dotted name of a module, from its path relative to ROOT."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
