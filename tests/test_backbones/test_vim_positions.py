"""Vim's position embedding between image sizes: the file's own grid is interpolated, or the load is refused."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import load_checkpoint as mmengine_load
from mmengine.runner.checkpoint import save_checkpoint, weights_to_cpu
from torch import Tensor, nn

from mmevm.backbones import Vim
from mmevm.checkpoint import CheckpointError, fit_checkpoint, formats, load_checkpoint, report
from mmevm.checkpoint.identify import identify
from mmevm.zoo import convert

State = dict[str, Tensor]
Size = tuple[int, int]
ARCH = {'dims': [8], 'depths': [1]}


def vim(size: int | Size, **options: Any) -> Vim:
    return Vim(ARCH, img_size=size, **options).eval()


def without_grid(state: State) -> State:
    """As upstream and earlier versions of mmevm wrote it."""
    return {name: value for name, value in state.items() if name != 'pos_grid'}


def interpolated(embedding: Tensor, grid: Size, new_grid: Size) -> Tensor:
    """The patches of a grid interpolated, the class token in the middle of the new ones."""
    n = grid[0] * grid[1]
    order = [i for i in range(n + 1) if i != n // 2]
    patches = embedding[0, order].T.reshape(1, -1, *grid)
    patches = F.interpolate(patches, size=new_grid, mode='bicubic', align_corners=False).flatten(2).mT[0]
    middle = len(patches) // 2
    return torch.cat([patches[:middle], embedding[0, n // 2][None], patches[middle:]])[None]


SIZES: dict[str, tuple[Size, Size]] = {
    'larger': ((256, 1024), (512, 2048)),
    'smaller': ((512, 2048), (256, 1024)),
    'another width': ((512, 1024), (640, 1280)),
    'square to rectangle of as many patches': ((512, 512), (256, 1024)),
    'rectangle to square of as many patches': ((256, 1024), (512, 512)),
    'upright': ((256, 512), (512, 256)),
    'one row': ((16, 512), (16, 200)),
    'one row to square': ((16, 256), (64, 64)),
    'no multiples of the stride': ((200, 330), (101, 95)),
}


@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES.keys())
def test_vim_interpolates_the_grid_of_the_file(sizes: tuple[Size, Size]) -> None:
    saved, model, by_torch = vim(sizes[0]), vim(sizes[1]), vim(sizes[1])
    report = load_checkpoint(model, saved.state_dict())
    by_torch.load_state_dict(saved.state_dict())
    expected = interpolated(saved.pos_embed, saved.grid, model.grid)
    assert report.resampled == ['pos_embed'] and report.adapted == []
    for loaded in (model, by_torch):
        torch.testing.assert_close(loaded.pos_embed, expected)
        assert loaded.pos_grid.tolist() == list(loaded.grid)  # its own, for the next file


@pytest.mark.parametrize('size, strides', [((64, 128), (16, 8)), ((64, 128), (8, 16)), ((33, 70), (16, 7))])
def test_vim_interpolates_the_grid_of_another_stride(size: Size, strides: tuple[int, int]) -> None:
    saved, model = (vim(size, patch_stride=stride) for stride in strides)
    load_checkpoint(model, saved.state_dict())
    torch.testing.assert_close(model.pos_embed, interpolated(saved.pos_embed, saved.grid, model.grid))


def test_vim_sees_after_loading_what_the_saved_one_sees_in_larger_images() -> None:
    saved, model, images = vim((32, 128)), vim((64, 256)), torch.randn(1, 3, 64, 256)
    load_checkpoint(model, saved.state_dict())
    torch.testing.assert_close(model(images)[0], saved(images)[0])


def by_init_cfg(source: Path, size: Size) -> Vim:
    model = vim(size, init_cfg={'type': 'Pretrained', 'checkpoint': str(source)})
    model.init_weights()
    return model


def by_mmengine(source: Path, size: Size) -> Vim:
    model = vim(size)
    mmengine_load(model, str(source))
    return model


def by_torch_in_a_detector(source: Path, size: Size) -> Vim:
    model = nn.ModuleDict({'backbone': vim(size)})
    content = torch.load(source, weights_only=True)['state_dict']
    model.load_state_dict({f'backbone.{name}': value for name, value in formats.strip_prefix(content).items()})
    return model['backbone']


def by_load_checkpoint(source: Path, size: Size) -> Vim:
    model = vim(size)
    load_checkpoint(model, source)
    return model


def averaged(model: Vim) -> State:
    average = ExponentialMovingAverage(model, momentum=0.1, update_buffers=True)
    for _ in range(3):
        average.update_parameters(model)
    return average.module.state_dict()


WRITERS: dict[str, Callable[[Vim], State]] = {
    'state_dict': lambda m: m.state_dict(),
    'copies': lambda m: dict(copy.deepcopy(m).state_dict()),
    'of parallel processes': lambda m: {f'module.{name}': value for name, value in m.state_dict().items()},
    'half precision': lambda m: copy.deepcopy(m).half().state_dict(),
    'moving average': averaged,
    'of mmengine': lambda m: weights_to_cpu(m.state_dict()),
}
READERS = {
    'load_checkpoint': by_load_checkpoint,
    'init_cfg': by_init_cfg,
    'mmengine': by_mmengine,
    'a detector': by_torch_in_a_detector,
}


@pytest.mark.parametrize('write', WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.parametrize('read', READERS.values(), ids=READERS.keys())
def test_vims_grid_survives(write: Callable, read: Callable, tmp_path: Path) -> None:
    saved = vim((32, 128))
    save_checkpoint({'state_dict': write(saved), 'meta': {}}, str(tmp_path / 'vim.pth'))
    model = read(tmp_path / 'vim.pth', (64, 256))
    tolerance = {'atol': 1e-4, 'rtol': 1e-3} if write is WRITERS['half precision'] else {'atol': 1e-6, 'rtol': 1e-5}
    torch.testing.assert_close(model.pos_embed, interpolated(saved.pos_embed, (2, 8), (4, 16)), **tolerance)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_vims_grid_survives_conversion_but_not_into_upstreams_layout(suffix: str, tmp_path: Path) -> None:
    saved, model = vim((32, 128)), vim((64, 256))
    torch.save(saved.state_dict(), tmp_path / 'saved.pth')
    ours, upstreams = tmp_path / f'ours{suffix}', tmp_path / f'upstreams{suffix}'
    assert convert(tmp_path / 'saved.pth', ours).dropped == []
    load_checkpoint(model, ours)
    torch.testing.assert_close(model.pos_embed, interpolated(saved.pos_embed, (2, 8), (4, 16)))
    report = convert(ours, upstreams, layout='upstream')
    assert report.dropped == ['pos_grid'] and report.tensors == len(saved.state_dict()) - 1
    with pytest.raises(CheckpointError, match='may be 4 x 4 or 2 x 8 or 8 x 2'):
        load_checkpoint(model, upstreams)


# Patches of a file without a grid, the model's images, and what the patches are taken for.
CERTAIN: dict[str, tuple[int, int | Size, int]] = {
    "upstream's": (196, 224, 14),
    "upstream's for larger images": (196, 512, 14),
    "upstream's for rectangles": (196, (512, 1024), 14),
    "upstream's for rectangles of which it has a multiple": (196, (256, 1024), 14),
    "upstream's of stride 8": (729, (320, 1280), 27),
    'square for squares': (1024, 64, 32),
    'square for a row': (16, (16, 512), 4),
    'one patch': (1, (16, 16), 1),
}


@pytest.mark.parametrize('patches, size, side', CERTAIN.values(), ids=CERTAIN.keys())
def test_vim_takes_files_without_a_grid_for_square_ones(patches: int, size: int | Size, side: int) -> None:
    model, by_torch = vim(size), vim(size)
    state = without_grid(model.state_dict()) | {'pos_embed': torch.randn(1, patches + 1, 8)}
    report = load_checkpoint(model, state)
    missing, unexpected = by_torch.load_state_dict(state)
    expected = interpolated(state['pos_embed'], (side, side), model.grid)
    assert report.problems == missing == unexpected == []
    assert len(report.loaded) == len(state)
    for loaded in (model, by_torch):
        torch.testing.assert_close(loaded.pos_embed, expected)


REFUSED: dict[str, tuple[int, int | Size, str]] = {
    'as many, square or not': (1024, (256, 1024), '1024 patches, and they may be 32 x 32 or 16 x 64 or 64 x 16 '),
    'as many, upright or not': (512, (256, 512), '512 patches, and they may be 16 x 32 or 32 x 16 '),
    'as many in one row': (32, (16, 512), '32 patches, and they may be 1 x 32 or 32 x 1 '),
    'of the same aspect ratio': (1024, (512, 2048), '1024 patches, and they may be 32 x 32 or 16 x 64 or 64 x 16 '),
    "upstream's count for as many": (196, (112, 448), '196 patches, and they may be 14 x 14 or 7 x 28 or 28 x 7 '),
    'no square for another size': (512, (320, 640), '512 patches, and they may be 16 x 32 or 32 x 16 '),
    'no square for squares': (2048, 512, '2048 patches, and they are no square '),
    'no square for another aspect ratio': (12, (64, 96), '12 patches, and they are no square '),
}


@pytest.mark.parametrize('patches, size, message', REFUSED.values(), ids=REFUSED.keys())
def test_vim_refuses_a_grid_that_it_would_have_to_guess(
    patches: int, size: int | Size, message: str, tmp_path: Path
) -> None:
    model = vim(size, init_cfg={'type': 'Pretrained', 'checkpoint': str(tmp_path / 'vim.pth')})
    before = copy.deepcopy(model.state_dict())
    state = without_grid(vim(size).state_dict()) | {'pos_embed': torch.randn(1, patches + 1, 8)}
    torch.save({'state_dict': state}, tmp_path / 'vim.pth')
    loads: list[Callable] = [
        lambda: load_checkpoint(model, state),
        lambda: model.load_state_dict(state),
        model.init_weights,
        lambda: model.load_state_dict(state, strict=False),
        lambda: mmengine_load(model, str(tmp_path / 'vim.pth')),
    ]
    for run in loads:
        with pytest.raises(CheckpointError, match=message) as caught:
            run()
        assert 'model.backbone.checkpoint_grid="(HEIGHT,WIDTH)"' in str(caught.value)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_vim_without_strict_loads_what_needs_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(report, 'print_log', lambda line, **_: lines.append(line))
    saved, model = vim((32, 64)), vim((32, 64))
    before = model.pos_embed.clone()
    load_checkpoint(model, without_grid(saved.state_dict()), strict=False)
    assert torch.equal(model.pos_embed, before) and torch.equal(model.cls_token, saved.cls_token)
    assert '8 patches, and they may be 2 x 4 or 4 x 2' in lines[-1]


@pytest.mark.parametrize('size', [(64, 256), (32, 128), (64, 64)])
def test_vim_takes_the_grid_that_it_is_told_for_files_without(size: Size, tmp_path: Path) -> None:
    saved = vim((32, 128))
    torch.save({'model': without_grid(saved.state_dict())}, tmp_path / 'vim.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'vim.pth')}
    models = [vim(size, checkpoint_grid=[2, 8], init_cfg=init_cfg) for _ in range(3)]
    load_checkpoint(models[0], tmp_path / 'vim.pth')
    models[1].init_weights()
    models[2].load_state_dict(without_grid(saved.state_dict()))
    for model in models:
        torch.testing.assert_close(model.pos_embed, interpolated(saved.pos_embed, (2, 8), model.grid))


def test_vim_believes_the_file_more_than_what_it_is_told() -> None:
    saved, model = vim((32, 128)), vim((64, 256), checkpoint_grid=(4, 4))
    load_checkpoint(model, saved.state_dict())
    torch.testing.assert_close(model.pos_embed, interpolated(saved.pos_embed, (2, 8), (4, 16)))


def test_vim_refuses_a_grid_of_other_patches_than_the_file_has() -> None:
    state = without_grid(vim(64).state_dict())
    with pytest.raises(CheckpointError, match=r'16 patches, and checkpoint_grid=\(2, 16\) of the model says 32'):
        load_checkpoint(vim((64, 256), checkpoint_grid=(2, 16)), state)


def test_vim_does_not_believe_a_grid_that_its_embedding_has_outgrown() -> None:
    state = vim(64).state_dict() | {'pos_embed': torch.randn(1, 3 * 7 + 1, 8)}
    with pytest.raises(CheckpointError, match='the file does not tell the grid of its 21 patches'):
        load_checkpoint(vim(64), state)


@pytest.mark.parametrize('grid', [(4,), (4, 0), (4, 2.5), (1, 2, 3)])
def test_vim_rejects_a_grid_that_is_none(grid: tuple) -> None:
    with pytest.raises(ValueError, match='`checkpoint_grid` must be two positive integers'):
        vim(64, checkpoint_grid=grid)


def test_vims_grid_is_in_nobodys_way() -> None:
    model = vim((32, 48))
    assert 'pos_grid' not in dict(model.named_parameters())
    assert copy.deepcopy(model).half().pos_grid.tolist() == [2, 3]
    with torch.device('meta'):
        meta = vim((32, 48))
    assert 'pos_grid' in fit_checkpoint(meta, model.state_dict())[0]
    load_checkpoint(vim((64, 64)), model.state_dict())
    meta = meta.to_empty(device='cpu')
    load_checkpoint(meta, model.state_dict())
    assert all(torch.equal(value, meta.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_variant_is_known_by_its_weights_whatever_the_images_were() -> None:
    with torch.device('meta'):
        state = Vim('small', img_size=(256, 512)).state_dict()
    assert identify(without_grid(state)) == 'Vim small'
    with pytest.raises(CheckpointError, match="it is the variant 'small'"):
        load_checkpoint(Vim('tiny'), without_grid(state))
