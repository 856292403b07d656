"""MultiTaskModel against the stock models that its tasks are made of."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement

from mtadapt.errors import MTAdaptError
from mtadapt.models.image_groups import ImageGroup
from mtadapt.models.multi_task_model import _touch
from mtadapt.registry import MODELS
from tests import models
from tests.models import BACKBONE, DETECTORS, NECK, NORMALISE, SEGMENTORS, batch, multi_task_model

SIZES = [(64, 100), (96, 128)]


def flat(losses: dict, prefix: str = "") -> dict[str, torch.Tensor]:
    """Losses with lists summed and the prefix cut off."""
    return {
        key.removeprefix(prefix): sum(value) if isinstance(value, list) else value
        for key, value in losses.items()
        if key.startswith(prefix) and "loss" in key
    }


def stock_twin(model, name: str, config: ConfigDict, scope: str):
    """The stock model with its own backbone and neck and the weights of the multi-task model's task."""
    stock = copy.deepcopy(config)
    source = stock.backbone.get("source", "neck")
    indices = stock.backbone.get("indices", (0, 1, 2, 3))
    stock.pop("backbone")
    stock.update(_scope_=scope, backbone=dict(BACKBONE, out_indices=indices if source == "backbone" else (0, 1, 2, 3)))
    if scope != "mmdet":
        stock.backbone["type"] = "mmdet.ResNet"
    if source == "neck":
        stock.neck = NECK
    preprocessor = dict(mmdet="DetDataPreprocessor", mmseg="SegDataPreProcessor")[scope]
    options = dict(NORMALISE)
    if scope == "mmseg":
        options["size_divisor"] = options.pop("pad_size_divisor")
        options["test_cfg"] = dict(size_divisor=32)
    twin = MODELS.build(ConfigDict(stock, data_preprocessor=dict(type=preprocessor, _scope_=scope, **options)))
    weights = {key.removeprefix(f"tasks.{name}."): value for key, value in model.state_dict().items()}
    missing, unexpected = twin.load_state_dict(weights, strict=False)
    assert not missing, missing
    assert all(key.startswith(("tasks.", "neck.", "data_preprocessor")) for key in unexpected), unexpected
    return twin


def native_batch(data: dict, task: str) -> dict:
    """The batch as the stock library's loader gives it."""
    samples = copy.deepcopy([sample.task(task) for sample in data["data_samples"]])
    for sample in samples:
        if "gt_sem_seg" in sample:
            sample.gt_sem_seg.data = sample.gt_sem_seg.data.long()
    return dict(inputs=[image.clone() for image in data["inputs"]], data_samples=samples)


def compare(model, twin, name: str, sizes: list[tuple[int, int]]) -> None:
    data = batch([(name,)] * len(sizes), sizes)
    stock_data = native_batch(data, name)
    for network in (model, twin):
        network.train()
    torch.manual_seed(1)
    ours = flat(model(**model.data_preprocessor(copy.deepcopy(data), True), mode="loss"), f"{name}.")
    torch.manual_seed(1)
    stock = flat(twin(**twin.data_preprocessor(copy.deepcopy(stock_data), True), mode="loss"))
    assert set(ours) == set(stock)
    for key, value in stock.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=0)
    model.eval()
    twin.eval()
    with torch.no_grad():
        ours = model(**model.data_preprocessor(data, False), mode="predict")
        stock = twin(**twin.data_preprocessor(stock_data, False), mode="predict")
    for sample, expected in zip(ours, stock, strict=True):
        native: BaseDataElement = sample.task(name)
        if name == "det":
            for field in ("bboxes", "scores", "labels"):
                torch.testing.assert_close(native.pred_instances[field], expected.pred_instances[field], rtol=0, atol=0)
        else:
            assert native.pred_sem_seg.data.shape[-2:] == tuple(sample.ori_shape)
            assert torch.equal(native.pred_sem_seg.data, expected.pred_sem_seg.data)


@pytest.mark.parametrize("name", DETECTORS)
def test_one_detector_equals_the_stock_model(name: str):
    config = models.as_task(DETECTORS[name]())
    model = multi_task_model(det=config)
    compare(model, stock_twin(model, "det", config, "mmdet"), "det", SIZES)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_one_segmentor_equals_the_stock_model(name: str):
    config = SEGMENTORS[name]()
    model = multi_task_model(sem_seg=config)
    twin = stock_twin(model, "sem_seg", config, "mmseg")
    compare(model, twin, "sem_seg", [(96, 128), (96, 128)])


def test_segmentor_cuts_off_the_padding():
    """An image in a larger batch is predicted as alone in a batch padded to that size."""
    model = multi_task_model(sem_seg=models.fpn_head()).eval()
    data = batch([("sem_seg",)] * 2, [(96, 128), (64, 100)])
    with torch.no_grad():
        both = model(**model.data_preprocessor(copy.deepcopy(data), False), mode="predict")
        features = model.extract_features(model.data_preprocessor(copy.deepcopy(data), False)["inputs"])["neck"]
        logits = model.tasks["sem_seg"].decode_head(features)[1:]
    full = torch.nn.functional.interpolate(logits, size=(96, 128), mode="bilinear")
    assert torch.equal(both[1].sem_seg.pred_sem_seg.data[0], full[0, :, :64, :100].argmax(0))


def test_classifier_equals_the_stock_model():
    model = multi_task_model(cls=models.classifier())
    config = models.classifier()
    config.backbone = dict(BACKBONE, out_indices=(3,))
    twin = MODELS.build(config)
    weights = {key.removeprefix("tasks.cls."): value for key, value in model.state_dict().items()}
    assert not twin.load_state_dict(weights, strict=False).missing_keys
    data = model.data_preprocessor(batch([("cls",)] * 2), True)
    model.train()
    twin.train()
    ours = model.loss(data["inputs"], data["data_samples"])["cls.loss"]
    stock = twin.loss(data["inputs"], [sample.cls for sample in data["data_samples"]])["loss"]
    torch.testing.assert_close(ours, stock, rtol=0, atol=0)
    model.eval()
    twin.eval()
    ours = model.predict(data["inputs"], data["data_samples"])
    stock = twin.predict(data["inputs"])
    for sample, expected in zip(ours, stock, strict=True):
        torch.testing.assert_close(sample.cls.pred_score, expected.pred_score, rtol=0, atol=0)


def three_tasks():
    return multi_task_model(det=models.faster_rcnn(), sem_seg=models.fpn_head(), drivable=models.fpn_head(3))


def test_tasks_see_only_the_rows_with_their_labels():
    """The loss of a task on a mixed batch is its loss on its rows alone."""
    model = three_tasks().train()
    labelled = [("det",), ("sem_seg", "drivable"), ("det", "drivable"), ("sem_seg",)]
    data = model.data_preprocessor(batch(labelled), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    rows = [1, 3]
    alone = model.loss(data["inputs"][rows], [data["data_samples"][row] for row in rows])
    torch.testing.assert_close(losses["sem_seg.decode.loss_ce"], alone["sem_seg.decode.loss_ce"])
    assert losses["det.samples"] == 2 and losses["sem_seg.samples"] == 2 and losses["drivable.samples"] == 2
    changed = data["inputs"].clone()
    changed[[0, 2]] = 0
    other = model.loss(changed, data["data_samples"])
    torch.testing.assert_close(losses["sem_seg.decode.loss_ce"], other["sem_seg.decode.loss_ce"])
    assert not torch.allclose(losses["det.loss_cls"], other["det.loss_cls"])


def test_absent_task_gives_every_parameter_a_zero_gradient():
    model = three_tasks().train()
    data = model.data_preprocessor(batch([("sem_seg",), ("sem_seg",)]), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    assert losses["det.loss_absent"] == 0 and losses["drivable.loss_absent"] == 0
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith(("tasks.det", "tasks.drivable")):
            assert not parameter.grad.any(), name
    assert any(parameter.grad.any() for parameter in model.tasks["sem_seg"].parameters())


def test_loss_weights_scale_losses_and_not_statistics():
    torch.manual_seed(0)
    model = three_tasks().train()
    data = model.data_preprocessor(batch([("det", "sem_seg", "drivable")] * 2), True)
    torch.manual_seed(5)
    plain = model.loss(data["inputs"], data["data_samples"])
    model.loss_weights = dict(det=0.5, sem_seg=0.0)
    torch.manual_seed(5)
    weighted = model.loss(data["inputs"], data["data_samples"])
    for name, factor in (("det.", 0.5), ("sem_seg.", 0.0), ("drivable.", 1.0)):
        for key, value in flat(plain, name).items():
            torch.testing.assert_close(flat(weighted, name)[key], factor * value)
    torch.testing.assert_close(weighted["sem_seg.decode.acc_seg"], plain["sem_seg.decode.acc_seg"])


def test_total_is_the_sum_of_all_losses():
    model = three_tasks().train()
    data = model.data_preprocessor(batch([("det", "sem_seg", "drivable")] * 2), True)
    losses = model.loss(data["inputs"], data["data_samples"])
    total, logged = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(flat(losses).values()))
    assert all("." in key for key in logged if key != "loss")


def test_predict_fills_every_task_with_or_without_samples():
    model = three_tasks().eval()
    data = model.data_preprocessor(dict(inputs=batch([()] * 2)["inputs"]), False)
    with torch.no_grad():
        samples = model.predict(data["inputs"])
        with_metas = model.predict(data["inputs"], data["data_samples"])
    for sample, other in zip(samples, with_metas, strict=True):
        assert sample.tasks == ("det", "drivable", "sem_seg")
        assert sample.drivable.pred_sem_seg.data.shape == (1, 96, 128)
        assert "seg_logits" not in sample.sem_seg
        assert torch.equal(sample.sem_seg.pred_sem_seg.data, other.sem_seg.pred_sem_seg.data)
        assert torch.equal(sample.det.pred_instances.bboxes, other.det.pred_instances.bboxes)


def test_tensor_mode_gives_the_shared_features():
    model = three_tasks().eval()
    features = model(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in features] == [
        (32, 16, 24),
        (32, 8, 12),
        (32, 4, 6),
        (32, 2, 3),
        (32, 1, 2),
    ]


def test_shared_weights_are_stored_once():
    keys = three_tasks().state_dict()
    assert sum("layer4.1.conv2.weight" in key for key in keys) == 1
    assert not any(key.startswith(("tasks.det.backbone", "tasks.sem_seg.backbone")) for key in keys)


def test_mmseg_config_files_are_pasted_as_they_are():
    """mmseg's own base configs, with nothing changed but the backbone and the widths of this small network."""
    import mmseg
    from mmengine.config import Config

    folder = Path(mmseg.__file__).parent / ".mim/configs/_base_/models"
    fpn, uper = (Config.fromfile(folder / name).model for name in ("fpn_r50.py", "upernet_r50.py"))
    assert "pretrained" in fpn and "pretrained" in uper
    for config in (fpn, uper):
        config._scope_ = "mmseg"
        config.norm_cfg = None
    fpn.pop("neck")
    fpn.decode_head.in_channels = [32] * 4
    uper.decode_head.in_channels, uper.auxiliary_head.in_channels = [8, 16, 32, 64], 32
    uper.backbone = dict(**models.SHARED, source="backbone")
    fpn.backbone = models.SHARED
    for config in (fpn, uper):
        config.pop("norm_cfg")
    model = multi_task_model(sem_seg=fpn, drivable=uper)
    assert list(model.tasks) == ["sem_seg", "drivable"]


def test_one_labelled_row_trains_a_head_with_batch_norm():
    model = multi_task_model(det=models.fcos(), sem_seg=models.uper_head()).train()
    data = model.data_preprocessor(batch([("det",), ("det", "sem_seg")]), True)
    before = {name: value.clone() for name, value in model.tasks["sem_seg"].named_buffers()}
    model.parse_losses(model.loss(data["inputs"], data["data_samples"]))[0].backward()
    assert all(torch.equal(value, before[name]) for name, value in model.tasks["sem_seg"].named_buffers())
    assert all(norm.training for norm in model.tasks["sem_seg"].modules())
    assert model.tasks["sem_seg"].decode_head.conv_seg.weight.grad.any()


@pytest.mark.parametrize("scope", ["mmdet", "mmseg", "mmpretrain"])
def test_model_builds_under_any_default_scope(scope: str):
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        config = dict(backbone=BACKBONE, tasks=dict(cls=models.as_task(models.classifier())))
        assert type(MODELS.build(dict(type="mtadapt.MultiTaskModel", **config)).data_preprocessor).__name__ == (
            "MultiTaskDataPreprocessor"
        )


@pytest.mark.parametrize("scope", ["mmdet", "mmseg", "mmpretrain"])
def test_shared_features_are_found_from_every_scope(scope: str):
    import importlib

    registry = importlib.import_module(f"{scope}.registry").MODELS
    module = registry.build(dict(type="mtadapt.SharedFeatures", indices=(1,)))
    levels = (torch.zeros(1), torch.ones(1))
    assert module(levels) == (levels[1],)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(tasks={}), "tasks is empty"),
        (dict(loss_weights=dict(lane=1.0)), r"loss_weights of unknown tasks \['lane'\]; tasks: \['det'\]"),
        (dict(tasks=dict(det=dict(type="FasterRCNN"))), "type='FasterRCNN' does not say its library"),
        (dict(tasks=dict(glossy=models.fpn_head())), "task name 'glossy': .* not the word 'loss'"),
        (dict(tasks=dict(img_path=models.fpn_head())), "task name 'img_path' is an attribute of the samples"),
        (dict(tasks=dict(items=models.fpn_head())), "task name 'items' is an attribute of the samples"),
        (
            dict(tasks=dict(det=dict(type="mmdet.FasterRCNN", backbone=dict(type="ResNet")))),
            "task 'det': backbone='ResNet'; write backbone=dict",
        ),
        (
            dict(tasks=dict(s=dict(type="mmseg.EncoderDecoder", backbone=models.SHARED, test_cfg=dict(mode="slide")))),
            "mode 'slide' cuts images",
        ),
        (
            dict(tasks=dict(s=dict(type="mmseg.X", backbone=dict(**models.SHARED, source="stem")))),
            "X|unknown source 'stem'",
        ),
    ],
)
def test_config_errors(changes: dict, message: str):
    config = dict(type="mtadapt.MultiTaskModel", backbone=BACKBONE, tasks=dict(det=models.as_task(models.fcos())))
    with pytest.raises((MTAdaptError, KeyError), match=message):
        MODELS.build({**config, **changes})


def test_label_of_a_task_that_the_model_lacks():
    model = multi_task_model(det=models.fcos()).train()
    data = model.data_preprocessor(batch([("det", "sem_seg")]), True)
    with pytest.raises(MTAdaptError, match=r"0.jpg: labelled for task 'sem_seg', which the model does not have"):
        model.loss(data["inputs"], data["data_samples"])


def test_absent_task_is_zero_for_large_half_precision_features():
    model = multi_task_model(det=models.fcos(), sem_seg=models.fpn_head()).train()
    huge = tuple(torch.full((1, 8, 64, 64), 60000.0, dtype=torch.float16) for _ in range(5))
    assert _touch(model.tasks["sem_seg"], ImageGroup(huge[0], [], dict(neck=huge), [])) == 0
