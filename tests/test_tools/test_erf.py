"""`tools/analysis/erf.py` as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmevm.analysis.erf import receptive_field, square_sides
from mmevm.analysis.pictures import render_pictures
from mmevm.backbones import EfficientVMamba
from mmevm.cli.erf import build_backbone, main

from .conftest import ROOT


def _run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, np.ndarray]]:
    files = ['--out', str(tmp_path / 'erf.png'), '--scores', str(tmp_path / 'erf.npz')]
    status = main([*arguments, '--size', '64', '--count', '2', *files])
    return status, dict(np.load(tmp_path / 'erf.npz')) if status == 0 else {}


def test_erf_measures_random_and_trained_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(5)
    other = EfficientVMamba('tiny').eval()
    torch.save({'state_dict': other.state_dict()}, tmp_path / 'other.pth')
    torch.manual_seed(0)
    models = {'random': EfficientVMamba('tiny').eval(), 'trained': other}
    status, scores = _run(tmp_path, 'EfficientVMamba:tiny', '--weights', str(tmp_path / 'other.pth'))
    assert status == 0
    out = capsys.readouterr().out
    for kind, model in models.items():
        expected = receptive_field(model, render_pictures(2, 64))
        np.testing.assert_allclose(scores[f'EfficientVMamba tiny {kind}'], expected, rtol=1e-4, atol=1e-9)
        sides = [f'{100 * side / 64:.1f}' for side in square_sides(expected)]
        assert ['EfficientVMamba', 'tiny', kind, *sides] in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-1] == str(tmp_path / 'erf.png')


def test_erf_gives_the_same_for_the_same_seed(tmp_path: Path) -> None:
    runs = [_run(tmp_path, 'Vim:tiny', '--seed', seed)[1]['Vim tiny random'] for seed in ('1', '1', '2')]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.01 * runs[0].max()


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    'config, shape',
    [
        ('classifier_vim_t', (192, 4, 4)),
        ('retinanet_evm_t', (384, 2, 2)),
        ('classifier_vmamba_t', (768, 2, 2)),
    ],
)
def test_build_backbone_of_a_config_gives_maps(config: str, shape: tuple[int, int, int]) -> None:
    maps = build_backbone(str(ROOT / f'configs/{config}.py'), 64, 0)(torch.zeros(1, 3, 64, 64))
    assert maps[-1].shape[1:] == shape


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['ResNet:50'], 'is no model: expected a config file, or one of EfficientVMamba, VMamba, Vim'),
        (['Vim:huge'], "Vim:huge: `arch` must be one of 'tiny', 'small' or a dict, got 'huge'"),
        (['no/such.py'], 'Config file not found'),
        (['Vim:tiny', 'Vim:tiny'], 'each model must be named once'),
        (['Vim:tiny', '--weights', 'none.pth'], 'Checkpoint not found'),
        (['Vim:tiny', '--weights', '-', '-'], 'got 2 for 1 models'),
        (['Vim:tiny', '--pictures', 'no/such'], 'must be a folder with pictures'),
        (['Vim:tiny', '--count', '0'], '--count must be at least 1'),
        (['Vim:tiny', '--size', '63'], '--size must be at least 64'),
        (['Vim:tiny', '--seed', '-1'], '--seed must be 0 or larger'),
        (['Vim:tiny', '--out', 'erf.jpg'], '--out must end with .png, got erf.jpg'),
        (['Vim:tiny', '--out', 'no/such/erf.png'], 'there is no such folder'),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else '',
)
def test_erf_says_what_does_not_fit(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.openmmlab
def test_erf_takes_no_weights_for_other_backbones(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    backbone = "dict(type='mmdet.ResNet', depth=18)"
    (tmp_path / 'resnet.py').write_text(
        f"default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier', backbone={backbone})\n"
    )
    (tmp_path / 'resnet.pth').touch()
    assert main([str(tmp_path / 'resnet.py'), '--weights', str(tmp_path / 'resnet.pth')]) == 2
    assert 'resnet.py: expected a backbone of mmevm or a model with one' in capsys.readouterr().err
