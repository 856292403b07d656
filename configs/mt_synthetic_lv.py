"""LV-Adapter on rendered scenes, both stages in minutes on a CPU; everything it needs is in packages.

python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
python tools/train.py configs/mt_synthetic_lv.py
"""

_base_ = [
    "_base_/datasets/synthetic.py",
    "_base_/models/mt_efficientnet-lite0_fpn.py",
    "_base_/prompts/bdd100k.py",
    "_base_/schedules/adapt_finetune_adamw.py",
    "_base_/default_runtime.py",
]
model = dict(
    neck=[
        dict(type="mmdet.FPN", in_channels=[24, 40, 112, 320], out_channels=96, num_outs=5),
        dict(type="MultiScaleAdapter", in_channels=96),
    ],
    adapter=dict(
        type="LVAdapter",
        in_channels=96,
        prompts={{_base_.prompts}},
        text_encoder=dict(type="PrecomputedTextEmbeddings"),
    ),
)
