"""Pictures of what masked image modelling makes of hidden patches, after every validation and test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mtadapt.engine.random_state import random_state, set_random_state
from mtadapt.engine.strategies.outline import plain_model
from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining.masking import pixel_mask
from mtadapt.registry import HOOKS
from mtadapt.visualization.panels import PanelRow, draw_panels

_GREY = 128
_TITLES = ("original", "masked", "reconstruction")


@HOOKS.register_module()
class ReconstructionHook(Hook):
    """Draw original, masked image and reconstruction side by side, for the first images of a validation or test.

    The reconstruction has the visible patches of the original and, where patches are hidden, the pixels of the
    decoder. The line below an image has its name, the share of hidden pixels and the mean absolute difference of
    those pixels in normalised units, which is what masked image modelling minimises.

    ``<work_dir>/reconstructions`` gets ``iter_<n>.png`` of a validation and ``test.png`` of a test; the picture of a
    validation goes to the other backends of the visualizer too, such as TensorBoard. Models that have no branch of
    masked images are left alone, and so are those whose parameters are spread over processes, because one process
    alone cannot run them.

    A sample's own ``mask`` is used where its pipeline made one. Ours: otherwise the n-th image has a mask of its own,
    the same at every validation, so that the pictures of a training compare.

    Args:
        num_images: rows of a picture, the first images of the main process; 0 turns the hook off.
        mask_patch_size: side of a hidden square, in pixels.
        model_patch_size: pixels, in each direction, that an entry of the mask stands for: the backbone's patch size.
        mask_ratio: share of the squares that are hidden.
        out_dir: folder for the pictures, in the place of ``<work_dir>/reconstructions``.
        show: open a window with the picture of a test.
        wait_time: seconds before the window closes.

    Raises:
        MTAdaptError: for a ratio outside (0, 1), and sizes that do not fit in each other or in the image.
    """

    priority = "LOW"

    def __init__(
        self,
        num_images: int = 8,
        mask_patch_size: int = 32,
        model_patch_size: int = 4,
        mask_ratio: float = 0.6,
        out_dir: str | None = None,
        show: bool = False,
        wait_time: float = 2.0,
    ) -> None:
        if not 0 < mask_ratio < 1:
            raise MTAdaptError(f"ReconstructionHook: mask_ratio={mask_ratio} must be between 0 and 1")
        if mask_patch_size < 1 or model_patch_size < 1 or mask_patch_size % model_patch_size:
            raise MTAdaptError(
                f"ReconstructionHook: mask_patch_size={mask_patch_size} must be a multiple of "
                f"model_patch_size={model_patch_size}"
            )
        self.num_images = num_images
        self.mask_patch_size = mask_patch_size
        self.model_patch_size = model_patch_size
        self.mask_ratio = mask_ratio
        self.out_dir = out_dir
        self.show = show
        self.wait_time = wait_time
        self._rows: list[PanelRow] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self._rows.clear()

    before_test_epoch = before_val_epoch

    @master_only
    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Reconstruct the images that are still due."""
        due = self.num_images - len(self._rows)
        model: Any = plain_model(runner)
        if due < 1 or not data_batch or not _reconstructs(model):
            return
        # The batch may be a tensor or a list; both can be cut.
        first = {name: values[:due] for name, values in data_batch.items() if values is not None}
        with _undisturbed(model):
            prepared = model.data_preprocessor(first, False)
            images, samples = prepared["inputs"][:, 0], prepared["data_samples"]
            masks = torch.stack([self._mask(sample, images, len(self._rows) + i) for i, sample in enumerate(samples)])
            decoded = model.reconstruct(images, masks)
        self._rows += _rows(model.data_preprocessor, samples, images, masks, decoded)

    after_test_iter = after_val_iter

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture of this validation, and add it to the backends."""
        picture = self._write(runner, f"iter_{runner.iter}.png")
        if picture is not None:
            for backend in runner.visualizer._vis_backends.values():
                if type(backend).__name__ != "LocalVisBackend":
                    backend.add_image("reconstructions", picture, runner.iter)

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture of this test, and show it if that is wanted."""
        picture = self._write(runner, "test.png")
        if picture is not None and self.show:
            runner.visualizer.show(picture, win_name="reconstructions", wait_time=self.wait_time)

    def _write(self, runner: Runner, name: str) -> np.ndarray | None:
        """Draw what was collected, write it and forget it; None if there was nothing."""
        if not self._rows:
            return None
        picture = draw_panels(self._rows, _TITLES)
        file = Path(self.out_dir or Path(runner.work_dir, "reconstructions"), name)
        mmcv.imwrite(picture[..., ::-1], str(file))
        runner.logger.info(f"Reconstructions of {len(self._rows)} images: {file}")
        self._rows.clear()
        return picture

    def _mask(self, sample: Any, images: Tensor, number: int) -> Tensor:
        """The sample's own mask, or the one of image ``number``, bool ``(h, w)``."""
        own = sample.get("mask")
        if own is not None:
            return own.to(images.device).bool()
        size, side = tuple(images.shape[-2:]), self.mask_patch_size
        if size[0] % side or size[1] % side:
            raise MTAdaptError(
                f"ReconstructionHook: images of {size[1]}x{size[0]} pixels are no multiple of "
                f"mask_patch_size={side}; give the hook the mask_patch_size of MaskPatches"
            )
        rows, columns = size[0] // side, size[1] // side
        # A generator of its own: a validation must not change what the training draws.
        order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(number))
        hidden = (order < math.ceil(rows * columns * self.mask_ratio)).reshape(rows, columns)
        scale = side // self.model_patch_size
        return hidden.repeat_interleave(scale, 0).repeat_interleave(scale, 1).to(images.device)


def _rows(preprocessor: Any, samples: Sequence[Any], images: Tensor, masks: Tensor, decoded: Tensor) -> list[PanelRow]:
    """Rows of the picture from normalised images ``(N, 3, H, W)``, masks ``(N, h, w)`` and what was decoded."""
    hidden = pixel_mask(masks, images.shape[-2:])
    difference = ((decoded - images).abs() * hidden).sum((1, 2, 3)) / (3 * hidden.sum((1, 2, 3)).clamp(min=1))
    share = hidden.float().mean((1, 2, 3))
    originals, pixels = (_rgb(preprocessor, each) for each in (images, decoded))
    shown = hidden.permute(0, 2, 3, 1).cpu().numpy()
    return [
        PanelRow(
            panels=(original, np.where(where, np.uint8(_GREY), original), np.where(where, made, original)),
            caption=f"{Path(str(sample.get('img_path', ''))).name}   {part:.0%} hidden   L1 {value:.3f}",
        )
        for sample, original, made, where, part, value in zip(
            samples, originals, pixels, shown, share.tolist(), difference.tolist(), strict=True
        )
    ]


def _rgb(preprocessor: Any, images: Tensor) -> np.ndarray:
    """Normalised images ``(N, 3, H, W)`` as RGB ``(N, H, W, 3)`` uint8; images that were loaded are BGR."""
    pixels = images.float() * preprocessor.std + preprocessor.mean
    if not preprocessor._channel_conversion:
        pixels = pixels.flip(1)
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def _reconstructs(model: Any) -> bool:
    """Whether the model has a branch of masked images and its weights."""
    return getattr(model, "masked_image", None) is not None and not any(each.is_meta for each in model.parameters())


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluate the model inside, and leave its modes and all random generators as they were."""
    modes, state = [(module, module.training) for module in model.modules()], random_state()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        set_random_state(state)
        for module, training in modes:
            module.training = training
