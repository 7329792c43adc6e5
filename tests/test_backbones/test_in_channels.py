"""Weights for RGB images in backbones for images of other channels."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import load_checkpoint as mmengine_load
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.checkpoint import CheckpointError, formats, load_checkpoint, report

KERNEL = 'patch_embed.proj.weight'
DIMS = {'dims': [16, 32], 'depths': [1, 1]}
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    'EfficientVMamba': lambda **options: EfficientVMamba(DIMS, out_indices=(0, 1), **options),
    'VMamba v0': lambda **options: VMamba(DIMS, out_indices=(0, 1), **options),
    'VMamba v2': lambda **options: VMamba({**DIMS, 'design': 'v2'}, out_indices=(0, 1), **options),
    'Vim': lambda **options: Vim({'dims': [16], 'depths': [2]}, img_size=64, **options),
}
EVERY = pytest.mark.parametrize('build', BUILDERS.values(), ids=BUILDERS.keys())


@EVERY
@pytest.mark.parametrize('channels', [1, 2, 4, 5, 6, 8, 12])
def test_a_grey_image_gives_what_it_gave_in_rgb(build: Callable, channels: int) -> None:
    rgb, other, by_torch = build().eval(), build(in_channels=channels).eval(), build(in_channels=channels).eval()
    report = load_checkpoint(other, rgb.state_dict())
    by_torch.load_state_dict(rgb.state_dict())
    assert report.adapted == [KERNEL] and report.resampled == report.problems == []
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = rgb(grey.expand(-1, 3, -1, -1))
        for model in (other, by_torch):
            for got, want in zip(model(grey.expand(-1, channels, -1, -1)), expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    for name, value in rgb.state_dict().items():
        assert name == KERNEL or torch.equal(value, other.state_dict()[name])


@EVERY
def test_the_kernels_of_more_channels_are_red_green_blue_in_turn(build: Callable) -> None:
    rgb, other = build(), build(in_channels=7)
    load_checkpoint(other, rgb.state_dict())
    red, green, blue = rgb.patch_embed.proj.weight.unbind(1)
    shares = [red / 3, green / 2, blue / 2]
    expected = torch.stack([*shares, *shares, red / 3], dim=1)
    torch.testing.assert_close(other.patch_embed.proj.weight, expected)


def by_init_cfg(build: Callable, source: Path, **options: Any) -> nn.Module:
    model = build(init_cfg={'type': 'Pretrained', 'checkpoint': str(source)}, **options)
    model.init_weights()
    return model


def by_mmengine(build: Callable, source: Path, **options: Any) -> nn.Module:
    model = build(**options)
    mmengine_load(model, str(source), strict=True)
    return model


def in_a_model(build: Callable, source: Path, **options: Any) -> nn.Module:
    model = nn.Module()
    model.backbone = build(**options)
    load_checkpoint(model, source)
    return model.backbone


READERS = {'init_cfg': by_init_cfg, 'mmengine': by_mmengine, 'a model': in_a_model}


@EVERY
@pytest.mark.parametrize('read', READERS.values(), ids=READERS.keys())
def test_every_loader_adapts_upstreams_files(build: Callable, read: Callable, tmp_path: Path) -> None:
    rgb = build()
    torch.save({'model': formats.to_upstream(rgb.state_dict())}, tmp_path / 'rgb.pth')
    model = read(build, tmp_path / 'rgb.pth', in_channels=1)
    torch.testing.assert_close(model.patch_embed.proj.weight, rgb.patch_embed.proj.weight.sum(dim=1, keepdim=True))


@pytest.mark.parametrize(
    'channels, how',
    [
        (1, 'the sum of R, G and B, shared out equally'),
        (4, 'R, G, B in turn, divided by their repetitions'),
    ],
)
def test_the_log_says_how(channels: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(report, 'print_log', lambda line, **_: lines.append(line))
    model = BUILDERS['Vim'](in_channels=channels)
    load_checkpoint(model, BUILDERS['Vim']().state_dict())
    assert f'adapted {KERNEL} (from 3 to {channels} input channels: {how})' in lines[0]


@EVERY
def test_weights_for_the_same_channels_are_taken_as_they_are(build: Callable) -> None:
    saved, model = build(in_channels=4), build(in_channels=4)
    report = load_checkpoint(model, saved.state_dict())
    assert report.adapted == []
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in saved.state_dict().items())


def loads(model: nn.Module, state: dict[str, Tensor]) -> list[Callable]:
    return [lambda: load_checkpoint(model, state), lambda: model.load_state_dict(state)]


@EVERY
@pytest.mark.parametrize('given, wanted', [(4, 3), (1, 3), (4, 1), (6, 4)])
def test_weights_for_other_channels_than_three_are_refused(build: Callable, given: int, wanted: int) -> None:
    state, model = build(in_channels=given).state_dict(), build(in_channels=wanted)
    before = copy.deepcopy(model.state_dict())
    message = rf'{KERNEL} .*for images of {given} channels, the model for {wanted}\. '
    for run in loads(model, state):
        with pytest.raises(CheckpointError, match=message):
            run()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class FourChannels(EfficientVMamba):
    """A stem that a user has put in place of ours."""

    def __init__(self) -> None:
        super().__init__(DIMS, out_indices=(0, 1))
        self.patch_embed.proj = nn.Conv2d(4, 16, 4, 4)


def test_a_stem_of_a_users_own_loads_what_it_saved() -> None:
    saved, model = FourChannels(), FourChannels()
    load_checkpoint(model, saved.state_dict())
    assert torch.equal(model.patch_embed.proj.weight, saved.patch_embed.proj.weight)
    load_checkpoint(model, BUILDERS['EfficientVMamba']().state_dict())
    assert model.patch_embed.proj.weight.shape == (16, 4, 4, 4)
