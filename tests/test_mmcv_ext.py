"""`mmevm.mmcv_ext`: operators against plain formulas, and when they stand in for `mmcv._ext`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmevm import mmcv_ext
from mmevm.mmcv_ext import __main__ as command
from mmevm.mmcv_ext import operators


def boxes(count: int) -> tuple[Tensor, Tensor]:
    """Overlapping boxes [N, 4] with distinct scores [N]."""
    start = torch.rand(count, 2) * 40
    return torch.cat([start, start + torch.rand(count, 2) * 30 + 1], 1), torch.randperm(count) / count


def overlap(a: Tensor, b: Tensor, offset: int) -> float:
    """The intersection over union of two boxes, a side reaching from x1 to x2 + offset."""
    width = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0]) + offset))
    height = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1]) + offset))
    areas = [float((box[2] - box[0] + offset) * (box[3] - box[1] + offset)) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


class TestSuppression:
    """Non-maximum suppression in its forms."""

    @pytest.mark.parametrize('offset', [0, 1])
    @pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
    def test_nms_keeps_what_no_better_box_covers(self, offset: int, dtype: torch.dtype) -> None:
        candidates, scores = boxes(60)
        candidates = candidates.round()  # whole pixels, which half precision holds
        kept: list[int] = []
        for i in scores.argsort(descending=True).tolist():
            if all(overlap(candidates[i], candidates[j], offset) <= 0.4 for j in kept):
                kept.append(i)
        assert 5 < len(kept) < 55
        assert operators.nms(candidates.to(dtype), scores, 0.4, offset).tolist() == kept

    def test_nms_counts_the_last_pixel_with_an_offset(self) -> None:
        pair = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]])  # two of three columns of pixels each
        assert operators.nms(pair, torch.tensor([0.9, 0.8]), 0.3, 0).tolist() == [0, 1]
        assert operators.nms(pair, torch.tensor([0.9, 0.8]), 0.3, 1).tolist() == [0]

    def test_nms_leaves_its_input_as_it_is(self) -> None:
        candidates, scores = boxes(5)
        before = candidates.clone()
        operators.nms(candidates, scores, 0.5, 1)
        assert torch.equal(candidates, before)

    def test_nothing_is_made_of_nothing(self) -> None:
        none = torch.zeros(0, 4), torch.zeros(0)
        assert operators.nms(*none, 0.5, 0).tolist() == []
        assert operators.softnms(*none, torch.zeros(0, 5), 0.3, 0.5, 0.01, 1, 0).tolist() == []

    @pytest.mark.parametrize('method', [0, 1, 2])
    @pytest.mark.parametrize('offset', [0, 1])
    def test_softnms_lowers_scores(self, method: int, offset: int) -> None:
        candidates, scores = boxes(30)
        values, expected = dict(enumerate(scores.tolist())), []
        while values:
            best = max(values, key=values.__getitem__)
            expected.append((best, values.pop(best)))
            for i in list(values):
                iou = overlap(candidates[best], candidates[i], offset)
                linear = [0.0, 1 - iou][min(method, 1)] if iou >= 0.3 else 1.0
                values[i] *= torch.tensor(-(iou**2) / 0.5).exp().item() if method == 2 else linear
                if values[i] < 0.05:
                    del values[i]
        detections = torch.zeros(30, 5)
        kept = operators.softnms(candidates, scores, detections, 0.3, 0.5, 0.05, method, offset)
        assert kept.tolist() == [i for i, _ in expected]
        torch.testing.assert_close(detections[: len(kept), :4], candidates[kept])
        torch.testing.assert_close(detections[: len(kept), 4], torch.tensor([score for _, score in expected]))

    def test_nms_match_groups_what_is_suppressed_with_what_is_kept(self) -> None:
        candidates, scores = boxes(40)
        groups = operators.nms_match(torch.cat([candidates, scores[:, None]], 1), 0.4)
        assert sorted(i for group in groups for i in group) == list(range(40))
        for first, *others in groups:
            assert all(overlap(candidates[first], candidates[i], 0) >= 0.4 for i in others)
            assert scores[[first, *others]].tolist() == sorted(scores[[first, *others]].tolist(), reverse=True)


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """A sample of [C, H, W], zero beyond a pixel outside."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(len(image))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (left + 1 - x) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (left + 1 - x) + image[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def roi_align(maps: Tensor, regions: Tensor, size: tuple[int, int], scale: float, samples: int, aligned: bool):
    """The definition, sample by sample."""
    out = maps.new_zeros(len(regions), maps.shape[1], *size)
    for k, (image, *corners) in enumerate(regions.tolist()):
        x1, y1, x2, y2 = (corner * scale - 0.5 * aligned for corner in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        ny = samples or -int(-height / size[0] // 1)
        nx = samples or -int(-width / size[1] // 1)
        for i in range(size[0]):
            for j in range(size[1]):
                total = sum(
                    bilinear(
                        maps[int(image)],
                        y1 + height / size[0] * (i + (a + 0.5) / ny),
                        x1 + width / size[1] * (j + (b + 0.5) / nx),
                    )
                    for a in range(ny)
                    for b in range(nx)
                )
                out[k, :, i, j] = total / max(ny * nx, 1)
    return out


class TestRoIAlign:
    """Average pooling of regions."""

    maps = torch.arange(2 * 2 * 9 * 7, dtype=torch.float32).reshape(2, 2, 9, 7).sin()
    regions = torch.tensor([[0, 3.0, 2, 11, 14], [1, 0, 0, 26.5, 30], [1, 5, 5, 6, 6.25]])

    def run(self, maps: Tensor, regions: Tensor, samples: int, aligned: bool) -> tuple[Tensor, Tensor]:
        """Pooled regions, and the gradient of their weighted sum with respect to the maps."""
        out, nothing = maps.new_zeros(len(regions), 2, 3, 2), maps.new_zeros(0)
        settings = (3, 2, 0.25, samples, 1, aligned)
        operators.roi_align_forward(maps, regions, out, nothing, nothing, *settings)
        gradient = torch.zeros_like(maps)
        weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(maps.dtype)
        operators.roi_align_backward(weights, regions, nothing, nothing, gradient, *settings)
        return out, gradient

    @pytest.mark.parametrize('samples', [0, 1, 2])
    @pytest.mark.parametrize('aligned', [True, False])
    def test_it_follows_its_definition(self, samples: int, aligned: bool) -> None:
        out, gradient = self.run(self.maps, self.regions, samples, aligned)
        maps = self.maps.clone().requires_grad_()
        expected = roi_align(maps, self.regions, (3, 2), 0.25, samples, aligned)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        (slope,) = torch.autograd.grad(
            (expected * torch.linspace(-1, 1, expected.numel()).reshape(expected.shape)).sum(), maps
        )
        torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        single = self.run(self.maps.to(dtype).float(), self.regions, 2, True)
        half = self.run(self.maps.to(dtype), self.regions.to(dtype), 2, True)
        for got, expected in zip(half, single, strict=True):
            assert got.dtype == dtype
            torch.testing.assert_close(got.float(), expected, rtol=2e-2, atol=2e-2)

    def test_no_regions(self) -> None:
        out, gradient = self.run(self.maps, self.regions[:0], 0, True)
        assert out.shape == (0, 2, 3, 2) and not gradient.any()

    def test_maximum_pooling_says_what_to_install(self) -> None:
        with pytest.raises(NotImplementedError, match="pool_mode='max'.*Install an mmcv with operators"):
            operators.roi_align_forward(self.maps, self.regions, *[torch.zeros(3)] * 3, 3, 2, 0.25, 0, 0, True)


@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss(weighted: bool) -> None:
    logits, target = torch.randn(6, 4) * 3, torch.tensor([0, 1, 2, 3, 1, 0])
    weight = torch.rand(4) if weighted else torch.zeros(0)
    logits.requires_grad_()
    p = logits.sigmoid()
    pt = torch.where(F.one_hot(target, 4).bool(), p, 1 - p)
    alpha = torch.where(F.one_hot(target, 4).bool(), 0.25, 0.75)
    expected = -alpha * (1 - pt) ** 2 * pt.log() * (weight[target][:, None] if weighted else 1)
    (slope,) = torch.autograd.grad(expected.sum(), logits)
    out, gradient = torch.zeros(6, 4), torch.zeros(6, 4)
    operators.sigmoid_focal_loss_forward(logits.detach(), target, weight, out, 2.0, 0.25)
    operators.sigmoid_focal_loss_backward(logits.detach(), target, weight, gradient, 2.0, 0.25)
    torch.testing.assert_close(out, expected.detach())
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)


def test_sigmoid_focal_loss_of_background_and_of_extreme_logits() -> None:
    out, gradient = torch.zeros(2, 3), torch.zeros(2, 3)
    logits, target = torch.tensor([[0.0, 0, 0], [200, -200, 0]]), torch.tensor([3, 1])
    operators.sigmoid_focal_loss_forward(logits, target, torch.zeros(0), out, 2.0, 0.25)
    operators.sigmoid_focal_loss_backward(logits, target, torch.zeros(0), gradient, 2.0, 0.25)
    half = 0.75 * 0.25 * torch.tensor(2.0).log()
    torch.testing.assert_close(
        out, torch.stack([half.expand(3), torch.stack([torch.tensor(150.0), *[torch.tensor(50.0)], half])])
    )
    assert gradient.isfinite().all()


@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal_loss(weighted: bool) -> None:
    logits, target = torch.randn(5, 4).requires_grad_(), torch.tensor([0, 3, 2, -1, 1])
    weight = torch.rand(4) if weighted else torch.zeros(0)
    softmax = logits.softmax(1)
    p = softmax[torch.arange(5), target.clamp(min=0)]
    expected = torch.where(target >= 0, -0.5 * (1 - p) ** 1.5 * p.log(), 0.0)
    expected = expected * weight[target.clamp(min=0)] if weighted else expected
    (slope,) = torch.autograd.grad(expected.sum(), logits)
    out, buffer, gradient = torch.zeros(5), torch.zeros(5), torch.zeros(5, 4)
    operators.softmax_focal_loss_forward(softmax.detach(), target, weight, out, 1.5, 0.5)
    operators.softmax_focal_loss_backward(softmax.detach(), target, weight, buffer, gradient, 1.5, 0.5)
    torch.testing.assert_close(out, expected.detach())
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)


def test_deformable_convolution_without_offsets_is_a_convolution() -> None:
    x, weight, bias = torch.randn(2, 4, 9, 9), torch.randn(6, 2, 3, 3), torch.randn(6)
    offset, mask = torch.zeros(2, 18, 5, 5), torch.ones(2, 9, 5, 5)
    expected = F.conv2d(x, weight, bias, 2, 2, 2, 2)
    old = dict(kW=3, kH=3, dW=2, dH=2, padW=2, padH=2, dilationW=2, dilationH=2, group=2, deformable_group=1)
    out, unused = torch.zeros_like(expected), torch.zeros(0)
    operators.deform_conv_forward(x, weight, offset, out, unused, unused, im2col_step=2, **old)
    torch.testing.assert_close(out, expected - bias[:, None, None], rtol=1e-4, atol=1e-4)
    gradient = torch.ones_like(weight)
    operators.deform_conv_backward_parameters(
        x, offset, torch.ones_like(out), gradient, unused, unused, scale=2, im2col_step=2, **old
    )
    slope = torch.autograd.functional.jacobian(lambda w: F.conv2d(x, w, None, 2, 2, 2, 2).sum(), weight)
    torch.testing.assert_close(gradient, 1 + 2 * slope, rtol=1e-4, atol=1e-3)
    new = {f'{name}_{side}': 2 for name in ('stride', 'pad', 'dilation') for side in 'hw'}
    operators.modulated_deform_conv_forward(
        x, weight, bias, unused, offset, mask / 2, out, unused, **new, group=2, deformable_group=1, with_bias=True
    )
    torch.testing.assert_close(out, (expected + bias[:, None, None]) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.openmmlab
def test_deformable_attention_in_the_middle_of_pixels_is_a_weighted_sum() -> None:
    value = torch.randn(1, 6, 2, 3)  # a map of 2 x 3 pixels, two heads of three channels
    shapes, starts = torch.tensor([[2, 3]]), torch.tensor([0])
    locations = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.75]]).reshape(1, 1, 1, 1, 2, 2).expand(1, 4, 2, 1, 2, 2)
    weights = torch.rand(1, 4, 2, 1, 2)
    out = operators.ms_deform_attn_forward(value, shapes, starts, locations, weights, 64)
    sums = weights[:, :, :, 0, 0, None] * value[:, None, 0] + weights[:, :, :, 0, 1, None] * value[:, None, 5]
    torch.testing.assert_close(out, sums.flatten(2))
    gradients = [torch.zeros_like(x) for x in (value, locations.contiguous(), weights)]
    operators.ms_deform_attn_backward(value, shapes, starts, locations, weights, torch.ones_like(out), *gradients, 64)
    torch.testing.assert_close(gradients[0][:, 0], weights[..., 0, 0].sum(1)[..., None].expand(1, 2, 3))
    assert gradients[0][:, 1:5].abs().max() < 1e-5


@pytest.mark.openmmlab
def test_mmcv_imports_with_these_operators() -> None:
    """Every name that mmcv.ops asks for exists, and one without a replacement says so when it is called."""
    from mmcv.utils import ext_loader

    module = ext_loader.load_ext('_ext', ['nms', 'roi_align_forward', 'carafe_forward', 'three_nn_forward'])
    assert callable(module.carafe_forward)
    with pytest.raises(NotImplementedError, match='no replacement for three_nn_forward. Install an mmcv'):
        operators.three_nn_forward(torch.zeros(1))
    with pytest.raises(AttributeError):
        operators.__wrapped__  # noqa: B018  tools that look into modules ask for such


class TestStandIn:
    """When the operators are used."""

    def test_only_what_no_other_finder_has_is_served(self) -> None:
        mmcv_ext.register()
        finders = [finder for finder in sys.meta_path if getattr(finder, '__module__', '') == 'mmevm.mmcv_ext']
        names = [getattr(finder, '__name__', '') for finder in sys.meta_path]
        assert len(finders) == 1 and names.index('_Finder') > names.index('PathFinder')
        assert finders[0].find_spec('mmcv._ext').origin == operators.__file__
        assert finders[0].find_spec('mmcv.ops') is finders[0].find_spec('_ext') is None

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder of mmcv without an extension."""
        for module in (mmcv_ext, command):
            monkeypatch.setattr(module, 'mmcv_folder', lambda: tmp_path)
        return tmp_path

    def test_install_and_remove(self, folder: Path, capsys: pytest.CaptureFixture) -> None:
        assert command.main(['status']) == 0
        assert 'once mmevm is imported' in capsys.readouterr().out
        assert command.main(['install']) == 0
        file = folder / '_ext.py'
        spec = importlib.util.spec_from_file_location('mmcv_ext_installed', file)
        module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.nms is operators.nms and callable(module.anything_else)
        assert mmcv_ext.describe() == "torchvision's, through mmevm.mmcv_ext"
        assert command.main(['remove']) == 0
        assert not file.exists()
        assert capsys.readouterr().out.splitlines() == [f'written: {file}', f'removed: {file}']

    @pytest.mark.parametrize('name', ['_ext.abi3.so', '_ext.py'])
    def test_what_is_not_ours_stays(self, folder: Path, name: str, capsys: pytest.CaptureFixture) -> None:
        (folder / name).write_text('compiled')
        for action in ('install', 'remove'):
            assert command.main([action]) == 0
            assert capsys.readouterr().out.startswith('nothing to do: ')
        assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, 'compiled')]

    def test_compiled_operators_are_described(self, folder: Path) -> None:
        (folder / '_ext.abi3.so').write_text('')
        assert mmcv_ext.describe() == 'compiled (_ext.abi3.so)'

    def test_without_mmcv(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
        assert command.main(['install']) == 2
        assert 'mmcv is not installed: pip install mmcv-lite' in capsys.readouterr().err
