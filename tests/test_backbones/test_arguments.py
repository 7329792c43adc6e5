"""Arguments of backbones that do not fit: errors that name the argument, what was expected, and what came."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import CheckpointError

STAGES = {'dims': [8, 16], 'depths': [1, 1]}
ARCHES = {EfficientVMamba: STAGES, VMamba: STAGES, Vim: {'dims': [8], 'depths': [2]}}
EVERY = pytest.mark.parametrize('backbone', ARCHES, ids=lambda cls: cls.__name__)


def build(backbone: Any, **options: Any) -> Any:
    return backbone(**{'arch': ARCHES[backbone], 'out_indices': (0, 1), **options})


WRONG = {
    'unsorted': ({'out_indices': (1, 0)}, ValueError, r'`out_indices` must .* ascending order, .* got \(1, 0\)'),
    'twice': ({'out_indices': (1, 1)}, ValueError, r'`out_indices` must .* each once, got \(1, 1\)'),
    'an integer': ({'out_indices': 1}, TypeError, '`out_indices` must be a sequence of integers, got 1'),
    'text': ({'out_indices': '01'}, TypeError, "`out_indices` must be a sequence of integers, got '01'"),
    'a float': ({'out_indices': (1.0,)}, TypeError, r'`out_indices\[0\]` must be an integer, got 1\.0'),
    'a truth value': ({'out_indices': [True]}, TypeError, r'`out_indices\[0\]` must be an integer, got True'),
    'frozen None': ({'frozen_stages': None}, TypeError, '`frozen_stages` must be an integer, got None'),
    'frozen float': ({'frozen_stages': 1.5}, TypeError, '`frozen_stages` must be an integer, got 1.5'),
    'frozen True': ({'frozen_stages': True}, TypeError, '`frozen_stages` must be an integer, got True'),
    'no channels': ({'in_channels': 0}, ValueError, '`in_channels` must be at least 1, got 0'),
    'channels as text': ({'in_channels': '3'}, TypeError, "`in_channels` must be an integer, got '3'"),
    'recomputation as text': ({'with_cp': 'False'}, TypeError, "`with_cp` must be True or False, got 'False'"),
    'rate as text': ({'drop_path_rate': '0.1'}, TypeError, "`drop_path_rate` must be a number, got '0.1'"),
    'no arch': ({'arch': None}, TypeError, '`arch` must be a name or a dict, got None'),
    'no blocks': ({'arch': {'dims': [8], 'depths': [0]}}, ValueError, r'`depths\[0\]` must be at least 1, got 0'),
    'depths as text': ({'arch': {'dims': [8], 'depths': '1'}}, TypeError, "`depths` must be a sequence .* got '1'"),
    'no width': ({'arch': {'dims': [0], 'depths': [1]}}, ValueError, r'`dims\[0\]` must be at least 1, got 0'),
    'init_cfg as text': ({'init_cfg': 'a.pth'}, TypeError, "`init_cfg` must be None, a dict .* got 'a.pth'"),
}


@EVERY
@pytest.mark.parametrize('options, error, message', WRONG.values(), ids=WRONG.keys())
def test_backbones_reject(backbone: Any, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build(backbone, **options)


OWN = {
    'norm_eval': (EfficientVMamba, {'norm_eval': 'False'}, TypeError, "`norm_eval` must be True or False, got 'False'"),
    'fusion': (EfficientVMamba, {'fusion': 'False'}, TypeError, '`fusion` must be True or False'),
    'step_size': (EfficientVMamba, {'step_size': 2.0}, TypeError, '`step_size` must be an integer, got 2.0'),
    'no attention': (
        EfficientVMamba,
        {'arch': {'dims': [4, 8], 'depths': [1, 1]}},
        ValueError,
        r'`dims` must start with at least 8 .* or have fusion=False, got \[4, 8\]',
    ),
    'ssm_ratio': (VMamba, {'arch': {**STAGES, 'ssm_ratio': '2'}}, TypeError, '`ssm_ratio` must be a number'),
    'img_size': (Vim, {'img_size': '224'}, TypeError, "`img_size` must be a sequence of integers, got '224'"),
    'three sides': (Vim, {'img_size': (32, 32, 3)}, ValueError, '`img_size` must be .* height and width'),
    'patch_stride': (Vim, {'patch_stride': 16.0}, TypeError, '`patch_stride` must be an integer, got 16.0'),
    'from the last': (Vim, {'out_indices': (-1, 0)}, ValueError, r'ascending order, each once, got \(-1, 0\)'),
}


@pytest.mark.parametrize('backbone, options, error, message', OWN.values(), ids=OWN.keys())
def test_each_backbone_rejects(backbone: Any, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build(backbone, **options)


@EVERY
@pytest.mark.parametrize('given', [[0, 1], range(2), np.arange(2)], ids=str)
def test_backbones_take_integers_of_any_kind(backbone: Any, given: Any) -> None:
    model = build(backbone, out_indices=given, frozen_stages=np.int64(1), in_channels=np.int64(4))
    assert model.out_indices == (0, 1) and model.frozen_stages == 1 and type(model.out_indices[0]) is int


WRONG_INIT = {
    'no checkpoint': ({'type': 'Pretrained'}, ValueError, 'needs a `checkpoint`, .* got none; for random'),
    'None': ({'type': 'Pretrained', 'checkpoint': None}, ValueError, 'needs a `checkpoint`, .* got None'),
    'empty': ({'type': 'Pretrained', 'checkpoint': ''}, ValueError, "needs a `checkpoint`, .* got ''"),
    'number': ({'type': 'Pretrained', 'checkpoint': 3}, TypeError, 'expected the path or address .* got int'),
    'prefix': ({'type': 'Pretrained', 'checkpoint': 'x', 'prefix': 1}, TypeError, '`prefix` in `init_cfg` must be'),
    'unknown key': ({'type': 'Pretrained', 'checkpoint': 'x', 'strict': 0}, ValueError, 'may have .* got strict'),
    'no type': ({'checkpoint': 'x'}, ValueError, '`init_cfg` needs a `type`'),
}


@pytest.mark.parametrize('wrap', [lambda config: config, lambda config: [config], lambda config: (config,)])
@pytest.mark.parametrize('config, error, message', WRONG_INIT.values(), ids=WRONG_INIT.keys())
def test_init_weights_says_what_is_wrong_with_init_cfg(config: dict, error: type, message: str, wrap: Any) -> None:
    model = build(EfficientVMamba, init_cfg=wrap(config))
    with pytest.raises(error, match=message):
        model.init_weights()


def test_a_tuple_of_initialisers_is_loaded_strictly(tmp_path: Path) -> None:
    source = EfficientVMamba(STAGES, out_indices=(0, 1))
    torch.save(source.state_dict(), tmp_path / 'whole.pth')
    torch.save({'patch_embed.proj.bias': torch.zeros(8)}, tmp_path / 'part.pth')
    init_cfg = ({'type': 'Pretrained', 'checkpoint': str(tmp_path / 'whole.pth'), 'map_location': 'cpu'},)
    model = EfficientVMamba(STAGES, out_indices=(0, 1), init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.patch_embed.proj.weight, source.patch_embed.proj.weight)
    with pytest.raises(CheckpointError, match='missing'):
        EfficientVMamba(
            STAGES, out_indices=(0, 1), init_cfg=({**init_cfg[0], 'checkpoint': str(tmp_path / 'part.pth')},)
        ).init_weights()


@pytest.mark.parametrize('address', [True, False], ids=['address', 'path'])
def test_the_advice_for_weights_that_cannot_be_loaded_fits_their_source(address: bool, tmp_path: Path) -> None:
    source = 'http://127.0.0.1:1/no.pth' if address else str(tmp_path / 'no.pth')
    model = EfficientVMamba(STAGES, out_indices=(0, 1), init_cfg={'type': 'Pretrained', 'checkpoint': source})
    with pytest.raises(CheckpointError, match='Could not load the pretrained weights') as caught:
        model.init_weights()
    assert ('Without a network' in str(caught.value)) == address
    assert 'init_cfg.checkpoint=/path/to/file' in str(caught.value)
