"""Versions from the metadata, each bad installation as a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadapt.doctor import Finding
from mtadapt.doctor.packages import examine_packages, find_distributions
from tests.test_doctor.installations import write_distribution, write_installation


def not_ok(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.name, one.status, one.detail) for one in findings if one.status != "ok"]


def by_name(findings: list[Finding], name: str) -> Finding:
    (found,) = [one for one in findings if one.name == name]
    return found


def test_a_good_installation_has_no_findings(tmp_path: Path) -> None:
    findings = examine_packages(write_installation(tmp_path))
    assert not_ok(findings) == []
    assert by_name(findings, "onedl-mmcv").detail == "2.3.6"
    assert by_name(findings, "web").detail == "not installed (optional, for the web page): gradio missing"
    assert by_name(findings, "web").remedy == 'pip install -e ".[web]"'


def test_the_installation_that_runs_the_tests_is_good() -> None:
    findings = examine_packages()
    assert not_ok([one for one in findings if one.area != "extras"]) == []
    assert {one.name for one in findings} >= {"torch", "onedl-mmdetection", "msgspec", "web", "text", "onnx"}


@pytest.mark.parametrize(
    ("changes", "name", "detail", "remedy"),
    [
        (dict(numpy="1.26.4"), "numpy", "1.26.4; needed: >=2", 'pip install "numpy>=2"'),
        (dict(numpy=None), "numpy", "not installed; needed: >=2", 'pip install "numpy>=2"'),
        (
            dict(onedl_mmcv="2.4.0"),
            "onedl-mmcv",
            "2.4.0; needed: <2.4,>=2.3",
            'pip install "onedl-mmcv<2.4,>=2.3"',
        ),
        (
            dict(transformers="5.1.0"),
            "transformers",
            "5.1.0; mmpretrain does not import with transformers 5",
            'pip install "transformers<5,>=4.53" "huggingface_hub<1"',
        ),
        (
            dict(torchvision="0.25.1+cu128"),
            "torch and torchvision",
            "torchvision 0.25.1+cu128 does not fit torch 2.11.0, which needs torchvision 0.26",
            'pip install "torchvision==0.26.*"',
        ),
        (
            dict(torch="2.4.1", torchvision="0.26.0"),
            "torch and torchvision",
            "torchvision 0.26.0 does not fit torch 2.4.1, which needs torchvision 0.19",
            'pip install "torchvision==0.19.*"',
        ),
    ],
)
def test_a_version_that_does_not_fit_is_named_with_the_remedy(
    tmp_path: Path, changes: dict, name: str, detail: str, remedy: str
) -> None:
    findings = examine_packages(write_installation(tmp_path, **changes))
    problems = [one for one in findings if one.status == "problem"]
    assert [(one.name, one.detail, one.remedy) for one in problems] == [(name, detail, remedy)]


@pytest.mark.parametrize("torch", ["2.4.0", "2.11.0+cu128", "2.12.0.dev20260101"])
def test_versions_of_torch_that_fit(tmp_path: Path, torch: str) -> None:
    minor = int(torch.split(".")[1]) + 15
    assert not_ok(examine_packages(write_installation(tmp_path, torch=torch, torchvision=f"0.{minor}.0+cpu"))) == []


def test_upstream_beside_the_fork(tmp_path: Path) -> None:
    """Both write the same files: an uninstallation of one leaves the other broken, so both go and one comes back."""
    path = write_installation(tmp_path, mmengine="0.10.7", mmdet="3.3.0")
    found = by_name(examine_packages(path), "OpenMMLab")
    assert found.status == "problem"
    assert found.detail == (
        "upstream and onedl packages write the same files: mmengine 0.10.7 beside onedl-mmengine 0.10.12, "
        "mmdet 3.3.0 beside onedl-mmdetection 3.5.1"
    )
    assert found.remedy == (
        "pip uninstall -y mmengine mmdet onedl-mmdetection onedl-mmengine && "
        'pip install --no-cache-dir "onedl-mmdetection<3.6,>=3.5" "onedl-mmengine<0.11,>=0.10.8"'
    )


def test_upstream_in_place_of_the_fork(tmp_path: Path) -> None:
    path = write_installation(tmp_path, onedl_mmcv=None, mmcv_full="1.7.2")
    findings = examine_packages(path)
    assert by_name(findings, "onedl-mmcv").detail == "not installed; needed: <2.4,>=2.3"
    found = by_name(findings, "OpenMMLab")
    assert found.detail == "upstream packages in place of onedl's: mmcv-full 1.7.2"
    assert found.remedy == 'pip uninstall -y mmcv-full && pip install --no-cache-dir "onedl-mmcv<2.4,>=2.3"'


def test_without_the_package_mixed_installations_are_still_named(tmp_path: Path) -> None:
    write_distribution(tmp_path, "mmcv", "2.1.0")
    write_distribution(tmp_path, "onedl-mmcv", "2.3.6")
    findings = examine_packages([str(tmp_path)])
    assert [one.name for one in findings if one.status == "problem"] == ["mtadapt", "OpenMMLab"]
    assert by_name(findings, "mtadapt").remedy == "pip install -e ."


def test_extras(tmp_path: Path) -> None:
    path = write_installation(tmp_path, gradio="5.30.0", transformers="4.40.0")
    findings = examine_packages(path)
    assert by_name(findings, "web").detail == "installed, for the web page"
    text = by_name(findings, "text")
    assert (text.status, text.detail, text.remedy) == (
        "warning",
        "for the sentence encoder of LV-Adapter: transformers 4.40.0 (needed: <5,>=4.53)",
        'pip install -e ".[text]"',
    )


def test_python(tmp_path: Path) -> None:
    found = by_name(examine_packages(write_installation(tmp_path, python=">=3.99")), "Python")
    assert found.status == "problem" and found.detail.endswith("mtadapt needs >=3.99")
    assert "make setup PYTHON=" in found.remedy


def test_what_an_uninstallation_left_behind_is_no_distribution(tmp_path: Path) -> None:
    (tmp_path / "~orch-2.4.0.dist-info").mkdir()
    (tmp_path / "empty-1.0.dist-info").mkdir()
    (tmp_path / "empty-1.0.dist-info/METADATA").write_text("")
    assert find_distributions([str(tmp_path)]) == {}


def test_the_first_folder_of_the_path_wins(tmp_path: Path) -> None:
    write_distribution(tmp_path / "first", "mmcv", "2.0.0")
    write_distribution(tmp_path / "second", "MMCV", "2.2.0")
    found = find_distributions([str(tmp_path / "first"), str(tmp_path / "second")])
    assert found["mmcv"].version == "2.0.0"
