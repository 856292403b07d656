"""Adapted, extended and combined models: what stays the same, what trains, what new parts begin as; mistakes."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mtadapt.engine.freezing import freeze
from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.router import choose_experts
from mtadapt.models.moe.surgery import Experts, Incoming, adapt, combine, extend, parse_routes, prune
from mtadapt.registry import MODELS
from tests.moe_models import random_state, run_config
from tests.test_models.test_moe.test_surgery_prune import build, features

TWO = ("cls", "sem_seg")


def model_of(tasks: tuple[str, ...] = TWO, **backbone) -> tuple[Config, dict[str, Tensor]]:
    config = run_config(Path("data"), tasks, **backbone)
    return config, random_state(config)


def incoming(name: str = "det", **changes) -> Incoming:
    config = run_config(Path("data"))
    config.model.loss_weights = dict(det=0.5)
    config.merge_from_dict(changes)
    return Incoming(config, "det", name)


def trained(config: Config) -> tuple[set[str], nn.Module]:
    """Names of what trains in the only stage, with numbers of layers and of what is inside them left out."""
    model = MODELS.build(copy.deepcopy(config.model)).train()
    (stage,) = config.stages
    freeze(model, stage["freeze"], stage["freeze_except"])
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    inside = r"^backbone\..*?\.(banks\.\d|routers\.\w+)\..*|^(tasks\.\w+)\..*"
    return {re.sub(inside, r"\1\2", name) for name in names}, model


@pytest.mark.parametrize("choice", ["least", "most"])
def test_experts_that_train_move_and_nothing_changes(choice: str):
    config, state = model_of()
    new, moved = adapt(config, state, "sem_seg", choice, 2)
    assert new.model.backbone.mlp_experts.num_experts == [[3, 2]] * 8
    for layer in Experts.of(config).layers:
        order = state[f"{layer.name}.usage.load"][1].argsort(descending=choice == "most")
        expected = order[:2].sort().values
        for name in ("w1", "b1", "w2", "b2"):
            given = state[f"{layer.name}.banks.0.{name}"][expected]
            assert torch.equal(moved[f"{layer.name}.banks.1.{name}"], given)
        rest = [number for number in range(5) if number not in expected.tolist()]
        for name in ("load", "probability"):
            given = state[f"{layer.name}.usage.{name}"][1:, [*rest, *expected.tolist()]]
            assert torch.equal(moved[f"{layer.name}.usage.{name}"], given)
    for one, two in zip(features(build(new, moved), "sem_seg"), features(build(config, state), "sem_seg"), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    names, model = trained(new)
    assert names == {"banks.1", "routers.sem_seg", "tasks.sem_seg"}
    layers = model.backbone.moe_layers().values()
    assert all(layer.usage.training and not layer.training and not layer.banks[0].training for layer in layers)
    assert [*new.train_dataloader.dataset.sources] == ["ade20k"] and [*new.val_evaluator.tasks] == ["sem_seg"]
    assert new.stages[0].param_scheduler == config.param_scheduler and "param_scheduler" not in new


def test_routers_and_head_alone():
    config, state = model_of()
    new, moved = adapt(config, state, "cls")
    assert new.model.backbone.mlp_experts.num_experts == [5] * 8
    assert trained(new)[0] == {"routers.cls", "tasks.cls"}
    assert all(torch.equal(moved[key], state[key]) for key in moved if "usage" not in key)


def test_new_experts_of_an_adapted_model_begin_as_copies():
    config, state = model_of()
    new, grown = adapt(config, state, "cls", "new", 2)
    assert new.model.backbone.mlp_experts.num_experts == [[5, 2]] * 8
    layer = Experts.of(config).layers[0]
    order = state[f"{layer.name}.usage.load"][0].argsort(descending=True)[:2]
    assert torch.equal(grown[f"{layer.name}.banks.1.w2"], state[f"{layer.name}.banks.0.w2"][order])
    router = build(new, grown).backbone.moe_layers()[layer.name.removeprefix("backbone.")].routers["cls"]
    old = build(config, state).backbone.moe_layers()[layer.name.removeprefix("backbone.")].routers["cls"]
    x = torch.randn(4, 8)
    p, before = router(x).softmax(-1), old(x).softmax(-1)
    torch.testing.assert_close(p[:, 5:], p[:, order])
    torch.testing.assert_close(p[:, :5], before / (1 + before[:, order].sum(1, keepdim=True)))
    assert trained(new)[0] == {"banks.1", "routers.cls", "tasks.cls"}


def test_a_task_of_another_config():
    config, state = model_of()
    new, first = adapt(config, state, incoming("boxes"), "most", 1, start_from="cls", seed=4)
    _, again = adapt(config, state, incoming("boxes"), "most", 1, start_from="cls", seed=4)
    _, other = adapt(config, state, incoming("boxes"), "most", 1, start_from="cls", seed=5)
    heads = [key for key in first if key.startswith("tasks.boxes.") and key.endswith("weight")]
    assert heads and all(torch.equal(first[key], again[key]) for key in heads)
    assert not all(torch.equal(first[key], other[key]) for key in heads)
    assert new.model.backbone.tasks == ["boxes"] and new.model.loss_weights == dict(boxes=0.5)
    (source,) = new.train_dataloader.dataset.sources.values()
    assert source.tasks == dict(boxes="boxes") and [*new.val_evaluator.tasks] == ["boxes"]
    assert new.model.neck == config.model.neck
    for one, two in zip(features(build(new, first), "boxes"), features(build(config, state), "cls"), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", [None, "sem_seg"])
def test_an_extended_model_gives_what_it_gave(start: str | None):
    config, state = model_of()
    new, grown = extend(config, state, incoming(), 3, start, seed=1)
    backbone = new.model.backbone
    assert backbone.mlp_experts.num_experts == [[5, 3]] * 8
    assert backbone.tasks == ["cls", "sem_seg", "det"] and backbone.task_banks == dict(cls=1, sem_seg=1)
    kept = [key for key in state if ".usage." not in key]
    assert all(torch.equal(grown[key], state[key]) for key in kept)
    for layer in Experts.of(config).layers:
        for name in ("load", "probability"):
            assert torch.equal(grown[f"{layer.name}.usage.{name}"][:2, :5], state[f"{layer.name}.usage.{name}"])
            assert not grown[f"{layer.name}.usage.{name}"][:2, 5:].any()
        assert grown[f"{layer.name}.usage.updates"].tolist() == [3, 3, 0]
    model, before = build(new, grown), build(config, state)
    for task in TWO:
        for one, two in zip(features(model, task), features(before, task), strict=True):
            assert torch.equal(one, two)
    names, model = trained(new)
    assert names == {"banks.1", "routers.det", "tasks.det"}
    assert not model.tasks.sem_seg.training and model.tasks.det.training
    assert [*new.train_dataloader.dataset.sources] == ["coco"]
    assert [*new.val_dataloader.dataset.sources] == ["in1k", "ade20k", "coco"] == [*new.test_dataloader.dataset.sources]
    assert [*new.val_evaluator.tasks] == ["cls", "sem_seg", "det"]
    assert new.model.loss_weights == dict(det=0.5)


def test_new_experts_come_first_where_routers_begin_at_zero():
    config, state = model_of()
    new, grown = extend(config, state, incoming(), 1)
    layer = build(new, grown).backbone.moe_layers()[Experts.of(config).layers[2].name.removeprefix("backbone.")]
    p = layer.routers["det"](torch.randn(6, 16)).softmax(-1)
    assert choose_experts(p, 2)[1].tolist() == [[5, 0]] * 6
    torch.testing.assert_close(p, torch.full_like(p, 1 / 6), rtol=2e-3, atol=0)
    bound = 1 / 16**0.5
    assert layer.banks[1].w1.std() > 0.4 * bound and layer.banks[1].w1.abs().max() <= bound


def test_routers_that_continue_another():
    config, state = model_of()
    _, grown = extend(config, state, incoming(), 2, "cls")
    layer = Experts.of(config).layers[5]
    prefix = f"{layer.name}.routers."
    order = state[f"{layer.name}.usage.load"][0].argsort(descending=True)[:2]
    for name in ("0.weight", "0.bias"):
        assert torch.equal(grown[f"{prefix}det.{name}"], state[f"{prefix}cls.{name}"])
    for name in ("2.weight", "2.bias"):
        rows = state[f"{prefix}cls.{name}"]
        assert torch.equal(grown[f"{prefix}det.{name}"], torch.cat([rows, rows[order]]))
    assert torch.equal(grown[f"{layer.name}.banks.1.b1"], state[f"{layer.name}.banks.0.b1"][order])


def test_extended_twice_then_pruned():
    """The first task's sub-network comes out as if nothing had been added."""
    config, state = model_of()
    once = extend(config, state, incoming(), 2)
    new, grown = extend(*once, incoming("more"), 1)
    backbone = new.model.backbone
    assert backbone.mlp_experts.num_experts == [[5, 2, 1]] * 8
    assert backbone.tasks == ["cls", "sem_seg", "det", "more"]
    assert backbone.task_banks == dict(cls=1, sem_seg=1, det=2)
    # The sources have the same name in both configs.
    sources = new.val_dataloader.dataset.sources
    assert [*sources] == ["in1k", "ade20k", "coco", "coco_more"] and sources.coco_more.tasks == dict(more="boxes")
    smallest, small = prune(new, grown, ["cls"])
    expected, reference = prune(config, state, ["cls"])
    assert smallest.model.backbone == expected.model.backbone and "train_dataloader" not in smallest
    assert small.keys() == reference.keys() and all(torch.equal(small[key], reference[key]) for key in small)
    middle, small = prune(new, grown, ["cls", "det"])
    assert middle.model.backbone.mlp_experts.num_experts == [[5, 2]] * 8
    assert middle.model.backbone.task_banks == dict(cls=1)
    with pytest.raises(MTAdaptError, match="train_dataloader: no source labels det; take the data from another config"):
        adapt(new, grown, "det", "new", 1)
    adapted, small = adapt(new, grown, incoming(), "new", 1)
    assert adapted.model.backbone.mlp_experts.num_experts == [[7, 1]] * 8
    assert all(torch.equal(small[key], grown[key]) for key in small if key.startswith("tasks."))
    build(adapted, small)


def test_an_old_expert_that_the_other_router_does_not_see():
    config, state = model_of()
    once = extend(config, state, incoming(), 2)
    _, grown = extend(*once, incoming("more"), 1, "cls")
    prefix = f"{Experts.of(config).layers[0].name}.routers."
    rows = state[f"{prefix}cls.2.weight"]
    torch.testing.assert_close(grown[f"{prefix}more.2.weight"][5:7], rows.mean(0).expand(2, -1))


def test_a_source_that_is_no_mix_becomes_one():
    config, state = model_of()
    task = incoming()
    data = dict(type="BDD100KDataset", data_root="bdd", tasks=["det", "drivable"], pipeline=[])
    for split in ("train", "val", "test"):
        task.config[f"{split}_dataloader"] = dict(batch_size=1, dataset=copy.deepcopy(data))
    new, _ = extend(config, state, task, 1)
    assert new.train_dataloader.dataset == dict(data, tasks=["det"])
    assert new.val_dataloader.dataset.sources["new"] == dict(tasks=["det"], dataset=dict(data, tasks=["det"]))
    with pytest.raises(MTAdaptError, match="--as boxes: the dataset of train_dataloader names its tasks itself"):
        extend(config, state, task._replace(name="boxes"), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c, s: extend(c, s, incoming(), 0), "--experts 0: write at least 1"),
        (lambda c, s: adapt(c, s, "cls", "new", 0), "--experts 0: write at least 1"),
        (lambda c, s: adapt(c, s, "cls", "most", 5), r"--experts 5: backbone\S+ has 5 experts, of which at least one"),
        (lambda c, s: adapt(c, s, "cls", "best", 1), "--train best: unknown; known: least, most, new"),
        (lambda c, s: adapt(c, s, "det"), "--task det: no task of the config; it has cls, sem_seg"),
        (lambda c, s: adapt(c, s, incoming()), "--task det is new to the model; say with --start-from whose routers"),
        (lambda c, s: adapt(c, s, incoming(), start_from="x"), "--start-from x: no task of the config; it has cls"),
        (lambda c, s: extend(c, s, incoming("cls"), 1), "--task cls: the model has this task already; .* --as"),
        (
            lambda c, s: extend(c, s, incoming(**{"model.neck.num_outs": 4}), 1),
            "task 'det' of None reads a shared neck that is not the model's; give the task its own: neck=",
        ),
        (
            lambda c, s: adapt(*combine(c, s, dict(cls=dict(cls=0.5, sem_seg=0.5))), "cls"),
            "--start-from cls: the task mixes the routers of cls, sem_seg",
        ),
        (lambda c, s: combine(c, s, dict(det="cls")), "--routes det: no task of the config"),
        (
            lambda c, s: combine(c, s, dict(cls="det")),
            "--routes cls: .*no router of task 'det'; there are cls, sem_seg",
        ),
        (lambda c, s: combine(c, s, dict(cls=dict(cls=0.5, sem_seg=0.4))), "--routes cls: .*with the sum 1"),
        (lambda c, s: combine(*prune(c, s, ["cls"]), dict(cls="cls")), "--routes: the model has one router, of cls"),
        (lambda c, s: parse_routes(["cls"]), "--routes cls: write TASK=ROUTER"),
        (lambda c, s: parse_routes(["cls=a*b*c"]), r"--routes cls=a\*b\*c: write TASK=ROUTER"),
        (lambda c, s: parse_routes(["cls=half*det"]), "a share is no number .*'half'"),
        (lambda c, s: parse_routes(["cls=det", "cls=cls"]), "task 'cls' has two routes"),
    ],
)
def test_mistakes(make, message: str):
    config, state = model_of()
    with pytest.raises(MTAdaptError, match=message):
        make(config, state)


def test_routes():
    routes = parse_routes(["det=sem_seg", "cls=0.25*det+0.75*cls", "x=1*y"])
    assert routes == dict(det="sem_seg", cls=dict(det=0.25, cls=0.75), x=dict(y=1.0))
    config, state = model_of()
    new, same = combine(config, state, dict(cls="sem_seg"))
    assert same.keys() == state.keys() and new.model.routing == dict(cls="sem_seg")
    swapped, own = features(build(new, same), "cls"), features(build(config, state), "sem_seg")
    assert all(torch.equal(one, two) for one, two in zip(swapped, own, strict=True))
    newer, _ = combine(new, same, dict(sem_seg="cls"))
    assert newer.model.routing == dict(cls="sem_seg", sem_seg="cls")


@pytest.mark.parametrize("kind", ["extend", "adapt"])
def test_adapters_of_old_parts_rest_too(kind: str):
    """They stay trainable inside a frozen part unless they are named, and the old tasks read them."""
    config = run_config(Path("data"), TWO)
    adapter = dict(type="mtadapt.MultiScaleAdapter", in_channels=config.model.neck.out_channels)
    config.model.neck = [config.model.neck, adapter]
    state = random_state(config)
    other = incoming()
    other.config.model.neck = copy.deepcopy(config.model.neck)
    new, _ = extend(config, state, other, 1) if kind == "extend" else adapt(config, state, "sem_seg", "new", 1)
    name = "det" if kind == "extend" else "sem_seg"
    names, _ = trained(new)
    assert names == {"banks.1", f"routers.{name}", f"tasks.{name}"}
