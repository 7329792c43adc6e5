"""MIM: its commands from a wheel and from an editable installation of mmevm."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from mmengine.config import Config

from ..test_install import copy_sources

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
HUB = 'https://huggingface.co/TerryPei/EfficientVMamba-Tiny/resolve/main'
Run = Callable[..., subprocess.CompletedProcess]


def run_python(python: Path | str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Runs Python with nothing of this checkout on its path; MIM keeps its cache below `cwd`."""
    kept = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    variables = {**kept, 'HOME': str(cwd), 'MMEVM_BUILD_EXT': '0', 'OMP_NUM_THREADS': '1', 'NO_PROXY': '127.0.0.1'}
    variables['MPLCONFIGDIR'] = matplotlib.get_cachedir()  # in a new home it would list all fonts again
    command = [str(python), '-W', 'ignore', *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope='module', params=['wheel', 'editable'])
def mim(request: pytest.FixtureRequest, served: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs MIM where mmevm is installed from a copy of the sources whose metafiles point to the loopback server."""
    folder = tmp_path_factory.mktemp(request.param)
    source = copy_sources(folder / 'source')
    for path in source.glob('configs/metafile*.yml'):
        path.write_text(path.read_text().replace(HUB, served[0]))
    venv = folder / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True)
    python = venv / 'bin' / 'python'
    (site,) = venv.glob('lib/python*/site-packages')
    (site / 'libraries.pth').write_text(sysconfig.get_path('purelib'))
    pip = ['-m', 'pip', '--python', python, 'install', '--no-build-isolation', '--no-deps']
    target = ['-e', source] if request.param == 'editable' else [source]
    done = run_python(sys.executable, *pip, *target, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    if request.param == 'wheel':
        shutil.rmtree(source)  # nothing may depend on it
    return lambda *arguments: run_python(python, '-c', 'from mim.cli import cli; cli()', *arguments, cwd=folder)


def test_mim_download_fetches_the_config_and_the_backbones_weights(
    mim: Run, served: tuple[str, Path], upstream_file: Path, tmp_path: Path
) -> None:
    shutil.copy(upstream_file, served[1])
    done = mim('download', 'mmevm', '--config', 'retinanet_evm_t', '--dest', tmp_path / 'got')
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'got' / upstream_file.name).read_bytes() == upstream_file.read_bytes()
    got = Config.fromfile(tmp_path / 'got/retinanet_evm_t.py')
    ours = Config.fromfile(ROOT / 'configs/retinanet_evm_t.py')
    assert got.model == ours.model
    assert got.train_dataloader == ours.train_dataloader


def test_mim_search_finds_the_papers_metric_and_our_count(mim: Run, tmp_path: Path) -> None:
    found = tmp_path / 'found.json'
    done = mim('search', 'mmevm', '--config', 'classifier_evm_s', '--json', found)
    assert done.returncode == 0, done.stderr[-3000:]
    columns = json.loads(found.read_text())
    assert columns['imagenet-1k/top_1_accuracy_(paper)'] == {'classifier_evm_s': 78.7}
    assert columns['parameters'] == {'classifier_evm_s': 11273688}


def test_mim_names_the_configs_that_there_are(mim: Run, tmp_path: Path) -> None:
    done = mim('download', 'mmevm', '--config', 'retinanet_evm_x', '--dest', tmp_path / 'got')
    assert done.returncode != 0
    assert 'retinanet_evm_t' in done.stderr


def test_mim_train_runs_our_tool_with_our_config(mim: Run, tmp_path: Path) -> None:
    done = mim('train', 'mmevm', 'retinanet_evm_t.py', '--gpus', '0', '--yes', '--work-dir', tmp_path / 'work')
    assert done.returncode != 0
    assert 'The data set is not there.' in done.stderr
    assert re.search(r'missing: /.*/data/coco/annotations/instances_train2017\.json', done.stderr)
