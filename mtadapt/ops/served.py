"""The ops that the fallback serves, by the name that mmcv loads them under."""

from __future__ import annotations

from collections.abc import Callable

from mtadapt.ops import boxes, deform, focal, masked_conv, roi


def get_compiler_version() -> str:
    """Return what ``mmcv.utils.collect_env`` prints as the compiler of mmcv's ops."""
    return "none (ops served by torchvision through mtadapt)"


def get_compiling_cuda_version() -> str:
    """Return what ``mmcv.utils.collect_env`` prints as the CUDA version of mmcv's ops."""
    return "not available"


SERVED_OPS: dict[str, Callable] = {
    function.__name__: function
    for function in (
        boxes.nms,
        boxes.softnms,
        boxes.nms_match,
        boxes.bbox_overlaps,
        roi.roi_align_forward,
        roi.roi_align_backward,
        roi.roi_pool_forward,
        roi.roi_pool_backward,
        focal.sigmoid_focal_loss_forward,
        focal.sigmoid_focal_loss_backward,
        focal.softmax_focal_loss_forward,
        focal.softmax_focal_loss_backward,
        deform.deform_conv_forward,
        deform.deform_conv_backward_input,
        deform.deform_conv_backward_parameters,
        deform.modulated_deform_conv_forward,
        deform.modulated_deform_conv_backward,
        deform.ms_deform_attn_forward,
        deform.ms_deform_attn_backward,
        masked_conv.masked_im2col_forward,
        masked_conv.masked_col2im_forward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
