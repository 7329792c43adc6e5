"""The blocks against straightforward compositions of PyTorch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers import (
    ES2D,
    BranchAttention,
    DropPath,
    EVSSBlock,
    InvertedResidual,
    PatchEmbed,
    PatchMerging,
    SqueezeExcite,
)
from mmevm.layers.basic import depthwise_norm


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _trained(module: nn.Module) -> nn.Module:
    """Gives batch norms statistics and weights that are not the trivial ones."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight, m.bias, m.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(m.running_var, 0.5, 2)
    return module


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_depthwise_norm_equals_convolution_then_norm(training: bool, bias: bool) -> None:
    conv, norm = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=bias), _trained(nn.BatchNorm2d(8)).train(training)
    x = torch.randn(2, 5, 6, 8, requires_grad=True)
    got, expected = depthwise_norm(x, conv, norm), _last(norm(conv(_first(x))))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    inputs = [x, conv.weight, norm.weight, norm.bias]
    seed = torch.randn_like(expected)
    for g, e in zip(*(torch.autograd.grad(y, inputs, seed) for y in (got, expected)), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    'replacement', [nn.Identity(), nn.GroupNorm(2, 8), nn.BatchNorm2d(8, track_running_stats=False)]
)
def test_depthwise_norm_takes_other_norms(replacement: nn.Module) -> None:
    conv, x = nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.randn(2, 5, 6, 8)
    expected = _last(replacement.eval()(conv(_first(x))))
    torch.testing.assert_close(depthwise_norm(x, conv, replacement), expected)


@pytest.mark.parametrize('training', [True, False])
def test_inverted_residual_equals_its_layers_in_sequence(training: bool) -> None:
    block, x = _trained(InvertedResidual(8)).train(training), torch.randn(2, 5, 6, 8)
    y = F.relu(block.conv_pw(_first(x)))
    y = F.relu(block.conv_dw(y))
    gate = y.mean((2, 3), keepdim=True)
    gate = torch.sigmoid(block.se.conv_expand(F.relu(block.se.conv_reduce(gate))))
    expected = x + _last(block.conv_pw2(y * gate))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('training', [True, False])
def test_evss_block_equals_its_layers_in_sequence(training: bool) -> None:
    block, x = _trained(EVSSBlock(16)).train(training), torch.randn(2, 6, 5, 16)
    y = block.norm(x)
    mixed, local = block.op(y), _last(block.conv_branch(_first(y)))
    expected = x + mixed * block.se(mixed) + local * block.se(local)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_evss_block_drops_whole_samples() -> None:
    block, x = EVSSBlock(16, drop_path=0.5).train(), torch.randn(64, 4, 4, 16)
    dropped = (block(x) == x).flatten(1).all(1)
    assert 10 < dropped.sum() < 54


def test_es2d_gives_the_same_with_and_without_gradients() -> None:
    mixer, x = ES2D(16), torch.randn(2, 7, 6, 16)
    before = x.clone()
    with torch.no_grad():
        reused = mixer(x)
    torch.testing.assert_close(reused, mixer(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize('step_size', [2, 3])
def test_es2d_projects_each_cell_by_its_phase(step_size: int) -> None:
    mixer, x = ES2D(16, step_size), torch.randn(2, 7, 6, 32)
    nn.init.normal_(mixer.x_proj_weight)
    got = mixer.project(x)
    for h in range(7):
        for w in range(6):
            weight = mixer.x_proj_weight[(h % step_size) % 2 + 2 * ((w % step_size) % 2)]
            torch.testing.assert_close(got[:, h, w], x[:, h, w] @ weight.T)


@pytest.mark.parametrize('H, W', [(4, 6), (5, 6), (4, 7), (5, 5)])
def test_patch_merging_orders_channels_as_the_checkpoints_do(H: int, W: int) -> None:
    merge, x = PatchMerging(4), torch.randn(2, H, W, 4)
    padded = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
    parts = [padded[:, r::2, c::2] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))]
    torch.testing.assert_close(merge(x), merge.reduction(merge.norm(torch.cat(parts, -1))))


def test_patch_embed_convolves_and_normalises() -> None:
    embed, x = PatchEmbed(3, 8), torch.randn(2, 3, 17, 30)
    got = embed(x)
    assert got.shape == (2, 4, 7, 8)
    torch.testing.assert_close(got, embed.norm(_last(embed.proj(x))), rtol=1e-4, atol=1e-5)


def test_branch_attention_gates_by_the_normalised_mean() -> None:
    attention, x = BranchAttention(16), torch.randn(2, 3, 5, 16)
    squeezed = F.layer_norm(x, (16,)).mean((1, 2))
    expected = torch.sigmoid(attention.channel_select(F.gelu(attention.global_reduce(squeezed))))
    torch.testing.assert_close(attention(x)[:, 0, 0], expected)


def test_squeeze_excite_scales_channels() -> None:
    attention, x = SqueezeExcite(8, 2), torch.randn(2, 3, 5, 8)
    ratio = attention(x) / x
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert 0 < ratio.min() < ratio.max() < 1


def test_drop_path_keeps_the_expectation() -> None:
    drop, x = DropPath(0.25).train(), torch.ones(4000, 1)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)
