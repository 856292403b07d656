"""Driving scenes that are painted, with the labels of all three BDD100K tasks.

``render_scene`` paints one scene, ``write_bdd100k`` a dataset of them in BDD100K's own layout, ``write_heterogeneous``
one dataset a task in the layouts of ImageNet, COCO and ADE20K.
"""

from mtadapt.datasets.synthetic.heterogeneous_writer import write_heterogeneous
from mtadapt.datasets.synthetic.render import Scene, parse_size, render_scene
from mtadapt.datasets.synthetic.writer import write_bdd100k

__all__ = ["Scene", "parse_size", "render_scene", "write_bdd100k", "write_heterogeneous"]
