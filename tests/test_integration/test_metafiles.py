"""The metafiles against modelindex, the configs, the zoo's table and the papers' tables."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from mmengine.config import Config
from modelindex.load_model_index import load as load_model_index

from mmevm.engine.tasks import build_model
from mmevm.inferencers import models, released_weights
from mmevm.zoo import ENTRIES
from tools.analysis.reproduction import TABLES

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
PAPER = {
    row['config']: dict(zip(table.get('metrics', ()), row.get('results', '').split(), strict=True))
    for table in TABLES
    for row in table['rows']
}
# The metafiles' names of metrics, which are OpenMMLab's, and the tables'.
METRICS = {
    'classifier': {'Top 1 Accuracy': 'top-1'},
    'retinanet': {'box AP': 'AP'},
    'mask': {'box AP': 'AP box', 'mask AP': 'AP mask'},
    'upernet': {'mIoU': 'mIoU, one scale', 'mIoU(ms+flip)': 'mIoU, several scales'},
}
TASKS = {
    'classifier': {'Image Classification'},
    'retinanet': {'Object Detection'},
    'mask': {'Object Detection', 'Instance Segmentation'},
    'upernet': {'Semantic Segmentation'},
}
VARIANTS = {'t': 'tiny', 's': 'small', 'b': 'base'}
# Of these, whole models were released; of the others' backbones alone.
RELEASED = ('classifier', 'mask_rcnn_vmamba', 'upernet_vmamba')


def config_of(name: str) -> Config:
    return Config.fromfile(ROOT / models()[name]['Config'])


def results_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return entry.get('Results', [])


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
def test_metafile_counts_the_parameters_of_the_config(name: str) -> None:
    model = build_model(config_of(name), 'meta')
    assert models()[name]['Metadata']['Parameters'] == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize('name', models())
def test_metafile_states_the_papers_metrics_and_says_so(name: str) -> None:
    kind, paper = name.split('_')[0], PAPER.get(name, {})
    results = results_of(models()[name])
    stated = {metric: value for result in results for metric, value in result['Metrics'].items()}
    expected = {f'{ours} (paper)': float(paper[theirs]) for ours, theirs in METRICS[kind].items() if theirs in paper}
    assert stated == expected
    assert {result['Task'] for result in results} == (TASKS[kind] if paper else set())


@pytest.fixture(scope='module')
def collections() -> dict[str, dict[str, Any]]:
    """The metafiles' collections by name."""
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / 'configs').glob('metafile*.yml')]
    return {collection['Name']: collection for file in files for collection in file['Collections']}


@pytest.mark.parametrize('name', models())
def test_metafile_config_and_zoo_agree(name: str, collections: dict[str, dict[str, Any]]) -> None:
    model, backbone = models()[name], config_of(name).model.backbone
    (entry,) = [entry for entry in ENTRIES.values() if entry.url == model['Weights']]
    assert (backbone.type, backbone.arch) == (f'mmevm.{entry.architecture}', entry.arch)
    assert backbone.get('patch_stride') == entry.options.get('patch_stride')
    assert backbone.arch.split('_')[0] == VARIANTS[re.search('_(?:evm|vmamba|vim)_(.)', name)[1]]
    collection = collections[model['In Collection']]
    assert (collection['Code'], collection['License']) == (entry.source, entry.licence)
    whole = name.startswith(RELEASED)
    assert ('Weights Of' in model, 'Converted From' in model) == (not whole, whole)
    assert released_weights(name) == (f'mmevm://{entry.name}' if whole else None)
    if not whole:
        assert model['Weights Of'] == 'backbone'
        assert backbone.init_cfg == dict(type='Pretrained', checkpoint=f'mmevm://{entry.name}')
        return
    assert entry.config == model['Config']
    assert model['Converted From'] == {'Weights': entry.url, 'Code': entry.source}
    first = results_of(model)[0]
    assert entry.metric.startswith(first['Dataset'])
    assert next(iter(first['Metrics'].values())) == entry.paper


def test_every_config_of_the_zoo_is_in_the_metafiles() -> None:
    configs = {entry.config for entry in ENTRIES.values()}
    assert configs <= {entry['Config'] for entry in models().values()}


def test_docs_show_every_model_of_the_metafiles_that_has_results() -> None:
    documented = (ROOT / 'docs/reproduction.md').read_text()
    missing = [name for name, entry in models().items() if results_of(entry) and f'`{name}`' not in documented]
    assert missing == []
