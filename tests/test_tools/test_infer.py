"""tools/infer.py as a user runs it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import pytest

from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.errors import MTAdaptError
from tests.command_line import ROOT, last_line, run
from tests.test_apis.trained import Trained, trained_lv

INFER = ROOT / "tools/infer.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    folder = tmp_path_factory.mktemp("infer")
    write_bdd100k(folder / "data", train=1, val=3, size=(160, 96), seed=1, workers=1)
    return trained_lv(folder / "model", folder / "data"), folder / "data/images/100k/val"


@pytest.mark.slow
def test_a_folder_and_a_video_in_all_formats(trained: tuple[Trained, Path], tmp_path: Path):
    model, images = trained
    writer = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    paths = sorted(images.iterdir())
    for path in paths * 2:
        writer.write(cv2.imread(str(path)))
    writer.release()
    (tmp_path / "torn.jpg").write_bytes(paths[0].read_bytes()[:500])
    printed = run(
        INFER, model.config, model.checkpoint, images, "drive.avi", "torn.jpg", "--out-dir", "out", "--device", "cpu",
        "--batch-size", "2", "--formats", "scalabel", "coco", "masks", "--submission", "--stride", "2",
        "--on-error", "skip", "--max-frames", "2",
        cwd=tmp_path,
    )  # fmt: skip
    assert "images: 5, 1 skipped" in printed and "skipped: torn.jpg: truncated or not an image" in printed
    stems = [path.stem for path in paths]
    names = [*stems, "drive_000000", "drive_000002"]
    out = tmp_path / "out"
    frames = json.loads((out / "predictions.json").read_text())["frames"]
    assert [Path(frame["name"]).stem for frame in frames] == names
    assert [frame.get("frameIndex") for frame in frames] == [None, None, None, 0, 2]
    assert [frame["name"] for frame in json.loads((out / "bdd100k/det.json").read_text())] == [
        *(path.name for path in paths),
        "drive_000000.jpg",
        "drive_000002.jpg",
    ]
    for folder in ("bdd100k/sem_seg", "bdd100k/drivable", "masks/sem_seg", "masks/drivable"):
        assert sorted(path.stem for path in (out / folder).iterdir()) == sorted(names)
    assert {path.name for path in (out / "coco").iterdir()} == {
        "det.json", "sem_seg.json", "drivable.json", "images.json",
    }  # fmt: skip
    assert {path.name for path in (out / "pictures").iterdir()} == {*(f"{stem}.jpg" for stem in stems), "drive.mp4"}
    assert cv2.VideoCapture(str(out / "pictures/drive.mp4")).get(cv2.CAP_PROP_FPS) == 5


def test_mistakes_are_found_before_the_model_is_built(
    trained: tuple[Trained, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, images = trained
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, tmp_path / "again")
    (tmp_path / "out/pictures").mkdir(parents=True)
    main = runpy.run_path(str(INFER))["main"]
    for words, message in (
        (["nothing.jpg", "--out-dir", "new"], "nothing.jpg: no such file, folder or pattern"),
        ([images, images, "--out-dir", "new"], "their outputs would both be named"),
        ([images, "again", "--out-dir", "new", "--submission"], "in BDD100K's submission .*, which has no folders"),
        ([images, "--out-dir", "out"], "out/pictures: is there already; name another out_dir \\(--out-dir\\)"),
        ([images], "nothing would be left: give --out-dir, or --show"),
        (["--out-dir", "new"], "no inputs: name images"),
    ):
        # There is no such checkpoint, which building the model would say.
        monkeypatch.setattr(sys, "argv", [str(word) for word in (INFER, model.config, "none.pth", *words)])
        with pytest.raises(MTAdaptError, match=message):
            main()
    assert not (tmp_path / "new").exists()


def test_messages_name_options_that_there_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Settings of Python have the option of the command line beside them."""
    monkeypatch.setattr(sys, "argv", [str(INFER), "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(INFER))["parse_args"]()
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    apis = ROOT / "mtadapt/apis"
    sources = [path.read_text() for pattern in ("*.py", "sources/*.py", "outputs/*.py") for path in apis.glob(pattern)]
    named = {option for text in sources for option in re.findall(r"\((--[a-z-]+)", text)}
    assert named <= known
    assert {"--on-error", "--out-dir", "--no-pictures", "--max-download-mb", "--overwrite", "--show"} <= named


@pytest.mark.slow
def test_a_checkpoint_of_another_config(trained: tuple[Trained, Path], tmp_path: Path):
    model, images = trained
    other = ROOT / "configs/mt_synthetic_baseline.py"
    printed = run(INFER, other, model.checkpoint, images, "--out-dir", "new", cwd=tmp_path, code=2)
    assert "the checkpoint is of another model" in last_line(printed)
    assert "give the config that it was trained with" in last_line(printed)
