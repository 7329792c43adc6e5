"""OpenMMLab's own inferencers with mmevm's names and configs."""

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmevm.checkpoint import CheckpointError
from mmevm.inferencers import config_path, models, released_weights
from mmevm.zoo import ENTRIES

from ..parity import Fixture
from ..test_deploy import toy

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]


def same_weights(model: torch.nn.Module, checkpoint: Path) -> bool:
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    own = model.state_dict()
    return own.keys() == saved.keys() and all(torch.equal(own[name], saved[name]) for name in own)


def test_classification_inferencer_gives_upstreams_logits_by_name_from_the_zoo(zoo: Path, picture: Path) -> None:
    from mmpretrain import ImageClassificationInferencer

    init_default_scope('mmdet')  # as a detector's inferencer leaves it
    inferencer = ImageClassificationInferencer('classifier_evm_t', device='cpu')
    fixture = Fixture('evm_tiny_64x64')
    with torch.no_grad():
        logits = inferencer.model.head(inferencer.model.extract_feat(fixture.images()))
    assert (logits - fixture.tensor('logits')).abs().max() < 2e-4
    (result,) = inferencer(str(picture))
    assert result['pred_scores'].shape == (1000,)
    assert result['pred_class'] == inferencer.classes[result['pred_label']]


VISUALIZERS = {'mmdet': 'DetLocalVisualizer', 'mmseg': 'SegLocalVisualizer', 'mmpretrain': 'UniversalVisualizer'}


def _of_class(settings: dict, library: str) -> None:
    settings['type'] = LoadImageFromFile


def _of_path(settings: dict, library: str) -> None:
    settings['type'] = f'mmcv.transforms.loading.{settings["type"]}'


def _of_scope(settings: dict, library: str) -> None:
    settings['type'] = f'{library}.{settings["type"]}'


@pytest.mark.parametrize('write_type', [_of_class, _of_path, _of_scope], ids=['class', 'path', 'scope'])
@pytest.mark.parametrize(
    'library, kind, make',
    [
        ('mmdet', 'mmdet.apis.DetInferencer', toy.retinanet),
        ('mmseg', 'mmseg.apis.MMSegInferencer', toy.segmentor),
        ('mmpretrain', 'mmpretrain.ImageClassificationInferencer', toy.classifier),
    ],
    ids=['mmdet', 'mmseg', 'mmpretrain'],
)
def test_loading_steps_may_be_classes_and_paths(
    library: str, kind: str, make: Any, write_type: Any, tmp_path: Path, picture: Path
) -> None:
    config, checkpoint = toy.write(make(), tmp_path)
    cfg = Config.fromfile(config)
    cfg.visualizer = dict(type=VISUALIZERS[library])
    write_type(cfg.test_dataloader.dataset.pipeline[0], library)
    before = cfg.test_dataloader.dataset.pipeline[0]['type']
    if isinstance(before, str):
        cfg.dump(config)
    inferencer = resolve_name(kind)(cfg if before is LoadImageFromFile else str(config), str(checkpoint), device='cpu')
    assert inferencer(str(picture))
    assert cfg.test_dataloader.dataset.pipeline[0]['type'] is before


def test_mmpretrain_get_model_takes_our_names(zoo: Path) -> None:
    import mmpretrain

    assert mmpretrain.list_models('classifier_evm', task='Image Classification') == [
        'classifier_evm_b',
        'classifier_evm_s',
        'classifier_evm_t',
    ]
    fixture = Fixture('evm_tiny_64x64')
    random, trained = (mmpretrain.get_model('classifier_evm_t', pretrained=value) for value in (False, True))
    for model, close in ((random, False), (trained, True)):
        with torch.no_grad():
            logits = model.head(model.extract_feat(fixture.images()))
        assert bool((logits - fixture.tensor('logits')).abs().max() < 2e-4) == close


@pytest.mark.parametrize(
    'name, entry, size',
    [
        ('classifier_vmamba_t', 'vmamba_v0_tiny', '64x64'),
        ('classifier_vmamba_t_s1l8', 'vmamba_v2_tiny_s1l8', '64x96'),
    ],
)
def test_mmpretrain_get_model_gives_vmambas_logits_from_the_zoo(name: str, entry: str, size: str, zoo: Path) -> None:
    import mmpretrain

    fixture = Fixture(f'{entry.replace("_v2", "")}_{size}')
    torch.save({'model': fixture.state(outnorm=False)}, zoo / ENTRIES[entry].file)
    model = mmpretrain.get_model(name, pretrained=True)
    with torch.no_grad():
        logits = model.head(model.extract_feat(fixture.images()))
    assert (logits - fixture.tensor('logits')).abs().max() < 2e-4


def test_classification_inferencer_refuses_weights_of_another_variant(upstream_file: Path) -> None:
    from mmpretrain import ImageClassificationInferencer

    with pytest.raises(CheckpointError, match="variant 'tiny'"):
        ImageClassificationInferencer('classifier_evm_s', str(upstream_file), device='cpu')


def test_detection_inferencer_loads_our_detectors_by_config(detector: Path) -> None:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(str(ROOT / 'configs/mask_rcnn_evm_t_1x.py'), str(detector), device='cpu')
    assert same_weights(inferencer.model, detector)


def test_detection_inferencer_finds_our_detectors_by_name(detector: Path, picture: Path) -> None:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer('mask_rcnn_evm_t_1x', str(detector), device='cpu', show_progress=False)
    assert same_weights(inferencer.model, detector)
    (found,) = inferencer(str(picture))['predictions']
    assert found.keys() == {'labels', 'scores', 'bboxes', 'masks'}
    assert len(found['masks']) == len(found['scores'])


def test_segmentation_inferencer_loads_our_segmentors_by_name(segmentor: Path, picture: Path) -> None:
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer('upernet_evm_t', str(segmentor), device='cpu')
    assert same_weights(inferencer.model, segmentor)
    assert inferencer.model.dataset_meta['classes'][:2] == ('wall', 'building')
    found = inferencer(str(picture))['predictions']
    assert found.shape == (72, 96)
    assert found.max() < 150


@pytest.mark.parametrize(
    'kind, name, library',
    [
        ('mmdet.apis:DetInferencer', 'classifier_evm_t', 'mmpretrain'),
        ('mmdet.apis:DetInferencer', 'segformer_evm_t', 'mmseg'),
        ('mmseg.apis:MMSegInferencer', 'rtmdet_evm_t', 'mmdet'),
    ],
)
def test_inferencers_name_the_library_of_a_model(kind: str, name: str, library: str) -> None:
    with pytest.raises(ValueError, match=f'{name} is a model of {library}, .*Inferencer takes those of mm'):
        resolve_name(kind)(name, 'weights.pth', device='cpu')


def test_detection_inferencer_refuses_to_draw_a_random_head(zoo: Path) -> None:
    from mmdet.apis import DetInferencer

    with pytest.raises(ValueError, match=r'no weights of retinanet_evm_t were ever released.*retinanet_evm_t\.py'):
        DetInferencer('retinanet_evm_t', device='cpu')
    with pytest.raises(CheckpointError, match='lacks .* tensors of .*neck.*, which would stay random'):
        DetInferencer('retinanet_evm_t', 'mmevm://efficient_vmamba_tiny', device='cpu')


INFERENCERS = {
    'retinanet_evm_t': 'mmdet.apis.DetInferencer',
    'upernet_evm_t': 'mmseg.apis.MMSegInferencer',
    'classifier_evm_t': 'mmpretrain.ImageClassificationInferencer',
}


@pytest.mark.parametrize('name', INFERENCERS)
def test_inferencers_do_not_run_a_malicious_file(name: str, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / 'ran',))

    torch.save({'state_dict': {}, 'meta': Malicious()}, tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match='Refused to load'):
        resolve_name(INFERENCERS[name])(name, str(tmp_path / 'bad.pth'), device='cpu')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('name', INFERENCERS)
def test_inferencers_ask_for_the_config_instead_of_running_the_checkpoints(name: str, tmp_path: Path) -> None:
    text, path = f'open({str(tmp_path / "ran")!r}, "w")', tmp_path / 'epoch_12.pth'
    content = {'state_dict': {}, 'meta': {'cfg': text}, 'message_hub': {'runtime_info': {'cfg': text}}}
    torch.save(content, path)
    inferencer = resolve_name(INFERENCERS[name])
    for model in (None, {}, Config(), ConfigDict(), str(path)):
        with pytest.raises(ValueError, match='`model` must be a config .*, and no code from a checkpoint is run'):
            inferencer(model, str(path), device='cpu')
    (tmp_path / 'empty.py').write_text('# no config\n')
    with pytest.raises((ValueError, AttributeError)):  # the library's own
        inferencer(str(tmp_path / 'empty.py'), str(path), device='cpu')
    assert not (tmp_path / 'ran').exists()


def test_detection_inferencer_without_a_model_asks_for_the_config(detector: Path) -> None:
    from mmdet.apis import DetInferencer

    with pytest.raises(ValueError, match='`model` must be a config'):
        DetInferencer(weights=str(detector), device='cpu')


@pytest.mark.parametrize(
    'helper, checkpoint',
    [
        ('mmdet.apis.init_detector', 'detector'),
        ('mmseg.apis.init_model', 'segmentor'),
    ],
)
def test_helpers_load_a_checkpoint_and_run_no_text_of_it(
    helper: str, checkpoint: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(checkpoint)
    model = resolve_name(helper)(str(ROOT / f'configs/{path.stem}.py'), str(path), device='cpu')
    assert same_weights(model, path)


def test_names_of_mmdet_still_mean_mmdets_models() -> None:
    from mmdet.apis import DetInferencer

    names = DetInferencer.list_models('mmdet')
    assert 'retinanet_r50_fpn_1x_coco' in names
    assert not set(names) & set(models())
    assert set(DetInferencer.list_models('mmevm')) == set(models())
    with pytest.raises(ValueError, match='Cannot find model: retinanet_evm_x in mmdet'):
        DetInferencer('retinanet_evm_x', device='cpu')


def test_config_path_names_the_models_that_there_are() -> None:
    assert config_path('upernet_evm_s') == ROOT / 'configs/upernet_evm_s.py'
    assert released_weights('classifier_evm_b') == 'mmevm://efficient_vmamba_base'
    with pytest.raises(KeyError, match='it has classifier_evm_t, '):
        config_path('classifier_evm_x')
