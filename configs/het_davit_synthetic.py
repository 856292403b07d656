"""het_moe_synthetic.py with the dense twin of its backbone, for comparison.

python tools/train.py configs/het_davit_synthetic.py
"""

_base_ = "het_moe_synthetic.py"
model = dict(backbone=dict(mlp_experts=None))
