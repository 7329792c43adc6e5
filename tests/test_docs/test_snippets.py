"""Code in the README and the manual runs, or says why it does not; commands are understood by what they call.

A ``python`` block is a file of its own: it is executed or, if it is a config with ``_base_``, read, and its model is
built and run. A ``bash`` block without a comment ``<!-- not run: REASON -->`` above it is executed; with one, its
commands are checked: that scripts and configs exist, that options parse, that names are known.
"""

import ast
import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from ..parity import Fixture
from . import shell
from .pages import BLOCKS, PAGES, ROOT, Block

pytestmark = [pytest.mark.openmmlab, pytest.mark.usefixtures('extension')]

PYTHON = [block for block in BLOCKS if block.language == 'python']
BASH = [block for block in BLOCKS if block.language == 'bash']


def each(blocks: list[Block]) -> pytest.MarkDecorator:
    """A test for each block."""
    return pytest.mark.parametrize('block', blocks, ids=[block.name for block in blocks])


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What readers have at hand: an image, and the authors' file of the tiny variant, here with other numbers."""
    folder = tmp_path_factory.mktemp('files')
    weights = Fixture('evm_tiny_64x64').state(outnorm=False)
    content = {'state_dict': {f'module.module.{name}': value for name, value in weights.items()}}
    torch.save(content, folder / 'efficient_vmamba_tiny.ckpt')
    pixels = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / 'cat.jpg')
    return folder


@pytest.fixture
def desk(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder that looks like the repository, with those files, and with the authors' in the zoo's cache."""
    from mmengine.runner import CheckpointLoader
    from mmengine.runner import checkpoint as mmengine_checkpoint

    for name in ('configs', 'tools', 'demo', 'benchmarks', 'tests', 'mmevm'):
        (tmp_path / name).symlink_to(ROOT / name)
    cache = tmp_path / 'cache/zoo'
    cache.mkdir(parents=True)
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(files / 'efficient_vmamba_tiny.ckpt', cache)
    monkeypatch.setenv('MMEVM_CACHE', str(cache.parent))
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    monkeypatch.chdir(tmp_path)
    schemes, http = CheckpointLoader._schemes.copy(), mmengine_checkpoint.load_from_http
    yield tmp_path
    CheckpointLoader._schemes, mmengine_checkpoint.load_from_http = schemes, http


def read_config(text: str, folder: Path) -> None:
    """Read a config, build its model, and let an image through backbone and neck."""
    path = folder / 'my_config.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        assert model.extract_feat(torch.randn(1, cfg.model.backbone.get('in_channels', 3), 64, 64))


@each([block for block in PYTHON if not block.reason])
def test_python_runs(block: Block, desk: Path) -> None:
    if re.search(r'^_base_ = ', block.text, re.MULTILINE):
        return read_config(block.text, desk)
    # Blank lines in front give errors the line of the page.
    code = compile('\n' * (block.line - 1) + block.text, block.page, 'exec')
    names: dict = {'__name__': 'snippet'}
    exec(code, names)
    backbone = names['model'].get('backbone', {}) if isinstance(names.get('model'), dict) else {}
    if 'type' in backbone:  # a part of a config
        assert MODELS.build(backbone)(torch.randn(1, 3, 64, 64))


@each([block for block in PYTHON if block.reason])
def test_python_that_is_not_run_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@each(BASH)
def test_commands_are_understood(block: Block, desk: Path) -> None:
    for words in shell.commands(block.text):
        shell.check(words)


@each([block for block in BASH if not block.reason])
def test_commands_run(block: Block, desk: Path) -> None:
    for program, *arguments in shell.commands(block.text):
        assert program == 'python' and arguments[0] in ('tools/zoo.py', *_ANALYSIS), 'run it, or say why not'
        assert not shell.run_script(arguments[0], arguments[1:])


_ANALYSIS = ('tools/analysis/complexity.py', 'tools/analysis/scan_order.py')


@pytest.mark.parametrize(
    'base, name',
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'retinanet_evm_t'),
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mask_rcnn_vmamba_t_1x'),
    ],
)
def test_optimizers_are_those_of_our_configs(base: str, name: str, tmp_path: Path) -> None:
    texts = [block.text for block in PYTHON if base in block.text and '\noptim_wrapper = ' in block.text]
    assert texts
    for text in texts:
        path = tmp_path / 'my_config.py'
        path.write_text(text)
        expected = Config.fromfile(ROOT / f'configs/{name}.py').optim_wrapper
        assert Config.fromfile(path).optim_wrapper == expected


def test_every_reason_stands_above_a_block() -> None:
    reasons = sum(len(re.findall(r'^<!-- not run', page.read_text(), re.MULTILINE)) for page in PAGES)
    assert reasons == sum(bool(block.reason) for block in BLOCKS) > 0


def test_sharded_training_is_tested_as_it_is_documented() -> None:
    from ..test_tools.test_distributed import FSDP

    documented, tested = {}, {}
    exec(next(block.text for block in PYTHON if 'FSDPStrategy' in block.text), documented)
    exec(FSDP, tested)
    assert documented['strategy'] == tested['strategy']
    assert documented['runner_type'] == tested['runner_type']
