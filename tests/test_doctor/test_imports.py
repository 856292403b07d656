"""The probe's answers, from real processes and as findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadapt.doctor import imports
from mtadapt.doctor.imports import COMPILE, examine_imports, probe
from tests.test_doctor.installations import write_module

GIB = 2**30
CPU = dict(version="2.11.0", cuda="13.0", cudnn=None, devices=[], mps=False, nccl=None, gloo=True, threads=4)


def answer(error: str = "", warnings: tuple[str, ...] = (), **facts: object) -> dict:
    return dict(error=error, facts=facts, warnings=list(warnings))


def by_name(findings: list, name: str):
    (found,) = [one for one in findings if one.name == name]
    return found


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process was ended by signal 11"),
        ("import os; os._exit(3)", "ended without a word"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        (
            "print('hello'); raise ValueError('numpy.dtype size changed\\nsecond line')",
            "ValueError: numpy.dtype size changed",
        ),
    ],
)
def test_a_torch_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, error: str) -> None:
    write_module(tmp_path, "torch", body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answers = probe(timeout=200)
    assert answers["torch"]["error"] == error
    found = by_name(examine_imports(answers), "torch")
    assert (found.status, found.detail) == ("problem", error)
    assert found.remedy.startswith("pip install --force-reinstall torch torchvision")


def test_an_import_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, "torch", "import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answers = probe(timeout=2)
    assert list(answers) == ["torch"] and answers["torch"]["error"] == "did not come back within 2 s"


def test_served_and_compiled_ops() -> None:
    served = answer(compiled=False, devices=["cpu"], failed={})
    found = by_name(examine_imports({"mmcv.ops": served}), "mmcv's ops")
    assert found.status == "ok" and found.detail.startswith("served by torchvision") and found.remedy == COMPILE
    compiled = answer(compiled=True, devices=["cpu", "cuda"], failed={"cuda": "not compiled with GPU support"})
    found = by_name(examine_imports({"mmcv.ops": compiled}), "mmcv's ops")
    assert found.status == "problem" and "nms and roi_align on cuda: not compiled with GPU support" in found.detail
    assert found.remedy.startswith("FORCE_CUDA=1 pip install")


def test_gpus() -> None:
    good = dict(name="H100", total=80 * GIB, free=70 * GIB, capability="9.0", error="")
    old = dict(name="K80", total=12 * GIB, free=0, capability="3.7", error="no kernel image is available")
    findings = examine_imports({"torch": answer(**dict(CPU, devices=[good, old], nccl="2.28.9"))})
    first, second = by_name(findings, "cuda:0"), by_name(findings, "cuda:1")
    assert first.detail == "H100, compute capability 9.0, 80.0 GiB, 70.0 GiB free; torch 2.11.0, CUDA 13.0"
    assert second.status == "problem" and second.detail.startswith("K80: no kernel image is available")
    assert by_name(findings, "several processes").detail == "NCCL 2.28.9 and gloo"


def test_a_driver_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "version"
    monkeypatch.setattr(imports, "NVIDIA", driver)
    text = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."
    torch = {"torch": answer(warnings=("something else", text), **CPU)}
    assert by_name(examine_imports(torch), "cpu").status == "ok"
    driver.write_text("NVRM version: 470")
    found = by_name(examine_imports(torch), "cpu")
    assert found.status == "warning" and text in found.detail and "update the driver" in found.remedy
    without = {"torch": answer(**dict(CPU, cuda=None))}
    assert by_name(examine_imports(without), "cpu").remedy == imports.REINSTALL_TORCH


def test_no_way_for_several_processes() -> None:
    findings = examine_imports({"torch": answer(**dict(CPU, gloo=False))})
    assert by_name(findings, "several processes").status == "warning"
