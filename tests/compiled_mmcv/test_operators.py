"""The operators of mmevm.mmcv_ext against mmcv's compiled ones, outputs and gradients (`make test-compiled-mmcv`)."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import mmcv._ext as compiled
import pytest
import torch
from mmcv import ops
from torch import Tensor

from mmevm.mmcv_ext import operators

pytestmark = pytest.mark.openmmlab


def both(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> Iterator[Any]:
    """What a function gives with the compiled operators, and with mmevm's in every module of mmcv.ops."""
    assert compiled.__file__.endswith('.so')
    yield run()
    users = {inspect.getmodule(value) for value in vars(ops).values()}
    users = [module for module in users if getattr(module, 'ext_module', None) is compiled]
    assert len(users) > 30
    with monkeypatch.context() as patch:
        for module in users:
            patch.setattr(module, 'ext_module', operators)
        yield run()


def assert_equal(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any], **tolerance: float) -> None:
    expected, got = both(monkeypatch, run)
    torch.testing.assert_close(got, expected, **tolerance)


def boxes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping boxes [N, 4] with distinct scores [N]."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 60
    size = torch.rand(count, 2, generator=generator) * 40 + 1
    return torch.cat([start, start + size], 1), torch.randperm(count, generator=generator) / count


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The output of a function, and the gradients of a weighted sum of it."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [0, 1, 300])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_nms(monkeypatch: pytest.MonkeyPatch, offset: int, count: int, threshold: float) -> None:
    assert_equal(monkeypatch, lambda: ops.nms(*boxes(count), threshold, offset=offset))


@pytest.mark.parametrize('options', [{}, {'score_threshold': 0.4}, {'max_num': 7}])
def test_nms_options(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    assert_equal(monkeypatch, lambda: ops.nms(*boxes(200), 0.5, **options))


@pytest.mark.parametrize('split', [10000, 50])
@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
@pytest.mark.parametrize('agnostic', [False, True])
def test_batched_nms(monkeypatch: pytest.MonkeyPatch, split: int, kind: str, agnostic: bool) -> None:
    config = {'type': kind, 'iou_threshold': 0.5, 'split_thr': split}
    labels = torch.arange(200) % 5
    assert_equal(monkeypatch, lambda: ops.batched_nms(*boxes(200), labels, dict(config), class_agnostic=agnostic))


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [0, 1, 120])
def test_soft_nms(monkeypatch: pytest.MonkeyPatch, method: str, offset: int, count: int) -> None:
    assert_equal(monkeypatch, lambda: ops.soft_nms(*boxes(count), 0.3, 0.5, 0.01, method, offset))


def test_nms_match(monkeypatch: pytest.MonkeyPatch) -> None:
    detections = torch.cat([boxes(150)[0], boxes(150)[1][:, None]], 1)
    assert_equal(monkeypatch, lambda: ops.nms_match(detections, 0.4))


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling', [0, 2])
@pytest.mark.parametrize('count', [0, 9])
def test_roi_align(monkeypatch: pytest.MonkeyPatch, aligned: bool, sampling: int, count: int) -> None:
    maps, regions = torch.randn(2, 3, 24, 20), torch.cat([torch.arange(count)[:, None] % 2, boxes(count)[0]], 1)
    align = ops.RoIAlign((5, 4), 0.25, sampling, aligned=aligned)
    assert_equal(monkeypatch, lambda: gradients(lambda x: align(x, regions), maps))


@pytest.mark.parametrize('groups, deform_groups, stride', [(1, 1, 1), (2, 2, 2)])
def test_deformable_convolutions(monkeypatch: pytest.MonkeyPatch, groups: int, deform_groups: int, stride: int) -> None:
    size = (13 + 2 * 2 - 3 - 2) // stride + 1
    x, weight, bias = torch.randn(2, 4, 13, 13), torch.randn(6, 4 // groups, 3, 3), torch.randn(6)
    offset, mask = torch.randn(2, 18 * deform_groups, size, size), torch.rand(2, 9 * deform_groups, size, size)
    rest = (stride, 2, 2, groups, deform_groups)
    assert_equal(
        monkeypatch, lambda: gradients(lambda *t: ops.deform_conv2d(*t, *rest), x, offset, weight), rtol=1e-4, atol=1e-4
    )
    assert_equal(
        monkeypatch,
        lambda: gradients(lambda *t: ops.modulated_deform_conv2d(*t, *rest), x, offset, mask, weight, bias),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('aligned', [False, True])
def test_bbox_overlaps(monkeypatch: pytest.MonkeyPatch, mode: str, offset: int, aligned: bool) -> None:
    first, second = boxes(30)[0], boxes(30, 1)[0]
    assert_equal(monkeypatch, lambda: ops.bbox_overlaps(first, second, mode, aligned, offset))


def test_every_name_that_mmcv_asks_for_exists() -> None:
    names = [name for name in dir(compiled) if not name.startswith('_')]
    assert len(names) > 100
    for name in names:
        assert callable(getattr(operators, name)), name
