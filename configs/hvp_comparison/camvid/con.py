"""Comparison of pre-trainings: transfer to the three tasks on CamVid, from contrastive learning alone.

python tools/train.py configs/hvp_comparison/camvid/con.py
"""

_base_ = "random.py"
checkpoint = "work_dirs/hvp_comparison/pretrain/con/seed0"
