"""Stages through the command that users type: what rests, what moves, what resumes, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.engine.stages import _stage_to_resume, parse_stages, stage_config, train_in_stages
from mtadapt.errors import MTAdaptError
from tests.command_line import ROOT, last_line, run

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_baseline.py"
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(data_root="{data}"))
val_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(data_root="{data}"))
test_dataloader = val_dataloader
model = dict(backbone=dict(pretrained=None, norm_eval=False))
train_cfg = dict(max_epochs=4, val_interval=9)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1), visualization=dict(num_images=1))
stages = [
    dict(name="adapt", freeze=["backbone"], length=2, param_scheduler=[]),
    dict(name="finetune", param_scheduler=[], optim_wrapper=dict(optimizer=dict(lr=0.0005))),
]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    write_bdd100k(folder / "data", train=4, val=2, size=(160, 96), seed=1, workers=1)
    (folder / "config.py").write_text(CONFIG.format(root=ROOT, data=folder / "data"))
    run(ROOT / "tools/train.py", "config.py", cwd=folder)
    return folder


def load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)


def differences(first: dict, second: dict) -> set[str]:
    """Names of the parts in which two checkpoints differ in any bit."""
    first, second = first["state_dict"], second["state_dict"]
    return {name.split(".")[0] for name, value in first.items() if not torch.equal(value, second[name])}


def test_the_frozen_backbone_rests_and_then_trains(folder: Path):
    adapt, finetune = folder / "work_dirs/config/adapt", folder / "work_dirs/config/finetune"
    assert sorted(path.name for path in finetune.glob("*.pth")) == ["epoch_1.pth", "epoch_2.pth"]
    one, two = load(adapt / "epoch_1.pth"), load(adapt / "epoch_2.pth")
    assert differences(one, two) == {"neck", "tasks"}, "batch norm's buffers count as well"
    assert differences(two, load(finetune / "epoch_1.pth")) == {"backbone", "neck", "tasks"}
    sizes = {tuple(value.shape) for name, value in two["state_dict"].items() if name.startswith("backbone")}
    in_optimizer = sum(len(group["params"]) for group in two["optimizer"]["param_groups"])
    everything = sum(len(group["params"]) for group in load(finetune / "epoch_2.pth")["optimizer"]["param_groups"])
    names = [name for name in two["state_dict"] if not name.startswith(("backbone", "data_preprocessor"))]
    assert sizes and in_optimizer == len(names) < everything
    assert two["optimizer"]["param_groups"][0]["lr"] == 0.001
    assert load(finetune / "epoch_2.pth")["optimizer"]["param_groups"][0]["lr"] == 0.0005


@pytest.mark.parametrize(
    ("lost", "epochs", "untouched"),
    [
        (["finetune/epoch_2.pth"], [2], "adapt/epoch_2.pth"),
        (["finetune", "adapt/epoch_2.pth"], [2, 1, 2], "adapt/epoch_1.pth"),
    ],
)
def test_resume_goes_on_in_the_right_stage(
    folder: Path, tmp_path: Path, lost: list[str], epochs: list[int], untouched: str
):
    copy = tmp_path / "work"
    shutil.copytree(folder / "work_dirs/config", copy)
    for name in lost:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (path.parent / "finished").unlink(missing_ok=True)
    for path in copy.rglob("last_checkpoint"):
        latest = sorted(path.parent.glob("epoch_*.pth"))[-1]
        path.write_text(str(latest))
    before = (copy / untouched).stat().st_mtime_ns
    printed = run(ROOT / "tools/train.py", "config.py", "--work-dir", copy, "--resume", cwd=folder)
    trained = [
        line.split("Epoch(train)")[1].split("]")[0].strip(" [") for line in printed.splitlines() if "[1/2]" in line
    ]
    assert [int(epoch) for epoch in trained if epoch] == epochs
    assert (copy / untouched).stat().st_mtime_ns == before
    assert (copy / "finetune/epoch_2.pth").is_file()


def test_resume_from_a_named_checkpoint_goes_on_in_the_stage_of_its_folder():
    stages = config(resume=True, load_from="w/finetune/epoch_3.pth")
    assert _stage_to_resume(stages, [Path("w/adapt"), Path("w/finetune")]) == 1


def test_resume_from_elsewhere():
    with pytest.raises(
        MTAdaptError, match=r"--resume other/epoch_1.pth: its folder 'other' is no stage .*adapt, finetune"
    ):
        train_in_stages(config(resume=True, load_from="other/epoch_1.pth"))


def test_two_processes_and_the_weights_that_a_stage_takes_over(folder: Path, tmp_path: Path):
    options = ("--cfg-options", "stages.1.optim_wrapper.optimizer.lr=0.0")
    run("bash", ROOT / "tools/dist_train.sh", "config.py", "2", "--work-dir", tmp_path, *options, cwd=folder)
    one, two = (load(tmp_path / f"adapt/epoch_{epoch}.pth") for epoch in (1, 2))
    assert differences(one, two) == {"neck", "tasks"}
    last = load(tmp_path / "finetune/epoch_2.pth")["state_dict"]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    moved = [name for name, value in last.items() if not torch.equal(value, two["state_dict"][name])]
    assert moved and all(name.startswith("backbone") and name.endswith(buffers) for name in moved), moved


def test_a_finished_run_is_left_alone(folder: Path):
    whole = Config.fromfile(folder / "config.py")
    whole.work_dir, whole.launcher, whole.resume = str(folder / "work_dirs/config"), "none", True
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")}
    train_in_stages(whole)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")}


def test_the_config_in_the_folder_of_a_stage_is_an_ordinary_one(folder: Path):
    stage = Config.fromfile(folder / "work_dirs/config/adapt/config.py")
    assert "stages" not in stage and stage.stage == dict(name="adapt", freeze=["backbone"], freeze_except=[])
    assert stage.train_cfg.max_epochs == 2
    assert len(Config.fromfile(folder / "work_dirs/config/config.py").stages) == 2


def test_a_mistake_in_the_last_stage_is_told_before_the_first_trains(folder: Path):
    options = ("--cfg-options", "stages.1.freeze=['backbnoe']")
    printed = run(ROOT / "tools/train.py", "config.py", *options, cwd=folder, code=2)
    assert "stage 'finetune': freeze: 'backbnoe' is no module of MultiTaskModel" in last_line(printed)
    assert "Epoch(train)" not in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(freeze=["backbone", "neck", "tasks"]), r"freeze=\['backbone', 'neck', 'tasks'\] leaves nothing to train"),
        (dict(optim_wrapper=dict(optimizer=dict(type="Adamm"))), "optim_wrapper or param_scheduler cannot be built"),
        (dict(param_scheduler=[dict(type="LinearLR", star_factor=1)]), "optim_wrapper or param_scheduler cannot be"),
    ],
)
def test_mistakes_of_a_later_stage(folder: Path, tmp_path: Path, change: dict, message: str):
    whole = Config.fromfile(folder / "config.py")
    whole.work_dir, whole.launcher = str(tmp_path), "none"
    whole.stages[1].update(change)
    with pytest.raises(MTAdaptError, match=f"stage 'finetune': {message}"):
        train_in_stages(whole)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_part_that_rests_first_may_train_alone_later(folder: Path, tmp_path: Path):
    """The check of a later stage does not count what the first one freezes as frozen."""
    whole = Config.fromfile(folder / "config.py")
    whole.work_dir, whole.launcher, whole.train_cfg.max_epochs = str(tmp_path), "none", 2
    whole.stages[0].length = 1
    whole.stages[1].update(freeze=["neck", "tasks"])
    train_in_stages(whole)
    one, two = load(tmp_path / "adapt/epoch_1.pth"), load(tmp_path / "finetune/epoch_1.pth")
    assert differences(one, two) == {"backbone"}


def test_what_freeze_except_names_trains_inside_a_frozen_part(folder: Path, tmp_path: Path):
    start = folder / "work_dirs/config/adapt/epoch_2.pth"
    whole = Config.fromfile(folder / "config.py")
    # Nothing is there to resume yet, and the weights to start from are not forgotten.
    whole.work_dir, whole.launcher, whole.train_cfg.max_epochs, whole.resume = str(tmp_path), "none", 1, True
    kept = dict(freeze=["backbone", "neck", "tasks"], freeze_except=["neck.fpn_convs.[13]"])
    whole.stages = [dict(name="one", **kept, param_scheduler=[])]
    train_in_stages(whole, str(start))
    before, after = load(start)["state_dict"], load(tmp_path / "one/epoch_1.pth")
    moved = {name for name, value in after["state_dict"].items() if not torch.equal(value, before[name])}
    assert moved == {f"neck.fpn_convs.{number}.conv.{kind}" for number in (1, 3) for kind in ("weight", "bias")}
    assert sum(len(group["params"]) for group in after["optimizer"]["param_groups"]) == 4


def config(**changes: object) -> Config:
    stages = [
        dict(name="adapt", freeze=["backbone"], length=2, param_scheduler=[]),
        dict(name="finetune", param_scheduler=[]),
    ]
    whole = dict(train_cfg=dict(max_epochs=10), stages=stages, optim_wrapper=dict(optimizer=dict(lr=1.0)), work_dir="w")
    return Config({**whole, **changes})


def test_lengths_come_out_of_the_budget():
    assert [stage["length"] for stage in parse_stages(config())] == [2, 8]
    assert [stage["length"] for stage in parse_stages(config(train_cfg=dict(max_iters=100)))] == [2, 98]


def test_a_stage_is_an_ordinary_config():
    whole = config(randomness=dict(seed=5), param_scheduler=[dict(type="LinearLR")])
    stages = parse_stages(whole)
    stages[1]["optim_wrapper"] = dict(optimizer=dict(lr=0.1))
    first, second = stage_config(whole, stages, 0), stage_config(whole, stages, 1)
    assert (first.train_cfg.max_epochs, second.train_cfg.max_epochs) == (2, 8)
    assert (first.work_dir, second.work_dir) == ("w/adapt", "w/finetune")
    assert (first.randomness.seed, second.randomness.seed) == (5, 7)
    assert (first.optim_wrapper.optimizer.lr, second.optim_wrapper.optimizer.lr) == (1.0, 0.1)
    assert first.param_scheduler == [] and whole.train_cfg.max_epochs == 10


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"stages=\[\]; write a list of dictionaries"),
        (["adapt"], r"stages\[0\]='adapt'; write a dictionary with a name"),
        ([dict(name="a", freeze=[1], param_scheduler=[])], r"freeze=\[1\]; write a list"),
        ([dict(name="a", length=True, param_scheduler=[])], "length=True; write a whole number"),
        ([dict(freeze=[])], r"stages\[0\]: name=None"),
        (
            [dict(name="a", epochs=3, param_scheduler=[])],
            r"stage 'a': unknown \['epochs'\]; known: name, freeze, freeze_except, length",
        ),
        ([dict(name="a")], "stage 'a' has no param_scheduler"),
        ([dict(name="a", freeze="backbone", param_scheduler=[])], "freeze='backbone'; write a list"),
        ([dict(name="a", freeze_except="neck", param_scheduler=[])], "freeze_except='neck'; write a list"),
        ([dict(name="a", length=0.2, param_scheduler=[])], "length=0.2; write a whole number of epochs"),
        ([dict(name="a", param_scheduler=[]), dict(name="a", param_scheduler=[])], "give each stage its own"),
        (
            [dict(name="a", param_scheduler=[]), dict(name="b", param_scheduler=[])],
            "a the rest, b the rest; the lengths",
        ),
        ([dict(name="a", length=9, param_scheduler=[])], r"a 9; the lengths must add up to train_cfg.max_epochs=10"),
    ],
)
def test_mistakes_in_stages(stages: list[dict], message: str):
    with pytest.raises(MTAdaptError, match=message):
        parse_stages(config(stages=stages))


def test_stages_need_a_budget():
    with pytest.raises(MTAdaptError, match=r"train_cfg.max_epochs or train_cfg.max_iters"):
        parse_stages(config(train_cfg=dict()))


def test_a_stage_must_leave_a_checkpoint():
    with pytest.raises(MTAdaptError, match="set save_last=True"):
        parse_stages(config(default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_last=False))))
