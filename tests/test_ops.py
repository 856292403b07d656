"""The served ops, through mmcv's public functions.

Every test runs on the fallback and, where mmcv has compiled ops with a kernel for the device, on these too.
"""

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import mtadapt.ops  # isort: skip  (before mmcv.ops, which needs it where mmcv has no compiled ops)

import mmcv.ops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch.autograd import gradcheck

from mtadapt.ops.served import SERVED_OPS

COMPILED = sys.modules["mmcv._ext"] if hasattr(sys.modules["mmcv._ext"], "__file__") else None
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(params=["fallback"] if COMPILED is None else ["fallback", "compiled"])
def ops(request, monkeypatch):
    """The name of the implementation, after mmcv's Python layer was pointed at it."""
    use(COMPILED if request.param == "compiled" else mtadapt.ops.build_fallback(), monkeypatch)
    return request.param


def use(implementation, monkeypatch):
    for name, module in list(sys.modules.items()):
        if name.startswith("mmcv.ops.") and hasattr(module, "ext_module"):
            monkeypatch.setattr(module, "ext_module", implementation)


def cuda_only(ops, device="cpu"):
    if ops == "compiled" and device == "cpu":
        pytest.skip("compiled mmcv has no CPU kernel of this op")


def fallback_only(ops, reason):
    if ops == "compiled":
        pytest.skip(reason)


def random_boxes(count, seed=0, size=60.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=generator, dtype=dtype) * size
    wh = torch.rand(count, 2, generator=generator, dtype=dtype) * size / 2 + 1
    return torch.cat((xy, xy + wh), 1), torch.rand(count, generator=generator, dtype=dtype)


def plain_iou(a, b, offset=0):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_nms_is_the_plain_loop(ops, device, offset, threshold):
    boxes, scores = random_boxes(80, size=30.0)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(plain_iou(boxes[i].tolist(), boxes[j].tolist(), offset) <= threshold for j in kept):
            kept.append(i)
    dets, index = mmcv.ops.nms(boxes.to(device), scores.to(device), threshold, offset=offset)
    assert index.tolist() == kept
    assert torch.equal(dets.cpu(), torch.cat((boxes, scores[:, None]), 1)[kept])


@pytest.mark.parametrize("device", DEVICES)
def test_nms_offset_changes_the_result(ops, device):
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]], device=device)  # IoU 4/14 = 0.286, with the offset 5/15
    scores = torch.tensor([0.9, 0.8], device=device)
    assert mmcv.ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.3])
def test_nms_keeps_an_iou_of_exactly_the_threshold(ops, threshold):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10 * threshold, 10]])
    assert mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8]), threshold)[1].tolist() == [0, 1]


def test_nms_ties_empty_and_limits(ops):
    boxes = torch.tensor([[0.0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]])
    scores = torch.full((3,), 0.5)
    assert mmcv.ops.nms(boxes, scores, 0.5)[1].tolist() == [0, 1, 2]
    assert mmcv.ops.nms(boxes, torch.tensor([0.1, 0.3, 0.2]), 0.5, score_threshold=0.15, max_num=1)[1].tolist() == [1]
    dets, index = mmcv.ops.nms(boxes[:0], scores[:0], 0.5)
    assert dets.shape == (0, 5) and index.dtype == torch.int64 and not len(index)
    dets, index = mmcv.ops.nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray) and index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.bfloat16,) * 2, (torch.float64,) * 2])
def test_nms_takes_other_dtypes(ops, dtypes):
    fallback_only(ops, "compiled nms reads float32 only")
    boxes = torch.tensor([[0.0, 0, 8, 8], [1, 0, 9, 8], [20, 0, 28, 8]], dtype=dtypes[0])
    assert mmcv.ops.nms(boxes, torch.tensor([0.5, 0.50001, 0.25], dtype=dtypes[1]), 0.5)[1].tolist() in ([1, 2], [0, 2])


def test_batched_nms_separates_classes(ops):
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8], [1, 0, 9, 8]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])
    config = dict(type="nms", iou_threshold=0.5)
    assert mmcv.ops.batched_nms(boxes, scores, classes, config)[1].tolist() == [0, 1]
    assert mmcv.ops.batched_nms(boxes, scores, classes, config, class_agnostic=True)[1].tolist() == [0]
    assert mmcv.ops.batched_nms(boxes, scores, classes, dict(config, split_thr=2))[1].tolist() == [0, 1]


def plain_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """Select the best, decay the others, drop the weak, as the paper says."""
    waiting, kept = dict(enumerate(scores)), []
    while waiting:
        best = max(waiting, key=waiting.__getitem__)
        kept.append((best, waiting.pop(best)))
        for i in list(waiting):
            overlap = plain_iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                waiting[i] *= np.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                waiting[i] *= 0 if method == "naive" else 1 - overlap
            if waiting[i] < min_score:
                del waiting[i]
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_is_the_plain_loop(ops, method, offset):
    boxes, scores = random_boxes(60, size=30.0)
    expected = plain_soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, offset)
    dets, index = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert index.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([float(s) for _, s in expected]), rtol=1e-4, atol=1e-6)
    assert torch.equal(dets[:, :4], boxes[index])


def test_soft_nms_of_ties(ops):
    boxes, scores = random_boxes(40, size=30.0)
    index = mmcv.ops.soft_nms(boxes, (scores * 3).round() / 3, 0.3, 0.5, 0.05, "naive")[1].tolist()
    # Golden numbers of compiled mmcv 2.3.6: equal scores follow the order that its loop leaves them in.
    assert index[:12] == [10, 12, 18, 22, 31, 5, 7, 37, 13, 29, 33, 20]
    assert index[12:] == [23, 24, 35, 9, 26, 17, 39, 0, 11, 27, 38, 1]


def test_soft_nms_of_nothing(ops):
    dets, index = mmcv.ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and not len(index)


def test_nms_match_groups(ops):
    dets = torch.tensor([[0.0, 0, 8, 8, 0.7], [1, 0, 9, 8, 0.9], [20, 0, 28, 8, 0.8], [0, 0, 8, 7, 0.6]])
    assert [group.tolist() for group in mmcv.ops.nms_match(dets, 0.5)] == [[1, 0, 3], [2]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps_by_hand(ops, device, offset):
    first, second = (random_boxes(7, seed)[0] for seed in (1, 2))
    expected = torch.tensor([[plain_iou(a, b, offset) for b in second.tolist()] for a in first.tolist()])
    pairwise = mmcv.ops.bbox_overlaps(first.to(device), second.to(device), offset=offset).cpu()
    torch.testing.assert_close(pairwise, expected)
    aligned = mmcv.ops.bbox_overlaps(first.to(device), second.to(device), aligned=True, offset=offset).cpu()
    torch.testing.assert_close(aligned, expected.diagonal())
    inner = mmcv.ops.bbox_overlaps(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 4, 1]]), mode="iof")
    assert inner.tolist() == [[0.5]]


# ---------------------------------------------------------------- RoI pooling


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_of_a_ramp_is_the_ramp_at_the_bin_centres(ops, device, aligned, sampling_ratio):
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    ramp = torch.stack((3 * x + y, torch.full_like(x, 7.0)))[None].repeat(2, 1, 1, 1).to(device)
    rois = torch.tensor([[1, 8.0, 6, 40, 30], [0, 10.0, 12, 31, 27]], device=device)
    output = mmcv.ops.RoIAlign((3, 4), 0.5, sampling_ratio, aligned=aligned)(ramp, rois).cpu()
    for roi, out in zip(rois.cpu(), output, strict=True):
        x1, y1, x2, y2 = (roi[1:] * 0.5 - 0.5 * aligned).tolist()
        centre_x = x1 + (x2 - x1) * (torch.arange(4) + 0.5) / 4
        centre_y = y1 + (y2 - y1) * (torch.arange(3) + 0.5) / 3
        torch.testing.assert_close(out[0], 3 * centre_x + centre_y[:, None], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(out[1], torch.full((3, 4), 7.0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_survives_negative_and_zero_sizes(ops, device, sampling_ratio):
    cuda_only(ops, device)
    features = torch.rand(1, 2, 8, 8, device=device, requires_grad=True)
    rois = torch.tensor([[0, 5.0, 5, 2, 7], [0, 5.0, 5, 2, 2], [0, 3.0, 3, 3, 3], [0, 1.0, 1, 6, 6]], device=device)
    output = mmcv.ops.roi_align(features, rois, 2, 1.0, sampling_ratio, "avg", True)
    output.sum().backward()
    assert output.isfinite().all() and features.grad.isfinite().all()
    if sampling_ratio == 0:  # no samples, and the last RoI is not disturbed
        alone = mmcv.ops.roi_align(features, rois[3:], 2, 1.0, 0, "avg", True)
        assert torch.equal(output[:3], torch.zeros_like(output[:3])) and torch.equal(output[3:], alone)


def test_roi_align_of_no_rois(ops):
    features = torch.rand(1, 2, 8, 8, requires_grad=True)
    output = mmcv.ops.roi_align(features, torch.zeros(0, 5), 2)
    output.sum().backward()
    assert output.shape == (0, 2, 2, 2) and not features.grad.any()


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_gradient(ops, sampling_ratio):
    features = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[1, 0.3, 0.7, 5.1, 4.9], [0, 1.0, 2, 9, 5]], dtype=torch.float64)
    assert gradcheck(lambda x: mmcv.ops.roi_align(x, rois, (2, 3), 0.8, sampling_ratio), (features,))


def test_roi_align_max_is_refused(ops):
    fallback_only(ops, "compiled ops have it")
    with pytest.raises(RuntimeError, match=r"pool_mode='max'.*torchvision cannot serve"):
        mmcv.ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision(ops, dtype):
    fallback_only(ops, "compiled ops round at every step")
    features, rois = torch.rand(1, 2, 8, 8).to(dtype), torch.tensor([[0, 1.0, 1, 6, 5]])
    with torch.autocast("cpu", torch.bfloat16):
        low = mmcv.ops.roi_align(features.requires_grad_(), rois.to(dtype), 2)
    low.sum().backward()
    assert low.dtype == features.grad.dtype == dtype
    torch.testing.assert_close(low, mmcv.ops.roi_align(features.detach().float(), rois, 2).to(dtype))


@pytest.mark.parametrize("device", DEVICES)
def test_roi_pool_takes_the_maximum_of_each_bin(ops, device):
    cuda_only(ops, device)
    features = torch.rand(2, 3, 9, 11, device=device, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[1, 1.0, 2, 7, 9], [0, 3.5, 1.2, 14.3, 40], [0, 9.0, 9, 3, 3]], device=device).double()
    output = mmcv.ops.roi_pool(features, rois, (2, 3), 0.7)
    expected = torch.zeros_like(output)
    for n, (b, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * 0.7, y1 * 0.7, (x2 + 1) * 0.7, (y2 + 1) * 0.7
        for i, j in np.ndindex(2, 3):
            rows = slice(int(np.floor(y1 + (y2 - y1) * i / 2)), max(int(np.ceil(y1 + (y2 - y1) * (i + 1) / 2)), 0))
            columns = slice(int(np.floor(x1 + (x2 - x1) * j / 3)), max(int(np.ceil(x1 + (x2 - x1) * (j + 1) / 3)), 0))
            cells = features[int(b), :, rows, columns].flatten(1)
            if x2 > x1 and y2 > y1 and cells.numel():
                expected[n, :, i, j] = cells.amax(1)
    assert torch.equal(output, expected)
    weights = torch.rand_like(output)
    (gradient,) = torch.autograd.grad((output * weights).sum(), features)
    (reference,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(gradient, reference)


# ---------------------------------------------------------------- focal losses


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_focal_loss_is_its_formula(ops, device, weighted):
    cuda_only(ops, device)
    logits = (torch.randn(6, 3, device=device) * 3).requires_grad_()
    target = torch.tensor([0, 1, 2, 2, 1, 0], device=device)
    weight = torch.tensor([0.5, 1.0, 2.0], device=device) if weighted else None
    p = logits.double().sigmoid()
    positive = F.one_hot(target, 3).bool()
    formula = torch.where(positive, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())
    formula = formula * (weight[target][:, None] if weighted else 1)
    loss = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "none")
    torch.testing.assert_close(loss.double(), formula, rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "mean"), logits)
    (reference,) = torch.autograd.grad(formula.sum() / 6, logits)
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


def test_sigmoid_focal_loss_background_and_large_logits(ops):
    fallback_only(ops, "the compiled kernel saturates")
    logits = torch.tensor([[40.0, -40.0, 120.0]])
    background = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([3]), 2.0, 0.25, None, "none")
    torch.testing.assert_close(background, torch.tensor([[30.0, 0.0, 90.0]]))
    assert torch.equal(mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([-1]), 2.0, 0.25, None, "none"), background)
    weighted = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([3]), 2.0, 0.25, torch.full((3,), 5.0), "none")
    assert torch.equal(weighted, background)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_softmax_focal_loss_is_its_formula(ops, device, gamma):
    cuda_only(ops, device)
    logits = torch.randn(5, 4, device=device, requires_grad=True)
    target = torch.tensor([0, 3, 1, -1, 2], device=device)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], device=device)
    valid = (target >= 0).double()
    p = logits.double().softmax(1)[torch.arange(5), target.clamp(min=0)]
    formula = -0.25 * (1 - p) ** gamma * p.log() * weight[target.clamp(min=0)] * valid
    loss = mmcv.ops.softmax_focal_loss(logits, target, gamma, 0.25, weight, "mean")
    torch.testing.assert_close(loss.double(), formula.sum() / 5, rtol=1e-4, atol=1e-6)
    gradients = (torch.autograd.grad(value, logits)[0] for value in (loss, formula.sum() / 5))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- deformable sampling


def deform_case(dtype=torch.float64, device="cpu"):
    """Input, offset, mask, weight, bias of a strided, padded, dilated convolution with 2 groups and 2 offset groups."""
    torch.manual_seed(0)
    shapes = [(2, 4, 7, 6), (2, 36, 4, 2), (2, 18, 4, 2), (6, 2, 3, 3), (6,)]
    return [torch.randn(shape, dtype=dtype, device=device).requires_grad_() for shape in shapes]


GEOMETRY = dict(stride=(2, 3), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=2)
CONVOLUTION = {name: value for name, value in GEOMETRY.items() if name != "deform_groups"}


@pytest.mark.parametrize("device", DEVICES)
def test_deform_conv_without_offset_is_the_convolution(ops, device):
    x, offset, mask, weight, bias = deform_case(device=device)
    plain = mmcv.ops.deform_conv2d(x, offset * 0, weight, *GEOMETRY.values())
    torch.testing.assert_close(plain, F.conv2d(x, weight, **CONVOLUTION))
    modulated = mmcv.ops.modulated_deform_conv2d(x, offset * 0, mask * 0 + 0.5, weight, bias, *GEOMETRY.values())
    torch.testing.assert_close(modulated, 0.5 * F.conv2d(x, weight, **CONVOLUTION) + bias[:, None, None])


@pytest.mark.parametrize("device", DEVICES)
def test_deform_conv_with_whole_offsets_is_the_shifted_convolution(ops, device):
    x, weight = torch.randn(2, 3, 8, 9, device=device), torch.randn(4, 3, 3, 3, device=device)
    offset = (
        torch.tensor([1.0, 2.0], device=device).repeat(9)[None, :, None, None].repeat(2, 1, 6, 7)
    )  # down 1, right 2
    shifted = F.pad(x, (0, 2, 0, 1))[:, :, 1:, 2:]
    torch.testing.assert_close(
        mmcv.ops.deform_conv2d(x, offset, weight), F.conv2d(shifted, weight), rtol=1e-4, atol=1e-4
    )


def test_deform_conv_sends_no_gradient_to_offsets_of_points_outside(ops):
    x, offset = torch.ones(1, 1, 3, 3), torch.zeros(1, 18, 3, 3, requires_grad=True)
    mmcv.ops.deform_conv2d(x, offset, torch.ones(1, 1, 3, 3), 1, 1).sum().backward()
    gradient = offset.grad.view(3, 3, 2, 3, 3)  # (tap y, tap x, axis, y, x); slope at the far border: from 1 to 0
    inside = torch.arange(3)[:, None] + torch.arange(3) - 1  # of tap and output along one axis
    last, valid = (inside == 2).float(), ((inside >= 0) & (inside <= 2)).float()
    torch.testing.assert_close(gradient[:, :, 0], -torch.einsum("ij,kl->ikjl", last, valid))
    torch.testing.assert_close(gradient[:, :, 1], -torch.einsum("ij,kl->ikjl", valid, last))


def test_deform_conv_gradients(ops):
    x, offset, mask, weight, bias = deform_case()
    plain, modulated = mmcv.ops.deform_conv2d, mmcv.ops.modulated_deform_conv2d
    geometry = tuple(GEOMETRY.values())
    assert gradcheck(lambda *a: plain(*a, *geometry), (x, offset, weight), fast_mode=True)
    assert gradcheck(lambda *a: modulated(*a, *geometry), (x, offset, mask, weight, bias), fast_mode=True)
    assert gradcheck(lambda *a: modulated(*a, None, *geometry), (x, offset, mask, weight), fast_mode=True)


def test_deform_conv_under_autocast(ops):
    fallback_only(ops, "compiled CPU ops have no bfloat16")
    layer = mmcv.ops.ModulatedDeformConv2dPack(3, 4, 3, padding=1)
    x = torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and layer.weight.grad.isfinite().all()
    torch.testing.assert_close(output.float(), layer(x), rtol=0.05, atol=0.05)


def attention_case(device="cpu"):
    torch.manual_seed(0)
    shapes = torch.tensor([[4, 5], [2, 3]], device=device)
    value = torch.randn(2, 26, 3, 2, dtype=torch.float64, device=device, requires_grad=True)
    cells = torch.stack([torch.randint(high, (2, 7, 3, 4), device=device) for high in (5, 4, 3, 2)], -1)
    cells = cells.view(2, 7, 3, 4, 2, 2).transpose(3, 4)  # (B, Q, heads, levels, points, xy)
    weights = torch.rand(2, 7, 3, 2, 4, dtype=torch.float64, device=device, requires_grad=True)
    return value, shapes, torch.tensor([0, 20], device=device), cells, weights


@pytest.mark.parametrize("device", DEVICES)
def test_ms_deform_attn_at_cell_centres_reads_the_cells(ops, device):
    cuda_only(ops, device)
    value, shapes, start, cells, weights = attention_case(device)
    locations = (cells.double() + 0.5) / shapes.flip(1)[:, None]
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    index = start[:, None] + cells[..., 1] * shapes[:, 1, None] + cells[..., 0]
    batch, head = (
        torch.arange(2, device=device)[:, None, None, None, None],
        torch.arange(3, device=device)[:, None, None],
    )
    expected = (value[batch, index, head] * weights[..., None]).sum((3, 4)).flatten(2)
    torch.testing.assert_close(output, expected)


def test_ms_deform_attn_is_grid_sample(ops):
    cuda_only(ops)
    value, locations = torch.randn(1, 20, 1, 3), torch.rand(1, 6, 1, 1, 1, 2) * 1.4 - 0.2  # also outside
    shapes, start, weights = torch.tensor([[4, 5]]), torch.tensor([0]), torch.ones(1, 6, 1, 1, 1)
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    grid = 2 * locations[:, :, 0, 0] - 1
    sampled = F.grid_sample(value[:, :, 0].mT.reshape(1, 3, 4, 5), grid, align_corners=False)
    torch.testing.assert_close(output, sampled[..., 0].mT)


def test_ms_deform_attn_gradient(ops):
    cuda_only(ops)
    value, shapes, start, _, weights = attention_case()
    locations = torch.rand(2, 7, 3, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    function = lambda v, l, w: MultiScaleDeformableAttnFunction.apply(v, shapes, start, l, w, 64)  # noqa: E731, E741
    assert gradcheck(function, (value, locations, weights))


def test_masked_conv_is_the_convolution_where_the_mask_is_set(ops):
    cuda_only(ops)
    layer = mmcv.ops.MaskedConv2d(3, 4, (3, 5), padding=(1, 2))
    x, mask = torch.randn(1, 3, 6, 7), torch.rand(1, 6, 7) > 0.5
    torch.testing.assert_close(layer(x, mask), layer(x) * mask, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- against compiled ops, and the module itself


@pytest.mark.skipif(COMPILED is None, reason="this mmcv has no compiled ops")
@pytest.mark.parametrize("device", DEVICES)
def test_equal_to_compiled_ops(device, monkeypatch):
    features = torch.randn(2, 4, 25, 30, device=device, requires_grad=True)
    boxes, scores = (tensor.to(device) for tensor in random_boxes(400))
    rois = torch.cat((torch.arange(400, device=device)[:, None] % 2, boxes * 2), 1)
    tied = (scores * 20).round() / 20
    x, offset, mask, weight, bias = deform_case(torch.float32, device)

    def everything():
        yield from (mmcv.ops.nms(boxes, scores, t, offset=o)[1] for t in (0.3, 0.5, 0.7) for o in (0, 1))
        for method in ("naive", "linear", "gaussian"):
            yield from mmcv.ops.soft_nms(boxes, tied, method=method, offset=1)
        yield from mmcv.ops.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.4)
        yield mmcv.ops.bbox_overlaps(boxes, boxes.flip(0), "iof", offset=1)
        for ratio, aligned in ((0, True), (0, False), (2, True), (2, False)):
            pooled = mmcv.ops.roi_align(features, rois, (7, 5), 0.25, ratio, "avg", aligned)
            yield from (pooled, torch.autograd.grad((pooled**2).sum(), features)[0])
        for output in (
            mmcv.ops.deform_conv2d(x, offset.round(), weight, *GEOMETRY.values()),
            mmcv.ops.deform_conv2d(x, offset, weight, *GEOMETRY.values()),
            mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *GEOMETRY.values()),
        ):
            gradients = torch.autograd.grad((output**2).sum(), (x, offset, mask, weight, bias), allow_unused=True)
            yield from (output, *(gradient for gradient in gradients if gradient is not None))

    use(COMPILED, monkeypatch)
    expected = list(everything())
    use(mtadapt.ops.build_fallback(), monkeypatch)
    actual = list(everything())
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_every_name_that_mmcv_loads_is_present_and_stubs_say_what_to_do():
    asked = set()
    for module in pkgutil.iter_modules(mmcv.ops.__path__):
        source = Path(importlib.util.find_spec(f"mmcv.ops.{module.name}").origin).read_text()
        for names in re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", source, re.DOTALL):
            asked.update(re.findall(r"'(\w+)'", names))
    fallback = mtadapt.ops.build_fallback()
    assert len(asked) > 100 and set(SERVED_OPS) <= asked
    for name in asked - set(SERVED_OPS):
        with pytest.raises(
            RuntimeError, match=rf"^{name}: this mmcv has no compiled ops and torchvision cannot"
        ) as info:
            getattr(fallback, name)(1, offset=0)
        message = str(info.value)
        assert "\n" not in message and "roi_align_forward" in message and "--no-build-isolation" in message
    assert not hasattr(fallback, "__path__")


def test_an_unserved_op_fails_only_when_it_is_called(monkeypatch):
    use(mtadapt.ops.build_fallback(), monkeypatch)
    with pytest.raises(RuntimeError, match="line_nms_forward: this mmcv"):
        mmcv.ops.line_nms(torch.zeros(1, 4), torch.zeros(1), 0.5, 1)
    assert "torchvision" in mmcv.ops.get_compiler_version()
