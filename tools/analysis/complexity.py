"""Parameters, FLOPs and activations: ``python tools/analysis/complexity.py CONFIG… | --table``.

The rules are fvcore's (its port is ``mmengine.analysis``), which the published tables use: one multiply-add is one
FLOP; convolutions, matrix products, norms, bilinear resizing and adaptive pooling count, activation functions and
element-wise sums do not. ``mmevm.ops.flops`` has the rules of the scans.

The model runs on the meta device if possible, with shapes only, so that any image size takes seconds and no memory.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import inspect
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the package tools
try:
    import torch
    from torch import Tensor, nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from mmevm.engine.config import read_config
    from mmevm.engine.tasks import build_model
    from mmevm.errors import UsageError, exit_status
    from mmevm.ops import extension
    from mmevm.registry import scope_of
    from tools.analysis.reproduction import configs, reproduction
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / '_interpreter.py'))['stop'](error)

SIZES = {'mmdet': (800, 1280), 'mmseg': (512, 2048), 'mmpretrain': (224, 224)}
"""Height and width, in pixels, by a config's ``default_scope``."""

_PROPOSALS, _MASKS = 1000, 100
_aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Complexity:
    """The cost of a forward pass.

    Attributes:
        params (int): Parameters.
        flops (int): Multiply-adds, and what else the module's rules count.
        activations (int): Elements that convolutions, matrix products and scans write.
        idle (tuple[str, ...]): Parts of a model whose parameters are counted and which did not run.
    """

    params: int
    flops: int
    activations: int
    idle: tuple[str, ...] = ()


def _norm(per_element: int, affine: int) -> Callable[..., int]:
    """Return a norm's rule: ``per_element`` for statistics and scaling, one more if argument ``affine`` is given."""
    return lambda args, out: args[0].numel() * (per_element + (args[affine] is not None))


_ELEMENTWISE: dict[Any, Callable[[tuple, Any], int]] = {
    _aten.native_layer_norm: _norm(4, affine=2),
    _aten.native_group_norm: _norm(4, affine=1),
    # Evaluation mode: the statistics are given.
    _aten.native_batch_norm: _norm(1, affine=1),
    _aten._native_batch_norm_legit_no_training: _norm(1, affine=1),
    _aten.upsample_bilinear2d: lambda args, out: 4 * out.numel(),
    _aten._adaptive_avg_pool2d: lambda args, out: args[0].numel(),
}


# Not FlopCounterMode: it has no activations, and its module hooks disable the folding of batch norms that is counted.
class _Counter(TorchDispatchMode):
    """Sums the cost of every operator that runs inside."""

    flops = 0
    activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if func.namespace == 'aten' and packet.__name__.endswith('_'):  # writes into its first argument
            packet = getattr(_aten, packet.__name__.removesuffix('_'), packet)
        if packet in _ELEMENTWISE:
            self.flops += _ELEMENTWISE[packet](args, out)
        elif packet in flop_registry:
            # PyTorch's formulas count a multiply-add twice.
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
            self.activations += (out[0] if isinstance(out, tuple) else out).numel()
        return out


def require_extension() -> None:
    """Raise a RuntimeError without the compiled extension: the reference would be counted by its parts."""
    if 'meta' not in extension.DEVICES:
        raise RuntimeError(f'Counting needs the compiled extension, whose scan is one operator: {extension.LOAD_ERROR}')


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    """Make attention run as matrix products; the fused operators of inference have no formula."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def count(
    module: nn.Module, *shapes: tuple[int, ...], run: Callable[..., Any] | None = None, device: str = 'meta'
) -> Complexity:
    """Count one forward pass in evaluation mode.

    Args:
        module (nn.Module): Takes float32 tensors; it is not changed.
        *shapes (tuple[int, ...]): Shapes of its inputs.
        run (Callable, optional): Called with a copy of the module on ``device`` and with the inputs, instead of the
            module's own ``forward``.
        device (str): 'meta', or 'cpu' for a module whose forward pass depends on values; the count is the same.

    Returns:
        Complexity: The parameters of ``module``, and the cost of the pass.

    Raises:
        RuntimeError: If the compiled extension is absent.
    """
    require_extension()
    clone = copy.deepcopy(module).to(device).eval().requires_grad_(False)
    # With gradients disabled, what is counted by its parts would be fused on a CPU.
    with torch.enable_grad(), torch.device(device), _unfused_attention(), _Counter() as counter:
        (run or type(clone).__call__)(clone, *map(torch.zeros, shapes))
    return Complexity(sum(p.numel() for p in module.parameters()), counter.flops, counter.activations)


# Where a model is built and where it runs. Some cannot be built without values; others, such as those with deformable
# attention, need them to run, and take as long as they do. What they raise without is among these.
_DEVICES = (('meta', 'meta'), ('cpu', 'meta'), ('cpu', 'cpu'))
_LACKS_VALUES = (RuntimeError, NotImplementedError, TypeError)


def measure(cfg: Any, size: tuple[int, int] | None = None) -> Complexity:
    """Count one image's forward pass through a config's model, without post-processing.

    The heads of two-stage detectors are counted for 1000 proposals, in each stage of a cascade, and 100 masks, as
    MMDetection's own tool does once the proposal stage finds that many, whatever the random weights would propose.
    Auxiliary heads, which only training uses, count as parameters but not as FLOPs.

    Args:
        cfg (Config): A config of mmdet, mmseg or mmpretrain.
        size (tuple[int, int], optional): Height and width; by default the one in :data:`SIZES`.

    Returns:
        Complexity: For one image of as many channels as ``model.backbone.in_channels`` says, otherwise 3.

    Raises:
        ValueError: If the config is of another library, or its model has no forward pass that can be counted.
        RuntimeError: If the compiled extension is absent.
    """
    scope = scope_of(cfg)
    if scope not in SIZES:
        raise ValueError(f'`default_scope` must be one of {", ".join(SIZES)}, got {scope!r}')
    require_extension()
    run = {'mmdet': _detect, 'mmseg': _segment, 'mmpretrain': _classify}[scope]
    shape = (1, _channels(cfg.model), *(size or SIZES[scope]))
    idle: list[tuple[str, ...]] = []
    for built, device in _DEVICES:
        try:
            cost = count(
                build_model(cfg, built), shape, run=lambda *io: idle.append(_run_and_find_idle(run, *io)), device=device
            )
            return dataclasses.replace(cost, idle=idle[-1])
        except _LACKS_VALUES as error:
            problem: Exception = error
        except Exception as error:
            problem = error
            break
    reason = str(problem).strip().partition('\n')[0]
    raise ValueError(f'the model cannot be counted, {type(problem).__name__}: {reason}') from problem


def _run_and_find_idle(run: Callable[[nn.Module, Tensor], None], model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Run a forward pass; return the parts that did not run, except auxiliary heads and parts without parameters."""
    ran = set()
    # Hooks inside the backbone would disable the folding of its batch norms, which is counted.
    inside = set(model.backbone.modules()) - {model.backbone} if hasattr(model, 'backbone') else set()
    for module in set(model.modules()) - inside:
        module.register_forward_hook(lambda module, *_: ran.add(module))
    run(model, images)
    parts = dict(model.named_children())
    if 'roi_head' in parts:
        parts |= {f'roi_head.{name}': part for name, part in parts.pop('roi_head').named_children()}
    return tuple(
        name
        for name, part in parts.items()
        if name != 'auxiliary_head' and _can_run(part) and ran.isdisjoint(part.modules())
    )


def _can_run(part: nn.Module) -> bool:
    """Return whether a part has parameters, other than embeddings, whose weights models read without calling them."""
    modules = (module for module in part.modules() if not isinstance(module, nn.Embedding))
    return any(True for module in modules for _ in module.parameters(recurse=False))


def _channels(model: Any) -> int:
    backbone = model.get('backbone') or {}
    channels = backbone.get('in_channels', backbone.get('in_chans'))
    return channels if isinstance(channels, int) else 3


def _metainfo(images: Tensor) -> dict[str, Any]:
    size = tuple(images.shape[2:])
    return dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))


def _classify(model: nn.Module, images: Tensor) -> None:
    model(images, mode='tensor')


def _segment(model: nn.Module, images: Tensor) -> None:
    from mmseg.structures import SegDataSample

    head = model.decode_head
    # Heads that predict masks need the size of the image.
    if isinstance(head, nn.Module) and 'batch_data_samples' in inspect.signature(head.forward).parameters:
        head(model.extract_feat(images), [SegDataSample(metainfo=_metainfo(images))])
    else:
        model(images, mode='tensor')


def _detect(model: nn.Module, images: Tensor) -> None:
    from mmdet.structures import DetDataSample

    samples = [DetDataSample(metainfo=_metainfo(images))]
    if hasattr(model, 'roi_head'):
        _detect_in_two_stages(model, images, samples)
    elif any(name.endswith('.roi_head') for name, _ in model.named_modules()):
        raise LookupError(f'{type(model).__name__} wraps a two-stage detector; count the config of that one')
    else:
        model(images, samples, mode='tensor')


def _detect_in_two_stages(model: nn.Module, images: Tensor, samples: list) -> None:
    """Run the second stage on as many regions as are counted, with arbitrary boxes."""
    from mmdet.models.roi_heads import CascadeRoIHead, SparseRoIHead, StandardRoIHead

    heads, kinds = model.roi_head, (StandardRoIHead, CascadeRoIHead)
    kind = next((kind for kind in kinds if type(heads).forward is kind.forward), None)
    learned = isinstance(heads, SparseRoIHead) and not heads.with_mask
    if kind is None and not learned:
        raise LookupError(f'there is no rule for the regions of {type(heads).__name__}')
    _skip_extraction(heads)
    maps = model.extract_feat(images)
    if learned:  # has as many regions as it has learned
        heads.predict(maps, model.rpn_head.predict(maps, samples), samples)
        return
    for name in ('rpn_head', 'semantic_head'):
        if hasattr(model, name):
            getattr(model, name)(maps)
    regions = maps[0].new_zeros(_PROPOSALS, 5)
    for stage in range(heads.num_stages) if kind is CascadeRoIHead else [None]:
        which = () if stage is None else (stage,)
        heads._bbox_forward(*which, maps, regions)
        if heads.with_mask:
            heads._mask_forward(*which, maps, regions[:_MASKS])


def _skip_extraction(heads: nn.Module) -> None:
    """Replace RoIAlign, which has no parameters, by zeros of its output's shape."""

    def zeros(self: nn.Module, maps: tuple[Tensor, ...], regions: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return maps[0].new_zeros(len(regions), self.out_channels, *self.roi_layers[0].output_size)

    for module in heads.modules():
        if hasattr(module, 'roi_layers'):
            if any(True for _ in module.parameters()):
                raise LookupError(f'there is no rule for {type(module).__name__}')
            module.forward = MethodType(zeros, module)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; None means the process's own."""
    parser = argparse.ArgumentParser(
        description='Count the parameters, FLOPs and activations of configs for one image of the size that the '
        'published tables use: 224 x 224 for classification, 1280 x 800 for detection, 2048 x 512 for segmentation. '
        'One multiply-add is one FLOP; this file says what else counts. Models whose shapes depend on values, such as '
        'DINO, run on the CPU for it, which can take a minute.'
    )
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='another image size')
    parser.add_argument(
        '--table',
        nargs='?',
        const=ROOT / 'docs/reproduction.md',
        type=Path,
        metavar='FILE',
        help='write the comparison with the published tables (default: docs/reproduction.md)',
    )
    args = parser.parse_args(argv)
    if not args.configs and not args.table:
        parser.error('name a config, or give --table')
    if args.table and (args.configs or args.size):
        parser.error("--table measures its own configs at the tables' sizes; leave configs and --size out")
    return args


def print_costs(paths: Sequence[str], size: Sequence[int] | None) -> None:
    """Print a row for each config."""
    print(f'{"config":44s} {"height x width":>14s} {"params, M":>10s} {"FLOPs, G":>10s} {"activations, M":>15s}')
    for path in paths:
        cfg = read_config(path)
        shape = tuple(size) if size else SIZES.get(scope_of(cfg))
        try:
            cost = measure(cfg, shape)
        except (ValueError, RuntimeError) as error:
            raise UsageError(f'{path}: {error}') from error
        print(
            f'{Path(path).stem:44s} {f"{shape[0]} x {shape[1]}":>14s} {cost.params / 1e6:10.3f} '
            f'{cost.flops / 1e9:10.3f} {cost.activations / 1e6:15.1f}'
        )
        if cost.idle:
            print(f'  only the parameters of {", ".join(cost.idle)} count; this forward pass does not run them')


def write_table(path: Path) -> None:
    """Measure every config that a published table has a row for, and write the comparison to ``path``."""
    measured = {name: measure(read_config(ROOT / f'configs/{name}.py'), size) for name, size in configs().items()}
    path.write_text(reproduction(measured), encoding='utf-8')
    print(f'{len(measured)} configs measured: {path}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: write_table(args.table) if args.table else print_costs(args.configs, args.size))


if __name__ == '__main__':
    raise SystemExit(main())
