"""OpenMMLab's inferencers by mmevm's names: ``DetInferencer('retinanet_evm_t', …)`` after ``import mmevm.inferencers``.

MMEngine's inferencers look names up only in the metafiles of OpenMMLab's own packages, and build everything in the
scope under which they found them, so that a scope of our own could not find mmdet's heads. Importing this module
replaces a name from our metafiles by the path of its config before they see it. MMPretrain has a registry for metafiles
of others, and gets ours.

From then on, the process opens every checkpoint weights-only, and models with a backbone of mmevm are loaded strictly:
where names do not fit, MMEngine would draw the predictions of a random model and only log that. No inferencer takes its
config from a checkpoint any more, which MMEngine executes as Python; without a config they ask for one.
"""

import copy
import functools
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from mmevm._patches import extend_init
from mmevm.checkpoint import load_checkpoint, register_weights_only_loader
from mmevm.checkpoint.align import has_backbone
from mmevm.engine.checks.datasets import leaves
from mmevm.engine.options import parts
from mmevm.mim import find_root
from mmevm.registry import LIBRARIES, package_of, type_name
from mmevm.zoo import ENTRIES, fetch

SCHEME = 'mmevm://'
_UNRELEASED = (
    'no weights of {name} were ever released, only those of its backbone; give a checkpoint of your own training run '
    'as `weights`, or pass the config itself, {config}, to see what a random head draws'
)
_NO_CONFIG = (
    '`model` must be a config (its path, a Config, or the name of a model), got {model}. The config in a checkpoint is '
    'not used: it is Python code, and no code from a checkpoint is run. Training leaves its config in the work '
    'directory.'
)


@functools.cache
def models() -> dict[str, dict[str, Any]]:
    """Return the entries of all metafiles by name."""
    root = find_root()
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    metafiles = (yaml.safe_load((root / path).read_text()) for path in index['Import'])
    return {entry['Name']: entry for metafile in metafiles for entry in metafile['Models']}


def config_path(name: str) -> Path:
    """Return the path of the config of a model in the metafiles.

    Raises:
        KeyError: There is no such model; the message lists those that exist.
    """
    entry = models().get(name)
    if entry is None:
        raise KeyError(f'mmevm has no model {name!r}; it has {", ".join(models())}')
    return find_root() / entry['Config']


def released_weights(name: str) -> str | None:
    """Return the zoo's address of a complete model's weights, or None if only its backbone's were released."""
    config = models()[name]['Config']
    return next((SCHEME + entry.name for entry in ENTRIES.values() if entry.config == config), None)


def _require_config(model: Any) -> None:
    """Refuse a checkpoint instead of a config; and no config, or an empty one, for which MMEngine runs the file's."""
    is_empty = model is None or (isinstance(model, dict | Config) and not model)
    if is_empty or (isinstance(model, str) and model.endswith(('.pth', '.pt', '.ckpt', '.safetensors'))):
        raise ValueError(_NO_CONFIG.format(model=model))


def _require_library(inferencer: type, name: str, config: Path) -> None:
    """Refuse a model of another library than the inferencer's, in whose registry its parts are not found."""
    library, scope = inferencer.__module__.partition('.')[0], Config.fromfile(config).default_scope
    if library != scope and library in ('mmdet', 'mmseg', 'mmpretrain'):
        raise ValueError(
            f'{name} is a model of {scope}, {inferencer.__name__} takes those of {library}; use one of {scope}'
        )


def _load_strictly(model: Any, weights: str) -> None:
    """Load weights once more, strictly, if the model has a backbone of mmevm."""
    if not has_backbone(model):
        return
    source = fetch(weights) if weights.startswith(SCHEME) else CheckpointLoader.load_checkpoint(weights, 'cpu')
    load_checkpoint(model, source).require_whole(weights)


def _with_bare_loaders(model: Any) -> Any:
    """Return a config whose loading steps have bare names, by which the libraries find and replace them.

    Configs with ``read_base`` have classes there, and their dumps full paths.
    """
    if isinstance(model, str | Path) and Path(model).is_file():
        model = Config.fromfile(model)
    elif isinstance(model, dict | Config):
        model = copy.deepcopy(model)
    else:
        return model
    for leaf in leaves(model, ('test',)):
        for _, step in parts(leaf.settings.get('pipeline'), '', names=()):
            name = type_name(step, '')
            if name.startswith('Load') and package_of(step['type']) in ('mmcv', *LIBRARIES):
                step['type'] = name
    return model


def _with_our_names(original: Callable[..., None]) -> Callable[..., None]:
    """Extend MMEngine's ``BaseInferencer.__init__``: resolve our names before it, load strictly after it."""

    @functools.wraps(original)
    def init(self: Any, model: Any = None, weights: str | None = None, *args: Any, **kwargs: Any) -> None:
        _require_config(model)
        if isinstance(model, str) and model in models():
            config = config_path(model)
            _require_library(type(self), model, config)
            weights = weights or released_weights(model)
            if weights is None:
                raise ValueError(_UNRELEASED.format(name=model, config=config))
            model = str(config)
        original(self, _with_bare_loaders(model), weights, *args, **kwargs)
        if weights is not None:
            _load_strictly(self.model, weights)

    return init


def _with_strict_weights(original: Callable[..., None]) -> Callable[..., None]:
    """Extend MMPretrain's ``BaseInferencer.__init__``, which resolves names itself: load strictly after it."""

    @functools.wraps(original)
    def init(self: Any, model: Any, pretrained: bool | str = True, *args: Any, **kwargs: Any) -> None:
        _require_config(model)
        # It builds its pipeline in whatever scope an earlier inferencer of another library has left behind.
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            original(self, _with_bare_loaders(model), pretrained, *args, **kwargs)
        if isinstance(pretrained, str):
            _load_strictly(self.model, pretrained)

    return init


@functools.cache
def _register_with_mmpretrain() -> None:
    from mmpretrain.apis.base import BaseInferencer as MMPretrainInferencer
    from mmpretrain.apis.model import ModelHub

    extend_init(MMPretrainInferencer, _with_strict_weights)
    metafile = yaml.safe_load((find_root() / 'configs/metafile_classification.yml').read_text())
    for entry in metafile['Models']:
        # Through the zoo, which verifies the file and converts its names; MMPretrain would load none of them.
        weights = released_weights(entry['Name'])
        entry.update(Weights=weights) if weights else entry.pop('Weights', None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'metafile.yml')
        path.write_text(yaml.safe_dump(metafile))
        ModelHub.register_model_index(path, config_prefix=find_root())


def register() -> None:
    """Let the inferencers of the installed libraries find mmevm's models; importing this module calls it."""
    register_weights_only_loader()
    extend_init(BaseInferencer, _with_our_names)
    if importlib.util.find_spec('mmpretrain') is not None:
        _register_with_mmpretrain()


register()
