"""Comparison of pre-trainings: transfer to the three tasks on rendered scenes, from all three branches together.

python tools/train.py configs/hvp_comparison/synthetic/all.py
"""

_base_ = "random.py"
checkpoint = "work_dirs/hvp_comparison/pretrain/all/seed0"
