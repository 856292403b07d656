"""Heads of tasks that a step cannot label rest, as the optimizers of single runs would."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper

from mtadapt.engine import AbsentTaskHook
from tests import models
from tests.conditioned import conditioned
from tests.models import batch, multi_task_model


def data(task: str, tasks: tuple[str, ...] | None) -> dict:
    made = batch([(task,), (task,)])
    for sample in made["data_samples"]:
        if tasks is not None:
            sample.set_metainfo(dict(source=task, source_tasks=tasks))
    return made


def train(steps, counts: int = 1, hook: bool = True, model=None):
    """Parameters by the first two parts of their names, at the start and after every step."""
    model = model or multi_task_model(cls=models.classifier(), sem_seg=models.fpn_head()).train()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1), accumulative_counts=counts)
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    resting = AbsentTaskHook()
    if hook:
        resting.before_train(runner)
    states = [copy.deepcopy(model.state_dict())]
    for number, (task, tasks) in enumerate(steps):
        made = data(task, tasks)
        resting.before_train_iter(runner, number, made)
        model.train_step(made, wrapper)
        states.append(copy.deepcopy(model.state_dict()))
    resting.after_train(runner)
    return states


def moved(before: dict, after: dict, prefix: str) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix))


def test_absent_heads_rest():
    steps = [("cls", ("cls",)), ("sem_seg", ("sem_seg",)), ("cls", ("cls",))]
    states = train(steps)
    for number, (task, _) in enumerate(steps):
        before, after = states[number : number + 2]
        for name in ("cls", "sem_seg"):
            assert moved(before, after, f"tasks.{name}.") == (name == task)
        assert moved(before, after, "backbone.")


def test_without_the_hook_they_move_on():
    """What the hook is for: AdamW's momentum and weight decay act on a zero gradient."""
    states = train([("cls", ("cls",)), ("sem_seg", ("sem_seg",))], hook=False)
    assert moved(states[1], states[2], "tasks.cls.")


@pytest.mark.parametrize("second", [None, ("cls", "sem_seg")])
def test_batches_that_do_not_tell_or_can_label_both_move_both(second):
    states = train([("cls", ("cls",)), ("sem_seg", second)])
    assert moved(states[1], states[2], "tasks.cls.") and moved(states[1], states[2], "tasks.sem_seg.")


def test_all_batches_of_an_accumulation_window_count():
    states = train([("cls", ("cls",)), ("sem_seg", ("sem_seg",)), ("cls", ("cls",)), ("cls", ("cls",))], counts=2)
    assert not moved(states[0], states[1], "tasks.cls.")
    assert moved(states[1], states[2], "tasks.cls.") and moved(states[1], states[2], "tasks.sem_seg.")
    assert moved(states[3], states[4], "tasks.cls.") and not moved(states[3], states[4], "tasks.sem_seg.")


def test_routers_of_absent_tasks_rest():
    """A router that two tasks use rests when neither of them can be labelled, that of no task always."""
    routers = dict(cls="cls", sem_seg="sem_seg", drivable="sem_seg")
    steps = [("cls", ("cls",)), ("sem_seg", ("sem_seg",)), ("drivable", ("drivable",)), ("cls", ("cls",))]
    model = conditioned(*routers, routing=dict(drivable="sem_seg"), routers=["cls", "sem_seg", "idle"])
    states = train(steps, model=model)
    for number, (task, _) in enumerate(steps):
        before, after = states[number : number + 2]
        for name in routers:
            assert moved(before, after, f"tasks.{name}.") == (name == task)
        for name in ("cls", "sem_seg", "idle"):
            assert moved(before, after, f"backbone.maps.{name}.") == (name == routers[task])


def test_without_the_hook_routers_move_on():
    model = conditioned("cls", "sem_seg")
    states = train([("cls", ("cls",)), ("sem_seg", ("sem_seg",))], hook=False, model=model)
    assert moved(states[1], states[2], "backbone.maps.cls.")
