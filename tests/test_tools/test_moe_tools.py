"""Prune, adapt, extend and combine a trained model from the command line, and train what they prepare."""

from __future__ import annotations

import copy
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from mtadapt.engine import build_runner, load_config, train_in_stages
from mtadapt.engine.checkpoints import load_weights
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample
from tests.command_line import ROOT, last_line, run
from tests.moe_models import run_config, write_data

Tool = Callable[..., str]


def train(path: Path) -> None:
    """What tools/train.py does."""
    config = load_config(str(path), work_dir=None if path.stem == "config" else str(path.with_suffix("")))
    config.launcher = "none"
    train_in_stages(config) if config.get("stages") else build_runner(config).train()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, trained for six steps, and a config with three."""
    folder = tmp_path_factory.mktemp("moe")
    data = write_data(folder / "data")
    run_config(data).dump(str(folder / "three.py"))
    run_config(data, ("cls", "sem_seg"), mutual_information=dict(weight=0.1)).dump(str(folder / "two.py"))
    train(folder / "two.py")
    return folder


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Tool:
    """Run a tool of tools/moe and return what it printed."""

    def call(name: str, *words: str | Path, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [name, *(str(word) for word in words)])
        capsys.readouterr()
        status: object = 0
        try:
            runpy.run_path(str(ROOT / f"tools/moe/{name}.py"), run_name="__main__")
        except SystemExit as ended:
            status = ended.code
        out, err = capsys.readouterr()
        assert (status or 0) == code, out + err
        return out + err

    return call


def base(folder: Path) -> tuple[Path, Path]:
    return folder / "two.py", folder / "two/iter_6.pth"


def moved(one: Path, two: Path) -> set[str]:
    """Where two checkpoints differ, without numbers of layers."""
    first, second = load_weights(one), load_weights(two)
    assert first.keys() == second.keys()
    names = [name for name in first if not torch.equal(first[name], second[name])]
    return {
        re.sub(r"^backbone\..*?\.(banks\.\d|routers\.\w+|usage)\..*|^(tasks\.\w+)\..*", r"\1\2", name) for name in names
    }


def predict(config: Path, checkpoint: Path, task: str) -> dict[str, Tensor]:
    """Fields of the predictions of a task for two images."""
    model = MODELS.build(copy.deepcopy(Config.fromfile(config).model))
    model.load_state_dict(load_weights(checkpoint), strict=True)
    images = [
        torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        for n in (0, 1)
    ]
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), source="s", labelled_tasks=(task,))
    samples = [MultiTaskDataSample(metainfo=dict(meta)) for _ in images]
    given = [sample.task(task) for sample in model.eval().test_step(dict(inputs=images, data_samples=samples))]
    if task == "sem_seg":
        return dict(maps=torch.stack([sample.pred_sem_seg.data for sample in given]))
    return dict(scores=torch.stack([sample.pred_score for sample in given]))


def test_extend_and_train(folder: Path, tool: Tool, tmp_path: Path):
    out = tmp_path / "extended"
    words = ["--from", folder / "three.py", "--task", "det", "--experts", 2, "--out", out, "--size", "96x72"]
    printed = tool("extend", *base(folder), *words)
    state = load_weights(out / "model.pth")
    expected = sum(
        value.numel() for name, value in state.items() if re.search(r"banks\.1|routers\.det|^tasks\.det", name)
    )
    assert f"to train: {expected:,} of " in printed
    train(out / "config.py")
    after = out / "training/extend/iter_6.pth"
    assert moved(out / "model.pth", after) == {"banks.1", "routers.det", "usage", "tasks.det"}
    before, now = load_weights(base(folder)[1]), load_weights(after)
    for name, value in before.items():
        rows = (
            now[name][:2, :5]
            if name.endswith(("usage.load", "usage.probability"))
            else now[name][: len(value)]
            if value.dim()
            else now[name]
        )
        assert torch.equal(rows, value), name
    assert all(
        value.tolist() == [2, 2, 6] or value[2] == 6 for name, value in now.items() if name.endswith("usage.updates")
    )
    for task in ("cls", "sem_seg"):
        one, two = predict(*base(folder), task), predict(out / "config.py", after, task)
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    printed = tool("same_outputs", *base(folder), out / "config.py", after)
    assert last_line(printed) == "equal to the bit"
    assert all(f"| {kind}" in printed for kind in ("weights", "features", "raw outputs", "predictions"))
    changed = dict(now)
    name = next(name for name in now if name.endswith("ffn.banks.0.w1"))
    changed[name] = now[name] * (1 + 1e-6)
    torch.save(dict(state_dict=changed), tmp_path / "changed.pth")
    printed = tool("same_outputs", *base(folder), out / "config.py", tmp_path / "changed.pth", code=1)
    assert f"different: weights shared {name}" in printed and "different: features sem_seg" in printed
    metrics = json.loads(
        (out / "training/extend").glob("*/vis_data/scalars.json").__next__().read_text().splitlines()[-1]
    )
    assert {"cls/top1", "sem_seg/mIoU", "det/bbox_mAP"} <= metrics.keys()


ONE_STEP = ("--train-options", "train_cfg.max_iters=1", "train_cfg.val_interval=9")


def test_adapt_and_train(folder: Path, tool: Tool, tmp_path: Path):
    out = tmp_path / "adapted"
    words = ["--train", "least", "--experts", 2, "--out", out, *ONE_STEP]
    tool("adapt", *base(folder), "--task", "sem_seg", *words, "--size", "64x64")
    model = out / "config.py", out / "model.pth"
    # The experts that moved are added up in another order.
    printed = tool("same_outputs", *base(folder), *model, "--outputs-only", "--tasks", "sem_seg", code=1)
    differences = [float(value) for value in re.findall(r"by up to (\S+)", printed)]
    assert differences and max(differences) < 1e-4
    train(out / "config.py")
    names = moved(out / "model.pth", out / "training/adapt/iter_1.pth")
    assert names == {"banks.1", "routers.sem_seg", "usage", "tasks.sem_seg"}


def test_adapt_to_a_new_task_and_train(folder: Path, tool: Tool, tmp_path: Path):
    out = tmp_path / "adapted"
    words = ["--from", folder / "three.py", "--task", "det", "--as", "boxes", "--start-from", "cls", "--experts", 1]
    tool("adapt", *base(folder), *words, "--train", "new", "--out", out, *ONE_STEP, "--size", "64x64")
    train(out / "config.py")
    names = moved(out / "model.pth", out / "training/adapt/iter_1.pth")
    assert names == {"banks.1", "routers.boxes", "usage", "tasks.boxes"}


def test_prune_report_and_table(folder: Path, tool: Tool, tmp_path: Path):
    """The numbers of the report against the state dicts and the run's own validation."""
    out = tmp_path / "small"
    words = ["--tasks", "cls", "--threshold", 0.15, "--keep-top-k", "--evaluate", "--size", "64x64", "--out", out]
    printed = tool("prune", *base(folder), *words)
    report = json.loads((out / "report.json").read_text())
    assert report["settings"] == dict(
        config="two.py", checkpoint="iter_6.pth", tasks=["cls"], threshold=0.15, keep_top_k=True
    )
    for model, path in ((report["before"], base(folder)[1]), (report["after"], out / "model.pth")):
        state = {
            name: value for name, value in load_weights(path).items() if "usage" not in name and "running" not in name
        }
        state = {name: value for name, value in state.items() if "num_batches" not in name}
        assert model["parameters"]["total"] == sum(value.numel() for value in state.values())
        own = sum(value.numel() for name, value in state.items() if name.startswith("backbone"))
        assert model["parameters"]["backbone"] == own
    log = next((folder / "two").glob("*/vis_data/scalars.json"))
    last = json.loads(log.read_text().splitlines()[-1])
    assert report["before"]["metrics"] == {
        key: round(last[key], 4) for key in ("cls/top1", "sem_seg/aAcc", "sem_seg/mIoU", "sem_seg/mAcc")
    }
    assert report["after"]["metrics"].keys() == {"cls/top1"}
    sizes = Config.fromfile(out / "config.py").model.backbone.mlp_experts.num_experts
    assert report["after"]["experts"] == sizes and report["before"]["experts"] == [5] * 8
    assert "all tasks" in report["before"]["gflops"] and [*report["after"]["gflops"]] == ["size", "cls"]
    assert str(folder) not in (out / "report.json").read_text()
    assert "stock config" in printed and (out / "stock.pth").is_file()
    printed = tool(
        "measure",
        out / "config.py",
        out / "model.pth",
        "--name",
        "again",
        "--size",
        "64x64",
        "--out",
        tmp_path / "again.json",
    )
    table = tool("table", out / "report.json", tmp_path / "again.json").splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["model", ":----", "two", "small", "again"] or len(
        table
    ) == 5
    assert all(line.startswith("|") and line.endswith("|") for line in table)


def test_combine_shares_the_pass(folder: Path, tool: Tool, tmp_path: Path):
    out = tmp_path / "combined"
    printed = tool("combine", *base(folder), "--routes", "cls=sem_seg", "--evaluate", "--size", "64x64", "--out", out)
    report = json.loads((out / "report.json").read_text())
    before, after = report["before"]["gflops"], report["after"]["gflops"]
    assert before["all tasks"]["backbone"] > 1.9 * before["cls"]["backbone"]
    assert after["all tasks"]["backbone"] == after["cls"]["backbone"] == before["cls"]["backbone"]
    assert report["after"]["weights"] == report["before"]["weights"]
    assert report["after"]["metrics"]["sem_seg/mIoU"] == report["before"]["metrics"]["sem_seg/mIoU"]
    assert re.search(r"all tasks in one pass: \S+ GFLOPs; one after the other: \S+", printed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prune {base} --tasks cls --threshold 0.9 --out {out}", r"--threshold 0.9: backbone\S+ would keep \d expert"),
        ("prune {base} --tasks clss --out {out}", "--tasks clss: no task of"),
        ("prune {base} --tasks cls --out {root}", "--out .*: exists and is not empty; name another folder"),
        ("prune {root}/two.py {root}/no.pth --tasks cls --out {out}", "no.pth: no such file"),
        ("prune {root}/no.py {root}/no.pth --tasks cls --out {out}", "no.py: no such config file"),
        ("prune {root}/two.py {root}/two.py --tasks cls --out {out}", "two.py: no checkpoint that can be read safely"),
        ("prune {root}/three.py {root}/two/iter_6.pth --tasks cls --out {out}", "the checkpoint is of another model"),
        (
            "prune {base} --cfg-options model.backbone.mlp_experts.num_experts=6 --tasks cls --out {out}",
            "the checkpoint has 5 experts, the config 6",
        ),
        (
            "prune {base} --cfg-options model.backbone.mlp_experts=None --tasks cls --out {out}",
            "MoEDaViT has no experts",
        ),
        ("adapt {base} --task det --out {out}", "--task det: no task of"),
        ("adapt {base} --task cls --as x --out {out}", "--as x: only a task of another config gets a new name"),
        ("adapt {base} --task cls --experts 5 --out {out}", "--experts 5: .* has 5 experts, of which at least one"),
        ("adapt {base} --task cls --out {out} --train-options model.x=1", "the model cannot be built: TypeError"),
        (
            "adapt {base} --task cls --out {out} --train-options custom_hooks.99.type=x",
            "--train-options .*custom_hooks.99",
        ),
        ("extend {base} --from {root}/three.py --task dett --experts 1 --out {out}", "no task of .*three.py; it has"),
        ("extend {base} --from {root}/three.py --task cls --experts 1 --out {out}", "has this task already"),
        ("extend {base} --from {root}/three.py --task det --experts 0 --out {out}", "--experts 0: write at least 1"),
        ("combine {base} --routes cls=dett --out {out}", "no router of task 'dett'; there are cls, sem_seg"),
        ("combine {base} --routes cls=0.5*cls+0.6*sem_seg --out {out}", "must be positive, with the sum 1"),
        ("same_outputs {base} {base} --tasks det", "--tasks det: both models need the task; they share"),
        ("table {root}/two.py", "two.py: no report"),
    ],
)
def test_mistakes(folder: Path, tool: Tool, tmp_path: Path, words: str, message: str):
    out = tmp_path / "out"
    given = words.format(base=" ".join(map(str, base(folder))), root=folder, out=out).split()
    printed = last_line(tool(given[0], *given[1:], code=2))
    assert printed.startswith("error: ") and re.search(message, printed), printed
    assert not out.exists()


@pytest.mark.slow
def test_the_commands_of_a_user(folder: Path, tmp_path: Path):
    """A stock model that mmseg's own tool tests, and the written config by this package's tools."""
    out = tmp_path / "small"
    run(ROOT / "tools/moe/prune.py", *base(folder), "--tasks", "sem_seg", "--out", out, cwd=tmp_path)
    ours = run(ROOT / "tools/test.py", out / "config.py", out / "model.pth", cwd=tmp_path)
    script = Path(mmseg.__file__).parent / ".mim/tools/test.py"
    theirs = run(script, out / "stock_config.py", out / "stock.pth", cwd=tmp_path)
    numbers = [re.findall(r"(aAcc|mIoU|mAcc): (\S+)", printed.split("Iter(test)")[-1]) for printed in (ours, theirs)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 3
    options = ("--cfg-options", "train_cfg.max_iters=1", "train_cfg.val_interval=9")
    run(ROOT / "tools/train.py", out / "config.py", *options, cwd=tmp_path)
    assert (out / "training/iter_1.pth").is_file()
    assert "python tools/moe/prune.py configs/het_moe" in run(ROOT / "tools/moe/prune.py", "--help", cwd=tmp_path)
