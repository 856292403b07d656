"""One child registry of scope ``mtadapt`` for every MMEngine root.

The ``locations`` are imported when a registry is first asked for a name, so importing ``mtadapt`` stays cheap and a
component is found by its name alone. From another scope the names carry the prefix: ``dict(type='mtadapt.X')``.
"""

from mmengine import registry as root
from mmengine.registry import Registry

#: The libraries whose configs are built under their own scope, so that bare names inside mean that library's.
LIBRARIES = ("mmdet", "mmseg", "mmpretrain")


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope="mtadapt", locations=list(locations) or ["mtadapt"])


RUNNERS = _child(root.RUNNERS, "mtadapt.engine")
RUNNER_CONSTRUCTORS = _child(root.RUNNER_CONSTRUCTORS)
LOOPS = _child(root.LOOPS)
HOOKS = _child(root.HOOKS, "mtadapt.engine", "mtadapt.zoo")
STRATEGIES = _child(root.STRATEGIES, "mtadapt.engine")
DATASETS = _child(root.DATASETS, "mtadapt.datasets")
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, "mtadapt.datasets")
TRANSFORMS = _child(root.TRANSFORMS, "mtadapt.datasets.transforms")
MODELS = _child(root.MODELS, "mtadapt.models")
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS)
OPTIMIZERS = _child(root.OPTIMIZERS)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, "mtadapt.engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS)
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS)
METRICS = _child(root.METRICS, "mtadapt.evaluation")
EVALUATOR = _child(root.EVALUATOR)
TASK_UTILS = _child(root.TASK_UTILS)
VISUALIZERS = _child(root.VISUALIZERS, "mtadapt.visualization")
VISBACKENDS = _child(root.VISBACKENDS)
LOG_PROCESSORS = _child(root.LOG_PROCESSORS)
INFERENCERS = _child(root.INFERENCERS)
FUNCTIONS = _child(root.FUNCTIONS, "mtadapt.engine")
