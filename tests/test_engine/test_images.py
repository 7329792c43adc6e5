"""`mmevm.engine.checks.images` and `samples`: images that cannot be read are found, named and, on demand, left out."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmevm.engine.checks.images import CheckedImages, CheckedImagesHook, checked
from mmevm.engine.checks.samples import Checks, NamedErrors, SampleError
from mmevm.errors import UsageError

from .test_image_files import encoded

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def scope() -> Any:
    """Restores MMEngine's default scope, which building datasets needs."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def classification(root: Path, contents: dict[str, bytes], **dataset: Any) -> dict:
    """A loader of images in two folders."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    return dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(dict(type='CustomDataset', data_root=str(root), data_prefix='', pipeline=pipeline), **dataset),
    )


class Loaders(CheckedImages, Runner):
    """The part of a runner that builds loaders."""

    def __init__(self, **checks: Any) -> None:
        self.checks = Checks(**checks)


def build(loader: dict, is_training: bool = True, **checks: Any) -> Any:
    return Loaders(is_training=is_training, **checks).build_dataloader(loader, seed=0)


GOOD = {'a/1.jpg': encoded(), 'a/2.jpg': encoded(), 'b/3.jpg': encoded()}
DAMAGED = bytearray(encoded('PNG'))
DAMAGED[1000:1400] = bytes(400)
DAMAGED = bytes(DAMAGED)


@pytest.mark.usefixtures('scope')
class TestLoaders:
    def paths(self, loader: Any) -> list[str]:
        return [Path(batch['data_samples'][0].img_path).name for batch in loader]

    def test_sound_images_pass(self, tmp_path: Path) -> None:
        assert self.paths(build(classification(tmp_path, GOOD))) == ['1.jpg', '2.jpg', '3.jpg']

    def test_broken_images_are_refused_by_name_before_training(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, {**GOOD, 'b/0.jpg': b'', 'b/text.png': b'<html>'})
        with pytest.raises(UsageError) as caught:
            build(loader)
        assert 'CustomDataset (training): 2 of 5 samples cannot be read' in str(caught.value)
        assert f'{tmp_path}/b/0.jpg: it is empty (0 bytes)' in str(caught.value)
        assert '--skip-broken' in str(caught.value)

    def test_broken_images_are_left_out_on_demand(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, {**GOOD, 'a/0.jpg': b'', 'b/4.jpg': encoded()[:500]})
        built = build(loader, skip=True)
        assert self.paths(built) == ['1.jpg', '2.jpg', '3.jpg']
        assert len(built) == 3 and len(built.dataset) == 3

    @pytest.mark.parametrize(
        'wrap',
        [
            lambda dataset: dict(type='RepeatDataset', times=2, dataset=dataset),
            lambda dataset: dict(type='ConcatDataset', datasets=[dataset, dataset]),
            lambda dataset: dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=dataset),
            lambda dataset: dict(type='KFoldDataset', num_splits=3, fold=0, dataset=dataset),
        ],
    )
    def test_wrappers_count_what_is_left(self, tmp_path: Path, wrap: Any) -> None:
        loader = classification(tmp_path, {**GOOD, 'a/0.jpg': b''})
        loader['dataset'] = wrap(loader['dataset'])
        names = self.paths(build(loader, skip=True))
        assert '0.jpg' not in names and set(names) <= {'1.jpg', '2.jpg', '3.jpg'}
        assert (
            len(names)
            == dict(RepeatDataset=6, ConcatDataset=6, ClassBalancedDataset=3, KFoldDataset=2)[loader['dataset']['type']]
        )

    def test_a_dataset_without_any_sound_image(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match='none of 2 samples can be read'):
            build(classification(tmp_path, {'a/1.jpg': b'', 'a/2.jpg': b'x'}), skip=True)

    @pytest.mark.parametrize('workers', [0, 1])
    def test_damage_that_shows_in_decoding_is_named_in_every_process(self, tmp_path: Path, workers: int) -> None:
        loader = dict(classification(tmp_path, {**GOOD, 'b/damaged.png': DAMAGED}), num_workers=workers)
        with pytest.raises(SampleError) as caught:
            list(build(loader))
        assert str(caught.value).startswith(f'Cannot read {tmp_path}/b/damaged.png: ')
        assert 'Traceback' not in str(caught.value) and caught.value.in_one_process

    def test_damage_that_shows_in_decoding_is_left_out_of_training_alone(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, {**GOOD, 'b/damaged.png': DAMAGED})
        names = self.paths(build(loader, skip=True))
        assert len(names) == 4 and 'damaged.png' not in names
        with pytest.raises(SampleError, match='damaged.png'):
            list(build(classification(tmp_path, {}), is_training=False, skip=True))
        with pytest.raises(SampleError, match='damaged.png'):
            list(build(classification(tmp_path, {}, test_mode=True), skip=True))

    def test_formats_without_a_check_are_named_by_the_step_that_loads_them(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, {**GOOD, 'b/x.tif': b'no image at all'})
        with pytest.raises(SampleError, match=rf'Cannot read {tmp_path}/b/x\.tif: '):
            list(build(loader))
        assert 'x.tif' not in self.paths(build(loader, skip=True))

    def test_errors_of_other_steps_stay_and_name_the_sample(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, GOOD)
        loader['dataset']['pipeline'].insert(1, dict(type='Resize', scale=(0, 0)))
        with pytest.raises(Exception) as caught:
            list(build(loader, skip=True))
        assert not isinstance(caught.value, UsageError)
        assert any('1.jpg' in note for note in getattr(caught.value, '__notes__', ['1.jpg']))

    def test_a_loader_that_leaves_out_empty_images_itself_is_warned_and_not_refused(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, {**GOOD, 'a/0.jpg': b''})
        loader['dataset']['pipeline'][0]['ignore_empty'] = True
        assert len(build(loader).dataset) == 4

    def test_images_that_are_kept_elsewhere_are_not_looked_for(self, tmp_path: Path) -> None:
        loader = classification(tmp_path, {**GOOD, 'a/0.jpg': b''})
        loader['dataset']['pipeline'][0]['backend_args'] = dict(backend='lmdb', db_path='x')
        assert len(build(loader).dataset) == 4

    def test_a_check_that_takes_too_long_gives_up_and_says_how_far_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines: list[str] = []
        monkeypatch.setattr('mmevm.engine.checks.images.SECONDS', 0.0)
        monkeypatch.setattr('mmevm.engine.checks.images.print_log', lambda line, **_: lines.append(line))
        build(classification(tmp_path, GOOD))
        assert 'checked the files of 1 of 3 samples' in lines[0]
        with pytest.raises(UsageError):
            build(classification(tmp_path, {'a/1.jpg': b'', 'a/2.jpg': b'', 'b/3.jpg': b''}))

    @pytest.mark.parametrize('label', [2, -1])
    def test_class_ids_beyond_the_models_are_refused_whatever_the_format(self, tmp_path: Path, label: int) -> None:
        from mmpretrain.datasets import BaseDataset

        class Own(BaseDataset):
            def load_data_list(self) -> list[dict]:
                return [dict(img_path=str(tmp_path / 'a/1.jpg'), gt_label=label)]

        loader = classification(tmp_path, GOOD, type=Own, ann_file='')
        with pytest.raises(UsageError, match=f'a/1.jpg has the class id {label}; the model has the classes 0 to 1'):
            build(loader, classes=2)
        assert len(build(loader, is_training=False, classes=2).dataset) == 1

    def test_datasets_that_are_not_mmengines_name_their_files_too(self, tmp_path: Path) -> None:
        from mmengine.dataset import Compose

        class Own(torch.utils.data.Dataset):
            def __init__(self, root: str, pipeline: list) -> None:
                self.root, self.pipeline = root, Compose(pipeline)

            def __len__(self) -> int:
                return 1

            def __getitem__(self, index: int) -> Any:
                return self.pipeline(dict(img_path=f'{self.root}/0.jpg'))

        (tmp_path / '0.jpg').touch()
        loader = classification(tmp_path, {})
        loader['dataset'] = dict(type=Own, root=str(tmp_path), pipeline=loader['dataset']['pipeline'])
        with pytest.raises(SampleError, match='0.jpg: it is empty'):
            list(build(loader, skip=True))

    def test_a_pipeline_that_takes_the_place_of_the_first_is_wrapped_too(self, tmp_path: Path) -> None:
        from mmengine.dataset import Compose

        built = build(classification(tmp_path, GOOD))
        built.dataset.pipeline = Compose([dict(type='LoadImageFromFile')])
        runner = Loaders()
        type(runner).train_dataloader = property(lambda self: built)
        CheckedImagesHook().before_train_epoch(runner)
        assert isinstance(built.dataset.pipeline, NamedErrors) and len(built.dataset.pipeline.transforms) == 1

    def test_the_wrapped_pipeline_travels_between_processes(self, tmp_path: Path) -> None:
        dataset = build(classification(tmp_path, GOOD)).dataset
        assert len(pickle.loads(pickle.dumps(dataset.pipeline)).transforms) == 2
        assert len(dataset.get_subset([0])) == 1

    def test_a_runner_keeps_its_name_and_its_config(self) -> None:
        made = checked(Runner, Checks(skip=True))
        assert made.__name__ == 'Runner' and issubclass(made, Runner) and made.checks.skip


def test_label_maps_are_checked_where_they_are_loaded(tmp_path: Path) -> None:
    from mmengine.registry import DefaultScope

    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
    for index in range(3):
        (tmp_path / f'images/{index}.jpg').write_bytes(encoded())
        Image.fromarray(np.full((64, 64), index, np.uint8)).save(tmp_path / f'maps/{index}.png')
    (tmp_path / 'maps/0.png').write_bytes(b'')
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]

    def loader(pipeline: list) -> dict:
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            pipeline=pipeline,
            data_prefix=dict(img_path='images', seg_map_path='maps'),
            metainfo=dict(classes=('a', 'b')),
        )
        return dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)

    with DefaultScope.overwrite_default_scope('mmseg'):
        assert len(build(loader([steps[0], steps[2]])).dataset) == 3
        with pytest.raises(UsageError, match=r'maps/0\.png: it is empty'):
            build(loader(steps))
        built = build(loader(steps), skip=True, classes=2)
        assert len(built.dataset) == 2
        with pytest.raises(SampleError, match=r'maps/2\.png has the class id 2; the model has the classes 0 to 1'):
            list(built)


def test_cocos_metric_does_not_count_images_that_were_left_out(tmp_path: Path) -> None:
    from mmdet.evaluation import CocoMetric
    from mmengine.registry import DefaultScope

    images = [dict(id=index, file_name=f'{index}.jpg', height=64, width=64) for index in range(4)]
    annotations = [
        dict(id=index, image_id=index, category_id=1, bbox=[0, 0, 32, 32], area=1024, iscrowd=0)
        for index in range(1, 4)
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='cat')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    for index in (0, 1, 2):
        (tmp_path / f'{index}.jpg').write_bytes(encoded() if index else b'')
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('cat',)),
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile')],
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = build(
            dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dataset),
            is_training=False,
            skip=True,
        )
    assert [built.dataset.get_data_info(index)['img_id'] for index in range(len(built.dataset))] == [1, 2]

    def evaluated(with_hook: bool) -> float:
        metric = CocoMetric(ann_file=f'{tmp_path}/a.json')
        metric.dataset_meta = built.dataset.metainfo
        if with_hook:
            loop = type('Loop', (), dict(dataloader=built, evaluator=type('Evaluator', (), dict(metrics=[metric]))))
            CheckedImagesHook().before_test(type('Runner', (), dict(test_loop=loop)))
        for image in (1, 2):
            boxes = dict(
                bboxes=torch.tensor([[0.0, 0.0, 32.0, 32.0]]), scores=torch.ones(1), labels=torch.zeros(1).long()
            )
            metric.process({}, [dict(img_id=image, ori_shape=(64, 64), pred_instances=boxes)])
        return metric.evaluate(size=2)['coco/bbox_mAP']

    # The third image of the file is not there, and nothing can be found in it.
    assert evaluated(with_hook=True) == pytest.approx(1)
    assert evaluated(with_hook=False) < 0.7


def test_nothing_changes_in_the_config_that_is_dumped(tmp_path: Path) -> None:
    loader = Config(dict(loader=classification(tmp_path, GOOD))).loader
    before = Config(dict(loader=loader)).pretty_text
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        build(loader)
    assert Config(dict(loader=loader)).pretty_text == before
