"""Hooks that report."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from mtadapt.engine import PromptMatchHook, TaskProgressHook
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample


def test_progress_counts_labelled_samples_and_sums_losses(caplog: pytest.LogCaptureFixture):
    hook = TaskProgressHook(interval=2)
    batch = dict(
        data_samples=[
            MultiTaskDataSample(metainfo=dict(labelled_tasks=("det", "sem_seg"))),
            MultiTaskDataSample(metainfo=dict(labelled_tasks=("det",))),
        ]
    )
    outputs = {
        "loss": torch.tensor(9.0),
        "det.loss_cls": torch.tensor(1.0, requires_grad=True),
        "det.loss_bbox": torch.tensor(0.5),
        "det.acc": torch.tensor(70.0),
        "sem_seg.decode.loss_ce": torch.tensor(0.25),
        "routing.loss_mutual_information": torch.tensor(7.0),
    }
    absent = {"det.loss_absent": torch.tensor(0.0), "sem_seg.decode.loss_ce": torch.tensor(0.75)}
    logger = logging.getLogger("progress")
    with caplog.at_level(logging.INFO):
        for iteration in range(4):
            given = absent if iteration == 3 else outputs
            hook.after_train_iter(SimpleNamespace(iter=iteration, logger=logger), iteration, batch, given)
    assert [record.message for record in caplog.records] == [
        "Tasks: det 4 samples, loss 1.5000; sem_seg 2 samples, loss 0.2500",
        "Tasks: det 8 samples, loss 1.5000; sem_seg 4 samples, loss 0.5000",
    ]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (("car", "lorry"), r"prompts\['det'\]\[1\] is 'lorry', the dataset's class is 'truck'"),
        (("truck", "car"), r"prompts\['det'\]\[0\] is 'truck', the dataset's class is 'car'"),
        (("car",), r"prompts\['det'\] has 1 classes, the dataset 2"),
    ],
)
def test_prompts_in_another_order_are_refused(prompts: tuple[str, ...], message: str):
    metainfo = dict(tasks=dict(det=dict(classes=("car", "truck"))))
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    hook = PromptMatchHook()
    hook.before_train(_runner(("car", "truck"), loader))
    with pytest.raises(MTAdaptError, match=message):
        hook.before_train(_runner(prompts, loader))


def _runner(prompts: tuple[str, ...], loader: SimpleNamespace) -> SimpleNamespace:
    adapter = SimpleNamespace(classes=dict(det=prompts, sem_seg=("anything",)))
    return SimpleNamespace(model=SimpleNamespace(adapter=adapter), train_dataloader=loader)
