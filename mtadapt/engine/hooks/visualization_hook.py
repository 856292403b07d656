"""Pictures of what the model predicts, during validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mtadapt.registry import HOOKS
from mtadapt.structures import MultiTaskDataSample


@HOOKS.register_module()
class MultiTaskVisualizationHook(Hook):
    """Draw the first images of every validation or test, ground truth beside prediction.

    The pictures of a test are files; those of a validation are files as well and go to the other backends of the
    visualizer, such as TensorBoard.

    Args:
        num_images: pictures of a run, or of each source of a heterogeneous dataset; 0 turns the hook off.
        score_thr: boxes below this score are not drawn.
        out_dir: folder for the pictures; ``<work_dir>/<timestamp>/pictures`` by default.
        show: open a window for each picture of a test.
        wait_time: seconds before the window closes.
    """

    def __init__(
        self,
        num_images: int = 8,
        score_thr: float = 0.3,
        out_dir: str | None = None,
        show: bool = False,
        wait_time: float = 2.0,
    ) -> None:
        self.num_images = num_images
        self.score_thr = score_thr
        self.out_dir = out_dir
        self.show = show
        self.wait_time = wait_time
        #: Source to the number of its pictures; the source is None in an ordinary dataset.
        self._drawn: Counter[str | None] = Counter()

    def before_val_epoch(self, runner: Runner) -> None:
        """Start counting."""
        self._drawn.clear()

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence[MultiTaskDataSample] | None = None,
    ) -> None:
        """Draw the images that are still due, and add them to the backends."""
        self._draw(runner, outputs or (), f"val_epoch_{runner.epoch}_iter_{runner.iter}", backends=True)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: Sequence[MultiTaskDataSample] | None = None,
    ) -> None:
        """Draw the images that are still due."""
        self._draw(runner, outputs or (), "test", backends=False)

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say where the pictures are."""
        if self._drawn:
            runner.logger.info(f"{self._drawn.total()} example pictures in {self._folder(runner)}")

    after_test_epoch = after_val_epoch

    def _folder(self, runner: Runner) -> Path:
        return Path(self.out_dir) if self.out_dir else Path(runner.log_dir, "pictures")

    @master_only
    def _draw(self, runner: Runner, samples: Sequence[MultiTaskDataSample], name: str, backends: bool) -> None:
        visualizer: Visualizer = runner.visualizer
        for sample in samples:
            source = sample.get("source")
            if self._drawn[source] >= self.num_images:
                continue
            image = mmcv.imread(sample.img_path, channel_order="rgb")
            file = (
                self._folder(runner)
                / f"{'_'.join([name, *([source] if source else []), Path(sample.img_path).stem])}.jpg"
            )
            show = self.show and not backends
            visualizer.add_datasample(
                file.stem,
                image,
                sample,
                pred_score_thr=self.score_thr,
                show=show,
                wait_time=self.wait_time,
                out_file=str(file),
            )
            if backends:
                for backend in visualizer._vis_backends.values():
                    if type(backend).__name__ != "LocalVisBackend":
                        backend.add_image(f"example_{self._drawn.total()}", visualizer.get_image(), runner.iter)
            self._drawn[source] += 1
