"""The cost of a config's model at the image size at which the paper's tables state it."""

import dataclasses
import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, nn

from mmevm.analysis.complexity import Complexity, count, require_extension
from mmevm.engine.tasks import build_model
from mmevm.registry import scope_of

SIZES = {'mmdet': (800, 1280), 'mmseg': (512, 2048), 'mmpretrain': (224, 224)}
"""Height and width, in pixels, by a config's ``default_scope``."""

_PROPOSALS = 1000
_MASKS = 100

# Where a model is built and where it runs. Some cannot be built without values; others, such as those with deformable
# attention, need them to run, and take as long as they do. What they raise without is among these.
_DEVICES = (('meta', 'meta'), ('cpu', 'meta'), ('cpu', 'cpu'))
_LACKS_VALUES = (RuntimeError, NotImplementedError, TypeError)


def measure(cfg: Any, size: tuple[int, int] | None = None) -> Complexity:
    """Counts one image's forward pass through a config's model, post-processing left out.

    The heads of two-stage detectors are counted for 1000 proposals, in each stage of a cascade, and 100 masks, as
    MMDetection's own tool does once the proposal stage finds that many, whatever the random weights would propose.
    Auxiliary heads, which only training uses, count among the parameters alone.

    Args:
        cfg (Config): A config of mmdet, mmseg or mmpretrain.
        size (tuple[int, int], optional): Height and width; by default the one in :data:`SIZES`.

    Returns:
        Complexity: For one image of as many channels as ``model.backbone.in_channels`` says, otherwise 3.

    Raises:
        ValueError: If the config is of another library, or its model has no forward pass that can be counted.
        RuntimeError: As :func:`mmevm.analysis.complexity.count`.
    """
    scope = scope_of(cfg)
    if scope not in SIZES:
        raise ValueError(f'`default_scope` must be one of {", ".join(SIZES)}, got {scope!r}')
    require_extension()
    run = {'mmdet': _detect, 'mmseg': _segment, 'mmpretrain': _classify}[scope]
    shape = (1, _channels(cfg.model), *(size or SIZES[scope]))
    for built, device in _DEVICES:
        part = _Parts(run)
        try:
            cost = count(build_model(cfg, built), shape, run=part, device=device)
            return dataclasses.replace(cost, idle=part.idle)
        except _LACKS_VALUES as error:
            problem = error
        except Exception as error:
            problem = error
            break
    lines = str(problem).strip().splitlines() or ['']
    raise ValueError(f'the model cannot be counted, {type(problem).__name__}: {lines[0]}') from problem


class _Parts:
    """A forward pass that notes which parts of the model ran in it.

    Args:
        run (Callable): Called with the model and images.

    Attributes:
        idle (tuple[str, ...]): The parts that did not run, but for auxiliary heads and what has no parameters.
    """

    def __init__(self, run: Callable[[nn.Module, Tensor], None]) -> None:
        self.run = run
        self.idle: tuple[str, ...] = ()

    def __call__(self, model: nn.Module, images: Tensor) -> None:
        ran = set()
        # Watched, our blocks would do without their shortcuts, which count.
        inside = set(model.backbone.modules()) - {model.backbone} if hasattr(model, 'backbone') else set()
        for module in set(model.modules()) - inside:
            module.register_forward_hook(lambda module, *_: ran.add(module))
        self.run(model, images)
        parts = dict(model.named_children())
        if 'roi_head' in parts:
            parts |= {f'roi_head.{name}': part for name, part in parts.pop('roi_head').named_children()}
        self.idle = tuple(
            name
            for name, part in parts.items()
            if name != 'auxiliary_head' and _can_run(part) and ran.isdisjoint(part.modules())
        )


def _can_run(part: nn.Module) -> bool:
    """Whether a part has parameters, other than embeddings, whose weights models read without calling them."""
    modules = (module for module in part.modules() if not isinstance(module, nn.Embedding))
    return any(True for module in modules for _ in module.parameters(recurse=False))


def _channels(model: Any) -> int:
    backbone = model.get('backbone') or {}
    channels = backbone.get('in_channels', backbone.get('in_chans', 3))
    return channels if isinstance(channels, int) else 3


def _classify(model: nn.Module, images: Tensor) -> None:
    model(images, mode='tensor')


def _segment(model: nn.Module, images: Tensor) -> None:
    from mmseg.structures import SegDataSample

    head = model.decode_head
    # Heads that predict masks ask for the size of the image.
    if isinstance(head, nn.Module) and 'batch_data_samples' in inspect.signature(head.forward).parameters:
        head(model.extract_feat(images), [SegDataSample(metainfo=_metainfo(images))])
    else:
        model(images, mode='tensor')


def _metainfo(images: Tensor) -> dict[str, Any]:
    size = tuple(images.shape[2:])
    names = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return {'scale_factor': (1.0, 1.0), **dict.fromkeys(names, size)}


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
    """Runs the second stage on as many regions as are counted, whatever they are."""
    from mmdet.models.roi_heads import CascadeRoIHead, SparseRoIHead, StandardRoIHead

    heads = model.roi_head
    kind = next((kind for kind in (StandardRoIHead, CascadeRoIHead) if type(heads).forward is kind.forward), None)
    learned = isinstance(heads, SparseRoIHead) and not heads.with_mask
    if kind is None and not learned:
        raise LookupError(f'there is no rule for the regions of {type(heads).__name__}')
    _leave_extraction_out(heads)
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


def _leave_extraction_out(heads: nn.Module) -> None:
    """RoIAlign has no rule: it interpolates, and multiplies nothing that is learned."""
    for module in heads.modules():
        if hasattr(module, 'roi_layers'):
            if any(True for _ in module.parameters()):
                raise LookupError(f'there is no rule for {type(module).__name__}')
            module.forward = MethodType(_extract_nothing, module)


def _extract_nothing(self: nn.Module, maps: tuple[Tensor, ...], regions: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The shape of what a region extractor returns."""
    return maps[0].new_zeros(len(regions), self.out_channels, *self.roi_layers[0].output_size)
