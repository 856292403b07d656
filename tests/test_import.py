"""What ``import mtadapt`` brings, and that it mends stock mmdet, mmseg and mmpretrain in any order of import.

Every case is a process of its own, because an import happens once.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_OPS = """
import sys
from importlib.machinery import PathFinder
import importlib.util
locations = importlib.util.find_spec("mmcv").submodule_search_locations
if PathFinder.find_spec("mmcv._ext", locations) is not None:
    sys.exit(77)  # compiled ops: nothing to mend
"""


def run(code, *path):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([*map(str, path), str(ROOT)]))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    if done.returncode == 77:
        pytest.skip("this mmcv has compiled ops")
    return done


def output_of(code, *path):
    done = run(code, *path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def write_package(folder, name, **files):
    (folder / name).mkdir()
    for stem, text in {"__init__": "", **files}.items():
        (folder / name / f"{stem}.py").write_text(text)


def test_import_is_light():
    code = """
import time, torch, torchvision, mmengine.registry
start = time.process_time()
import mtadapt, sys
assert mtadapt.__version__ and "LVAdapter" in mtadapt.__all__
print(time.process_time() - start, *({"mmcv", "mmdet", "mmseg", "mmpretrain", "mmengine"} & sys.modules.keys()))
"""
    seconds, *packages = output_of(code)
    assert float(seconds) < 1
    assert packages == ["mmengine"]


def test_stock_detectors_train_and_predict_after_nothing_but_the_import():
    code = """
import mtadapt
import torch
from mmengine.config import ConfigDict
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
init_default_scope("mmdet")
from mmengine.structures import InstanceData
norm = dict(type="BN", requires_grad=True)
backbone = dict(type="ResNet", depth=18, base_channels=8, norm_cfg=norm)
neck = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
box_coder = dict(type="DeltaXYWHBBoxCoder")
cross_entropy = dict(type="CrossEntropyLoss", use_sigmoid=True)
assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.3)
sampler = dict(type="RandomSampler", num=32, pos_fraction=0.5)
train = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1)
proposals = dict(nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
faster_rcnn = dict(
    type="FasterRCNN", backbone=backbone, neck=neck, data_preprocessor=dict(type="DetDataPreprocessor"),
    rpn_head=dict(
        type="RPNHead", in_channels=16, feat_channels=16, bbox_coder=box_coder, loss_cls=cross_entropy,
        anchor_generator=dict(type="AnchorGenerator", scales=[8], ratios=[1.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor", out_channels=16, featmap_strides=[4, 8, 16, 32],
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)),
        bbox_head=dict(type="Shared2FCBBoxHead", in_channels=16, fc_out_channels=16, num_classes=3,
                       bbox_coder=box_coder)),
    train_cfg=dict(rpn=train, rpn_proposal=proposals, rcnn=train),
    test_cfg=dict(rpn=proposals, rcnn=dict(score_thr=0.0, nms=dict(type="soft_nms"), max_per_img=10)))
fcos = dict(
    type="FCOS", backbone=backbone, neck=dict(neck, start_level=1, add_extra_convs="on_output"),
    data_preprocessor=dict(type="DetDataPreprocessor"),
    bbox_head=dict(
        type="FCOSHead", num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, dcn_on_last_conv=True,
        norm_cfg=dict(type="GN", num_groups=4)),
    test_cfg=dict(nms_pre=50, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10))
torch.manual_seed(0)
for config in (faster_rcnn, fcos):
    model = MODELS.build(ConfigDict(config)).train()
    sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1, 1)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 60, 70], [50, 20, 120, 90]]), labels=torch.tensor([0, 2]))
    batch = model.data_preprocessor(dict(inputs=[torch.rand(3, 96, 128) * 255], data_samples=[sample]), True)
    total, losses = model.parse_losses(model(**batch, mode="loss"))
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert total.isfinite() and total > 0 and losses.keys() >= {"loss_cls", "loss_bbox"}, losses
    assert len(gradients) > 40 and all(g.isfinite().all() for g in gradients)
    with torch.no_grad():
        found = model.eval()(**batch, mode="predict")[0].pred_instances
    assert 0 < len(found) <= 10 and found.bboxes.isfinite().all()
    print(type(model).__name__)
"""
    assert output_of(code)[-2:] == ["FasterRCNN", "FCOS"]


MENDED = """
import mtadapt
import mmdet.models, mmpretrain.models, mmseg.models
import mmcv.ops
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import base_dense_head
from mmdet.models.layers import msdeformattn_pixel_decoder as decoder
from mmdet.models.losses import focal_loss
from mmdet.structures.mask import structures
from mmdet.utils import large_image
assert base_dense_head.batched_nms is large_image.batched_nms is batched_nms
assert structures.roi_align is mmcv.ops.roi_align and focal_loss._sigmoid_focal_loss is mmcv.ops.sigmoid_focal_loss
assert decoder.MultiScaleDeformableAttention is mmcv.ops.MultiScaleDeformableAttention
assert mmseg.models.losses.focal_loss._sigmoid_focal_loss is mmcv.ops.sigmoid_focal_loss
assert issubclass(mmseg.models.Mask2FormerHead, mmdet.models.Mask2FormerHead)
assert mmpretrain.models.utils.res_layer_extra_norm.ResLayerExtraNorm is not None
from mmengine.utils.dl_utils import mmcv_full_available
assert mmcv_full_available()
"""


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("import mmdet.models", id="mmdet.models-failed", marks=pytest.mark.slow),
        pytest.param("import mmcv.ops", id="mmcv.ops-failed", marks=pytest.mark.slow),
        pytest.param("import mmcv, mmdet, mmseg", id="top-level", marks=pytest.mark.slow),
        pytest.param("from mmdet.apis import inference_detector", id="mmdet.apis", marks=pytest.mark.slow),
        pytest.param("from mmseg.apis import init_model", id="mmseg.apis", marks=pytest.mark.slow),
    ],
)
def test_import_after_the_libraries(before):
    failed = before in ("import mmdet.models", "import mmcv.ops")
    attempt = f"try:\n    {before}\nexcept ModuleNotFoundError as e:\n    print(e)\n    assert {failed}"
    done = run(f"{NO_OPS}\n{attempt}\nelse:\n    assert not {failed}\n{MENDED}")
    assert done.returncode == 0, done.stderr


def test_nothing_is_done_where_compiled_ops_are_present(tmp_path):
    write_package(tmp_path, "mmcv", _ext="")
    code = """
import mtadapt, mtadapt.ops, sys
assert mtadapt.ops.activate() is False
print(*(name in sys.modules for name in ("mmcv", "mmcv._ext", "torchvision")))
"""
    assert output_of(code, tmp_path) == ["False", "False", "False"]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="no torchvision")
@pytest.mark.parametrize(
    "torchvision", ["raise RuntimeError('operator torchvision::nms does not exist')", "raise ImportError('broken')"]
)
def test_a_torchvision_that_does_not_fit_is_named_with_the_remedy(tmp_path, torchvision):
    write_package(tmp_path, "mmcv")
    write_package(tmp_path, "torchvision", __init__=torchvision)
    done = run("import mtadapt", tmp_path)
    message = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert message.startswith("mtadapt.errors.MTAdaptError: mmcv has no compiled ops and torchvision")
    assert torchvision.split("'")[1] in message and "pip install" in message


def test_the_public_models_come_when_asked_for():
    code = """
import mtadapt, mtadapt.models
for name in mtadapt.__all__:
    assert getattr(mtadapt, name) is not None
assert mtadapt.LVAdapter is mtadapt.models.LVAdapter
try:
    mtadapt.LVAdaptor
except AttributeError as error:
    print(error)
"""
    assert output_of(code)[-1] == "'LVAdaptor'"
