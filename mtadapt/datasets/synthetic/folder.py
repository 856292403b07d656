"""The folder of a written dataset: whether it is there already, and which options it was written with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtadapt.datasets.synthetic.render import check_size
from mtadapt.errors import MTAdaptError


@dataclass(frozen=True)
class SceneOptions:
    """What decides the bytes of every dataset of scenes.

    Args:
        train: Number of training images.
        val: Number of validation images.
        width, height: Size of the images in pixels.
        seed: Seed of the scenes.
    """

    train: int
    val: int
    width: int
    height: int
    seed: int

    def check(self) -> None:
        """Raise MTAdaptError for values out of range."""
        for name, count in (("train", self.train), ("val", self.val)):
            if not 0 <= count <= 1_000_000:
                raise MTAdaptError(f"{name} is {count}, it must be a number of images from 0 to 1000000")
        if self.train + self.val == 0:
            raise MTAdaptError("train and val are both 0, ask for at least one image")
        if self.seed < 0:
            raise MTAdaptError(f"seed is {self.seed}, it must be 0 or more")
        check_size((self.width, self.height))


@dataclass(frozen=True)
class DatasetFolder:
    """A folder with a stamp: a file that tells the options of the dataset, and whether it was written to its end.

    Args:
        root: The folder.
        stamp: Name of the stamp.
        version: Raised when the same options no longer give the same bytes.
        options: Everything that decides the bytes.
        parts: What is inside, removed before other options are written.
    """

    root: Path
    stamp: str
    version: int
    options: SceneOptions
    parts: Sequence[str]

    def is_done(self, overwrite: bool, is_whole: Callable[[], bool]) -> bool:
        """Whether the folder holds this very dataset; prepare it for writing if not.

        Args:
            overwrite: Replace a dataset that was written with other options.
            is_whole: Tells whether no file of a complete dataset has been removed since.

        Raises:
            MTAdaptError: It holds something that must not be mixed with the new dataset.
        """
        root = self.root
        if root.exists() and not root.is_dir():
            raise MTAdaptError(f"{root} is a file, name a folder")
        if not root.exists() or not any(root.iterdir()):
            root.mkdir(parents=True, exist_ok=True)
            return False
        stamp = root / self.stamp
        if not stamp.is_file():
            raise MTAdaptError(f"{root} is not empty and has no {self.stamp}, name an empty folder")
        try:
            found = json.loads(stamp.read_text(encoding="utf-8"))
            old, complete = {"version": found["version"], **found["options"]}, found["complete"]
        except (ValueError, KeyError, TypeError) as error:
            raise MTAdaptError(f"{stamp} cannot be read ({type(error).__name__}), name an empty folder") from error
        new: dict[str, Any] = {"version": self.version, **asdict(self.options)}
        if old == new:
            return bool(complete) and is_whole()
        if not overwrite:
            changed = ", ".join(
                f"{key} {old.get(key)} instead of {new[key]}" for key in new if old.get(key) != new[key]
            )
            raise MTAdaptError(
                f"{root} was written with {changed}: add --overwrite to replace it, or name another folder"
            )
        for part in self.parts:
            shutil.rmtree(root / part, ignore_errors=True)
        return False

    def write_stamp(self, complete: bool) -> None:
        """Write the stamp, before the first file with ``complete=False`` and after the last one with True."""
        content = {"version": self.version, "complete": complete, "options": asdict(self.options)}
        (self.root / self.stamp).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
