"""What a file holds against what its entry says."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmevm.checkpoint import CheckpointError, formats
from mmevm.checkpoint.identify import build_backbone
from mmevm.zoo import ENTRIES, Entry
from mmevm.zoo.verify import check_content

State = dict[str, Tensor]
CLASSIFIERS = [entry for entry in ENTRIES.values() if entry.task == 'classification']


def blank(*shape: int) -> Tensor:
    """Zeros that take no room in a file."""
    return torch.zeros(()).expand(shape)


@cache
def released(name: str) -> State:
    """Names and shapes of a released classifier, its last norm and head among them, in upstream's spelling."""
    entry = ENTRIES[name]
    backbone = build_backbone(entry.architecture, entry.arch, entry.options)
    shapes = {key: value.shape for key, value in backbone.state_dict().items() if 'outnorm' not in key}
    width = backbone.dims[-1]
    shapes |= {'classifier.norm.weight': (width,), 'classifier.norm.bias': (width,)} if len(backbone.dims) > 1 else {}
    shapes |= {'classifier.head.weight': (1000, width), 'classifier.head.bias': (1000,)}
    return formats.to_upstream({key: blank(*shape) for key, shape in shapes.items()})


def check(state: State, entry: Entry, folder: Path) -> None:
    """What a download of ``entry`` goes through."""
    torch.save({entry.key: state}, folder / entry.file)
    check_content(folder / entry.file, entry)


@pytest.mark.parametrize('entry', CLASSIFIERS, ids=lambda entry: entry.name)
def test_check_content_takes_what_was_released(entry: Entry, tmp_path: Path) -> None:
    check(released(entry.name), entry, tmp_path)


# The first two have the same widths and depths, the others every shape but that of the position embedding.
@pytest.mark.parametrize(
    'pair',
    [
        ('efficient_vmamba_base', 'vmamba_v0_tiny'),
        ('vim_tiny', 'vim_tiny_stride8'),
        ('vim_small', 'vim_small_stride8'),
    ],
)
def test_check_content_tells_similar_entries_apart(pair: tuple[str, str], tmp_path: Path) -> None:
    for name, other in (pair, pair[::-1]):
        with pytest.raises(CheckpointError, match=f'is not {other}: '):
            check(released(name), ENTRIES[other], tmp_path)


def test_check_content_takes_linear_layers_that_were_saved_as_convolutions(tmp_path: Path) -> None:
    state = released('vmamba_v2_tiny_s1l8')
    linear = [name for name in state if name.endswith(('op.in_proj.weight', 'mlp.fc1.weight'))]
    assert len(linear) == 2 * (2 + 2 + 8 + 2)
    check(state | {name: state[name][..., None, None] for name in linear}, ENTRIES['vmamba_v2_tiny_s1l8'], tmp_path)


BROKEN: dict[str, tuple[str, Callable[[State], State], str]] = {
    'stride': ('vim_tiny', lambda s: s | {'pos_embed': blank(1, 730, 192)}, 'pos_embed would have to be interpolated'),
    'no head': (
        'efficient_vmamba_tiny',
        lambda s: {key: value for key, value in s.items() if 'head' not in key},
        'has no head for classification beside the backbone',
    ),
    'detector': (
        'efficient_vmamba_tiny',
        lambda s: {f'backbone.{key}': v for key, v in s.items() if 'head' not in key} | {'bbox_head.w': blank(1)},
        'has no head for classification beside the backbone',
    ),
    'segmentor': (
        'vmamba_v2_tiny_mask_rcnn',
        lambda _: (
            {
                f'backbone.{key}': value
                for key, value in released('vmamba_v2_tiny_s1l8').items()
                if 'classifier' not in key
            }
            | {'decode_head.conv_seg.weight': blank(1)}
        ),
        'has no head for detection',
    ),
    'backbone': ('vmamba_v2_tiny_upernet', lambda _: released('vmamba_v2_tiny_s1l8'), 'has no head for segmentation'),
    'missing': ('vim_tiny', lambda s: {key: v for key, v in s.items() if key != 'cls_token'}, '1 missing: cls_token'),
}


@pytest.mark.parametrize(('name', 'harm', 'message'), BROKEN.values(), ids=BROKEN.keys())
def test_check_content_refuses(name: str, harm: Callable[[State], State], message: str, tmp_path: Path) -> None:
    state = released(name) if ENTRIES[name].task == 'classification' else {}
    with pytest.raises(CheckpointError, match=rf'is not {name}: (.|\n)*{message}'):
        check(harm(state), ENTRIES[name], tmp_path)
