"""Comparison of pre-trainings: transfer to the three tasks on CamVid, from masked image modelling alone.

python tools/train.py configs/hvp_comparison/camvid/mim.py
"""

_base_ = "random.py"
checkpoint = "work_dirs/hvp_comparison/pretrain/mim/seed0"
