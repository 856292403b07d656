"""Heuristic pre-training on rendered scenes, in minutes on a CPU.

python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
python tools/train.py configs/hvp_synthetic.py
"""

_base_ = [
    "_base_/datasets/hvp_synthetic.py",
    "_base_/models/hvp_swin-nano.py",
    "_base_/schedules/iters_adamw_pretrain.py",
    "_base_/hvp_runtime.py",
]
model = dict(multi_label=dict(labels={{_base_.labels}}))
val_evaluator = [dict(type="MultiLabelMAP"), dict(type="KNNTop1", group="weather")]
test_evaluator = val_evaluator
