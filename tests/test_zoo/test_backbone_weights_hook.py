"""When the weights of a pre-trained backbone are read, and when those of the training count."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import FlexibleRunner, Runner
from mmengine.runner.checkpoint import find_latest_checkpoint
from mmpretrain.models import SwinTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mtadapt.errors import MTAdaptError
from mtadapt.registry import HOOKS
from mtadapt.zoo import BackboneWeightsHook
from tests import pretraining

ARCH = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2])
TABLE = "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"


class Classifier(BaseModel):
    def __init__(self, window: int = 4) -> None:
        super().__init__(init_cfg=dict(type="Constant", layer="Linear", val=0.5))
        torch.manual_seed(1)
        self.backbone = SwinTransformer(ARCH, window_size=window, img_size=32, out_indices=(1,), drop_path_rate=0.0)
        self.head = nn.Linear(16, 2)

    def forward(self, inputs: Tensor, mode: str = "loss") -> dict | list:
        output = self.head(self.backbone(inputs)[-1].mean((2, 3)))
        return dict(loss=output.square().mean()) if mode == "loss" else [output]


class Seen(Hook):
    """The backbone before the first step."""

    def __init__(self) -> None:
        self.first: dict[str, Tensor] | None = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        if self.first is None:
            model = getattr(runner.model, "module", runner.model)
            self.head = model.head.weight.clone()
            self.first = {name: value.clone() for name, value in model.backbone.state_dict().items()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Window 3; every entry is as no initialisation makes it."""
    state = SwinTransformer(ARCH, window_size=3, out_indices=(1,)).state_dict()
    state = {f"backbone.{name}": value + 1 if value.is_floating_point() else value for name, value in state.items()}
    torch.save(dict(state_dict=state), tmp_path / "hvp.pth")
    return tmp_path / "hvp.pth"


def build(folder: Path, hooks: list, fields: dict | None = None, model: nn.Module | None = None, **settings) -> Runner:
    images = [dict(inputs=torch.randn(3, 32, 32)) for _ in range(4)]
    loader = DataLoader(images, batch_size=2)
    settings = {**dict(max_iters=1), **settings}
    return Runner(
        model=model or Classifier(),
        work_dir=str(folder / "work"),
        train_dataloader=loader,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=settings.pop("max_iters")),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=False)),
        custom_hooks=hooks,
        experiment_name=f"{folder.name}_{id(images)}",
        cfg=Config(dict(fields or {})),
        **settings,
    )


def test_the_first_step_has_the_weights(tmp_path: Path, checkpoint: Path):
    """MMEngine initialises the model after ``before_run``; the rest of the model is initialised as the config says."""
    seen, hook = Seen(), HOOKS.build(dict(type="BackboneWeightsHook", checkpoint=str(checkpoint)))
    build(tmp_path, [hook, seen]).train()
    given = torch.load(checkpoint)["state_dict"]
    for name, value in seen.first.items():
        if name == TABLE:
            assert value.shape == (49, 1)
        elif not name.endswith(("index", "table")):
            assert torch.equal(value, given[f"backbone.{name}"]), name
    assert torch.equal(seen.head, torch.full((2, 16), 0.5))


def test_the_field_of_the_config(tmp_path: Path, checkpoint: Path):
    seen = Seen()
    build(tmp_path, [BackboneWeightsHook(), seen], dict(checkpoint=str(checkpoint))).train()
    assert torch.equal(seen.first["norm1.weight"], torch.full((16,), 2.0))


def test_none_in_the_field_is_random(tmp_path: Path):
    seen = Seen()
    build(tmp_path, [BackboneWeightsHook(), seen], dict(checkpoint=None)).train()
    assert torch.equal(seen.first["norm1.weight"], torch.ones(16))


def test_an_option_of_the_command_line_reaches_the_hook(tmp_path: Path, checkpoint: Path):
    (tmp_path / "c.py").write_text("checkpoint = 'x.pth'\ncustom_hooks = [dict(type='BackboneWeightsHook')]\n")
    config = Config.fromfile(tmp_path / "c.py")
    config.merge_from_dict(dict(checkpoint=str(checkpoint)))
    seen = Seen()
    build(tmp_path, [HOOKS.build(config.custom_hooks[0]), seen], config.to_dict()).train()
    assert torch.equal(seen.first["norm1.weight"], torch.full((16,), 2.0))


@pytest.mark.parametrize("there", [True, False])
def test_a_resumed_training_keeps_its_own(tmp_path: Path, checkpoint: Path, there: bool):
    hooks = [BackboneWeightsHook(str(checkpoint))]
    build(tmp_path, hooks).train()
    trained = torch.load(find_latest_checkpoint(str(tmp_path / "work")), weights_only=False)["state_dict"]
    if not there:
        checkpoint.unlink()
    seen = Seen()
    build(tmp_path, [*hooks, seen], max_iters=2, resume=True).train()
    assert all(torch.equal(value, trained[f"backbone.{name}"]) for name, value in seen.first.items())


def test_resume_with_nothing_to_resume_loads(tmp_path: Path, checkpoint: Path):
    seen = Seen()
    build(tmp_path, [BackboneWeightsHook(str(checkpoint)), seen], resume=True).train()
    assert torch.equal(seen.first["norm1.weight"], torch.full((16,), 2.0))


def test_a_whole_model_counts_more(tmp_path: Path, checkpoint: Path):
    state = {name: value * 3 if "index" not in name else value for name, value in Classifier().state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / "whole.pth")
    seen = Seen()
    build(tmp_path, [BackboneWeightsHook(str(checkpoint)), seen], load_from=str(tmp_path / "whole.pth")).train()
    assert torch.equal(seen.first["norm1.weight"], torch.full((16,), 3.0))


def test_a_test_reads_no_file(tmp_path: Path):
    runner = Runner(
        Classifier(),
        str(tmp_path / "work"),
        test_dataloader=DataLoader([dict(inputs=torch.randn(3, 32, 32))]),
        test_cfg=dict(),
        test_evaluator=Evaluator([count := Count()]),
        custom_hooks=[BackboneWeightsHook("gone.pth")],
        experiment_name=str(tmp_path),
    )
    assert runner.test() == dict(seen=1) and count.results == []


class Count(BaseMetric):
    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list) -> dict:
        return dict(seen=len(results))


def test_the_average_starts_from_the_weights(tmp_path: Path, checkpoint: Path):
    hooks = [dict(type="EMAHook", momentum=0.5), BackboneWeightsHook(str(checkpoint))]
    runner = build(tmp_path, hooks)
    runner.train()
    saved = torch.load(find_latest_checkpoint(str(tmp_path / "work")), weights_only=False)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(saved["state_dict"][name], value), "the average after one step is a copy"


def test_inside_ddp(tmp_path: Path, checkpoint: Path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        seen = Seen()
        wrapped = MMDistributedDataParallel(Classifier(), broadcast_buffers=False)
        build(tmp_path, [BackboneWeightsHook(str(checkpoint)), seen], model=wrapped).train()
    finally:
        dist.destroy_process_group()
    assert torch.equal(seen.first["norm1.weight"], torch.full((16,), 2.0))


def test_messages(tmp_path: Path, checkpoint: Path):
    with pytest.raises(MTAdaptError, match=r"Hook: give it a checkpoint, or the config a field checkpoint='FILE'$"):
        build(tmp_path, [BackboneWeightsHook()]).train()
    with pytest.raises(MTAdaptError, match=r"^gone\.pth: no such file"):
        build(tmp_path, [BackboneWeightsHook("gone.pth")]).train()
    model = Classifier()
    model.backbone, model.trunk = None, model.backbone
    with pytest.raises(MTAdaptError, match=r"^BackboneWeightsHook: Classifier has no backbone; leave the hook out$"):
        build(tmp_path, [BackboneWeightsHook(str(checkpoint))], model=model).train()


def test_what_was_loaded_is_written(tmp_path: Path, checkpoint: Path):
    build(tmp_path, [BackboneWeightsHook(str(checkpoint))]).train()
    given = json.loads((tmp_path / "work/backbone_weights.json").read_text())
    assert given["source"] == "hvp.pth" and given["share"] == 1 and given["windows"] == [3, 4]
    assert given["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(given)


def test_the_settings_reach_the_loading(tmp_path: Path, checkpoint: Path):
    with pytest.raises(MTAdaptError, match="sha256 says 00000000; it is damaged or another file"):
        build(tmp_path, [BackboneWeightsHook(str(checkpoint), sha256="0" * 8)]).train()
    content = torch.load(checkpoint)["state_dict"]
    few = {name: value for name, value in content.items() if not name.startswith("backbone.stages.1")}
    torch.save({f"x.{name}": value for name, value in few.items()}, tmp_path / "few.pth")
    with pytest.raises(MTAdaptError, match=r"stages\.1\.\S+ is not in the file"):
        build(tmp_path, [BackboneWeightsHook(str(tmp_path / "few.pth"), prefix="x.backbone.")]).train()
    build(tmp_path, [BackboneWeightsHook(str(tmp_path / "few.pth"), prefix="x.backbone.", min_match=0.1)]).train()
    torch.save(dict(state_dict=content, settings=Few()), tmp_path / "code.pth")
    with pytest.raises(MTAdaptError, match=r"asks for \S+Few, which is code; .* --trust-checkpoint"):
        build(tmp_path, [BackboneWeightsHook(str(tmp_path / "code.pth"))]).train()
    build(tmp_path, [BackboneWeightsHook(str(tmp_path / "code.pth"), trust_checkpoint=True)]).train()


class Few:
    """Something that a pickle needs code for."""


def download(rank: int, folder: Path, url: str) -> None:
    """One of two processes of a machine."""
    torch.hub.set_dir(str(folder / "hub"))
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    runner = SimpleNamespace(model=Classifier(), cfg={}, _has_loaded=False, work_dir=folder / f"work{rank}")
    original = torch.hub.download_url_to_file

    def recorded(*args: object, **kwargs: object) -> None:
        (folder / f"downloaded_by_{rank}").touch()
        original(*args, **kwargs)

    torch.hub.download_url_to_file = recorded
    BackboneWeightsHook(url).before_train(runner)
    assert torch.equal(runner.model.backbone.norm1.weight, torch.full((16,), 2.0))
    dist.destroy_process_group()


@pytest.mark.slow
def test_one_process_downloads_and_writes(tmp_path: Path, checkpoint: Path):
    torch.multiprocessing.spawn(download, (tmp_path, checkpoint.as_uri()), nprocs=2)
    assert [path.name for path in tmp_path.glob("downloaded_by_*")] == ["downloaded_by_0"]
    assert (tmp_path / "work0/backbone_weights.json").is_file() and not (tmp_path / "work1").exists()


@pytest.mark.parametrize(("strategy", "loads"), [("FSDPStrategy", False), ("DDPStrategy", True)])
def test_weights_that_are_spread(checkpoint: Path, strategy: str, loads: bool):
    class Strange(FlexibleRunner):
        def __init__(self) -> None:
            self.strategy = type(strategy, (), {})()
            self.model = Classifier()
            self._has_loaded = False
            self._work_dir = str(checkpoint.parent)

    hook = BackboneWeightsHook(str(checkpoint))
    if loads:
        hook.before_train(runner := Strange())
        assert torch.equal(runner.model.backbone.norm1.weight, torch.full((16,), 2.0))
    else:
        with pytest.raises(MTAdaptError, match="FSDPStrategy spreads the weights over processes; use runner_type='Run"):
            hook.before_train(Strange())


def test_a_pre_training_starts_both_of_its_encoders(tmp_path: Path):
    """From a supervised backbone, which has no mask token."""
    source, model = pretraining.build(seed=1), pretraining.build(seed=0)
    given = {name: value for name, value in source.backbone.state_dict().items() if name != "mask_token"}
    token = model.backbone.mask_token.clone()
    torch.save({f"backbone.{name}": value for name, value in given.items()}, tmp_path / "supervised.pth")
    hook = BackboneWeightsHook(str(tmp_path / "supervised.pth"))
    hook.before_train(SimpleNamespace(model=model, cfg={}, _has_loaded=False, work_dir=tmp_path))
    for name, value in given.items():
        assert torch.equal(model.backbone.state_dict()[name], value)
        assert torch.equal(model.contrastive.key_encoder.backbone.state_dict()[name], value)
    assert torch.equal(model.backbone.mask_token, token)
