"""The installation: requirements and pins agree, the wheel is whole, `make setup` heals and explains."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SETS = ("runtime", "tests", "dev", "efficientnet", "text", "onnx", "web", "video", "docs")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SOURCES = ("Makefile", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "model-index.yml")
FOLDERS = ("mtadapt", "tools", "configs", "requirements")


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def pins(python: str) -> dict[str, Requirement]:
    """The constraints that hold on one Python, by canonical name."""
    environment = default_environment() | {"python_version": python}
    holding = [r for r in requirements("constraints") if r.marker is None or r.marker.evaluate(environment)]
    names = [canonicalize_name(r.name) for r in holding]
    assert len(names) == len(set(names)), f"pinned twice on Python {python}"
    return dict(zip(names, holding, strict=True))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is needed to build, away from this tree, whose path has a space."""
    target = tmp_path / "a clone"
    target.mkdir()
    for name in SOURCES:
        shutil.copy2(ROOT / name, target)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".mim"))
    (target / "tests").mkdir()
    (target / "tests" / "test_nothing.py").touch()
    return target


def make(clone: Path, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", *args]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=timeout)


def fake_python(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# Requirements and pins


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", SETS)
def test_every_requirement_has_a_pin_within_its_range(name: str, python: str) -> None:
    pinned = pins(python)
    for requirement in requirements(name):
        pin = pinned[canonicalize_name(requirement.name)]
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version), f"{pin} is outside {requirement}"


def test_the_pinned_torchvision_belongs_to_the_pinned_torch() -> None:
    pinned = pins("3.11")
    torch, torchvision = (next(iter(pinned[n].specifier)).version.split(".") for n in ("torch", "torchvision"))
    assert int(torchvision[1]) == int(torch[1]) + 15  # 2.4 and 0.19, 2.11 and 0.26


def test_transformers_stays_below_5() -> None:
    (asked,) = [r for name in SETS for r in requirements(name) if canonicalize_name(r.name) == "transformers"]
    assert not asked.specifier.contains("5.0.0")
    assert not pins("3.11")["transformers"].specifier.contains("5.0.0")


def test_setup_offers_every_requirements_file() -> None:
    """``setup.py`` reads all files of ``requirements/``, and ``make setup`` installs all extras."""
    files = {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert files == {*SETS, "constraints"}
    extras = re.search(r"^EXTRAS = \((.+)\)$", (ROOT / "setup.py").read_text(), re.M)
    installed = re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert extras is not None
    assert installed is not None
    assert re.findall(r'"(\w+)"', extras[1]) == installed[1].split(",") == list(SETS[1:])


# The package


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without ``__init__.py`` works in a clone and is missing in a wheel."""
    folders = {path.parent for path in (ROOT / "mtadapt").rglob("*.py") if ".mim" not in path.parts}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_model_index_names_files_that_exist() -> None:
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    assert index["Import"]
    for name in index["Import"]:
        assert "Collections" in yaml.safe_load((ROOT / name).read_text())


def build(clone: Path, *command: str) -> None:
    subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=clone, check=True, capture_output=True)


def expected_in_wheel(clone: Path) -> set[str]:
    files = [
        p for kind in ("*.py", "*.safetensors", "*.html", "*.css", "*.js") for p in (clone / "mtadapt").rglob(kind)
    ]
    modules = {str(p.relative_to(clone)) for p in files}
    carried = [p for name in ("tools", "configs") for p in (clone / name).rglob("*") if p.is_file()]
    return modules | {f"mtadapt/.mim/{p.relative_to(clone)}" for p in [*carried, clone / "model-index.yml"]}


def test_wheel_has_modules_tools_and_configs_but_no_tests(clone: Path, tmp_path: Path) -> None:
    build(clone, "bdist_wheel", "--dist-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    assert expected_in_wheel(clone) <= names
    assert not [name for name in names if not name.startswith("mtadapt/")]
    assert wheel.name.endswith("-py3-none-any.whl")
    assert {f"Provides-Extra: {name}" for name in SETS[1:]} <= set(metadata.splitlines())
    assert not (clone / "mtadapt" / ".mim").exists()


def test_sdist_can_be_built_into_the_same_wheel(clone: Path, tmp_path: Path) -> None:
    build(clone, "sdist", "--dist-dir", str(tmp_path))
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert not (unpacked / "tests").exists()
    build(unpacked, "build", "--build-base", str(tmp_path / "build"))
    built = {str(p.relative_to(tmp_path / "build/lib")) for p in (tmp_path / "build/lib").rglob("*") if p.is_file()}
    assert expected_in_wheel(clone) <= built


# make setup


def test_make_names_a_python_that_is_too_old(clone: Path, tmp_path: Path) -> None:
    old = fake_python(tmp_path / "python3.9", "echo 3.9")
    done = make(clone, "setup", f"PYTHON={old}")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"error: PYTHON={old} is Python 3.9; mtadapt needs 3.10 or newer, as in: PYTHON=python3.11 make setup"
    )
    assert not (clone / ".venv").exists()


def test_make_names_a_python_that_does_not_run(clone: Path) -> None:
    done = make(clone, "setup", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert done.stderr.startswith("error: PYTHON=/nowhere/python3 does not run; ")


def test_make_names_the_package_of_a_missing_venv_module(clone: Path, tmp_path: Path) -> None:
    path = tmp_path / "python3"
    body = f'case "$2" in *_base_executable*) echo {path};; *ensurepip*) exit 1;; *) echo 3.11;; esac'
    done = make(clone, "setup", f"PYTHON={fake_python(path, body)}")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].endswith("install it with: apt-get install python3.11-venv")


def fake_environment(clone: Path, tmp_path: Path, pip_status: int = 0) -> Path:
    """A Python whose ``venv`` and ``pip`` only note in ``calls`` that they were called, and with which constraints."""
    path, calls = tmp_path / "python3", tmp_path / "calls"
    body = f"""case "$*" in
        *_base_executable*) echo {path};;
        *print*) echo 3.11;;
        "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >> {calls};;
        "-m pip"*) echo "pip $PIP_CONSTRAINT" >> {calls}; exit {pip_status};;
    esac"""
    fake_python(path, body)
    return calls


def test_make_setup_installs_once_and_again_when_a_requirement_changes(clone: Path, tmp_path: Path) -> None:
    calls = fake_environment(clone, tmp_path)
    arg = f"PYTHON={tmp_path / 'python3'}"
    assert make(clone, "setup", arg).returncode == 0
    first = ["venv", "pip requirements/constraints.txt"]
    assert calls.read_text().splitlines() == first
    second = make(clone, "setup", arg)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert make(clone, "setup").stdout == ""  # without PYTHON the environment that is there is kept
    assert calls.read_text().splitlines() == first
    with (clone / "requirements/runtime.txt").open("a") as file:
        file.write("# a change\n")
    make(clone, "setup", arg)
    assert calls.read_text().splitlines() == [*first, first[1]]


def test_make_setup_tries_again_after_a_failed_or_interrupted_installation(clone: Path, tmp_path: Path) -> None:
    calls = fake_environment(clone, tmp_path, pip_status=1)
    arg = f"PYTHON={tmp_path / 'python3'}"
    assert make(clone, "setup", arg).returncode != 0
    half = clone / ".venv/lib/python3.11/site-packages/torch-2.11.0.dist-info"  # pip writes INSTALLER last
    whole = half.with_name("numpy-2.2.6.dist-info")
    for info in (half, whole):
        info.mkdir(parents=True)
    (whole / "INSTALLER").write_text("pip\n")
    assert make(clone, "setup", arg).returncode != 0
    assert not half.exists()
    assert whole.exists()
    assert calls.read_text().splitlines() == ["venv", *["pip requirements/constraints.txt"] * 2]


def test_make_setup_replaces_an_environment_of_another_python(clone: Path, tmp_path: Path) -> None:
    calls = fake_environment(clone, tmp_path)
    (clone / ".venv/bin").mkdir(parents=True)
    fake_python(clone / ".venv/bin/python", "echo 3.12")
    done = make(clone, "setup", f"PYTHON={tmp_path / 'python3'}")
    assert done.stdout.splitlines()[0] == "setup: .venv has Python 3.12, replacing it by one with Python 3.11"
    assert calls.read_text().splitlines()[0] == "venv"


def test_make_setup_replaces_an_environment_that_does_not_run(clone: Path, tmp_path: Path) -> None:
    fake_environment(clone, tmp_path)
    (clone / ".venv").mkdir()
    done = make(clone, "setup", f"PYTHON={tmp_path / 'python3'}")
    assert done.stdout.splitlines()[0] == "setup: .venv does not run or was never completed, making it anew"


def test_make_help_lists_the_commands(clone: Path) -> None:
    listed = {line.split()[1] for line in make(clone).stdout.splitlines()}
    assert listed == {
        "help",
        "setup",
        "demo",
        "demo-het",
        "demo-moe",
        "demo-hvp",
        "demo-zoo",
        "web",
        "test",
        "test-slow",
        "lint",
        "types",
        "docs",
        "clean",
    }


@pytest.mark.slow
def test_make_setup_from_nothing_and_again(clone: Path) -> None:
    """The real installation, with this Python: it works from anywhere, compiles nothing, and is kept."""
    first = make(clone, "setup", f"PYTHON={sys.executable}", timeout=1500)
    assert first.returncode == 0, first.stderr
    second = make(clone, "setup", f"PYTHON={sys.executable}", timeout=5)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    code = "import mtadapt, mmdet.models, mmseg.models; print(mtadapt.__file__)"
    python = clone / ".venv/bin/python"
    ran = subprocess.run([python, "-c", code], cwd=clone.parent, capture_output=True, text=True, check=True)
    assert ran.stdout.strip().splitlines()[-1] == str(clone / "mtadapt/__init__.py")
    assert (clone / "mtadapt/.mim/configs").resolve() == clone / "configs"
    assert not list((clone / ".venv").rglob("mmcv/_ext*"))
