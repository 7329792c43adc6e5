"""VMamba's checkpoints: upstream's formats and spellings, what is converted, what is refused."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba, VMamba
from mmevm.checkpoint import CheckpointError, formats, load_checkpoint

from ..parity import Fixture
from .test_vmamba import NAMES, SMALL

# How upstream's first files spell what its later code calls otherwise.
OLDER = {
    r'^patch_embed\.0\.': 'patch_embed.proj.',
    r'^patch_embed\.2\.': 'patch_embed.norm.',
    r'(blocks\.\d+)\.norm\.': r'\1.ln_1.',
    r'(blocks\.\d+)\.op\.': r'\1.self_attention.',
    r'^classifier\.': '',
}
FORMS = ['model', 'model_ema', 'state_dict', 'mmengine']


def _older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for later, older in OLDER.items():
            name = re.sub(later, older, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize('design, form', [*((d, form) for d in SMALL for form in FORMS), ('v0', 'older')])
def test_vmamba_loads_every_format_of_upstream(design: str, form: str, tmp_path: Path) -> None:
    saved = VMamba(SMALL[design], out_indices=(3,)).eval()
    state = formats.to_upstream(saved.state_dict())
    for leaf in ('weight', 'bias'):
        state[f'classifier.norm.{leaf}'] = state.pop(f'outnorm3.{leaf}')
        state[f'classifier.head.{leaf}'] = torch.randn(5)
    content = {
        'model': {'model': state, 'epoch': 3},
        'model_ema': {'model_ema': {f'module.{k}': v for k, v in state.items()}},
        'state_dict': {'state_dict': {f'module.module.{k}': v for k, v in state.items()}},
        'mmengine': {'state_dict': {f'backbone.{k}': v for k, v in state.items()} | {'neck.weight': torch.ones(1)}},
        'older': {'model': _older(state)},
    }[form]
    torch.save(content, tmp_path / 'file.pth')
    model = VMamba(SMALL[design], out_indices=(3,)).eval()
    report = load_checkpoint(model, tmp_path / 'file.pth')
    assert len(report.loaded) == len(model.state_dict()) and not report.problems
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in saved.state_dict().items())


@pytest.mark.parametrize('name', NAMES)
def test_vmambas_names_go_to_upstreams_and_back(name: str) -> None:
    manifest = dict(Fixture(name).meta['manifest'])
    ours = formats.convert(manifest)
    assert formats.to_upstream(ours) == manifest
    assert formats.convert(ours) == ours


def test_older_names_are_those_of_upstreams_first_files() -> None:
    manifest = Fixture('vmamba_v0_tiny_64x64').meta['manifest']
    older = _older(dict.fromkeys(manifest))
    assert {
        'patch_embed.proj.weight',
        'patch_embed.norm.bias',
        'layers.0.blocks.1.ln_1.weight',
        'norm.weight',
        'layers.2.blocks.8.self_attention.out_norm.weight',
        'layers.1.downsample.norm.bias',
        'head.bias',
        'layers.3.blocks.0.self_attention.x_proj_weight',
    } <= set(older)
    assert set(formats.convert(older)) == set(formats.convert(manifest))


def test_vmamba_takes_linear_layers_saved_as_convolutions() -> None:
    saved = VMamba(SMALL['v2'])
    linear = {name for name, m in saved.named_modules() if isinstance(m, nn.Linear)}
    state = {
        k: v[:, :, None, None] if k.removesuffix('.weight') in linear and k.endswith('weight') else v
        for k, v in saved.state_dict().items()
    }
    assert sum(value.dim() == 4 for value in state.values()) > 20
    by_report, by_torch = VMamba(SMALL['v2']), VMamba(SMALL['v2'])
    assert len(load_checkpoint(by_report, state).adapted) == 4 * 5
    by_torch.load_state_dict(copy.copy(state))
    for model in (by_report, by_torch):
        assert all(torch.equal(value, saved.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    'given, wanted',
    [
        (VMamba(SMALL['v2']), {**SMALL['v2'], 'depths': [1, 1, 3, 1]}),
        (EfficientVMamba({'dims': [16, 32, 64, 128], 'depths': [1, 1, 2, 1]}), SMALL['v0']),
    ],
    ids=['depth', 'architecture'],
)
def test_vmamba_refuses_other_weights_and_stays_as_it_was(given: nn.Module, wanted: dict) -> None:
    model = VMamba(wanted)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match='does not fit the model'):
        load_checkpoint(model, given.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_vmamba_names_the_variant_of_a_file() -> None:
    with torch.device('meta'):
        state = VMamba('tiny_s2l5').state_dict()
    with pytest.raises(CheckpointError, match="it is the variant 'tiny_s2l5'"):
        load_checkpoint(VMamba('tiny_s1l8'), state)
