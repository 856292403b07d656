"""One child registry of scope ``mtadapt`` for every MMEngine root that the package adds to.

The ``locations`` are imported when a registry is first asked for a name, so importing ``mtadapt`` stays cheap and a
component is found by its name alone. From another scope the names carry the prefix: ``dict(type='mtadapt.X')``.
"""

from mmengine import registry as root
from mmengine.registry import Registry

MODELS = Registry("model", parent=root.MODELS, scope="mtadapt", locations=["mtadapt.models"])
DATASETS = Registry("dataset", parent=root.DATASETS, scope="mtadapt", locations=["mtadapt.datasets"])
TRANSFORMS = Registry("transform", parent=root.TRANSFORMS, scope="mtadapt", locations=["mtadapt.datasets.transforms"])
METRICS = Registry("metric", parent=root.METRICS, scope="mtadapt", locations=["mtadapt.evaluation"])
HOOKS = Registry("hook", parent=root.HOOKS, scope="mtadapt", locations=["mtadapt.engine"])
VISUALIZERS = Registry("visualizer", parent=root.VISUALIZERS, scope="mtadapt", locations=["mtadapt.visualization"])
