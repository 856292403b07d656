"""Comparison on CIFAR-10, BCCD and CamVid: three sources and tasks, one network.

python tools/train.py configs/het_cifar_bccd_camvid_comparison/het.py
"""

_base_ = "../het_cifar_bccd_camvid.py"
