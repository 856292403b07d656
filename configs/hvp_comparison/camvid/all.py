"""Comparison of pre-trainings: transfer to the three tasks on CamVid, from all three branches together.

python tools/train.py configs/hvp_comparison/camvid/all.py
"""

_base_ = "random.py"
checkpoint = "work_dirs/hvp_comparison/pretrain/all/seed0"
