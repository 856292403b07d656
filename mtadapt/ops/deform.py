"""Deformable convolution by torchvision and multi-scale deformable attention by mmcv's own PyTorch function.

Tensors come in the order of the compiled ops, and numbers by the compiled ops' names, as mmcv passes them. ``columns``,
``ones`` and ``im2col_step`` belong to the compiled implementation and are not used here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtadapt.ops.precision import computed


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **kernel: int
) -> None:
    """Fill ``output`` with the deformable convolution of ``input``.

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(O, C / group, kH, kW)``.
        offset: ``(B, 2 * deformable_group * kH * kW, H_out, W_out)``, y before x.
        output: Output ``(B, O, H_out, W_out)``.
        columns: Unused.
        ones: Unused.
        **kernel: ``kW``, ``kH``, stride ``dW``, ``dH``, ``padW``, ``padH``, ``dilationW``, ``dilationH``, ``group``,
            ``deformable_group``, ``im2col_step`` (unused).

    Reference:
        Dai et al., Deformable Convolutional Networks, ICCV 2017.
    """
    mask, bias = _no_mask_and_bias(input, weight)
    output.copy_(_convolve(input, weight, offset, mask, bias, _geometry(kernel), use_mask=False))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **kernel: int,
) -> None:
    """Add the gradients of :func:`deform_conv_forward` by input and offset to ``grad_input`` and ``grad_offset``."""
    mask, bias = _no_mask_and_bias(input, weight)
    gradients = _convolve_backward(grad_output, input, weight, offset, mask, bias, _geometry(kernel), use_mask=False)
    grad_input += gradients[0]
    grad_offset += gradients[2]


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **kernel: int,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` by the weight to ``grad_weight``."""
    weight = torch.zeros_like(grad_weight)  # the gradient by the weight does not depend on its value
    mask, bias = _no_mask_and_bias(input, weight)
    gradients = _convolve_backward(grad_output, input, weight, offset, mask, bias, _geometry(kernel), use_mask=False)
    grad_weight += scale * gradients[1]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **kernel: int,
) -> None:
    """Fill ``output`` with the modulated deformable convolution of ``input``.

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(O, C / group, kernel_h, kernel_w)``.
        bias: ``(O,)``, or empty.
        ones: Unused.
        offset: ``(B, 2 * deformable_group * kernel_h * kernel_w, H_out, W_out)``, y before x.
        mask: ``(B, deformable_group * kernel_h * kernel_w, H_out, W_out)``.
        output: Output ``(B, O, H_out, W_out)``.
        columns: Unused.
        with_bias: Whether ``bias`` is given.
        **kernel: ``kernel_h``, ``kernel_w``, ``stride_h``, ``stride_w``, ``pad_h``, ``pad_w``, ``dilation_h``,
            ``dilation_w``, ``group``, ``deformable_group``.

    Reference:
        Zhu et al., Deformable ConvNets v2: More Deformable, Better Results, CVPR 2019.
    """
    bias = bias if with_bias else _no_mask_and_bias(input, weight)[1]
    output.copy_(_convolve(input, weight, offset, mask, bias, _modulated_geometry(kernel), use_mask=True))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **kernel: int,
) -> None:
    """Add the gradients of :func:`modulated_deform_conv_forward` to the five ``grad_*`` tensors."""
    used_bias = bias if with_bias else _no_mask_and_bias(input, weight)[1]
    gradients = _convolve_backward(
        grad_output, input, weight, offset, mask, used_bias, _modulated_geometry(kernel), use_mask=True
    )
    for total, gradient in zip((grad_input, grad_weight, grad_offset, grad_mask), gradients[:4], strict=True):
        total += gradient
    if with_bias:
        grad_bias += gradients[4]


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weigh the values sampled at each query's points.

    Args:
        value: Flattened maps ``(B, sum of H * W, heads, C)``.
        value_spatial_shapes: ``(levels, 2)``, height and width.
        value_level_start_index: Unused, it follows from the shapes.
        sampling_locations: ``(B, Q, heads, levels, points, 2)``, x and y in ``[0, 1]``.
        attention_weights: ``(B, Q, heads, levels, points)``.
        im2col_step: Unused.

    Returns:
        ``(B, Q, heads * C)``.

    Reference:
        Zhu et al., Deformable DETR: Deformable Transformers for End-to-End Object Detection, ICLR 2021.
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # As numbers the shapes cost one transfer from the device; as tensors they would cost several for each level.
    shapes = value_spatial_shapes.tolist()
    inputs = [computed(tensor, like=value) for tensor in (value, sampling_locations, attention_weights)]
    return multi_scale_deformable_attn_pytorch(inputs[0], shapes, *inputs[1:]).to(value)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the three ``grad_*`` tensors, by computing :func:`ms_deform_attn_forward` again under autograd."""
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
        output = ms_deform_attn_forward(
            inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2], im2col_step
        )
        gradients = torch.autograd.grad(output, inputs, grad_output)
    for total, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        total.copy_(gradient)


def _geometry(kernel: dict[str, int]) -> tuple[int, ...]:
    names = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
    return tuple(kernel[name] for name in names)


def _modulated_geometry(kernel: dict[str, int]) -> tuple[int, ...]:
    names = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "group", "deformable_group")
    return tuple(kernel[name] for name in names)


def _convolve(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, geometry: tuple[int, ...], use_mask: bool
) -> Tensor:
    tensors = [computed(tensor, like=input) for tensor in (input, weight, offset, mask, bias)]
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, use_mask)


def _convolve_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    geometry: tuple[int, ...],
    use_mask: bool,
) -> tuple[Tensor, ...]:
    """Gradients by input, weight, offset, mask and bias."""
    tensors = [computed(tensor, like=input) for tensor in (grad_output, input, weight, offset, mask, bias)]
    gradients = list(torch.ops.torchvision._deform_conv2d_backward(*tensors, *geometry, use_mask))
    gradients[2] = gradients[2].masked_fill(_outside(tensors[3], weight.shape[2:], geometry), 0)
    return tuple(gradients)


def _outside(offset: Tensor, kernel_size: tuple[int, ...], geometry: tuple[int, ...]) -> Tensor:
    """Find the sampling points at or beyond -1, ``(B, 2 * deformable_group * kH * kW, H_out, W_out)``.

    Exactly at -1, where padding and the initial offset 0 put the points of the border, the sample has a kink.
    torchvision takes the slope on the inner side, mmcv that on the outer side, which is 0.
    """
    points = offset.unflatten(1, (-1, kernel_size[0] * kernel_size[1], 2))
    outside = []
    for axis in (0, 1):
        stride, padding, dilation = geometry[axis], geometry[2 + axis], geometry[4 + axis]
        start = torch.arange(offset.shape[2 + axis], device=offset.device) * stride - padding
        tap = torch.arange(kernel_size[axis], device=offset.device) * dilation
        tap = tap.repeat_interleave(kernel_size[1]) if axis == 0 else tap.repeat(kernel_size[0])
        position = tap[:, None, None] + (start[:, None] if axis == 0 else start)
        outside.append(points[:, :, :, axis] + position <= -1)
    return (outside[0] | outside[1])[:, :, :, None].expand_as(points).reshape(offset.shape)


def _no_mask_and_bias(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return input.new_zeros(input.shape[0], 1), input.new_zeros(weight.shape[0])
