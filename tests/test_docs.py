"""README and docs: what they name exists, and their numbers are those of the logs beside them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tests.test_documentation.blocks import blocks, examples

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
sys.path.insert(0, str(ROOT / "tools/analysis_tools"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_commands_name_what_exists(page: Path):
    text = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    shown = {name for _, name in examples()}  # files that the reader makes of a block of the page
    quoted = "".join(block.text for block in blocks(page) if block.language == "text")
    for name in re.findall(r"(?<![\w/])((?:tools|configs)/[\w./-]+\.(?:py|sh))", text):
        if name in shown or name in quoted:
            continue
        assert (ROOT / name).is_file(), name
    for target in re.findall(r"^make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def test_results_are_those_of_the_logs():
    import results_table

    logs = sorted((ROOT / "docs/logs").glob("*/scalars.json"))
    assert logs
    readme = (ROOT / "README.md").read_text()
    for row in results_table.table(logs).splitlines():
        assert row in readme, row
    for page, folder in (
        ("adaptation.md", "camvid_adaptation"),
        ("heterogeneous.md", "het_cifar_bccd_camvid_comparison"),
        ("heterogeneous.md", "het_synthetic_comparison"),
        ("pretraining.md", "hvp_comparison/pretrain"),
        ("pretraining.md", "hvp_comparison/camvid"),
        ("pretraining.md", "hvp_comparison/synthetic"),
    ):
        logs = sorted((ROOT / "docs/logs" / folder).glob("*/*.json"))
        assert logs
        text = (ROOT / "docs" / page).read_text()
        for row in results_table.table(logs).splitlines():
            assert row in text, row


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (
            "synthetic",
            "all dense_twin pruned_cls pruned_det pruned_sem_seg det_by_sem_seg mixed_det_sem_seg extended_trained "
            "adapted_trained",
        ),
        ("real", "all pruned_cls pruned_det mixed_cls_det extended_trained adapted_trained camvid_alone together"),
    ],
)
def test_reports_on_models_of_experts(folder: str, names: str):
    """Every row of the two tables is what ``tools/moe/table.py`` makes of the reports beside the page."""
    spec = importlib.util.spec_from_file_location("table", ROOT / "tools/moe/table.py")
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = (ROOT / "docs/moe.md").read_text()
    reports = [ROOT / "docs/logs/moe" / folder / f"{name}.json" for name in names.split()]
    printed = table.measurement_table(table.rows(reports), markdown=True).splitlines()
    for row in printed:
        assert row in text, row
    assert (ROOT / f"docs/logs/moe/{folder}/same_outputs.txt").read_text().endswith("equal to the bit\n")


def test_results_table_by_hand(tmp_path: Path):
    import results_table

    from mtadapt.errors import MTAdaptError

    log = tmp_path / "one" / "scalars.json"
    log.parent.mkdir()
    log.write_text('{"loss": 3}\n{"det/bbox_mAP": 0.1234, "sem_seg/mIoU": 55.55}\n')
    assert results_table.table([log]).splitlines() == [
        "| run | det AP | sem_seg mIoU |",
        "|---|---|---|",
        "| one | 12.3 | 55.5 |",
    ]
    second = log.with_name("two.json")
    second.write_text('{"det/bbox_mAP": 0.1434}\n')
    assert results_table.table([log, second]).splitlines()[2] == "| one | 13.3 ± 1.4 | 55.5 |"
    other = tmp_path / "two" / "scalars.json"
    other.parent.mkdir()
    other.write_text('{"cls/top1": 61.25}\n')
    assert results_table.table([log, other]).splitlines()[2:] == ["| one | - | 12.3 | 55.5 |", "| two | 61.2 | - | - |"]
    log.write_text('{"loss": 3}\n')
    with pytest.raises(MTAdaptError, match=r"scalars.json: holds no validation"):
        results_table.table([log])
    with pytest.raises(MTAdaptError, match=r"nothing.json: no log of scalars"):
        results_table.table([tmp_path / "nothing.json"])


def test_the_comparison_of_checkpoints(tmp_path: Path):
    """The report is that of the results beside it, and the page has its table."""
    from mtadapt.zoo.report import write_report

    logs = ROOT / "docs/logs/zoo_camvid"
    write_report(logs, tmp_path)
    made = (tmp_path / "report.md").read_text()
    text = " ".join((ROOT / "docs/zoo.md").read_text().split())
    rows = [line for line in made.splitlines() if re.match(r"\| (random|hvp|imagenet) +\| (single|\w*finetune)", line)]
    assert len(rows) > 12
    for row in rows[:12]:
        assert re.sub(r" \[\d\]", "", " ".join(row.split())) in text, row
