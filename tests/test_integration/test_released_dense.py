"""VMamba's released detectors and segmentors, by name and whole: evaluated, in inferencers, in the demo, in Python.

The files here are in upstream's format with other numbers: the backbone in upstream's spelling; necks and heads as
mmdet's and mmseg's own Swin models name them, which upstream's configs inherit; and what MMEngine's runner adds.
"""

import os
import runpy
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from demo.mini_data import make_mini_data
from mmevm.apis.evaluate import main as run_test
from mmevm.checkpoint import CheckpointError, fit_checkpoint
from mmevm.inferencers import config_path
from mmevm.zoo import ENTRIES, load

from ..parity import Fixture
from ..test_configs_pretrained import contents

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = 'vmamba_tiny_s1l8_64x96'
SWIN = {
    'mmdet': 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mmseg': 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
}
NAMES = {'mmdet': 'vmamba_v2_tiny_mask_rcnn', 'mmseg': 'vmamba_v2_tiny_upernet'}
DATA = {'mmdet': 'coco', 'mmseg': 'ade/ADEChallengeData2016'}
METRICS = {'mmdet': 'coco/segm_mAP', 'mmseg': 'mIoU'}


def config_of(library: str) -> Path:
    return config_path(Path(ENTRIES[NAMES[library]].config).stem)


def kind_of(library: str) -> type:
    cfg = Config.fromfile(config_of(library))
    with DefaultScope.overwrite_default_scope(library), torch.device('meta'):
        return type(MODELS.build(cfg.model))


def swins_heads(library: str, width: int = 96) -> dict[str, Tensor]:
    """Weights of the neck and the heads of the library's own model around Swin, for maps of other widths."""
    package = Path(import_module(library).__file__).parent
    model = Config.fromfile(package / '.mim/configs' / SWIN[library]).model
    model.backbone = dict(type='mmevm.EfficientVMamba', arch=dict(dims=[8], depths=[1]), out_indices=(0,))  # no matter
    taker = model.neck if library == 'mmdet' else model.decode_head
    taker.in_channels = [width * 2**i for i in range(4)]
    if library == 'mmseg':
        model.auxiliary_head.in_channels = width * 4
    with DefaultScope.overwrite_default_scope(library):
        swin = MODELS.build(model)
    return {name: value for name, value in swin.state_dict().items() if not name.startswith('backbone.')}


def upstream_content(library: str, backbone: dict[str, Tensor]) -> dict[str, Any]:
    """What is in upstream's file."""
    heads = swins_heads(library)
    datasets = {'mmdet': 'CocoDataset', 'mmseg': 'ADE20KDataset'}
    metainfo = dict(getattr(import_module(f'{library}.datasets'), datasets[library]).METAINFO)
    return {
        'meta': {'cfg': "model = dict(type='MM_VSSM')", 'epoch': 12, 'iter': 87960, 'dataset_meta': metainfo},
        'state_dict': {f'backbone.{name}': value for name, value in backbone.items()} | heads,
        'message_hub': {'log_scalars': {'train/loss': HistoryBuffer([0.5, 0.4], [1, 1])}, 'resumed_keys': {}},
        'optimizer': {'state': {0: {'step': torch.tensor(87960.0)}}, 'param_groups': [{'lr': 1e-6, 'params': [0]}]},
    }


@pytest.fixture(scope='module')
def backbone() -> dict[str, Tensor]:
    """The backbone's weights in upstream's spelling."""
    return {name: value for name, value in Fixture(FIXTURE).state().items() if not name.startswith('classifier.')}


@pytest.fixture(scope='module', params=NAMES)
def released(
    request: pytest.FixtureRequest, backbone: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Counter]:
    """A library, upstream's file of a model of it, and what weights are in the file."""
    content = upstream_content(request.param, backbone)
    path = tmp_path_factory.mktemp('released') / ENTRIES[NAMES[request.param]].file
    torch.save(content, path)
    return request.param, path, contents(content['state_dict'])


@pytest.fixture
def cached(released: tuple[str, Path, Counter], zoo: Path) -> str:
    """The library whose file lies in the offline zoo's cache."""
    os.link(released[1], zoo / released[1].name)
    return released[0]


def weights(model: nn.Module) -> Counter:
    return contents(model.state_dict())


def evaluation(library: str, checkpoint: str) -> list[str]:
    """Arguments of `tools/test.py` for a picture of miniature data in the current folder."""
    command = [
        str(config_of(library)),
        checkpoint,
        '--cfg-options',
        f'data_root=mini/{DATA[library]}',
        'test_dataloader.dataset.pipeline.1.scale=(64,64)',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    ]
    return command + (['model.test_cfg.rcnn.score_thr=0.'] if library == 'mmdet' else [])


def test_evaluation_by_name_uses_all_of_the_files_weights(
    cached: str, released: tuple[str, Path, Counter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_mini_data('mini', image_size=96, train_images=1, val_images=1)
    evaluated = []
    kind = kind_of(cached)
    predict = kind.predict
    monkeypatch.setattr(
        kind,
        'predict',
        lambda self, *args, **kwargs: (evaluated.append(weights(self)), predict(self, *args, **kwargs))[1],
    )
    assert run_test(evaluation(cached, f'mmevm://{NAMES[cached]}')) == 0
    assert evaluated == [released[2]]
    assert np.isfinite(MessageHub.get_current_instance().get_scalar(f'test/{METRICS[cached]}').current())


FEWER = {
    'mmdet': ('model.roi_head.mask_head=None', 'roi_head.mask_head', 'coco/bbox_mAP'),
    'mmseg': ('model.auxiliary_head=None', 'auxiliary_head', 'mIoU'),
}


def test_evaluation_leaves_out_heads_that_it_does_not_need(
    released: tuple[str, Path, Counter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    library, path, _ = released
    option, part, metric = FEWER[library]
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    monkeypatch.setattr('mmevm.apis.evaluate.print_log', lambda line, **_: said.append(line))
    make_mini_data('mini', image_size=96, train_images=1, val_images=1)
    assert run_test([*evaluation(library, str(path)), option]) == 0
    assert f'dropped {part}.' in capsys.readouterr().out
    assert said == (['The model has no mask head: masks (segm) are not measured'] if library == 'mmdet' else [])
    assert np.isfinite(MessageHub.get_current_instance().get_scalar(f'test/{metric}').current())
    if library == 'mmdet':
        assert run_test([*evaluation(library, str(path)), option, 'test_evaluator.metric=segm']) == 2
        assert 'test_evaluator.metric=bbox' in capsys.readouterr().err
    # What the model needs and the file lacks is still refused.
    content = torch.load(path, weights_only=False)
    content['state_dict'] = {name: v for name, v in content['state_dict'].items() if not name.startswith(part)}
    torch.save(content, 'fewer.pth')
    assert run_test(evaluation(library, 'fewer.pth')) == 2
    assert f'missing: {part}.' in capsys.readouterr().err


def test_zoo_gives_the_whole_model_with_upstreams_maps(cached: str, released: tuple[str, Path, Counter]) -> None:
    model = load(NAMES[cached], task=ENTRIES[NAMES[cached]].task)
    assert not model.training and weights(model) == released[2]
    fixture = Fixture(FIXTURE)
    with torch.no_grad():
        maps: tuple[Tensor, ...] = model.backbone(fixture.images())
    for i, got in enumerate(maps):
        torch.testing.assert_close(got, fixture.tensor(f'stage{i}'), rtol=0, atol=2e-4)


def test_inferencers_take_the_files_by_the_models_names(
    cached: str, released: tuple[str, Path, Counter], picture: Path
) -> None:
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    kind = {'mmdet': DetInferencer, 'mmseg': MMSegInferencer}[cached]
    inferencer = kind(config_of(cached).stem, device='cpu')
    assert weights(inferencer.model) == released[2]
    classes = inferencer.model.dataset_meta['classes']
    assert classes[:2] == {'mmdet': ('person', 'bicycle'), 'mmseg': ('wall', 'building')}[cached]
    inferencer.show_progress = False
    found = inferencer(str(picture))['predictions']
    assert np.shape(found) == (72, 96) if cached == 'mmseg' else 'masks' in found[0]


@pytest.mark.parametrize('library', NAMES)
def test_demo_takes_the_released_weights_by_default(library: str) -> None:
    find_model = runpy.run_path(str(ROOT / 'demo/image_demo.py'))['find_model']
    assert find_model(config_of(library).stem, None) == (config_of(library), f'mmevm://{NAMES[library]}')


@pytest.mark.parametrize('library', NAMES)
@pytest.mark.parametrize(
    'fixture, width, letter',
    [
        ('vmamba_small_s2l15_64x64', 96, 's'),
        ('vmamba_base_s2l15_64x64', 128, 'b'),
    ],
    ids=['small', 'base'],
)
def test_the_larger_configs_have_a_place_for_every_tensor(library: str, fixture: str, width: int, letter: str) -> None:
    name = {'mmdet': f'mask_rcnn_vmamba_{letter}_1x', 'mmseg': f'upernet_vmamba_{letter}'}[library]
    cfg = Config.fromfile(config_path(name))
    meta = Fixture(fixture).meta
    with torch.device('meta'), DefaultScope.overwrite_default_scope(library):  # names and shapes alone
        model, heads = MODELS.build(cfg.model), swins_heads(library, width)
        shapes = {f'backbone.{key}': shape for key, shape in (meta['manifest'] | meta['outnorm']).items()}
        weights = {key: torch.empty(shape) for key, shape in shapes.items() if 'classifier' not in key}
    report = fit_checkpoint(model, {'state_dict': weights | heads})[1]
    assert report.fresh == report.dropped == []
    assert len(report.loaded) == len(model.state_dict())


def test_a_file_that_lacks_a_tensor_of_a_head_is_refused(released: tuple[str, Path, Counter], zoo: Path) -> None:
    library, path, _ = released
    content = {'state_dict': torch.load(path, weights_only=False)['state_dict']}
    head = {'mmdet': 'rpn_head.rpn_conv', 'mmseg': 'decode_head.conv_seg'}[library]
    del content['state_dict'][f'{head}.bias']
    torch.save(content, zoo / path.name)
    with pytest.raises(CheckpointError, match=f'1 missing: {head}.bias'):
        load(NAMES[library], task=ENTRIES[NAMES[library]].task)
