"""BDD100K with detection, semantic segmentation and drivable area, read from the official layout."""

from __future__ import annotations

import inspect
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mtadapt.datasets.bdd100k_classes import DET_IGNORED, DET_NAMES, METAINFO
from mtadapt.datasets.label_settings import apply_label_setting
from mtadapt.datasets.pipeline_check import check_pipeline
from mtadapt.datasets.scalabel import FrameBoxes, read_boxes
from mtadapt.datasets.skipped_samples import SkippedSamples
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS

#: The image set that each task is labelled on.
IMAGE_SETS = dict(det="100k", drivable="100k", sem_seg="10k")
SPLITS = ("train", "val", "test")


@DATASETS.register_module()
class BDD100KDataset(SkippedSamples):
    """BDD100K for any subset of the tasks ``det``, ``sem_seg`` and ``drivable``.

    The folder is read as it is downloaded::

        images/{100k,10k}/{train,val,test}/<stem>.jpg
        labels/det_20/det_{train,val}.json
        labels/{drivable,sem_seg}/masks/{train,val}/<stem>.png

    An image is one sample with the labels of all the tasks that it is labelled for; images, masks and detection
    entries are matched by their stem. What does not match is left out and counted in one summary line of the log.

    The index is one buffer of bytes. Workers that are forked, as MMEngine's are unless ``mp_cfg`` says otherwise, share
    it with their parent copy-on-write. Workers that are spawned get a copy each, which is small beside the libraries
    that each of them has to import.

    Args:
        data_root: folder that holds ``images`` and ``labels``.
        split: ``train``, ``val`` or ``test``; the test split has no labels.
        tasks: the tasks to read; a single one may be given by its name. The metainfo then has its ``classes`` and
            ``palette``, as models of mmdet and mmseg expect them.
        label_setting: ``full``, ``disjoint_normal`` or ``disjoint_balance``, or a dict with ``name`` and any of
            ``counts`` and ``seed``; see :func:`~mtadapt.datasets.label_settings.apply_label_setting`.
        label_tasks: the tasks that a disjoint label setting shares out the images among; ``tasks`` by default. A model
            of one task that is compared with a multi-task model names all tasks of that one, and gets the images that
            the task has there.
        drop_overlap: leave out train images that are in the val split of either image set. The 10K train images
            overlap the 100K val images.
        on_error: ``raise`` or ``skip``. With ``skip`` an image or a label that cannot be used is replaced by the next
            image, or left out, and counted in :attr:`num_skipped`.
        **kwargs: those of :class:`mmengine.dataset.BaseDataset`, such as ``pipeline`` and ``test_mode``.

    Raises:
        MTAdaptError: for a missing folder, broken labels or an unknown option.

    Reference:
        https://doc.bdd100k.com/download.html and https://doc.bdd100k.com/format.html
    """

    METAINFO: dict = METAINFO

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        tasks: Sequence[str] = ("det", "sem_seg", "drivable"),
        label_setting: str | Mapping[str, Any] = "full",
        label_tasks: Sequence[str] | None = None,
        drop_overlap: bool = True,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> None:
        tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        label_tasks = tasks if label_tasks is None else tuple(label_tasks)
        unknown = [task for task in dict.fromkeys((*tasks, *label_tasks)) if task not in IMAGE_SETS]
        if unknown or not tasks:
            raise MTAdaptError(f"BDD100KDataset: unknown tasks {unknown}; known: {', '.join(IMAGE_SETS)}")
        if not set(tasks) <= set(label_tasks):
            raise MTAdaptError(
                f"BDD100KDataset: label_tasks={label_tasks} lacks some of tasks={tasks}; name all of them"
            )
        if split not in SPLITS:
            raise MTAdaptError(f"BDD100KDataset: unknown split {split!r}; known: {', '.join(SPLITS)}")
        self.split = split
        wrong = sorted(set(kwargs) - set(inspect.signature(BaseDataset).parameters))
        if wrong:
            raise MTAdaptError(f"BDD100KDataset: unknown settings {wrong}; see its docstring for the known ones")
        check_pipeline(kwargs.get("pipeline", ()), boxes="det" in tasks, maps=set(tasks) != {"det"})
        self.tasks = tasks
        self.label_setting = dict(name=label_setting) if isinstance(label_setting, str) else dict(label_setting)
        # With all labels every task has its own images anyway, and nothing else has to be read.
        self._read_tasks = tasks if self.label_setting.get("name") == "full" else label_tasks
        self.drop_overlap = drop_overlap
        self._dropped: Counter[str] = Counter()
        super().__init__(data_root=str(data_root), on_error=on_error, **kwargs)
        if len(tasks) == 1:
            # Where the metrics and visualizers of mmdet and mmseg look, when their own models train on the dataset.
            for key, value in METAINFO["tasks"][tasks[0]].items():
                self._metainfo.setdefault(key, value)

    def load_data_list(self) -> list[dict]:
        """Match images and labels and return one entry an image."""
        images = self._find_images()
        boxes = self._read_boxes() if "det" in self._read_tasks and self.split != "test" else {}
        masks = {
            task: self._list(f"labels/{task}/masks/{self.split}", ".png", needed_by=task)
            for task in self._read_tasks
            if task != "det" and self.split != "test"
        }
        self._count_unmatched(images, boxes, masks)
        labelled = {
            stem: tuple(task for task in self._read_tasks if stem in (boxes if task == "det" else masks.get(task, ())))
            for stem in images
        }
        if self.split != "test":
            labelled = self._select(labelled)
        entries: list[dict] = []
        for stem, tasks in labelled.items():
            entry: dict[str, Any] = dict(img_path=images[stem], img_id=len(entries), labelled_tasks=tasks)
            if "det" in tasks:
                entry["boxes"] = boxes[stem]
            entry["seg_map_paths"] = {task: masks[task][stem] for task in tasks if task != "det"}
            entries.append(entry)
        self._summarise(entries)
        return entries

    def get_data_info(self, idx: int) -> dict:
        """Return the entry of image ``idx``; in test mode with the boxes as ``instances`` for COCO-style metrics."""
        info = super().get_data_info(idx)
        if "boxes" in info:
            packed: FrameBoxes = info.pop("boxes")
            boxes, labels, ignore = packed.unpack()
            info.update(boxes=boxes, box_labels=labels, box_ignore=ignore, attributes=packed.attributes)
            if self.test_mode:
                info["instances"] = [
                    dict(bbox=box, bbox_label=label, ignore_flag=int(ignored))
                    for box, label, ignored in zip(boxes.tolist(), labels.tolist(), ignore.tolist(), strict=True)
                ]
        info["num_classes"] = {task: len(meta["classes"]) for task, meta in self._metainfo["tasks"].items()}
        return info

    def _find_images(self) -> dict[str, str]:
        """Stem to image path over the image sets of the tasks; the 100K copy wins where both have a stem."""
        images: dict[str, str] = {}
        for image_set in sorted({IMAGE_SETS[task] for task in self._read_tasks}):
            needed_by = " and ".join(task for task in self._read_tasks if IMAGE_SETS[task] == image_set)
            for stem, path in self._list(f"images/{image_set}/{self.split}", ".jpg", needed_by).items():
                images.setdefault(stem, path)
        return images

    def _read_boxes(self) -> dict[str, FrameBoxes]:
        path = Path(self.data_root, "labels", "det_20", f"det_{self.split}.json")
        if not path.is_file():
            raise MTAdaptError(f"{path}: missing; put the det_20 labels there or leave 'det' out of tasks")
        class_ids = {name: label for label, name in enumerate(METAINFO["tasks"]["det"]["classes"])}
        class_ids.update({alias: class_ids[name] for alias, name in DET_NAMES.items()})
        boxes, bad = read_boxes(path, class_ids, DET_IGNORED, skip_bad=self.on_error == "skip")
        self._dropped["labels that cannot be used"] = bad
        return boxes

    def _list(self, folder: str, suffix: str, needed_by: str) -> dict[str, str]:
        """Stem to path of the files in a folder, sorted by name."""
        path = os.path.join(self.data_root, folder)
        if not os.path.isdir(path):
            raise MTAdaptError(
                f"{path}: no such folder, needed by {needed_by}; see docs/prepare_bdd100k.md for the layout, "
                f"or leave the task out of tasks"
            )
        names = sorted(entry.name for entry in os.scandir(path) if entry.name.endswith(suffix))
        if not names:
            raise MTAdaptError(f"{path}: holds no {suffix} file, needed by {needed_by}; see docs/prepare_bdd100k.md")
        return {name[: -len(suffix)]: os.path.join(path, name) for name in names}

    def _count_unmatched(self, images: Mapping, boxes: Mapping, masks: Mapping[str, Mapping]) -> None:
        self._dropped["detection entries without an image"] = sum(stem not in images for stem in boxes)
        for task, paths in masks.items():
            self._dropped[f"{task} masks without an image"] = sum(stem not in images for stem in paths)
        if boxes:
            folder = os.path.join(self.data_root, "images", "100k")
            in_100k = (stem for stem, path in images.items() if path.startswith(folder + os.sep))
            self._dropped["images without a detection entry"] = sum(stem not in boxes for stem in in_100k)

    def _select(self, labelled: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Drop the overlap with the val split and the images without labels, then apply the label setting."""
        if self.split == "train" and self.drop_overlap:
            held_out: set[str] = set()
            for image_set in ("100k", "10k"):
                folder = Path(self.data_root, "images", image_set, "val")
                if folder.is_dir():
                    held_out.update(Path(name).stem for name in os.listdir(folder))
            self._dropped["train images that are in val"] = len(held_out & labelled.keys())
            labelled = {stem: tasks for stem, tasks in labelled.items() if stem not in held_out}
        self._dropped["images without labels"] = sum(not tasks for tasks in labelled.values())
        setting = dict(self.label_setting)
        try:
            selected = apply_label_setting(labelled, setting.pop("name"), **setting)
        except (KeyError, TypeError) as error:
            raise MTAdaptError(
                f"BDD100KDataset: label_setting={self.label_setting} needs 'name', takes 'counts' and 'seed' ({error})"
            ) from error
        selected = {stem: tuple(task for task in tasks if task in self.tasks) for stem, tasks in selected.items()}
        selected = {stem: tasks for stem, tasks in selected.items() if tasks}
        if not selected:
            raise MTAdaptError(f"{self.data_root}: no {self.split} image has labels of {self.tasks}; check the stems")
        return selected

    def _summarise(self, entries: list[dict]) -> None:
        labelled = Counter(task for entry in entries for task in entry["labelled_tasks"])
        num_boxes = sum(entry["boxes"].num for entry in entries if "boxes" in entry)
        parts = [f"{task} {labelled[task]:,}" for task in self.tasks]
        dropped = [f"{number:,} {what}" for what, number in self._dropped.items() if number]
        print_log(
            f"BDD100K {self.split}: {len(entries):,} images ({', '.join(parts)}; {num_boxes:,} boxes), "
            f"label setting {self.label_setting['name']}; left out: {', '.join(dropped) or 'nothing'}",
            logger="current",
        )
        for task in self.tasks:
            if not labelled[task] and self.split == "train":
                raise MTAdaptError(
                    f"{self.data_root}: no {self.split} image is labelled for {task!r}; check that images and labels "
                    f"have the same stems ({', '.join(dropped) or 'nothing was left out'}), or leave it out of tasks"
                )
            if not labelled[task] and self.split == "val":
                print_log(f"BDD100K {self.split}: no image is labelled for {task}", "current", logging.WARNING)
