"""`mmevm._patches`: `_base_ = 'mmseg::…'` whatever the distribution is called."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config

from mmevm import _patches
from mmevm.engine.config import read_config
from mmevm.errors import UsageError

ORIGINAL = {'mmdet': 'mmdet', 'mmseg': 'mmsegmentation', 'mmaction': 'mmaction2'}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    table = dict(ORIGINAL)
    monkeypatch.setattr(_patches, 'MODULE2PACKAGE', table)
    return table


def pretend(monkeypatch: pytest.MonkeyPatch, distributions: tuple[str, ...], modules: tuple[str, ...]) -> None:
    def distribution(name: str) -> None:
        if name not in distributions:
            raise PackageNotFoundError(name)

    monkeypatch.setattr(_patches, 'distribution', distribution)
    monkeypatch.setattr(_patches, 'find_spec', lambda name: name if name in modules else None)


@pytest.mark.parametrize(
    'distributions, modules, expected',
    [
        (('mmdet', 'mmsegmentation'), ('mmdet', 'mmseg'), ORIGINAL),
        (('onedl-mmdetection', 'onedl-mmsegmentation'), ('mmdet', 'mmseg'), {**ORIGINAL, 'mmseg': 'mmseg'}),
        (('onedl-mmaction2',), ('mmaction',), {**ORIGINAL, 'mmaction': 'mmaction'}),
        ((), (), ORIGINAL),
    ],
    ids=['originals', 'forks', 'another fork', 'nothing'],
)
def test_import_names_stand_in_for_absent_distributions(table, monkeypatch, distributions, modules, expected):
    pretend(monkeypatch, distributions, modules)
    _patches.find_configs_by_import_name()
    assert table == {**expected, 'mmevm': 'mmevm'}


def test_a_finder_that_raises_leaves_the_table_alone(table, monkeypatch):
    def find_spec(name: str) -> None:
        raise ModuleNotFoundError(name)

    pretend(monkeypatch, (), ())
    monkeypatch.setattr(_patches, 'find_spec', find_spec)
    _patches.find_configs_by_import_name()
    assert table == {**ORIGINAL, 'mmevm': 'mmevm'}


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    'address, backbone',
    [
        ('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', 'ResNetV1c'),
        ('mmseg::_base_/models/segformer_mit-b0.py', 'MixVisionTransformer'),
        ('mmdet::_base_/models/retinanet_r50_fpn.py', 'ResNet'),
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'ResNet'),
    ],
)
def test_configs_of_the_libraries_are_bases_and_in_the_hub(tmp_path: Path, address: str, backbone: str) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text(f'_base_ = {address!r}\nmodel = dict(train_cfg=None)\n')
    for cfg in (Config.fromfile(mine), read_config(mine), get_config(address)):
        assert cfg.model.backbone.type.rpartition('.')[2] == backbone


def test_a_library_that_is_not_installed_is_named(tmp_path: Path) -> None:
    assert MODULE2PACKAGE['mmrotate'] == 'mmrotate'
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = 'mmrotate::rotated_fcos/rotated_fcos.py'\n")
    with pytest.raises(UsageError, match=r'mine\.py needs a library that is not installed: mmrotate'):
        read_config(mine)
