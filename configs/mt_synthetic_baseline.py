"""The three tasks on rendered scenes, in minutes on a CPU.

python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
python tools/train.py configs/mt_synthetic_baseline.py
"""

_base_ = [
    "_base_/datasets/synthetic.py",
    "_base_/models/mt_efficientnet-lite0_fpn.py",
    "_base_/schedules/epochs_adamw.py",
    "_base_/default_runtime.py",
]
