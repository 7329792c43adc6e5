"""``tools/test.py CONFIG model.onnx``: an exported model, evaluated on a config's test data."""

import os
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

from mmevm.deploy.predictor import Prediction, Predictor
from mmevm.errors import UsageError

SUFFIX = '.onnx'


def open_exported(path: str) -> Predictor:
    """Open a file of ``tools/export.py``.

    Raises:
        UsageError: It is none.
    """
    try:
        return Predictor(os.path.expanduser(path), torch.get_num_threads())
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error


def _set_objects(sample: Any, found: Prediction) -> None:
    values = {'bboxes': found.boxes, 'scores': found.scores, 'labels': found.labels, 'masks': found.masks}
    sample.pred_instances = InstanceData(
        **{name: torch.from_numpy(value) for name, value in values.items() if value is not None}
    )


def _set_classes(sample: Any, found: Prediction) -> None:
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(found.classes).long().unsqueeze(0))


def _set_scores(sample: Any, found: Prediction) -> None:
    sample.set_pred_score(torch.from_numpy(found.scores)).set_pred_label(int(found.labels[0]))


_SETTERS: dict[str, Callable[[Any, Prediction], None]] = {
    'detection': _set_objects,
    'segmentation': _set_classes,
    'classification': _set_scores,
}
_SCOPES = {'detection': 'mmdet', 'segmentation': 'mmseg', 'classification': 'mmpretrain'}


@MODELS.register_module()
class ExportedModel(BaseModel):
    """An exported model that takes the place of a config's.

    It reads the image files itself, as :func:`mmevm.deploy.load` does: what is measured is what a program without torch
    would get.

    Args:
        path (str): A file of ``tools/export.py``.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.predictor = open_exported(path)

    def test_step(self, data: Any) -> list[Any]:
        """Args: data (dict): A batch, with ``data_samples``. Returns: They, with predictions."""
        for sample in data['data_samples']:
            path = sample.get('img_path')
            if path is None:
                raise UsageError('Exported models are evaluated on image files; this dataset has its images in memory.')
            _SETTERS[self.predictor.task](sample, self.predictor(path))
        return data['data_samples']

    def forward(self, *_: Any, **__: Any) -> None:
        """An exported model is not trained."""
        raise NotImplementedError


class SameClasses(Hook):
    """Refuses data whose classes are not those of an exported model, which would be measured as if all were wrong."""

    def before_test(self, runner: Any) -> None:
        """Args: runner (Runner): Of the test."""
        names = runner.model.predictor.names
        classes = list((getattr(runner.test_dataloader.dataset, 'metainfo', None) or {}).get('classes') or names)
        if names and classes != names:
            raise UsageError(
                f'The exported model has {len(names)} classes ({", ".join(names[:3])}, …), and the test data have '
                f'{len(classes)} ({", ".join(classes[:3])}, …), or have them in another order.'
            )


def use_exported(cfg: Any, path: str) -> None:
    """Put an exported model into a config.

    Args:
        cfg (Config): Changed in place.
        path (str): The file.

    Raises:
        UsageError: It is for another task than the config, or the run is distributed.
    """
    task = open_exported(path).task
    scope = cfg.get('default_scope')
    if _SCOPES.get(task) != scope:
        raise UsageError(f'{path} is a model for {task}, and the config is one of {scope}')
    if cfg.launcher != 'none':
        raise UsageError('Exported models are evaluated in one process; leave out --launcher.')
    cfg.model = dict(type='mmengine.ExportedModel', path=path)
