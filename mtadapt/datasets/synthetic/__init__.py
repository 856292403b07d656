"""Driving scenes that are painted, with the labels of all three BDD100K tasks.

``render_scene`` paints one scene, ``write_bdd100k`` a dataset of them in BDD100K's own layout.
"""

from mtadapt.datasets.synthetic.render import Scene, render_scene
from mtadapt.datasets.synthetic.writer import write_bdd100k

__all__ = ["Scene", "render_scene", "write_bdd100k"]
