import pytest
import torch

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import formats

from ..parity import NAMES, Fixture

RENAMED = {
    'patch_embed.0.weight': 'patch_embed.proj.weight',
    'patch_embed.2.bias': 'patch_embed.norm.bias',
    'layers.0.blocks.1.ln_1.weight': 'layers.0.blocks.1.norm.weight',
    'layers.0.blocks.1.self_attention.out_norm.bias': 'layers.0.blocks.1.op.out_norm.bias',
    'layers.0.downsample.norm.weight': 'layers.0.downsample.norm.weight',
    'layers.2.1.conv_pw.0.weight': 'layers.2.blocks.0.conv_pw.0.weight',
    'layers.3.2.se.conv_reduce.bias': 'layers.3.blocks.1.se.conv_reduce.bias',
    'layers.2.6.reduction.weight': 'layers.2.downsample.reduction.weight',
    'layers.2.11.norm.weight': 'layers.2.downsample.norm.weight',
    'norm.weight': 'classifier.norm.weight',
    'head.bias': 'classifier.head.bias',
    'outnorm2.weight': 'outnorm2.weight',
}


@pytest.mark.parametrize('upstream, ours', RENAMED.items(), ids=RENAMED.keys())
def test_rename_gives_mmevms_spelling(upstream: str, ours: str) -> None:
    assert formats.rename(upstream) == ours
    assert formats.rename(ours) == ours


@pytest.mark.parametrize('name', NAMES)
def test_convert_names_every_parameter_of_the_model(name: str) -> None:
    fixture = Fixture(name)
    converted = formats.convert(fixture.state())
    own = EfficientVMamba(fixture.meta['arch']).state_dict()
    classifier = {k for k in converted if k.startswith('classifier.')}
    assert set(converted) - classifier == set(own) and len(classifier) == 4
    assert all(converted[k].shape == v.shape for k, v in own.items())


@pytest.mark.parametrize('key', formats.WRAPPERS)
def test_unwrap_finds_the_weights_under(key: str) -> None:
    weights = {'a': torch.zeros(1)}
    assert formats.unwrap({key: weights, 'epoch': 3, 'optimizer': {}}) is weights
    assert formats.unwrap(weights) is weights


def test_unwrap_prefers_trained_weights_to_their_average() -> None:
    assert formats.unwrap({'model_ema': {'a': 1}, 'model': {'a': 2}}) == {'a': 2}


def test_strip_prefix_removes_every_module() -> None:
    assert formats.strip_prefix({'module.module.a': 1, 'module.module.b': 2}) == {'a': 1, 'b': 2}
    assert formats.strip_prefix({'module.a': 1, 'b': 2}) == {'module.a': 1, 'b': 2}


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
def test_signature_reads_the_variant(arch: str) -> None:
    model = EfficientVMamba(arch)
    assert formats.signature(model.state_dict()) == (model.dims, model.depths)


def test_signature_is_none_for_other_models() -> None:
    assert formats.signature({'conv1.weight': torch.zeros(1)}) is None
