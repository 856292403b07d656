"""Sigmoid and softmax focal loss, without reduction, with their gradients.

Reference:
    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtadapt.ops.precision import computed


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of each logit.

    Args:
        input: Logits ``(N, C)``.
        target: Class of each row ``(N,)`` int64; a value outside ``[0, C)`` is background.
        weight: Class weights ``(C,)``, or empty. Ours: background rows weigh 1 (compiled: read past the end).
        output: Output ``(N, C)``.
        gamma: Focusing exponent.
        alpha: Weight of the positive logits; the negative ones have ``1 - alpha``.
    """
    logits = computed(input)
    positive = -alpha * torch.sigmoid(-logits) ** gamma * F.logsigmoid(logits)
    negative = -(1 - alpha) * torch.sigmoid(logits) ** gamma * F.logsigmoid(-logits)
    output.copy_(torch.where(_one_hot(target, logits), positive, negative) * _row_weight(target, weight, logits))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` ``(N, C)`` with the derivative of :func:`sigmoid_focal_loss_forward`."""
    logits = computed(input)
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(logits))
    negative = -(1 - alpha) * p**gamma * (gamma * q * F.logsigmoid(-logits) - p)
    grad_input.copy_(torch.where(_one_hot(target, logits), positive, negative) * _row_weight(target, weight, logits))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of each row.

    Args:
        input: Softmax probabilities ``(N, C)``.
        target: Class of each row ``(N,)`` int64; a value outside ``[0, C)`` gives 0.
        weight: Class weights ``(C,)``, or empty.
        output: Output ``(N,)``.
        gamma: Focusing exponent.
        alpha: Factor of the loss.
    """
    p, valid = _target_probability(computed(input), target)
    loss = -alpha * (1 - p) ** gamma * _safe_log(p)
    output.copy_((loss * _row_weight(target, weight, p[:, None])[:, 0]).masked_fill(~valid, 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` ``(N, C)`` with the derivative of the loss by the logits, ``buff`` with a factor of it."""
    probability = computed(input)
    p, valid = _target_probability(probability, target)
    rest = (1 - p).clamp(min=torch.finfo(p.dtype).tiny)  # 0 ** (gamma - 1) would be inf for gamma < 1
    factor = alpha * (gamma * rest ** (gamma - 1) * p * _safe_log(p) - rest**gamma)
    factor = (factor * _row_weight(target, weight, p[:, None])[:, 0]).masked_fill(~valid, 0)
    buff.copy_(factor)
    grad_input.copy_(factor[:, None] * (_one_hot(target, probability).to(probability) - probability))


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    return target[:, None] == torch.arange(like.shape[1], device=like.device)


def _row_weight(target: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Weight of each row's class ``(N, 1)``, 1 for background."""
    if weight.numel() == 0:
        return like.new_ones(())[None, None]
    valid = (target >= 0) & (target < len(weight))
    return torch.where(valid, weight.to(like)[target.clamp(0, len(weight) - 1)], 1)[:, None]


def _target_probability(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    classes = probability.shape[1]
    chosen = probability.gather(1, target.clamp(0, classes - 1)[:, None])[:, 0]
    return chosen, (target >= 0) & (target < classes)


def _safe_log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
