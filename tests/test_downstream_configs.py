"""The configs after the pre-training: the recipes of the libraries, and a step on the public layouts in every tool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mmdet
import mmpretrain
import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models.selfsup.simmim import SimMIMSwinTransformer

from mtadapt.zoo import load_backbone
from tests.command_line import ROOT, last_line, run
from tests.public_layouts import write_ade20k, write_coco, write_imagenet

CONFIGS = {path.stem.split("_")[0]: path for path in sorted((ROOT / "configs/downstream").glob("*.py"))}
LIBRARIES = dict(in1k=mmpretrain, coco=mmdet, ade20k=mmseg)
RECIPES = dict(
    in1k="simmim/benchmarks/swin-base-w7_8xb256-coslr-100e_in1k.py",
    coco="swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py",
    ade20k="swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
)
#: What counts for the numbers of a training; the rest is logging.
COMPARED = ("data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator")
COMPARED += ("model", "optim_wrapper", "param_scheduler", "train_cfg", "log_processor", "auto_scale_lr")


def stock(name: str) -> Config:
    return Config.fromfile(Path(LIBRARIES[name].__file__).parent / ".mim/configs" / RECIPES[name])


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every setting by its path; what is None, or an empty dictionary, is as if it were not there."""
    if isinstance(value, dict):
        parts = [(f"{name}.{key}" if name else key, inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict | list | tuple) for inner in value):
        parts = [(f"{name}.{number}", inner) for number, inner in enumerate(value)]
    else:
        if isinstance(value, str):
            value = value.rstrip("/")
        return {} if value is None else {name: list(value) if isinstance(value, tuple) else value}
    return {path: inner for key, part in parts for path, inner in flat(part, key).items()}


# Ours on the left of each pair, the library's on the right; None where it is not set.
DIFFERENCES: dict[str, dict[str, tuple]] = dict(
    in1k={
        "model.backbone.window_size": (7, None),
        "model.backbone.stage_cfgs.block_cfgs.window_size": (None, 7),
        "optim_wrapper.type": ("OptimWrapper", "AmpOptimWrapper"),  # --amp
        "auto_scale_lr.enable": (False, None),
        "auto_scale_lr.base_batch_size": (2048, None),
        "train_cfg.val_interval": (1, None),
    },
    coco={
        "model.backbone.embed_dims": (128, 96),
        "model.backbone.depths": ([2, 2, 18, 2], [2, 2, 6, 2]),
        "model.backbone.num_heads": ([4, 8, 16, 32], [3, 6, 12, 24]),
        "model.neck.in_channels": ([128, 256, 512, 1024], [96, 192, 384, 768]),
    },
    ade20k={"auto_scale_lr.enable": (False, None), "auto_scale_lr.base_batch_size": (16, None)},
)
#: Settings of the library that are the defaults of its classes, or where its checkpoint is.
DEFAULTS = re.compile(
    r"model\.backbone\.(init_cfg\..*|patch_size|strides|drop_rate|attn_drop_rate|act_cfg\..*|norm_cfg\..*|with_cp|"
    r"convert_weights)|model\.test_cfg\.mode|val_evaluator\.format_only|optim_wrapper\.clip_grad|"
    r".*transforms\.\d\.\d\.type"
)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recipes_of_the_libraries_are_kept(name: str):
    """Value by value, with every difference listed."""
    configs = Config.fromfile(CONFIGS[name]), stock(name)
    ours, theirs = ({key: config.get(key) for key in COMPARED} for config in configs)
    if "data_preprocessor" in theirs["model"]:
        del theirs["data_preprocessor"]  # the same, for the model to take it from
    ours, theirs = flat(ours), flat(theirs)
    different = {
        path: (ours.get(path), theirs.get(path))
        for path in {*ours, *theirs}
        if ours.get(path) != theirs.get(path) and not (path not in ours and DEFAULTS.fullmatch(path))
    }
    assert different == DIFFERENCES[name]


@pytest.fixture(scope="module")
def swin_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of a pre-training of Swin-B with window 6 at 192 px, one number for every entry."""
    names = SimMIMSwinTransformer("base", img_size=192, stage_cfgs=dict(block_cfgs=dict(window_size=6))).state_dict()
    state = {f"backbone.{key}": torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in names.items()}
    path = tmp_path_factory.mktemp("swin_b") / "hvp.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_the_full_backbone_takes_the_pre_training(name: str, swin_b: Path):
    config = Config.fromfile(CONFIGS[name])
    with DefaultScope.overwrite_default_scope(config.default_scope):
        loaded = load_backbone(swin_b, MODELS.build(config.model.backbone))
    assert (loaded.windows, len(loaded.reshaped), loaded.unexpected) == ((6, 7), 24, ("mask_token",))
    assert len(loaded.new) == (0 if name == "in1k" else 6)


#: A small Swin Transformer; mmpretrain's config names an architecture, which an option can replace by a name alone.
DIMS = dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
ARCHITECTURES: dict[str, dict | str] = dict(in1k="tiny", coco=DIMS, ade20k=DIMS)
WRITE = dict(in1k=write_imagenet, coco=write_coco, ade20k=write_ade20k)
DATA = dict(in1k="data/imagenet", coco="data/coco", ade20k="data/ade/ADEChallengeData2016")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each config its dataset where it looks for it, and a small pre-training where it looks for that."""
    folders = {}
    for name in CONFIGS:
        folder = folders[name] = tmp_path_factory.mktemp(name)
        WRITE[name](folder / DATA[name])
        torch.manual_seed(0)
        stages = dict(block_cfgs=dict(window_size=6))
        backbone = SimMIMSwinTransformer(ARCHITECTURES[name], img_size=192, stage_cfgs=stages)
        state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        state |= {"contrastive.queue": torch.zeros(8, 4), "neck.decoder.0.weight": torch.zeros(4)}
        checkpoint = folder / "work_dirs/hvp_swin-b_8xb128-192px/iter_10.pth"
        checkpoint.parent.mkdir(parents=True)
        torch.save(dict(meta=dict(iter=10), state_dict=state), checkpoint)
    return folders


BACKBONE = [f"model.backbone.{key}={value}".replace(" ", "") for key, value in DIMS.items()]
CHANNELS = "in_channels=[24,48,96,192]"
SMALL = dict(
    in1k=["model.backbone.arch=tiny", "model.head.in_channels=768", "train_dataloader.batch_size=2"],
    # One step leaves no score above the threshold, and the metric needs boxes.
    coco=[*BACKBONE, f"model.neck.{CHANNELS}", "model.test_cfg.rcnn.score_thr=0.001"],
    ade20k=[
        *BACKBONE,
        f"model.decode_head.{CHANNELS}",
        "model.decode_head.channels=32",
        "model.auxiliary_head.in_channels=96",
        "train_cfg.max_iters=1",
        "train_cfg.val_interval=1",
    ],
)
ONE_STEP = [
    *(
        f"{split}_dataloader.{setting}"
        for split in ("train", "val")
        for setting in ("num_workers=0", "persistent_workers=False")
    ),
    "default_hooks.logger.interval=1",
]
METRICS = dict(in1k="accuracy/top1", coco="coco/segm_mAP", ade20k="mIoU")


def tool(name: str, own: bool) -> Path:
    return ROOT / "tools/train.py" if own else Path(LIBRARIES[name].__file__).parent / ".mim/tools/train.py"


def options(name: str) -> list[str]:
    epochs = [] if name == "ade20k" else ["train_cfg.max_epochs=1"]
    return [*ONE_STEP, *SMALL[name], *epochs]


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["mtadapt", "library"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_and_a_validation(folders: dict[str, Path], name: str, own: bool):
    out, folder = f"out_{own}", folders[name]
    command = [tool(name, own), CONFIGS[name], "--work-dir", out, "--cfg-options", *options(name)]
    printed = run(*command, cwd=folder, timeout=600)
    line = next(line for line in printed.splitlines() if " loaded, " in line)
    state = torch.load(folder / "work_dirs/hvp_swin-b_8xb128-192px/iter_10.pth")["state_dict"]
    entries = [key for key in state if key.startswith("backbone.") and not key.endswith(("index", "mask_token"))]
    total, tables = len(entries) + (0 if name == "in1k" else 6), sum(key.endswith("table") for key in entries)
    assert f"iter_10.pth: {len(entries)} of {total} entries of SwinTransformer loaded, {tables} (" in line
    assert "from window 6 to 7" in line and "not used: 1 (mask_token)" in line
    assert "(train)" in printed and METRICS[name] in printed
    assert [*(folder / out).glob("*_1.pth")]


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["mtadapt", "library"])
def test_one_option_names_the_checkpoint(folders: dict[str, Path], own: bool):
    folder = folders["in1k"]
    command = [tool("in1k", own), CONFIGS["in1k"], "--work-dir", f"option_{own}", "--cfg-options", *options("in1k")]
    printed = run(*command, "checkpoint=gone.pth", cwd=folder, code=2 if own else 1)
    assert "gone.pth: no such file; give a checkpoint" in last_line(printed)
    assert "checkpoint=None: the backbone starts as the config" in run(*command, "checkpoint=None", cwd=folder)


@pytest.mark.slow
def test_a_checkpoint_of_another_backbone(folders: dict[str, Path]):
    small = [option for option in options("coco") if "depths" not in option]
    printed = run(tool("coco", True), CONFIGS["coco"], "--cfg-options", *small, cwd=folders["coco"], code=2)
    assert re.fullmatch(
        r"error: work_dirs/hvp_swin-b_8xb128-192px/iter_10\.pth: the checkpoint of another backbone than this "
        r"SwinTransformer: stages\.0\.blocks\.1\.\S+ is not in the file \(.* of the parameters match, "
        r"98\.00 % must\); give the backbone the type, .*",
        last_line(printed),
    )
