"""Load images and the labels of several tasks."""

from __future__ import annotations

import io

import cv2
import mmengine.fileio as fileio
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image

from mtadapt.errors import MTAdaptError
from mtadapt.registry import TRANSFORMS

_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND"


def read_image(path: str, flag: int, backend_args: dict | None = None) -> np.ndarray:
    """Read and decode an image file, refusing a truncated one.

    Args:
        path: file to read.
        flag: flag of ``cv2.imdecode``.
        backend_args: file client of MMEngine.

    Raises:
        MTAdaptError: when the file is missing, empty, truncated or no image.
    """
    try:
        raw = fileio.get(path, backend_args=backend_args)
    except OSError as error:
        raise MTAdaptError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode_image(raw, path, flag, "copy the file again, or set on_error='skip' on the dataset")


def decode_image(raw: bytes, name: str, flag: int, remedy: str) -> np.ndarray:
    """Decode the content of an image file, refusing a truncated one.

    OpenCV fills the missing part of a truncated JPEG with grey and goes on; so when the end marker is not there, Pillow
    decides.

    Args:
        raw: the file's bytes.
        name: of the file, for messages.
        flag: flag of ``cv2.imdecode``.
        remedy: what the message advises.

    Raises:
        MTAdaptError: when it is empty, truncated or no image.
    """
    tail = raw[-64:]
    if _JPEG_END not in tail and _PNG_END not in tail:
        try:
            Image.open(io.BytesIO(raw)).load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "no known format" if "cannot identify" in str(error) else error
            raise MTAdaptError(f"{name}: truncated or not an image ({reason}); {remedy}") from error
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), flag) if raw else None
    if image is None:
        raise MTAdaptError(f"{name}: cannot be decoded as an image; {remedy}")
    return image


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load ``img_path`` as a BGR image ``(H, W, 3)`` uint8.

    The keys written are those of mmcv's ``LoadImageFromFile``; a truncated file is refused instead of being half grey.

    Args:
        backend_args: file client of MMEngine.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        image = read_image(results["img_path"], cv2.IMREAD_COLOR, self.backend_args)
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadMultiTaskAnnotations(BaseTransform):
    """Load the boxes and the dense maps of all labelled tasks.

    Boxes become mmdet's ``gt_bboxes``, ``gt_bboxes_labels`` and ``gt_ignore_flags``. The maps of several dense tasks
    are stacked as the channels of one ``gt_seg_map`` ``(H, W, T)`` uint8 (or ``(H, W)`` for one task), in the order
    of ``seg_map_tasks``: so every stock geometric transform of mmcv and mmdet that moves boxes and ``gt_seg_map``
    (Resize, RandomResize, RandomFlip, RandomCrop) moves the boxes and all maps of all tasks together.

    mmseg's own geometric transforms move maps and no boxes; they see the maps only where the image has no boxes.

    In validation pipelines put it behind ``Resize``, so that the ground truth keeps the size of the file.

    Args:
        backend_args: file client of MMEngine.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the ground truth of the tasks in ``labelled_tasks``.

        Raises:
            MTAdaptError: for a mask that is unreadable, of the wrong size, coloured or with unknown class ids, and for
                a box outside the image.
        """
        if "boxes" in results:
            self._load_boxes(results)
        maps = [self._load_map(results, task, path) for task, path in results.get("seg_map_paths", {}).items()]
        if maps:
            results["seg_map_tasks"] = tuple(results["seg_map_paths"])
            results["gt_seg_map"] = maps[0] if len(maps) == 1 else _stack(maps)
            # mmseg's transforms move what seg_fields lists and leave boxes behind.
            results["seg_fields"] = [] if "boxes" in results else ["gt_seg_map"]
        return results

    def _load_boxes(self, results: dict) -> None:
        from mmdet.structures.bbox import HorizontalBoxes

        height, width = results["ori_shape"]
        boxes = results["boxes"].copy()
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        outside = np.flatnonzero((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
        if len(outside):
            raise MTAdaptError(
                f"{results['img_path']}: box {outside[0]} {results['boxes'][outside[0]].tolist()} lies outside the "
                f"image of {width}x{height}; correct the label or set on_error='skip' on the dataset"
            )
        results["gt_bboxes"] = HorizontalBoxes(torch.from_numpy(boxes))
        results["gt_bboxes_labels"] = results["box_labels"].astype(np.int64)
        results["gt_ignore_flags"] = results["box_ignore"]

    def _load_map(self, results: dict, task: str, path: str) -> np.ndarray:
        seg_map = read_image(path, cv2.IMREAD_UNCHANGED, self.backend_args)
        if seg_map.ndim == 3:
            # OpenCV turns a palette image into colours; Pillow keeps the indices.
            with Image.open(io.BytesIO(fileio.get(path, backend_args=self.backend_args))) as image:
                if image.mode != "P":
                    raise MTAdaptError(f"{path}: a {task} mask has one channel of class ids, not mode {image.mode}")
                seg_map = np.array(image)
        height, width = results["ori_shape"]
        if seg_map.shape != (height, width):
            raise MTAdaptError(
                f"{path}: the {task} mask is {seg_map.shape[1]}x{seg_map.shape[0]}, its image {results['img_path']} "
                f"{width}x{height}; both must be of one size"
            )
        num_classes = results.get("num_classes", {}).get(task)
        if num_classes is not None:
            self._check_ids(seg_map, task, path, num_classes)
        return seg_map

    @staticmethod
    def _check_ids(seg_map: np.ndarray, task: str, path: str, num_classes: int) -> None:
        # Mostly the maximum is enough, which takes a hundredth of the time of decoding; a histogram takes a tenth.
        highest = seg_map.max()
        if highest < num_classes or (highest == 255 and not cv2.inRange(seg_map, num_classes, 254).any()):
            return
        unknown = next(value for value in np.unique(seg_map) if value >= num_classes and value != 255)
        raise MTAdaptError(
            f"{path}: class id {unknown} in a {task} mask of {num_classes} classes "
            f"(0 to {num_classes - 1}, 255 = ignore); use the train-id masks"
        )


def _stack(maps: list[np.ndarray]) -> np.ndarray:
    """Stack ``(H, W)`` maps to ``(H, W, T)``; OpenCV takes a tenth of NumPy's time, but wants a single type."""
    return cv2.merge(maps) if len({seg_map.dtype for seg_map in maps}) == 1 else np.dstack(maps)
