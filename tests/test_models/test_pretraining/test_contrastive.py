"""The contrastive branch: equal to MoCo, DenseCL and MoCo v3 of mmpretrain; its encoder and its queue."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining.contrastive import info_nce
from mtadapt.models.pretraining.key_queue import KeyQueue
from mtadapt.models.pretraining.momentum_encoder import MomentumEncoder
from mtadapt.registry import MODELS
from tests.pretraining import BACKBONES, batch, build, settings


def losses_of(model, **changes) -> dict:
    data = model.data_preprocessor(batch(**changes))
    return model.loss(data["inputs"], data["data_samples"])


@pytest.mark.parametrize("patches", [False, True], ids=["moco", "densecl"])
@pytest.mark.parametrize("backbone", ["swin", "resnet"])
def test_equal_to_the_stock_algorithm(patches: bool, backbone: str):
    """Three steps: losses, gradients, keys in the queue and weights of the momentum encoder."""
    model = build(backbone, patches, multi_label=None, masked_image=None)
    ours = model.contrastive
    config = settings(backbone, patches)
    stock = MODELS.build(
        dict(
            _scope_="mmpretrain",
            type="DenseCL" if patches else "MoCo",
            backbone=config["backbone"],
            neck=config["contrastive"]["projector"],
            head=dict(type="ContrastiveHead", loss=dict(type="CrossEntropyLoss", loss_weight=1.0), temperature=0.2),
            queue_len=12,
            feat_dim=8,
            **(dict(loss_lambda=0.5) if patches else {}),
        )
    )
    queues = [(ours.queue, "queue"), (ours.patch_queue, "queue2")][: 2 if patches else 1]
    for queue, name in queues:
        queue.keys = getattr(stock, name).T.clone()
    stock.backbone.load_state_dict(model.backbone.state_dict())
    stock.neck.load_state_dict(ours.projector.state_dict())
    stock.train()
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in (model, stock)]
    for step in range(3):
        data = model.data_preprocessor(batch(seed=step))
        losses = model.loss(data["inputs"], data["data_samples"])
        expected = stock.loss([data["inputs"][:, 0], data["inputs"][:, 1]], data["data_samples"])
        pairs = [("loss_image", "loss_single"), ("loss_patch", "loss_dense")] if patches else [("loss_image", "loss")]
        for own, other in pairs:
            torch.testing.assert_close(losses[f"con.{own}"], expected[other], rtol=1e-4, atol=1e-5)
        for optimizer, each in zip(optimizers, (losses, expected), strict=True):
            optimizer.zero_grad()
            sum(value for name, value in each.items() if "loss" in name).backward()
            optimizer.step()
        for queue, name in queues:
            torch.testing.assert_close(queue.keys, getattr(stock, name).T, rtol=1e-3, atol=1e-4)
    pairs = zip(ours.key_encoder.backbone.parameters(), stock.encoder_k.module[0].parameters(), strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_negatives_of_the_batch_are_moco_v3():
    torch.manual_seed(0)
    queries, keys = (nn.functional.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    head = MODELS.build(
        dict(
            _scope_="mmpretrain",
            type="MoCoV3Head",
            predictor=dict(type="LinearNeck", in_channels=8, out_channels=8, norm_cfg=None),
            loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
            temperature=0.3,
        )
    )
    head.predictor = nn.Identity()
    loss, accuracy = info_nce(queries, keys, keys, 0.3, own=torch.arange(6))
    torch.testing.assert_close(loss, head.loss(queries, keys))
    assert accuracy == ((queries @ keys.T).argmax(1) == torch.arange(6)).float().mean() * 100
    assert info_nce(queries, queries, keys[:0], 0.3)[0] == 0


def test_patches_of_the_batch_against_a_loop():
    """The patches' loss without a queue, image by image and patch by patch in float64."""
    model = build(multi_label=None, masked_image=None, contrastive={**settings()["contrastive"], "queue_len": 0})
    branch = model.contrastive.double()
    model.backbone.double()
    data = model.data_preprocessor(batch())
    views = data["inputs"].double()
    branch.key_encoder.restart(model.backbone, branch.projector)
    losses = model.loss(views, data["data_samples"])

    def vectors(view):
        features = model.backbone(view)[-1]
        _, patches, mean = (nn.functional.normalize(each, dim=1) for each in branch.projector((features,)))
        return nn.functional.normalize(features.flatten(2), dim=1), patches, mean

    (map_q, patches_q, _), (map_k, patches_k, mean_k) = vectors(views[:, 0]), vectors(views[:, 1])
    terms = []
    for image in range(4):
        for patch in range(4):
            best = max(range(4), key=lambda other: float(map_q[image, :, patch] @ map_k[image, :, other]))
            query = patches_q[image, :, patch]
            logits = [query @ patches_k[image, :, best]] + [query @ mean_k[n] for n in range(4) if n != image]
            terms.append(-torch.log_softmax(torch.stack(logits) / 0.2, 0)[0])
    torch.testing.assert_close(losses["con.loss_patch"].double(), torch.stack(terms).mean() * 0.5, rtol=1e-4, atol=1e-6)


def test_momentum_encoder_is_the_closed_form():
    torch.manual_seed(0)
    backbone, projector = nn.Linear(3, 3), nn.Linear(3, 2)
    encoder = MomentumEncoder(backbone, projector, momentum=0.1)
    start = encoder.backbone.weight.clone()
    stock = ExponentialMovingAverage(nn.Sequential(backbone, projector), momentum=0.1)
    stock.update_parameters(nn.Sequential(backbone, projector))
    with torch.no_grad():
        backbone.weight += 1
    for _ in range(5):
        encoder.update(backbone, projector)
        stock.update_parameters(nn.Sequential(backbone, projector))
    share = 0.9**5
    torch.testing.assert_close(encoder.backbone.weight, share * start + (1 - share) * backbone.weight)
    torch.testing.assert_close(encoder.backbone.weight, stock.module[0].weight)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.restart(backbone, projector)
    assert torch.equal(encoder.backbone.weight, backbone.weight)


def test_queue_that_the_batch_does_not_divide():
    queue = KeyQueue(5, 1)
    for first in (0, 3, 6):
        queue.put(torch.arange(first, first + 3.0)[:, None])
    assert queue.keys[:, 0].tolist() == [5, 6, 7, 8, 4] and queue.position.item() == 4
    kept = queue.snapshot()
    queue.put(torch.arange(10, 17.0)[:, None])
    assert sorted(queue.keys[:, 0].tolist()) == [12, 13, 14, 15, 16]
    assert kept[:, 0].tolist() == [5, 6, 7, 8, 4]


def test_keys_are_those_of_the_momentum_encoder_before_the_queue():
    """A key is no negative in its own step, and is one in the next."""
    model = build(patches=False, multi_label=None, masked_image=None)
    before = model.contrastive.queue.keys.clone()
    losses_of(model)
    changed = (model.contrastive.queue.keys != before).any(1)
    assert changed.tolist() == [True] * 4 + [False] * 6
    data = model.data_preprocessor(batch())
    with torch.no_grad():
        keys = model.contrastive.key_encoder.backbone(data["inputs"][:, 1])[-1]
        keys = nn.functional.normalize(model.contrastive.key_encoder.projector((keys,))[0], dim=1)
    torch.testing.assert_close(model.contrastive.queue.keys[:4], keys)


def test_checkpoint_without_a_momentum_encoder():
    model, other = build(seed=0), build(seed=1)
    state = {name: value for name, value in other.state_dict().items() if name.startswith("backbone.")}
    model.load_state_dict(state, strict=False)
    for name, value in model.contrastive.key_encoder.backbone.state_dict().items():
        assert torch.equal(value, other.backbone.state_dict()[name])
    projector = {name: value for name, value in other.state_dict().items() if name.startswith("contrastive.proj")}
    model.load_state_dict({**state, **projector}, strict=False)
    for name, value in model.contrastive.key_encoder.projector.state_dict().items():
        assert torch.equal(value, other.contrastive.projector.state_dict()[name])
    # One that has it is taken as it is.
    losses_of(other)
    model.load_state_dict(other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(momentum=0), r"momentum=0; it has to be in \(0, 1\]; MoCo's m=0.999 is momentum=0.001"),
        (dict(temperature=-1), "temperature=-1"),
        (dict(patch_weight=2), r"patch_weight=2; it has to be in \[0, 1\]"),
        (dict(queue_len=-1), "queue_len=-1; use a positive number, or 0"),
        (dict(queue_len=10.5), "queue_len=10.5; write a whole number"),
    ],
)
def test_impossible_settings(changes: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        build(contrastive={**settings()["contrastive"], **changes})


def test_patches_need_their_projector():
    config = {**settings(patches=False)["contrastive"], "patch_weight": 0.5}
    with pytest.raises(
        MTAdaptError, match=r"patch_weight=0.5 with the projector 'mmpretrain.MoCoV2Neck'; patches need"
    ):
        build(contrastive=config)
    with pytest.raises(MTAdaptError, match=r"patch_weight=0.0 with the projector 'mmpretrain.DenseCLNeck'"):
        build(contrastive={**settings()["contrastive"], "patch_weight": 0.0})
    config = {**settings()["contrastive"]}
    config["projector"] = {**config["projector"], "num_grid": 1}
    with pytest.raises(MTAdaptError, match=r"1 patches for maps of \(2, 2\); leave num_grid"):
        losses_of(build(contrastive=config))


def test_one_image_has_no_negatives():
    model = build(contrastive={**settings()["contrastive"], "queue_len": 0})
    with pytest.raises(MTAdaptError, match="one image has no negatives; use larger batches or a queue_len"):
        losses_of(model, number=1)


def test_evaluation_changes_nothing():
    model = build().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses_of(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


CHANGES = dict(multi_label=None, masked_image=None)


def with_fixed_statistics(model):
    """BatchNorm of half a batch is another one than that of the whole; its running statistics are not."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def step(rank: int, folder: str, backbone: str, queue_len: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    config = {**settings(backbone)["contrastive"], "queue_len": queue_len}
    model = with_fixed_statistics(build(backbone, contrastive=config, **CHANGES))
    assert model.contrastive._shuffles() == (backbone == "resnet")
    parallel = DistributedDataParallel(model, broadcast_buffers=False)
    data = model.data_preprocessor(batch(token=BACKBONES[backbone][3]))
    rows = slice(2 * rank, 2 * rank + 2)
    torch.manual_seed(rank)
    total, _ = model.parse_losses(
        parallel(inputs=data["inputs"][rows], data_samples=data["data_samples"][rows], mode="loss")
    )
    total.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    torch.save((gradients, dict(model.named_buffers())), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize(("backbone", "queue_len"), [("swin", 0), ("swin", 10), ("resnet", 10)])
def test_two_processes_are_one_with_the_whole_batch(tmp_path: Path, backbone: str, queue_len: int):
    context = mp.start_processes(step, (str(tmp_path), backbone, queue_len), nprocs=2, join=False, start_method="fork")
    assert context is not None
    for _ in range(120):
        if context.join(timeout=1):
            break
    else:
        pytest.fail("two processes wait for each other")
    (gradients, buffers), (others, other_buffers) = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    for name, value in gradients.items():
        assert value is not None and torch.equal(value, others[name]), name
    for name, value in buffers.items():
        if "queue" in name:
            assert torch.equal(value, other_buffers[name]), name
    config = {**settings(backbone)["contrastive"], "queue_len": queue_len}
    model = with_fixed_statistics(build(backbone, contrastive=config, **CHANGES))
    data = model.data_preprocessor(batch(token=BACKBONES[backbone][3]))
    total, _ = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
    total.backward()
    for name, value in gradients.items():
        torch.testing.assert_close(value, model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, buffers[name])
