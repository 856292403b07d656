"""LV-Adapter on CamVid; all but the frames comes from packages.

python tools/dataset_converters/camvid_to_bdd100k.py CAMVID data/camvid
python tools/train.py configs/mt_camvid_lv.py
"""

_base_ = [
    "_base_/datasets/camvid.py",
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
