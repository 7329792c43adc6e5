"""Weights of released networks, told apart by names and shapes."""

import pytest

from mmevm.checkpoint import CheckpointError, load_checkpoint
from mmevm.checkpoint.identify import build_backbone, identify
from mmevm.zoo import ENTRIES

from ..test_zoo.test_verify import blank, released


@pytest.mark.parametrize('name', ['efficient_vmamba_base', 'vmamba_v0_tiny', 'vmamba_v2_small_s1l20', 'vim_small'])
def test_identify_names_the_network_and_the_variant(name: str) -> None:
    state, expected = released(name), f'{ENTRIES[name].architecture} {ENTRIES[name].arch}'
    assert identify({'model': state}) == expected
    assert identify({'state_dict': {f'module.backbone.{key}': value for key, value in state.items()}}) == expected


def test_identify_knows_no_incomplete_or_foreign_weights() -> None:
    state = released('vmamba_v0_tiny')
    assert identify({key: value for key, value in state.items() if 'layers.1' not in key}) is None
    assert identify({'conv1.weight': blank(64, 3, 7, 7)}) is None


def test_load_checkpoint_names_another_network_of_the_same_widths_and_depths() -> None:
    weights, same = released('vmamba_v0_tiny'), build_backbone('EfficientVMamba', 'base')
    vmamba = build_backbone('VMamba', 'tiny')
    assert (same.dims, same.depths) == (vmamba.dims, vmamba.depths)
    for model in (same, build_backbone('EfficientVMamba', 'tiny')):
        with pytest.raises(CheckpointError, match="it is VMamba 'tiny', the model is EfficientVMamba"):
            load_checkpoint(model, weights)
