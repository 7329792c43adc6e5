"""The recipes of tests/data/recipes.txt, and what a config says about each of their columns."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
PATHS = {path.stem: path for path in sorted(CONFIGS.rglob('*.py')) if path.parent.name != '_base_'}


def read_recipes() -> dict[str, dict[str, str]]:
    """Return the rows by config; ``-`` stands for what a recipe does not have."""
    text = (Path(__file__).parent / 'data/recipes.txt').read_text(encoding='utf-8')
    header, *rows = (line.split() for line in text.splitlines() if line and not line.startswith('#'))
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def _steps(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every step of a pipeline, those inside of others too."""
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        if isinstance(item, Mapping) and 'type' in item:
            yield item
        yield from _steps(item)


def _sizes(pipeline: Any) -> str:
    """Return the sizes to which a pipeline's steps bring an image: the largest scale, then the crop."""
    scales = [step.get('scale', max(step.get('scales', [0]))) for step in _steps(pipeline) if 'Resize' in step['type']]
    crops = [step['crop_size'] for step in _steps(pipeline) if step['type'] in ('RandomCrop', 'CenterCrop')]
    sizes = [max(scales), *crops[:1]]
    return '/'.join('x'.join(map(str, size)) if isinstance(size, tuple) else str(size) for size in sizes)


def _warm_up(cfg: Config) -> str:
    """Return where the warm-up starts, and its end in epochs or iterations."""
    if not cfg.param_scheduler or cfg.param_scheduler[0].type != 'LinearLR':
        return '-'
    linear = cfg.param_scheduler[0]
    start = cfg.optim_wrapper.optimizer.lr * linear.start_factor
    return f'{start:.4g}:{linear.end}{"e" if linear.by_epoch else "i"}'


def _decay(cfg: Config) -> str:
    """Return the schedule after the warm-up, its final learning rate or milestones, and its end."""
    if not cfg.param_scheduler:
        return 'constant'
    last = cfg.param_scheduler[-1]
    kind = {'CosineAnnealingLR': 'cosine', 'MultiStepLR': 'steps', 'PolyLR': 'poly'}[last.type]
    value = ','.join(map(str, last.milestones)) if kind == 'steps' else f'{last.eta_min:g}'
    return f'{kind}:{value}:{last.end}'


def _average(cfg: Config) -> str:
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.type == 'EMAHook']
    return f'{hooks[0].momentum:g}' if hooks else '-'


_MIXING = {'CachedMosaic': 'mosaic', 'CachedMixUp': 'mixup'}


def _augments(cfg: Config) -> str:
    mixes = (cfg.model.get('train_cfg') or {}).get('augments') or []
    words = [f'{step.type.lower()}{step.alpha:g}' for step in mixes]
    smoothing = cfg.model.get('head', {}).get('loss', {}).get('label_smooth_val')
    words += [f'smooth{smoothing:g}'] if smoothing else []
    steps = innermost(cfg.train_dataloader.dataset).pipeline
    words += [f'erase{step.erase_prob:g}' for step in steps if step['type'] == 'RandomErasing' and step.mode == 'rand']
    words += [name for kind, name in _MIXING.items() if any(step['type'] == kind for step in steps)]
    words += ['repeat'] if cfg.train_dataloader.sampler.type == 'RepeatAugSampler' else []
    return '+'.join(words) or '-'


def innermost(dataset: Config) -> Config:
    """Return the settings of the dataset that reads files, inside of those that wrap it."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def _weights(cfg: Config) -> str:
    source = (cfg.model.backbone.get('init_cfg') or {}).get('checkpoint') or cfg.get('load_from') or '-'
    return source.removeprefix('mmevm://')


COLUMNS: dict[str, Callable[[Config], str]] = {
    'batch': lambda cfg: str(cfg.auto_scale_lr.base_batch_size),
    'length': lambda cfg: (
        f'{cfg.train_cfg.max_iters}i' if 'max_iters' in cfg.train_cfg else f'{cfg.train_cfg.max_epochs}e'
    ),
    'lr': lambda cfg: f'{cfg.optim_wrapper.optimizer.lr:g}',
    'decay': lambda cfg: f'{cfg.optim_wrapper.optimizer.weight_decay:g}',
    'warmup': _warm_up,
    'schedule': _decay,
    'amp': lambda cfg: 'amp' if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' else '-',
    'clip': lambda cfg: f'{(cfg.optim_wrapper.get("clip_grad") or {}).get("max_norm", "-")}',
    'ema': _average,
    'drop': lambda cfg: f'{cfg.model.backbone.get("drop_path_rate", 0):g}',
    'mix': _augments,
    'train': lambda cfg: _sizes(innermost(cfg.train_dataloader.dataset).pipeline),
    'test': lambda cfg: _sizes(cfg.test_dataloader.dataset.pipeline),
    'weights': _weights,
}
"""How each column of the table reads in a config; all but the parameters, which take a model."""
