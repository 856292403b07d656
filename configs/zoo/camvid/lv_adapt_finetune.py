"""The zoo on CamVid at 240x180, pretrain-adapt-finetune with multi-scale adapters and LV-Adapter.

python tools/train.py configs/zoo/camvid/lv_adapt_finetune.py
"""

_base_ = ["adapt_finetune.py", "../../_base_/prompts/bdd100k.py"]
model = dict(
    neck=[
        dict(type="mmdet.FPN", in_channels=[24, 40, 112, 320], out_channels=96, num_outs=5),
        dict(type="MultiScaleAdapter", in_channels=96),
    ],
    adapter=dict(
        _delete_=True,
        type="LVAdapter",
        in_channels=96,
        prompts={{_base_.prompts}},
        text_encoder=dict(type="PrecomputedTextEmbeddings"),
    ),
)
