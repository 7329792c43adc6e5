"""Users' data in ``tools/train.py`` and ``tools/test.py``: class lists, missing sets, odd paths and broken images."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train

from .conftest import CONFIG
from .recorder import read
from .small_classifier import BATCH, TRAIN_IMAGES, write_config, write_pictures

pytestmark = pytest.mark.openmmlab


class ModelBuilt(Exception):
    """Training or evaluation got as far as building a model."""


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configs of which a model would have been built; none is."""
    configs: list[Any] = []

    def build(cfg: Any, *_: Any) -> None:
        configs.append(cfg)
        raise ModelBuilt

    for tool in ('train', 'evaluate'):
        monkeypatch.setattr(f'mmevm.apis.{tool}.build_runner', build)
    return configs


def refusal(run: Any, capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What a tool prints when it refuses."""
    assert run(list(map(str, arguments))) == 2
    return capsys.readouterr().err


def rename_category(path: Path, old: str, new: str) -> None:
    content = json.loads(path.read_text())
    for category in content['categories']:
        category['name'] = new if category['name'] == old else category['name']
    path.write_text(json.dumps(content))


def test_a_renamed_category_is_refused_in_training_and_evaluation(
    mini_coco: Path, tmp_path: Path, built: list[Any], capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / 'coco'
    shutil.copytree(mini_coco, data)
    rename_category(data / 'annotations/instances_train2017.json', 'kite', 'Kite')
    rename_category(data / 'annotations/instances_val2017.json', 'traffic light', 'traffic_light')
    options = ['--cfg-options', f'data_root={data}', 'model.backbone.init_cfg=None']
    message = refusal(run_train, capsys, CONFIG, *options)
    assert "'kite' (in the file: 'Kite')" in message and "'traffic light' (in the file: 'traffic_light')" in message
    (tmp_path / 'any.pth').touch()
    message = refusal(run_test, capsys, CONFIG, tmp_path / 'any.pth', *options)
    assert 'test_dataloader.dataset' in message and 'train_dataloader.dataset:' not in message
    assert built == []


def test_a_missing_validation_set_of_a_classifier_is_refused(
    tmp_path: Path, built: list[Any], capsys: pytest.CaptureFixture
) -> None:
    data = write_pictures(tmp_path / 'data')
    config = write_config(tmp_path / 'config.py', data, '')
    with pytest.raises(ModelBuilt):
        run_train([str(config)])
    shutil.rmtree(Path(data) / 'val')
    assert f'  missing: {data}/val' in refusal(run_train, capsys, config).splitlines()


def test_class_ids_beyond_a_classifiers_are_refused(
    tmp_path: Path, built: list[Any], capsys: pytest.CaptureFixture
) -> None:
    data = write_pictures(tmp_path / 'data')
    write_config(tmp_path / 'base.py', data, '')
    dataset = dict(
        _delete_=True,
        type='CustomDataset',
        data_root=str(data),
        ann_file='meta/train.txt',
        data_prefix='train',
        pipeline=[],
    )
    config = tmp_path / 'config.py'
    config.write_text(f"""
_base_ = 'base.py'
data_preprocessor = dict(num_classes=10)
model = dict(head=dict(num_classes=10))
train_dataloader = dict(dataset={dataset})
val_dataloader = val_cfg = val_evaluator = None
""")
    message = refusal(run_train, capsys, config)
    assert 'model.head.num_classes = 10 allows 0 to 9' in message and built == []
    assert f'of {data}/meta/train.txt' in message.replace('//', '/')


@pytest.mark.parametrize('name', ['my data, 2024', 'einÖrdner/数据 [old]', '2024', "it's (new)/"])
def test_a_data_root_may_be_called_anything(
    name: str, mini_coco: Path, tmp_path: Path, built: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).symlink_to(mini_coco)
    with pytest.raises(ModelBuilt):
        run_train(
            [str(CONFIG), '--cfg-options', f'data_root={name}', 'model.backbone.init_cfg=None', f'work_dir={name}_work']
        )
    assert built[0].train_dataloader.dataset.data_root.rstrip('/') == name.rstrip('/')
    assert built[0].val_evaluator.ann_file == f'{name.rstrip("/")}/annotations/instances_val2017.json'
    assert built[0].work_dir == f'{name}_work'


def test_broken_images_are_refused_before_training_and_left_out_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = write_pictures(tmp_path / 'data')
    images = sorted(Path(data).glob('train/*/*.JPEG'))
    images[0].write_bytes(b'')
    images[1].unlink()
    sorted(Path(data).glob('val/*/*.JPEG'))[0].write_bytes(b'<html>')
    config = write_config(tmp_path / 'config.py', data, 'train_cfg = dict(max_epochs=1, val_interval=1)')
    monkeypatch.chdir(tmp_path)
    message = refusal(run_train, capsys, config)
    assert f'{images[0]}: it is empty (0 bytes)' in message and f'{images[1]}: no such file' in message
    assert 'leave them out with --skip-broken' in message and not list(tmp_path.glob('losses/*'))

    assert run_train([str(config), '--skip-broken']) == 0
    log = max(tmp_path.glob('work_dirs/config/*/*.log')).read_text()
    assert f'left out 2 of {TRAIN_IMAGES} samples' in log and 'left out 1 of 5 samples' in log
    lines = read(tmp_path / 'losses')
    trained = {name for line in lines for name in line['images']}
    assert len(lines) == -(-(TRAIN_IMAGES - 2) // BATCH)
    assert trained == {path.name for path in images[2:]}
