"""Files of models with transformers and experts against the models, for every number and size of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mtadapt.errors import MTAdaptError
from mtadapt.export import MultiTaskGraph, compare, onnx_runner, trace, write_onnx
from tests.models import classifier, fcos, fpn_head
from tests.moe_models import BACKBONE as EXPERTS
from tests.test_export.models import images, spread_model

SWIN = dict(type="mmdet.SwinTransformer", embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4)
#: Height and width: as traced, smaller than the windows of the last map, with padding and without.
SIZES = [(192, 200), (70, 96), (131, 224)]


def _compare_all(model, run, tasks: list[str]) -> None:
    for size in SIZES:
        for difference in compare(model, run, images(1, *size, seed=sum(size))[0], f"{size}", tasks):
            assert difference.value < 1e-3, difference


@pytest.mark.slow
def test_a_swin_transformer(tmp_path: Path):
    model = spread_model(backbone=SWIN, det=fcos(), sem_seg=fpn_head(), cls=classifier())
    graph = MultiTaskGraph(model).eval()
    assert graph.smallest_side == 160
    with pytest.raises(MTAdaptError, match=r"--size 159x192: .* at least 160 pixels"):
        trace(graph, (159, 192))
    write_onnx(trace(graph, (200, 192)), graph, tmp_path / "model.onnx", {})
    run = onnx_runner(tmp_path / "model.onnx")
    _compare_all(model, run, graph.names)
    assert run(images(3, 70, 96))["sem_seg_classes"].shape == (3, 70, 96)


@pytest.fixture(scope="module")
def experts():
    """Two tasks with routers of their own, and one that takes another's."""
    backbone = dict(EXPERTS, arch=dict(EXPERTS["arch"], depths=[1, 1, 1, 1]), window_size=4)
    settings = dict(det=fcos(), sem_seg=fpn_head(), cls=classifier())
    return spread_model(backbone=backbone, **settings)


@pytest.mark.slow
def test_experts(tmp_path: Path, experts):
    """Each task has the features of its own routers, image by image as in a batch."""
    graph = MultiTaskGraph(experts, ["sem_seg", "det"]).eval()
    write_onnx(trace(graph, (200, 192)), graph, tmp_path / "model.onnx", {})
    run = onnx_runner(tmp_path / "model.onnx")
    _compare_all(experts, run, graph.names)
    batch = images(2, 100, 70)
    together = run(batch)
    for number, image in enumerate(batch):
        for name, value in run(image[None]).items():
            np.testing.assert_allclose(together[name][number], value[0], atol=1e-3, err_msg=name)


def test_tasks_of_one_route_share_a_pass(experts):
    experts.routing["cls"], before = "det", experts.routing["cls"]
    try:
        graph = MultiTaskGraph(experts).eval()
        passes = []
        graph.model.backbone.register_forward_hook(lambda *_: passes.append(1))
        pixels = images(1, 96, 128)
        with torch.no_grad():
            found = graph(torch.from_numpy(pixels))
        assert len(passes) == 2
        for difference in compare(
            experts, lambda _: {name: value.numpy() for name, value in found.items()}, pixels[0], "noise", graph.names
        ):
            assert difference.value < 1e-3, difference
    finally:
        experts.routing["cls"] = before


def test_experts_that_are_refused(experts):
    with pytest.raises(MTAdaptError, match=r"--format torch: a layer of experts .* write --format onnx"):
        trace(MultiTaskGraph(experts, ["cls"]), (192, 192), kind="torch")
    experts.routing["cls"], before = (("det", 0.5), ("sem_seg", 0.5)), experts.routing["cls"]
    try:
        with pytest.raises(MTAdaptError, match=r"task 'cls': a mixture of routers .*'det': 0.5.*--tasks"):
            MultiTaskGraph(experts)
    finally:
        experts.routing["cls"] = before
