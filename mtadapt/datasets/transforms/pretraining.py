"""Views, masks and samples for pre-training on images with several labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import TRANSFORMS
from mtadapt.structures import MultiTaskDataSample

META_KEYS = ("img_id", "img_path", "ori_shape")


@TRANSFORMS.register_module()
class PretrainViews(BaseTransform):
    """Make one or two views of an image with stock transforms.

    The base view is the one that labels belong to and that is masked; it is also the query of the contrastive branch,
    whose key is the other view. So the base view takes mild crops and flips, and the key view anything.

    Where a horizontal flip moves the base view, ``left of`` labels move with it: ``car left of bus`` becomes
    ``bus left of car`` if that is among the labels, and what would need a label that is not there becomes unknown.
    Ours: crops leave the labels as they are, also where an object is cut off.

    Args:
        base: configs of the transforms of the base view. Bare names are mmpretrain's and mmcv's; ``mtadapt.X`` is
            ours.
        key: those of the key view; None for no key view.

    Raises:
        MTAdaptError: for settings that are no lists of transforms.
    """

    def __init__(self, base: Sequence[Mapping[str, Any]], key: Sequence[Mapping[str, Any]] | None = None) -> None:
        self.base = _build(base, "base")
        self.key = None if key is None else _build(key, "key")

    def transform(self, results: dict) -> dict:
        """Add ``views``, a list of one or two ``(H, W, 3)`` uint8 images; ``gt_score`` may change.

        Raises:
            MTAdaptError: when a view is no ``(H, W, 3)`` uint8 image, the views differ in size, or the base view is
                flipped vertically while relations depend on it.
        """
        base, mirrored = self._view(results, self.base, "base")
        results["views"] = [base]
        if mirrored and "gt_score" in results:
            results["gt_score"] = _mirror(results["gt_score"], results.get("mirrored"))
        if self.key is not None:
            key, _ = self._view(results, self.key, "key")
            if key.shape != base.shape:
                raise MTAdaptError(
                    f"PretrainViews: {results.get('img_path')}: the base view is {_size(base)}, the key view "
                    f"{_size(key)}; let both end with a crop or a resize to one size"
                )
            results["views"].append(key)
        return results

    def _view(self, results: dict, transforms: list[BaseTransform], name: str) -> tuple[np.ndarray, bool]:
        """Return a view and whether it is mirrored."""
        view: dict = dict(img=results["img"].copy(), img_shape=results["img"].shape[:2])
        mirrored = False
        for transform in transforms:
            view = transform(view)
            if view is None:
                raise MTAdaptError(
                    f"PretrainViews: {results.get('img_path')}: {type(transform).__name__} of the {name} view gave "
                    f"no image"
                )
            if view.pop("flip", False):
                direction = view.pop("flip_direction", "horizontal")
                if name == "base" and direction != "horizontal" and "gt_score" in results:
                    raise MTAdaptError(
                        f"PretrainViews: the base view is flipped in direction {direction!r}, which makes the relation "
                        f"'above' wrong; use direction='horizontal'"
                    )
                mirrored = not mirrored
        image = view["img"]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {tuple(image.shape)}" if hasattr(image, "shape") else type(image).__name__
            raise MTAdaptError(
                f"PretrainViews: {results.get('img_path')}: the {name} view is {found} and not uint8 (H, W, 3); leave "
                f"out transforms that normalise, convert or pack"
            )
        return image, mirrored


def _build(configs: Sequence[Mapping[str, Any]], name: str) -> list[BaseTransform]:
    if isinstance(configs, (str, Mapping)) or not isinstance(configs, Sequence):
        raise MTAdaptError(f"PretrainViews: {name}={configs!r}; write a list of transforms")
    transforms = []
    if name == "base":
        _check_followed(configs)
    for config in configs:
        if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
            raise MTAdaptError(f"PretrainViews: {name} holds {config!r}; write dict(type=...)")
        try:
            transforms.append(TRANSFORMS.build(dict(_scope_="mmpretrain", **config)))
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise MTAdaptError(
                f"PretrainViews: {name}: {config['type']} cannot be built: {first_line(error)}"
            ) from error
    return transforms


def _check_followed(configs: Sequence[Any]) -> None:
    """Refuse transforms of the base view that move it in a way that labels cannot follow."""
    for config in configs:
        if not isinstance(config, Mapping):
            continue
        kind = str(config.get("type"))
        inner = config.get("transforms") or ()
        nested = [inner] if isinstance(inner, Mapping) else [*inner]
        if sum("Flip" in str(each) for each in nested) > 1 and "Choice" not in kind:
            raise MTAdaptError(
                f"PretrainViews: base: of two flips inside {kind} one is noticed, and 'left of' labels would follow it "
                "alone; write them beside each other"
            )
        _check_followed(nested)
        name = kind.split(".")[-1].split("/")[-1]
        if name in _MOVING or (("Flip" in name) and name != "RandomFlip"):
            raise MTAdaptError(
                f"PretrainViews: base: {kind} moves the image in a way that relation labels do not follow; flip with "
                "RandomFlip, and give such transforms to the key view"
            )


_MOVING = (
    "Rotate",
    "RandomRotate",
    "RandomRotation",
    "RandomAffine",
    "RandomPerspective",
    "RandAugment",
    "AutoAugment",
)


def _mirror(scores: np.ndarray, mirrored: np.ndarray | None) -> np.ndarray:
    """Scores of the mirror image; a label whose mirror image is no label becomes unknown."""
    if mirrored is None:
        return scores
    return np.where(mirrored < 0, np.float32(-1), scores[mirrored])


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


@TRANSFORMS.register_module()
class MaskPatches(BaseTransform):
    """Choose at random which patches of the base view are masked, as SimMIM does.

    Args:
        input_size: side of the base view, in pixels.
        mask_patch_size: side of a patch that is masked as a whole, in pixels.
        model_patch_size: side of a token of the backbone, in pixels.
        mask_ratio: share of the patches that are masked, rounded up to whole patches.
        seed: makes the mask a function of the seed and of ``img_id``, so that an image has the same mask in every
            validation. None draws from NumPy's global generator, as the other transforms do.

    Raises:
        MTAdaptError: for sizes that do not divide, a ratio outside (0, 1), or one that masks every patch.

    Reference:
        Xie et al., SimMIM: A Simple Framework for Masked Image Modeling (CVPR 2022); mmpretrain's
        ``SimMIMMaskGenerator``, which this is.
    """

    def __init__(
        self,
        input_size: int,
        mask_patch_size: int = 32,
        model_patch_size: int = 4,
        mask_ratio: float = 0.6,
        seed: int | None = None,
    ) -> None:
        from mmpretrain.datasets.transforms import SimMIMMaskGenerator

        sizes = dict(input_size=input_size, mask_patch_size=mask_patch_size, model_patch_size=model_patch_size)
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise MTAdaptError(f"MaskPatches: {name}={size!r}; write a whole number of pixels above 0")
        for outer, inner in itertools.pairwise(sizes):
            if sizes[outer] % sizes[inner]:
                raise MTAdaptError(
                    f"MaskPatches: {outer}={sizes[outer]} is no multiple of {inner}={sizes[inner]}; change one of them"
                )
        if isinstance(mask_ratio, bool) or not isinstance(mask_ratio, (int, float)) or not 0 < mask_ratio < 1:
            raise MTAdaptError(f"MaskPatches: mask_ratio={mask_ratio!r}; write a number between 0 and 1, such as 0.6")
        if seed is not None and (type(seed) is not int or seed < 0):
            raise MTAdaptError(f"MaskPatches: seed={seed!r}; write a whole number of at least 0, or None")
        self.input_size = input_size
        self.seed = seed
        self._generator = SimMIMMaskGenerator(**sizes, mask_ratio=mask_ratio)
        number, masked = self._generator.token_count, self._generator.mask_count
        if masked >= number:
            raise MTAdaptError(
                f"MaskPatches: mask_ratio={mask_ratio!r} masks all {number} patches of {mask_patch_size} pixels in "
                f"{input_size}x{input_size}; use at most {(number - 1) / number:.4g} or a smaller mask_patch_size"
            )

    def transform(self, results: dict) -> dict:
        """Add ``mask``, ``(H / p, W / p)`` bool with ``p`` the ``model_patch_size``, True where masked.

        Raises:
            MTAdaptError: when the base view has another size than ``input_size``.
        """
        image = results["views"][0] if "views" in results else results["img"]
        if image.shape[:2] != (self.input_size, self.input_size):
            raise MTAdaptError(
                f"MaskPatches: {results.get('img_path')} is {_size(image)} and input_size={self.input_size}; put it "
                f"behind PretrainViews and set the size that its base view has"
            )
        results["mask"] = self._draw(results).astype(bool)
        return results

    def _draw(self, results: dict) -> np.ndarray:
        if self.seed is None:
            return self._generator.transform({})["mask"]
        state = np.random.get_state()  # noqa: NPY002
        try:
            np.random.seed([self.seed % 2**32, results["img_id"]])  # noqa: NPY002
            return self._generator.transform({})["mask"]
        finally:
            np.random.set_state(state)  # noqa: NPY002


@TRANSFORMS.register_module()
class PackPretrainInputs(BaseTransform):
    """Pack the views, the labels and the mask.

    Args:
        meta_keys: keys that are copied into the metainfo where they exist.

    Returns:
        ``inputs`` uint8 ``(V, 3, H, W)`` and ``data_samples``, a :class:`~mtadapt.structures.MultiTaskDataSample` with
        the metainfo ``labelled_tasks``, mmpretrain's ``DataSample`` with ``gt_score`` ``(K,)`` as ``mlc`` where the
        image has labels, and ``mask`` bool ``(H / p, W / p)`` where one was made.
    """

    def __init__(self, meta_keys: tuple[str, ...] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Return ``dict(inputs=..., data_samples=...)``.

        Raises:
            MTAdaptError: when there are no views.
        """
        from mmpretrain.structures import DataSample

        if "views" not in results:
            raise MTAdaptError(f"PackPretrainInputs: {results.get('img_path')} has no views; add PretrainViews before")
        meta = {key: results[key] for key in self.meta_keys if key in results}
        sample = MultiTaskDataSample(metainfo=dict(**meta, labelled_tasks=tuple(results.get("labelled_tasks", ()))))
        if "gt_score" in results:
            labels = DataSample(metainfo=meta).set_gt_score(np.asarray(results["gt_score"], np.float32))
            sample.set_task("mlc", labels)
        if "mask" in results:
            sample.set_field(torch.from_numpy(np.ascontiguousarray(results["mask"])), "mask", dtype=torch.Tensor)
        # (V, H, W, 3) to (V, 3, H, W)
        views = np.ascontiguousarray(np.stack(results["views"]).transpose(0, 3, 1, 2))
        return dict(inputs=torch.from_numpy(views), data_samples=sample)
