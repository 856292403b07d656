"""torchvision behind mmcv's missing compiled ops.

An mmcv that was installed without a compiler has no ``mmcv._ext``, and then ``mmcv.ops`` and ``mmdet.models`` cannot
be imported. :func:`activate` puts a module of that name into ``sys.modules`` whose functions are called as the compiled
ones are, so that mmcv's own Python layer, and every stock model on top of it, runs unchanged. An op that is not served
is a stub: it satisfies mmcv's import and raises when it is called. Where compiled ops are present nothing is done at
all. ``import mtadapt`` calls :func:`activate`. The served ops are listed in :mod:`mtadapt.ops.served`.

Known differences from the compiled ops:

- float16 and bfloat16 inputs are computed in float32 and rounded once; float64 is served throughout.
- A box of negative size gives zeros in ``roi_align`` with an adaptive sampling ratio (compiled: zeros on CUDA, an error
  on CPU); ``pool_mode='max'`` is not served.
- ``sigmoid_focal_loss`` uses ``logsigmoid`` and stays exact for large logits, where the compiled kernel saturates.
- ``roi_pool`` sends no gradient through a box without area (compiled: to the first pixel).
"""

from mtadapt.ops.activation import activate, build_fallback

__all__ = ["activate", "build_fallback"]
