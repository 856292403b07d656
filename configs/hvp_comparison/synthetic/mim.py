"""Comparison of pre-trainings: transfer to the three tasks on rendered scenes, from masked image modelling alone.

python tools/train.py configs/hvp_comparison/synthetic/mim.py
"""

_base_ = "random.py"
checkpoint = "work_dirs/hvp_comparison/pretrain/mim/seed0"
