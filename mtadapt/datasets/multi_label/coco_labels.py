"""Object and relation labels from COCO instances."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from mtadapt.datasets.multi_label.box_labels import BoxLabels
from mtadapt.datasets.multi_label.reader import ImageLabels, LabelReader
from mtadapt.datasets.multi_label.vocabulary import LabelVocabulary
from mtadapt.errors import MTAdaptError
from mtadapt.registry import TASK_UTILS


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class CocoInstances(msgspec.Struct):
    """What is read of a file of COCO instances; segments are skipped, which takes a fraction of pycocotools' memory."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]

    @classmethod
    def read(cls, path: str) -> CocoInstances:
        """Read a file.

        Raises:
            MTAdaptError: when it is broken, an image id is there twice, an annotation points at an image or category
                that is not there, or a box has a negative size.
        """
        try:
            found = msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except msgspec.ValidationError as error:
            raise MTAdaptError(f"{path}: {error}; write COCO instances: images, annotations, categories") from error
        except msgspec.DecodeError as error:
            raise MTAdaptError(f"{path}: broken JSON ({error}); download the file again") from error
        ids = {image.id for image in found.images}
        if len(ids) < len(found.images):
            raise MTAdaptError(f"{path}: {len(found.images) - len(ids)} images have an id that another one has")
        categories = {category.id for category in found.categories}
        if len(categories) < len(found.categories):
            raise MTAdaptError(f"{path}: two categories have the same id; number them differently")
        for number, one in enumerate(found.annotations):
            if one.image_id not in ids or one.category_id not in categories or min(one.bbox[2:]) < 0:
                raise MTAdaptError(
                    f"{path}: annotation {number} with image_id {one.image_id}, category_id {one.category_id} and bbox "
                    f"{[*one.bbox]}: an image and a category with these ids and a size of at least 0 are needed"
                )
        return found

    def boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the boxes of all images, in the order of the images.

        Returns:
            boxes: ``(n, 4)`` float64 ``xyxy``, half-open.
            classes: ``(n,)`` int64, positions of the categories in the file.
            crowd: ``(n,)`` bool.
            images: ``(n,)`` int64, positions of the images in the file, ascending.
        """
        positions = {category.id: number for number, category in enumerate(self.categories)}
        rows = {image.id: number for number, image in enumerate(self.images)}
        corners = np.array([one.bbox for one in self.annotations], np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        classes = np.array([positions[one.category_id] for one in self.annotations], np.int64)
        crowd = np.array([one.iscrowd for one in self.annotations], bool)
        images = np.array([rows[one.image_id] for one in self.annotations], np.int64)
        order = np.argsort(images, kind="stable")
        return corners[order], classes[order], crowd[order], images[order]


@TASK_UTILS.register_module()
class CocoLabels(LabelReader):
    """Labels of a dataset in COCO's format, from the boxes of its instances.

    Objects are the categories, relations come from the boxes, see
    :func:`~mtadapt.datasets.multi_label.spatial_relations`. An image without annotations has none of the objects.
    Crowds are no objects and have no relations; what would be absent but for them is unknown, see
    :class:`~mtadapt.datasets.multi_label.box_labels.BoxLabels`. COCO has no labels of style: these are unknown.

    Args:
        ann_file: the file of instances.
        img_folder: folder that ``file_name`` is relative to.
        names: category to the name or names that it has among the labels.
        remedy: what to do when the data are not there, for the message.

    Raises:
        MTAdaptError: for missing or broken files.

    Reference:
        https://cocodataset.org/#format-data
    """

    def __init__(
        self,
        ann_file: str,
        img_folder: str,
        names: Mapping[str, str | Sequence[str]] | None = None,
        remedy: str = "place COCO's annotations and images there",
    ) -> None:
        self.path = str(ann_file)
        self.img_folder = str(img_folder)
        self.names = names
        self.remedy = remedy

    def read(self, vocabulary: LabelVocabulary) -> ImageLabels:
        """Return the images in the order of the file."""
        self.require(self.path, self.img_folder)
        instances = CocoInstances.read(self.path)
        categories = [category.name for category in instances.categories]
        from_boxes = BoxLabels(vocabulary, categories, self.names, type(self).__name__)
        scores = vocabulary.unknown(len(instances.images))
        from_boxes.fill(scores, *instances.boxes())
        return ImageLabels([os.path.join(self.img_folder, image.file_name) for image in instances.images], scores)
