"""LV-Adapter on BDD100K: language priors of CLIP with learnable contexts for each task; 12 epochs, R-50 FPN.

bash tools/dist_train.sh configs/mt_bdd_lv.py 8

pretrained takes a tag of open_clip, whose weights are fetched once, or a file.
"""

_base_ = [
    "_base_/datasets/bdd100k.py",
    "_base_/models/mt_r50_fpn.py",
    "_base_/prompts/bdd100k.py",
    "_base_/schedules/adapt_finetune_12e.py",
    "_base_/default_runtime.py",
]
model = dict(
    neck=[
        dict(type="mmdet.FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
        dict(type="MultiScaleAdapter", in_channels=256),
    ],
    adapter=dict(
        type="LVAdapter",
        in_channels=256,
        prompts={{_base_.prompts}},
        contexts=dict(length=8),
        text_encoder=dict(type="OpenCLIPTextEncoder", model="RN50", pretrained="openai"),
    ),
)
