"""Versions of what is installed, from the metadata of the distributions: nothing is imported."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

from mtadapt.doctor.finding import Finding

#: Distribution of upstream OpenMMLab to the fork that mtadapt is built on; both hold the same import package.
UPSTREAM = {
    "mmengine": "onedl-mmengine",
    "mmengine-lite": "onedl-mmengine",
    "mmcv": "onedl-mmcv",
    "mmcv-full": "onedl-mmcv",
    "mmcv-lite": "onedl-mmcv",
    "mmdet": "onedl-mmdetection",
    "mmsegmentation": "onedl-mmsegmentation",
    "mmpretrain": "onedl-mmpretrain",
    "mmcls": "onedl-mmpretrain",
}
#: What an extra is for.
EXTRAS = {
    "web": "web page",
    "video": "annotated videos in H.264",
    "onnx": "export to ONNX",
    "text": "sentence encoder of LV-Adapter",
    "efficientnet": "pretrained EfficientNet-lite0 of the demo",
    "tests": "tests",
    "dev": "linters",
    "docs": "documentation site",
}


def canonical(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_distributions(path: Sequence[str] | None = None) -> dict[str, Distribution]:
    """Return the distributions that Python imports from, by canonical name.

    Args:
        path: folders to look in; ``sys.path`` by default. As at an import, the first one that has a name wins.
    """
    found: dict[str, Distribution] = {}
    for distribution in distributions() if path is None else distributions(path=list(path)):
        # An uninstallation that was cut off leaves folders without a name.
        name = distribution.metadata["Name"] if distribution.metadata is not None else None
        if name and distribution.version:
            found.setdefault(canonical(name), distribution)
    return found


def examine_packages(path: Sequence[str] | None = None) -> list[Finding]:
    """Compare Python and the installed distributions with what mtadapt's metadata asks for.

    Args:
        path: folders that hold the metadata; ``sys.path`` by default.
    """
    found = find_distributions(path)
    versions = {name: distribution.version for name, distribution in found.items()}
    own = found.get("mtadapt")
    if own is None:
        return [
            Finding("python", "Python", "ok", platform.python_version()),
            Finding(
                "packages", "mtadapt", "problem", "is not installed: its requirements are not known", "pip install -e ."
            ),
            *find_mixed(versions, {}),
        ]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [
            Finding("packages", "packaging", "problem", "not installed: no version can be compared", "make setup"),
            *find_mixed(versions, {}),
        ]
    requirements = [Requirement(text) for text in own.requires or ()]
    runtime = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    ranges = {canonical(one.name): str(one) for one in runtime}
    return [
        _examine_python(own.metadata["Requires-Python"]),
        Finding("packages", "mtadapt", "ok", own.version),
        *(_examine_requirement(one, versions) for one in runtime),
        *find_mixed(versions, ranges),
        *_examine_transformers(versions, requirements),
        *_examine_torchvision(versions),
        *_examine_extras(versions, requirements, own.metadata.get_all("Provides-Extra") or ()),
    ]


def _examine_python(asked: str | None) -> Finding:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    if asked and not SpecifierSet(asked).contains(version, prereleases=True):
        remedy = f"make a new environment with Python {asked}: make clean && make setup PYTHON=python3.11"
        return Finding("python", "Python", "problem", f"{version}; mtadapt needs {asked}", remedy)
    return Finding("python", "Python", "ok", version)


def _examine_requirement(requirement: Any, versions: Mapping[str, str]) -> Finding:
    """Tell whether a requirement of the runtime is met."""
    name, remedy = requirement.name, f'pip install "{_bare(requirement)}"'
    version = versions.get(canonical(name))
    if version is None:
        return Finding("packages", name, "problem", f"not installed; needed: {requirement.specifier or 'any'}", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding("packages", name, "problem", f"{version}; needed: {requirement.specifier}", remedy)
    return Finding("packages", name, "ok", version)


def find_mixed(versions: Mapping[str, str], ranges: Mapping[str, str]) -> list[Finding]:
    """Name distributions of upstream OpenMMLab, whose files lie over those of the onedl fork or in their place.

    Args:
        versions: canonical name to version of what is installed.
        ranges: canonical name to the requirement of mtadapt, for the remedy.
    """
    upstream = [name for name in UPSTREAM if name in versions]
    if not upstream:
        return []
    both = [name for name in upstream if UPSTREAM[name] in versions]
    shown = ", ".join(
        f"{name} {versions[name]}" + (f" beside {UPSTREAM[name]} {versions[UPSTREAM[name]]}" if name in both else "")
        for name in upstream
    )
    forks = sorted({UPSTREAM[name] for name in upstream})
    remove = " ".join([*upstream, *(fork for fork in forks if fork in versions)])
    install = " ".join(f'"{ranges.get(fork, fork)}"' for fork in forks)
    what = "upstream and onedl packages write the same files" if both else "upstream packages in place of onedl's"
    remedy = f"pip uninstall -y {remove} && pip install --no-cache-dir {install}"
    return [Finding("packages", "OpenMMLab", "problem", f"{what}: {shown}", remedy)]


def _examine_transformers(versions: Mapping[str, str], requirements: Iterable[Any]) -> list[Finding]:
    """Name a transformers that mmpretrain does not import with, whether or not the extra is asked for."""
    version = versions.get("transformers")
    if version is None or not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 5:
        return []
    asked = next((_bare(one) for one in requirements if canonical(one.name) == "transformers"), "transformers<5")
    detail = f"{version}; mmpretrain does not import with transformers 5"
    return [Finding("packages", "transformers", "problem", detail, f'pip install "{asked}" "huggingface_hub<1"')]


def _examine_torchvision(versions: Mapping[str, str]) -> list[Finding]:
    """Compare torch and torchvision, which are built for each other: torchvision 0.(n + 15) for torch 2.n."""
    torch, torchvision = versions.get("torch"), versions.get("torchvision")
    numbers = re.match(r"2\.(\d+)", torch or "")
    if numbers is None or torchvision is None:
        return []
    wanted = f"0.{int(numbers[1]) + 15}"
    if re.match(rf"{re.escape(wanted)}(\.|$)", torchvision):
        return []
    detail = f"torchvision {torchvision} does not fit torch {torch}, which needs torchvision {wanted}"
    return [Finding("packages", "torch and torchvision", "problem", detail, f'pip install "torchvision=={wanted}.*"')]


def _examine_extras(
    versions: Mapping[str, str], requirements: Sequence[Any], extras: Iterable[str]
) -> Iterable[Finding]:
    """One line an extra: complete, not installed (which is fine), or with a version outside its range."""
    for extra in extras:
        wanted = [
            one
            for one in requirements
            if one.marker is not None
            and not one.marker.evaluate({"extra": ""})
            and one.marker.evaluate({"extra": extra})
        ]
        missing = [one.name for one in wanted if canonical(one.name) not in versions]
        wrong = [
            f"{one.name} {versions[canonical(one.name)]} (needed: {one.specifier})"
            for one in wanted
            if canonical(one.name) in versions
            and not one.specifier.contains(versions[canonical(one.name)], prereleases=True)
        ]
        purpose = EXTRAS.get(extra, extra)
        remedy = f'pip install -e ".[{extra}]"'
        if wrong:
            yield Finding("extras", extra, "warning", f"for the {purpose}: {', '.join(wrong)}", remedy)
        elif missing:
            detail = f"not installed (optional, for the {purpose}): {', '.join(missing)} missing"
            yield Finding("extras", extra, "ok", detail, remedy)
        else:
            yield Finding("extras", extra, "ok", f"installed, for the {purpose}")


def _bare(requirement: Any) -> str:
    """Return a requirement without its marker."""
    return f"{requirement.name}{requirement.specifier}"
