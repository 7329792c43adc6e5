"""A folder for the Hugging Face hub: weights as safetensors, the complete config, and a model card."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mmevm.checkpoint.weights_only import save_safetensors
from mmevm.engine.runner.storage import write_file
from mmevm.errors import UsageError
from mmevm.files import replacing
from mmevm.registry import BACKBONES, type_name

_FILES = ('model.safetensors', 'config.py', 'README.md')
_PIPELINES = {'mmdet': 'object-detection', 'mmseg': 'image-segmentation', 'mmpretrain': 'image-classification'}
_INFERENCERS = {
    'mmdet': ('mmdet.apis', 'DetInferencer'),
    'mmseg': ('mmseg.apis', 'MMSegInferencer'),
    'mmpretrain': ('mmpretrain', 'ImageClassificationInferencer'),
}
_CARD = """---
{header}---

# {name}

{model} with {backbone} of [mmevm](https://pypi.org/project/mmevm), {parameters:.1f} M parameters.

{results}
## Use

With torch, mmengine, mmcv, {library} and mmevm installed:

```python
import mmevm.inferencers
from huggingface_hub import snapshot_download
from {module} import {inferencer}

folder = snapshot_download('USER/{name}')  # where this card is
predict = {inferencer}(f'{{folder}}/config.py', f'{{folder}}/model.safetensors')
predict('image.jpg')
```
{classes}"""


def require_folder(folder: Path) -> None:
    """Check that a folder can take a model. Raises: UsageError: It has files that would be replaced."""
    if any(folder.glob('*.safetensors')):
        raise UsageError(f'--hub: {folder.absolute()} has a model already; give another folder, or delete it')
    if lost := [name for name in _FILES if (folder / name).exists()]:
        raise UsageError(
            f'--hub: {folder.absolute()} has {" and ".join(lost)}, which it would replace; give another folder'
        )


class Model(NamedTuple):
    """What is uploaded.

    Attributes:
        name (str): The model's name.
        cfg (Config): Its complete config.
        content (Mapping): Weights under ``state_dict``, origin and class names under ``meta``.
        parameters (int): How many parameters it has.
        metrics (Mapping[str, float]): Measured values by name.
        dataset (str): Dataset of the metrics.
        licence (str, optional): Identifier of the weights' licence, as the hub knows it.
    """

    name: str
    cfg: Any
    content: Mapping[str, Any]
    parameters: int
    metrics: Mapping[str, float]
    dataset: str
    licence: str | None


def write_hub(folder: Path, model: Model) -> list[Path]:
    """Write ``model.safetensors``, ``config.py`` and ``README.md`` to a folder, which is made if it does not exist."""
    weights, config, card = (folder / name for name in _FILES)
    meta, text = json.dumps(model.content['meta']), _card(model)
    with replacing(weights) as draft:
        save_safetensors(draft, model.content['state_dict'], {'meta': meta})
    write_file(config, model.cfg.pretty_text.encode())
    write_file(card, text.encode())
    return [weights, config, card]


def local_paths(cfg: Any) -> list[str]:
    """Return the paths of this machine in a config, each with its first key: what a user may not want to publish."""
    found: dict[str, list[str]] = {}

    def search(value: Any, key: str) -> None:
        for inner, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(item, Mapping | list | tuple):
                search(item, f'{key}{inner}.')
            elif isinstance(item, str) and (os.path.isabs(item) or item.startswith(('~', 'file:'))):
                found.setdefault(item, []).append(f'{key}{inner}')

    search(cfg.to_dict(), '')
    return [f'{keys[0]}={path}' + (f' ({len(keys)} times)' if len(keys) > 1 else '') for path, keys in found.items()]


def _inline(text: Any) -> str:
    """Return text for one line of Markdown, as it is."""
    return re.sub(r'([\\`*|<~\[])', r'\\\1', re.sub(r'[\r\n]+', ' ', str(text)))


def _card(model: Model) -> str:
    cfg, metrics = model.cfg, model.metrics
    library = cfg.default_scope
    backbone = (type_name(cfg.model.get('backbone')) or '').rpartition('.')[2]
    pipeline = _PIPELINES[library]
    header: dict[str, Any] = {
        'library_name': 'mmevm',
        'license': model.licence,
        'pipeline_tag': pipeline,
        'tags': ['mmevm', library, *([backbone] if backbone in BACKBONES else [])],
    }
    results = ''
    if metrics:
        measured = [{'type': metric, 'name': metric, 'value': value} for metric, value in metrics.items()]
        of = {'name': model.dataset, 'type': re.sub(r'\W+', '-', model.dataset.lower()).strip('-')}
        header['model-index'] = [
            {'name': model.name, 'results': [{'task': {'type': pipeline}, 'dataset': of, 'metrics': measured}]}
        ]
        rows = ''.join(f'| {_inline(metric)} | {value:g} |\n' for metric, value in metrics.items())
        results = f'| on {_inline(model.dataset)} | |\n| --- | --- |\n{rows}'
    classes = (model.content['meta'].get('dataset_meta') or {}).get('classes') or []
    listed = f'\n## Classes\n\n{", ".join(map(_inline, classes))}\n' if classes else ''
    module, inferencer = _INFERENCERS[library]
    return _CARD.format(
        header=yaml.safe_dump({key: value for key, value in header.items() if value}, sort_keys=False),
        name=model.name,
        model=type_name(cfg.model),
        backbone=backbone,
        parameters=model.parameters / 1e6,
        results=results,
        library=library,
        module=module,
        inferencer=inferencer,
        classes=listed,
    )
