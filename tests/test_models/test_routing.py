"""MultiTaskModel with a backbone whose features depend on the task, against models of one task each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models import MultiTaskModel
from mtadapt.models.moe import Route
from tests import models
from tests.conditioned import alone, build, conditioned
from tests.models import BACKBONE, batch
from tests.test_models.test_adapters.test_lv_adapter import lv

TASKS = ("det", "sem_seg", "drivable")
PATTERNS = dict(
    alternate=[("det",), ("det",)],
    mixed=[("det",), ("sem_seg",), ("det",), ("drivable",)],
    several=[("det", "drivable"), ("det",), ("sem_seg", "drivable")],
    partly=[(), ("det",), ("sem_seg", "det")],
)


def of_task(losses: dict, name: str) -> dict[str, Tensor]:
    return {key: torch.as_tensor(value) for key, value in losses.items() if key.startswith(f"{name}.")}


def labelled_for(task: str, samples: list, rows: list[int]) -> list:
    """Copies of some samples, labelled for one task alone."""
    chosen = copy.deepcopy([samples[row] for row in rows])
    for sample in chosen:
        sample.set_metainfo(dict(labelled_tasks=(task,)))
    return chosen


def gradients(model: MultiTaskModel, losses: dict) -> dict[str, Tensor]:
    model.zero_grad()
    model.parse_losses(losses)[0].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_training(model: MultiTaskModel, labelled: list[tuple[str, ...]], routes: dict[str, Route] | None = None):
    """Losses and gradients of a batch are those of the tasks alone, each on the images that are labelled for it."""
    data = model.data_preprocessor(batch(labelled), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    found = gradients(model, losses)
    expected = {name: 2e-3 * value.detach() for name, value in model.named_parameters() if ".maps." in name}
    used = {router for task in {task for tasks in labelled for task in tasks} for router in routers_of(task, routes)}
    expected = {name: value for name, value in expected.items() if name.split(".")[2] in used}
    for name in model.tasks:
        rows = [row for row, tasks in enumerate(labelled) if name in tasks]
        if not rows:
            assert losses[f"{name}.loss_absent"] == 0
            continue
        single = alone(model, name, (routes or {}).get(name))
        own = single.loss(data["inputs"][rows], labelled_for(name, data["data_samples"], rows))
        for key, value in of_task(own, name).items():
            torch.testing.assert_close(torch.as_tensor(losses[key]), value, msg=key)
        for key, gradient in gradients(single, own).items():
            for target, share in targets(key, routers_of(name, routes)):
                expected[target] = expected.get(target, 0) + share * gradient
    for name, gradient in found.items():
        wanted = expected.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5 + 1e-4 * float(wanted.abs().max()), msg=name)


def routers_of(task: str, routes: dict[str, Route] | None) -> dict[str, float]:
    route = (routes or {}).get(task, task)
    return {route: 1.0} if isinstance(route, str) else dict(route)


def targets(key: str, shares: dict[str, float]) -> list[tuple[str, float]]:
    """Parameters of the model that a parameter of the single model stands for, and their part in it."""
    if not key.startswith("backbone.maps."):
        return [(key, 1.0)]
    return [(key.replace("maps.", f"maps.{router}."), share) for router, share in shares.items()]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_is_that_of_the_tasks_alone(pattern: str):
    model = conditioned(*TASKS)
    check_training(model, PATTERNS[pattern])
    assert len(model.backbone.calls) == 1


def test_tasks_of_equal_routes_share_their_rows():
    routes: dict[str, Route] = dict(drivable="sem_seg")
    model = conditioned(*TASKS, routing=routes, routers=["det", "sem_seg"])
    check_training(model, [("det", "drivable", "sem_seg"), ("drivable",), ("sem_seg", "drivable")], routes)
    ((rows, called),) = model.backbone.calls
    assert len(rows) == 4 and called == ["det", *["sem_seg"] * 3]


def test_routers_in_shares():
    routes: dict[str, Route] = dict(det=dict(det=0.25, sem_seg=0.75))
    model = conditioned("det", "sem_seg", routing=routes)
    check_training(model, [("det",), ("sem_seg", "det")], routes)


def test_one_task_an_image_does_not_copy_the_images():
    model = conditioned(*TASKS)
    for labelled, routes in (
        ([("det",), ("det",)], "det"),
        ([("drivable",), ("sem_seg",)], ["drivable", "sem_seg"]),
    ):
        data = model.data_preprocessor(batch(labelled), True)
        model.loss(data["inputs"], data["data_samples"])
        given, called = model.backbone.calls[-1]
        assert given is data["inputs"] and called == routes


def mixed_sources() -> dict:
    """Boxes and maps on large images, class labels on small ones, in mixed order."""
    labelled = [("det", "sem_seg"), ("cls",), ("det",), ("cls",)]
    data = batch(labelled, [(96, 128), (32, 32), (96, 96), (32, 32)])
    for sample, source in zip(data["data_samples"], "abab", strict=True):
        sample.set_metainfo(dict(source=source))
    return data


def test_sources_of_several_sizes():
    """One pass a group of images; losses and predictions are those of the sources alone."""
    model = conditioned("det", "sem_seg", "cls")
    out = model.data_preprocessor(mixed_sources(), True)
    losses = model.loss(out["inputs"], out["data_samples"])
    assert [(tuple(rows.shape), routes) for rows, routes in model.backbone.calls] == [
        ((3, 3, 96, 128), ["det", "det", "sem_seg"]),
        ((2, 3, 32, 32), "cls"),
    ]
    for name, rows in (("det", [0, 2]), ("sem_seg", [0]), ("cls", [1, 3])):
        data = mixed_sources()
        part = dict(inputs=[data["inputs"][row] for row in rows])
        single = alone(model, name)
        part = single.data_preprocessor(dict(part, data_samples=labelled_for(name, data["data_samples"], rows)), True)
        for key, value in of_task(single.loss(part["inputs"], part["data_samples"]), name).items():
            torch.testing.assert_close(torch.as_tensor(losses[key]), value, msg=key)


def fields(sample: Any, name: str) -> dict[str, Tensor]:
    native = sample.task(name)
    if name == "det":
        return {key: native.pred_instances[key] for key in ("bboxes", "scores", "labels")}
    return dict(score=native.pred_score) if name == "cls" else dict(map=native.pred_sem_seg.data)


def assert_same_predictions(ours: list, expected: list, name: str, **tolerance: float) -> None:
    for sample, other in zip(ours, expected, strict=True):
        for key, value in fields(other, name).items():
            torch.testing.assert_close(fields(sample, name)[key], value, msg=f"{name}.{key}", **tolerance)


@torch.no_grad()
def test_all_tasks_in_one_pass_are_predicted_as_alone():
    model = conditioned("det", "sem_seg", "cls").eval()
    data = model.data_preprocessor(dict(inputs=batch([()] * 2)["inputs"]), False)
    ours = model.predict(data["inputs"])
    ((rows, routes),) = model.backbone.calls
    assert len(rows) == 6 and routes == [*["det"] * 2, *["sem_seg"] * 2, *["cls"] * 2]
    for name in model.tasks:
        expected = alone(model, name).eval().predict(data["inputs"], copy.deepcopy(data["data_samples"]))
        assert_same_predictions(ours, expected, name, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_predictions_of_sources_are_of_their_tasks():
    """To the bit those of the same rows: two images for all of two tasks, or each of them twice for one."""
    model = conditioned("det", "sem_seg").eval()
    images = batch([()] * 2)["inputs"]
    both = model.test_step(dict(inputs=images))
    labelled = batch([("det",), ("det",), ("sem_seg",), ("sem_seg",)])["data_samples"]
    for sample, source in zip(labelled, "aabb", strict=True):
        sample.set_metainfo(dict(source=source))
    model.data_preprocessor.merge_sources = "all"
    found = model.test_step(dict(inputs=[*images, *images], data_samples=labelled))
    assert [sample.tasks for sample in found] == [("det",)] * 2 + [("sem_seg",)] * 2
    assert [routes for _, routes in model.backbone.calls] == [[*["det"] * 2, *["sem_seg"] * 2]] * 2
    assert_same_predictions(found[:2], both, "det", rtol=0, atol=0)
    assert_same_predictions(found[2:], both, "sem_seg", rtol=0, atol=0)
    model.data_preprocessor.merge_sources = None
    apart = model.test_step(dict(inputs=[*images, *images], data_samples=labelled))
    assert [routes for _, routes in model.backbone.calls[2:]] == ["det", "sem_seg"]
    assert_same_predictions(apart[:2], both, "det", rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sources_that_label_other_tasks_only():
    """Nothing is predicted, as with any backbone."""
    model = conditioned("det", "sem_seg").eval()
    data = batch([("cls",)])
    data["data_samples"][0].set_metainfo(dict(source="a"))
    (found,) = model.test_step(data)
    assert found.tasks == ("cls",)


@torch.no_grad()
def test_features_of_named_tasks():
    model = conditioned("det", "sem_seg").eval()
    images = torch.rand(2, 3, 64, 96)
    expected = {name: alone(model, name).eval()(images) for name in model.tasks}
    each = model(images, mode="tensor", tasks=["sem_seg", "det"])
    one = model.extract_features(images, "det")
    for level, found in enumerate(each):
        torch.testing.assert_close(found[0], expected["sem_seg"][level][0])
        torch.testing.assert_close(found[1], expected["det"][level][1])
        torch.testing.assert_close(one["neck"][level], expected["det"][level])
    with pytest.raises(MTAdaptError, match=r"the features of this backbone depend on the task; give tasks"):
        model(images)
    plain = build(BACKBONE, ["det"])
    assert torch.equal(plain(images)[0], plain(images, tasks="det")[0])


def test_routing_belongs_to_no_task():
    """It is in the total and the log; weights of tasks and balancers leave it alone."""
    labelled = [("det", "sem_seg"), ("det",)]
    model = conditioned("det", "sem_seg", "cls")
    data = model.data_preprocessor(batch(labelled), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    total, log_vars = model.parse_losses(losses)
    maps = [*model.backbone.maps["det"].parameters(), *model.backbone.maps["sem_seg"].parameters()]
    expected = 1e-3 * sum(each.square().sum() for each in maps)
    torch.testing.assert_close(losses["routing.loss_mutual_information"], expected)
    torch.testing.assert_close(total.common_loss, expected)
    assert log_vars["routing.max_load"] == 2
    torch.testing.assert_close(sum(total.task_losses.values()) + expected, total)
    assert [*total.task_losses] == ["det", "sem_seg", "cls"] and total.absent_tasks == {"cls"}
    plain = build(BACKBONE, ["det", "cls"])
    total, _ = plain.parse_losses(plain.loss(data["inputs"][1:], data["data_samples"][1:]))
    assert total.common_loss is None and total.task_parameters("det") == [*plain.tasks["det"].parameters()]


@pytest.mark.parametrize("kind", ["UncertaintyWeighting", "DWA", "GradNorm"])
def test_balancers_leave_the_routing_alone(kind: str):
    model = conditioned("det", "sem_seg", loss_balancer=dict(type=kind), loss_weights=dict(det=0.5))
    data = model.data_preprocessor(batch([("det",), ("sem_seg",)]), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    maps = sum(each.square().sum() for each in model.backbone.maps.parameters())
    torch.testing.assert_close(losses["routing.loss_mutual_information"], 1e-3 * maps)
    assert "det.weight" in losses and "routing.weight" not in losses
    model.parse_losses(losses)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("labelled", [[("det",), ("det",)], [(), ()], [("sem_seg", "det")]])
def test_every_parameter_that_trains_has_a_gradient(labelled: list):
    """Routers of absent tasks get zeros; that of no task does not train."""
    model = conditioned("det", "sem_seg", "cls", routing=dict(cls="det"))
    data = model.data_preprocessor(batch(labelled), True)
    model.parse_losses(model.loss(data["inputs"], data["data_samples"]))[0].backward()
    present = {task for tasks in labelled for task in tasks}
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.maps.cls"):
            assert not parameter.requires_grad and parameter.grad is None
        else:
            assert parameter.grad is not None, name
        if name.startswith("backbone.maps.sem_seg") and "sem_seg" not in present:
            assert not parameter.grad.any(), name
    assert {id(each) for each in model.task_parameters("cls")} == {
        id(each) for part in (model.tasks["cls"], model.backbone.maps["det"]) for each in part.parameters()
    }


def test_one_image_of_two_tasks_trains_batch_norms():
    """A batch of one image is left to the stock models, however many rows it has."""
    model = conditioned("det", "sem_seg")
    head = model.tasks["sem_seg"].decode_head
    head.norm = torch.nn.BatchNorm2d(1)
    seen = []
    head.conv_seg.register_forward_pre_hook(lambda *_: seen.append(head.norm.training))
    for labelled in ([("det", "sem_seg")], [("det", "sem_seg"), ("det",)]):
        data = model.data_preprocessor(batch(labelled), True)
        model.loss(data["inputs"], data["data_samples"])
    assert seen == [True, False]


def test_language_priors_of_routed_rows():
    """Score maps and samples meet in the rows of their task."""
    model = conditioned(*TASKS, adapter=lv(align_weight=0.5)).eval()
    data = model.data_preprocessor(batch([("det", "sem_seg"), ("sem_seg",), ("det",)]), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    for task, rows in (("det", [0, 2]), ("sem_seg", [0, 1])):
        levels = model.neck(alone(model, task).backbone(data["inputs"][rows]))
        _, scores = model.adapter.forward_with_scores(levels)
        own = model.adapter.align_loss(task, scores, [data["data_samples"][row] for row in rows])
        torch.testing.assert_close(losses[f"{task}.loss_align"], own["loss_align"])


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        (dict(lane="det"), r"routing of unknown tasks \['lane'\]; tasks: \['det', 'sem_seg'\]"),
        (dict(det="lane"), r"routing\['det'\]: route 'lane': no router of task 'lane'; there are cls, det"),
        (None, "task 'sem_seg' has no router in the backbone, whose tasks are cls, det; add it"),
    ],
)
def test_config_errors(routing: dict | None, message: str):
    with pytest.raises(MTAdaptError, match=message):
        conditioned("det", "sem_seg", routing=routing, routers=["cls", "det"])


def test_routes_need_a_conditioned_backbone():
    with pytest.raises(MTAdaptError, match="the features of ResNet do not depend on the task; leave routing out"):
        build(BACKBONE, ["det"], dict(det="det"))


def test_a_task_cannot_have_the_name_of_the_routing():
    with pytest.raises(MTAdaptError, match="task name 'routing' is that of the backbone's routing in logs"):
        models.multi_task_model(routing=models.fpn_head())
