"""tools/publish_model.py: what it keeps, what it refuses, and that others can load what it wrote."""

import hashlib
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.logging import HistoryBuffer
from modelindex.load_model_index import load as load_model_index

from mmevm.apis.publish import check_names, main, strip
from mmevm.checkpoint import CheckpointError, load_checkpoint, load_file
from mmevm.engine.config import load_config
from mmevm.engine.tasks import build_model

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/upernet_evm_t.py'


@pytest.fixture
def trained(segmentor: Path, tmp_path: Path) -> Path:
    """A checkpoint as MMEngine leaves it after training: with optimizer, log and the paths of its machine."""
    content = torch.load(segmentor, weights_only=True)
    content['optimizer'] = {'state': {0: {'exp_avg': torch.ones(1000, 1000)}}, 'param_groups': []}
    content['param_schedulers'] = [{'last_step': 7}]
    content['message_hub'] = {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}}
    content['meta'] |= {'cfg': "work_dir = '/home/me'", 'iter': 7}
    torch.save(content, tmp_path / 'iter_7.pth')
    return tmp_path / 'iter_7.pth'


def test_publish_model_keeps_weights_and_classes_alone(trained: Path, segmentor: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert main([str(CONFIG), str(trained), '--out', str(out)]) == 0
    (path,) = out.glob('*.pth')
    content, source = (torch.load(file, weights_only=True) for file in (path, segmentor))
    assert content.keys() == {'state_dict', 'meta'}
    assert content['meta'].keys() == {'config', 'mmevm_version', 'dataset_meta'}
    assert content['meta']['dataset_meta'] == source['meta']['dataset_meta']
    assert content['state_dict'].keys() == source['state_dict'].keys()
    assert all(torch.equal(value, source['state_dict'][name]) for name, value in content['state_dict'].items())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert re.fullmatch(r'upernet_evm_t-([a-f0-9]{8})\.pth', path.name)[1] == digest[:8]


def test_publish_model_writes_an_entry_that_modelindex_accepts(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'out'
    arguments = ['--url', 'https://example.org/mine/', '--metric', 'mIoU=38.5', '--dataset', 'ADE20K']
    monkeypatch.setattr(sys, 'argv', ['publish_model.py', str(CONFIG), str(trained), '--out', str(out), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / 'tools/publish_model.py'), run_name='__main__')
    assert ended.value.code == 0
    (path,), (metafile,) = out.glob('*.pth'), out.glob('*.yml')
    (entry,) = yaml.safe_load(metafile.read_text())['Models']
    assert entry['Weights'] == f'https://example.org/mine/{path.name}'
    assert entry['Metadata']['Parameters'] == 14487488
    assert entry['SHA256'] == hashlib.sha256(path.read_bytes()).hexdigest()
    index = load_model_index(str(metafile))
    index.build_models_with_collections()
    assert not index.check(silent=True)
    assert index.models[0].results[0].metrics == {'mIoU': 38.5}
    assert index.models[0].results[0].task == 'Semantic Segmentation'


def test_publish_model_names_weights_as_the_config_does(trained: Path, segmentor: Path, tmp_path: Path) -> None:
    content, out = torch.load(trained, weights_only=False), tmp_path / 'out'
    names = {name: name.replace('backbone.', 'backbone._orig_mod.') for name in content['state_dict']}
    content['state_dict'] = {f'model.{names[name]}': value for name, value in content['state_dict'].items()}
    torch.save(content, trained)
    assert main([str(CONFIG), str(trained), '--out', str(out)]) == 0
    (path,) = out.glob('*.pth')
    published, source = (torch.load(file, weights_only=True)['state_dict'] for file in (path, segmentor))
    assert published.keys() == source.keys()
    assert all(torch.equal(value, source[name]) for name, value in published.items())


@pytest.mark.parametrize(
    'config, sentence',
    [
        ('upernet_evm_s', "variant 'tiny'"),
        ('classifier_evm_t', 'tensors differ, such as head.fc.weight'),
    ],
)
def test_publish_model_refuses_weights_of_another_model(
    config: str, sentence: str, segmentor: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(ROOT / f'configs/{config}.py'), str(segmentor), '--out', str(tmp_path / 'out')]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_run_on_a_users_data_is_published_with_its_own_config(
    segmentor: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = torch.load(segmentor, weights_only=True)
    content['meta']['cfg'] = "data_source = '/data/mine'"
    key = next(name for name in content['state_dict'] if name.endswith('decode_head.conv_seg.weight'))
    content['state_dict'][key] = content['state_dict'][key][:3]
    path = tmp_path / 'run.pth'
    torch.save(content, path)
    assert main([str(ROOT / 'configs/upernet_evm_t.py'), str(path), '--out', str(tmp_path / 'out')]) == 2
    err = capsys.readouterr().err
    assert f'{path} for ' in err and 'It was trained with --data: give the config.py of its work directory' in err


def test_publish_model_refuses_a_backbone_alone(
    upstream_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(CONFIG), str(upstream_file), '--out', str(tmp_path / 'out')]) == 2
    assert 'The checkpoint does not fit the config: ' in capsys.readouterr().err


def test_publish_model_refuses_a_diverged_training(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = {'state_dict': {'backbone.patch_embed.proj.weight': torch.full((48, 3, 4, 4), float('nan'))}}
    torch.save(content, trained)
    assert main([str(CONFIG), str(trained), '--out', str(tmp_path / 'out')]) == 2
    assert 'backbone.patch_embed.proj.weight holds values that are not finite' in capsys.readouterr().err


def test_hub_folder_has_weights_config_and_card(
    trained: Path, segmentor: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    hub = tmp_path / 'hub'
    arguments = [
        str(CONFIG),
        str(trained),
        '--out',
        str(tmp_path / 'out'),
        '--hub',
        str(hub),
        '--license',
        'apache-2.0',
    ]
    assert main([*arguments, '--metric', 'mIoU=38.5', '--dataset', 'ADE20K']) == 0
    assert {path.name for path in hub.iterdir()} == {'model.safetensors', 'config.py', 'README.md'}
    source = torch.load(segmentor, weights_only=True)
    content = load_file(hub / 'model.safetensors')
    assert content['meta']['dataset_meta'] == json.loads(json.dumps(source['meta']['dataset_meta']))
    assert content['state_dict'].keys() == source['state_dict'].keys()
    model = build_model(load_config(str(hub / 'config.py')))
    load_checkpoint(model, str(hub / 'model.safetensors')).require_whole('the hub folder')
    assert all(torch.equal(value, source['state_dict'][name]) for name, value in model.state_dict().items())

    _, header, text = (hub / 'README.md').read_text().split('---\n', 2)
    card = yaml.safe_load(header)
    assert (card['license'], card['pipeline_tag'], card['library_name']) == (
        'apache-2.0',
        'image-segmentation',
        'mmevm',
    )
    assert 'EfficientVMamba' in card['tags']
    (result,) = card['model-index'][0]['results']
    assert result['metrics'] == [{'type': 'mIoU', 'name': 'mIoU', 'value': 38.5}]
    assert '| mIoU | 38.5 |' in text and "MMSegInferencer(f'{folder}/config.py', f'{folder}/model.safetensors')" in text
    assert ', '.join(source['meta']['dataset_meta']['classes']) in text

    capsys.readouterr()
    assert main([*arguments[:2], '--out', str(tmp_path / 'again'), '--hub', str(hub)]) == 2
    assert 'has a model already' in capsys.readouterr().err
    assert not (tmp_path / 'again').exists()


@pytest.mark.parametrize(
    'content',
    [{'a': torch.ones(1)}, {'state_dict': {'a': torch.ones(1)}, 'meta': None}, {'state_dict': {'a': torch.ones(1)}}],
)
def test_weights_without_meta_are_published(content: dict) -> None:
    found = strip(content, CONFIG)
    assert found['state_dict'] == {'a': torch.ones(1)}
    assert found['meta'].keys() == {'config', 'mmevm_version'}


@pytest.mark.parametrize('content', [{f'entry {i}': i for i in range(99)}, {'state_dict': None}, {'state_dict': 7}, {}])
def test_a_file_without_weights_is_described_briefly(content: dict) -> None:
    with pytest.raises(CheckpointError, match='no weights under `state_dict`; its first entries are: ') as caught:
        strip(content, CONFIG)
    assert len(str(caught.value)) < 250


def test_names_of_other_classes_are_not_published() -> None:
    content = {'meta': {'dataset_meta': {'classes': ('a', 'b')}}}
    with pytest.raises(CheckpointError, match=r"checkpoint has 2 names of classes \(a, b\) for the model's 150"):
        check_names(load_config(str(CONFIG)), content)


@pytest.mark.parametrize('option', ['--out', '--hub'])
@pytest.mark.parametrize('below', ['', 'deeper/still'])
def test_publish_model_needs_folders(option: str, below: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'file').touch()
    (tmp_path / 'a.pth').touch()
    arguments = ['--out', str(tmp_path / 'out'), option, str(tmp_path / 'file' / below)]
    assert main([str(CONFIG), str(tmp_path / 'a.pth'), *arguments]) == 2
    assert f'{option} must be a folder' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'metrics', [['acc=nan'], ['acc=inf'], ['=1'], [' =1'], ['acc'], ['acc=1', 'acc=2'], ['acc=1', ' acc =1']]
)
def test_publish_model_needs_named_numbers(metrics: list[str], capsys: pytest.CaptureFixture) -> None:
    options = [word for metric in metrics for word in ('--metric', metric)]
    with pytest.raises(SystemExit):
        main([str(CONFIG), 'a.pth', *options])
    assert 'argument --metric: ' in capsys.readouterr().err


def published(trained: Path, tmp_path: Path, config: Path = CONFIG, *options: str, **meta: object) -> tuple[Path, Path]:
    """Publish a checkpoint with other class metadata, for the hub, too; return both folders."""
    content, out, hub = torch.load(trained, weights_only=False), tmp_path / 'out', tmp_path / 'hub'
    content['meta']['dataset_meta'] = {**content['meta']['dataset_meta'], **meta}
    torch.save(content, trained)
    arguments = [str(config), str(trained), '--out', str(out), '--hub', str(hub), *options]
    assert main(arguments) == 0
    return out, hub


def test_metadata_of_any_kind_is_published_as_plain_data(trained: Path, tmp_path: Path) -> None:
    names = np.array([f'class {i}' for i in range(150)])
    odd = {'mean': np.float32(0.5), 'palette': torch.ones(2, 3, dtype=torch.uint8), 'seen': {'b', 'a'}, 'log': b'x'}
    out, hub = published(trained, tmp_path, classes=names, **odd)
    (path,) = out.glob('*.pth')
    expected = {'classes': names.tolist(), 'mean': 0.5, 'palette': [[1] * 3] * 2, 'seen': ['a', 'b']}
    for file in (path, hub / 'model.safetensors'):
        found = load_file(file)['meta']['dataset_meta']
        assert {name: found.get(name) for name in odd} | {'classes': list(found['classes'])} == {
            **expected,
            'log': None,
        }


@pytest.mark.parametrize('classes', ['wall', dict(enumerate('ab')), list(range(150)), 7])
def test_names_that_are_no_list_are_not_published(classes: object) -> None:
    content = {'meta': {'dataset_meta': {'classes': classes}}}
    with pytest.raises(CheckpointError, match='names of classes in the checkpoint must be a list of texts, got'):
        check_names(load_config(str(CONFIG)), content)


@pytest.mark.parametrize('name', ['README.md', 'config.py'])
def test_hub_replaces_nothing(name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'hub').mkdir()
    (tmp_path / 'hub' / name).write_text('mine')
    arguments = [str(CONFIG), str(trained), '--out', str(tmp_path / 'out'), '--hub', str(tmp_path / 'hub')]
    assert main(arguments) == 2
    assert f'has {name}, which it would replace' in capsys.readouterr().err
    assert (tmp_path / 'hub' / name).read_text() == 'mine' and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option', ['--out', '--hub'])
def test_folders_need_a_name(option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([str(CONFIG), 'a.pth', option, ''])
    assert f'argument {option}: it is empty' in capsys.readouterr().err


def test_a_config_that_a_run_has_saved_is_published_under_the_name_of_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / 'runs' / 'my_run' / 'config.py'
    config.parent.mkdir(parents=True)
    config.write_text(f"_base_ = {str(CONFIG)!r}\ntest_dataloader = dict(dataset=dict(data_root='/home/me/data'))\n")
    out, hub = published(trained, tmp_path, config, '--metric', 'a|b=1', '--dataset', 'My | <Data>')
    (path,) = out.glob('my_run-*.pth')
    (entry,) = yaml.safe_load(path.with_suffix('.yml').read_text())['Models']
    assert (entry['Name'], entry['Config']) == ('my_run', 'configs/my_run.py')
    text = (hub / 'README.md').read_text()
    assert '# my_run\n' in text and '| on My \\| \\<Data> | |' in text and '| a\\|b | 1 |' in text
    assert 'test_dataloader.dataset.data_root=/home/me/data' in capsys.readouterr().out
    shutil.rmtree(hub)
    published(trained, tmp_path, config, '--name', 'other')
    assert list(out.glob('other-*.pth'))
    for name in ('a/b', '..', '.'):
        assert main([str(config), str(trained), '--name', name, '--out', str(out)]) == 2


def test_tensors_that_share_memory_are_one_in_the_file() -> None:
    weight = torch.ones(3, 4)
    found = strip({'a': weight, 'b': weight, 'c': weight.t(), 'd': weight.clone()}, CONFIG)['state_dict']
    assert found['a'] is found['b'] and found['a'].data_ptr() != weight.data_ptr()
    assert torch.equal(found['c'], weight.t()) and found['d'].data_ptr() != found['a'].data_ptr()
