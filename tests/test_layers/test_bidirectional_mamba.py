import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmevm.layers import BidirectionalMamba, RMSNorm
from mmevm.layers.vim import causal_conv
from mmevm.ops import selective_scan


def _plain_direction(mixer: BidirectionalMamba, x: Tensor, z: Tensor, suffix: str) -> Tensor:
    """One direction as Mamba defines it, token by token. Args: x, z (Tensor[B, D, L]). Returns: Tensor[B, D, L]."""
    part = {name: getattr(mixer, f'{name}{suffix}') for name in ('conv1d', 'x_proj', 'dt_proj', 'D')}
    A_log = mixer.A_b_log if suffix else mixer.A_log
    conv = part['conv1d']
    u = F.silu(F.conv1d(F.pad(x, (3, 0)), conv.weight, conv.bias, groups=conv.groups))
    sizes = [part['dt_proj'].in_features, A_log.shape[1], A_log.shape[1]]
    rank, Bs, Cs = part['x_proj'](u.mT).mT.split(sizes, dim=1)
    delta = part['dt_proj'].weight @ rank
    return selective_scan(
        u,
        delta,
        -A_log.exp(),
        Bs,
        Cs,
        part['D'],
        z=z,
        delta_bias=part['dt_proj'].bias,
        delta_softplus=True,
        backend='reference',
    )


def _plain_mixer(mixer: BidirectionalMamba, x: Tensor) -> Tensor:
    """The mixer with its sequence reversed in memory. Args: x (Tensor[B, L, C]). Returns: Tensor[B, L, C]."""
    u, z = mixer.in_proj(x).mT.chunk(2, dim=1)
    y = _plain_direction(mixer, u, z, '') + _plain_direction(mixer, u.flip(-1), z.flip(-1), '_b').flip(-1)
    return mixer.out_proj(y.mT / 2)


@pytest.mark.parametrize('length', [1, 2, 3, 17, 64])
def test_bidirectional_mamba_equals_its_definition(length: int) -> None:
    mixer = BidirectionalMamba(24).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, results = torch.randn(2, length, 24, dtype=torch.float64), []
    weight = torch.randn_like(x)
    for function in (mixer, lambda tokens: _plain_mixer(mixer, tokens)):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        grads = torch.autograd.grad((y * weight).sum(), [leaf, *mixer.parameters()])
        results.append([y, *grads])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('reverse', [False, True])
def test_causal_conv_sees_one_side_alone(reverse: bool) -> None:
    conv, x = nn.Conv1d(5, 5, 4, groups=5), torch.randn(1, 1, 9, 5, requires_grad=True)
    causal_conv(x, conv, reverse)[0, 0, 4].sum().backward()
    seen = x.grad[0, 0].abs().sum(-1).nonzero().flatten().tolist()
    assert seen == ([4, 5, 6, 7] if reverse else [1, 2, 3, 4])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_rms_norm_works_in_float32_at_least(dtype: torch.dtype) -> None:
    norm, x = RMSNorm(16), torch.randn(2, 3, 16) * 1e4
    nn.init.normal_(norm.weight)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    got = norm.to(dtype)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
