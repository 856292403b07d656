"""Views, masks and packed samples are those of the stock parts, equal for equal seeds, and refused where none fit."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import SimMIMMaskGenerator
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN

from mtadapt.datasets import HeterogeneousDataset
from mtadapt.datasets.heterogeneous import Draw
from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.errors import MTAdaptError
from mtadapt.registry import TRANSFORMS
from tests.command_line import ROOT
from tests.public_layouts import write_coco

CROP = [
    dict(type="RandomResizedCrop", scale=32, crop_ratio_range=(0.67, 1.0)),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
]
STRONG = [
    dict(type="RandomResizedCrop", scale=32, crop_ratio_range=(0.2, 1.0)),
    dict(type="RandomApply", transforms=[dict(type="ColorJitter", brightness=0.4, hue=0.1)], prob=0.8),
    dict(type="RandomGrayscale", prob=0.2, keep_channels=True),
    dict(type="GaussianBlur", magnitude_range=(0.1, 2.0), magnitude_std="inf", prob=0.5),
    dict(type="Solarize", thr=128, prob=0.2),
]
FLIP = dict(type="RandomFlip", prob=1.0, direction="horizontal")


@TRANSFORMS.register_module()
class _GiveAway(BaseTransform):
    """Replaces the image by what a test asks for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def transform(self, results: dict) -> dict | None:
        image = results["img"]
        made = dict(
            none=None,
            float=image.astype(np.float32),
            grey=image[..., 0],
            tensor=torch.from_numpy(image),
        )[self.kind]
        return None if made is None else dict(results, img=made)


def image(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def seeded(seed: int = 0) -> None:
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)  # noqa: NPY002


def views(base: list, key: list | None = None, **results) -> dict:
    built = TRANSFORMS.build(dict(type="PretrainViews", base=base, key=key))
    return built(dict(img=image(), img_path="a.jpg", **results))


@pytest.mark.parametrize("seed", range(4))
def test_views_are_those_of_the_stock_transforms(seed: int):
    seeded(seed)
    found = views(CROP, STRONG)["views"]
    seeded(seed)
    for view, configs in zip(found, (CROP, STRONG), strict=True):
        expected = Compose([MMPRETRAIN.build(dict(config, _scope_="mmpretrain")) for config in configs])
        assert np.array_equal(view, expected(dict(img=image(), img_shape=(48, 64)))["img"])
    assert len(found) == 2 and not np.array_equal(*found)


def test_the_loaded_image_stays_as_it_is():
    results = views([FLIP])
    assert len(results["views"]) == 1
    assert np.array_equal(results["img"], image()) and np.array_equal(results["views"][0], image()[:, ::-1])
    results["views"][0][:] = 0
    assert np.array_equal(views([])["views"][0], image())
    assert np.array_equal(views([dict(type="mmcv.RandomFlip", prob=1.0)])["views"][0], image()[:, ::-1])


def test_left_and_right_labels_move_with_the_flip():
    """Label 1 is the mirror image of label 2, label 3 that of none."""
    labels = dict(gt_score=np.array([1, 0, 1, 1], np.float32), mirrored=np.array([0, 2, 1, -1]))
    flipped = views([FLIP], **labels)["gt_score"]
    assert flipped.tolist() == [1, 1, 0, -1] and flipped.dtype == np.float32
    assert views([FLIP, FLIP], **labels)["gt_score"].tolist() == [1, 0, 1, 1], "twice is not at all"
    assert views([], [FLIP], **labels)["gt_score"].tolist() == [1, 0, 1, 1], "labels are those of the base view"
    assert labels["gt_score"].tolist() == [1, 0, 1, 1]
    nested = [dict(type="RandomApply", transforms=[FLIP], prob=1.0)]
    assert views(nested, **labels)["gt_score"].tolist() == [1, 1, 0, -1]
    seeded()
    flips = [views(CROP, **labels)["gt_score"].tolist() == [1, 1, 0, -1] for _ in range(100)]
    assert 35 < sum(flips) < 65
    assert views([FLIP], gt_score=labels["gt_score"])["gt_score"].tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (dict(type="Rotate", angle=10.0), "Rotate moves the image in a way that relation labels do not follow"),
        (dict(type="torchvision/RandomHorizontalFlip"), "torchvision/RandomHorizontalFlip moves the image"),
        (dict(type="RandomApply", transforms=[FLIP, FLIP], prob=0.5), "of two flips inside RandomApply one is noticed"),
        (dict(type="RandomApply", transforms=[dict(type="RandAugment")], prob=0.5), "RandAugment moves the image"),
    ],
)
def test_base_views_that_labels_cannot_follow(transform: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        TRANSFORMS.build(dict(type="PretrainViews", base=[transform]))
    if transform["type"] == "Rotate":
        TRANSFORMS.build(dict(type="PretrainViews", base=[], key=[transform]))


def test_vertical_flips_of_labelled_images_are_refused():
    vertical = dict(FLIP, direction="vertical")
    with pytest.raises(
        MTAdaptError, match="the base view is flipped in direction 'vertical', which makes the relation"
    ):
        views([vertical], gt_score=np.ones(1, np.float32))
    assert np.array_equal(views([vertical])["views"][0], image()[::-1])
    assert len(views([], [vertical], gt_score=np.ones(1, np.float32))["views"]) == 2


@pytest.mark.parametrize(
    ("base", "key", "message"),
    [
        (
            [],
            CROP,
            "a.jpg: the base view is 64x48, the key view 32x32; let both end with a crop or a resize to one size",
        ),
        (CROP, [dict(type="Resize", scale=(24, 32))], "the base view is 32x32, the key view 24x32"),
        ([dict(type="mtadapt._GiveAway", kind="none")], None, "a.jpg: _GiveAway of the base view gave no image"),
        ([dict(type="mtadapt._GiveAway", kind="float")], None, r"the base view is float32 \(48, 64, 3\) and not uint8"),
        (
            CROP,
            [dict(type="mtadapt._GiveAway", kind="grey")],
            r"the key view is uint8 \(48, 64\) and not uint8 \(H, W,",
        ),
        ([dict(type="mtadapt._GiveAway", kind="tensor")], None, r"torch.uint8 \(48, 64, 3\) and not .*; leave out"),
        ([dict(type="Normalize", mean=[0.0] * 3, std=[1.0] * 3)], None, "the base view is float32"),
        (dict(type="RandomFlip"), None, r"base=\{'type': 'RandomFlip'\}; write a list of transforms"),
        (["RandomFlip"], None, r"base holds 'RandomFlip'; write dict\(type=...\)"),
        ([], [dict(type="RandomFlop")], "key: RandomFlop cannot be built: KeyError: .*RandomFlop is not in the"),
        ([dict(type="RandomFlip", chance=1)], None, "base: RandomFlip cannot be built: TypeError: .*'chance'"),
    ],
)
def test_views_that_do_not_fit(base, key, message: str):
    with pytest.raises(MTAdaptError, match=f"PretrainViews: .*{message}") as error:
        views(base, key)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("input_size", "mask_patch_size", "model_patch_size", "mask_ratio"),
    [(192, 32, 4, 0.6), (160, 32, 4, 0.6), (224, 16, 16, 0.75), (192, 64, 32, 0.01), (96, 32, 32, 0.88)],
)
def test_masks_are_those_of_simmim(input_size: int, mask_patch_size: int, model_patch_size: int, mask_ratio: float):
    settings = dict(
        input_size=input_size,
        mask_patch_size=mask_patch_size,
        model_patch_size=model_patch_size,
        mask_ratio=mask_ratio,
    )
    ours, stock = TRANSFORMS.build(dict(type="MaskPatches", **settings)), SimMIMMaskGenerator(**settings)
    for seed in range(5):
        seeded(seed)
        found = ours(dict(views=[image(input_size, input_size)]))["mask"]
        seeded(seed)
        expected = stock.transform({})["mask"]
        side = input_size // model_patch_size
        assert found.dtype == bool and found.shape == (side, side) and np.array_equal(found, expected.astype(bool))
        patches = found.size // (input_size // mask_patch_size) ** 2
        share = np.ceil((input_size // mask_patch_size) ** 2 * mask_ratio) * patches / found.size
        assert found.mean() == pytest.approx(share) and 0 < share < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((dict(mask_ratio=ratio), f"mask_ratio={ratio!r}; write a number between 0 and 1") for ratio in (0, 1, 1.5)),
        (dict(mask_ratio=-0.1), "mask_ratio=-0.1; write a number"),
        (dict(mask_ratio=float("nan")), "mask_ratio=nan; write a number"),
        (dict(mask_ratio="0.6"), "mask_ratio='0.6'; write a number"),
        (dict(mask_ratio=True), "mask_ratio=True; write a number"),
        (
            dict(mask_ratio=0.98),
            "mask_ratio=0.98 masks all 36 patches of 32 pixels in 192x192; use at most 0.9722 or a",
        ),
        (dict(mask_patch_size=192), "mask_ratio=0.6 masks all 1 patches of 192 pixels in 192x192; use at most 0 or"),
        (dict(input_size=200), "input_size=200 is no multiple of mask_patch_size=32; change one"),
        (dict(model_patch_size=5), "mask_patch_size=32 is no multiple of model_patch_size=5; change one"),
        (dict(model_patch_size=64), "mask_patch_size=32 is no multiple of model_patch_size=64"),
        (dict(input_size=0), "input_size=0; write a whole number of pixels above 0"),
        (dict(mask_patch_size=32.0), "mask_patch_size=32.0; write a whole number"),
        (dict(input_size=(192, 192)), r"input_size=\(192, 192\); write a whole number"),
        (dict(seed=-1), "seed=-1; write a whole number of at least 0, or None"),
    ],
)
def test_mask_settings_that_do_not_fit(change: dict, message: str):
    with pytest.raises(MTAdaptError, match=f"MaskPatches: {message}"):
        TRANSFORMS.build(dict(type="MaskPatches", **dict(dict(input_size=192), **change)))


def test_masks_belong_to_the_base_view():
    transform = TRANSFORMS.build(dict(type="MaskPatches", input_size=64))
    with pytest.raises(MTAdaptError, match=r"MaskPatches: a\.jpg is 64x48 and input_size=64; put it behind"):
        transform(dict(img=image(), img_path="a.jpg"))
    assert transform(dict(img=image(), views=[image(64, 64)]))["mask"].shape == (16, 16)


def test_a_seed_fixes_the_mask_of_every_image():
    build = dict(type="MaskPatches", input_size=192)
    first, second = (TRANSFORMS.build(dict(build, seed=seed)) for seed in (0, 1))
    seeded(3)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    masks = [first(dict(views=[image(192, 192)], img_id=number))["mask"] for number in (0, 1, 0)]
    assert np.array_equal(masks[0], masks[2]) and not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(second(dict(views=[image(192, 192)], img_id=0))["mask"], masks[0])
    assert np.random.get_state()[1].tolist() == before, "what others draw does not change"  # noqa: NPY002


def test_packing():
    mask, scores = np.eye(4, dtype=bool), np.array([1, 0, -1], np.float32)
    results = dict(
        views=[image(8, 8), image(8, 8, 1)],
        img_path="a.jpg",
        img_id=3,
        labelled_tasks=("mlc",),
        gt_score=scores,
        mask=mask,
    )
    pack = TRANSFORMS.build(dict(type="PackPretrainInputs"))
    packed = pack(results)
    assert packed["inputs"].dtype == torch.uint8 and packed["inputs"].shape == (2, 3, 8, 8)
    assert np.array_equal(packed["inputs"][1].permute(1, 2, 0).numpy(), image(8, 8, 1))
    sample = packed["data_samples"]
    assert (sample.img_path, sample.img_id, sample.labelled_tasks) == ("a.jpg", 3, ("mlc",))
    assert sample.tasks == ("mlc",) and sample.mlc.gt_score.tolist() == [1, 0, -1]
    assert sample.mlc.gt_score.dtype == torch.float32 and sample.mlc.img_path == "a.jpg"
    assert sample.mask.dtype == torch.bool and torch.equal(sample.mask, torch.eye(4).bool())
    bare = pack(dict(views=[image(8, 8)], img_path="a.jpg"))["data_samples"]
    assert bare.tasks == () and bare.labelled_tasks == () and "mask" not in bare
    with pytest.raises(MTAdaptError, match=r"PackPretrainInputs: a\.jpg has no views; add PretrainViews before"):
        pack(dict(img=image(), img_path="a.jpg"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """data/synthetic, data/bdd100k and data/coco with a few small images each."""
    root = tmp_path_factory.mktemp("pretraining")
    for name in ("synthetic", "bdd100k"):
        write_bdd100k(str(root / "data" / name), 6, 3, (160, 96), seed=0, workers=1)
    write_coco(root / "data/coco", 6)
    return root


@pytest.mark.parametrize(("name", "size", "batch"), [("hvp_synthetic", 160, 16), ("hvp_coco_bdd100k", 192, 128)])
def test_batches_of_the_configs(folder, monkeypatch, name: str, size: int, batch: int):
    monkeypatch.chdir(folder)
    config = Config.fromfile(ROOT / f"configs/_base_/datasets/{name}.py")
    for loader, views_, number in ((config.train_dataloader, 2, batch), (config.val_dataloader, 1, None)):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            made = next(iter(Runner.build_dataloader(loader, seed=0)))
        assert len(made["inputs"]) == (number or sum(Runner.build_dataloader(loader, seed=0).dataset.sizes.values()))
        labels = sum(len(names) for names in config.labels.values())
        for inputs, sample in zip(made["inputs"], made["data_samples"], strict=True):
            assert inputs.shape == (views_, 3, size, size) and inputs.dtype == torch.uint8
            assert sample.mask.shape == (size // 4, size // 4) and sample.mlc.gt_score.shape == (labels,)
        sources = [sample.source for sample in made["data_samples"]]
        if name == "hvp_coco_bdd100k" and number:
            assert (sources.count("coco"), sources.count("bdd100k")) == (80, 48)


def test_equal_seeds_give_equal_bytes(folder, monkeypatch):
    """Which is what lets a run that was interrupted go on as if it had not been."""
    monkeypatch.chdir(folder)
    config = Config.fromfile(ROOT / "configs/_base_/datasets/hvp_synthetic.py")
    first, second = (HeterogeneousDataset(config.train_dataloader.dataset.sources) for _ in range(2))

    def loaded(dataset: HeterogeneousDataset, seed: int) -> tuple[torch.Tensor, ...]:
        packed = dataset[Draw(0, 1, seed)]
        return packed["inputs"], packed["data_samples"].mask, packed["data_samples"].mlc.gt_score

    changed = np.zeros(3, int)
    for seed in range(0, 7 * 2**61, 2**61):
        one = loaded(first, seed)
        seeded(seed % 2**32)  # whatever was drawn before
        assert all(map(torch.equal, one, loaded(second, seed)))
        changed += [not torch.equal(a, b) for a, b in zip(one, loaded(first, seed + 2**33), strict=True)]
    assert changed[0] == changed[1] == 7 and changed[2] > 0, "views, masks and left and right differ between draws"


def test_wide_images_are_cropped_at_random():
    """SimMIM's aspect ratios would leave the middle of nearly all 5:3 images; those of the config leave 67 to 100 %."""
    config = Config.fromfile(ROOT / "configs/_base_/datasets/hvp_synthetic.py")
    crop = config.train_pipeline[1].base[0]
    transform = MMPRETRAIN.build(dict(crop, _scope_="mmpretrain"))
    seeded()
    boxes = [transform.rand_crop_params(np.empty((192, 320, 3), np.uint8)) for _ in range(200)]
    areas = np.array([height * width for _, _, height, width in boxes]) / (192 * 320)
    assert len(set(boxes)) > 190 and areas.min() > 0.66 and areas.mean() > 0.75
