"""Comparison on painted scenes: three sources and tasks, one network.

python tools/train.py configs/het_synthetic_comparison/het.py
"""

_base_ = "../het_synthetic.py"
