"""ONNX files and programs of PyTorch against the stock models, for every number and size of images."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmcv.cnn.bricks.transformer import AdaptivePadding as MMCVAdaptivePadding
from mmdet.models.layers.transformer.utils import AdaptivePadding as MMDetAdaptivePadding
from mmengine.registry import DefaultScope
from mmseg.models.utils.embed import AdaptivePadding as MMSegAdaptivePadding
from timm.layers import Conv2dSame

from mtadapt.errors import MTAdaptError
from mtadapt.export import (
    MultiTaskGraph,
    compare,
    compare_raw,
    describe,
    onnx_runner,
    torch_runner,
    trace,
    write_onnx,
    write_torch,
)
from mtadapt.export.layers import AdaptivePooling, ConstantPadding, ConstantSameConv2d
from tests.command_line import ROOT
from tests.models import faster_rcnn, fpn_head, uper_head
from tests.test_export.models import all_kinds, images, spread_model

TASKS = ["det", "points", "sem_seg", "cls"]
#: Height and width: as traced, smaller, multiples of the divisor and not.
SIZES = [(96, 128), (67, 70), (131, 90), (160, 224)]


class Exported:
    """A model with a task of every kind, and both of its files."""

    def __init__(self, folder: Path) -> None:
        self.model = spread_model(**all_kinds())
        self.graph = MultiTaskGraph(self.model).eval()
        meta = dict(tasks=dict(det=dict(classes=("car", "person")), other=dict(classes=("x",))))
        self.about = describe(self.graph, meta, "config.py", "0123456789ab", None)
        self.folder = folder

    @cached_property
    def onnx(self) -> Path:
        write_onnx(trace(self.graph, (128, 96)), self.graph, self.folder / "model.onnx", self.about)
        return self.folder / "model.onnx"

    @cached_property
    def program(self) -> Path:
        write_torch(trace(self.graph, (128, 96), kind="torch"), self.folder / "model.pt2", self.about)
        return self.folder / "model.pt2"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    with DefaultScope.overwrite_default_scope("mtadapt"):
        return Exported(tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("kind", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_file_gives_what_the_model_predicts(exported: Exported, kind: str):
    run = onnx_runner(exported.onnx) if kind == "onnx" else torch_runner(exported.program)
    for size in SIZES:
        image = images(1, *size, seed=sum(size))[0]
        for difference in compare(exported.model, run, image, f"{size}", TASKS):
            assert difference.value < 1e-3, difference
    batch = images(3, 100, 70)
    together = run(batch)
    for number, image in enumerate(batch):
        alone = run(image[None])
        assert list(alone) == exported.graph.outputs
        for name, value in alone.items():
            if value.dtype == np.float32:
                np.testing.assert_allclose(together[name][number], value[0], atol=1e-3, err_msg=name)
            else:
                assert (together[name][number] == value[0]).mean() > 0.9999, name


def test_the_onnx_file_tells_what_it_is(exported: Exported):
    proto = onnx.load(str(exported.onnx))
    props = {prop.key: json.loads(prop.value) for prop in proto.metadata_props}
    assert props == json.loads(json.dumps(exported.about))
    assert props["classes"] == dict(det=["car", "person"])
    assert props["tasks"] == dict(det="mmdet", points="mmdet", sem_seg="mmseg", cls="mmpretrain")
    assert props["mean"] == pytest.approx([123.675, 116.28, 103.53]) and props["bgr_to_rgb"] is True
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert str(ROOT) not in proto.SerializeToString().decode("latin-1")
    assert dims["images"] == ["batch", "height", "width", 3]
    assert dims["det_boxes"] == ["batch", 100, 4] and dims["sem_seg_classes"] == ["batch", "height", "width"]
    assert list(dims)[1:] == exported.graph.outputs == props["outputs"]


@pytest.mark.slow
def test_the_program_needs_no_mtadapt(exported: Exported):
    script = (
        "import sys, json, torch, torchvision\n"
        "extra = {'mtadapt.json': ''}\n"
        f"program = torch.export.load({str(exported.program)!r}, extra_files=extra).module()\n"
        "found = program(torch.zeros(1, 70, 90, 3, dtype=torch.uint8))\n"
        "assert list(found) == json.loads(extra['mtadapt.json'])['outputs'], list(found)\n"
        "assert not {'mtadapt', 'mmengine', 'mmcv', 'mmdet', 'mmseg'} & set(sys.modules)\n"
        "print(tuple(found['sem_seg_classes'].shape))\n"
    )
    with zipfile.ZipFile(exported.program) as archive:
        assert not any(str(ROOT).encode() in archive.read(name) for name in archive.namelist())
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "(1, 70, 90)", done.stdout + done.stderr


def test_raw_outputs_in_a_fixed_size(tmp_path: Path):
    """Without post-processing, in one size, of chosen tasks, in a newer opset; the runtime refuses another size."""
    model = spread_model(det=faster_rcnn(), sem_seg=fpn_head())
    graph = MultiTaskGraph(model, ["sem_seg", "det"], postprocess=False).eval()
    write_onnx(trace(graph, (90, 70), fixed_size=True), graph, tmp_path / "raw.onnx", {}, opset=20)
    assert onnx.load(str(tmp_path / "raw.onnx")).opset_import[0].version == 20
    run = onnx_runner(tmp_path / "raw.onnx")
    found = compare_raw(graph, run, images(1, 70, 90)[0], "noise")
    assert [each.compared.split(",")[0] for each in found] == ["sem_seg_logits (19", "det_boxes (1000"]
    assert max(each.value for each in found) < 1e-3
    assert run(images(2, 70, 90))["sem_seg_logits"].shape == (2, 19, 70, 90)
    with pytest.raises(Exception, match="invalid dimensions"):
        run(images(1, 96, 96))


@pytest.mark.slow
def test_pooling_that_depends_on_the_size(tmp_path: Path):
    """UPerNet's pyramid has windows whose size is that of the map."""
    model = spread_model(sem_seg=uper_head())
    graph = MultiTaskGraph(model).eval()
    write_onnx(trace(graph, (128, 96)), graph, tmp_path / "model.onnx", {})
    run = onnx_runner(tmp_path / "model.onnx")
    for size in SIZES:
        (found,) = compare(model, run, images(1, *size)[0], f"{size}", ["sem_seg"])
        assert found.value < 1e-3, found


@pytest.mark.parametrize("size", [2, 3, (6, 4), (None, 3)])
@pytest.mark.parametrize("side", [(6, 8), (7, 5), (3, 13)])
def test_adaptive_pooling_by_matrices(size: int | tuple, side: tuple[int, int]):
    layer = torch.nn.AdaptiveAvgPool2d(size)
    features = torch.randn(2, 3, *side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AdaptivePooling(layer)(features), layer(features))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_constant_padding_of_same_convolutions(kernel: int, stride: int):
    torch.manual_seed(0)
    layer = Conv2dSame(4, 6, kernel, stride, groups=2)
    replaced = ConstantSameConv2d(layer)
    for size in ((8, 12), (7, 12)):
        features = torch.randn(2, 4, *size)
        torch.testing.assert_close(replaced(features), layer(features))
        # A map whose sides are no multiples is told, and computed by the stock layer.
        assert replaced.fits == (size == (8, 12) or stride == 1)


@pytest.mark.parametrize("make", [MMCVAdaptivePadding, MMDetAdaptivePadding, MMSegAdaptivePadding])
@pytest.mark.parametrize("how", ["same", "corner"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(2, 2, 1), (3, 2, 1), (7, 4, 1), (4, 2, 1), (3, 2, 2)])
def test_constant_padding(make: type, how: str, kernel: int, stride: int, dilation: int):
    layer = make(kernel_size=kernel, stride=stride, dilation=dilation, padding=how)
    replaced = ConstantPadding(layer)
    for size, fits in (((8, 12), True), ((8, 13), False)):
        features = torch.randn(2, 3, *size)
        assert torch.equal(replaced(features), layer(features)) and replaced.fits == fits


def test_what_cannot_be_traced_or_written(tmp_path: Path):
    graph = MultiTaskGraph(spread_model(sem_seg=fpn_head())).eval()
    with pytest.raises(MTAdaptError, match=r"--size 64x96: .* at least 66 pixels .* --fixed-size"):
        trace(graph, (64, 96))
    with pytest.raises(MTAdaptError, match=r"--opset 7: write one of 18 to 23"):
        write_onnx(None, graph, tmp_path / "model.onnx", {}, opset=7)

    class Follows(torch.nn.Module):
        def forward(self, features):
            return features[0][:, :19] if features[0].max() > 0 else features[0][:, :18]

    graph.model.tasks.sem_seg.decode_head.forward = Follows().forward
    with pytest.raises(MTAdaptError, match=r"PyTorch cannot trace the model \(.*\); leave tasks out"):
        trace(graph, (96, 96), fixed_size=True)
