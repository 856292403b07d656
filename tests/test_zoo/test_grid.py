"""The cells of a grid, and the configs that are derived for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mtadapt.errors import MTAdaptError
from mtadapt.models.backbones.efficientnet_lite import packaged_weights
from mtadapt.zoo.benchmark import Cell, Grid, check, read_zoo
from tests.test_zoo.zoo_files import write_zoo

ZOO = """name: grid
seeds: [0, 1]
label_settings: [full, disjoint_balance]
options: {train_cfg.max_epochs: 5, a: zoo}
paradigms:
  finetune: a.py
  adapt: {config: a.py, options: {b: paradigm, a: paradigm}}
single_task:
  det: a.py
checkpoints:
  - name: hvp
    pretrain: {config: a.py, options: {stages: [{name: one}, {name: two}]}}
  - name: random
    checkpoint: null
  - name: resnet
    checkpoint: package:efficientnet-lite0
    sha256: "57934424"
    prefix: ""
    min_match: 0.5
    backbone: {type: mmdet.ResNet, depth: 18}
    options: {b: checkpoint}
"""
BACKBONE = "    backbone: {type: mmdet.ResNet, depth: 18}\n"
LAST = "    options: {b: checkpoint}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid_of(text: str, folder: Path, **configs: str) -> Grid:
    return Grid(read_zoo(write_zoo(folder, text, **configs).relative_to(folder)))


def cell_named(grid: Grid, name: str) -> Cell:
    return next(cell for cell in grid.cells() if cell.name == name)


def test_cells(folder: Path):
    names = [cell.name for cell in grid_of(ZOO, folder).cells()]
    # 2 pre-trainings; 3 checkpoints, 2 label settings, 2 paradigms and 1 task, 2 seeds.
    assert len(names) == len(set(names)) == 2 + 3 * 2 * 3 * 2
    assert names[:4] == [
        "pretrain/hvp/seed0",
        "pretrain/hvp/seed1",
        "multi_task/full/finetune/random/seed0",
        "multi_task/full/adapt/random/seed0",
    ]
    assert names[4:6] == ["single_task/full/det/random/seed0", "multi_task/disjoint_balance/finetune/random/seed0"]
    # What waits for a pre-training comes last within a seed.
    seed0 = [name for name in names[2:] if name.endswith("seed0")]
    assert names[2:20] == seed0 and all("/hvp/" in name for name in seed0[12:])


def test_derived_config(folder: Path):
    grid = grid_of(ZOO, folder)
    config = grid.config(cell_named(grid, "multi_task/disjoint_balance/adapt/resnet/seed1"))
    assert (config.a, config.b, config.train_cfg.max_epochs) == ("paradigm", "checkpoint", 5)
    # What a setting of a text or a class's default would load is switched off.
    assert config.model.backbone == dict(type="mmdet.ResNet", depth=18, pretrained=None)
    assert config.randomness == dict(seed=1)
    assert config.train_dataloader.dataset.label_setting == "disjoint_balance"
    assert config.work_dir == "work_dirs/zoo_grid/multi_task/disjoint_balance/adapt/resnet/seed1"
    assert config.default_hooks == dict(
        cost=dict(type="mtadapt.CostHook"),
        backbone_weights=dict(
            type="mtadapt.BackboneWeightsHook",
            checkpoint="package:efficientnet-lite0",
            prefix="",
            min_match=0.5,
            sha256="57934424",
        ),
    )
    # It is complete: read again it is the same.
    config.dump(folder / "dumped.py")
    assert Config.fromfile(folder / "dumped.py").to_dict() == config.to_dict()


def test_random_weights_and_pretrained_ones(folder: Path):
    grid = grid_of(ZOO, folder)
    random = grid.config(cell_named(grid, "multi_task/full/finetune/random/seed0"))
    assert random.model.backbone == dict(type="EfficientNetLite0", pretrained=None)
    assert "backbone_weights" not in random.default_hooks
    transfer = grid.config(cell_named(grid, "multi_task/full/finetune/hvp/seed1"))
    # The last stage of the pre-training of the same seed.
    assert transfer.default_hooks.backbone_weights.checkpoint == "work_dirs/zoo_grid/pretrain/hvp/seed1/two"
    pretrain = grid.config(cell_named(grid, "pretrain/hvp/seed1"))
    assert pretrain.model.backbone.pretrained == "package" and pretrain.train_cfg.max_epochs == 2
    assert pretrain.randomness.seed == 1 and "label_setting" not in pretrain.train_dataloader.dataset


def test_other_loaders_of_weights_are_removed(folder: Path):
    added = """
checkpoint = "old.pth"
model = dict(init_cfg=dict(type="Pretrained", checkpoint="x"), pretrained="y", backbone=dict(
    init_cfg=dict(type="Pretrained", checkpoint="z")))
model["type"], model["backbone"]["type"] = "MultiTaskModel", "mmdet.ResNet"
default_hooks = dict(old=dict(type="BackboneWeightsHook"))
custom_hooks = [dict(type="mtadapt.BackboneWeightsHook", checkpoint="x"), dict(type="EMAHook")]
"""
    grid = grid_of(ZOO.replace("finetune: a.py", "finetune: b.py"), folder, b=added)
    random = grid.config(cell_named(grid, "multi_task/full/finetune/random/seed0"))
    assert random.model == dict(
        type="MultiTaskModel", pretrained=None, backbone=dict(type="mmdet.ResNet", pretrained=None)
    )
    assert random.checkpoint is None and [*random.default_hooks] == ["cost"]
    assert random.custom_hooks == [dict(type="EMAHook")]
    hvp = grid.config(cell_named(grid, "multi_task/full/finetune/hvp/seed0"))
    assert hvp.checkpoint == hvp.default_hooks.backbone_weights.checkpoint


def test_recipe(folder: Path):
    """It changes with what is trained, not with where."""
    grid = grid_of(ZOO, folder)
    name = "multi_task/full/finetune/hvp/seed0"
    recipe = grid.recipe(cell_named(grid, name))
    assert recipe == Grid(grid.zoo, Path("elsewhere"), trust_checkpoint=True).recipe(cell_named(grid, name))
    # det trains the same config as finetune: 12 of the 38 are as those.
    assert len({grid.recipe(cell) for cell in grid.cells()}) == 26
    changed = [
        ZOO.replace("max_epochs: 5", "max_epochs: 6"),
        # A pre-training of its own makes another transfer.
        ZOO.replace("{name: two}", "{name: three}"),
    ]
    for text in changed:
        other = grid_of(text, folder)
        assert other.recipe(cell_named(other, name)) != recipe
    other = grid_of(ZOO.replace('sha256: "57934424"', "source: a page"), folder)
    assert other.recipe(cell_named(other, name)) == recipe
    resnet = name.replace("hvp", "resnet")
    assert other.recipe(cell_named(other, resnet)) != grid.recipe(cell_named(grid, resnet))


@pytest.mark.parametrize(
    ("old", "new", "added", "message"),
    [
        ("", "", "load_from = 'x.pth'", "zoo.yaml:6: b.py has load_from='x.pth', which would take the place of"),
        ("", "", "model = dict(type='X')", "zoo.yaml:6: b.py has no model.backbone, into which a checkpoint goes"),
        ("", "", "model = 1 / 0", "zoo.yaml:6: b.py: ZeroDivisionError: division by zero; correct the config"),
        ("", "", "model['backbone']['type'] = 'Nope'", "zoo.yaml:6: model.backbone has the unknown type 'Nope'; cor"),
        (
            LAST,
            f"    backbone: {{type: mmdet.Rest}}\n{LAST}",
            "",
            "zoo.yaml:15: model.backbone has the unknown type 'mmd",
        ),
        ("", "", "train_dataloader['dataset']['type'] = 'X'", "zoo.yaml:6: b.py trains on X, which has no label se"),
        ("", "", "val_cfg = None", "zoo.yaml:6: b.py has no val_cfg; a benchmark needs it"),
        ("{b: checkpoint}", "{model.backbone: 3}", "", "zoo.yaml:6: b.py has no model.backbone, into which"),
        (
            "{b: checkpoint}",
            "{val_dataloader.batch_size.x: 3}",
            "",
            "zoo.yaml:15: options {'val_dataloader.batch_size.x",
        ),
        ("{b: checkpoint}", "{trian_cfg.x: 3}", "", "zoo.yaml:15: options: b.py has no 'trian_cfg' for 'trian_cfg.x'"),
        ("57934424", "67934424", "", "zoo.yaml:17: {weights}: its SHA-256 is 57934424, sha256 says 67934424; it is d"),
        ("lite0\n", "lite1\n", "", "zoo.yaml:15: package:efficientnet-lite1: unknown package; there is package:eff"),
        (LAST, f"{BACKBONE}{LAST}", "", "zoo.yaml:15: package:efficientnet-lite0: the checkpoint of another backbone "),
        (
            "{config: a.py, options: {stages: [{name: one}, {name: two}]}}",
            "c.py",
            "",
            "zoo.yaml:11: the backbone of the pre-training c.py: the check",
        ),
    ],
)
def test_mistakes_before_the_first_run(old: str, new: str, added: str, message: str, folder: Path):
    text = ZOO.replace("finetune: a.py", "finetune: b.py").replace(BACKBONE, "")
    assert text.count(old) == 1 or not old
    text = text.replace(old, new) if old else text
    other = "model['backbone'] = dict(type='mmdet.ResNet', depth=18)\ntrain_dataloader = dict(dataset=dict())"
    grid = grid_of(text, folder, b=f"\n{added}\n", c=f"\n{other}\n")
    with pytest.raises(MTAdaptError) as caught:
        check(grid, grid.cells())
    message = message.replace("{weights}", str(packaged_weights()))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert not (folder / "work_dirs").exists()


def test_checkpoints_are_tried_in_their_backbones(folder: Path):
    text = ZOO.replace(BACKBONE, "")
    grid = grid_of(text, folder)
    lines = check(grid, grid.cells())
    # One backbone for all: one line.
    assert [line.split(":")[0] for line in lines] == ["resnet"] and "SHA-256 57934424" in lines[0]


def test_urls_are_left_out_of_a_dry_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    url = f"{folder.as_uri()}/absent.pth"
    grid = grid_of(ZOO.replace("package:efficientnet-lite0", url), folder)
    assert check(grid, grid.cells(), download=False) == [f"zoo.yaml:15: {url} would be downloaded"]
    with pytest.raises(MTAdaptError, match=r"^zoo\.yaml:15: file:.*absent\.pth: the download failed: "):
        check(grid, grid.cells())


@pytest.mark.parametrize(
    "given",
    [
        "dict(type='mmengine.Pretrained', checkpoint='x')",
        "[dict(type='Kaiming', layer='Conv2d'), dict(type='Pretrained', checkpoint='x')]",
    ],
)
def test_other_ways_to_load_weights(folder: Path, given: str):
    """Also in a backbone inside of another module."""
    text = ZOO.replace("{train_cfg.max_epochs: 5, a: zoo}", "{}").replace("  det: a.py", "  det: b.py")
    inner = f"dict(type='mmdet.ResNet', depth=18, init_cfg={given})"
    model = f"dict(type='MultiTaskModel', backbone=dict(type='AdaptedBackbone', backbone={inner}))"
    loader = "train_dataloader = dict(dataset=dict(type='BDD100KDataset'))"
    grid = grid_of(text, folder, b=f"default_scope = 'mtadapt'\nmodel = {model}\n{loader}\n")
    backbone = grid.config(cell_named(grid, "single_task/full/det/random/seed0")).model.backbone
    resnet = dict(type="mmdet.ResNet", depth=18, pretrained=None)
    assert backbone == dict(type="AdaptedBackbone", pretrained=None, backbone=resnet)
