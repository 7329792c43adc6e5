"""`measure` on the libraries' models, and on ours in their place: published figures, counts by hand."""

import math
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.engine.tasks import build_model
from tools.analysis.complexity import _detect, count, main, measure

pytestmark = [pytest.mark.openmmlab, pytest.mark.usefixtures('extension')]

ROOT = Path(__file__).resolve().parents[2]
EVM = dict(_delete_=True, type='mmevm.EfficientVMamba', arch='tiny', out_indices=(0, 1, 2, 3))
WIDTHS = [48, 96, 192, 384]
SIZE = (64, 96)


def with_our_backbone(address: str, **model: dict) -> Config:
    """A library's config with EfficientVMamba-T, and `model` merged into it."""
    cfg = get_config(address)
    cfg.merge_from_dict(dict(model=dict(model, backbone={**EVM, **model.get('backbone', {})})))
    cfg.default_scope = address.partition('::')[0]
    return cfg


class Rest(nn.Module):
    """What follows a model's backbone, from the maps of EfficientVMamba-T at SIZE."""

    def __init__(self, model: nn.Module, run) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *maps: Tensor) -> None:
        self.run(self.model, maps)


def flops_beside_the_backbone(cfg: Config, run) -> int:
    strides = (4, 8, 16, 32)
    shapes = [(1, C, SIZE[0] // stride, SIZE[1] // stride) for C, stride in zip(WIDTHS, strides, strict=True)]
    return count(Rest(build_model(cfg, 'meta'), run), *shapes).flops


def backbone_flops() -> int:
    return count(EfficientVMamba('tiny'), (1, 3, *SIZE)).flops


@pytest.mark.parametrize(
    'address, size, gflops',
    [
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', None, 207.07),
        ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', None, 234.71),
        ('mmdet::atss/atss_r50_fpn_1x_coco.py', None, 205.3),
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', None, 200.5),
        ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', (640, 640), 8.1),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', (512, 512), 178.8),
        ('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', (512, 512), 8.4),
        ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py', None, 17.58),
        ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', None, 4.5),
    ],
)
def test_measure_gives_published_figures(address: str, size: tuple[int, int] | None, gflops: float) -> None:
    cost = measure(get_config(address), size)
    assert cost.flops / 1e9 == pytest.approx(gflops, rel=0.015)
    assert cost.idle == ()


def box_head_flops(classes: int) -> int:
    """Two fully connected layers on 7 x 7 x 256, classes with background, boxes of every class."""
    return 1000 * (7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * (classes + 1) + 1024 * 4 * classes)


FASTER = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
MASK = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
CASCADE = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'
CASCADE_MASK = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
FPN = dict(neck=dict(in_channels=WIDTHS))
# Four convolutions, the upsampling one, its 1 x 1 classifier of 80 classes.
MASK_HEAD = 100 * (4 * 14 * 14 * 9 * 256 * 256 + 14 * 14 * 4 * 256 * 256 + 28 * 28 * 256 * 80)


@pytest.mark.parametrize(
    'address, second_stage',
    [
        (FASTER, box_head_flops(80)),
        (MASK, box_head_flops(80) + MASK_HEAD),
        # Cascades refine boxes whatever their class.
        (CASCADE, 3 * (box_head_flops(80) - 1000 * 1024 * 4 * 79)),
        (CASCADE_MASK, 3 * (box_head_flops(80) - 1000 * 1024 * 4 * 79 + MASK_HEAD)),
    ],
    ids=['Faster', 'Mask', 'Cascade', 'Cascade Mask'],
)
def test_two_stage_detectors_have_1000_regions_and_100_masks_a_stage(address: str, second_stage: int) -> None:
    cfg = with_our_backbone(address, **FPN)
    first = flops_beside_the_backbone(cfg, lambda model, maps: model.rpn_head(model.neck(maps)))
    assert measure(cfg, SIZE).flops == backbone_flops() + first + second_stage


@pytest.mark.parametrize(
    'address, model',
    [
        ('mmdet::atss/atss_r50_fpn_1x_coco.py', FPN),
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', FPN),
        (
            'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
            dict(backbone=dict(out_indices=(1, 2, 3)), neck=dict(in_channels=WIDTHS[1:])),
        ),
    ],
    ids=['ATSS', 'FCOS', 'RTMDet'],
)
def test_one_stage_detectors_are_backbone_neck_and_head(address: str, model: dict) -> None:
    cfg = with_our_backbone(address, **model)
    used = slice(1, None) if 'rtmdet' in address else slice(None)
    rest = flops_beside_the_backbone(cfg, lambda model, maps: model.bbox_head(model.neck(maps[used])))
    # Without its norm, the first map costs nothing more than the second needs.
    norm = 0 if used == slice(None) else 5 * WIDTHS[0] * SIZE[0] * SIZE[1] // 16
    assert measure(cfg, SIZE).flops == backbone_flops() - norm + rest


# Two layers show as much as the six or nine of the papers.
SHALLOW = dict(encoder=dict(num_layers=2), decoder=dict(num_layers=2))
MASK2FORMER = dict(
    in_channels=WIDTHS,
    pixel_decoder=dict(encoder=dict(num_layers=2)),
    transformer_decoder=dict(num_layers=2),
)


@pytest.mark.parametrize(
    'address, model',
    [
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', dict(neck=dict(in_channels=WIDTHS[-1:]), **SHALLOW)),
        (
            'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
            dict(neck=dict(in_channels=WIDTHS[1:]), num_queries=100, **SHALLOW),
        ),
        (
            'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
            dict(neck=dict(in_channels=WIDTHS[1:]), **SHALLOW),
        ),
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', dict(panoptic_head=MASK2FORMER)),
    ],
    ids=['DETR', 'DINO', 'Deformable DETR', 'Mask2Former'],
)
def test_attention_of_transformers_is_counted_in_full(
    address: str, model: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = {'detr/detr': (3,), 'mask2former': (0, 1, 2, 3)}
    used = next((value for key, value in maps.items() if key in address), (1, 2, 3))
    cfg = with_our_backbone(address, **model, backbone=dict(out_indices=used))
    whole = measure(cfg, SIZE)
    sizes = []

    def skip(self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, **kwargs: object) -> tuple:
        tokens = 1 if self.batch_first else 0
        sizes.append((self.embed_dim, query.shape[tokens], key.shape[tokens]))
        return query, None

    monkeypatch.setattr(nn.MultiheadAttention, 'forward', skip)
    without = measure(cfg, SIZE)
    # Projections of queries and outputs, of keys and values; scores and their use.
    attention = sum(2 * q * C * C + 2 * k * C * C + 2 * q * k * C for C, q, k in sizes)
    assert attention > 0
    assert whole.flops - without.flops == attention
    assert whole.idle == ()


def test_count_is_the_same_with_values_and_without() -> None:
    cfg = with_our_backbone('mmdet::detr/detr_r50_8xb2-150e_coco.py', neck=dict(in_channels=WIDTHS[-1:]))
    cfg.model.backbone.out_indices = (3,)
    model = build_model(cfg)
    assert count(model, (1, 3, *SIZE), run=_detect, device='cpu') == count(model, (1, 3, *SIZE), run=_detect)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_another_number_of_channels_costs_a_stem_that_takes_them(scope: str) -> None:
    cfg = {
        'mmdet': with_our_backbone('mmdet::_base_/models/retinanet_r50_fpn.py', **FPN),
        'mmseg': with_our_backbone(
            'mmseg::_base_/models/upernet_r50.py',
            pretrained=None,
            decode_head=dict(in_channels=WIDTHS),
            auxiliary_head=None,
        ),
        'mmpretrain': with_our_backbone('mmpretrain::_base_/models/resnet50.py', head=dict(in_channels=384)),
    }[scope]
    if scope == 'mmpretrain':
        cfg.model.backbone.out_indices = (3,)
    three = measure(cfg, SIZE)
    cfg.model.backbone.in_channels = 5
    five = measure(cfg, SIZE)
    stem = next(module for module in EfficientVMamba('tiny').modules() if isinstance(module, nn.Conv2d))
    tokens = SIZE[0] * SIZE[1] // math.prod(stem.stride)
    weights = 2 * stem.out_channels * math.prod(stem.kernel_size)
    assert (five.params - three.params, five.flops - three.flops) == (weights, tokens * weights)


def test_attention_of_plain_modules_is_counted_on_every_device() -> None:
    B, L, C = 2, 12, 16
    expected = B * (4 * L * C * C + 2 * L * L * C)
    for options in (dict(batch_first=True), dict(batch_first=False)):
        layer = nn.MultiheadAttention(C, 4, **options)
        shape = (B, L, C) if layer.batch_first else (L, B, C)
        for device in ('meta', 'cpu'):
            cost = count(layer, shape, run=lambda layer, x: layer(x, x, x, need_weights=False), device=device)
            assert cost.flops == expected


def test_products_into_their_first_argument_are_counted() -> None:
    shapes = (3, 5), (3, 4), (4, 5)
    cost = count(nn.Identity(), *shapes, run=lambda _, total, a, b: total.addmm_(a, b))
    assert (cost.flops, cost.activations) == (3 * 4 * 5, 3 * 5)


@pytest.mark.parametrize(
    'address, message',
    [
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'there is no rule for the regions of HybridTaskCascadeRoIHead'),
        ('mmdet::groie/faste-rcnn_r50_fpn_groie_1x_coco.py', 'there is no rule for GenericRoIExtractor'),
        ('mmdet::queryinst/queryinst_r50_fpn_1x_coco.py', 'there is no rule for the regions of SparseRoIHead'),
        ('mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', 'cannot be counted, AttributeError'),
        (
            'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
            'SoftTeacher wraps a two-stage detector',
        ),
    ],
)
def test_what_has_no_rule_is_refused(address: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'mine.py').write_text(f'_base_ = {address!r}\n')
    assert main([str(tmp_path / 'mine.py'), '--size', '64', '64']) == 2
    assert message in capsys.readouterr().err


def test_parts_that_do_not_run_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py'\n")
    assert main([str(tmp_path / 'mine.py'), '--size', '64', '64']) == 0
    assert 'only the parameters of roi_head.point_head count' in capsys.readouterr().out


def test_a_config_without_a_scope_is_of_its_models_library() -> None:
    from mmpretrain.models import ImageClassifier

    cfg = Config.fromfile(ROOT / 'configs/classifier_evm_t.py')
    expected = measure(cfg)
    cfg.default_scope, cfg.model.type = None, ImageClassifier
    assert measure(cfg) == expected
