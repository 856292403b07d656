"""Small models with predictions worth comparing."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import ConfigDict

from tests.models import BACKBONE, classifier, faster_rcnn, fcos, fpn_head, multi_task_model, stock_config


def retinanet() -> ConfigDict:
    model = stock_config("retinanet/retinanet_r50_fpn_1x_coco.py")
    model.bbox_head.update(num_classes=10, in_channels=32, feat_channels=32)
    model.neck = None
    return model


def atss() -> ConfigDict:
    model = stock_config("atss/atss_r50_fpn_1x_coco.py")
    model.bbox_head.update(num_classes=10, in_channels=32, feat_channels=32)
    model.neck = None
    return model


def retinanet_with_softmax() -> ConfigDict:
    model = retinanet()
    model.bbox_head.loss_cls = dict(type="CrossEntropyLoss", use_sigmoid=False)
    return model


def fcos_of_points() -> ConfigDict:
    """Without the multiplication by the stride, and with small boxes left out."""
    model = fcos()
    model.bbox_head.update(norm_on_bbox=False)
    model.test_cfg.update(min_bbox_size=1)
    return model


#: Layers of the stock heads that give the logits of classes.
CLASSIFIERS = {"rpn_cls", "fc_cls", "retina_cls", "conv_cls", "atss_cls", "rtm_cls", "conv_seg", "fc"}


@torch.no_grad()
def spread_model(adapter: dict | None = None, backbone: dict = BACKBONE, **tasks: ConfigDict) -> Any:
    """A model whose scores differ from place to place, as those of a trained one do.

    Scores that saturate would be equal, and equal ones may be cut off in any order; so logits get a spread of 1.5.
    """
    model = multi_task_model(adapter, backbone, **tasks).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        # Routers begin at zero, where all experts are equally probable.
        if (name.startswith("tasks.") or ".routers." in name) and parameter.dim() > 1:
            spread = 1 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    calibrated = set()

    def calibrate(layer: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        if layer not in calibrated:
            calibrated.add(layer)
            factor = 1.5 / float(logits.std())
            layer.weight.mul_(factor)
            layer.bias.zero_()
        return layer._conv_forward(*inputs, layer.weight, layer.bias) if logits.dim() == 4 else logits

    hooks = [
        module.register_forward_hook(calibrate)
        for name, module in model.named_modules()
        if CLASSIFIERS & set(name.split(".")[-2:]) and getattr(module, "bias", None) is not None
    ]
    pixels = torch.from_numpy(images(1, 128, 160)[0].transpose(2, 0, 1).copy())
    data = model.data_preprocessor(dict(inputs=[pixels], data_samples=None), False)
    model.predict(data["inputs"], data["data_samples"])
    for hook in hooks:
        hook.remove()
    return model


def images(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured noise, ``(N, H, W, 3)`` uint8, in which no two places are alike."""
    noise = np.random.default_rng(seed).normal(size=(count, height, width, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    return (128 + smooth / smooth.std() * 60).clip(0, 255).astype(np.uint8)


def all_kinds() -> dict[str, ConfigDict]:
    """A task of every kind."""
    return dict(det=faster_rcnn(), points=fcos(), sem_seg=fpn_head(), cls=classifier())
