"""Comparison of adaptations on CamVid: lv_adapt_finetune with a quarter of the weight of the alignment losses.

python tools/train.py configs/camvid_adaptation/lv_weak_alignment.py
"""

_base_ = "lv_adapt_finetune.py"
model = dict(adapter=dict(align_weight=0.1))
