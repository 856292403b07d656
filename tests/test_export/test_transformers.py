"""Files of models with transformers and experts against the models, for every number and size of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mtadapt.errors import MTAdaptError
from mtadapt.export import MultiTaskGraph, compare, onnx_runner, trace, warm_up, write_onnx
from mtadapt.registry import MODELS
from tests.models import NORMALISE, as_task, classifier, fcos, fpn_head
from tests.moe_models import BACKBONE as EXPERTS
from tests.test_export.models import images, spread_model

SWIN = dict(type="mmdet.SwinTransformer", embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4)
#: Height and width: as traced, smaller than the windows of the last map, with padding and without.
SIZES = [(192, 200), (70, 96), (131, 224)]


def _compare_all(model, run, tasks: list[str], sizes: list[tuple[int, int]] = SIZES) -> None:
    for size in sizes:
        for difference in compare(model, run, images(1, *size, seed=sum(size))[0], f"{size}", tasks):
            assert difference.value < 1e-3, difference


def _compare_a_batch(run, batch: np.ndarray) -> None:
    together = run(batch)
    for number, image in enumerate(batch):
        for name, value in run(image[None]).items():
            np.testing.assert_allclose(together[name][number], value[0], atol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["mmdet", "mmseg", "mmpretrain"])
def test_a_swin_transformer(tmp_path: Path, library: str):
    """mmpretrain's without padding of small maps, whose last map is not shifted where it is one window."""
    backbone = dict(SWIN, type=f"{library}.SwinTransformer")
    tasks = dict(det=fcos(), sem_seg=fpn_head(), cls=classifier())
    if library == "mmpretrain":
        arch = {key: backbone.pop(key) for key in ("embed_dims", "depths", "num_heads")}
        arch["depths"] = [2, 1, 1, 2]
        backbone.update(arch=arch, out_indices=(0, 1, 2, 3), pad_small_map=False)
        tasks = dict(cls=tasks["cls"])
    model = spread_model(backbone=backbone, **tasks)
    graph = MultiTaskGraph(model).eval()
    with pytest.raises(MTAdaptError, match=r"--size 159x192: .* at least 160 pixels"):
        trace(graph, (159, 192))
    write_onnx(trace(graph, (200, 192)), graph, tmp_path / "model.onnx", {})
    run = onnx_runner(tmp_path / "model.onnx")
    small = library != "mmpretrain"
    _compare_all(model, run, graph.names, SIZES if small else [(192, 200), (128, 128), (128, 224), (190, 120)])
    _compare_a_batch(run, images(3, 70, 96) if small else images(3, 128, 128))


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
    _compare_a_batch(run, images(2, 100, 70))


@pytest.mark.parametrize(("divisor", "backbone"), [(1, SWIN), (32, dict(SWIN, patch_size=8, strides=(8, 2, 2, 2)))])
def test_a_divisor_that_the_stride_does_not_divide(divisor: int, backbone: dict):
    model = spread_model(backbone=backbone, cls=classifier())
    model.data_preprocessor.pad_size_divisor = divisor
    graph = MultiTaskGraph(model).eval()
    with pytest.raises(MTAdaptError, match=rf"pad_size_divisor={divisor}: AdaptivePadding pads by .*--fixed-size"):
        trace(graph, (640, 640))
    model.data_preprocessor.pad_size_divisor = 64
    assert warm_up(MultiTaskGraph(model).eval()) == (320 if divisor == 32 else 160)


@pytest.mark.slow
def test_experts_of_swin(tmp_path: Path):
    """Two banks, of which a task sees the first, in shifted windows."""
    arch = dict(embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 2, 2, 4])
    experts = dict(num_experts=[[3, 2]] * 5, top_k=2)
    backbone = dict(type="MoESwin", arch=arch, tasks=["cls", "scene"], mlp_experts=experts, window_size=4)
    model = spread_model(backbone=dict(backbone, task_banks=dict(scene=1)), cls=classifier(), scene=classifier(7))
    graph = MultiTaskGraph(model).eval()
    write_onnx(trace(graph, (200, 192)), graph, tmp_path / "model.onnx", {})
    run = onnx_runner(tmp_path / "model.onnx")
    _compare_all(model, run, graph.names)
    _compare_a_batch(run, images(2, 100, 70))


@pytest.mark.slow
def test_experts_of_a_vision_transformer(tmp_path: Path):
    """In attention and in the MLPs; one size, any number of images."""
    torch.manual_seed(0)
    arch = dict(embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=128)
    experts = dict(mlp_experts=dict(num_experts=5, top_k=2), attention_experts=dict(num_experts=6, top_k=4))
    backbone = dict(type="MoEViT", arch=arch, tasks=["cls", "scene"], window_size=4, out_indices=[0, 1, 2, 3])
    tasks = dict(cls=as_task(classifier()), scene=as_task(classifier(7)))
    preprocessor = dict(type="mtadapt.MultiTaskDataPreprocessor", **NORMALISE)
    model = MODELS.build(
        dict(type="MultiTaskModel", data_preprocessor=preprocessor, backbone=dict(backbone, **experts), tasks=tasks)
    ).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5 if "tasks." in name or ".routers." in name else 0.1)
    graph = MultiTaskGraph(model).eval()
    write_onnx(trace(graph, (200, 120), fixed_size=True), graph, tmp_path / "model.onnx", {})
    run = onnx_runner(tmp_path / "model.onnx")
    _compare_all(model, run, graph.names, [(120, 200)])
    _compare_a_batch(run, images(3, 120, 200))


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
