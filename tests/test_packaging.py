"""What users install: the wheel, built from the checkout and from the sdist, holds the package and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import nahanni_compute

from .checkout import LINKS, ROOT, project_files

TOP = "nahanni_compute"
CORE = f"{TOP}/_native.abi3.so"


@dataclass(frozen=True)
class Built:
    """What `python -m build` made of a copy of the checkout."""

    wheel: Path
    sdist: Path
    wheel_from_sdist: Path


def run(*command: str | Path, cwd: Path) -> str:
    """The command's output; a failure shows all it said."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(source: Path, out: Path, kind: str) -> Path:
    """One distribution, built without asking an index: setuptools is in the environment of the tests."""
    run(sys.executable, "-P", "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source, cwd=out.parent)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both wheels and the sdist, made far from the checkout, which stays as it is."""
    base = tmp_path_factory.mktemp("packaging")
    source = base / "source"
    for name in project_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    for link in (p for p in ROOT.iterdir() if p.is_symlink()):
        (source / link.name).symlink_to(link.readlink())
    wheel = build(source, base / "wheel", "wheel")
    sdist = build(source, base / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(base / "unpacked", filter="data")
    (unpacked,) = (base / "unpacked").iterdir()
    return Built(wheel, sdist, build(unpacked, base / "wheel-from-sdist", "wheel"))


def files_of(wheel: Path) -> set[str]:
    """The files that a wheel installs, without its own records."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.timeout(300)
def test_the_wheel_holds_every_file_of_the_package_and_the_core(built: Built) -> None:
    """A new subpackage or data file that packaging does not find would work in a checkout and be missing for users."""
    package = {str(name) for name in project_files() if name.parts[0] == TOP}
    assert files_of(built.wheel) == package | {CORE}


@pytest.mark.timeout(300)
def test_the_sdist_makes_the_same_wheel(built: Built) -> None:
    """Headers, data files and packages all survive the way through the archive."""
    assert files_of(built.wheel_from_sdist) == files_of(built.wheel)


@pytest.mark.timeout(300)
def test_the_links_at_the_root_are_never_installed(built: Built) -> None:
    """PyPI has projects of these names: installing over each other destroys files."""
    with zipfile.ZipFile(built.wheel) as archive:
        roots = {name.split("/")[0] for name in archive.namelist()}
    assert roots == {TOP, f"{TOP}-{nahanni_compute.__version__}.dist-info"}
    with tarfile.open(built.sdist) as archive:
        assert {name.split("/")[1] for name in archive.getnames() if "/" in name} & set(LINKS) == set()


@pytest.mark.timeout(300)
def test_one_wheel_serves_every_python_from_3_11_on(built: Built) -> None:
    """The core keeps to the stable ABI of 3.11."""
    assert "-cp311-abi3-" in built.wheel.name


@pytest.mark.timeout(300)
def test_the_wheel_works_in_a_fresh_environment_from_another_directory(built: Built, tmp_path: Path) -> None:
    """Installed beside its dependencies and nothing of the checkout, it imports, and its command answers."""
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    run(sys.executable, "-P", "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", built.wheel, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")
    seen = run(
        python, "-c", f"import {TOP}, {TOP}._native as n; from {TOP} import Client; print({TOP}.__file__); print(n.__file__)", cwd=tmp_path
    )
    assert [Path(line) for line in seen.split()] == [site / TOP / "__init__.py", site / CORE]
    assert nahanni_compute.__version__ in run(tmp_path / "venv" / "bin" / "nahanni", "version", cwd=tmp_path)


@pytest.mark.timeout(300)
def test_the_version_is_said_in_one_place(built: Built) -> None:
    """The package's own, in the names of what is built."""
    assert [built.wheel.name.split("-")[1], built.sdist.name] == [
        nahanni_compute.__version__,
        f"{TOP}-{nahanni_compute.__version__}.tar.gz",
    ]


def test_the_tests_see_the_installed_package_and_not_the_checkout() -> None:
    """`make test` runs with -P and importlib mode, so that the checkout is nowhere on the path of imports."""
    if not sys.flags.safe_path:
        pytest.skip("run from the checkout, without -P: what was tested is the checkout")
    assert "site-packages" in Path(nahanni_compute.__file__).parts
    assert ROOT not in [Path(entry or os.curdir).resolve() for entry in sys.path]
