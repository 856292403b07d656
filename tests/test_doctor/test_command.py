"""The command, in processes with a broken installation in front of the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT
from tests.test_doctor.installations import doctor, write_distribution, write_module

BROKEN = "raise ImportError('libcudart.so.13: cannot open shared object file')"


def test_runs_where_torch_is_broken(tmp_path: Path) -> None:
    """And where, on top of it, transformers is too new and upstream's mmengine lies over the fork."""
    write_module(tmp_path, "torch", BROKEN)
    write_distribution(tmp_path, "transformers", "5.0.0")
    write_distribution(tmp_path, "mmengine", "0.10.7")
    status, printed = doctor(tmp_path)
    assert status == 1
    assert "ImportError: libcudart.so.13: cannot open shared object file" in printed
    assert "-> pip install --force-reinstall torch torchvision" in printed
    assert "5.0.0; mmpretrain does not import with transformers 5" in printed
    assert "mmengine 0.10.7 beside onedl-mmengine" in printed
    assert "pip uninstall -y mmengine onedl-mmengine && pip install" in printed
    assert printed.splitlines()[-1].endswith("the line behind each arrow (->) mends it.")


def test_json_and_data_where_the_readers_cannot_be_imported(tmp_path: Path) -> None:
    write_module(tmp_path, "torch", BROKEN)
    status, printed = doctor(tmp_path, tmp_path, "--json")
    document = json.loads(printed)
    assert status == 1 and document["problems"] == sum(one["status"] == "problem" for one in document["findings"])
    assert document["findings"][-1] == dict(
        area="data",
        name=str(tmp_path),
        status="problem",
        detail=f"{tmp_path}: not looked at, because mtadapt.datasets cannot be imported",
        remedy="mend what is named above",
        sampled=False,
    )


def test_as_the_command_of_the_package(tmp_path: Path) -> None:
    """The script that pip writes for the entry point is named ``mtadapt`` and imports the package first."""
    script = tmp_path / "bin" / "mtadapt"
    script.parent.mkdir()
    script.write_text("from mtadapt.doctor.__main__ import main\nmain()\n")
    write_module(tmp_path, "torch", BROKEN)
    status, printed = doctor(tmp_path, "doctor", program=(str(script),))
    assert status == 1 and "libcudart.so.13" in printed
    status, printed = doctor(tmp_path, "--help", program=(str(script),))
    assert status == 0 and "doctor" in printed


@pytest.mark.slow
def test_a_good_installation_and_good_data(tmp_path: Path) -> None:
    from mtadapt.datasets.synthetic import write_bdd100k

    write_bdd100k(tmp_path / "data", train=3, val=2, size=(160, 96), seed=1, workers=1)
    status, printed = doctor(tmp_path, tmp_path / "data", "--all")
    assert status == 0, printed
    assert "nms and roi_align work on cpu" in printed
    assert "6 of 6 images with their labels read, all in order" in printed


@pytest.mark.slow
def test_a_torchvision_that_does_not_import(tmp_path: Path) -> None:
    write_module(tmp_path, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    write_distribution(tmp_path, "torchvision", "0.20.0")
    status, printed = doctor(tmp_path)
    assert status == 1
    assert "torchvision 0.20.0 does not fit torch" in printed
    assert "RuntimeError: operator torchvision::nms does not exist" in printed


def test_the_package_stays_strict_elsewhere(tmp_path: Path) -> None:
    """Only the doctor may start with a broken torch."""
    write_module(tmp_path, "torch", BROKEN)
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    done = subprocess.run(
        [sys.executable, "-c", "import mtadapt", "mtadapt.doctor"], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and "MTAdaptError: mmcv has no compiled ops" in done.stderr
