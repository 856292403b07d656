"""The inferencer against the test loop, on all tasks, and what it refuses."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from PIL import Image

from mtadapt.apis import MultiTaskInferencer
from mtadapt.apis.sources.entries import Entry
from mtadapt.engine import build_runner
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

from .trained import Trained

TASKS = ("det", "sem_seg", "drivable")


def assert_same(one: Any, two: Any, exact: bool = True) -> None:
    """Compare the predictions of one image: a sample and a sample, or what DumpResults made of one."""
    read = lambda native, field: native[field] if isinstance(native, dict) else native.get(field)  # noqa: E731
    native = lambda sample, task: sample[task] if isinstance(sample, dict) else sample.task(task)  # noqa: E731
    boxes, others = (read(native(sample, "det"), "pred_instances") for sample in (one, two))
    assert len(boxes["labels"]) > 0
    if exact:
        assert all(torch.equal(boxes[field], others[field]) for field in ("labels", "bboxes", "scores"))
    else:
        # Random weights enlarge rounding, and boxes of nearly the same score change places.
        near = (boxes["bboxes"][:, None] - others["bboxes"]).abs().amax(2) < 0.5
        near &= (boxes["scores"][:, None] - others["scores"]).abs() < 1e-3
        near &= boxes["labels"][:, None] == others["labels"]
        assert min(near.any(1).float().mean(), near.any(0).float().mean()) > 0.94
    for task in ("sem_seg", "drivable"):
        maps = [read(native(sample, task), "pred_sem_seg") for sample in (one, two)]
        first, second = (each["data"] if isinstance(each, dict) else each.data for each in maps)
        assert first.shape == second.shape and len(first.unique()) > 1
        assert (first == second).float().mean() >= (1 if exact else 0.9999)


@pytest.fixture(scope="module")
def dumped(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What the test loop predicts, by the name of the image."""
    folder = tmp_path_factory.mktemp("dumped")
    config = Config.fromfile(trained.config)
    config.load_from, config.work_dir, config.experiment_name = str(trained.checkpoint), str(folder), "dumped"
    config.test_evaluator = [config.test_evaluator, dict(type="DumpResults", out_file_path=str(folder / "all.pkl"))]
    config.default_hooks.pop("visualization")
    build_runner(config).test()
    return {Path(sample["img_path"]).name: sample for sample in load(folder / "all.pkl")}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_are_those_of_the_test_loop(
    inferencer: MultiTaskInferencer, dumped: dict[str, dict], data: Path, batch_size: int
):
    result = inferencer(str(data / "images/100k/val"), return_datasamples=True, batch_size=batch_size)
    assert result["images"] == len(result["predictions"]) == len(dumped) == 5
    for sample in result["predictions"]:
        assert isinstance(sample, MultiTaskDataSample) and set(sample.tasks) == set(TASKS)
        assert_same(sample, dumped[Path(sample.img_path).name], exact=batch_size == 1)


def test_every_kind_of_input_gives_the_same(inferencer: MultiTaskInferencer, scenes: list[Path]):
    image = cv2.imread(str(scenes[0]))
    expected = inferencer.predict_image(image)
    inputs = [str(scenes[0]), scenes[0], f"{scenes[0].parent}/{scenes[0].stem[:8]}*.jpg", scenes[0].as_uri(), image]
    for each in inputs:
        for given in (each, [each]):
            (found,) = inferencer(given, return_datasamples=True)["predictions"]
            assert_same(found, expected)
    assert [frame.name for frame, _ in inferencer.stream(scenes[:2])] == [path.stem for path in scenes[:2]]


def test_one_task_alone_gives_what_all_give(inferencer: MultiTaskInferencer, scenes: list[Path]):
    image = cv2.imread(str(scenes[1]))
    together = inferencer.predict_image(image)
    for task in TASKS:
        alone = inferencer.predict_image(image, tasks=task)
        assert alone.tasks == (task,)
        if task == "det":
            assert torch.equal(alone.det.pred_instances.bboxes, together.det.pred_instances.bboxes)
        else:
            assert torch.equal(alone.task(task).pred_sem_seg.data, together.task(task).pred_sem_seg.data)


def test_images_of_other_sizes_do_not_share_a_batch(inferencer: MultiTaskInferencer, scenes: list[Path]):
    """Padding to the largest one would change what the others give."""
    images = [cv2.resize(cv2.imread(str(scenes[0])), size) for size in ((160, 96), (160, 96), (96, 64), (200, 90))]
    sizes = []
    for batch in inferencer.preprocess(images, batch_size=4):
        sizes.append([each.frame.image.shape[1::-1] for each in batch])
    assert sizes == [[(160, 96), (160, 96)], [(96, 64)], [(200, 90)]]
    samples = inferencer.predict_images(images)
    for image, sample in zip(images, samples, strict=True):
        assert sample.sem_seg.pred_sem_seg.data.shape[-2:] == image.shape[:2]
    assert_same(samples[2], inferencer.predict_image(images[2]))


def test_predictions_are_in_the_size_of_the_image(trained: Trained, scenes: list[Path]):
    """With a pipeline that resizes, as that of BDD100K does."""
    pipeline = [
        dict(type="LoadImage"),
        dict(type="mmdet.Resize", scale=(320, 192), keep_ratio=True),
        dict(type="LoadMultiTaskAnnotations"),
        dict(type="PackMultiTaskInputs"),
    ]
    larger = MultiTaskInferencer(
        trained.config,
        trained.checkpoint,
        device="cpu",
        show_progress=False,
        cfg_options={"test_dataloader.dataset.pipeline": pipeline},
    )
    image = cv2.imread(str(scenes[0]))
    (batch,) = larger.preprocess([image])
    assert batch[0].packed[0][1]["inputs"].shape == (3, 192, 320)
    sample = larger.predict_image(image)
    assert sample.drivable.pred_sem_seg.data.shape == (1, 96, 160)
    corners = sample.det.pred_instances.bboxes
    assert 80 < corners[:, 2].max() <= 160 and 48 < corners[:, 3].max() <= 96


def test_the_config_in_the_checkpoint_is_enough(
    inferencer: MultiTaskInferencer, trained: Trained, scenes: list[Path], tmp_path: Path
):
    image = cv2.imread(str(scenes[0]))
    carried = MultiTaskInferencer(weights=trained.checkpoint, device="cpu", show_progress=False)
    # Its settings are in the order of the alphabet, so that the contexts of the tasks are summed in another one.
    assert set(carried.tasks) == set(inferencer.tasks) and carried.tasks != inferencer.tasks
    assert_same(carried.predict_image(image), inferencer.predict_image(image), exact=False)
    assert carried.dataset_meta == inferencer.dataset_meta
    torn = tmp_path / "epoch_2.pth"
    torn.write_bytes(trained.checkpoint.read_bytes()[:1000])
    shutil.copy(trained.checkpoint, tmp_path / "epoch_1.pth")
    newest = MultiTaskInferencer(trained.config, tmp_path, device="cpu")
    assert newest.checkpoint == tmp_path / "epoch_1.pth"


def test_classes_come_from_the_config_where_the_checkpoint_has_none(trained: Trained, tmp_path: Path):
    content = torch.load(trained.checkpoint)
    torch.save(content["state_dict"], tmp_path / "weights.pth")
    made = MultiTaskInferencer(trained.config, tmp_path / "weights.pth", device="cpu")
    assert made.dataset_meta["tasks"]["det"]["classes"][2] == "car"
    assert made.dataset_meta["tasks"]["drivable"]["palette"][0] == (219, 94, 86)
    with pytest.raises(MTAdaptError, match="carries no config; give the config"):
        MultiTaskInferencer(None, tmp_path / "weights.pth")


def test_nothing_of_a_checkpoint_is_executed(trained: Trained, tmp_path: Path):
    content = torch.load(trained.checkpoint)
    witness = tmp_path / "executed"
    content["meta"]["cfg"] = f"import os\nmodel = os.mkdir({str(witness)!r})\n"
    torch.save(content, tmp_path / "text.pth")
    with pytest.raises(MTAdaptError, match="cannot be read safely"):
        MultiTaskInferencer(None, tmp_path / "text.pth")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(witness),)

    torch.save(dict(state_dict=content["state_dict"], meta=Evil()), tmp_path / "pickle.pth")
    with pytest.raises(MTAdaptError, match="no checkpoint that can be read safely"):
        MultiTaskInferencer(trained.config, tmp_path / "pickle.pth")
    assert not witness.exists()


def test_a_checkpoint_of_another_config_is_refused(trained: Trained, tmp_path: Path):
    state = torch.load(trained.checkpoint)["state_dict"]
    first = next(iter(state))
    broken = dict(
        short={name: value for name, value in state.items() if name != first},
        long={**state, "other.weight": torch.zeros(1)},
        shape={**state, first: state[first][:1]},
    )
    for name, content in broken.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(MTAdaptError, match=rf"model.py, .*{name}.pth: the checkpoint is of another model") as error:
            MultiTaskInferencer(trained.config, tmp_path / f"{name}.pth")
        assert ("other.weight" if name == "long" else first) in str(error.value)
    with pytest.raises(MTAdaptError, match="no such file; give a checkpoint"):
        MultiTaskInferencer(trained.config, tmp_path / "none.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MTAdaptError, match="a folder without checkpoints"):
        MultiTaskInferencer(trained.config, tmp_path / "empty")
    with pytest.raises(MTAdaptError, match="weights=None; give a checkpoint"):
        MultiTaskInferencer(trained.config)
    with pytest.raises(MTAdaptError, match="device='cuda:77': not usable here"):
        MultiTaskInferencer(trained.config, trained.checkpoint, device="cuda:77")
    stock = tmp_path / "stock.py"
    stock.write_text("model = dict(type='mmdet.FCOS')\n")
    with pytest.raises(MTAdaptError, match="its model is no MultiTaskModel"):
        MultiTaskInferencer(stock, trained.checkpoint)


def test_mistakes_of_a_call(inferencer: MultiTaskInferencer, scenes: list[Path], tmp_path: Path):
    image = np.zeros((32, 32, 3), np.uint8)
    wrong: list[tuple[dict, str]] = [
        (dict(inputs=image, tasks=["depth"]), r"tasks=\['depth'\]: the model has"),
        (dict(inputs=image.astype(np.float32)), r"image: float32 \(32, 32, 3\); give a BGR array"),
        (dict(inputs=image, batch_size=0), "batch_size=0"),
        (dict(inputs=image, submission=True), "submission=True: writes files; set out_dir"),
        (dict(inputs=image, out_dir=str(tmp_path), formats=["voc"]), "'voc' is unknown; known: scalabel, coco, masks"),
        (dict(inputs=0), "a camera has no end"),
        (dict(inputs=image, on_error="ignore"), "on_error='ignore'; known: raise, skip"),
        (dict(inputs=image, stride=0), "stride=0"),
        (dict(inputs=image, prefetch=-3), "prefetch=-3; write a number from 0"),
        (dict(inputs=image, pred_score_thr=7), r"pred_score_thr=7 \(--score-thr\); write a number from 0 to 1"),
        (dict(inputs=image, pred_score_thr=float("nan")), "pred_score_thr=nan"),
    ]
    for call, message in wrong:
        with pytest.raises(MTAdaptError, match=message):
            inferencer(**call)
    with pytest.raises(MTAdaptError, match="prefetch=-1"):
        next(inferencer.stream(image, prefetch=-1))
    with pytest.raises(MTAdaptError, match="batch_size=0"):
        next(inferencer.stream(image, batch_size=0))
    with pytest.raises(MTAdaptError, match=r"pred_score_thr=-0\.5"):
        inferencer.draw(image, inferencer.predict_image(image), pred_score_thr=-0.5)
    with pytest.raises(ValueError, match="unknown argument"):
        inferencer(image, colour="red")
    assert not any(tmp_path.iterdir())


def test_an_unreadable_image_is_named_or_skipped(inferencer: MultiTaskInferencer, scenes: list[Path], tmp_path: Path):
    for path in scenes[:2]:
        shutil.copy(path, tmp_path / path.name)
    # Behind one that can be read, so that something is written when the run ends.
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(scenes[0].read_bytes()[:2000])
    out = tmp_path / "out"
    message = r"torn\.jpg: truncated or not an image.*; replace the file, or set on_error='skip' \(--on-error skip\)"
    with pytest.raises(MTAdaptError, match=message):
        inferencer(tmp_path, out_dir=out, tasks="drivable")
    assert not out.exists()
    done = inferencer(tmp_path, out_dir=out, tasks="drivable", on_error="skip")
    assert (done["images"], done["skipped"]) == (2, 1)
    assert {path.name for path in out.iterdir()} == {"predictions.json", "pictures"}
    with pytest.raises(MTAdaptError, match="none of the 1 inputs can be read"):
        inferencer(torn, on_error="skip")


def test_folders_with_files_of_one_name(inferencer: MultiTaskInferencer, scenes: list[Path], tmp_path: Path):
    for path, name in zip(scenes, ("a/0001", "b/0001", "b/0002"), strict=False):
        (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "frames" / f"{name}.jpg")
    out = tmp_path / "out"
    given = f"{tmp_path}/frames/**/*.jpg"
    inferencer(given, out_dir=out, tasks="drivable", formats=("scalabel", "coco", "masks"))
    names = ["a/0001", "b/0001", "b/0002"]
    for folder in ("pictures", "masks/drivable"):
        files = sorted(path for path in (out / folder).rglob("*") if path.is_file())
        assert [path.relative_to(out / folder).with_suffix("").as_posix() for path in files] == names
    for number, name in enumerate(names):
        expected = inferencer.predict_image(cv2.imread(str(scenes[number]))).drivable.pred_sem_seg.data[0]
        assert np.array_equal(cv2.imread(str(out / f"masks/drivable/{name}.png"), 0), expected)
    assert [frame["name"] for frame in load(out / "predictions.json")["frames"]] == [f"{name}.jpg" for name in names]
    with pytest.raises(MTAdaptError, match=r"in BDD100K's submission .*, which has no folders"):
        inferencer(given, out_dir=tmp_path / "new", submission=True)
    assert not (tmp_path / "new").exists()


def test_a_camera_that_is_stopped_leaves_complete_files(
    inferencer: MultiTaskInferencer, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "recorded.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    for _ in range(5):
        writer.write(cv2.imread(str(scenes[0])))
    writer.release()
    # OpenCV opens a recording as it opens a camera.
    camera = Entry("camera", "camera0", str(path))
    monkeypatch.setattr("mtadapt.apis.sources.reader.expand_inputs", lambda inputs: [camera])
    forward, calls = inferencer.forward, itertools.count()

    def stopped(batch: Any) -> list[MultiTaskDataSample]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return forward(batch)

    monkeypatch.setattr(inferencer, "forward", stopped)
    done = inferencer(0, tasks="drivable", out_dir=tmp_path / "out", formats=["masks"], return_predictions=False)
    assert done["images"] == 3 and set(done["outputs"]) == {tmp_path / "out/masks", tmp_path / "out/pictures"}
    capture = cv2.VideoCapture(str(tmp_path / "out/pictures/camera0.mp4"))
    assert sum(capture.read()[0] for _ in range(5)) == 3
    assert len(list((tmp_path / "out/masks/drivable").iterdir())) == 3
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"masks", "pictures"}


def test_show_without_a_display(inferencer: MultiTaskInferencer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MTAdaptError, match=r"show: there is no display .*; leave out show \(--show\)"):
        inferencer(np.zeros((32, 32, 3), np.uint8), show=True)


def test_pictures_have_the_colours_of_the_image(inferencer: MultiTaskInferencer, tmp_path: Path):
    """A blue image without boxes stays blue: returned as RGB, and in the file for whatever opens it."""
    blue = np.full((96, 160, 3), (255, 0, 0), np.uint8)
    out = inferencer(blue, tasks="det", pred_score_thr=1, return_vis=True, out_dir=tmp_path / "out")
    (picture,) = out["visualization"]
    assert np.array_equal(picture[28 + 200, 320], (0, 0, 255))
    with Image.open(tmp_path / "out/pictures/000000.jpg") as written:
        np.testing.assert_allclose(written.convert("RGB").getpixel((320, 28 + 200)), (0, 0, 255), atol=3)


def test_pictures_show_the_predictions(inferencer: MultiTaskInferencer, scenes: list[Path]):
    image = cv2.imread(str(scenes[0]))
    sample = inferencer.predict_image(image)
    one = inferencer.draw(image, sample)
    (same,) = inferencer(image, return_vis=True)["visualization"]
    assert np.array_equal(one, same) and one.shape[1] == 640
    only = inferencer.draw(image, sample, tasks="sem_seg")
    assert only.shape[0] < one.shape[0]
    # Below the title of its only panel is the map over the image, RGB.
    ids = sample.sem_seg.pred_sem_seg.data[0].numpy()
    palette = np.array(inferencer.dataset_meta["tasks"]["sem_seg"]["palette"])
    expected = 0.5 * image[50, 80, ::-1] + 0.5 * palette[ids[50, 80]]
    np.testing.assert_allclose(only[28 + 50 * 4 + 2, 80 * 4 + 2], expected, atol=25)
