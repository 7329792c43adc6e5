"""Images that cannot be read: found before training, named when they cause an error, and left out on demand.

A runner's datasets are built as its config says, and then checked. A wrapper of their pipeline names the files of a
sample that fails, in the data loading processes, too.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmevm.engine.checks.class_lists import listed
from mmevm.engine.checks.datasets import WRAPPED
from mmevm.engine.checks.image_files import Fault, find_fault
from mmevm.engine.checks.samples import (
    Checks,
    NamedErrors,
    colour_type,
    decoder,
    reads_elsewhere,
    require_trainable,
    sample_files,
    transforms,
)
from mmevm.engine.checks.tiff_files import TIFF, opencv_fault, tiff_fault
from mmevm.engine.runner.distributed import shared_failure
from mmevm.errors import UsageError

#: Seconds after which the check of a dataset stops, unless images are to be left out, for which all are checked.
SECONDS = 30.0


def _loads_label_maps(pipeline: Any) -> bool:
    return any(
        type(step).__name__.startswith(('LoadAnnotations', 'LoadPanoptic')) and getattr(step, 'with_seg', True)
        for step in transforms(pipeline)
    )


def _may_fail(pipeline: Any) -> bool:
    """Return whether MMCV leaves out unreadable images itself."""
    return any(getattr(step, 'ignore_empty', False) for step in transforms(pipeline))


def _find_faults(dataset: Any, checks: Checks) -> tuple[int, dict[int, tuple[str, Fault]]]:
    """Check this process's share of a dataset's files; return the number of samples seen and the faults by index."""
    faults: dict[int, tuple[str, Fault]] = {}
    seen, end = 0, time.monotonic() + SECONDS
    pipeline = dataset.pipeline
    backends = {key: decoder(pipeline, key) for key in ('img_path', 'seg_map_path')}
    with_maps, colours = _loads_label_maps(pipeline), colour_type(pipeline)

    def fault_of(key: str, path: str) -> Fault | None:
        backend = backends.get(key, 'cv2')
        if fault := find_fault(path, backend):
            return fault
        if key == 'img_path' and backend == 'cv2' and path.lower().endswith(TIFF):
            return opencv_fault(path, colours)
        return tiff_fault(path) if backend == 'tifffile' else None

    # In random order, so that a check that stops early has seen something of everything.
    for index in np.random.default_rng(0).permutation(len(dataset))[get_rank() :: get_world_size()].tolist():
        sample = dataset.get_data_info(index)
        files = list(sample_files(sample))
        if checks.is_training:
            require_trainable(sample, files, checks, pipeline)
        for key, path in files:
            if (key != 'seg_map_path' or with_maps) and (fault := fault_of(key, path)):
                faults[index] = (path, fault)
        seen += 1
        if not checks.skip and time.monotonic() > end:
            break
    return seen, faults


def _list(faults: list[tuple[str, Fault]]) -> str:
    return listed([f'  {path}: {fault.reason}' for path, fault in faults], '\n', '\n  and {} more')


def check_images(dataset: Any, checks: Checks) -> int:
    """Check the image files of one of MMEngine's datasets, in distributed runs in all processes.

    Returns:
        int: How many samples were left out.

    Raises:
        UsageError: Some cannot be read and are not to be left out.
    """
    count = len(dataset)
    if not count or reads_elsewhere(dataset.pipeline) or not any(True for _ in sample_files(dataset.get_data_info(0))):
        return 0
    begin = time.monotonic()
    with shared_failure():
        result = _find_faults(dataset, checks)
    results = all_gather_object(result)
    seen = sum(part for part, _ in results)
    faults = {index: fault for _, part in results for index, fault in sorted(part.items())}
    name = f'{type(dataset).__name__} ({"training" if checks.is_training else "evaluation"})'
    print_log(
        f'{name}: checked the files of {seen} of {count} samples in {time.monotonic() - begin:.0f} s, '
        f'{len(faults)} with faults',
        logger='current',
    )
    return _decide(dataset, faults, checks, name, count)


def _decide(dataset: Any, faults: dict[int, tuple[str, Fault]], checks: Checks, name: str, count: int) -> int:
    """Leave out the samples with faults, refuse them, or only warn of them."""
    if not faults:
        return 0
    unreadable = [(path, fault) for path, fault in faults.values() if not fault.readable]
    partial = [(path, fault) for path, fault in faults.values() if fault.readable]
    if not checks.skip and unreadable and not _may_fail(dataset.pipeline):
        raise UsageError(
            f'{name}: {len(unreadable)} of {count} samples cannot be read:\n{_list(unreadable)}\n'
            'Replace them or remove them from the dataset, or leave them out with --skip-broken.'
        )
    listing = _list(unreadable + partial)
    if not checks.skip:
        print_log(
            f'{name}: {len(faults)} of {count} samples are damaged, and what can be read of them is used; '
            f'--skip-broken leaves them out:\n{listing}',
            logger='current',
            level=logging.WARNING,
        )
        return 0
    kept = [index for index in range(count) if index not in faults]
    if not kept:
        raise UsageError(f'{name}: none of {count} samples can be read:\n{listing}')
    dataset.get_subset_(kept)
    print_log(f'{name}: left out {len(faults)} of {count} samples:\n{listing}', logger='current', level=logging.WARNING)
    return len(faults)


def _builder_of(kind: Any, checks: Checks) -> Any:
    """Return a function for ``type`` that builds a dataset of type ``kind`` and checks it."""

    def build(**settings: Any) -> Any:
        dataset = DATASETS.build(dict(settings, type=kind))
        left_out = 0
        if isinstance(dataset, BaseDataset):
            dataset.full_init()
            left_out = check_images(dataset, checks)
        if callable(getattr(dataset, 'pipeline', None)):
            dataset.pipeline = _with_named_errors(dataset, checks, left_out)
        return dataset

    return build


def _with_named_errors(dataset: Any, checks: Checks, left_out: int = 0) -> NamedErrors:
    if not isinstance(dataset, BaseDataset) or dataset.test_mode:
        # Only MMEngine's datasets replace samples that are left out, and only in training.
        checks = replace(checks, is_training=False)
    return NamedErrors(dataset.pipeline, checks, getattr(dataset, 'ignore_index', 255), left_out)


def _with_checks(settings: Any, checks: Checks) -> Any:
    """Return the settings of a dataset, and of its wrappers, that build a checked one."""
    if isinstance(settings, list | tuple):
        return type(settings)(_with_checks(part, checks) for part in settings)
    if not isinstance(settings, Mapping):
        return settings
    wrapped = [name for name in WRAPPED if isinstance(settings.get(name), list | tuple | Mapping)]
    changes = {name: _with_checks(settings[name], checks) for name in wrapped}
    if not wrapped and 'type' in settings:
        changes = {'type': _builder_of(settings['type'], checks)}
    return ConfigDict(dict(settings, **changes))


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside wrappers."""
    inner = [getattr(dataset, name) for name in WRAPPED if getattr(dataset, name, None) is not None]
    if not inner:
        yield dataset
    for value in inner:
        for part in value if isinstance(value, list | tuple) else [value]:
            yield from _leaves(part)


class CheckedImagesHook(Hook):
    """Keeps the checks of :class:`CheckedImages` in force while training and evaluating."""

    # After MMDetection's hook that changes the pipeline for the last epochs.
    priority = 'VERY_LOW'

    def before_train_epoch(self, runner: Any) -> None:
        """Wrap pipelines that have replaced the first one."""
        for dataset in _leaves(runner.train_dataloader.dataset):
            if callable(getattr(dataset, 'pipeline', None)) and not isinstance(dataset.pipeline, NamedErrors):
                dataset.pipeline = _with_named_errors(dataset, replace(runner.checks, is_training=True))

    def before_val(self, runner: Any) -> None:
        """Remove the images that were left out from the metrics."""
        _leave_out_of_metrics(runner.val_loop)

    def before_test(self, runner: Any) -> None:
        """Remove the images that were left out from the metrics."""
        _leave_out_of_metrics(runner.test_loop)


def _leave_out_of_metrics(loop: Any) -> None:
    datasets = list(_leaves(loop.dataloader.dataset))
    if not any(getattr(getattr(dataset, 'pipeline', None), 'left_out', 0) for dataset in datasets):
        return
    samples = [dataset.get_data_info(index) for dataset in datasets for index in range(len(dataset))]
    for metric in loop.evaluator.metrics:
        # COCO's metrics evaluate all images of their file unless they have a list.
        if getattr(metric, 'img_ids', ()) is None and all('img_id' in sample for sample in samples):
            metric.img_ids = [sample['img_id'] for sample in samples]


class CheckedImages:
    """Mixin for a runner that checks the images of its data loaders."""

    checks = Checks()

    def build_train_loop(self, loop: Any) -> Any:
        """Build the loop, whose samples are trained on."""
        evaluation, self.checks = self.checks, replace(self.checks, is_training=True)
        try:
            return super().build_train_loop(loop)  # type: ignore[misc]
        finally:
            self.checks = evaluation

    def build_dataloader(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """Build a data loader with checked datasets."""
        if isinstance(dataloader, Mapping):
            dataloader = ConfigDict(dict(dataloader, dataset=_with_checks(dataloader['dataset'], self.checks)))
        return super().build_dataloader(dataloader, *args, **kwargs)  # type: ignore[misc]


def checked(runner_class: type, checks: Checks) -> Any:
    """Return a runner's class that checks the images of its data loaders."""
    return type(runner_class.__name__, (CheckedImages, runner_class), {'checks': checks})
