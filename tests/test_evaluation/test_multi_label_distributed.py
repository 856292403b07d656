"""The metrics of labels in two processes give the numbers of one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric

from mtadapt.evaluation import KNNTop1, MultiLabelMAP, MultiTaskMetric
from tests.test_engine.tiny import two_processes

from .multi_label import labelled, numbers, random_labels

COUNT = 25  # odd: the sampler repeats the first image on the second process
KINDS = ("MultiLabelMAP", "KNNTop1", "MultiTaskMetric")


def make_metric(kind: str, **settings: str) -> BaseMetric:
    if kind == "MultiTaskMetric":
        tasks = [{"type": "MultiLabelMAP"}, {"type": "KNNTop1", "group": "timeofday", "k": 3}]
        return MultiTaskMetric({"mlc": tasks}, **settings)
    return MultiLabelMAP(**settings) if kind == "MultiLabelMAP" else KNNTop1("timeofday", k=3, **settings)


def make_samples() -> list:
    truth, scores = random_labels(COUNT)
    truth[:, :3] = np.eye(3)[np.arange(COUNT) % 3]
    samples = labelled(truth, scores)
    rows = torch.from_numpy(np.random.default_rng(1).standard_normal((COUNT, 4)) + 2 * truth[:, :1]).float()
    for each, row in zip(samples, rows, strict=True):
        each.set_field(row, "embedding", dtype=torch.Tensor)
    return samples


def worker(rank: int, folder: str) -> None:
    samples = make_samples()
    mine = [samples[i] for i in DefaultSampler(samples, shuffle=False)]
    found = {"images": len(mine)}
    for kind in KINDS:
        # `size` is the number of images of the whole dataset, as a loop passes it.
        cpu = make_metric(kind, collect_device="cpu", collect_dir=f"{folder}/parts_{kind}")
        found[kind] = [evaluate(cpu, mine), evaluate(make_metric(kind, collect_device="gpu"), mine)]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


def evaluate(metric: BaseMetric, samples: list) -> dict:
    return numbers(metric, samples, size=COUNT)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_one_process(found: list[dict], kind: str, rank: int):
    expected = numbers(make_metric(kind), make_samples())
    assert found[rank]["images"] == 13
    assert found[rank][kind] == [expected, expected]
    assert len(expected) == dict(MultiLabelMAP=4, KNNTop1=1, MultiTaskMetric=5)[kind]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two_processes")
    two_processes(worker, folder, str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
