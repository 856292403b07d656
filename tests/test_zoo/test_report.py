"""The report against numbers reckoned by hand, from results as the runs write them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.report import write_report
from mtadapt.zoo.report.benchmark import Benchmark, read_benchmarks
from mtadapt.zoo.report.comparisons import against_finetune, against_reference, single_against_reference
from mtadapt.zoo.report.metrics import main_metrics
from mtadapt.zoo.report.table import Row, Table
from mtadapt.zoo.results import CellResult
from tests.zoo_results import PROTOCOL, TASKS, metrics, weights, write_cell, write_grid


def only(folder: Path) -> Benchmark:
    (benchmark,) = read_benchmarks(folder)
    return benchmark


def table_of(folder: Path) -> Table:
    (table,) = only(folder).tables
    return table


def row_of(folder: Path, checkpoint: str = "imagenet", paradigm: str = "finetune") -> Row:
    row = table_of(folder).row(checkpoint, paradigm)
    assert row is not None
    return row


# The table


def test_rows_and_columns(tmp_path: Path) -> None:
    write_grid(tmp_path, ("random", "imagenet", "alpha"))
    table = table_of(tmp_path)
    assert [metric.heading for metric in table.metrics] == ["det AP", "sem_seg mIoU", "drivable mIoU (official)"]
    assert table.checkpoints == ("random", "alpha", "imagenet")  # the reference first
    assert [row.paradigm for row in table.rows[:3]] == ["single task", "finetune", "adapt_finetune"]
    assert table.remarks == []


def test_mean_and_deviation_over_seeds_in_percent(tmp_path: Path) -> None:
    write_grid(tmp_path)
    values = row_of(tmp_path, paradigm="adapt_finetune").values
    assert values["det"].values == pytest.approx({0: 23.0, 1: 24.0, 2: 25.0})
    assert (values["det"].mean, values["det"].deviation) == pytest.approx((24.0, 1.0))
    assert (values["sem_seg"].mean, values["sem_seg"].deviation) == (38.0, 0.0)


def test_multi_task_delta_by_hand(tmp_path: Path) -> None:
    """finetune: (+10 - 5 + 10) / 3 = 5 %; adapt_finetune: det gains 15, 20, 25 %, so 20/3, 25/3 and 10 %."""
    write_grid(tmp_path)
    assert row_of(tmp_path).delta.summary.values == pytest.approx({0: 5.0, 1: 5.0, 2: 5.0})
    adapted = row_of(tmp_path, paradigm="adapt_finetune").delta.summary
    assert adapted.values == pytest.approx({0: 20 / 3, 1: 25 / 3, 2: 10.0})
    assert (adapted.mean, adapted.deviation) == pytest.approx((25 / 3, 5 / 3))
    assert not row_of(tmp_path, paradigm="single task").delta.summary.count


def test_delta_pairs_seeds_and_checkpoints(tmp_path: Path) -> None:
    """One task; alone 10 and 20, together 12 and 18: +20 % and -10 %. Against the reference's 5: +140 % and +260 %."""
    for seed, alone, together in ((0, 10.0, 12.0), (1, 20.0, 18.0)):
        for checkpoint, single in (("imagenet", alone), ("random", 5.0)):
            write_cell(tmp_path, "single_task", checkpoint, "det", seed, metrics=metrics(det=single))
        write_cell(tmp_path, "multi_task", "imagenet", "finetune", seed, metrics=metrics(det=together), tasks=("det",))
    row = row_of(tmp_path)
    assert row.delta.summary.values == pytest.approx({0: 20.0, 1: -10.0})
    assert row.delta_reference.summary.values == pytest.approx({0: 140.0, 1: 260.0})


def test_a_missing_baseline_gives_no_delta_and_says_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path, "multi_task", "imagenet", "finetune", seed, metrics=metrics(10, 20, 30))
        for task in TASKS:
            value = 0.0 if (task, seed) == ("drivable", 1) else 10.0
            if (task, seed) != ("sem_seg", 0):
                write_cell(tmp_path, "single_task", "imagenet", task, seed, metrics=metrics(**{task: value}))
    row = row_of(tmp_path)
    assert row.delta.summary.values == {}
    assert row.delta.notes == (
        "seed 0 has no multi-task delta: no single-task run of imagenet for sem_seg",
        "seed 1 has no multi-task delta: 0 in the single-task run of imagenet for drivable",
    )
    assert row_of(tmp_path, paradigm="single task").notes == ("sem_seg: no result of seed 0",)


def test_another_checkpoint_never_stands_in_for_a_baseline(tmp_path: Path) -> None:
    write_cell(tmp_path, "multi_task", "imagenet", "finetune", 0, metrics=metrics(det=10), tasks=("det",))
    write_cell(tmp_path, "single_task", "random", "det", 0, metrics=metrics(det=5))
    row = row_of(tmp_path)
    assert row.delta.summary.values == {}
    assert row.delta_reference.summary.values == pytest.approx({0: 100.0})


def test_a_run_without_one_of_the_tasks_of_its_paradigm_has_no_delta(tmp_path: Path) -> None:
    """A mean over fewer tasks would be another number under the same name."""
    write_grid(tmp_path, ("random",))
    folder = tmp_path / "multi_task/full/finetune/random/seed1"
    found = metrics(det=22, drivable=99) | {"sem_seg/mIoU": float("nan")}
    (folder / "result.json").unlink()
    folder.rename(tmp_path / "moved")
    write_cell(tmp_path, "multi_task", "random", "finetune", 1, metrics=found, tasks=("det", "drivable"))
    row = row_of(tmp_path, "random")
    assert sorted(row.delta.summary.values) == [0, 2]
    assert row.notes == ("seed 1 reports no number for sem_seg/mIoU",)
    assert row.delta.notes == ("seed 1 has no multi-task delta: no sem_seg/mIoU",)


def test_failed_and_missing_seeds_are_told(tmp_path: Path) -> None:
    write_grid(tmp_path, ("random",))
    error = "RuntimeError: worker is killed"
    write_cell(tmp_path, "multi_task", "imagenet", "finetune", 1, status="failed", error=error, seconds=720)
    write_cell(tmp_path, "multi_task", "imagenet", "finetune", 2, metrics=metrics(1, 2, 3), weights=weights("imagenet"))
    row = row_of(tmp_path)
    assert (row.seeds, row.values["det"].count) == ((2,), 1)
    assert row.notes == ("no result of seed 0", f"seed 1 failed: {error}")
    assert (row.hours.mean, row.spent) == pytest.approx((1.0, 1.2))
    assert [cell.result.seed for cell in only(tmp_path).failed] == [1]
    empty = row_of(tmp_path, paradigm="adapt_finetune")
    assert (empty.notes, empty.parameters, empty.hours.mean) == (("no result of seed 0, 1, 2",), 0, None)


def test_label_settings_and_protocols_never_share_a_table(tmp_path: Path) -> None:
    write_cell(tmp_path, "multi_task", "random", "finetune", 0, metrics=metrics(1, 2, 3))
    write_cell(tmp_path, "multi_task", "random", "finetune", 0, label_setting="disjoint", metrics=metrics(4, 5, 6))
    write_cell(tmp_path / "b", "multi_task", "random", "finetune", 0, metrics=metrics(7, 8, 9), protocol="longer")
    write_cell(tmp_path / "c", "multi_task", "random", "finetune", 0, metrics=metrics(7, 8, 9), zoo="another")
    found = read_benchmarks(tmp_path)
    assert [(each.name, each.protocol) for each in found] == [
        ("another", PROTOCOL),
        ("camvid", PROTOCOL),
        ("camvid", "longer"),
    ]
    assert [table.label_setting for table in found[1].tables] == ["full", "disjoint"]
    assert [table.rows[0].values["sem_seg"].mean for table in found[1].tables] == [2.0, 5.0]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    first = write_cell(tmp_path / "a", "multi_task", "random", "finetune", 0)
    second = write_cell(tmp_path / "b", "multi_task", "random", "finetune", 0)
    message = f"{second}/result.json: finetune, random, seed 0 is also in {first}/result.json; keep one of the two"
    with pytest.raises(MTAdaptError, match=re.escape(message)):
        write_report(tmp_path, tmp_path / "report")


def test_cost_of_a_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        for task, size in zip(TASKS, (1, 2, 3), strict=True):
            write_cell(
                tmp_path, "single_task", "a", task, seed, seconds=3600 * (seed + 1), parameters=size,
                trainable={"train": size}, metrics=metrics(**{task: 1.0}),
            )  # fmt: skip
        write_cell(
            tmp_path, "multi_task", "a", "finetune", seed, metrics=metrics(1, 1, 1), seconds=1800, devices=8,
            device="NVIDIA H100", trainable={"adapt": 5, "finetune": 9},
        )  # fmt: skip
    alone, together = table_of(tmp_path).rows
    assert (alone.networks, alone.parameters, alone.trainable) == (3, 6, {"train": 6})
    assert alone.hours.values == {0: 3.0, 1: 6.0}
    assert (together.networks, together.trainable) == (1, {"adapt": 5, "finetune": 9})
    assert (together.hours.mean, together.devices) == (4.0, ("8 x NVIDIA H100",))


# Metrics


def result(**found: float) -> CellResult:
    names = {name.replace("__", "/"): value for name, value in found.items()}
    tasks = tuple(dict.fromkeys(name.partition("/")[0] for name in names))
    return CellResult("z", "multi_task", "a", "p", "full", 0, "finished", tasks=tasks, metrics=names)


@pytest.mark.parametrize(
    ("reported", "key", "percent"),
    [
        (dict(det__bbox_mAP_50=0.5, det__bbox_mAP=0.25), "det/bbox_mAP", 25.0),
        (dict(det__mAP=0.25, det__AP50=0.25), "det/mAP", 25.0),  # mmdet's VOCMetric
        (dict(mlc__mAP=25.0, mlc__mAP_weather=30.0), "mlc/mAP", 25.0),  # of this package, in percent
        (dict(seg__aAcc=90.0, seg__mIoU=45.0), "seg/mIoU", 45.0),
        (dict(drivable__strict_mIoU=94.0, drivable__official_mIoU=95.0), "drivable/official_mIoU", 95.0),
        (dict(depth__b=2.0, depth__a=1.0), "depth/a", 1.0),
        (dict(det__bbox_mAP=-1.0), "det/bbox_mAP", None),  # COCO's sign for no boxes
        (dict(seg__mIoU=float("nan")), "seg/mIoU", None),
    ],
)
def test_main_metric_of_a_task(reported: dict[str, float], key: str, percent: float | None) -> None:
    run = result(**reported)
    (metric,) = main_metrics([run])
    assert (metric.key, metric.value(run)) == (key, percent)


def test_a_column_has_one_metric_for_all_runs() -> None:
    first, second = result(seg__aAcc=90.0), result(seg__aAcc=80.0, seg__mIoU=40.0)
    (metric,) = main_metrics([first, second])
    assert (metric.value(first), metric.value(second)) == (None, 40.0)


# Significance


def test_comparisons_against_reference_and_finetune(tmp_path: Path) -> None:
    write_grid(tmp_path)
    table = table_of(tmp_path)
    finetune = against_finetune(table)
    assert [(each.metric.task, each.row.checkpoint, each.against.paradigm) for each in finetune[:3]] == [
        ("det", "random", "finetune"),
        ("det", "imagenet", "finetune"),
        ("sem_seg", "random", "finetune"),
    ]
    det = finetune[0]
    assert det.test.mean == pytest.approx(2.0)
    # Differences 1, 2, 3 as in test_statistics; six tests, of which four find no difference at all.
    assert (det.test.p, det.corrected) == pytest.approx((0.0741799, 6 * 0.0741799), abs=1e-6)
    assert [each.test.p for each in finetune[2:]] == [1.0] * 4
    reference = against_reference(table)
    assert {each.against.checkpoint for each in reference} == {"random"}
    assert {each.row.paradigm for each in reference} == {"finetune", "adapt_finetune"}
    assert [each.test.p for each in reference] == [1.0] * 6
    assert {each.row.paradigm for each in single_against_reference(table)} == {"single task"}


@pytest.mark.parametrize(
    ("named", "expected"), [("imagenet", "imagenet"), ("", "random")], ids=["named", "random weights"]
)
def test_the_reference_is_named_or_has_random_weights(tmp_path: Path, named: str, expected: str) -> None:
    for name, loaded in (("imagenet", weights("imagenet")), ("random", None), ("own", weights("own"))):
        write_cell(tmp_path, "multi_task", name, "finetune", 0, weights=loaded, reference=named)
    assert only(tmp_path).reference == expected


def test_no_reference_is_no_silent_choice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_cell(tmp_path, "multi_task", name, "adapt", 0, weights=weights(name), reference="", metrics=metrics(1))
        write_cell(tmp_path, "multi_task", name, "adapt_more", 0, weights=weights(name), reference="")
    table = table_of(tmp_path)
    assert table.reference == ""
    assert against_reference(table) == []
    assert table.remarks == [
        "No single-task runs for this label setting, so there is no multi-task delta.",
        "No reference among these checkpoints, so they are not tested against one.",
        "No paradigm is called finetune, so the paradigms are not tested against one.",
    ]


# Checkpoints


def test_what_was_loaded(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path, "pretrain", "own", "pretrain", seed)
        write_cell(tmp_path, "multi_task", "own", "finetune", seed, weights=weights(f"own{seed}"))
        write_cell(tmp_path, "multi_task", "random", "finetune", seed)
        write_cell(tmp_path, "multi_task", "moco", "finetune", seed, weights=weights("moco", 0.99), source="He 2020")
    found = only(tmp_path).loadings
    assert [(each.checkpoint, each.share, each.seeds, each.note) for each in found] == [
        ("moco", 0.99, (0, 1), ""),
        ("own", 1.0, (0,), ""),
        ("own", 1.0, (1,), ""),
        ("random", None, (0, 1), ""),
    ]
    assert (found[0].source, found[0].count("matched")) == ("He 2020", 300)


@pytest.mark.parametrize("other", [weights("another"), None], ids=["another file", "nothing"])
def test_runs_of_a_checkpoint_that_loaded_different_things_are_marked(
    tmp_path: Path, other: dict[str, object] | None
) -> None:
    write_cell(tmp_path, "multi_task", "moco", "finetune", 0, weights=weights("moco"))
    write_cell(tmp_path, "multi_task", "moco", "finetune", 1, weights=other)
    notes = [each.note for each in only(tmp_path).loadings]
    assert notes == ["runs of this checkpoint loaded different files"] * 2
    page = next(path for path in write_report(tmp_path, tmp_path / "report") if path.suffix == ".md").read_text()
    assert "**moco: runs of this checkpoint loaded different files.**" in page


def test_a_trained_checkpoint_that_was_not_loaded_is_marked(tmp_path: Path) -> None:
    write_cell(tmp_path, "pretrain", "own", "pretrain", 0)
    write_cell(tmp_path, "multi_task", "own", "finetune", 0)
    (loading,) = only(tmp_path).loadings
    assert loading.note == "nothing was loaded, though a training made this checkpoint"


def test_runs_that_loaded_less_of_the_same_file_stand_apart(tmp_path: Path) -> None:
    for paradigm, share in (("finetune", 1.0), ("lv", 0.985)):
        write_cell(tmp_path, "multi_task", "moco", paradigm, 0, weights=weights("moco", share))
    assert sorted(each.share or 0.0 for each in only(tmp_path).loadings) == [0.985, 1.0]
