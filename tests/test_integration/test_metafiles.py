"""The metafiles against modelindex, the configs and the zoo; that they are current: `tests/test_analysis`."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from modelindex.load_model_index import load as load_model_index

from mmevm.inferencers import models, released_weights
from mmevm.zoo import ENTRIES

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = {'t': 'tiny', 's': 'small', 'b': 'base'}
# Of these, whole models were released; of the others' backbones alone.
RELEASED = ('classifier', 'mask_rcnn_vmamba', 'upernet_vmamba')


def config_of(name: str) -> Config:
    return Config.fromfile(ROOT / models()[name]['Config'])


def test_modelindex_accepts_the_index() -> None:
    index = load_model_index(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert index.check(silent=True) == []
    assert [model.name for model in index.models] == list(models())
    assert all(model.full_model.paper['URL'].startswith('https://arxiv.org/abs/') for model in index.models)


def test_metafiles_list_every_config_but_demos_and_ablations() -> None:
    configs = {path.stem for path in (ROOT / 'configs').glob('*.py')}
    listed = set(models())
    assert {name for name in configs if not name.startswith('demo_')} == listed
    assert all(entry['Config'] == f'configs/{name}.py' for name, entry in models().items())


@pytest.mark.parametrize('name', models())
def test_metafile_config_and_zoo_agree(name: str) -> None:
    model, backbone = models()[name], config_of(name).model.backbone
    (entry,) = [entry for entry in ENTRIES.values() if entry.url == model['Weights']]
    assert (backbone.type, backbone.arch) == (f'mmevm.{entry.architecture}', entry.arch)
    assert backbone.get('patch_stride') == entry.options.get('patch_stride')
    assert backbone.arch.split('_')[0] == VARIANTS[re.search('_(?:evm|vmamba|vim)_(.)', name)[1]]
    whole = name.startswith(RELEASED)
    assert ('Weights Of' in model, 'Converted From' in model) == (not whole, whole)
    assert released_weights(name) == (f'mmevm://{entry.name}' if whole else None)
    if not whole:
        assert model['Weights Of'] == 'backbone'
        assert backbone.init_cfg == dict(type='Pretrained', checkpoint=f'mmevm://{entry.name}')
        return
    assert entry.config == model['Config']


def test_every_config_of_the_zoo_is_in_the_metafiles() -> None:
    configs = {entry.config for entry in ENTRIES.values()}
    assert configs <= {entry['Config'] for entry in models().values()}


def test_docs_show_every_model_of_the_metafiles_that_has_results() -> None:
    documented = (ROOT / 'docs/reproduction.md').read_text()
    missing = [name for name, entry in models().items() if 'Results' in entry and f'`{name}`' not in documented]
    assert missing == []
