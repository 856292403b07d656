"""What ReconstructionHook draws, when, and that it leaves the training alone."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.visualization import LocalVisBackend
from torch import Tensor, nn

from mtadapt.engine import ReconstructionHook
from mtadapt.engine.random_state import random_state
from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining import HeuristicPretrainer, PretrainDataPreprocessor
from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization.panels import PanelRow, draw_panels

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
STRIP, SIZE = 24, 64
# The decoder's colour, red, green and blue.
COLOUR = (200, 30, 90)


class Decoder(nn.Module):
    """Paints a colour and draws from the generators, as a network with dropout does."""

    def __init__(self, rgb: bool = True) -> None:
        super().__init__()
        self.data_preprocessor = PretrainDataPreprocessor(mean=MEAN, std=STD, bgr_to_rgb=rgb)
        self.masked_image = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3))
        self.frozen = nn.BatchNorm2d(3)
        self.rgb = rgb
        self.calls: list[tuple[int, bool]] = []

    def reconstruct(self, images: Tensor, masks: Tensor) -> Tensor:
        self.calls.append((len(images), self.training))
        assert not torch.is_grad_enabled() and masks.dtype == torch.bool
        torch.rand(3), np.random.rand(3)  # noqa: NPY002
        colour = torch.tensor(COLOUR if self.rgb else COLOUR[::-1])[:, None, None].expand(3, *images.shape[-2:])
        return ((colour - self.data_preprocessor.mean) / self.data_preprocessor.std).expand_as(images)


class Board:
    """Keeps the pictures that it is given."""

    def __init__(self) -> None:
        self.pictures: list[tuple[str, np.ndarray, int]] = []

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        self.pictures.append((name, image, step))


def runner(model: nn.Module, work_dir: Path) -> SimpleNamespace:
    backends = dict(LocalVisBackend=LocalVisBackend(str(work_dir / "local")), Board=Board())
    visualizer = SimpleNamespace(_vis_backends=backends)
    log = logging.getLogger("reconstructions")
    return SimpleNamespace(model=model, work_dir=str(work_dir), iter=20, visualizer=visualizer, logger=log)


def batch(images: int, first: int = 0, mask: Tensor | None = None, size: int = SIZE) -> dict[str, Any]:
    """Random BGR images of one view."""
    generator = torch.Generator().manual_seed(first)
    samples = [MultiTaskDataSample(metainfo=dict(img_path=f"/images/{first + i}.jpg")) for i in range(images)]
    for sample in samples:
        if mask is not None:
            sample.set_field(mask.clone(), "mask", dtype=Tensor)
    inputs = [torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=generator) for _ in samples]
    return dict(inputs=inputs, data_samples=samples)


def validate(hook: ReconstructionHook, run: Any, *batches: dict) -> np.ndarray | None:
    """A validation; the RGB picture that it wrote."""
    hook.before_val_epoch(run)
    for number, each in enumerate(batches):
        hook.after_val_iter(run, number, each, [])
    hook.after_val_epoch(run)
    file = Path(run.work_dir, f"reconstructions/iter_{run.iter}.png")
    return cv2.imread(str(file))[..., ::-1] if file.is_file() else None


def panels(picture: np.ndarray, row: int, scale: int = 3) -> list[np.ndarray]:
    """Original, masked and reconstruction of a row, in their own size."""
    side = SIZE * scale
    top = STRIP + row * (side + STRIP)
    return [picture[top : top + side : scale, i * side : (i + 1) * side : scale] for i in range(3)]


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_three_columns_pixel_by_pixel(rgb: bool, wrapped: bool, tmp_path: Path):
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:8, 8:] = True
    model = Decoder(rgb)
    run = runner(nn.DataParallel(model) if wrapped else model, tmp_path)
    given = batch(2, mask=mask)
    picture = validate(ReconstructionHook(), run, given)
    assert picture.shape == (STRIP + 2 * (3 * SIZE + STRIP), 3 * 3 * SIZE, 3)
    for row in range(2):
        loaded = given["inputs"][row][0].permute(1, 2, 0).numpy()[..., ::-1]
        original, masked, reconstruction = panels(picture, row)
        assert np.array_equal(original, loaded)
        hidden = np.zeros((SIZE, SIZE), bool)
        hidden[:32, 32:] = True
        assert np.array_equal(masked[~hidden], loaded[~hidden]) and (masked[hidden] == 128).all()
        assert np.array_equal(reconstruction[~hidden], loaded[~hidden])
        assert (reconstruction[hidden] == COLOUR).all()


def test_files_and_backends(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = runner(Decoder(), tmp_path)
    hook = ReconstructionHook(num_images=5)
    with caplog.at_level(logging.INFO):
        picture = validate(hook, run, batch(3), batch(3, 3), batch(3, 6))
    assert run.model.calls == [(3, False), (2, False)], "the first five images, and no more batches than they are in"
    file = tmp_path / "reconstructions/iter_20.png"
    assert caplog.messages == [f"Reconstructions of 5 images: {file}"]
    ((name, added, step),) = run.visualizer._vis_backends["Board"].pictures
    assert (name, step) == ("reconstructions", 20) and np.array_equal(added, picture)
    assert not list((tmp_path / "local").rglob("*.png"))
    run.iter = 40
    again = validate(hook, run, batch(3), batch(3, 3))
    assert np.array_equal(again, picture), "the same images with the same masks"
    assert sorted(path.name for path in file.parent.iterdir()) == ["iter_20.png", "iter_40.png"]


def test_a_test_writes_where_it_is_told(tmp_path: Path):
    run = runner(Decoder(), tmp_path / "work")
    shown = []
    run.visualizer.show = lambda picture, **settings: shown.append((picture, settings))
    for show in (False, True):
        # As `tools/test.py --show-dir` sets them.
        hook = ReconstructionHook(num_images=1, out_dir=str(tmp_path / "out"), show=show, wait_time=0.5)
        hook.before_test_epoch(run)
        hook.after_test_iter(run, 0, batch(2), [])
        hook.after_test_epoch(run)
    picture = cv2.imread(str(tmp_path / "out/test.png"))[..., ::-1]
    ((seen, settings),) = shown
    assert np.array_equal(seen, picture) and settings == dict(win_name="reconstructions", wait_time=0.5)
    assert not run.visualizer._vis_backends["Board"].pictures and not (tmp_path / "work").exists()


def test_masks_of_its_own(tmp_path: Path):
    run = runner(Decoder(), tmp_path)
    picture = validate(ReconstructionHook(mask_patch_size=16, mask_ratio=0.6), run, batch(2), batch(2, 2))
    masks = [(panels(picture, row)[1] == 128).all(2) for row in range(4)]
    blocks = [mask.reshape(4, 16, 4, 16).swapaxes(1, 2) for mask in masks]
    for each in blocks:
        assert (each.all((2, 3)) | ~each.any((2, 3))).all() and each.all((2, 3)).sum() == 10  # of 16, rounded up
    assert len({mask.tobytes() for mask in masks}) == 4


def test_nothing_is_disturbed(tmp_path: Path):
    model = Decoder().train()
    model.frozen.eval()
    before, state = {name: module.training for name, module in model.named_modules()}, random_state()
    validate(ReconstructionHook(), runner(model, tmp_path), batch(2))
    assert {name: module.training for name, module in model.named_modules()} == before
    after = random_state()
    assert torch.equal(after["torch"], state["torch"]) and torch.equal(after["numpy"][0], state["numpy"][0])
    assert after["numpy"][1:] == state["numpy"][1:] and after["python"] == state["python"]


def test_the_number_below_an_image_is_what_training_minimises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = pretrainer()
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:8] = True
    given = batch(2, mask=mask)
    hook = ReconstructionHook()
    drawn: list[PanelRow] = []
    monkeypatch.setattr(
        "mtadapt.engine.hooks.reconstruction_hook.draw_panels",
        lambda rows, titles: drawn.extend(rows) or draw_panels(rows, titles),
    )
    validate(hook, runner(model, tmp_path), given)
    for row in range(2):
        one = model.data_preprocessor({name: values[row : row + 1] for name, values in given.items()})
        loss = model.eval()(**one, mode="loss")["mim.loss_pixel"].item()
        assert drawn[row].caption == f"{row}.jpg   25% hidden   L1 {loss:.3f}"


def test_pixels_of_the_real_decoder(tmp_path: Path):
    model = pretrainer().eval()
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    given = batch(1, mask=mask)
    images = model.data_preprocessor(given)["inputs"][:, 0]
    with torch.no_grad(), model.masked_image.masking.hiding(mask[None], keep_statistics=True):
        decoded = model.masked_image.decoder(model.backbone(images)[-1])[0]
    expected = (decoded * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]).clamp(0, 255)
    picture = validate(ReconstructionHook(), runner(model, tmp_path), given)
    hidden = np.kron(mask.numpy(), np.ones((4, 4))) > 0
    got = panels(picture, 0)[2][hidden].astype(float)
    assert got == pytest.approx(expected.permute(1, 2, 0).numpy()[hidden], abs=0.51)
    assert got.std() > 5


def test_models_without_the_branch_and_other_processes_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hook = ReconstructionHook()
    assert validate(hook, runner(nn.Linear(2, 2), tmp_path), batch(1)) is None
    assert validate(hook, runner(pretrainer(masked_image=None), tmp_path), batch(1)) is None
    assert validate(ReconstructionHook(num_images=0), runner(Decoder(), tmp_path), batch(1)) is None
    # The strategy's outline of a model whose parameters are spread has no values.
    spread = runner(Decoder(), tmp_path)
    spread.strategy = SimpleNamespace(outline=Decoder().to("meta"))
    assert validate(hook, spread, batch(1)) is None
    other = runner(Decoder(), tmp_path)
    monkeypatch.setattr("mmengine.dist.utils.is_main_process", lambda: False)
    assert validate(hook, other, batch(1)) is None and not other.model.calls
    assert not list(tmp_path.iterdir())


def test_many_rows_stand_in_two_blocks(tmp_path: Path):
    run = runner(Decoder(), tmp_path)
    given = batch(5)
    picture = validate(ReconstructionHook(), run, given)
    wide = 3 * 3 * SIZE
    assert picture.shape == (STRIP + 3 * (3 * SIZE + STRIP), 2 * wide + 12, 3)
    blocks = picture[:, :wide], picture[:, wide + 12 :]
    for number, (block, row) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        loaded = given["inputs"][number][0].permute(1, 2, 0).numpy()[..., ::-1]
        assert np.array_equal(panels(blocks[block], row)[0], loaded)
    assert (blocks[1][STRIP + 2 * (3 * SIZE + STRIP) :] == 32).all(), "nothing below the fifth"


@pytest.mark.parametrize(("ratio", "model_patch", "message"), [
    (0.0, 4, r"mask_ratio=0.0 must be between 0 and 1"),
    (1.0, 4, r"mask_ratio=1.0 must be between 0 and 1"),
    (0.6, 5, r"mask_patch_size=32 must be a multiple of model_patch_size=5"),
])  # fmt: skip
def test_wrong_settings(ratio: float, model_patch: int, message: str):
    with pytest.raises(MTAdaptError, match=message):
        ReconstructionHook(mask_ratio=ratio, model_patch_size=model_patch)


def test_images_that_the_squares_do_not_fill(tmp_path: Path):
    with pytest.raises(MTAdaptError, match="images of 48x48 pixels are no multiple of mask_patch_size=32"):
        validate(ReconstructionHook(), runner(Decoder(), tmp_path), batch(1, size=48))


def pretrainer(**settings: Any) -> HeuristicPretrainer:
    """A small Swin with a decoder of 32 pixels."""
    torch.manual_seed(0)
    backbone = dict(
        type="mmpretrain.SwinTransformer",
        arch=dict(embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]),
        img_size=SIZE,
        stage_cfgs=dict(block_cfgs=dict(window_size=2)),
    )
    settings = dict(masked_image=dict(in_channels=96, encoder_stride=32)) | settings
    if settings["masked_image"] is None:
        settings["multi_label"] = dict(type="LinearMultiLabelHead", in_channels=96, labels=dict(objects=["car", "bus"]))
    preprocessor = dict(type="PretrainDataPreprocessor", mean=MEAN, std=STD, bgr_to_rgb=True)
    model = HeuristicPretrainer(backbone, data_preprocessor=preprocessor, **settings)
    model.init_weights()
    return model
