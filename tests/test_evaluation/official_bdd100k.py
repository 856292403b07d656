"""Inputs with a fixed seed, and the numbers that the official BDD100K tool gives for them.

The tests import the generators. Run as a script, in an environment of the official packages, it renews the numbers::

    python3 -m venv official && official/bin/pip install bdd100k==1.0.1 scalabel==0.3.1 'pydantic<2'
    official/bin/python tests/test_evaluation/official_bdd100k.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("official_bdd100k.json")
CLASSES = (
    "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light", "traffic sign",
)  # fmt: skip
IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}


def detection_frames(seed: int = 0, images: int = 14) -> list[dict]:
    """Frames with ``labels`` and ``predictions`` as (category, crowd, box) and (category, score, box).

    Boxes are x1, y1, x2, y2 with the last pixel included. Frame 3 has no labels, frame 5 no predictions and frame 7
    more than 100 predictions of one class; every score differs.
    """
    rng = np.random.default_rng(seed)

    def box(scale: float) -> np.ndarray:
        size = np.exp(rng.normal(np.log(scale), 0.5, 2)).clip(4, 500).astype(int)
        start = (rng.random(2) * (np.array([1280, 720]) - size - 1)).astype(int)
        return np.concatenate([start, start + size])

    frames = []
    for i in range(images):
        count = 0 if i == 3 else int(rng.integers(5, 25))
        labels, predictions = [], []
        for _ in range(count):
            name = str(rng.choice([*CLASSES, *IGNORED]))
            labels.append((name, bool(rng.random() < 0.08), box(rng.choice([15, 60, 200]))))
            for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.6, 0.2]))):
                jitter = np.rint(rng.normal(0, 0.08, 4) * np.tile(labels[-1][2][2:] - labels[-1][2][:2], 2)).astype(int)
                predicted = labels[-1][2] + jitter
                predicted[2:] = np.maximum(predicted[2:], predicted[:2] + 2)
                confused = str(rng.choice(CLASSES))
                predictions.append((IGNORED.get(name, name) if rng.random() < 0.85 else confused, 0.4, predicted))
        for _ in range(int(rng.integers(0, 8))):
            predictions.append((str(rng.choice(CLASSES)), 0.0, box(60)))
        for _ in range(300 if i == 7 else 0):
            predictions.append(("car", 0.0, box(60)))
        if i == 7:  # found, but only beyond the first 100
            labels.append(("car", False, box(60)))
            predictions.append(("car", -1.0, labels[-1][2]))
        frames.append({"name": f"{i:04d}.jpg", "labels": labels, "predictions": [] if i == 5 else predictions})
    chances = np.array([better for frame in frames for _, better, _ in frame["predictions"]])
    ranks = np.argsort(np.argsort(chances + rng.random(len(chances))))
    scores = iter((ranks + 1) / (len(ranks) + 1))
    for frame in frames:
        frame["predictions"] = [(name, float(next(scores)), found) for name, _, found in frame["predictions"]]
    return frames


def maps(
    classes: int, absent: int | None = None, seed: int = 0, images: int = 6
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of ground truth and prediction, maps (48, 64) uint8, with 255 in the ground truth.

    With ``absent``, no ground truth holds this class, but some predictions do.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        truth = np.kron(rng.integers(0, classes, (6, 8)), np.ones((8, 8), int)).astype(np.uint8)
        predicted = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, classes, truth.shape), truth)
        if absent is not None:
            truth[truth == absent] = (absent + 1) % classes
        truth[rng.random(truth.shape) < 0.05] = 255
        pairs.append((truth, predicted.astype(np.uint8)))
    return pairs


MAP_CASES = {
    "sem_seg": ("sem_seg", {"classes": 19}),
    "sem_seg_absent": ("sem_seg", {"classes": 19, "absent": 16}),
    "drivable": ("drivable", {"classes": 3}),
    "drivable_absent": ("drivable", {"classes": 3, "absent": 1}),
    "drivable_no_background": ("drivable", {"classes": 3, "absent": 2}),
}


def _official(task: str, truth: Path, result: Path) -> dict:
    """Run the official command line and return what it writes."""
    from bdd100k.eval.run import run

    out = result.parent / "scores.json"
    sys.argv = ["run", "-t", task, "-g", str(truth), "-r", str(result), "--out-file", str(out), "--nproc", "1", "-q"]
    run()
    return json.loads(out.read_text())


def _official_det(frames: list[dict], folder: Path) -> dict:
    def label(name: str, number: int, box: np.ndarray, **extra: object) -> dict:
        corners = dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True))
        return {"id": str(number), "category": name, "box2d": corners, **extra}

    truth, result = [], []
    for frame in frames:
        labels = [label(n, i, box, attributes={"crowd": crowd}) for i, (n, crowd, box) in enumerate(frame["labels"])]
        found = [label(n, i, box, score=score) for i, (n, score, box) in enumerate(frame["predictions"])]
        truth.append({"name": frame["name"], "labels": labels or None})
        result.append({"name": frame["name"], "labels": found})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "result.json").write_text(json.dumps(result))
    return _official("det", folder / "truth.json", folder / "result.json")


def _official_maps(task: str, pairs: list[tuple[np.ndarray, np.ndarray]], folder: Path) -> dict:
    from PIL import Image

    for i, (truth, predicted) in enumerate(pairs):
        for name, array in (("truth", truth), ("result", predicted)):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / name / f"{i:04d}.png")
    return _official(task, folder / "truth", folder / "result")


def main() -> None:
    """Run the official tool on every input and write the golden file."""
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        golden["det"] = _official_det(detection_frames(), Path(folder))
    silent = [{**frame, "predictions": []} for frame in detection_frames()]
    with tempfile.TemporaryDirectory() as folder:
        golden["det_silent"] = _official_det(silent, Path(folder))
    for case, (task, settings) in MAP_CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            golden[case] = _official_maps(task, maps(**settings), Path(folder))
    keep = {"AP", "AP50", "AP75", "APs", "APm", "APl", "IoU", "Acc", "fIoU", "pAcc"}
    golden = {case: {k: v for k, v in numbers.items() if k in keep} for case, numbers in golden.items()}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
