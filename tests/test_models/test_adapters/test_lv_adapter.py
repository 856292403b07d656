"""LV-Adapter against plain float64 attention, as a neck and in the multi-task model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mtadapt.errors import MTAdaptError
from mtadapt.models import LVAdapter
from mtadapt.models.losses import box_alignment_loss
from mtadapt.registry import MODELS
from tests import models
from tests.models import batch

PROMPTS = dict(sem_seg=["road", "car", "sky"], det=["car", "truck"])
ENCODER = dict(type="mtadapt.PrecomputedTextEmbeddings")


def adapter(**changes: object) -> LVAdapter:
    torch.manual_seed(0)
    settings = dict(in_channels=[8, 16], prompts=PROMPTS, text_encoder=ENCODER, embed_channels=12)
    module = MODELS.build(dict(type="mtadapt.LVAdapter", **{**settings, **changes}))
    module.init_weights()
    return module


def features(*channels: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(2, width, 12 // (level + 1), 20 // (level + 1), generator=generator).to(dtype)
        for level, width in enumerate(channels)
    )


def reference(module: LVAdapter, maps: tuple[Tensor, ...]) -> list[Tensor]:
    """The same by torch's attention on float64 token sequences, one task after the other."""
    texts = {task: vectors.double() for task, vectors in module.language().items()}
    module = copy.deepcopy(module).double()
    outputs = []
    for level, x in enumerate(maps):
        tokens = x.double().flatten(2).transpose(1, 2)
        queries = F.normalize(tokens @ module.queries[level].weight.flatten(1).T, dim=2)
        context = torch.zeros_like(tokens)
        for number, text in enumerate(texts.values()):
            keys = torch.cat([F.normalize(text @ module.key.weight.T, dim=1), text.new_zeros(1, 12)])
            values = F.linear(text, module.values[level].weight, module.values[level].bias)
            values = torch.cat([values, values.new_zeros(1, values.shape[1])])
            attended = F.scaled_dot_product_attention(
                queries, keys.expand(2, -1, -1), values.expand(2, -1, -1), scale=1 / 0.07
            )
            context = context + module.gates[level][number] * attended
        outputs.append((tokens + context).transpose(1, 2).reshape(x.shape))
    return outputs


def test_equals_attention_in_float64():
    module = adapter(gate=0.7)
    for ours, expected in zip(module(features(8, 16)), reference(module, features(8, 16)), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


def test_score_maps_are_the_cosines_over_the_temperature():
    module = adapter()
    maps = features(8, 16)
    _, scores = module.forward_with_scores(maps)
    queries = module.queries[1](maps[1])
    for task, text in module.language().items():
        for number, vector in enumerate(text):
            expected = F.cosine_similarity(queries, module.key(vector)[None, :, None, None], dim=1) / 0.07
            torch.testing.assert_close(scores[1][task][:, number], expected, rtol=1e-4, atol=1e-4)


def test_the_gate_closes_it_bit_for_bit():
    maps = features(8, 16)
    assert all(torch.equal(ours, x) for ours, x in zip(adapter(gate=0.0)(maps), maps, strict=True))
    opened = adapter()(maps)
    assert all(0 < (ours - x).abs().max() < 1e-2 for ours, x in zip(opened, maps, strict=True))


def test_folded_equals_unfolded_and_follows_every_change():
    module, maps = adapter(gate=0.5), features(8, 16)
    unfolded = module(maps)
    module.eval()
    with torch.no_grad():
        folded = module(maps)
        assert module._folded is not None
        assert all(torch.equal(one, two) for one, two in zip(unfolded, folded, strict=True))
        other = adapter(gate=0.9).state_dict()
        module.load_state_dict(other)
        after = module(maps)
    assert not torch.equal(after[0], folded[0])
    assert torch.equal(after[0], adapter(gate=0.9)(maps)[0])
    module.double()
    with torch.no_grad():
        assert module(features(8, 16, dtype=torch.float64))[0].dtype == torch.float64


def test_gradients_reach_everything_but_the_texts():
    module = adapter(gate=0.1)
    outputs, scores = module.forward_with_scores(features(8, 16))
    total = sum(output.square().sum() for output in outputs) + sum(
        score.square().sum() for level in scores for score in level.values()
    )
    total.backward()
    missing = [
        name for name, parameter in module.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not missing
    assert not any(vectors.requires_grad for vectors in module.language().values())


def test_equal_channels_stand_for_five_levels():
    assert len(adapter(in_channels=16).queries) == 5
    assert len(adapter(in_channels=16, num_levels=4).queries) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(tau=0), "tau=0; the temperature must be above 0"),
        (dict(align_weight=dict(seg=1.0)), r"align_weight of \['seg'\]; prompts are of \['det', 'sem_seg'\]"),
        (dict(prompts=dict(det=["car", "spaceship"])), "spaceship"),
    ],
)
def test_mistakes(changes: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        adapter(**changes)


def test_other_features_than_in_channels():
    with pytest.raises(MTAdaptError, match=r"features have channels \[8, 32\], in_channels is \[8, 16\]"):
        adapter()(features(8, 32))


def multi_task(adapter_cfg: dict | None) -> nn.Module:
    tasks = dict(det=models.faster_rcnn(), sem_seg=models.fpn_head(), drivable=models.fpn_head(3))
    return models.multi_task_model(adapter_cfg, **tasks)


def lv(config_file: str = "configs/_base_/prompts/bdd100k.py", **changes: object) -> dict:
    from mmengine.config import Config

    prompts = Config.fromfile(Path(__file__).parents[3] / config_file).prompts
    return {**dict(type="mtadapt.LVAdapter", in_channels=32, prompts=prompts, text_encoder=ENCODER), **changes}


def test_alignment_losses_are_those_of_the_labelled_rows():
    model = multi_task(lv()).train()
    data = model.data_preprocessor(batch([("det",), ("det", "sem_seg"), ("sem_seg",)]), True)
    losses = model(**data, mode="loss")
    assert {"det.loss_align", "sem_seg.loss_align"} <= losses.keys() and "drivable.loss_align" not in losses
    alone = {}
    _, scores = model._features_and_scores(data["inputs"])
    for task, rows in (("det", [0, 1]), ("sem_seg", [1, 2])):
        chosen = [{task: level[task][rows]} for level in scores]
        alone[task] = model.adapter.align_loss(task, chosen, [data["data_samples"][row] for row in rows])["loss_align"]
        torch.testing.assert_close(losses[f"{task}.loss_align"], alone[task])
    model.adapter.align_weights["det"] *= 2
    torch.testing.assert_close(model(**data, mode="loss")["det.loss_align"], 2 * alone["det"])
    total, _ = model.parse_losses(losses)
    total.backward()
    assert all(parameter.grad is not None for parameter in model.adapter.parameters())


def test_every_cell_of_every_level_counts_the_same():
    model = multi_task(lv(align_weight=0.5)).train()
    data = model.data_preprocessor(batch([("sem_seg",), ("sem_seg",)]), True)
    _, scores = model._features_and_scores(data["inputs"])
    rows, labels = [], []
    for level in scores:
        step = [
            side // cells for side, cells in zip(data["inputs"].shape[-2:], level["sem_seg"].shape[-2:], strict=True)
        ]
        rows.append(level["sem_seg"].double().flatten(2).transpose(1, 2).flatten(0, 1))
        for sample in data["data_samples"]:
            seg_map = sample.sem_seg.gt_sem_seg.data[0]
            labels.append(seg_map[step[0] // 2 :: step[0], step[1] // 2 :: step[1]].flatten())
    expected = 0.5 * F.cross_entropy(torch.cat(rows), torch.cat(labels))
    ours = model.adapter.align_loss("sem_seg", scores, data["data_samples"])["loss_align"]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_box_loss_gets_sizes_padding_and_ignored_regions():
    model = multi_task(lv(align_weight=0.5)).train()
    data = model.data_preprocessor(batch([("det",), ("det",)], sizes=[(96, 160), (64, 128)]), True)
    samples = data["data_samples"]
    region = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 90.0, 50.0]]), labels=torch.tensor([2]))
    samples[1].det.ignored_instances = region
    scores = [{"det": torch.randn(2, 10, *size)} for size in ((24, 40), (12, 20))]
    ours = model.adapter.align_loss("det", scores, samples)["loss_align"]
    boxes = [sample.det.gt_instances for sample in samples]
    ignored = [sample.det.ignored_instances for sample in samples]
    shapes = [(96, 160), (64, 128)]
    fine, coarse = (box_alignment_loss(level["det"], boxes, ignored, (96, 160), shapes) for level in scores)
    torch.testing.assert_close(ours, 0.5 * (0.8 * fine + 0.2 * coarse))
    without = box_alignment_loss(scores[0]["det"], boxes, [ignored[0], ignored[0]], (96, 160), shapes)
    assert not torch.isclose(fine, without), "the region counts"


def test_a_closed_gate_leaves_predictions_as_they_are():
    plain, adapted = multi_task(None).eval(), multi_task(lv(gate=0.0)).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    data = plain.data_preprocessor(batch([("det",), ("sem_seg",)]), False)
    with torch.no_grad():
        expected = plain(**copy.deepcopy(data), mode="predict")
        ours = adapted(**copy.deepcopy(data), mode="predict")
    for one, two in zip(expected, ours, strict=True):
        assert torch.equal(one.det.pred_instances.bboxes, two.det.pred_instances.bboxes)
        assert torch.equal(one.sem_seg.pred_sem_seg.data, two.sem_seg.pred_sem_seg.data)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (dict(seg=["car"]), "prompts of unknown task 'seg'; tasks: det, sem_seg, drivable"),
        (dict(det=["car", "truck"]), r"prompts\['det'\] has 2 classes, the task's head has 10"),
        (dict(sem_seg=["road"]), r"prompts\['sem_seg'\] has 1 classes, the task's head has 19"),
    ],
)
def test_prompts_that_do_not_fit_the_tasks(prompts: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        multi_task(lv(prompts=prompts))


def test_the_order_of_the_prompts_does_not_matter():
    """A config that MMEngine dumps has them in the order of the alphabet."""
    trained, turned = adapter(), adapter(prompts=dict(reversed(PROMPTS.items())))
    assert [*turned.classes] == [*trained.classes] == sorted(PROMPTS)
    assert [*turned.state_dict()] == [*trained.state_dict()]


@pytest.mark.parametrize("by_mmengine", [False, True])
def test_gates_of_older_checkpoints_find_their_tasks(by_mmengine: bool):
    """Their rows are in the order of the config of their training."""
    trained = adapter()
    for gates in trained.gates:
        nn.init.normal_(gates)
    state = trained.state_dict()
    for task in reversed(trained.classes):
        state[f"language.texts_{task}"] = state.pop(f"language.texts_{task}")
    for level in range(len(trained.gates)):
        state[f"gates.{level}"] = state[f"gates.{level}"].flip(0)
    loaded = adapter()
    for _ in range(2):
        if by_mmengine:
            _load_checkpoint_to_model(loaded, dict(state_dict=state))
        else:
            loaded.load_state_dict(state)
    assert all(torch.equal(one, two) for one, two in zip(loaded.gates, trained.gates, strict=True))
