"""Layers whose weights the blocks use without calling them: hooks and replacements have their effect all the same."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from mmevm.layers import SS2D, BidirectionalMamba, EVSSBlock, InvertedResidual, VimBlock, VSSBlock

# Every family of blocks, with an input.
BLOCKS = {
    'evss': (lambda: EVSSBlock(16), (2, 5, 6, 16)),
    'inverted_residual': (lambda: InvertedResidual(16), (2, 5, 6, 16)),
    'ss2d': (lambda: SS2D(16, gate=False), (2, 5, 6, 16)),
    'mamba': (lambda: BidirectionalMamba(16), (2, 7, 16)),
    'vss': (lambda: VSSBlock(16, 1, 1.0, 4.0, gate=False, conv_bias=True), (2, 5, 6, 16)),
    'vim': (lambda: VimBlock(16), (2, 7, 16)),
}
every_block = pytest.mark.parametrize('make, shape', BLOCKS.values(), ids=BLOCKS.keys())

Make = Callable[[], nn.Module]


def _leaves(module: nn.Module, *kinds: type) -> dict[str, nn.Module]:
    return {name: part for name, part in module.named_modules() if isinstance(part, kinds)}


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition('.')
    setattr(module.get_submodule(parent), leaf, new)


@every_block
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'no_grad'])
def test_hooks_fire_on_every_layer_and_change_nothing(make: Make, shape: tuple, training: bool, grad: bool) -> None:
    block, x = make().train(training), torch.randn(shape)
    watched = copy.deepcopy(block)
    outputs = {}
    for name, layer in watched.named_modules():
        layer.register_forward_hook(lambda _, args, out, name=name: outputs.update({name: (out, out.clone())}))
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(watched(x), block(x), rtol=1e-4, atol=1e-5)
    assert set(outputs) == {name for name, _ in watched.named_modules()}
    # What a hook has kept is not written over.
    assert all(torch.equal(kept, then) for kept, then in outputs.values())


@every_block
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'no_grad'])
def test_a_hook_on_one_layer_alone_fires(make: Make, shape: tuple, training: bool, grad: bool) -> None:
    block, x = make().train(training), torch.randn(shape)
    with torch.set_grad_enabled(grad):
        expected = copy.deepcopy(block)(x)
    for name, _ in block.named_modules():
        watched, outputs = copy.deepcopy(block), []
        watched.get_submodule(name).register_forward_hook(
            lambda _, args, out, to=outputs: to.append((out, out.clone()))
        )
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(watched(x), expected, rtol=1e-4, atol=1e-5)
        assert outputs, name
        assert all(torch.equal(kept, then) for kept, then in outputs), name


@every_block
def test_hooks_of_all_modules_and_backward_hooks_fire(make: Make, shape: tuple) -> None:
    block, x = make(), torch.randn(shape, requires_grad=True)
    names = {layer: name for name, layer in block.named_modules()}
    seen, backward = set(), set()
    handle = nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.add(names[layer]))
    try:
        block(x)
    finally:
        handle.remove()
    for layer in names:
        layer.register_full_backward_hook(lambda layer, *_: backward.add(names[layer]))
    block(x).sum().backward()
    assert seen == backward == set(names.values())


class _Adapter(nn.Module):
    """LoRA as the libraries write it: the frozen layer plus a low-rank product, and no ``weight`` of its own."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.original_layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.original_layer(x) + self.up(self.down(x))


@every_block
def test_adapters_of_linear_layers_act_as_their_merged_weights(make: Make, shape: tuple) -> None:
    block, x = make().eval(), torch.randn(shape)
    merged = copy.deepcopy(block)
    for name, layer in _leaves(block, nn.Linear).items():
        adapter = _Adapter(layer)
        merged.get_submodule(name).weight.data += adapter.up.weight @ adapter.down.weight
        _replace(block, name, adapter)
    y = block(x)
    torch.testing.assert_close(y, merged(x), rtol=1e-4, atol=1e-5)
    y.sum().backward()
    adapters = _leaves(block, _Adapter)
    assert all(adapter.up.weight.grad.abs().max() > 0 for adapter in adapters.values())


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@every_block
def test_parametrized_and_pruned_weights_are_used(make: Make, shape: tuple) -> None:
    block, x = make().eval(), torch.randn(shape)
    expected = copy.deepcopy(block)
    for name, layer in _leaves(block, nn.Linear, nn.Conv1d, nn.Conv2d).items():
        plain = expected.get_submodule(name).weight.data
        if plain.dim() == 2:
            plain *= 2
            parametrize.register_parametrization(layer, 'weight', _Doubled())
        else:
            mask = torch.rand_like(plain) > 0.5
            plain *= mask
            prune.custom_from_mask(layer, 'weight', mask)
    torch.testing.assert_close(block(x), expected(x), rtol=1e-4, atol=1e-5)
    # Pruned weights follow what is trained.
    with torch.no_grad():
        for layer in _leaves(block, nn.Conv1d, nn.Conv2d).values():
            layer.weight_orig.mul_(3)
        for name in _leaves(block, nn.Conv1d, nn.Conv2d):
            expected.get_submodule(name).weight.mul_(3)
    torch.testing.assert_close(block(x), expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['evss', 'ss2d', 'mamba'])
def test_dynamic_quantization_replaces_linear_layers(name: str) -> None:
    make, shape = BLOCKS[name]
    block, x = make().eval(), torch.randn(shape)
    quantized = torch.ao.quantization.quantize_dynamic(block, {nn.Linear})
    assert not _leaves(quantized, nn.Linear)
    with torch.no_grad():
        y, expected = quantized(x), block(x)
    assert 0 < (y - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_bias_in_the_input_projection_counts() -> None:
    for make in (lambda: SS2D(8), lambda: BidirectionalMamba(8)):
        block = make().eval()
        x = torch.randn(1, 3, 4, 8) if isinstance(block, SS2D) else torch.randn(1, 5, 8)
        before = block(x)
        biased = nn.Linear(8, block.in_proj.out_features)
        biased.weight = block.in_proj.weight
        block.in_proj = biased
        changed = block(x)
        assert not torch.allclose(changed, before)
        block.in_proj.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(block(x), changed)


class Doubled(SS2D):
    """A user's mixer, which knows nothing of what a block may add in the mixer's last product."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@torch.inference_mode()
def test_blocks_add_residuals_to_mixers_of_other_classes_themselves() -> None:
    block, x = VSSBlock(16, 1, 1.0, 0.0, gate=False, conv_bias=True).eval(), torch.randn(2, 5, 6, 16)
    branch = block(x) - x
    block.op.__class__ = Doubled
    torch.testing.assert_close(block(x), x + 2 * branch)
