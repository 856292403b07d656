"""Zoo files for tests, and a program in the place of ``tools/train.py`` that takes no time."""

from __future__ import annotations

from pathlib import Path

CONFIG = """
default_scope = "mtadapt"
model = dict(type="MultiTaskModel", backbone=dict(type="EfficientNetLite0", pretrained="package"))
train_dataloader = dict(batch_size=4, dataset=dict(type="BDD100KDataset"))
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
val_dataloader = dict(batch_size=4)
val_evaluator = dict(type="MultiTaskMetric")
val_cfg = dict(type="ValLoop")
behaviour = "finish"
a = b = "config"
"""

#: Leaves what a training leaves. The config's "behaviour" says how it ends.
STAND_IN = r"""
import json, os, re, signal, sys, time
from pathlib import Path

config, folder = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("--work-dir") + 1])
assert sys.argv[-1] == "--resume" and config.parent == folder, sys.argv
text = config.read_text()
behaviour = re.search(r"behaviour = '(.*)'", text)[1]
print("OMP_NUM_THREADS", os.environ["OMP_NUM_THREADS"], "CUDA", os.environ.get("CUDA_VISIBLE_DEVICES"))
stages = ["adapt", "finetune"] if "stages" in text else [""]
source = re.search(r"checkpoint=\s*'(.*)'", text)
for number, stage in enumerate(stages):
    place = folder / stage
    log = place / "20200101_00000{}".format(number) / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"lr": 0.1, "loss": 3.0, "step": 1}, {"det/bbox_mAP": 0.25 + number / 8, "time": 0.5, "step": 2}]
    if "single" in behaviour:
        lines[1] = {"coco/bbox_mAP": 0.5, "mIoU": 40.0, "step": 2}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines[: 1 if "blind" in behaviour else 2]))
    cost = dict(seconds=60.0, devices=2, device="toy", parameters=10, trainable=4 + number)
    (place / "cost.json").write_text(json.dumps(cost))
    if source and not number and "forget" not in behaviour:
        (place / "backbone_weights.json").write_text(json.dumps(dict(source=source[1], sha256="ab" * 32)))
started = folder / "starts"
starts = int(started.read_text()) + 1 if started.exists() else 1
started.write_text(str(starts))
if "crash" in behaviour or ("shaky" in behaviour and starts == 1):
    print("Traceback (most recent call last):\n  File")
    print(f"ValueError: {folder.resolve()}/x is bad\n\n")
    sys.exit(1)
if "killed" in behaviour:
    print("step 7", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if "sleep" in behaviour:
    child = os.fork()
    (folder / ("child" if child == 0 else "parent")).write_text(str(os.getpid()))
    time.sleep(60)
"""


def write_zoo(folder: Path, text: str, **configs: str) -> Path:
    """Write a zoo file, ``a.py`` and further configs below a folder; return the zoo file."""
    for name, content in dict(a="", **configs).items():
        (folder / f"{name}.py").write_text(CONFIG + content)
    path = folder / "zoo.yaml"
    path.write_text(text)
    return path
