"""The three branches together: shared weights and passes, switches, weights, predictions, mixed precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper

from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample
from tests.pretraining import BACKBONES, batch, build, settings

BRANCHES = dict(mlc="multi_label", mim="masked_image", con="contrastive")


def losses_of(model, **changes) -> dict:
    data = model.data_preprocessor(batch(**changes))
    return model.loss(data["inputs"], data["data_samples"])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_branches_train_one_backbone(backbone: str):
    model = build(backbone)
    token = BACKBONES[backbone][3]
    losses = losses_of(model, token=token)
    assert {name for name in losses if "loss" in name} == {
        "mlc.loss_style",
        "mlc.loss_objects",
        "mim.loss_pixel",
        "con.loss_image",
        "con.loss_patch",
    }
    trained = dict(model.backbone.named_parameters())
    for name in ("mlc.loss_objects", "mim.loss_pixel", "con.loss_image", "con.loss_patch"):
        grads = torch.autograd.grad(losses[name], [*trained.values()], retain_graph=True, allow_unused=True)
        reached = {key for key, grad in zip(trained, grads, strict=True) if grad is not None and grad.any()}
        untouched = {"mask_token"} if name != "mim.loss_pixel" else set()
        # ViT's class token and last bias have no way into a map.
        assert set(trained) - reached <= untouched | {"cls_token", "ln1.bias"}, name
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != (".key_encoder." in name or "query_embed" in name), name


@pytest.mark.parametrize("on", [("mlc",), ("mim",), ("con",), ("mlc", "con"), ("mim", "con"), ("mlc", "mim")])
def test_branches_that_are_off_change_nothing_in_the_others(on: tuple):
    """The losses of a part are those of the whole, and passes that nobody needs are not made."""
    whole = build()
    part = build(**{setting: None for name, setting in BRANCHES.items() if name not in on})
    part.load_state_dict({name: value for name, value in whole.state_dict().items() if name in part.state_dict()})
    passes = []
    part.backbone.register_forward_pre_hook(lambda module, args: passes.append(part.masked_image))
    expected, losses = losses_of(whole), losses_of(part)
    assert {name.split(".")[0] for name in losses} == set(on) and part.branches == tuple(
        sorted(on, key="mlcmimcon".find)
    )
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])
    # One pass for labels and contrast together, one for masked images.
    assert len(passes) == bool({"mlc", "con"} & set(on)) + ("mim" in on)


def test_fixed_and_learned_weights():
    plain = losses_of(build())
    fixed = losses_of(build(loss_weights=dict(mim=0.5, con=0.0)))
    assert fixed["mim.loss_pixel"] == plain["mim.loss_pixel"] * 0.5 and fixed["con.loss_image"] == 0
    assert fixed["mlc.loss_style"] == plain["mlc.loss_style"] and fixed["con.accuracy"] == plain["con.accuracy"]
    model = build(loss_balancer=dict(type="mtadapt.UncertaintyWeighting", log_variance=0.5))
    learned = losses_of(model)
    factor = torch.exp(torch.tensor(-0.5))
    torch.testing.assert_close(learned["mim.loss_pixel"], plain["mim.loss_pixel"] * factor)
    total, _ = model.parse_losses(learned)
    total.backward()
    summed = sum(value for name, value in plain.items() if name.startswith("con.loss"))
    torch.testing.assert_close(model.loss_balancer.log_variances["con"].grad, 0.5 - factor * summed.detach()[None])
    assert losses_of(build(loss_balancer=dict(type="mtadapt.DWA")))["mlc.weight"] == 1


def test_predictions():
    model = build().eval()
    data = model.data_preprocessor(batch(views=1))
    samples = model(**data, mode="predict")
    features = model(data["inputs"][:, 0])[-1]
    scores = model.multi_label((features,)).sigmoid()
    for row, sample in enumerate(samples):
        torch.testing.assert_close(sample.mlc.pred_score, scores[row])
        torch.testing.assert_close(sample.embedding, features[row].mean((1, 2)))
        assert sample.mlc.gt_score.shape == (5,)
    without = build(multi_label=None).eval()
    bare = without(data["inputs"], [MultiTaskDataSample() for _ in range(4)], mode="predict")
    assert bare[0].embedding.shape == (128,) and "mlc" not in bare[0]


def test_steps_lower_the_losses():
    model = build(patches=False)
    wrapper = OptimWrapper(torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], 2e-3))
    data = batch()
    first = last = None
    for step in range(40):
        logged = model.train_step(data, wrapper)
        first, last = first or logged, logged
        if step == 0:
            first = logged
    assert last["mim.loss_pixel"] < first["mim.loss_pixel"]
    assert last["mlc.loss_objects"] < first["mlc.loss_objects"] * 0.5


def test_reduced_precision_is_near_float32():
    model = build()
    expected = losses_of(model)
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model)
    model.parse_losses(losses)[0].backward()
    for name, value in losses.items():
        if "loss" in name:
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, expected[name], rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(multi_label=None, masked_image=None, contrastive=None), "are all None; give at least one"),
        (dict(loss_weights=dict(det=1.0)), r"loss_weights of unknown branches \['det'\]; known: .*mlc"),
        (dict(loss_balancer=dict(type="mtadapt.GradNorm")), "GradNorm needs features that all losses share"),
    ],
)
def test_impossible_models(changes: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        build(**changes)


def test_samples_that_lack_what_a_branch_needs():
    model = build()
    data = model.data_preprocessor(batch(views=1))
    with pytest.raises(MTAdaptError, match=r"0.jpg: one view, and the contrastive branch needs two"):
        model.loss(data["inputs"], data["data_samples"])
    data = model.data_preprocessor(batch())
    del data["data_samples"][1].mask
    with pytest.raises(MTAdaptError, match=r"0.jpg: no mask for the branch of masked images; add MaskPatches"):
        model.loss(data["inputs"], data["data_samples"])
    del data["data_samples"][1].mlc
    with pytest.raises(MTAdaptError, match="no labels for the multi-label branch; take a MultiLabelDataset"):
        model.loss(data["inputs"], data["data_samples"])
    with pytest.raises(MTAdaptError, match="unknown mode 'train'"):
        model(data["inputs"], mode="train")
    with pytest.raises(MTAdaptError, match="masked_image is None, so nothing reconstructs"):
        build(masked_image=None).reconstruct(data["inputs"][:, 0], torch.zeros(4, 16, 16))


def test_checkpoint_of_another_window():
    """As a pre-training goes on at another size; the tables are resized in both encoders."""
    other = {**BACKBONES["swin"][0], "stage_cfgs": dict(block_cfgs=dict(window_size=4))}
    model, source = build(backbone=other), build(seed=1)
    model.load_state_dict({k: v for k, v in source.state_dict().items() if "queue" not in k}, strict=False)
    name = "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"
    table = source.backbone.state_dict()[name]
    expected = F.interpolate(table.T.reshape(1, -1, 3, 3), size=(7, 7), mode="bicubic").flatten(2)[0].T
    for encoder in (model.backbone, model.contrastive.key_encoder.backbone):
        torch.testing.assert_close(encoder.state_dict()[name], expected)


def test_backbones_without_a_map():
    config = {key: value for key, value in BACKBONES["vit"][0].items() if key != "out_type"}
    model = build("vit", backbone=config)
    with pytest.raises(MTAdaptError, match=r"VisionTransformer is no map .* out_type='featmap'"):
        losses_of(model, token=16)


def test_preprocessor():
    model = build(data_preprocessor=dict(settings()["data_preprocessor"], bgr_to_rgb=True))
    data = batch(2)
    made = model.data_preprocessor(data)
    assert made["inputs"].shape == (2, 2, 3, 64, 64) and made["inputs"].dtype == torch.float32
    expected = (data["inputs"][1][1].flip(0).float() - 120) / 60
    torch.testing.assert_close(made["inputs"][1, 1], expected)
    data["inputs"][1] = data["inputs"][1][:1]
    with pytest.raises(
        MTAdaptError, match=r"1.jpg: views of the shape \(1, 3, 64, 64\) in a batch of \(2, 3, 64, 64\)"
    ):
        model.data_preprocessor(data)
    with pytest.raises(MTAdaptError, match="mean and std are not set"):
        build(data_preprocessor=dict(type="mtadapt.PretrainDataPreprocessor"))
