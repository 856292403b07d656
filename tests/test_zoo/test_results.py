from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.results import RESULT, CellResult, read_result, read_results
from tests.zoo_results import metrics, weights, write_cell


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = CellResult(
        zoo="camvid",
        kind="multi_task",
        checkpoint="imagenet",
        paradigm="finetune",
        label_setting="full",
        seed=2,
        status="finished",
        attempts=3,
        tasks=("det", "sem_seg"),
        metrics=metrics(det=15, sem_seg=45.5),
        seconds=1800,
        devices=4,
        device="NVIDIA H100",
        parameters=10,
        trainable={"adapt": 4, "finetune": 10},
        weights=weights("imagenet"),
        protocol="short",
        reference="random",
        source="a paper",
    )
    result.write(tmp_path)
    assert read_result(tmp_path / RESULT) == result
    assert result.device_hours == 2.0


def test_results_are_found_in_all_folders(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "multi_task", name, "finetune", 0) for name in ("b", "a")]
    found = read_results(tmp_path)
    assert list(found) == sorted(folder / RESULT for folder in folders)
    assert [each.checkpoint for each in found.values()] == ["a", "b"]


def test_no_result_at_all(tmp_path: Path) -> None:
    with pytest.raises(MTAdaptError, match=r"holds no result.json; run tools/benchmark_pretrained.py first$"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no result of a run (Expecting property name"),
        ("[]", "no result of a run of tools/benchmark_pretrained.py"),
        (
            '{"zoo": "a", "kind": "pretrain", "checkpoint": "a", "seed": 0, "status": "failed"}',
            "no result of a run of tools/benchmark_pretrained.py",
        ),
        ({"kind": "other"}, "kind='other', status='finished' are unknown"),
        ({"status": "running"}, "kind='multi_task', status='running' are unknown"),
        ({"unknown": 1}, "no result of a run of tools/benchmark_pretrained.py"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, content: str | dict[str, object], message: str) -> None:
    path = write_cell(tmp_path, "multi_task", "a", "finetune", 0) / RESULT
    text = content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content)
    path.write_text(text)
    with pytest.raises(MTAdaptError, match=re.escape(f"{path}: {message}")):
        read_results(tmp_path)
