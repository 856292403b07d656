"""What the tests do with every command that the pages print.

A command that no account, or more than one, knows is an error, and so is an account of a command that no page prints.
All commands are parsed by their own tool, and the configs that they name are loaded with the options that they give.
Beyond that a command is run as it is printed with smaller numbers, or other tests run its tool.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: A few small images in the place of hundreds.
FEW = (r"--train \d+ --val \d+ --size \S+", "--train 8 --val 4 --size 160x96")
#: Every class needs an image of its own.
FEW_OF_EACH = (r"--train \d+ --val \d+ --size \S+", "--train 16 --val 8 --size 256x160")
NO_WEIGHTS = "model.backbone.pretrained=None"
ONE_EPOCH = f"--cfg-options train_cfg.max_epochs=1 train_cfg.val_interval=1 {NO_WEIGHTS}"
FEW_ITERATIONS = "train_cfg.max_iters=2 train_cfg.val_interval=2"
PUBLIC_DATA = "the data of the publishers"
GPUS = "GPUs, and the data of the publishers"


class Account(NamedTuple):
    """What is done with the commands that match.

    Attributes:
        pattern: regular expression of the whole command.
        run: ``fast``, ``slow``, or nothing where the command is not run as it is printed.
        short: regular expressions in the command, each of which must be there, and what stands in their places.
        add: what is added to the command.
        needs: accounts whose commands have to be run before.
        tests: tests that run the tool, or ``.ci/run`` for a target of make.
        lacks: what the command needs and a test does not have.
    """

    pattern: str
    run: str = ""
    short: tuple[tuple[str, str], ...] = ()
    add: str = ""
    needs: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    lacks: str = ""

    def shortened(self, command: str) -> str:
        """The command with smaller numbers."""
        for old, new in self.short:
            command, count = re.subn(old, new, command)
            assert count, f"{command!r} has nothing like {old!r}"
        return f"{command} {self.add}".strip()


_TRAIN = r"python tools/train\.py "
_TEST = r"python tools/test\.py "
_ANALYSIS = r"python tools/analysis_tools/"
_CONVERT = r"python tools/dataset_converters/"
_DIST = r"(NNODES=2 NODE_RANK=[01] MASTER_ADDR=10\.0\.0\.1 PORT=29500 )?bash tools/dist_train\.sh "
_MOE = r"python tools/moe/"
_ZOO = r"python tools/benchmark_pretrained\.py "
_INFER = r"python tools/infer\.py configs/mt_synthetic_lv\.py work_dirs/mt_synthetic_lv/finetune "
#: After two iterations no expert has 2 % of the picks everywhere.
_KEEP_MOST_USED = (r"--threshold 0\.02", "--keep-top-k")
_MOE_CHECKPOINT = (r"het_moe_synthetic/iter_1500\.pth", "het_moe_synthetic/iter_2.pth")

ACCOUNTS = dict(
    # make
    demo=Account("make demo", tests=(".ci/run",), lacks="ten minutes"),
    demo_het=Account("make demo-het", tests=(".ci/run",), lacks="ten minutes"),
    demo_moe=Account("make demo-moe", tests=(".ci/run",), lacks="an hour"),
    demo_hvp=Account(
        "make demo-hvp", tests=("tests/test_engine/test_pretraining_run.py::test_resume_is_exact",), lacks="ten minutes"
    ),
    demo_zoo=Account(
        "make demo-zoo", tests=("tests/test_zoo/test_benchmark_tool.py::test_a_small_zoo",), lacks="half an hour"
    ),
    tests=Account("make (test|test-slow|docs)", tests=(".ci/run",), lacks="another run of the tests inside a test"),
    # data
    scenes=Account(_CONVERT + r"synthetic_bdd100k\.py data/synthetic --train .*", "fast", short=(FEW,)),
    het_scenes=Account(
        _CONVERT + r"synthetic_heterogeneous\.py data/synthetic_heterogeneous .*", "slow", short=(FEW_OF_EACH,)
    ),
    camvid=Account(_CONVERT + r"camvid_to_bdd100k\.py CAMVID data/camvid", "slow"),
    relations_coco=Account(_CONVERT + r"relation_labels\.py data/coco/.*", "slow"),
    relations_bdd=Account(
        _CONVERT + r"relation_labels\.py data/bdd100k/.*",
        "slow",
        short=(("data/bdd100k", "data/synthetic"),),
        needs=("scenes",),
    ),
    browse=Account(
        _ANALYSIS + r"browse_dataset\.py configs/mt_bdd_baseline\.py --num 12",
        "slow",
        short=(("12", "2"),),
        add="--cfg-options train_dataloader.dataset.data_root=data/synthetic",
        needs=("scenes",),
    ),
    # training and test
    train_lv=Account(
        _TRAIN + r"configs/mt_synthetic_lv\.py", "fast", add="--cfg-options train_cfg.max_epochs=2", needs=("scenes",)
    ),
    train_camvid=Account(_TRAIN + r"configs/mt_camvid_baseline\.py", "slow", add=ONE_EPOCH, needs=("camvid",)),
    train_het=Account(
        _TRAIN + r"configs/het_synthetic\.py",
        "slow",
        add=f"--cfg-options {FEW_ITERATIONS} {NO_WEIGHTS}",
        needs=("het_scenes",),
    ),
    test_het=Account(
        _TEST + r"configs/het_synthetic\.py .*", "slow", short=((r"iter_300", "iter_2"),), needs=("train_het",)
    ),
    train_hvp=Account(
        _TRAIN + r"configs/hvp_synthetic\.py", "slow", add=f"--cfg-options {FEW_ITERATIONS}", needs=("scenes",)
    ),
    train_bdd_disjoint=Account(
        _TRAIN + r"configs/mt_bdd_baseline\.py --cfg-options .*",
        "slow",
        add="train_dataloader.dataset.data_root=data/synthetic val_dataloader.dataset.data_root=data/synthetic "
        "test_dataloader.dataset.data_root=data/synthetic train_cfg.max_epochs=1 model.backbone.init_cfg=None "
        "model.backbone.depth=18 model.neck.in_channels=[64,128,256,512] "
        "'train_dataloader.dataset.pipeline.2.scale=(160,96)' 'val_dataloader.dataset.pipeline.1.scale=(160,96)'",
        needs=("scenes",),
    ),
    train_gpus=Account(
        _DIST
        + r"configs/(mt_bdd_\w+|st_bdd_det|het_\S*in1k_coco_ade20k\S*|downstream/coco_mask-rcnn_hvp-swin-b)\.py 8",
        tests=(
            "tests/test_tools/test_launch.py::test_two_machines_train_one_model",
            "tests/test_configs.py::test_config_builds",
            "tests/test_downstream_configs.py::test_a_step_and_a_validation",
        ),
        lacks=GPUS,
    ),
    train_gpus_amp=Account(
        _DIST + r"configs/(hvp_swin-b_8xb128-192px|downstream/in1k_cls_hvp-swin-b)\.py 8 --amp.*",
        tests=("tests/test_configs.py::test_pretraining_builds",),
        lacks=GPUS,
    ),
    train_fsdp=Account(
        _DIST + r"configs/mt_synthetic_baseline\.py 2 --cfg-options .*",
        "slow",
        add=f"train_cfg.max_epochs=1 {NO_WEIGHTS}",
        needs=("scenes",),
    ),
    train_slurm=Account(
        r"GPUS=16 GPUS_PER_NODE=8 bash tools/slurm_train\.sh .*",
        tests=("tests/test_tools/test_command_line.py::test_slurm_starts_one_torchrun_a_node",),
        lacks="Slurm",
    ),
    test_bdd=Account(
        _TEST + r"configs/mt_bdd_baseline\.py .*",
        tests=("tests/test_tools/test_command_line.py::test_test_gives_the_numbers_of_the_validation",),
        lacks=PUBLIC_DATA,
    ),
    train_by_mmdet=Account(
        r"python \$\(python -c .*\)/\.mim/tools/train\.py configs/downstream/coco_mask-rcnn_hvp-swin-b\.py",
        tests=("tests/test_downstream_configs.py::test_a_step_and_a_validation",),
        lacks=PUBLIC_DATA,
    ),
    # comparisons
    compare_run=Account(
        _ANALYSIS + r"compare_runs\.py run configs/\w+ --seeds 0 1 2 --jobs 2",
        tests=("tests/test_tools/test_compare_runs.py::test_run_collect_table",),
        lacks="hours",
    ),
    compare_collect=Account(
        _ANALYSIS + r"compare_runs\.py collect configs/\w+ docs/logs/\w+",
        tests=("tests/test_tools/test_compare_runs.py::test_run_collect_table",),
        lacks="the runs of the comparison",
    ),
    results_table=Account(_ANALYSIS + r"results_table\.py docs/logs/.*", "fast"),
    pretraining_comparison=Account(
        r"bash tools/pretraining_comparison\.sh work_dirs/hvp_comparison docs/logs/hvp_comparison",
        tests=("tests/test_engine/test_pretraining_run.py::test_resume_is_exact",),
        lacks="hours",
    ),
    # experts
    train_moe=Account(
        _TRAIN + r"configs/het_moe_synthetic\.py", "slow", add=f"--cfg-options {FEW_ITERATIONS}", needs=("het_scenes",)
    ),
    train_dense=Account(
        _TRAIN + r"configs/het_davit_synthetic\.py",
        "slow",
        add=f"--cfg-options {FEW_ITERATIONS}",
        needs=("het_scenes",),
    ),
    usage=Account(_MOE + r"usage\.py .*", "slow", short=(_MOE_CHECKPOINT,), needs=("train_moe",)),
    prune=Account(
        _MOE + r"prune\.py .*--threshold 0\.02 --evaluate --out .*",
        "slow",
        short=(_MOE_CHECKPOINT, _KEEP_MOST_USED),
        needs=("train_moe",),
    ),
    prune_first=Account(
        _MOE + r"prune\.py .*--threshold 0\.02 --out work_dirs/pruned_det",
        "slow",
        short=(_MOE_CHECKPOINT, _KEEP_MOST_USED, (r"pruned_det", "pruned_first")),
        needs=("train_moe",),
    ),
    adapt=Account(_MOE + r"adapt\.py .*", "slow", short=(_MOE_CHECKPOINT,), needs=("train_moe",)),
    train_adapted=Account(
        _TRAIN + r"work_dirs/adapted_det/config\.py", "slow", add=f"--cfg-options {FEW_ITERATIONS}", needs=("adapt",)
    ),
    combine=Account(_MOE + r"combine\.py .*", "slow", short=(_MOE_CHECKPOINT,), needs=("train_moe",)),
    table=Account(_MOE + r"table\.py work_dirs/.*", "slow", needs=("prune", "combine")),
    table_of_logs=Account(_MOE + r"table\.py docs/logs/.*", "fast"),
    train_moe_real=Account(
        _TRAIN + r"configs/het_moe_cifar_bccd\.py",
        tests=("tests/test_configs.py::test_config_builds",),
        lacks="CIFAR-10 and BCCD",
    ),
    extend=Account(
        _MOE + r"extend\.py .*",
        tests=("tests/test_tools/test_moe_tools.py::test_extend_and_train",),
        lacks="CIFAR-10 and BCCD",
    ),
    train_extended=Account(
        _TRAIN + r"work_dirs/moe_camvid/config\.py",
        tests=("tests/test_tools/test_moe_tools.py::test_extend_and_train",),
        lacks="CIFAR-10 and BCCD",
    ),
    same_outputs=Account(
        _MOE + r"same_outputs\.py .*",
        tests=("tests/test_tools/test_moe_tools.py::test_extend_and_train",),
        lacks="CIFAR-10 and BCCD",
    ),
    experiment=Account(
        r"bash tools/moe/experiment\.sh (synthetic|real) .*",
        tests=("tests/test_tools/test_moe_tools.py::test_prune_report_and_table",),
        lacks="hours",
    ),
    # speed
    benchmark_data=Account(
        _ANALYSIS + r"benchmark\.py (index|loading|evaluation|moe)( .*)?",
        tests=(
            "tests/test_tools/test_benchmark.py::test_index",
            "tests/test_tools/test_benchmark.py::test_loading",
            "tests/test_tools/test_benchmark.py::test_evaluation",
            "tests/test_tools/test_benchmark.py::test_moe",
        ),
        lacks="minutes each",
    ),
    benchmark_heterogeneous=Account(
        _ANALYSIS + r"benchmark\.py heterogeneous_loading .*",
        tests=("tests/test_tools/test_benchmark.py::test_loading",),
        lacks="minutes",
    ),
    benchmark_networks=Account(
        _ANALYSIS + r"benchmark\.py (lv_adapter|adapt_step|prompt_step) .*",
        tests=("tests/test_tools/test_network_benchmarks.py::test_network_benchmark",),
        lacks="minutes each",
    ),
    benchmark_pretraining=Account(
        _ANALYSIS + r"benchmark\.py pretraining .*",
        tests=("tests/test_tools/test_pretraining_benchmark.py::test_ratio_and_passes",),
        lacks="minutes",
    ),
    communication=Account(_ANALYSIS + r"communication\.py .*", "slow"),
    # checkpoints
    zoo_plan=Account(
        _ZOO + r"configs/zoo/bdd100k\.yaml --dry-run",
        tests=("tests/test_zoo/test_benchmark_tool.py::test_a_small_zoo",),
        lacks="public checkpoints and their network",
    ),
    zoo_run=Account(
        _ZOO + r"(configs/zoo/(camvid|demo)|ZOO)\.yaml (--jobs \d|--report|--collect .*|--only .*)",
        tests=("tests/test_zoo/test_benchmark_tool.py::test_a_small_zoo",),
        lacks="half an hour and more",
    ),
    zoo_gpus=Account(
        _ZOO + r"ZOO\.yaml --launcher pytorch .*",
        tests=("tests/test_zoo/test_benchmark_tool.py::test_two_processes_a_run",),
        lacks="GPUs",
    ),
    zoo_slurm=Account(_ZOO + r"ZOO\.yaml --launcher slurm .*", tests=("tests/test_zoo/test_slurm.py",), lacks="Slurm"),
    convert=Account(
        r"python tools/model_converters/convert_backbone\.py IN\.pth OUT\.pth --to timm",
        tests=("tests/test_zoo/test_convert_backbone.py",),
        lacks="a file of the reader's own",
    ),
    export_task=Account(
        r"python tools/model_converters/export_task\.py CONFIG CHECKPOINT --task det --out exported/det",
        "slow",
        short=(("CONFIG CHECKPOINT", "configs/mt_synthetic_lv.py work_dirs/mt_synthetic_lv/finetune/epoch_1.pth"),),
        needs=("train_lv",),
    ),
    # pages that begin
    doctor=Account(r"python -m mtadapt\.doctor data/synthetic", "slow", needs=("scenes",)),
    doctor_public=Account(
        r"python -m mtadapt\.doctor data/(coco|bdd100k)", tests=("tests/test_doctor/",), lacks=PUBLIC_DATA
    ),
    print_config=Account(r"python tools/print_config\.py configs/mt_synthetic_lv\.py", "slow"),
    test_lv=Account(
        _TEST + r"configs/mt_synthetic_lv\.py .*", "fast", short=((r"epoch_7", "epoch_1"),), needs=("train_lv",)
    ),
    other_place=Account(
        _TRAIN + r"configs/mt_synthetic_baseline\.py --cfg-options .*",
        "slow",
        short=((r"=DIR", "=data/synthetic"),),
        add=f"train_cfg.max_epochs=1 {NO_WEIGHTS}",
        needs=("scenes",),
    ),
    new_task=Account(
        r"PYTHONPATH=\. " + _TRAIN + r"configs/mt_synthetic_time\.py", "slow", add=ONE_EPOCH, needs=("scenes",)
    ),
    make_mine=Account(r"python make_mine\.py", "slow", needs=("scenes",)),
    browse_mine=Account(
        r"PYTHONPATH=\. " + _ANALYSIS + r"browse_dataset\.py configs/mt_mine\.py --num 12",
        "slow",
        short=(("12", "2"),),
        needs=("make_mine",),
    ),
    train_mine=Account(
        r"PYTHONPATH=\. " + _TRAIN + r"configs/mt_mine\.py", "slow", add=ONE_EPOCH, needs=("make_mine",)
    ),
    constant_mine=Account(
        r"PYTHONPATH=\. " + _ANALYSIS + r"constant_baseline\.py configs/mt_mine\.py", "slow", needs=("make_mine",)
    ),
    # inference
    infer=Account(_INFER + r"data/synthetic/images/100k/val --out-dir out", "fast", needs=("train_lv",)),
    infer_formats=Account(_INFER + r"'.*' --out-dir out_det .*", "slow", needs=("train_lv",)),
    infer_submission=Account(_INFER + r".* --out-dir submission .*", "slow", needs=("train_lv",)),
    infer_video=Account(_INFER + r"drive\.mp4 .*", "slow", needs=("train_lv",)),
    infer_camera=Account(
        _INFER + r"--camera 0 --show", tests=("tests/test_apis/test_sources.py",), lacks="a camera and a screen"
    ),
    from_python=Account(r"python use\.py", "fast", needs=("train_lv",)),
    more_from_python=Account(r"python (look|rename)\.py", "slow", needs=("train_lv",)),
    web=Account(
        r"python tools/web_demo\.py .* --examples data/synthetic/images/100k/val",
        tests=("tests/test_tools/test_web_demo.py",),
        lacks="an end: it serves until it is stopped",
    ),
    # export
    export=Account(
        r"python tools/export_onnx\.py configs/mt_synthetic_lv\.py .*",
        "slow",
        short=((r"epoch_7", "epoch_1"),),
        needs=("train_lv",),
    ),
    export_experts=Account(
        r"python tools/export_onnx\.py configs/het_moe_synthetic\.py .*", "slow", needs=("train_moe",)
    ),
    benchmark_export=Account(
        _ANALYSIS + r"benchmark\.py export_latency .*", tests=("tests/test_export/",), lacks="minutes"
    ),
)


def account_of(command: str) -> str:
    """The name of the one account that knows a command.

    Raises:
        AssertionError: where none or several do.
    """
    names = [name for name, account in ACCOUNTS.items() if re.fullmatch(account.pattern, command)]
    assert len(names) == 1, f"{command!r} is known to the accounts {names}; exactly one of ACCOUNTS has to know it"
    return names[0]
