"""Installation of mtadapt. The allowed versions are in ``requirements/``, the tested ones in its constraints.txt.

Like the libraries that it extends, an installed mtadapt carries its ``tools``, ``configs`` and ``model-index.yml`` in
``mtadapt/.mim``: as links into the clone for an editable installation, as copies in a wheel.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_ENTRIES = ("tools", "configs", "model-index.yml")
EXTRAS = ("tests", "dev", "efficientnet", "text", "onnx", "web", "video", "docs")


def read_version() -> str:
    """Read ``__version__`` without importing the package, which needs torch."""
    match = re.search(r'^__version__ = "(.+)"$', (ROOT / "mtadapt/version.py").read_text(encoding="utf-8"), re.M)
    assert match is not None
    return match[1]


def read_requirements(name: str) -> list[str]:
    """Read ``requirements/<name>.txt``: one requirement a line, comments and blank lines aside."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def add_mim_extension(mim_path: Path, *, link: bool) -> None:
    """Put the tools, the configs and the model index into ``mim_path``.

    Args:
        mim_path: The ``mtadapt/.mim`` folder to fill; what it held under these names is replaced.
        link: Make relative links to the originals; a copy where the file system allows no links.
    """
    mim_path.mkdir(parents=True, exist_ok=True)
    for entry in MIM_ENTRIES:
        source, target = ROOT / entry, mim_path / entry
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        if link:
            try:
                target.symlink_to(os.path.relpath(source, mim_path), target_is_directory=source.is_dir())
                continue
            except OSError:
                pass
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy2(source, target)


class BuildPy(build_py):
    """Build the package together with its ``.mim`` folder."""

    def run(self) -> None:
        """Build as usual, then fill ``.mim`` in the clone (editable) or beside the built modules."""
        super().run()
        editable = getattr(self, "editable_mode", False)
        add_mim_extension((ROOT if editable else Path(self.build_lib)) / "mtadapt" / ".mim", link=editable)


setup(
    name="mtadapt",
    version=read_version(),
    description="Multi-task adaptation of pretrained visual models: stock OpenMMLab models as tasks of one network",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author="mtadapt authors",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["mtadapt", "mtadapt.*"]),
    include_package_data=True,
    python_requires=">=3.10",
    install_requires=read_requirements("runtime"),
    extras_require={name: read_requirements(name) for name in EXTRAS},
    entry_points={"console_scripts": ["mtadapt=mtadapt.doctor.__main__:main"]},
    cmdclass={"build_py": BuildPy},
)
