"""Comparison of pre-trainings: transfer to the three tasks on CamVid, from multi-label classification alone.

python tools/train.py configs/hvp_comparison/camvid/mlc.py
"""

_base_ = "random.py"
checkpoint = "work_dirs/hvp_comparison/pretrain/mlc/seed0"
