"""A zoo file is read, or refused with the line of the mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.benchmark import read_zoo
from tests.test_zoo.zoo_files import write_zoo

GOOD = """name: camvid
protocol: >-
  Two
  lines
seeds: [0, 3]
label_settings: [full, disjoint_normal]
options: {optim_wrapper.optimizer.lr: 1e-3, train_cfg.max_epochs: 2}
paradigms:
  finetune: a.py
  adapt: {config: a.py, options: {stages: [{name: adapt}]}}
single_task:
  det: a.py
hardware: {gpus: 8, tflops: 100}
reference: random
checkpoints:
  - name: random
    checkpoint: null
  - name: moco
    checkpoint: https://example.org/moco.pth.tar
    sha256: 0123456789abcdef
    prefix: module.encoder_q.
    min_match: 0.9
    backbone: {type: mmdet.ResNet, depth: 50}
    source: He et al.
  - name: hvp
    pretrain: {config: a.py, options: {train_cfg.max_epochs: 1}}
"""


def test_every_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_zoo(tmp_path, GOOD)
    zoo = read_zoo(Path("zoo.yaml"))
    assert (zoo.name, zoo.protocol, zoo.work_dir) == ("camvid", "Two lines", Path("work_dirs/zoo_camvid"))
    assert (zoo.seeds, zoo.label_settings) == ((0, 3), ("full", "disjoint_normal"))
    # A number without a point, which YAML 1.1 takes for a text.
    assert zoo.options == {"optim_wrapper.optimizer.lr": 0.001, "train_cfg.max_epochs": 2}
    assert [(each.name, str(each.config), each.where) for each in zoo.paradigms] == [
        ("finetune", "a.py", "zoo.yaml:9"),
        ("adapt", "a.py", "zoo.yaml:10"),
    ]
    assert zoo.paradigms[1].options == {"stages": [{"name": "adapt"}]}
    assert [each.name for each in zoo.single_task] == ["det"]
    assert (zoo.gpus, zoo.tflops, zoo.reference) == (8, 100.0, "random")
    random, moco, hvp = zoo.checkpoints
    assert random.source is None and random.pretrain is None and random.where == "zoo.yaml:16"
    assert (moco.sha256, moco.prefix, moco.min_match) == ("0123456789abcdef", "module.encoder_q.", 0.9)
    assert moco.backbone == {"type": "mmdet.ResNet", "depth": 50} and moco.cited == "He et al."
    assert hvp.source is None and hvp.pretrain is not None
    assert hvp.pretrain.options == {"train_cfg.max_epochs": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0, 3]", "sedes: [0]", "5: unknown field 'sedes'; known: name, protocol, work_dir, seeds, "),
        ("    prefix:", "    prefx:", "21: unknown field 'prefx' in checkpoints[1]; known: name, checkpoint, "),
        ("tflops: 100", "flops: 1", "13: unknown field 'flops' in hardware; known: gpus, tflops"),
        ("options: {stages", "option: {stages", "10: unknown field 'option' in paradigms.adapt; known: config, opti"),
        ("- name: moco", "- name: random", "18: checkpoint 'random' is there already, at zoo.yaml:16; rename one"),
        ("  adapt: {", "  finetune: {", "10: 'finetune' stands twice; give it another name"),
        ("  det: a.py", "  det: b.py", "12: single_task.det: b.py is no file; paths are relative to the working"),
        ("checkpoint: https://example.org/", "checkpoint: ", "19: checkpoint 'moco': moco.pth.tar: no such file"),
        ("checkpoint: null", "chckpoint: null", "17: unknown field 'chckpoint' in checkpoints[0]"),
        ("checkpoint: null", "source: x", "16: checkpoint 'random': write either checkpoint (null for random weights"),
        ("checkpoint: null", "checkpoint: null\n    sha256: ab", "18: checkpoint 'random' is no file that could have"),
        ("{config: a.py, options: {tr", "{options: {tr", "26: checkpoints[2].pretrain has no field 'config'; add it"),
        ("type: mmdet.ResNet, ", "", "23: checkpoints[1].backbone has no field 'type'; write the whole backbone"),
        ("sha256: 0123456789abcdef", "sha256: 12345678", "20: checkpoints[1].sha256: 12345678 is given; write a text"),
        ("min_match: 0.9", "min_match: 98", "22: checkpoints[1].min_match: 98 is given; write a number above 0 and"),
        ("[0, 3]", "[0, 0]", "5: seeds: 0 stands twice; leave one out"),
        ("[0, 3]", "[]", "5: seeds: [] is given; write a list of at least one entry"),
        ("[0, 3]", "[0, a]", "5: seeds[1]: 'a' is given; write a whole number from 0 on"),
        ("disjoint_normal", "half", "6: label_settings[1]: unknown label setting 'half'; known: full, disjoint_norma"),
        ("reference: random", "reference: rnd", "14: reference: 'rnd' is no checkpoint of the file; it has random,"),
        ("name: camvid", "name: cam/vid", "1: name: 'cam/vid' is given; write letters, digits, _ and -"),
        ("  finetune: a.py", "  fine/tune: a.py", "9: a name in paradigms: 'fine/tune' is given; write letters"),
        ("name: camvid\n", "", "1: the file has no field 'name'; add it"),
        ("seeds: [0, 3]", "seeds: [0, 3", "6: no YAML: "),
        ("name: camvid", "name: 2020-02-31", "1: name cannot be read: day is out of range for month; put it in quotes"),
        ("seeds: [0, 3]", "seeds: &a [0, *a]", "5: refers to itself"),
    ],
)
def test_mistakes(old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert GOOD.count(old) == 1
    write_zoo(tmp_path, GOOD.replace(old, new))
    with pytest.raises(MTAdaptError) as caught:
        read_zoo(Path("zoo.yaml"))
    assert str(caught.value).startswith(f"zoo.yaml:{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "zoo.yaml:1: the file is empty"),
        ("- a\n", "zoo.yaml:1: the file: ['a'] is given; write a mapping"),
        ("name: a\nparadigms: {}\ncheckpoints: []\n", "zoo.yaml:3: checkpoints: [] is given; write a list of at least"),
        (
            "name: a\nparadigms: {}\ncheckpoints:\n- {name: r, checkpoint: null}\n",
            "zoo.yaml:2: paradigms is empty; name at least one config",
        ),
    ],
)
def test_nothing_to_run(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_zoo(tmp_path, text)
    with pytest.raises(MTAdaptError) as caught:
        read_zoo(Path("zoo.yaml"))
    assert str(caught.value).startswith(message)


def test_no_file(tmp_path: Path):
    with pytest.raises(MTAdaptError, match=r"nothing\.yaml: cannot be read \(.*No such file"):
        read_zoo(tmp_path / "nothing.yaml")
