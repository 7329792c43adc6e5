"""OpenMMLab's inferencers by mmevm's names: ``DetInferencer('retinanet_evm_t', …)`` after ``import mmevm.inferencers``.

MMEngine's inferencers look names up in the metafiles of OpenMMLab's own packages alone, and build everything in the
scope under which they found them, so that a scope of our own could not find mmdet's heads. Importing this module puts
one step before theirs: a name from our metafiles becomes the path of its config, which they take as it is. MMPretrain
has a registry for others' metafiles, and gets ours.

From then on every checkpoint in the process is opened weights-only, and models with a backbone of mmevm are loaded
strictly: MMEngine would draw the predictions of a random model, and only log that names do not fit. No inferencer takes
its config out of a checkpoint any more, which MMEngine runs as Python: without a config they say that they need one.
"""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

import mmevm
from mmevm.checkpoint import load_checkpoint, register_weights_only_loader
from mmevm.zoo import ENTRIES, fetch

SCHEME = 'mmevm://'
_UNRELEASED = (
    'no weights of {name} were ever released, those of its backbone alone; give the checkpoint of your own training as '
    '`weights`, or pass the config itself, {config}, to see what a random head draws'
)
_NO_CONFIG = (
    '`model` must be a config (its path, a Config, or the name of a model), got {model}. The config in a checkpoint is '
    'not used: it is Python code, and no code from a checkpoint is run. Training leaves its config in the work folder.'
)


def mim_folder() -> Path:
    """The folder with ``model-index.yml`` and ``configs``: the checkout's root or, when installed, ``.mim``."""
    package = Path(mmevm.__file__).parent
    return package.parent if (package.parent / 'configs').is_dir() else package / '.mim'


@functools.cache
def models() -> dict[str, dict[str, Any]]:
    """The entries of all metafiles by name."""
    folder = mim_folder()
    index = yaml.safe_load((folder / 'model-index.yml').read_text())
    metafiles = (yaml.safe_load((folder / path).read_text()) for path in index['Import'])
    return {entry['Name']: entry for metafile in metafiles for entry in metafile['Models']}


def config_path(name: str) -> Path:
    """The config of a model of the metafiles.

    Raises:
        KeyError: There is no such model; the message lists those that there are.
    """
    entry = models().get(name)
    if entry is None:
        raise KeyError(f'mmevm has no model {name!r}; it has {", ".join(models())}')
    return mim_folder() / entry['Config']


def released_weights(name: str) -> str | None:
    """The zoo's address of the weights of a whole model, or None where those of its backbone alone were released."""
    found = [entry.name for entry in ENTRIES.values() if entry.config == models()[name]['Config']]
    return SCHEME + found[0] if found else None


def _require_config(model: Any) -> None:
    """Refuses a checkpoint for a config; and no config, or an empty one, for which MMEngine would run the file's."""
    is_empty = model is None or (isinstance(model, dict | Config) and not model)
    if is_empty or (isinstance(model, str) and model.endswith(('.pth', '.pt', '.ckpt', '.safetensors'))):
        raise ValueError(_NO_CONFIG.format(model=model))


def _has_our_backbone(model: Any) -> bool:
    return hasattr(getattr(model, 'backbone', None), 'arch_zoo')


def _load_strictly(model: Any, weights: str) -> None:
    in_zoo = weights.startswith(SCHEME)
    report = load_checkpoint(model, fetch(weights) if in_zoo else CheckpointLoader.load_checkpoint(weights, 'cpu'))
    report.require_whole(weights)


def _with_our_names(theirs: Callable[..., None]) -> Callable[..., None]:
    """MMEngine's ``BaseInferencer.__init__`` with our names resolved before it and strict weights after it."""

    @functools.wraps(theirs)
    def init(self: Any, model: Any = None, weights: str | None = None, *args: Any, **kwargs: Any) -> None:
        _require_config(model)
        if isinstance(model, str) and model in models():
            config = config_path(model)
            weights = weights or released_weights(model)
            if weights is None:
                raise ValueError(_UNRELEASED.format(name=model, config=config))
            model = str(config)
        theirs(self, model, weights, *args, **kwargs)
        if weights is not None and _has_our_backbone(self.model):
            _load_strictly(self.model, weights)

    vars(init)['knows_mmevm'] = True
    return init


def _with_strict_weights(theirs: Callable[..., None]) -> Callable[..., None]:
    """MMPretrain's ``BaseInferencer.__init__``, which resolves names itself, with strict weights after it."""

    @functools.wraps(theirs)
    def init(self: Any, model: Any, pretrained: bool | str = True, *args: Any, **kwargs: Any) -> None:
        _require_config(model)
        # It builds its pipeline in whatever scope an earlier inferencer of another library has left behind.
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            theirs(self, model, pretrained, *args, **kwargs)
        if isinstance(pretrained, str) and _has_our_backbone(self.model):
            _load_strictly(self.model, pretrained)

    vars(init)['knows_mmevm'] = True
    return init


def _register_with_mmpretrain() -> None:
    from mmpretrain.apis.base import BaseInferencer as ClassifiersInferencer
    from mmpretrain.apis.model import ModelHub

    if hasattr(ClassifiersInferencer.__init__, 'knows_mmevm'):
        return
    ClassifiersInferencer.__init__ = _with_strict_weights(ClassifiersInferencer.__init__)
    folder = mim_folder()
    ModelHub.register_model_index(folder / 'configs/metafile_classification.yml', config_prefix=folder)
    for name in models():
        if ModelHub.has(name):
            # Through the zoo, which verifies the file and converts its names; MMPretrain would load none of them.
            ModelHub._models_dict[name].weights = released_weights(name)


def register() -> None:
    """Makes the inferencers of the libraries that are installed know mmevm's models; importing this module calls it."""
    register_weights_only_loader()
    if not hasattr(BaseInferencer.__init__, 'knows_mmevm'):
        BaseInferencer.__init__ = _with_our_names(BaseInferencer.__init__)
    if importlib.util.find_spec('mmpretrain') is not None:
        _register_with_mmpretrain()


register()
