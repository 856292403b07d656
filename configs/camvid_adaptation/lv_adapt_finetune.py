"""Comparison of adaptations on CamVid: pretrain-adapt-finetune with LV-Adapter.

python tools/train.py configs/camvid_adaptation/lv_adapt_finetune.py
"""

_base_ = ["adapt_finetune.py", "../_base_/prompts/bdd100k.py"]
model = dict(
    adapter=dict(
        _delete_=True,
        type="LVAdapter",
        in_channels=96,
        prompts={{_base_.prompts}},
        text_encoder=dict(type="PrecomputedTextEmbeddings"),
    )
)
