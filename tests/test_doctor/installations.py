"""Installations that are not in order, as folders: metadata as pip writes it, and packages that can be imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.command_line import ROOT

#: A whole installation, as the runtime requirements want it.
GOOD = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "onedl-mmengine": "0.10.12",
    "onedl_mmcv": "2.3.6",
    "onedl-mmdetection": "3.5.1",
    "numpy": "2.2.6",
}
REQUIRES = (
    "torch>=2.4",
    "torchvision>=0.19",
    "onedl-mmengine<0.11,>=0.10.8",
    "onedl-mmcv<2.4,>=2.3",
    "onedl-mmdetection<3.6,>=3.5",
    "numpy>=2",
    'gradio<7,>=5.20; extra == "web"',
    'transformers<5,>=4.53; extra == "text"',
    'sentences>=1; extra == "text"',
)


def write_distribution(
    site: Path,
    name: str,
    version: str,
    requires: Iterable[str] = (),
    extras: Iterable[str] = (),
    python: str | None = None,
) -> None:
    """Write the metadata of a distribution."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] if python else []
    lines += [f"Requires-Dist: {one}" for one in requires] + [f"Provides-Extra: {one}" for one in extras]
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def write_installation(site: Path, python: str = ">=3.10", **versions: str | None) -> list[str]:
    """Write mtadapt and :data:`GOOD`, changed by ``versions`` (None: not there); return the search path."""
    write_distribution(site, "mtadapt", "0.1.0", REQUIRES, ("web", "text"), python)
    changes = {name.replace("_", "-"): version for name, version in versions.items()}
    for name, version in {**{name.replace("_", "-"): one for name, one in GOOD.items()}, **changes}.items():
        if version is not None:
            write_distribution(site, name, version)
    return [str(site)]


def write_module(site: Path, name: str, body: str) -> None:
    """Write a package that can be imported."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(body)


def doctor(site: Path, *arguments: str | Path, program: tuple[str, ...] = ("-m", "mtadapt.doctor")) -> tuple[int, str]:
    """Run the command with ``site`` in front of what is really installed; return status and output, unwrapped."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(site), str(ROOT)]))
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=site)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, re.sub(r"\n +(?=[^\s-])", " ", done.stdout)
