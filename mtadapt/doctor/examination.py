"""Everything that the doctor looks at, in its order."""

from __future__ import annotations

from pathlib import Path

from mtadapt.doctor.finding import Finding
from mtadapt.doctor.imports import examine_imports, probe
from mtadapt.doctor.machine import examine_machine
from mtadapt.doctor.packages import examine_packages


def examine(root: Path | None = None, check_all: bool = False) -> list[Finding]:
    """Look at the installation, the machine and, where it is given, a folder of data.

    Args:
        root: folder of BDD100K, COCO, ADE20K or ImageNet.
        check_all: read every image and mask of it, not a sample.
    """
    packages = examine_packages()
    answers = probe()
    findings = [
        *(one for one in packages if one.area != "extras"),
        *examine_imports(answers),
        *examine_machine(root),
        *(one for one in packages if one.area == "extras"),
    ]
    if root is not None:
        findings.extend(_examine_data(root, check_all, answers.get("mtadapt.datasets", {}).get("error", "failed")))
    return findings


def _examine_data(root: Path, check_all: bool, error: str) -> list[Finding]:
    if error:
        detail = f"{root}: not looked at, because mtadapt.datasets cannot be imported"
        return [Finding("data", str(root), "problem", detail, "mend what is named above")]
    # The readers of the datasets are used, which need torch.
    from mtadapt.doctor.data import examine_data

    try:
        return examine_data(root, check_all)
    except OSError as caught:
        detail = f"{caught.filename or root}: cannot be read ({caught.strerror or caught})"
        return [Finding("data", str(root), "problem", detail, "make it readable for this user, or copy it again")]
