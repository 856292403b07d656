"""One task of a multi-task checkpoint as a model of mmdet or mmseg, on images in BDD100K's layout."""

from __future__ import annotations

import copy
import json
import random
import re
import sys
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.engine.measure import build_model
from mtadapt.engine.stock_model import export_task
from mtadapt.registry import MODELS
from tests.command_line import ROOT, last_line, run

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_baseline.py"
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}", label_setting={setting})
)
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
test_dataloader = val_dataloader
model = dict(backbone=dict(pretrained=None), {model})
"""
FPN = 'dict(type="mmdet.FPN", in_channels=[24, 40, 112, 320], out_channels=96, num_outs=5)'
ADAPTER = 'dict(type="MultiScaleAdapter", in_channels=96)'
LV = """dict(
    type="LVAdapter",
    in_channels=96,
    prompts=dict(det={det}, sem_seg={sem_seg}),
    text_encoder=dict(type="PrecomputedTextEmbeddings"),
    gate=1.0,
)""".format(**{task: list(METAINFO["tasks"][task]["classes"]) for task in ("det", "sem_seg")})
MODELS_OF = dict(
    plain="",
    adapter=f"adapter={ADAPTER}",
    lv=f"neck=[{FPN}, {ADAPTER}], adapter={LV}",
)
#: mmdet's tools/test.py imports mmcv's operators before it reads the config, and with mmcv-lite they are the package's.
AFTER_IMPORT = "import mtadapt, runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
TASKS = dict(det="mmdet", sem_seg="mmseg", drivable="mmseg")


class Trained:
    """A multi-task config and the checkpoint of random weights, which detects something."""

    def __init__(self, folder: Path, kind: str, data: Path, setting: str = "full") -> None:
        self.config = folder / f"{kind}.py"
        model = MODELS_OF[kind]
        self.config.write_text(CONFIG.format(root=ROOT, data=data, model=model, setting=repr(setting)))
        torch.manual_seed(1)
        with DefaultScope.overwrite_default_scope("mtadapt"):
            network = MODELS.build(Config.fromfile(self.config).model)
        for name, parameter in network.named_parameters():
            # Heads begin with weights that hardly tell one box or pixel from another, adapters as identities.
            if name.startswith(("tasks.", "adapter.", "neck.1.")) and parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.1)
        self.state = {key: value.clone() for key, value in network.state_dict().items()}
        self.checkpoint = folder / f"{kind}.pth"
        torch.save(dict(state_dict=self.state, meta=dict(dataset_meta=METAINFO)), self.checkpoint)

    def read(self) -> Config:
        config = Config.fromfile(self.config)
        config.work_dir = str(self.config.parent)
        return config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "data"
    write_bdd100k(folder, train=4, val=3, size=(160, 96), seed=1, workers=1)
    return folder


@pytest.fixture(scope="module", params=MODELS_OF)
def trained(request: pytest.FixtureRequest, data: Path) -> Trained:
    return Trained(data.parent, request.param, data)


def first_batch(loader: dict, scope: str) -> dict:
    """The first batch of a loader, with the same random numbers each time."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return next(iter(Runner.build_dataloader(copy.deepcopy(loader), seed=0)))


def losses_of(model: nn.Module, batch: dict) -> dict[str, Tensor]:
    model.train()
    torch.manual_seed(3)
    given = model(**model.data_preprocessor(batch, True), mode="loss")
    return {key: sum(value) if isinstance(value, list) else value for key, value in given.items() if "loss" in key}


def only_task(batch: dict, task: str) -> dict:
    for sample in batch["data_samples"]:
        sample.set_metainfo(dict(labelled_tasks=(task,)))
    return batch


@pytest.mark.parametrize("task", TASKS)
def test_losses_and_predictions_are_those_of_the_task(trained: Trained, task: str):
    config = trained.read()
    stock, weights = export_task(config, trained.state, task)
    model, single = build_model(config, trained.state), build_model(stock, weights)
    assert stock.default_scope == TASKS[task] == type(single).__module__.split(".")[0]

    ours, theirs = (first_batch(each.val_dataloader, each.default_scope) for each in (config, stock))
    assert torch.equal(ours["inputs"][0], theirs["inputs"][0])
    with torch.no_grad():
        one, two = model.test_step(ours)[0].task(task), single.test_step(theirs)[0]
    if task == "det":
        assert len(two.pred_instances) and len(two.gt_instances)
        assert all(torch.equal(value, two.pred_instances[key]) for key, value in one.pred_instances.items())
    else:
        assert len(two.pred_sem_seg.data.unique()) > 1
        assert torch.equal(one.pred_sem_seg.data, two.pred_sem_seg.data)

    ours, theirs = (first_batch(each.train_dataloader, each.default_scope) for each in (config, stock))
    ours, theirs = losses_of(model, only_task(ours, task)), losses_of(single, theirs)
    ours = {key.removeprefix(f"{task}."): value for key, value in ours.items() if key.startswith(f"{task}.")}
    # The alignment losses of the adapter are not of the stock model.
    aligned = ours.pop("loss_align", None)
    assert (aligned is not None) == ("adapter" in config.model and task in config.model.adapter.get("prompts", ()))
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert all(value > 0 for value in theirs.values())


def test_prompts_of_all_tasks_stay(data: Path):
    """What drivable reads attends to the classes of det and sem_seg."""
    lv = Trained(data.parent, "lv", data)
    stock, weights = export_task(lv.read(), lv.state, "drivable")
    assert [*stock.model.neck[-1].prompts] == ["det", "sem_seg"]
    image = torch.randint(0, 255, (1, 3, 64, 64)).float()
    with torch.no_grad():
        before = build_model(stock, weights).extract_feat(image)
        weights["neck.2.gates.0"][0] = 0
        after = build_model(stock, weights).extract_feat(image)
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


def test_the_weights_that_a_training_began_with_are_not_asked_for(data: Path):
    plain = Trained(data.parent, "plain", data)
    config = plain.read()
    config.model.backbone.update(pretrained="package", init_cfg=dict(type="Pretrained", checkpoint="nowhere.pth"))
    stock, _ = export_task(config, plain.state, "det")
    assert stock.model.backbone == dict(type="EfficientNetLite0", pretrained=None, _scope_="mtadapt")


def test_schedule_of_the_last_stage_and_images_of_the_label_setting(data: Path):
    trained = Trained(data.parent, "plain", data, "disjoint_balance")
    config = trained.read()
    schedule = [dict(type="ConstantLR", factor=0.5, by_epoch=False, begin=0, end=2)]
    config.stages = [
        dict(name="adapt", freeze=["backbone"], length=3, param_scheduler=[]),
        dict(name="finetune", param_scheduler=schedule, optim_wrapper=dict(optimizer=dict(lr=0.5))),
    ]
    images = []
    for task in TASKS:
        stock, _ = export_task(config, trained.state, task)
        assert stock.train_cfg.max_epochs == 5 and stock.param_scheduler == schedule and "stages" not in stock
        assert stock.optim_wrapper.optimizer == dict(type="AdamW", lr=0.5, weight_decay=0.05)
        with DefaultScope.overwrite_default_scope(stock.default_scope):
            dataset = Runner.build_dataloader(stock.train_dataloader).dataset
        assert dataset.metainfo["classes"] == METAINFO["tasks"][task]["classes"]
        images += [dataset.get_data_info(number)["img_path"] for number in range(len(dataset))]
    assert len(images) == len(set(images)) == 3


def label_with(data: Path, trained: Trained) -> None:
    """Make boxes that the model predicts the labels of val, so that there is something to find."""
    config = trained.read()
    model = build_model(config, trained.state)
    frames = []
    with DefaultScope.overwrite_default_scope("mtadapt"), torch.no_grad():
        for batch in Runner.build_dataloader(config.val_dataloader):
            found = model.test_step(batch)[0].det
            boxes, names = found.pred_instances.bboxes, METAINFO["tasks"]["det"]["classes"]
            large = ((boxes[:, 2:] - boxes[:, :2]).amin(1) > 8).nonzero()[:3, 0].tolist()
            labels = []
            for number in large:
                x1, y1, x2, y2 = boxes[number].tolist()
                category = names[int(found.pred_instances.labels[number])]
                corners = dict(x1=x1, y1=y1, x2=x2 - 1, y2=y2 - 1)
                labels.append(dict(id=str(number), category=category, box2d=corners, attributes={}))
            frames.append(dict(name=Path(found.img_path).name, attributes={}, labels=labels))
    (data / "labels/det_20/det_val.json").write_text(json.dumps(frames))


def metrics(printed: str, task: str) -> dict[str, str]:
    line = [line for line in printed.splitlines() if "Epoch(test)" in line and f"{task}/" in line][-1]
    return dict(re.findall(rf"({task}/\w+): (\S+)", line))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_tools_of_the_libraries_give_the_same_numbers(tmp_path: Path, task: str):
    write_bdd100k(tmp_path / "data", train=1, val=3, size=(160, 96), seed=1, workers=1)
    trained = Trained(tmp_path, "lv", tmp_path / "data")
    if task == "det":
        label_with(tmp_path / "data", trained)
    out = tmp_path / "out"
    tool = ROOT / "tools/model_converters/export_task.py"
    printed = run(tool, trained.config, trained.checkpoint, "--task", task, "--out", out, cwd=tmp_path)
    kind = "FasterRCNN" if task == "det" else "EncoderDecoder"
    assert f"model: {TASKS[task]}'s {kind}\ndata: train, val, test\ncheck: " in printed
    assert "are equal to the bit" in printed
    ours = run(ROOT / "tools/test.py", trained.config, trained.checkpoint, cwd=tmp_path)
    library = dict(mmdet=mmdet, mmseg=mmseg)[TASKS[task]]
    script = Path(library.__file__).parent / ".mim/tools/test.py"
    theirs = run(sys.executable, "-c", AFTER_IMPORT, script, out / "config.py", out / "model.pth", cwd=tmp_path)
    numbers = metrics(theirs, task)
    assert numbers == metrics(ours, task)
    main = dict(det="det/bbox_mAP", sem_seg="sem_seg/mIoU", drivable="drivable/strict_mIoU")[task]
    assert 0 < float(numbers[main]) < 100


@pytest.mark.slow
def test_mmdet_detects_with_it_by_name(tmp_path: Path, data: Path):
    """Its inferencer takes classes from the weights and puts an image in the place of the loading step."""
    from mmdet.apis import DetInferencer

    trained = Trained(tmp_path, "plain", data)
    tool = ROOT / "tools/model_converters/export_task.py"
    options = ("--task", "det", "--out", tmp_path / "out", "--size", "160x96")
    run(tool, trained.config, trained.checkpoint, *options, cwd=tmp_path)
    config = str(tmp_path / "out/config.py")
    inferencer = DetInferencer(config, str(tmp_path / "out/model.pth"), device="cpu", palette="random")
    assert inferencer.model.dataset_meta["classes"] == METAINFO["tasks"]["det"]["classes"]
    image = next((data / "images/100k/val").glob("*.jpg"))
    (found,) = inferencer(str(image), no_save_vis=True, return_datasamples=True)["predictions"]
    model, multi = build_model(trained.read(), trained.state), trained.read()
    with DefaultScope.overwrite_default_scope("mtadapt"), torch.no_grad():
        batches = Runner.build_dataloader(multi.val_dataloader)
        batch = next(batch for batch in batches if batch["data_samples"][0].img_path == str(image))
        expected = model.test_step(batch)[0].det.pred_instances
    assert torch.equal(found.pred_instances.bboxes, expected.bboxes) and len(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "{config} {checkpoint} --task lane --out {out}",
            "--task lane: no task of .*plain.py; it has det, sem_seg, dr",
        ),
        ("{config} {config} --task det --out {out}", "plain.py: no checkpoint that can be read safely"),
        ("{stock} {checkpoint} --task det --out {out}", "single_det.py: its model is no MultiTaskModel"),
        ("{config} {checkpoint} --task det --out {folder}", "exists and is not empty"),
    ],
)
def test_mistakes(tmp_path: Path, data: Path, words: str, message: str):
    trained = Trained(tmp_path, "plain", data)
    paths = dict(config=trained.config, checkpoint=trained.checkpoint, out=tmp_path / "out", folder=tmp_path)
    given = words.format(**paths, stock=ROOT / "configs/zoo/camvid/single_det.py").split()
    printed = last_line(run(ROOT / "tools/model_converters/export_task.py", *given, cwd=tmp_path, code=2))
    assert printed.startswith("error: ") and re.search(message, printed), printed
    assert not (tmp_path / "out").exists()
