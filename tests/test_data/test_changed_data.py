"""Datasets that change between runs, and settings that depended on the config's own."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmevm.apis import own_data
from mmevm.data import splits, writing
from mmevm.data.adaptation import adapt, check_fit
from mmevm.data.classes import match_classes
from mmevm.data.reading import read_data
from mmevm.data.summary import refusal
from mmevm.engine.config import load_config
from mmevm.files import replacing

from ..recipes import PATHS
from . import layouts

pytestmark = pytest.mark.openmmlab

BOTH = {'train': 4, 'val': 2}


@pytest.mark.parametrize('added', [['000.jpg'], ['zzz.jpg'], [f'a{i}.jpg' for i in range(10)]])
def test_images_stay_in_their_split_when_others_are_added(added: list[str]) -> None:
    names = [f'{index:03d}x.jpg' for index in range(100)]
    before = {names[index] for index in splits.choose([{0}] * 100, names=names)}
    more = sorted(names + added)
    after = {more[index] for index in splits.choose([{0}] * len(more), names=more)}
    assert len(before) == 20 and len(after - before) <= len(added)
    assert len(before & set(names) - after) <= len(added)


def test_an_evaluation_says_that_the_split_is_not_that_of_the_run(tmp_path: Path) -> None:
    root = layouts.write_folders(tmp_path / 'animals', {'': 10})

    def notes(checkpoint: str | None, monkey: pytest.MonkeyPatch, trained: str = '') -> list[str]:
        cfg = load_config(PATHS['classifier_evm_t'])
        cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
        found: list[Any] = []
        monkey.setattr(own_data, '_show', lambda data, sheet: found.append(data))
        monkey.setattr(own_data, '_meta', lambda path: {'cfg': trained} if path else {})
        own_data.use_data(cfg, str(root), 'config.py', checkpoint=checkpoint)
        texts.append(cfg.pretty_text)
        return list(found[0].findings.notes)

    texts: list[str] = []
    with pytest.MonkeyPatch.context() as monkey:
        notes(None, monkey)
        assert not any('not that of the training run' in note for note in notes('model.pth', monkey, texts[0]))
        for index in range(10):
            layouts.paint(root / 'cat' / f'new{index}.png', index)
        assert any('not that of the training run' in note for note in notes('model.pth', monkey, texts[0]))


def test_a_label_map_that_was_corrected_is_converted_again_whatever_its_date(tmp_path: Path) -> None:
    root = layouts.write_masks(tmp_path / 'data', BOTH)
    masks = sorted((root / 'masks').rglob('*.png'))
    colours = np.array([(0, 0, 0), (255, 255, 255), (255, 0, 0)], np.uint8)
    for path in masks:
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)

    def converted() -> list[np.ndarray]:
        data = read_data(root)
        found = writing.write_label_maps(data, data.splits['train'], 'train', tmp_path / 'work', as_is=False)
        folder = Path(found[0]['data_prefix']['seg_map_path'])
        return [np.asarray(Image.open(path)) for path in sorted(folder.rglob('*.png'))]

    before = converted()
    old = os.stat(masks[0])
    corrected = np.asarray(Image.open(masks[0])).copy()
    corrected[:5] = colours[2]
    Image.fromarray(corrected).save(masks[0])
    os.utime(masks[0], (old.st_atime - 86400, old.st_mtime - 86400))
    after = converted()
    assert sum(not np.array_equal(*pair) for pair in zip(before, after, strict=True)) == 1


def test_a_crowd_of_a_class_that_the_model_lacks_is_left_out(tmp_path: Path) -> None:
    data = read_data(layouts.write_coco(tmp_path, BOTH), trained='')
    for sample in data.samples():
        for thing in sample.things:
            thing.crowd = data.classes[thing.category] == 'owl'
    match_classes(data, ['dog', 'cat'])
    found = {data.classes[thing.category] for sample in data.samples() for thing in sample.things}
    assert data.classes == ['dog', 'cat'] and found <= {'dog', 'cat'} and not data.findings.problems


@pytest.mark.parametrize('trained', [None, ''])
def test_a_dataset_without_any_split_is_refused_by_what_it_lacks(trained: str | None, tmp_path: Path) -> None:
    (tmp_path / 'data.yaml').write_text('train: missing/train\nval: missing/val\nnames: [cat, dog]')
    message = refusal(read_data(tmp_path / 'data.yaml', trained=trained))
    assert message and 'missing' in message


@pytest.mark.parametrize(
    'change, refused',
    [
        (dict(batch_size=64, drop_last=True), True),
        (dict(batch_size=64, drop_last=False), False),
        (dict(batch_size=64, drop_last=True, sampler=dict(type='InfiniteSampler', shuffle=True)), False),
        (dict(batch_size=64, drop_last=True, repeat=20), False),
        (dict(batch_size=64, drop_last=True, repeat=2), True),
    ],
)
def test_a_batch_is_filled_by_repetition_too(change: dict[str, Any], refused: bool, tmp_path: Path) -> None:
    cfg = load_config(PATHS['classifier_evm_t'])
    repeat = change.pop('repeat', 0)
    cfg.train_dataloader.update(change)
    if repeat:
        cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=repeat, dataset=cfg.train_dataloader.dataset)
    data = read_data(layouts.write_folders(tmp_path, BOTH))
    check_fit(cfg, data, 'config.py')
    assert bool(refusal(data)) is refused


BEST = {
    'VOC': ('retinanet_evm_t', dict(type='mmdet.VOCMetric', metric='mAP'), 'pascal_voc/mAP', 'auto'),
    'COCO': ('retinanet_evm_t', None, 'coco/bbox_mAP', 'coco/bbox_mAP'),
    'top 5 of 3': ('classifier_evm_t', None, 'accuracy/top5', 'auto'),
    'automatic': ('classifier_evm_t', None, 'auto', 'auto'),
}


@pytest.mark.parametrize('name, evaluator, best, expected', BEST.values(), ids=BEST)
def test_the_best_checkpoint_is_by_a_metric_that_there_is(
    name: str, evaluator: Any, best: str, expected: str, tmp_path: Path
) -> None:
    cfg: Config = load_config(PATHS[name])
    cfg.default_hooks.checkpoint.save_best = best
    if evaluator:
        cfg.val_evaluator = evaluator
    write = layouts.write_folders if name.startswith('classifier') else layouts.write_coco
    data = read_data(write(tmp_path / 'data', BOTH))
    adapt(cfg, data, tmp_path / 'work')
    assert cfg.default_hooks.checkpoint.save_best == expected
    assert any('save_best' in note for note in data.findings.notes) is (best != expected)


def test_threads_may_replace_the_same_file(tmp_path: Path) -> None:
    inside, failures = threading.Barrier(2), []

    def replace(text: str) -> None:
        try:
            with replacing(tmp_path / 'file') as draft:
                draft.write_text(text)
                inside.wait(10)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=replace, args=(text,)) for text in ('a', 'b')]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and (tmp_path / 'file').read_text() in ('a', 'b')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('fails', [False, True])
def test_a_file_is_downloaded_where_the_first_process_has_put_none(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of other machines do not see rank 0's folder; where its download fails, they do not wait for ever."""
    import mmengine.dist
    import torch

    from mmevm.checkpoint.weights_only import load_from_http

    calls: list[str] = []

    def download(address: str, target: str, *args: Any, **kwargs: Any) -> None:
        calls.append('download')
        if fails:
            raise OSError('no network')
        torch.save({'state_dict': {'w': torch.ones(1)}}, target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch, 'distributed', SimpleNamespace(barrier=lambda: calls.append('barrier')))
    for rank in (0, 1):
        monkeypatch.setattr(mmengine.dist, 'get_dist_info', lambda rank=rank: (rank, 2))
        calls.clear()
        load = lambda: load_from_http('https://x.org/w.pth', model_dir=str(tmp_path / str(rank)))  # noqa: B023, E731
        if fails:
            with pytest.raises(OSError, match='no network'):
                load()
        else:
            assert load()['state_dict']['w'] == 1
        assert calls == (['download', 'barrier'] if rank == 0 else ['barrier', 'download'])
