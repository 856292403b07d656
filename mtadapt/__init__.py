"""Multi-task adaptation of pretrained backbones on the OpenMMLab stack.

Importing the package makes stock models run on an mmcv without compiled ops (see :mod:`mtadapt.ops`) and imports
neither mmdet nor mmseg nor mmpretrain.
"""

from mtadapt.errors import MTAdaptError
from mtadapt.ops import activate as _activate_ops
from mtadapt.version import __version__

_activate_ops()

__all__ = ["MTAdaptError", "__version__"]
