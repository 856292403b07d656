"""A submission with known mistakes, and the numbers that the official BDD100K tool gives for its files.

The tests import the generators. As a script it renews the numbers, in two steps: the package writes the files, and an
environment of the official packages judges them::

    python -m tests.test_apis.official_submission FOLDER
    python3 -m venv official && official/bin/pip install bdd100k==1.0.1 scalabel==0.3.1 'pydantic<2'
    official/bin/python tests/test_apis/official_submission.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_name("official_submission.json")
TASKS = ("det", "sem_seg", "drivable")
KEPT = ("AP", "AP50", "AP75", "APs", "APm", "APl", "IoU", "Acc", "fIoU", "pAcc")


def confused(truth: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """A map ``(H, W)`` in which a fifth of the blocks of 8 pixels have another class."""
    height, width = truth.shape
    blocks = (-(-height // 8), -(-width // 8))
    wrong = np.kron(rng.random(blocks) < 0.2, np.ones((8, 8), bool))[:height, :width]
    other = np.kron(rng.integers(0, classes, blocks), np.ones((8, 8), int))[:height, :width]
    return np.where(wrong | (truth == 255), other, truth).astype(np.uint8)


def moved(corners: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Boxes near those of the truth, some with another label, and some more; every score differs."""
    found = corners + rng.normal(0, 0.06, corners.shape) * np.tile(corners[:, 2:] - corners[:, :2], 2)
    labels = np.where(rng.random(len(labels)) < 0.15, rng.integers(0, 10, len(labels)), labels)
    start = rng.random((6, 2)) * (120, 60)
    extra = np.hstack([start, start + 2 + rng.random((6, 2)) * 30])
    found = np.vstack([found, extra]).astype(np.float32)
    labels = np.concatenate([labels, rng.integers(0, 10, 6)])
    return found, labels, rng.permutation(len(labels)) / len(labels) * 0.9 + rng.random() * 0.1


def digest(folder: Path) -> dict[str, str]:
    """Twelve digits of the content of every file, which tell it from others."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            content = json.dumps(json.loads(path.read_text()), sort_keys=True).encode()
        elif path.suffix == ".png":
            content = _pixels(path).tobytes()
        else:
            continue
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()[:12]
    return found


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def write(folder: Path) -> dict[str, Any]:
    """Render scenes to ``folder/data`` and write ``folder/bdd100k``; return the samples, by the stems of the images."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData, PixelData
    from mmseg.structures import SegDataSample

    from mtadapt.apis.outputs import BDD100KSubmission
    from mtadapt.apis.sources import FrameReader
    from mtadapt.datasets import BDD100KDataset
    from mtadapt.datasets.bdd100k_classes import METAINFO
    from mtadapt.datasets.synthetic import write_bdd100k
    from mtadapt.structures import MultiTaskDataSample

    write_bdd100k(folder / "data", train=1, val=6, size=(160, 96), seed=3, workers=1)
    dataset = BDD100KDataset(str(folder / "data"), split="val", test_mode=True)
    entries = {Path(dataset[row]["img_path"]).stem: dataset[row] for row in range(len(dataset))}
    output = BDD100KSubmission(folder / "bdd100k", METAINFO["tasks"])
    samples = {}
    for number, frame in enumerate(FrameReader(folder / "data/images/100k/val")):
        rng, entry = np.random.default_rng(number), entries[frame.name]
        sample = MultiTaskDataSample(metainfo=dict(img_path=frame.source, ori_shape=frame.image.shape[:2]))
        corners, labels, scores = map(torch.from_numpy, moved(entry["boxes"], entry["box_labels"], rng))
        instances = InstanceData(bboxes=corners, labels=labels, scores=scores)
        sample.set_task("det", DetDataSample(pred_instances=instances))
        for task in ("sem_seg", "drivable"):
            truth = _pixels(folder / f"data/labels/{task}/masks/val/{frame.name}.png")
            ids = confused(truth, len(METAINFO["tasks"][task]["classes"]), rng)
            seg_map = PixelData(data=torch.from_numpy(ids).long()[None])
            sample.set_task(task, SegDataSample(pred_sem_seg=seg_map))
        output.add(frame, sample, None)
        samples[frame.name] = sample
    output.finish()
    return samples


def score(folder: Path) -> None:
    """Run the official tool on what :func:`write` left, and write the golden file."""
    from bdd100k.eval.run import run

    golden: dict[str, Any] = dict(files=digest(folder / "bdd100k"))
    labels = folder / "data/labels"
    for task in TASKS:
        truth = labels / "det_20/det_val.json" if task == "det" else labels / task / "masks/val"
        result = folder / "bdd100k" / ("det.json" if task == "det" else task)
        out = folder / f"{task}_scores.json"
        sys.argv = ["run", "-t", task, "-g", str(truth), "-r", str(result), "--out-file", str(out)]
        sys.argv += ["--nproc", "1", "-q"]
        run()
        golden[task] = {name: value for name, value in json.loads(out.read_text()).items() if name in KEPT}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    if (Path(sys.argv[1]) / "bdd100k").exists():
        score(Path(sys.argv[1]))
    else:
        write(Path(sys.argv[1]))
