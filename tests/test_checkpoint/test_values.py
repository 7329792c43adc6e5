"""Values that cannot be weights, models without values, and sources that are no checkpoint."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, load_checkpoint, load_file

SMALL = {'dims': [8], 'depths': [1]}
NAME = 'patch_embed.proj.weight'


def build(**options: Any) -> EfficientVMamba:
    return EfficientVMamba(SMALL, out_indices=(0,), **options)


STATE = build().state_dict()

UNUSABLE: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    'NaN': (NAME, lambda w: w * float('nan'), 'expected finite numbers, got NaN or infinite ones'),
    'one infinity': (NAME, lambda w: w.index_fill(0, torch.tensor([1]), float('inf')), 'expected finite numbers'),
    'statistics': (
        'layers.0.blocks.0.conv_branch.1.running_var',
        lambda w: w * float('nan'),
        'expected finite numbers',
    ),
    'int8': (NAME, lambda w: (50 * w).to(torch.int8), 'expected dense floating-point numbers, got torch.int8'),
    'bool': (NAME, lambda w: w > 0, 'got torch.bool'),
    'complex': (NAME, lambda w: w + 0j, 'got torch.complex64'),
    'quantised': (NAME, lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), 'got torch.qint8'),
    'sparse': (NAME, lambda w: w.to_sparse(), 'got torch.sparse_coo'),
    'too large': (NAME, lambda w: 1e39 + w.double(), r'in the range of torch\.float32, got up to 1e\+39'),
}


@pytest.mark.parametrize('name, change, message', UNUSABLE.values(), ids=UNUSABLE.keys())
@pytest.mark.parametrize('strict', [True, False])
def test_load_checkpoint_refuses_values_that_cannot_be_weights(
    name: str, change: Callable, message: str, strict: bool
) -> None:
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    source = {**STATE, name: change(STATE[name])}
    if strict:
        with pytest.raises(CheckpointError, match=rf'1 with values .*{re.escape(name)} \(.*{message}.*; save them as'):
            load_checkpoint(model, source)
    else:
        report = load_checkpoint(model, source, strict=False)
        assert len(report.unusable) == 1 and name not in report.loaded
    for key in before if strict else [name]:
        assert torch.equal(model.state_dict()[key], before[key])


def test_load_checkpoint_refuses_what_overflows_the_model() -> None:
    with pytest.raises(CheckpointError, match=r'in the range of torch\.float16, got up to 1e\+06'):
        load_checkpoint(build().half(), {**STATE, NAME: torch.full_like(STATE[NAME], 1e6)})


@pytest.mark.parametrize('source', [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('target', [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_load_checkpoint_converts_between_precisions(source: torch.dtype, target: torch.dtype) -> None:
    model = build().to(target)
    state = {name: value.to(source) for name, value in STATE.items()}  # the count of batches, too
    report = load_checkpoint(model, state)
    assert not report.problems and report.loaded == list(STATE)
    assert torch.equal(model.state_dict()[NAME], STATE[NAME].to(source).to(target))


def test_load_checkpoint_keeps_masks_that_are_infinite() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = build()
            self.register_buffer('mask', torch.zeros(2))
            self.register_buffer('index', torch.arange(2))

    model = Masked()
    state = {**model.state_dict(), 'mask': torch.tensor([0.0, float('-inf')])}
    load_checkpoint(model, state)
    assert model.mask.tolist() == [0.0, float('-inf')]
    with pytest.raises(CheckpointError, match=r'index \(expected dense integers, got torch\.float32\)'):
        load_checkpoint(model, {**state, 'index': torch.ones(2)})


def test_load_checkpoint_refuses_a_model_without_values() -> None:
    with torch.device('meta'):
        model = build()
    with pytest.raises(ValueError, match=r'tensors on the meta device, such as patch_embed.*to_empty\(device='):
        load_checkpoint(model, STATE)
    load_checkpoint(model.to_empty(device='cpu'), STATE)
    assert torch.equal(model.state_dict()[NAME], STATE[NAME])


@pytest.mark.parametrize(
    'source, message',
    [
        (io.BytesIO(), 'got BytesIO; save it to a file'),
        (None, 'got NoneType'),
        ([STATE], 'got list'),
        (b'x.pth', 'got bytes'),
        (nn.Linear(1, 1), r'got Linear; give its state_dict\(\)'),
    ],
    ids=['file object', 'None', 'list', 'bytes', 'module'],
)
def test_load_checkpoint_says_what_it_takes(source: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f'expected the path or address of a checkpoint.*mapping.*{message}'):
        load_checkpoint(build(), source)
    with pytest.raises(TypeError, match='expected the path of a checkpoint file, got'):
        load_file(source)


FOLDERS = {
    'files': (['b.pth', 'a.safetensors', 'config.json'], r'in it: a\.safetensors, b\.pth$'),
    'nothing': (['notes.txt'], r'it has no \*\.safetensors or \*\.pth'),
    'sharded': (['model.safetensors.index.json', 'model-1.safetensors'], 'has model.safetensors.index.json.*sharded'),
    'distributed': (['.metadata', '__0_0.distcp'], r'distributed checkpoint.*format_utils dcp_to_torch '),
}


@pytest.mark.parametrize('names, message', FOLDERS.values(), ids=FOLDERS.keys())
def test_load_file_says_what_a_folder_has(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=f'^{tmp_path} is a folder, .*{message}'):
        load_file(tmp_path)


def test_load_file_says_that_a_checkpoint_is_sharded(tmp_path: Path) -> None:
    path = tmp_path / 'model.safetensors.index.json'
    path.write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    with pytest.raises(CheckpointError, match='the parts of a sharded checkpoint. Open each part'):
        load_file(path)


def test_load_file_refuses_an_empty_path() -> None:
    with pytest.raises(FileNotFoundError, match='the path is empty'):
        load_file('')
