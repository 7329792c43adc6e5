"""A config for a user's dataset: its data loaders, evaluators and class counts."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, METRICS

from mmevm.data import checks, masks, writing
from mmevm.data.class_settings import set_class_count
from mmevm.data.palette import palette
from mmevm.data.records import Split, UserData
from mmevm.engine.checks.datasets import WRAPPED, Leaf, evaluators, is_kind, is_remote, leaves, loaders, resolve
from mmevm.engine.options import parts
from mmevm.engine.runner.latest import checkpoint_hooks
from mmevm.engine.tasks import mask_part, task_of
from mmevm.errors import UsageError
from mmevm.registry import type_name

_PHASES = ('train', 'val', 'test')
#: Settings of a dataset that do not depend on its files.
_KEPT = ('pipeline', 'filter_cfg', 'test_mode', 'max_refetch', 'serialize_data', 'return_classes')
_KINDS = {
    'detection': 'boxes and polygons (COCO, YOLO or Pascal VOC)',
    'segmentation': 'images and label maps (images/ and masks/)',
    'classification': 'a folder of images for each class',
}
_OTHER_DATA = {
    'LoadPanopticAnnotations',
    'LoadTrackAnnotations',
    'LoadProposals',
    'LoadDepthAnnotation',
    'LoadMultipleRSImageFromFile',
    'PackReIDInputs',
}
#: The libraries' metrics of boxes, masks and single labels; their others need annotations that the layouts lack.
_METRICS = {
    'mmdet': 'CocoMetric VOCMetric LVISFixedAPMetric OpenImagesMetric CrowdHumanMetric CityScapesMetric '
    'CocoPanopticMetric SemSegMetric DumpProposals DumpDetResults DumpODVGResults',
    'mmpretrain': 'Accuracy SingleLabelMetric ConfusionMatrix',
}


def require_task(cfg: Any, config: str) -> str:
    """Return the kind of dataset that a config is trained on.

    Raises:
        UsageError: It is of another library, or is trained on something else than images with classes.
    """
    kind = task_of(cfg).data
    if not kind:
        raise UsageError(
            '--data needs a config of mmdet, mmseg or mmpretrain, '
            f'got {config} with default_scope {task_of(cfg).library}.'
        )
    for key, step in parts(_loader_settings(cfg), ''):
        if type_name(step) in _OTHER_DATA or (kind == 'detection' and step.get('with_seg')):
            raise UsageError(
                f'--data: {config} loads annotations that the layouts do not have: '
                f'{type_name(step)} in {key.lstrip(".")}.'
            )
    for leaf in leaves(cfg, _PHASES):
        # Colours may be in either order.
        if _memory(leaf) == 'CIFAR10':
            raise UsageError(
                f'--data: the images of {leaf.key} in {config} are in memory ({leaf.name}), and its pipeline loads no '
                'files. Add LoadImageFromFile as its first step. It gives BGR, so set data_preprocessor.to_rgb=True if '
                'mean and std are for RGB.'
            )
    _require_metrics(cfg, config)
    for _, key, loader in loaders(cfg, _PHASES):
        if (loader.get('sampler') or {}).get('source_ratio'):
            raise UsageError(
                f'--data: {config} mixes several datasets ({key}.sampler.source_ratio), for instance labelled and '
                'unlabelled images, and --data gives it one. Use a config that is trained on a single dataset.'
            )
    return kind


def _require_metrics(cfg: Any, config: str) -> None:
    library = task_of(cfg).library
    known = set(_METRICS.get(library, '').split())
    for _, key, metric in evaluators(cfg, _PHASES):
        kind = resolve(METRICS, metric.get('type'), library)
        is_own = known and getattr(kind, '__module__', '').startswith(f'{library}.')
        if is_own and not known & {base.__name__ for base in kind.__mro__}:
            raise UsageError(
                f'--data: {config} is evaluated by {kind.__name__} ({key}), which needs annotations that the layouts '
                f'do not have. Use a config with {", ".join(_METRICS[library].split()[:3])} or the like.'
            )


def _loader_settings(cfg: Any) -> dict[str, Any]:
    return {f'{phase}_dataloader': cfg.get(f'{phase}_dataloader') for phase in _PHASES}


def check_fit(cfg: Any, data: UserData, config: str, processes: int = 1) -> None:
    """Check that a dataset is one that a config can be trained on; adds to its findings.

    Raises:
        UsageError: It is a dataset for another task.
    """
    wanted = task_of(cfg).data
    if data.kind != wanted:
        raise UsageError(
            f'{config} is a config for {task_of(cfg).name.lower()}, which is trained on {_KINDS[wanted]}, and '
            f'{data.root} has {_KINDS[data.kind]} ({data.layout}). Take a config for {data.kind}, or data for {wanted}.'
        )
    if data.kind == 'detection' and mask_part(cfg):
        checks.check_shapes(data)
    for _, _, loader in loaders(cfg, ('train',)):
        drops = loader.get('drop_last') or (loader.get('batch_sampler') or {}).get('drop_last')
        # An endless sampler drops nothing, and a repeated dataset has more to fill a batch with.
        drops = drops and type_name(loader.get('sampler') or {}, '') != 'InfiniteSampler'
        batch = int(loader.get('batch_size') or 1) * processes
        checks.check_batch(data, batch, bool(drops), _repetitions(loader.get('dataset')))
    sizes = [(leaf.settings.get('filter_cfg') or {}).get('min_size') or 0 for leaf in leaves(cfg, ('train',))]
    if data.kind == 'detection' and max(sizes, default=0):
        checks.check_small_images(data, max(sizes))


def _repetitions(dataset: Any) -> int:
    """Return how often a dataset's wrappers repeat it."""
    times = 1
    while isinstance(dataset, Mapping):
        times *= int(dataset.get('times') or 1) if type_name(dataset) == 'RepeatDataset' else 1
        dataset = next((dataset[name] for name in WRAPPED if name in dataset), None)
    return times


def adapt(cfg: Any, data: UserData, folder: Path) -> None:
    """Change a config to train on, or evaluate, a dataset; lists of its images are written to a folder.

    Args:
        cfg (Config): Changed in place; it stays plain data.
        data (UserData): A dataset that :func:`check_fit` has accepted.
        folder (Path): An absolute path, for the files that the libraries read.
    """
    for phase in _PHASES:  # a loader may be the same object as another
        for key in (f'{phase}_dataloader', f'{phase}_evaluator'):
            if cfg.get(key) is not None:
                cfg[key] = copy.deepcopy(cfg[key])
    cfg['data_source'] = str(data.source)  # of no meaning to MMEngine; an evaluation looks for it
    if isinstance(cfg.get('data_root'), str):
        cfg['data_root'] = str(data.root)
    for leaf in leaves(cfg, _PHASES):
        if _memory(leaf):  # of grey images, by require_task
            load = dict(type='LoadImageFromFile', color_type='grayscale')
            leaf.settings['pipeline'] = [load, *(leaf.settings.get('pipeline') or ())]
    files = {name: _dataset(data, split, name, folder) for name, split in data.splits.items()}
    for phase, _, loader in loaders(cfg, _PHASES):
        chosen = next((files[name] for name in (phase, 'test', 'val') if name in files), None)
        if chosen:
            loader['dataset'] = _replaced(loader['dataset'], chosen)
    metrics = _metrics(cfg)
    if adapter := _ADAPTERS.get(data.kind):
        adapter(cfg, data, files)
    set_class_count(cfg, len(data.classes), data.findings)
    _set_texts(cfg, data.classes)
    if _metrics(cfg) != metrics:
        _forget_best(cfg, data)
    for _, step in parts(_loader_settings(cfg) | {'tta': cfg.get('tta_pipeline')}, ''):
        if 'type' in step and is_remote({**step, 'pipeline': ()}):
            step.pop('backend_args', None)
            step.pop('file_client_args', None)


def _set_texts(cfg: Any, classes: list[str]) -> None:
    """Give the classes' names to models that compare images with texts."""
    for _, part in parts(cfg.model, ''):
        if type_name(part) == 'CLIPTextEncoder':
            part.pop('dataset_name', None)
            part['vocabulary'] = list(classes)
        if 'text_prototype' in part:
            part['text_prototype'] = list(classes)


def _metrics(cfg: Any) -> list[tuple[Any, ...]]:
    """Return what the names of the validation's results depend on."""
    named = ('topk', 'metric', 'iou_metrics', 'prefix')
    return [(type_name(part), *map(part.get, named)) for _, _, part in evaluators(cfg, ('val',))]


def _forget_best(cfg: Any, data: UserData) -> None:
    """Let the best checkpoint be that of the first metric, where one by name may be gone; MMEngine fails without it."""
    for hook in checkpoint_hooks(cfg):
        if hook.get('save_best') not in (None, 'auto'):
            data.findings.note(f'save_best={hook["save_best"]!r} may name a metric that is gone; it is now "auto"')
            hook['save_best'] = 'auto'
            hook.pop('rule', None)
    for hook in cfg.get('custom_hooks') or ():
        if type_name(hook) == 'EarlyStoppingHook':
            data.findings.note(f'EarlyStoppingHook watches {hook.get("monitor")!r}, which may be gone: check `monitor`')


def _dataset(data: UserData, split: Split, name: str, folder: Path) -> list[dict[str, Any]]:
    """Return the settings of the datasets that make up a split."""
    metainfo: dict[str, Any] = dict(classes=tuple(data.classes))
    if data.kind == 'classification':
        return [dict(type='CustomDataset', metainfo=metainfo, **writing.write_list(data, split, name, folder))]
    metainfo['palette'] = palette(len(data.classes))
    if data.kind == 'detection':
        return [dict(type='CocoDataset', metainfo=metainfo, **writing.write_coco(data, split, name, folder))]
    as_is = _maps_as_is(data)
    settings = writing.write_label_maps(data, split, name, folder, as_is)
    common = dict(type='BaseSegDataset', metainfo=metainfo, reduce_zero_label=as_is and masks.counts_from_one(data))
    return [dict(common, ignore_index=masks.IGNORED, **entry) for entry in settings]


def _maps_as_is(data: UserData) -> bool:
    are_ids = masks.is_direct(data) or masks.counts_from_one(data)
    return are_ids and all(map(writing.share_names, data.splits.values()))


def _replaced(settings: Any, new: list[dict[str, Any]]) -> Any:
    """Return a dataset's settings with its innermost dataset replaced; of several datasets, one remains.

    A ``KFoldDataset`` is removed, because it would take a part of a split.
    """
    if isinstance(settings, list | tuple):
        return _replaced(settings[0], new)
    if type_name(settings) == 'KFoldDataset':
        return _replaced(settings['dataset'], new)
    for name in WRAPPED:
        inner = settings.get(name)
        if isinstance(inner, list | tuple):
            settings[name] = [_replaced(inner[0], new)]
            return settings
        if isinstance(inner, Mapping):
            settings[name] = _replaced(inner, new)
            return settings
    kept = {name: settings[name] for name in _KEPT if name in settings}
    if any('text' in (step.get('meta_keys') or ()) for step in settings.get('pipeline') or ()):
        kept['return_classes'] = True  # for detectors that are prompted with the names of classes
    entries = [copy.deepcopy({**entry, **kept}) for entry in new]
    return entries[0] if len(entries) == 1 else dict(type='ConcatDataset', datasets=entries)


def _adapt_detection(cfg: Any, data: UserData, files: Mapping[str, list[dict[str, Any]]]) -> None:
    # Hooks replace the training pipeline in the last epochs.
    steps = [step for _, step in parts(_loader_settings(cfg) | {'hooks': cfg.get('custom_hooks')}, '')]
    loading = [step for step in steps if step.get('with_mask')]
    if not data.has_shapes or not mask_part(cfg):
        for step in loading:
            step['with_mask'] = False
    elif any(isinstance(thing.shape, dict) for sample in data.samples() for thing in sample.things):
        polygons_alone = [step for step in loading if not step.get('poly2mask', True)]
        for step in polygons_alone:
            step['poly2mask'] = True
        if polygons_alone:
            data.findings.note(
                'Some masks are run lengths (RLE): poly2mask was set to True, so that they are trained on'
            )
    for phase in ('val', 'test'):
        chosen = next((files[name] for name in (phase, 'test', 'val') if name in files), None)
        if cfg.get(f'{phase}_evaluator') and chosen:
            path = str(Path(chosen[0]['data_root']) / chosen[0]['ann_file'])
            metric = ['bbox', 'segm'] if mask_part(cfg) else 'bbox'
            cfg[f'{phase}_evaluator'] = _coco_metrics(cfg[f'{phase}_evaluator'], path, metric, cfg.default_scope)


def _coco_metrics(evaluator: Any, path: str, metric: Any, scope: str) -> Any:
    """Return COCO's metrics for a file: the config's own, or one instead of those of other datasets."""
    found = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
    found = [
        part for part in found if is_kind(METRICS, part, scope, 'CocoMetric') and 'LVIS' not in str(type_name(part))
    ]
    if not found:
        return dict(type='CocoMetric', ann_file=path, metric=metric)
    for part in found:
        part['ann_file'] = path
        part['metric'] = _boxes_only(part.get('metric', 'bbox')) if metric == 'bbox' else part.get('metric', 'bbox')
        part.pop('format_only', None)
        part.pop('backend_args', None)
    return found if isinstance(evaluator, list | tuple) else found[0]


def _boxes_only(metric: Any) -> Any:
    if isinstance(metric, str):
        return 'bbox' if metric == 'segm' else metric
    return [name for name in metric if name != 'segm'] or ['bbox']


def _adapt_segmentation(cfg: Any, data: UserData, files: Mapping[str, list[dict[str, Any]]]) -> None:
    reduces = next(iter(files.values()))[0]['reduce_zero_label']
    for _, part in parts({name: value for name, value in cfg.items() if name != 'model'}, ''):
        if 'reduce_zero_label' in part:
            part['reduce_zero_label'] = reduces
    sections = {name: cfg.get(name) for name in ('model', 'val_evaluator', 'test_evaluator')}
    for _, part in parts(sections, ''):
        if 'ignore_index' in part:
            part['ignore_index'] = masks.IGNORED
    for phase in ('val', 'test'):
        key = f'{phase}_evaluator'
        found = cfg.get(key)
        metrics = found if isinstance(found, list | tuple) else [found]
        if found and not all(type_name(part) == 'IoUMetric' for part in metrics):
            cfg[key] = dict(type='IoUMetric', iou_metrics=['mIoU'])
        for part in metrics if found else ():
            part.pop('format_only', None)


def _memory(leaf: Leaf) -> str | None:
    """Return the kind of a dataset that has its images in memory, for a pipeline that loads no files."""
    loads = any((type_name(step) or '').startswith('Load') for step in leaf.settings.get('pipeline') or ())
    kinds = (kind for kind in ('CIFAR10', 'MNIST') if is_kind(DATASETS, leaf.settings, leaf.scope, kind))
    return None if loads else next(kinds, None)


_Adapter = Callable[[Any, UserData, Mapping[str, list[dict[str, Any]]]], None]
#: A classifier has nothing else that depends on the kind of dataset.
_ADAPTERS: dict[str, _Adapter] = {'detection': _adapt_detection, 'segmentation': _adapt_segmentation}
